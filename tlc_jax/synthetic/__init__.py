"""The synthetic world: English-like text, labelled pairs and translations, made from a seed, so
that the whole system can run in minutes. Nothing in it is real language or real knowledge."""

import functools
import hashlib
import itertools
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from tlc_jax.core.errors import InputError
from tlc_jax.synthetic.documents import Writer
from tlc_jax.synthetic.grammar import English
from tlc_jax.synthetic.labelled_pairs import PairWriter
from tlc_jax.synthetic.second_language import SecondLanguage
from tlc_jax.synthetic.world import Dice, build

KINDS = ("text", "nli", "translation")
SPLITS = ("train", "valid")
LABELS = ("entailment", "neutral", "contradiction")
DOCUMENTS = {"train": 10_000, "valid": 1_600}
PAIRS = {"train": 20_000, "valid": 2_000}
TRANSLATIONS = {"train": 40_000, "valid": 1_000}


def lines(split: str, seed: int = 0) -> Iterator[str]:
    """Text: a paragraph a line, none of them in both splits, and an empty line after a document."""
    writer = Writer(build(), _dice("text", split, seed))
    for _ in range(DOCUMENTS[split]):
        drawn = ((writer.paragraph(),) for _ in range(6))
        if kept := [line for (line,) in _distinct(drawn, split)]:
            yield from (*kept, "")


def pairs(split: str, seed: int = 0) -> Iterator[tuple[str, str, str]]:
    """Premises, hypotheses and labels: every label equally often, and no pair in both splits."""
    return iter(_pairs(split, seed))


# Kept, because each evaluation of a model reads a split that takes seconds to write.
@functools.lru_cache(maxsize=2)
def _pairs(split: str, seed: int) -> list[tuple[str, str, str]]:
    dice = _dice("nli", split, seed)
    writer = PairWriter(build(), dice)
    by_label = [_distinct(writer.pairs(label), split) for label in LABELS]
    rounds = range(PAIRS[split] // len(LABELS))
    return [next(of_label) for _ in rounds for of_label in dice.shuffled(by_label)]


def translations(split: str, seed: int = 0) -> Iterator[tuple[str, str]]:
    """English sentences and their translations, none of them in both splits."""
    writer = Writer(build(), _dice("translation", split, seed))
    sentences = (writer.sentence() for _ in itertools.count())
    drawn = ((English().render(one), SecondLanguage().render(one)) for one in sentences)
    return itertools.islice(_distinct(drawn, split), TRANSLATIONS[split])


def _distinct(drawn: Iterable[tuple], split: str) -> Iterator[tuple]:
    """The examples of one split, each of them once."""
    seen = set()
    for example in drawn:
        # A checksum decides, so no example is in both splits, whatever the seeds.
        held_out = zlib.crc32("\t".join(example).encode()) % 8 == 0
        if example not in seen and held_out == (split == "valid"):
            seen.add(example)
            yield example


def _dice(kind: str, split: str, seed: int) -> Dice:
    """Random choices of their own for each kind, split and seed."""
    if split not in SPLITS:
        raise InputError(f"the synthetic world has no split {split!r}: use {' or '.join(SPLITS)}")
    return Dice((seed * len(SPLITS) + SPLITS.index(split)) * len(KINDS) + KINDS.index(kind))


@functools.cache
def fingerprint() -> str:
    """A hash of this package's source, so that it changes whenever the generated content does."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
