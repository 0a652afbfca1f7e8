"""Where text comes from: `tfds:`, `files:` and `toy:` sources, all read in the same way.

    SOURCES = SOURCE,SOURCE,...        SOURCE = [NAME=]KIND:LOCATION[@WEIGHT]
    tfds:NAME[/CONFIG][:SPLIT]         a TFDS data set (split: train)
    files:GLOB                         .txt, .tsv, .csv or .jsonl, each also .gz; .parquet
    files:FOLDER                       a data set saved to disk by Hugging Face's datasets
    files:A+B                          two line-aligned text files, pairs of translations
    toy:KIND[:SPLIT]                   synthetic (split: train)
    PLUGIN:ANYTHING                    what a plug-in makes of it

This module holds the grammar and what all kinds share. Each kind has a reader in a file of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from tlc_jax import config
from tlc_jax.core import plugins
from tlc_jax.core.errors import InputError
from tlc_jax.core.text import did_you_mean, note_once

_WITH_SPLITS = ("tfds", "toy")
_TEXT_NAMES = ("sentence", "text", "premise", "sentence1", "question1", "en")
_PAIR_NAMES = ("hypothesis", "sentence2", "question2", "fr")


@dataclasses.dataclass(frozen=True)
class Source:
    """One source.

    Attributes:
      kind: tfds, files, toy, or that of a plug-in.
      location: name of the TFDS data set, glob, kind of toy data, or what a plug-in reads.
      split: TFDS or toy split; otherwise empty.
      name: name of its metrics and predictions, unique within its spec.
      weight: share in a mixture, relative to the other sources; 0: in proportion to its size.
      spec: text that the user wrote.
    """

    kind: str
    location: str
    split: str
    name: str
    weight: float
    spec: str


@dataclasses.dataclass
class Examples:
    """Texts, or pairs of texts, with labels where the source has them.

    Attributes:
      texts: the (first) text of each example.
      pairs: the second text of each example; None for single texts.
      labels: class of each example, None where it has none; None where the source has no labels.
      label_names: classes in the source's own order, if it declares one.
      ids: number of each example in its source (TFDS `idx`, else rows from 0).
      places: file and line number of each example, as two lists; None: not from files.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[str | None] | None
    label_names: tuple[str, ...] | None
    ids: list[int]
    places: tuple[list[str], list[int]] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def place(self, index: int) -> str:
        """The place of an example, for error messages."""
        if self.places is None:
            return f"example {self.ids[index]}"
        paths, numbers = self.places
        unit = "row" if paths[index].endswith((".parquet", ".arrow")) else "line"
        return f"{paths[index]}, {unit} {numbers[index]}"


