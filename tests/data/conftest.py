"""A tiny corpus and a tokenizer of it, shared by these tests."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tlc_jax.data.sentencepiece_tokenizer import train_tokenizer
from tlc_jax.data.tokenizer import Tokenizer

WORDS = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in ("", "n", "s", "rt")]


def make_lines(count: int, seed: int = 0) -> list[str]:
    """Lines of made-up words; every fourth is blank."""
    dice = random.Random(seed)
    return [
        "" if n % 4 == 3 else " ".join(dice.choices(WORDS, k=dice.randint(3, 20)))
        for n in range(count)
    ]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(make_lines(400), vocab_size=440, train_bytes=100_000)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A text file of 400 lines, 100 documents."""
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(make_lines(400)) + "\n")
    return path
