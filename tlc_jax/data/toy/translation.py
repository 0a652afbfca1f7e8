"""English sentences of the toy world with their French translations, from one grammar for both languages.

A sentence is drawn once, as a structure of phrases and clauses, and rendered in both languages, so every pair is an
exact translation. What makes it hard is what French asks and English leaves to the context: genders, hence the forms
of articles, adjectives, participles and of "it" and "they"; tenses; the order of words. Where English alone does not
tell a gender ("the baker"), the sentence does ("... lost her key"), or it is masculine, as is whoever says "I".
French questions end in a space and a question mark, as it is printed in France.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterator

from tlc_jax.core.errors import InputError
from tlc_jax.data.toy import dictionary_tables as words
from tlc_jax.data.toy.dice import Dice
from tlc_jax.data.toy.sentences import Writer
from tlc_jax.data.toy.text import belongs
from tlc_jax.data.toy.world import build

TRANSLATIONS = {"train": 40_000, "valid": 1_000}


def translations(split: str, seed: int = 0) -> Iterator[tuple[str, str]]:
    """English and French sentences; none of one split is in the other, whatever the seeds, or twice in one.

    Raises:
      InputError: no such split.
    """
    if split not in TRANSLATIONS:
        raise InputError(f"the toy world has no split {split!r}: use {' or '.join(TRANSLATIONS)}")
    splits = [*TRANSLATIONS]
    writer = Writer(build(), Dice(seed * len(splits) + splits.index(split)))
    seen: set[str] = set()
    while len(seen) < TRANSLATIONS[split]:
        english, french_ = writer.sentence()
        if english not in seen and belongs(english, split):
            seen.add(english)
            yield english, french_


@functools.cache
def fingerprint() -> str:
    """Changes whenever the generated content does: a hash of the words and of what is generated first."""
    tables = (words.NOUN_TABLE, words.ADJECTIVE_TABLE, words.VERB_TABLE, words.GIFT_TABLE, words.NUMBER_TABLE)
    digest = hashlib.sha256(repr((TRANSLATIONS, tables)).encode())
    for split in TRANSLATIONS:
        for pair in itertools.islice(translations(split), 1000):
            digest.update("\t".join(pair).encode())
    return digest.hexdigest()[:16]
