"""Imported public models compute what they computed; broken folders are refused in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.commands.conftest import finetune_arguments, pretrain_arguments, result_of, tlc
from tests.helpers import public_models as public
from tlc_jax.config import Impl, Model
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.interop import huggingface_import as importing
from tlc_jax.models.network import Network

FAMILIES = tuple(public.BASES)


def load(folder: Path) -> importing.Imported:
    return importing.load(importing.find(f"hf:{folder}"))


def network_of(model: importing.Imported) -> Network:
    meta = model.meta
    return Network(
        meta["kind"], Model(**meta["model"]), meta["vocab_size"], len(meta["labels"]), Impl()
    )


def a_batch(model: importing.Imported, family: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, types and mask of a pair, a shorter pair and a single text."""
    special = model.tokenizer.special
    a, b, c = model.tokenizer.encode(["the red cat", "sees a dog", "red"])
    rows = [
        [special.start, *a, *special.between, *b, special.end],
        [special.start, *c, *special.between, *c, special.end],
        [special.start, *b, special.end],
    ]
    tokens = np.full((3, max(map(len, rows))), special.padding, np.int32)
    types = np.zeros_like(tokens)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = row
        if family == "bert" and number < 2:
            types[number, row.index(special.end) + 1 : len(row)] = 1
    return tokens, types, np.arange(tokens.shape[1]) < np.array([len(row) for row in rows])[:, None]


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM", "ForSequenceClassification"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_imported_encoder_computes_what_the_original_does(tmp_path, family, head) -> None:
    tensors = public.write_model(tmp_path, family, head)
    model = load(tmp_path)
    tokens, types, mask = a_batch(model, family)
    ours = network_of(model).apply(model.params, tokens, mask, None, method="encode")
    theirs = public.hidden_states(public.settings_of(family), tensors, tokens, types, mask)
    np.testing.assert_allclose(np.asarray(ours)[mask], theirs[mask], atol=1e-4)
    assert model.unused == ()
    assert model.meta["kind"] == {"Model": "encoder", "ForMaskedLM": "mlm"}.get(head, "classifier")
    assert flatten(model.params).keys() == flatten(network_of(model).abstract()).keys()


def affine(x: np.ndarray, tensors: dict, name: str) -> np.ndarray:
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_are_the_originals(tmp_path, family) -> None:
    tensors = public.write_model(tmp_path, family, "ForSequenceClassification")
    model = load(tmp_path)
    tokens, types, mask = a_batch(model, family)
    first = public.hidden_states(public.settings_of(family), tensors, tokens, types, mask)[:, 0]
    layers = (
        ("bert.pooler.dense", "classifier")
        if family == "bert"
        else ("classifier.dense", "classifier.out_proj")
    )
    logits = affine(np.tanh(affine(first, tensors, layers[0])), tensors, layers[1])
    np.testing.assert_allclose(
        network_of(model).apply(model.params, tokens, mask), logits, atol=1e-4
    )
    assert model.meta["labels"] == list(public.LABELS)


def test_a_pooler_is_kept_beside_an_encoder_without_a_head(tmp_path) -> None:
    tensors = public.write_model(tmp_path, "bert")
    pooler = load(tmp_path).pooler["classifier"]["dense"]
    np.testing.assert_array_equal(pooler["kernel"], tensors["pooler.dense.weight"].T)
    np.testing.assert_array_equal(pooler["bias"], tensors["pooler.dense.bias"])
    public.write_model(tmp_path / "other", "roberta")
    assert load(tmp_path / "other").pooler == {}


def test_files_in_parts_old_names_half_precision_and_what_is_left_over(tmp_path) -> None:
    public.write_model(tmp_path, "bert")
    whole = load(tmp_path)
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in load_file(tmp_path / "model.safetensors").items()
    }
    tensors["embeddings.position_ids"] = np.arange(public.POSITIONS)[None]
    tensors["cls.seq_relationship.weight"] = np.zeros((2, public.HIDDEN), np.float32)
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file(
            {name: tensors[name].astype(ml_dtypes.bfloat16) for name in held}, tmp_path / file
        )
    weight_map = {name: file for file, held in parts.items() for name in held}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    model = load(tmp_path)
    assert model.unused == ("cls.seq_relationship.weight",)
    for path, leaf in flatten(whole.params).items():
        np.testing.assert_allclose(flatten(model.params)[path], leaf, rtol=0.01)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(
        InputError, match=r"model-2.safetensors is missing, which .*index.json names"
    ):
        importing.find(f"hf:{tmp_path}")


def cut(name: str, keep: float = 0.5):
    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * keep)])

    return spoil


def without(name: str):
    return lambda folder: (folder / name).unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def setting(**changes):
    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


def tensors_changed(change):
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return spoil


def untied(tensors: dict) -> None:
    tensors["cls.predictions.decoder.weight"] = (
        tensors["bert.embeddings.word_embeddings.weight"] + 1
    )


def framed_otherwise(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**content, "post_processor": None}))


