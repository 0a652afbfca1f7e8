"""What every source of records shares: which columns hold text and labels, and what a list of examples is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tlc_jax import config
from tlc_jax.core.errors import InputError
from tlc_jax.core.text import did_you_mean

TEXT_NAMES = ("sentence", "text", "premise", "sentence1", "question1", "en")
PAIR_NAMES = ("hypothesis", "sentence2", "question2", "fr")
LABEL_NAME = "label"
UNLABELLED = ("", "-")  # an empty cell, and SNLI's mark for "the annotators disagree"


@dataclasses.dataclass
class Examples:
    """Texts, or pairs of texts, with labels where the source has them.

    Attributes:
      texts: the (first) text of each example.
      pairs: the second texts; None for single texts.
      labels: names of classes, None for an example without one; None where the source has no label column.
      label_names: the classes in the source's own order, where it declares one.
      ids: numbers of the examples in their source (TFDS `idx`, else rows from 0).
      places: "file:line" of each example, as (first example, file) of every file and a line number of every example.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[str | None] | None
    label_names: tuple[str, ...] | None
    ids: list[int]
    places: tuple[list[tuple[int, str]], list[int]] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def place(self, index: int) -> str:
        """Where an example stands, for error messages."""
        if self.places is None:
            return f"example {self.ids[index]}"
        files, numbers = self.places
        path = next(path for first, path in reversed(files) if first <= index)
        return f"{path}, line {numbers[index]}"


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns that matter; `pair` and `label` are None where there are none."""

    text: str
    pair: str | None
    label: str | None


def choose_columns(names: Sequence[str], data: config.Data, where: str) -> Columns:
    """Picks columns by the config, else by the usual names.

    Raises:
      InputError: a configured column does not exist, or no column has a usual name for text.
    """
    if not data.text and {"question", "sentence"} <= set(
        names
    ):  # QNLI: `sentence` is the second text there
        text, pair = "question", _configured(data.pair, "data.pair", names, where) or "sentence"
    else:
        text = _configured(data.text, "data.text", names, where) or _first(TEXT_NAMES, names)
        pair = _configured(data.pair, "data.pair", names, where) or _first(PAIR_NAMES, names)
    if not text:
        raise InputError(
            f"{where} has no column with a usual name for text: set data.text to one of {', '.join(names)}"
        )
    label = _configured(data.label, "data.label", names, where) or _first((LABEL_NAME,), names)
    return Columns(text, None if pair in ("-", "", text) else pair, label or None)


def _configured(name: str, field: str, names: Sequence[str], where: str) -> str:
    if name and name not in names and not (field == "data.pair" and name == "-"):
        raise InputError(
            f"{where} has no column {name!r} (config.{field}){did_you_mean(name, names)}"
        )
    return name


def _first(usual: Sequence[str], names: Sequence[str]) -> str:
    return next((name for name in usual if name in names), "")
