from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from tlc_jax.data import packing
from tlc_jax.data.tokenizer import BOS, EOS, Tokenizer, dtype_for

documents = st.lists(
    st.lists(st.text("bdfgasn é\u2581", min_size=1, max_size=30), min_size=1, max_size=4),
    max_size=8,
)


def packed(
    lines: list[str], tokenizer: Tokenizer, length: int, threads: int = 2
) -> tuple[np.ndarray, Counter[str]]:
    out, counts = io.BytesIO(), Counter()
    for counts in packing.pack(lines, tokenizer, length, out, threads):  # noqa: B007
        pass
    return np.frombuffer(out.getvalue(), dtype_for(tokenizer.vocab_size)).reshape(
        -1, length
    ), counts


@given(
    documents=documents,
    length=st.integers(8, 40),
    blanks=st.integers(1, 3),
    chunk=st.integers(1, 100),
)
def test_concatenated_rows_are_the_stream(
    tokenizer: Tokenizer, documents: list[list[str]], length: int, blanks: int, chunk: int
) -> None:
    lines = [""] + [line for document in documents for line in [*document, *[""] * blanks]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_CHUNK", chunk)
        table, counts = packed(lines, tokenizer, length)
    stream = [
        id for document in documents for ids in [*tokenizer.encode(document), [EOS]] for id in ids
    ]
    whole = len(stream) // (length - 1) * (length - 1)
    assert table[:, 1:].ravel().tolist() == stream[:whole]
    assert (table[:, 0] == BOS).all()
    assert (counts["rows"], counts["tokens"]) == (len(table), len(stream))
    assert counts["documents"] == len(documents)


def test_a_last_document_without_a_blank_line_is_closed(tokenizer: Tokenizer) -> None:
    (a, counts), (b, same) = (
        packed(lines, tokenizer, 8) for lines in (["bas dus " * 9], ["bas dus " * 9, ""])
    )
    np.testing.assert_array_equal(a, b)
    assert counts == same and counts["documents"] == 1


def test_threads_change_nothing(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_CHUNK", 50)
    lines = [f"bas dus {n}" for n in range(300)]
    np.testing.assert_array_equal(
        packed(lines, tokenizer, 16, 1)[0], packed(lines, tokenizer, 16, 4)[0]
    )


def test_text_is_read_only_a_little_ahead_of_what_is_packed(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_CHUNK", 10)
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "bas dus fin gom"

    counts = packing.pack(endless(), tokenizer, 16, io.BytesIO(), threads=2)
    for _ in range(50):
        next(counts)
    counts.close()
    assert read < 60


def test_ids_are_stored_in_two_bytes_where_they_fit() -> None:
    assert dtype_for(1 << 16) == np.uint16 and dtype_for((1 << 16) + 1) == np.uint32
