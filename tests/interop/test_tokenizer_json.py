"""Our tokenizer as Hugging Face's libraries read it gives the same ids."""

from __future__ import annotations

import json
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, example, given, settings

from tests.data.conftest import make_lines
from tests.data.test_tokenizer import ODD
from tlc_jax.data.imported_tokenizer import ImportedTokenizer, from_word_pieces
from tlc_jax.data.sentencepiece_tokenizer import SPECIAL_PIECES, SentencePieceTokenizer
from tlc_jax.data.tokenizer import BOS, EOS, MASK
from tlc_jax.interop.tokenizer_json import tokenizer_files

NO_SPACE_SIGN = ODD.replace("\u2581", "")
TEXT = st.text(
    st.one_of(
        st.sampled_from(NO_SPACE_SIGN + "abn<>/sk0x4A"),
        st.characters(exclude_categories=("Cs",), exclude_characters="\u2581"),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def theirs(tokenizer: SentencePieceTokenizer, tmp_path_factory):
    """The tokenizer as transformers loads it."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tokenizer")
    for name, content in tokenizer_files(tokenizer, 24, 0).items():
        (folder / name).write_bytes(content)
    loaded = transformers.AutoTokenizer.from_pretrained(folder)
    assert isinstance(loaded, transformers.PreTrainedTokenizerFast)
    return loaded


def test_the_vocabulary_is_ours_and_the_special_pieces_keep_their_ids(
    tokenizer: SentencePieceTokenizer,
) -> None:
    content = json.loads(tokenizer_files(tokenizer, 24, 0)["tokenizer.json"])
    pieces = [piece for piece, _ in content["model"]["vocab"]]
    assert len(set(pieces)) == tokenizer.vocab_size
    assert (
        tuple(pieces[:5])
        == SPECIAL_PIECES
        == tuple(token["content"] for token in content["added_tokens"])
    )
    assert [token["id"] for token in content["added_tokens"]] == [0, 1, 2, 3, 4]
    assert pieces[5] == "<0x00>" and pieces[260] == "<0xFF>"
    scores = [score for _, score in content["model"]["vocab"]]
    assert max(scores[:261]) < 100 * min(scores[261:]) < 0


@pytest.mark.peers
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXT)
@example(text="")
@example(text=" ")
@example(text="  bas  dus ")
@example(text="<s></s><mask><pad><unk><0x41> <0xE2><0x96><0x81> x<0x4")
@example(text="\0\ufeff\ufffd")
def test_ids_are_the_same_for_any_text(
    tokenizer: SentencePieceTokenizer, theirs, text: str
) -> None:
    ids = tokenizer.encode([text])[0]
    found = theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert found == ids
    assert theirs.decode(ids) == text


@pytest.mark.peers
def test_ids_are_the_same_for_running_text(tokenizer: SentencePieceTokenizer, theirs) -> None:
    lines = [line for line in make_lines(400, seed=7) if line]
    assert theirs(lines, add_special_tokens=False)["input_ids"] == tokenizer.encode(lines)


@pytest.mark.peers
def test_texts_and_pairs_get_their_special_pieces_and_padding(
    tokenizer: SentencePieceTokenizer, theirs
) -> None:
    a, b = tokenizer.encode(["bas dus", "fin"])
    single = [BOS, *a, EOS]
    pair = [BOS, *a, EOS, *b, EOS]
    assert theirs("bas dus")["input_ids"] == single
    assert theirs("bas dus", "fin")["input_ids"] == pair
    batch = theirs(["bas dus", "fin"], padding=True)
    assert batch["input_ids"][1] == [BOS, *b, EOS] + [0] * (len(a) - len(b))
    assert batch["attention_mask"][1] == [1] * (len(b) + 2) + [0] * (len(a) - len(b))
    assert set(batch) == {"input_ids", "attention_mask"}
    assert theirs.model_max_length == 24


@pytest.mark.peers
def test_a_mask_in_a_text_stands_for_a_word_with_its_space(
    tokenizer: SentencePieceTokenizer, theirs
) -> None:
    first, second, third = (tokenizer.encode([word])[0] for word in ("bas", "dus", "fin"))
    assert tokenizer.encode(["bas dus fin"]) == [first + second + third]
    assert theirs("bas <mask> fin", add_special_tokens=False)["input_ids"] == [*first, MASK, *third]
    assert theirs.mask_token_id == MASK


@pytest.mark.peers
def test_a_literal_space_sign_is_a_space_there(tokenizer: SentencePieceTokenizer, theirs) -> None:
    """As the module says: the one text besides special pieces for which ids differ."""
    assert theirs("bas\u2581dus")["input_ids"] == theirs("bas dus")["input_ids"]


@pytest.mark.parametrize("types", [0, 2])
def test_an_imported_tokenizer_is_copied_as_it_is(tmp_path: Path, types: int) -> None:
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bas", "dus"])
    )
    model = from_word_pieces(
        tmp_path / "vocab.txt", lower_case=True, strip_accents=None, split_chinese=True
    )
    files = tokenizer_files(ImportedTokenizer(model), 24, types)
    assert files["tokenizer.json"] == model
    special = json.loads(files["special_tokens_map.json"])
    assert (
        special["pad_token"] == "[PAD]"
        and special["unk_token"] == "[UNK]"
        and special["mask_token"] == "[MASK]"
    )
    assert special["cls_token"] == "[CLS]" and special["sep_token"] == "[SEP]"
    inputs = json.loads(files["tokenizer_config.json"])["model_input_names"]
    assert ("token_type_ids" in inputs) == (types == 2)


@pytest.mark.peers
def test_the_second_text_of_a_pair_has_its_type_where_models_tell_types(
    tokenizer, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    for name, content in tokenizer_files(tokenizer, 24, 2).items():
        (tmp_path / name).write_bytes(content)
    encoded = transformers.AutoTokenizer.from_pretrained(tmp_path)("bas", "fin")
    a, b = (len(ids) for ids in tokenizer.encode(["bas", "fin"]))
    assert encoded["token_type_ids"] == [0] * (a + 2) + [1] * (b + 1)
