"""Tokenizers of public models: their own ids in every place where a tokenizer's ids matter."""

from __future__ import annotations

import io
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import public_models as public
from tlc_jax import config
from tlc_jax.core.errors import InputError
from tlc_jax.data.batches import LabelledBatches, evaluation_batches
from tlc_jax.data.imported_tokenizer import ImportedTokenizer
from tlc_jax.data.labelled import load_labelled
from tlc_jax.data.packing import pack
from tlc_jax.data.pairs import prepare_pairs
from tlc_jax.data.tokenizer import SpecialIds, Tokenizer, file_name, kept_in
from tlc_jax.tasks.masked_lm import mask_tokens

TEXTS = ["The red cat sees", "a dog, quickly", "", "redred [SEP] </s> <mask> [MASK]", "x" * 300] * 7


@pytest.fixture(params=["bert", "roberta"])
def imported(request, tmp_path) -> Tokenizer:
    public.write_tokenizer(tmp_path, request.param)
    return Tokenizer.load(tmp_path / "tokenizer.json")


def test_special_ids_are_read_from_the_file(tmp_path: Path) -> None:
    public.write_tokenizer(tmp_path, "bert")
    assert Tokenizer.load(tmp_path / "tokenizer.json").special == SpecialIds(
        0, 4, (5,), 5, 6, (0, 3, 4, 5, 6)
    )
    public.write_tokenizer(tmp_path, "roberta")
    found = Tokenizer.load(tmp_path / "tokenizer.json")
    last = found.vocab_size - 1
    assert found.special == SpecialIds(1, 0, (2, 2), 2, last, (0, 1, 2, 3, last))


def test_text_is_neither_cut_nor_padded_and_special_pieces_in_it_are_text(
    imported: Tokenizer,
) -> None:
    ids = imported.encode(TEXTS[:5])
    assert ids[2] == [] and (
        len(ids[4]) == 300 or len(ids[4]) == 1
    )  # BERT gives up on words so long
    assert not set(ids[3]) & {imported.special.end, imported.special.start, imported.special.mask}
    framed = [imported.special.start, *ids[0], imported.special.end]
    assert imported.decode(framed).lower() == "the red cat sees"


@pytest.mark.parametrize("threads", [0, 1, 2, 3, 64])
def test_the_number_of_threads_changes_nothing(imported: Tokenizer, threads: int) -> None:
    alone = [imported.encode([text], 1)[0] for text in TEXTS]
    found = imported.encode_arrays(TEXTS, threads)
    assert [ids.tolist() for ids in found] == alone
    assert all(ids.dtype == np.int32 for ids in found)
    assert imported.encode([], threads) == []


def test_a_saved_tokenizer_is_found_in_its_folder_and_loads_the_same(
    imported: Tokenizer, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    imported.save(folder / imported.file_name)
    loaded = Tokenizer.load(kept_in(folder))
    assert (loaded.hash, loaded.special) == (imported.hash, imported.special)
    assert loaded.encode(TEXTS) == imported.encode(TEXTS)
    assert kept_in(tmp_path / "other").name == file_name("") == "tokenizer.model"
    assert file_name(kept_in(folder)) == imported.file_name == "tokenizer.json"


def test_singles_and_pairs_are_framed_and_padded_by_its_own_ids(
    imported: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / "a.tsv").write_text(
        "premise\thypothesis\tlabel\nred cat\tdog\tno\nthe dog sees\ta cat\tyes\n"
    )
    spec = f"files:{tmp_path / 'a.tsv'}"
    (pairs,) = load_labelled(spec, config.Config(data=config.Data(length=32)), imported, None)
    special = imported.special
    (a, b), (c, d) = imported.encode(["red cat", "dog"]), imported.encode(["the dog sees", "a cat"])
    texts = ((a, b), (c, d))
    rows = [
        [special.start, *first, *special.between, *second, special.end] for first, second in texts
    ]
    for batch in (next(evaluation_batches(pairs, 4)), LabelledBatches([pairs], 2, 0)(0)):
        width = batch["tokens"].shape[1]
        padded = {(*row, *[special.padding] * (width - len(row))) for row in rows}
        assert set(map(tuple, batch["tokens"].tolist())) == padded
    (cut,) = load_labelled(spec, config.Config(data=config.Data(length=8)), imported, None)
    assert cut.lengths.max() == 8


def test_rows_start_and_documents_end_with_its_own_ids(imported: Tokenizer) -> None:
    out = io.BytesIO()
    *_, counts = pack(["the red cat", "", "a dog sees", ""] * 20, imported, 16, out)
    rows = np.frombuffer(out.getvalue(), np.uint16).reshape(counts["rows"], 16)
    documents = [
        [*ids, imported.special.end] for ids in imported.encode(["the red cat", "a dog sees"])
    ] * 20
    stream = [id for document in documents for id in document]
    assert (rows[:, 0] == imported.special.start).all()
    assert rows[:, 1:].reshape(-1).tolist() == stream[: counts["rows"] * 15]


def test_masking_uses_its_mask_id_and_never_its_special_pieces() -> None:
    special = SpecialIds(padding=1, start=4, between=(5,), end=5, mask=9, all=(1, 4, 5, 9))
    tokens = np.random.default_rng(0).integers(0, 12, (500, 40)).astype(np.int32)
    masked = mask_tokens(jax.random.key(0), jnp.asarray(tokens), config.Objective(), 12, special)
    counted = np.asarray(masked.weights_BxK) > 0
    targets = np.asarray(masked.targets_BxK)[counted]
    inputs = np.take_along_axis(np.asarray(masked.inputs_BxL), np.asarray(masked.positions_BxK), 1)[
        counted
    ]
    assert not set(targets) & set(special.all)
    assert np.mean(inputs == 9) == pytest.approx(0.8, abs=0.03)
    random = inputs[(inputs != 9) & (inputs != targets)]
    assert set(random) == set(range(12)) - set(special.all)
    shares = np.bincount(random, minlength=12) / len(random)
    np.testing.assert_allclose(np.delete(shares, special.all), 1 / 8, atol=0.05)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"{}", b"\xff\xfe", json.dumps({"model": {}}).encode()):
        with pytest.raises(InputError, match="is not a tokenizer.json, or was cut short"):
            ImportedTokenizer(content)
    made = json.loads(public.byte_pairs().to_str())
    del made["model"]["vocab"]["<mask>"]
    made["added_tokens"] = [token for token in made["added_tokens"] if token["content"] != "<mask>"]
    with pytest.raises(InputError, match=r"has no mask piece, neither \[MASK\] nor <mask>"):
        ImportedTokenizer(json.dumps(made).encode())


def test_translation_refuses_an_imported_tokenizer(tmp_path: Path) -> None:
    public.write_tokenizer(tmp_path, "roberta")
    for side in ("en", "fr"):
        (tmp_path / f"a.{side}").write_text("red cat\n" * 9)
    settings = {"data": {"train": f"files:{tmp_path}/a.en+{tmp_path}/a.fr"}}
    settings["tokenizer"] = {"path": str(tmp_path / "tokenizer.json")}
    with pytest.raises(InputError, match="translation needs a SentencePiece tokenizer"):
        prepare_pairs(config.resolve(settings), tmp_path / "cache", progress=False)