UP = "bert.encoder.layer.1.intermediate.dense.weight"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (without("config.json"), r"config.json is missing"),
        (cut("config.json"), r"config.json is not JSON, perhaps cut short"),
        (
            setting(model_type="gpt2"),
            r"model_type 'gpt2' is not known here; known are bert, roberta",
        ),
        (
            setting(position_embedding_type="relative_key"),
            r"position_embedding_type 'relative_key' is not known",
        ),
        (setting(hidden_act="swish"), r"hidden_act 'swish' is not one of gelu"),
        (setting(is_decoder=True), r"is_decoder is set"),
        (setting(type_vocab_size=3), r"type_vocab_size 3 is not known"),
        (
            setting(num_attention_heads=3),
            r"hidden_size 32 is not divisible by num_attention_heads 3",
        ),
        (setting(hidden_size="wide"), r"hidden_size is 'wide', not a number"),
        (
            setting(vocab_size=9),
            r"tokenizer.json has \d+ pieces, and config.json says vocab_size 9",
        ),
        (
            setting(pad_token_id=1),
            r"tokenizer.json pads with 0, and config.json says pad_token_id 1",
        ),
        (
            setting(intermediate_size=64),
            r"output.dense.weight has the shape \[32, 48\], and config.json makes it \[32, 64\]",
        ),
        (setting(num_hidden_layers=3), r"has no tensor bert.encoder.layer.2"),
        (tensors_changed(lambda t: t.pop(UP)), rf"has no tensor {UP}"),
        (tensors_changed(untied), r"decoder.weight is not the token embedding"),
        (without("model.safetensors"), r"has no weights: neither model.safetensors nor"),
        (
            pickled,
            r"pytorch_model.bin alone, a pickle, which is never loaded: "
            r"convert it to model.safetensors",
        ),
        (cut("model.safetensors"), r"model.safetensors is damaged or cut short"),
        (cut("model.safetensors", 0.0), r"model.safetensors is damaged or cut short"),
        (without("tokenizer.json"), r"has no tokenizer"),
        (cut("tokenizer.json"), r"tokenizer.json is not a tokenizer.json, or was cut short"),
        (framed_otherwise, r"frames texts in a way that tlc does not know"),
        (
            setting(architectures=["BertForSequenceClassification"], id2label={"0": "score"}),
            r"is a regression",
        ),
        (
            setting(architectures=["BertForSequenceClassification"], id2label={"0": "a", "2": "b"}),
            r"from 0 on",
        ),
    ],
)
def test_what_cannot_be_imported_is_refused_in_one_line(tmp_path, spoil, says) -> None:
    public.write_model(tmp_path, "bert", "ForMaskedLM")
    spoil(tmp_path)
    with pytest.raises(InputError, match=says) as refused:
        load(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_masked_language_head_of_another_activation_is_refused(tmp_path) -> None:
    public.write_model(tmp_path, "roberta", "ForMaskedLM", hidden_act="relu")
    with pytest.raises(InputError, match="its masked-language head has gelu, not relu"):
        load(tmp_path)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_vocabularies_alone_make_the_same_tokenizer(tmp_path, family) -> None:
    public.write_model(tmp_path, family)
    texts = ["The red cat sees", "qüickly [MASK]<mask> 红", "", "dogs' red-ly"]
    expected = load(tmp_path).tokenizer
    (tmp_path / "tokenizer.json").unlink()
    if family == "bert":
        pieces = public.word_pieces().get_vocab()
        (tmp_path / "vocab.txt").write_text(
            "".join(f"{piece}\n" for piece in sorted(pieces, key=pieces.__getitem__))
        )
    else:
        public.byte_pairs().model.save(str(tmp_path))
    found = load(tmp_path).tokenizer
    assert found.encode(texts) == expected.encode(texts)
    assert found.special == expected.special
    found.save(tmp_path / "kept" / found.file_name)
    assert Tokenizer.load(tmp_path / "kept" / "tokenizer.json").hash == found.hash


def imported_arguments(
    command: str, world: Path, workdir: Path, folder: Path, *more: str
) -> list[str]:
    flags = [
        flag
        for flag in finetune_arguments(command, world, workdir, *more)
        if "config.model." not in flag
    ]
    # Compilation takes most of the time here: rows of 16 tokens are batches of one width.
    one_width = ("--config.data.length=16", "--config.budget.steps=2")
    return [*flags, *one_width, f"--config.init.from=hf:{folder}"]


def test_from_a_public_encoder_to_predictions(world, tmp_path, capsys) -> None:
    public.write_model(tmp_path / "public", "roberta")
    run = tmp_path / "run"
    assert tlc(*imported_arguments("finetune", world, run, tmp_path / "public")) == 0
    # This encoder lacks a pooler, so the classifier's first layer starts from the seed.
    assert "classifier/dense/kernel" in capsys.readouterr().err
    assert (run / "tokenizer.json").exists() and not (run / "tokenizer.model").exists()
    again = tmp_path / "again"
    assert tlc("evaluate", f"--init={run}", f"--workdir={again}") == 0
    assert result_of(again)["accuracy"] == result_of(run)["accuracy"]
    capsys.readouterr()
    assert tlc("predict", f"--init={run}", f"--config.predict.input={world}/dev.tsv") == 0
    saved = np.load(again / "predictions" / "dev.npz")
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    np.testing.assert_allclose(
        [[float(x) for x in row[1:]] for row in rows], saved["probabilities"], atol=1e-5
    )


@pytest.mark.slow
def test_a_public_encoder_is_compressed_before_finetuning_with_its_pooler(
    world, tmp_path, capsys
) -> None:
    public.write_model(tmp_path / "public", "bert")
    more = ("--config.recipe=prune:0.5+quantize:8", "--config.compress.when=before")
    assert (
        tlc(*imported_arguments("compress", world, tmp_path / "run", tmp_path / "public", *more))
        == 0
    )
    said = capsys.readouterr().err
    assert (
        "not restored, so from the seed: classifier/output/bias, classifier/output/kernel;" in said
    )
    assert result_of(tmp_path / "run")["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert (tmp_path / "run" / "artifact" / "tokenizer.json").exists()


def test_a_public_masked_language_model_is_evaluated_and_compressed(world, tmp_path) -> None:
    public.write_model(tmp_path / "public", "roberta", "ForMaskedLM")
    flags = [
        flag
        for flag in pretrain_arguments(world, tmp_path / "run")[3:]
        if "config.model." not in flag
    ]
    flags = [*flags, f"--config.init.from=hf:{tmp_path / 'public'}"]
    assert (
        tlc("evaluate", "--config=configs/mlm.py:1x64", f"--workdir={tmp_path / 'dense'}", *flags)
        == 0
    )
    dense = result_of(tmp_path / "dense")
    more = ("--config.recipe=quantize:8,per=channel", f"--workdir={tmp_path / 'small'}")
    assert tlc("compress", "--config=configs/mlm.py:1x64", *flags, *more) == 0
    small = result_of(tmp_path / "small")
    assert small["valid_loss"] == pytest.approx(dense["valid_loss"], rel=0.02)
    assert small["bytes_artifact"] < 0.4 * 4 * small["params"]
    again = tmp_path / "again"
    assert tlc("evaluate", f"--init={tmp_path / 'small'}", f"--workdir={again}") == 0
    assert result_of(again)["valid_loss"] == small["valid_loss"]


@pytest.mark.parametrize("head", ["ForMaskedLM", ""])
def test_pretraining_goes_on_from_a_public_encoder(world, tmp_path, capsys, head) -> None:
    public.write_model(tmp_path / "public", "bert", head)
    flags = [
        flag for flag in pretrain_arguments(world, tmp_path / "run") if "config.model." not in flag
    ]
    more = (f"--config.init.from=hf:{tmp_path / 'public'}", "--config.budget.steps=2")
    assert tlc(*flags, *more) == 0
    fresh = capsys.readouterr().err.partition("not restored, so from the seed: ")[2]
    assert fresh.startswith(
        "none" if head else "mlm_head/bias, mlm_head/dense/bias, mlm_head/dense/kernel, mlm_head/"
    )
    assert (tmp_path / "run" / "tokenizer.json").exists()
    assert result_of(tmp_path / "run")["init"] == str(tmp_path / "public")


def test_commands_refuse_what_an_imported_encoder_cannot_do(refused, world, tmp_path) -> None:
    public.write_model(tmp_path / "public", "bert")
    source = f"hf:{tmp_path / 'public'}"
    recipes = {"evaluate": (), "compress": (), "analyze": ("--config.recipe=quantize:4",)}
    for command, more in recipes.items():
        run = tmp_path / command
        line = refused(*imported_arguments(command, world, run, tmp_path / "public", *more))
        assert "an encoder without a masked-language or classification head" in line
    assert "predict needs a finetuned one" in refused(
        *imported_arguments(
            "predict",
            world,
            tmp_path / "p",
            tmp_path / "public",
            f"--config.predict.input={world}/dev.tsv",
        )
    )
    assert "give some with --config=FILE.py" in refused(
        "evaluate", f"--init={source}", f"--workdir={tmp_path / 'e'}"
    )
    line = refused(*imported_arguments("finetune", world, tmp_path / "f", tmp_path / "nowhere"))
    assert re.search(
        r"folder .*nowhere does not exist; models are read from disk, never fetched", line
    )
    other = f"--config.tokenizer.path={tmp_path / 'public' / 'tokenizer.json'}"
    line = refused(
        *imported_arguments("finetune", world, tmp_path / "g", tmp_path / "public", other)
    )
    assert "has a tokenizer of its own; leave it empty" in line


def test_a_new_model_is_given_the_ids_of_the_tokenizer_that_it_is_to_have(
    refused, world, tmp_path
) -> None:
    public.write_tokenizer(tmp_path, "roberta")
    path = f"--config.tokenizer.path={tmp_path / 'tokenizer.json'}"
    line = refused(*finetune_arguments("finetune", world, tmp_path / "a", path))
    assert "model.padding=0, but the tokenizer's is 1: set model.padding=1" in line
    more = (path, "--config.model.padding=1", "--config.model.token_types=2")
    line = refused(*pretrain_arguments(world, tmp_path / "b", *more))
    assert "model.separator=0, but the tokenizer's is 2: set model.separator=2" in line
