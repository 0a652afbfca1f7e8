"""Where text comes from: `tfds:`, `files:` and `toy:` sources behind one interface.

    SOURCES = SOURCE,SOURCE,...        SOURCE = [NAME=]KIND:LOCATION[@WEIGHT]
    tfds:NAME[/CONFIG][:SPLIT]         a TFDS data set (split: train)
    files:GLOB                         .txt, .tsv, .csv or .jsonl, each also .gz
    files:A+B                          two line-aligned text files, pairs of translations
    toy:KIND[:SPLIT]                   embedded and synthetic (split: train)

This module knows the grammar and who answers; reading is done by `files`, `tfds_source` and
`synthetic`, which are imported when they are needed.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import re
from collections.abc import Iterator, Sequence

from tlc_jax import config
from tlc_jax.core.errors import InputError
from tlc_jax.core.text import did_you_mean
from tlc_jax.data.examples import Examples

log = logging.getLogger(__name__)

KINDS = ("tfds", "files", "toy")
_TOY_SEED = 0  # the toy world is one world, whatever the seed of a run


@dataclasses.dataclass(frozen=True)
class Source:
    """One source.

    Attributes:
      kind: who reads it, one of KINDS.
      location: TFDS name, glob or toy kind.
      split: TFDS or toy split; empty for files.
      name: names its metrics and predictions; unique within its spec.
      weight: its share in a mixture relative to the others; 0: by its size.
      spec: as the user wrote it.
    """

    kind: str
    location: str
    split: str
    name: str
    weight: float
    spec: str


def parse_sources(spec: str) -> tuple[Source, ...]:
    """The sources of a comma-joined spec.

    Raises:
      InputError: bad syntax, a name used twice, or a mixture in which only some sources are weighed.
    """
    parts = [part.strip() for part in spec.split(",")]
    parsed = [_parse(part, spec) for part in parts]
    given = [source.name for source in parsed if source.name]
    for name in given:
        if given.count(name) > 1:
            raise InputError(f"two sources of {spec!r} are named {name!r}: give each its own name")
    weighed = sum(source.weight > 0 for source in parsed)
    if weighed not in (0, len(parsed)):
        raise InputError(
            f"only some sources of {spec!r} have a weight (@W): weigh all of them or none"
        )
    return _with_names(parsed)


def check_sources(spec: str, field: str, data: config.Data) -> tuple[Source, ...]:
    """Parses `spec` and makes sure that every source can be opened, without reading it.

    Args:
      spec: the sources.
      field: the setting they come from, such as "data.train"; errors name it.
      data: where TFDS data sets lie.
    """
    if not spec.strip():
        raise InputError(
            f"config.{field} is empty: name a source, such as files:corpus/*.txt or toy:text"
        )
    try:
        found = parse_sources(spec)
        for source in found:
            _check(source, data)
    except InputError as error:
        raise InputError(f"config.{field}: {error}") from None
    return found


def lines(source: Source, data: config.Data) -> Iterator[str]:
    """The text of a source for pretraining, one line at a time without its line end; "" ends a document."""
    if source.kind == "files":
        from tlc_jax.data import text_files as files

        return files.lines(source.location, data)
    if source.kind == "tfds":
        from tlc_jax.data import tfds_source

        return tfds_source.lines(source.location, source.split, data)
    return _toy_lines(source)


def examples(source: Source, data: config.Data) -> Examples:
    """All examples of a labelled (or merely labellable) source, in order."""
    if source.kind == "files":
        from tlc_jax.data import text_files as files

        return files.examples(source.location, data)
    if source.kind == "tfds":
        from tlc_jax.data import tfds_source

        return tfds_source.examples(source.location, source.split, data)
    return _toy_examples(source)


def pairs(source: Source, data: config.Data) -> Iterator[tuple[str, str]]:
    """Sentences with their translations, in order."""
    if source.kind == "files":
        from tlc_jax.data import text_files as files

        return files.pairs(source.location, data)
    if source.kind == "tfds":
        from tlc_jax.data import tfds_source

        return tfds_source.pairs(source.location, source.split, data)
    return _toy_pairs(source)


def fingerprint(source: Source, data: config.Data) -> str:
    """Changes whenever the text of the source may have changed. Cheap: no text is read."""
    if source.kind == "toy":
        from tlc_jax import synthetic

        return f"toy:{source.location}:{source.split}:{synthetic.fingerprint()}"
    columns = f"text={data.text} pair={data.pair}"
    if source.kind == "files":
        from tlc_jax.data import text_files as files

        return f"{files.fingerprint(source.location)} {columns}"
    from tlc_jax.data import tfds_source

    return f"{tfds_source.fingerprint(source.location, source.split, data)} {columns}"


def size_hint(source: Source, data: config.Data) -> int:
    """About how many bytes of text a source has, for progress bars; 0: unknown."""
    if source.kind == "files":
        from tlc_jax.data import text_files as files

        return files.size_hint(source.location)
    if source.kind == "tfds":
        from tlc_jax.data import tfds_source

        return tfds_source.size_hint(source.location, source.split, data)
    return 0


def _parse(part: str, spec: str) -> Source:
    """One source, its name empty where the user gave none."""
    named = re.match(r"([\w.-]+)=(.*)", part)
    name, rest = (named[1], named[2]) if named else ("", part)
    kind, colon, location = rest.partition(":")
    if not colon or not location:
        raise InputError(
            f"source {part!r} in {spec!r} is not KIND:LOCATION, such as files:corpus/*.txt"
        )
    if kind not in KINDS:
        raise InputError(f"source {part!r} is of unknown kind {kind!r}{did_you_mean(kind, KINDS)}")
    location, weight = _split_weight(location, part, kind)
    split = ""
    if kind != "files":
        location, _, split = location.partition(":")
        split = split or "train"
    if (kind, location) == ("toy", "enfr"):
        _warn_of_old_name()
        location = "translation"
    return Source(kind, location, split, name, weight, part)


@functools.cache  # one line, however often a spec is parsed
def _warn_of_old_name() -> None:
    log.warning("toy:enfr is now toy:translation; the old name goes with the next release")


def _split_weight(location: str, part: str, kind: str) -> tuple[str, float]:
    head, at, tail = location.rpartition("@")
    if not at:
        return location, 0.0
    try:
        weight = float(tail)
    except ValueError:
        if kind == "files":  # file names may contain @
            return location, 0.0
        raise InputError(f"source {part!r}: the weight {tail!r} after @ is not a number") from None
    if not (weight > 0 and math.isfinite(weight)):
        raise InputError(f"source {part!r}: the weight after @ must be above 0")
    return head, weight


def _with_names(parsed: Sequence[Source]) -> tuple[Source, ...]:
    """Names those that have none: briefly if that is unique, else in full, else with a number."""
    taken = {source.name for source in parsed if source.name}
    short = [_short_name(source) for source in parsed]
    named = []
    for source, name in zip(parsed, short, strict=True):
        if not source.name:
            if short.count(name) > 1:
                name = _slug(f"{source.location}_{source.split}")
            unique, number = name, 2
            while unique in taken:
                unique, number = f"{name}_{number}", number + 1
            taken.add(unique)
            source = dataclasses.replace(source, name=unique)
        named.append(source)
    return tuple(named)


def _short_name(source: Source) -> str:
    if source.kind != "files":
        return _slug(source.split)
    folder, _, file = source.location.rpartition("/")
    stem = re.sub(r"\.\w+(\.gz)?$", "", file)
    if not _slug(stem) or any(sign in stem for sign in "*?["):
        stem = folder.rpartition("/")[2] or stem
    return _slug(stem) or "files"


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text).strip("_.-")


def _check(source: Source, data: config.Data) -> None:
    if source.kind == "files":
        from tlc_jax.data import text_files as files

        files.check(source.location)
    elif source.kind == "tfds":
        from tlc_jax.data import tfds_source

        tfds_source.check(source.location, source.split, data)
    else:
        _check_toy(source)


def _check_toy(source: Source) -> None:
    from tlc_jax import synthetic

    kind, split = source.location, source.split
    if kind not in synthetic.KINDS:
        raise InputError(f"unknown toy data set {kind!r}{did_you_mean(kind, synthetic.KINDS)}")
    if split not in synthetic.SPLITS:
        raise InputError(
            f"toy:{kind} has no split {split!r}{did_you_mean(split, synthetic.SPLITS)}"
        )


def _toy_lines(source: Source) -> Iterator[str]:
    from tlc_jax import synthetic

    _check_toy(source)
    if source.location == "text":
        yield from synthetic.lines(source.split, _TOY_SEED)
    elif source.location == "translation":
        for sentence, translation in synthetic.translations(source.split, _TOY_SEED):
            yield from (sentence, translation, "")
    else:
        for premise, hypothesis, _ in synthetic.pairs(source.split, _TOY_SEED):
            yield from (premise, hypothesis, "")


def _toy_pairs(source: Source) -> Iterator[tuple[str, str]]:
    from tlc_jax import synthetic

    _check_toy(source)
    if source.location != "translation":
        raise InputError(f"{source.spec} has no translations: toy:translation has")
    yield from synthetic.translations(source.split, _TOY_SEED)


def _toy_examples(source: Source) -> Examples:
    from tlc_jax import synthetic

    _check_toy(source)
    if source.location == "translation":
        raise InputError(f"{source.spec} has translations and no labels")
    if source.location == "text":
        texts = [line for line in synthetic.lines(source.split, _TOY_SEED) if line]
        return Examples(texts, None, None, None, list(range(len(texts))))
    drawn = synthetic.pairs(source.split, _TOY_SEED)
    premises, hypotheses, labels = (list(column) for column in zip(*drawn, strict=True))
    ids = list(range(len(labels)))
    return Examples(premises, hypotheses, labels, synthetic.LABELS, ids)