class Reader(Protocol):
    """Reads one source. Errors about its content are InputErrors that say where."""

    def check(self) -> None:
        """Refuses a source that cannot be opened or is empty, without reading all of it."""

    def fingerprint(self) -> str:
        """A text that changes whenever the content may have changed. Reads no content."""

    def size_hint(self) -> int:
        """The approximate size of the text in bytes, for progress bars; 0: unknown."""

    def lines(self) -> Iterator[str]:
        """Text for pretraining, a line at a time without line ends; "" ends a document."""

    def examples(self) -> Examples:
        """All examples in order, with their labels where there are any."""

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Sentences and their translations, in order."""


def open_source(source: Source, data: config.Data) -> Reader:
    """The reader of a source.

    Args:
      source: the source.
      data: names of columns, and the folder of TFDS data sets.

    Raises:
      InputError: the source does not exist.
    """
    # Imported on demand: TFDS alone takes seconds.
    if source.kind == "files":
        from tlc_jax.data.text_files import TextFiles

        return TextFiles(source.location, data)
    if source.kind == "tfds":
        from tlc_jax.data.tfds_source import TfdsSplit

        return TfdsSplit(source.location, source.split, data)
    if source.kind == "toy":
        from tlc_jax.data.toy_source import ToySplit

        return ToySplit(source.location, source.split)
    found: Reader = plugins.find("source", source.kind, "")(source.location, data)
    return found


def check_sources(spec: str, field: str, data: config.Data) -> tuple[Source, ...]:
    """Parses `spec` and checks that every source can be opened.

    Args:
      spec: comma-joined sources.
      field: setting that they come from, such as "data.train", for error messages.
      data: names of columns, and the folder of TFDS data sets.
    """
    if not spec.strip():
        raise InputError(f"config.{field} is empty: name a source, such as files:*.txt or toy:text")
    try:
        sources = parse_sources(spec)
        for source in sources:
            open_source(source, data).check()
    except InputError as error:
        raise InputError(f"config.{field}: {error}") from None
    return sources


def check_test_sources(data: config.Data) -> None:
    """Checks data.test, which may be empty.

    Raises:
      InputError: a source cannot be opened, also stands in data.train or data.valid, or has the
        name of one in data.valid.
    """
    if not data.test.strip():
        return
    for test in check_sources(data.test, "data.test", data):
        for field, spec in (("data.train", data.train), ("data.valid", data.valid)):
            for source in parse_sources(spec) if spec.strip() else ():
                place = (source.kind, source.location, source.split)
                if place == (test.kind, test.location, test.split):
                    raise InputError(
                        f"config.data.test: {test.spec} is in {field} too: test on other text"
                    )
                if field == "data.valid" and source.name == test.name:
                    raise InputError(
                        f"config.data.test: {field} has a split {test.name!r} too: "
                        f"name this one, such as test={test.kind}:{test.location}"
                    )


def parse_sources(spec: str) -> tuple[Source, ...]:
    """The sources of a comma-joined spec.

    Raises:
      InputError: the syntax is wrong, a name is used twice, or only some sources have weights.
    """
    parsed = [_parse(part.strip(), spec) for part in spec.split(",")]
    given = [source.name for source in parsed if source.name]
    for name in given:
        if given.count(name) > 1:
            raise InputError(f"two sources of {spec!r} are named {name!r}: give each its own name")
    if 0 < sum(source.weight > 0 for source in parsed) < len(parsed):
        raise InputError(f"some sources of {spec!r} have no weight (@W): weigh all of them or none")
    return _with_names(parsed)


def _parse(part: str, spec: str) -> Source:
    """One source; its name is empty where the user gave none."""
    named = re.match(r"([\w.-]+)=(.*)", part)
    name, rest = named.groups() if named else ("", part)
    kind, _, location = rest.partition(":")
    if not location:
        raise InputError(f"source {part!r} in {spec!r} is not KIND:LOCATION, such as files:*.txt")
    plugins.find("source", kind, f"{part!r} in {spec!r}: ")
    location, weight = _split_weight(location, part, kind)
    split = ""
    if kind in _WITH_SPLITS:
        location, _, split = location.partition(":")
        split = split or "train"
    if (kind, location) == ("toy", "enfr"):
        note_once("toy:enfr is now toy:translation; the old name goes with the next release")
        location = "translation"
    return Source(kind, location, split, name, weight, part)


def _split_weight(location: str, part: str, kind: str) -> tuple[str, float]:
    head, at, tail = location.rpartition("@")
    try:
        weight = float(tail) if at else 0.0
    except ValueError:
        if kind not in _WITH_SPLITS:  # file names may contain @
            return location, 0.0
        raise InputError(f"source {part!r}: the weight {tail!r} after @ is not a number") from None
    if at and not 0 < weight < math.inf:  # refuses nan too
        raise InputError(f"source {part!r}: the weight after @ must be above 0")
    return head or location, weight


def _with_names(parsed: Sequence[Source]) -> tuple[Source, ...]:
    """Names the sources without a name: briefly if that is unique, else in full, or numbered."""
    taken = {source.name for source in parsed}
    short = [_short_name(source) for source in parsed]
    named = []
    for source, name in zip(parsed, short, strict=True):
        if not source.name:
            if short.count(name) > 1:
                name = _slug(f"{source.location}_{source.split}")
            numbered = (f"{name}_{number}" for number in itertools.count(2))
            name = next(each for each in itertools.chain([name], numbered) if each not in taken)
            taken.add(name)
            source = dataclasses.replace(source, name=name)
        named.append(source)
    return tuple(named)


def _short_name(source: Source) -> str:
    if source.kind in _WITH_SPLITS:
        return _slug(source.split)
    folder, _, file = source.location.rpartition("/")
    stem = re.sub(r"\.\w+(\.gz)?$", "", file)
    # "*.txt" tells less than the folder it is in.
    if not _slug(stem) or any(sign in stem for sign in "*?["):
        stem = folder.rpartition("/")[2] or stem
    return _slug(stem) or "files"


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text).strip("_.-")


class Columns(NamedTuple):
    """Names of the columns to read; `pair` and `label` are None where there are none."""

    text: str
    pair: str | None
    label: str | None


def choose_columns(names: Sequence[str], data: config.Data, where: str) -> Columns:
    """Picks columns by the config, else by their usual names.

    Raises:
      InputError: a configured column does not exist, or no column has a usual name for text.
    """
    for field, name in (("text", data.text), ("pair", data.pair), ("label", data.label)):
        if name and name not in names and (field, name) != ("pair", "-"):
            hint = did_you_mean(name, names)
            raise InputError(f"{where} has no column {name!r} (config.data.{field}){hint}")

    def usual(known: Sequence[str]) -> str:
        return next((name for name in known if name in names), "")

    text, pair = data.text or usual(_TEXT_NAMES), data.pair or usual(_PAIR_NAMES)
    if not data.text and {"question", "sentence"} <= set(names):
        text, pair = "question", data.pair or "sentence"  # QNLI: the sentence comes second
    if not text:
        choice = f"set data.text to one of {', '.join(names)}"
        raise InputError(f"{where} has no column with a usual name for text: {choice}")
    label = data.label or usual(("label",))
    return Columns(text, None if pair in ("-", "", text) else pair, label or None)


def document(*texts: str | None) -> Iterator[str]:
    """The lines of a document that are not blank, and "" at its end."""
    for text in texts:
        yield from (line for line in (text or "").split("\n") if line.strip())
    yield ""
