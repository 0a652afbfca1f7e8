"""`tlc export`: what the folder holds, what is refused, and whether others compute the same."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.commands.conftest import result_of, tlc
from tests.helpers import public_models as public
from tests.interop.networks import greedy
from tlc_jax.commands import export
from tlc_jax.compression.artifact import load_artifact

TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
needs_onnx = pytest.mark.skipif(
    importlib.util.find_spec("onnx") is None, reason="extra `onnx` is not installed"
)


def refused(capsys, *arguments: object) -> str:
    """The one line that a command ends with."""
    capsys.readouterr()
    assert tlc("export", *arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_a_compressed_classifier_becomes_a_hugging_face_folder(
    compressed, tmp_path, capsys
) -> None:
    assert tlc("export", f"--init={compressed}", f"--workdir={tmp_path}") == 0
    folder = tmp_path / "huggingface"
    assert {path.name for path in folder.iterdir()} == TOKENIZER | {
        "config.json",
        "model.safetensors",
    }
    artifact = load_artifact(compressed / "artifact" / "model.safetensors").params
    weight = load_file(folder / "model.safetensors")["classifier.dense.weight"]
    np.testing.assert_array_equal(weight.T, artifact["classifier"]["dense"]["kernel"])
    assert json.loads((folder / "config.json").read_text())["label2id"] == {"no": 0, "yes": 1}
    result = result_of(tmp_path)
    assert json.loads(capsys.readouterr().out) == result
    assert result["architecture"] == "RobertaPreLayerNormForSequenceClassification"
    assert result["recipe"] == "prune:0.75+quantize:4"
    assert result["files"] == {path.name: path.stat().st_size for path in folder.iterdir()}
    assert result["bytes"] == sum(result["files"].values())
    modes = {path.stat().st_mode for path in (*folder.iterdir(), tmp_path / "result.json")}
    assert len(modes) == 1


def test_a_checkpoint_and_a_workdir_are_exported_alike(pretrained, tmp_path) -> None:
    (checkpoint,) = (pretrained / "checkpoints").glob("6")
    for name, source in (("a", pretrained), ("b", checkpoint)):
        assert tlc("export", f"--init={source}", f"--workdir={tmp_path / name}") == 0
    one, other = (tmp_path / name / "huggingface" / "model.safetensors" for name in "ab")
    assert one.read_bytes() == other.read_bytes()
    assert result_of(tmp_path / "a")["architecture"] == "RobertaPreLayerNormForMaskedLM"


def test_what_is_done_is_not_done_again(finetuned, tmp_path, capsys) -> None:
    arguments = ("export", f"--init={finetuned}", f"--workdir={tmp_path}")
    assert tlc(*arguments) == 0
    (tmp_path / "huggingface" / "config.json").unlink()
    assert tlc(*arguments) == 0
    assert "already done" in capsys.readouterr().err
    (tmp_path / "result.json").unlink()  # a run that ended in between
    assert tlc(*arguments) == 0
    assert (tmp_path / "huggingface" / "config.json").exists()


def test_a_folder_is_whole_or_not_there(finetuned, tmp_path, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(export, "tokenizer_files", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        tlc("export", f"--init={finetuned}", f"--workdir={tmp_path}")
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "config.json"}


def test_what_cannot_be_exported_is_refused(finetuned, translated, tmp_path, capsys) -> None:
    assert "is a translator, and the Hugging Face folder is for encoders" in refused(
        capsys, f"--init={translated}", f"--workdir={tmp_path / 'new'}"
    )
    assert not (tmp_path / "new" / "huggingface").exists()
    assert "needs --init=DIR" in refused(capsys, f"--workdir={tmp_path / 'new'}")
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    assert f"--workdir={other} holds something else" in refused(
        capsys, f"--init={finetuned}", f"--workdir={other}"
    )
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]
    run = tmp_path / "run"
    shutil.copytree(finetuned, run)
    assert "holds the run of another command" in refused(
        capsys, f"--init={finetuned}", f"--workdir={run}"
    )
    line = refused(
        capsys, f"--init={finetuned}", f"--workdir={run}", "--config.export.format=pickle"
    )
    assert "config.export.format='pickle' must be one of hf, onnx" in line


def test_another_format_needs_another_workdir(finetuned, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(export.onnx_export, "require_packages", lambda: None)
    assert tlc("export", f"--init={finetuned}", f"--workdir={tmp_path}") == 0
    line = refused(
        capsys, f"--init={finetuned}", f"--workdir={tmp_path}", "--config.export.format=onnx"
    )
    assert "export.format: 'hf' -> 'onnx'" in line


def test_onnx_without_its_package_names_the_extra(finetuned, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    line = refused(
        capsys,
        f"--init={finetuned}",
        f"--workdir={tmp_path / 'new'}",
        "--config.export.format=onnx",
    )
    assert "pip install 'tlc_jax[onnx]'" in line
    assert not (tmp_path / "new").exists()


@needs_onnx
def test_a_packed_artifact_keeps_its_integers_in_onnx(compressed, tmp_path) -> None:
    onnx = "--config.export.format=onnx"
    for name, source in (("packed", compressed), ("float", compressed / "compressed" / "0")):
        assert tlc("export", f"--init={source}", f"--workdir={tmp_path / name}", onnx) == 0
    packed, plain = (result_of(tmp_path / name) for name in ("packed", "float"))
    assert set(packed["types"]) == {"int4", "float32"} and set(plain["types"]) == {"float32"}
    assert packed["files"]["model.onnx"] < 0.3 * plain["files"]["model.onnx"]
    assert {path.name for path in (tmp_path / "packed" / "onnx").iterdir()} == TOKENIZER | {
        "model.onnx"
    }
    assert packed["opset"] == 21


@needs_onnx
def test_translator_becomes_an_encoder_and_a_decoder(translated, tmp_path) -> None:
    onnx = "--config.export.format=onnx"
    assert tlc("export", f"--init={translated}", f"--workdir={tmp_path}", onnx) == 0
    assert set(result_of(tmp_path)["files"]) == TOKENIZER | {"encoder.onnx", "decoder.onnx"}
    # Sources end with </s> and have no <s>, as in training.
    content = json.loads((tmp_path / "onnx" / "tokenizer.json").read_text())
    single = content["post_processor"]["single"]
    assert [next(iter(part)) for part in single] == ["Sequence", "SpecialToken"]


@pytest.mark.peers
def test_others_give_our_greedy_translations(translated, pairs, tmp_path) -> None:
    """From the text on: tokenizer, padding, both files, and the tokenizer again."""
    transformers = pytest.importorskip("transformers")
    onnxruntime = pytest.importorskip("onnxruntime")
    found = tmp_path / "found.txt"
    predict = (f"--config.predict.input={pairs / 'valid.en'}", f"--config.predict.output={found}")
    decode = ("--config.decode.beams=1", "--config.decode.extra=6", "--config.impl.matmul=float32")
    assert tlc("predict", f"--init={translated}", *predict, *decode) == 0
    onnx = "--config.export.format=onnx"
    assert tlc("export", f"--init={translated}", f"--workdir={tmp_path / 'out'}", onnx) == 0
    folder = tmp_path / "out" / "onnx"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = (pairs / "valid.en").read_text().splitlines()
    batch = tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="np")
    encoder, decoder = (
        onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in ("encoder", "decoder")
    )
    tokens = greedy(encoder, decoder, batch["input_ids"], batch["attention_mask"], 6, 40)
    ours = found.read_text().splitlines()
    assert len(set(ours)) > 1
    assert [tokenizer.decode(row, skip_special_tokens=True) for row in tokens] == ours


@pytest.mark.parametrize("family", ["bert", "roberta", "roberta-prelayernorm"])
def test_an_imported_model_goes_out_as_it_came_in(tmp_path, family) -> None:
    came = public.write_model(tmp_path / "public", family, "ForSequenceClassification")
    source = (
        f"--init=hf:{tmp_path / 'public'}",
        "--config=configs/sst2.py",
        "--config.data.length=16",
    )
    assert tlc("export", *source, f"--workdir={tmp_path / 'out'}") == 0
    folder = tmp_path / "out" / "huggingface"
    gone = load_file(folder / "model.safetensors")
    position, types = (
        f"{public.BASES[family]}embeddings.{name}_embeddings.weight"
        for name in ("position", "token_type")
    )
    # Elsewhere the one kind of segment is added to every position, and the rows before the first
    # position are unused.
    if family != "bert":
        came[position] = came[position] + came[types]
        came[position][:2], came[types] = 0, 0 * came[types]
    assert gone.keys() == came.keys()
    for name, tensor in came.items():
        np.testing.assert_array_equal(gone[name], tensor, err_msg=name)
    settings = json.loads((folder / "config.json").read_text())
    assert settings.items() >= public.settings_of(family, "ForSequenceClassification").items()
    assert (folder / "tokenizer.json").read_bytes() == (
        tmp_path / "public" / "tokenizer.json"
    ).read_bytes()


def test_an_imported_encoder_without_a_head_is_refused(tmp_path, capsys) -> None:
    public.write_model(tmp_path / "public", "bert")
    source = (
        f"--init=hf:{tmp_path / 'public'}",
        "--config=configs/sst2.py",
        "--config.data.length=16",
    )
    assert "without a masked-language or classification head" in refused(
        capsys, *source, f"--workdir={tmp_path / 'o'}"
    )


@pytest.mark.peers
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_others_give_our_probabilities_of_pairs_with_an_imported_tokenizer(
    tmp_path, family
) -> None:
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    public.write_model(tmp_path / "public", family, "ForSequenceClassification")
    pairs = [("the red cat", "sees"), ("dogly", "the cat sees the dog"), ("cat", "red")]
    (tmp_path / "pairs.tsv").write_text(
        "sentence1\tsentence2\n" + "".join(f"{a}\t{b}\n" for a, b in pairs)
    )
    source = (
        f"--init=hf:{tmp_path / 'public'}",
        "--config=configs/sst2.py",
        "--config.data.length=64",
    )
    files = (
        f"--config.predict.input={tmp_path / 'pairs.tsv'}",
        f"--config.predict.output={tmp_path / 'out.tsv'}",
    )
    columns = (
        "--config.data.text=sentence1",
        "--config.data.pair=sentence2",
        "--config.data.label=",
    )
    exact = ("--config.impl.matmul=float32", "--config.eval.batch_size=8")
    assert tlc("predict", *source, *files, *columns, *exact) == 0
    expected = np.loadtxt(tmp_path / "out.tsv", skiprows=1, usecols=(1, 2))
    assert tlc("export", *source, f"--workdir={tmp_path / 'out'}") == 0
    folder = tmp_path / "out" / "huggingface"
    batch = transformers.AutoTokenizer.from_pretrained(folder)(
        *zip(*pairs, strict=True), padding=True, truncation=True, return_tensors="pt"
    )
    assert ("token_type_ids" in batch) == (family == "bert")
    with torch.no_grad():
        logits = transformers.AutoModelForSequenceClassification.from_pretrained(folder)(
            **batch
        ).logits
    np.testing.assert_allclose(torch.softmax(logits, 1).numpy(), expected, atol=1e-4)


@pytest.mark.peers
@pytest.mark.parametrize("format", ["hf", "onnx"])
def test_others_give_the_probabilities_that_were_evaluated(
    compressed, world, tmp_path, format
) -> None:
    """From the text on: tokenizer, padding, model."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    onnxruntime = pytest.importorskip("onnxruntime")
    assert (
        tlc(
            "export",
            f"--init={compressed}",
            f"--workdir={tmp_path}",
            f"--config.export.format={format}",
        )
        == 0
    )
    folder = tmp_path / result_of(tmp_path)["folder"]
    with (world / "dev.tsv").open() as file:
        texts = [row["sentence"] for row in csv.DictReader(file, delimiter="\t")]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
    if format == "hf":
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
        with torch.no_grad():
            logits = model(
                **{name: torch.tensor(rows) for name, rows in batch.items()}
            ).logits.numpy()
    else:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        session = onnxruntime.InferenceSession(folder / "model.onnx", options)
        (logits,) = session.run(
            ["logits"], {"tokens": batch["input_ids"], "mask": batch["attention_mask"]}
        )
    expected = np.load(compressed / "predictions" / "dev.npz")["probabilities"]
    found = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-4)
