from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from tlc_jax.core.errors import InputError
from tlc_jax.data.sentencepiece_tokenizer import sample_lines, train_tokenizer
from tlc_jax.data.tokenizer import FIRST_ORDINARY, OURS, SpecialIds, Tokenizer

# Everything that a tokenizer is known to trip over, beside ordinary characters.
ODD = "\u2581 \t\n\r\0\x01\x7f\ufeff\u2585\u2028\ue000\U0010ffffé日😀"
text = st.text(
    st.one_of(st.sampled_from(ODD + "abn<>/sk"), st.characters(exclude_categories=("Cs",))),
    max_size=40,
)


@given(texts=st.lists(text, max_size=5))
@example(
    texts=[
        "",
        " ",
        "  a  b ",
        "\u2581",
        "a\u2581\u2581 b\u2581",
        "<s></s><mask><pad><unk><0x41>",
        "\0",
        "\ufeff",
    ]
)
def test_any_text_decodes_to_itself(tokenizer: Tokenizer, texts: list[str]) -> None:
    encoded = tokenizer.encode(texts)
    assert [tokenizer.decode(ids) for ids in encoded] == texts
    assert all(FIRST_ORDINARY <= id < tokenizer.vocab_size for ids in encoded for id in ids)


def test_pieces_of_a_word_do_not_depend_on_its_place(tokenizer: Tokenizer) -> None:
    first, second = tokenizer.encode(["bas"])[0], tokenizer.encode(["dus bas"])[0]
    assert second[-len(first) :] == first


def test_special_pieces_have_their_ids_and_decode_to_nothing(tokenizer: Tokenizer) -> None:
    assert tokenizer.special == OURS == SpecialIds(0, 2, (3,), 3, 4, (0, 1, 2, 3, 4))
    ids = tokenizer.encode(["bas dus"])[0]
    assert tokenizer.decode([2, *ids, 3, 4, 1, 0, 0]) == "bas dus"


def test_the_number_of_threads_changes_nothing(tokenizer: Tokenizer) -> None:
    texts = [f"bas {n} \u2581 dus" for n in range(100)]
    assert tokenizer.encode(texts, threads=1) == tokenizer.encode(texts, threads=3)


def test_training_is_deterministic_and_gives_the_vocabulary_asked_for() -> None:
    lines = ["bas dus fin gom", "fin gom bas", "nul pak dus"] * 30
    one, two = (train_tokenizer(lines, 279, 10_000) for _ in range(2))
    assert one.hash == two.hash and one.vocab_size == 279
    assert train_tokenizer(lines, 277, 10_000).hash != one.hash


def test_a_saved_tokenizer_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "deep" / "t.model")
    loaded = Tokenizer.load(tmp_path / "deep" / "t.model")
    assert loaded.hash == tokenizer.hash
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["t.model"]


@pytest.mark.parametrize(
    ("size", "words"), [(8000, "at most"), (280, "at least"), (100, "at least")]
)
def test_a_vocabulary_that_does_not_fit_the_text_is_refused_with_a_size_that_does(
    size: int, words: str
) -> None:
    lines = ["the quick brown fox jumps over the lazy dog"] * 20
    with pytest.raises(InputError, match=f"vocab_size={size} is too .*{words} (\\d+)") as raised:
        train_tokenizer(lines, size, 10_000)
    good = int(str(raised.value).partition(words)[2].split()[0].rstrip(","))
    assert train_tokenizer(lines, good, 10_000).vocab_size == good


def test_empty_text_and_tiny_vocabularies_are_refused() -> None:
    for size in (0, -5):
        with pytest.raises(InputError, match=f"vocab_size={size} is too small"):
            train_tokenizer(["bas dus"] * 20, size, 1000)
    with pytest.raises(InputError, match="text to train a tokenizer on is empty"):
        train_tokenizer(["", ""], 300, 1000)


def test_foreign_and_broken_models_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "t.model"
    with pytest.raises(InputError, match=r"t\.model cannot be read: No such file"):
        Tokenizer.load(path)
    for content in (b"", b"not a model", tokenizer.model[: len(tokenizer.model) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"t\.model is not a SentencePiece model"):
            Tokenizer.load(path)
    path.write_bytes(tokenizer.model.replace(b"<mask>", b"<musk>"))
    with pytest.raises(InputError, match="begins with the pieces .*<musk>"):
        Tokenizer.load(path)


@given(sizes=st.lists(st.integers(0, 60), min_size=1, max_size=300), most=st.integers(60, 2000))
def test_a_sample_is_in_order_and_within_its_limit(sizes: list[int], most: int) -> None:
    lines = [f"{n:03d}" + "x" * size for n, size in enumerate(sizes)]
    sample = sample_lines(lines, most)
    assert sample == sorted(sample) and set(sample) <= set(lines)
    total = sum(map(len, lines))
    assert sum(map(len, sample)) <= max(most, len(sample[0]))
    assert sample == lines or total > most


def test_a_sample_is_spread_over_the_text() -> None:
    lines = [f"{n:06d}" for n in range(10_000)]
    places = [int(line) for line in sample_lines(lines, 600)]
    assert 60 <= len(places) <= 100
    gaps = [b - a for a, b in zip([0, *places], [*places, 10_000], strict=True)]
    assert max(gaps) <= 3 * 10_000 / len(places)
