"""A tokenizer of the toy language, shared by the tests of exported tokenizers."""

from __future__ import annotations

import pytest

from tests.data.conftest import make_lines
from tlc_jax.data.sentencepiece_tokenizer import SentencePieceTokenizer, train_tokenizer


@pytest.fixture(scope="session", params=["letters", "markup"])
def tokenizer(request) -> SentencePieceTokenizer:
    """Of text that has none of the signs in names of special pieces, and of text that has all."""
    lines = make_lines(300)
    if request.param == "markup":
        lines += ["bas < dus > fin / <0x41> 0123456789ABCDEF x <a </b>"] * 20
    return train_tokenizer(lines, vocab_size=420, train_bytes=100_000)
