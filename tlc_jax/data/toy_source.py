"""The synthetic world as a source: text, labelled pairs and translations that need no files."""

from __future__ import annotations

from collections.abc import Iterator

from tlc_jax import synthetic
from tlc_jax.core.errors import InputError
from tlc_jax.core.text import did_you_mean
from tlc_jax.data.sources import Examples, document


class ToySplit:
    """A `toy:` source; see `sources.Reader`.

    The seed of the run plays no part: there is one toy world.
    """

    def __init__(self, kind: str, split: str) -> None:
        if kind not in synthetic.KINDS:
            raise InputError(f"unknown toy data set {kind!r}{did_you_mean(kind, synthetic.KINDS)}")
        if split not in synthetic.SPLITS:
            hint = did_you_mean(split, synthetic.SPLITS)
            raise InputError(f"toy:{kind} has no split {split!r}{hint}")
        self._kind, self._split = kind, split

    def check(self) -> None:
        """Does nothing: the source is known."""

    def fingerprint(self) -> str:
        return f"toy:{self._kind}:{self._split}:{synthetic.fingerprint()}"

    def size_hint(self) -> int:
        return 0

    def lines(self) -> Iterator[str]:
        if self._kind == "text":
            return synthetic.lines(self._split)
        drawn = synthetic.pairs if self._kind == "nli" else synthetic.translations
        return (line for texts in drawn(self._split) for line in document(*texts[:2]))

    def pairs(self) -> Iterator[tuple[str, str]]:
        if self._kind != "translation":
            raise InputError(f"toy:{self._kind} has no translations: toy:translation has")
        return synthetic.translations(self._split)

    def examples(self) -> Examples:
        if self._kind == "translation":
            raise InputError("toy:translation has translations and no labels")
        if self._kind == "text":
            texts = [line for line in synthetic.lines(self._split) if line]
            return Examples(texts, None, None, None, list(range(len(texts))))
        drawn = synthetic.pairs(self._split)
        premises, hypotheses, labels = (list(column) for column in zip(*drawn, strict=True))
        return Examples(premises, hypotheses, labels, synthetic.LABELS, list(range(len(labels))))
