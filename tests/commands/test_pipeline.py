"""Text in, compressed classifier out: every command once, and what must hold between them."""

from __future__ import annotations

import csv
import json
import shutil

import jax
import numpy as np
import pytest

from tests.commands.conftest import finetune_arguments, pretrain_arguments, result_of, tlc
from tlc_jax.compression.artifact import load_artifact
from tlc_jax.config import Impl, Model
from tlc_jax.core.params import flatten
from tlc_jax.runs import saved_model
from tlc_jax.tasks import latency
from tlc_jax.tasks.classification import ClassifierRun
from tlc_jax.training.checkpoint import complete_steps

TRAINING_KEYS = {
    *("params", "params_nonembedding", "steps", "tokens", "flops", "train_seconds", "seconds"),
    *("tokens_per_second", "mfu", "stopped_by"),
}


def test_pretraining_leaves_what_the_design_promises(pretrained) -> None:
    result = result_of(pretrained)
    assert TRAINING_KEYS | {"valid_loss", "valid_perplexity"} <= result.keys()
    assert {"train", "compile", "input", "eval", "checkpoint", "total"} <= result["seconds"].keys()
    assert result["steps"] == 6
    assert result["tokens"] == 6 * 16 * 32
    assert result["stopped_by"] == "steps"
    for name in (
        "config.json",
        "metrics.jsonl",
        "checkpoints",
        "tokenizer.model",
        "parameters.txt",
    ):
        assert (pretrained / name).exists(), name


def test_a_finished_run_is_not_done_again(world, pretrained, capsys) -> None:
    before = (pretrained / "result.json").stat().st_mtime_ns
    assert tlc(*pretrain_arguments(world, pretrained)) == 0
    assert (pretrained / "result.json").stat().st_mtime_ns == before
    assert "already done" in capsys.readouterr().err


def test_finetuning_takes_parameters_alone_and_says_which(
    world, pretrained, tmp_path, capsys
) -> None:
    assert (
        tlc(*finetune_arguments("finetune", world, tmp_path, f"--config.init.from={pretrained}"))
        == 0
    )
    told = capsys.readouterr().err
    assert "parameters restored" in told
    assert "classifier/dense/kernel" in told.partition("not restored")[2]
    result = result_of(tmp_path)
    assert result["labels"] == ["no", "yes"]
    assert result["accuracy_by_split"].keys() == {"dev"}


def test_predictions_are_saved_for_every_instance_in_order(finetuned, world) -> None:
    saved = np.load(finetuned / "predictions" / "dev.npz")
    with (world / "dev.tsv").open() as file:
        labels = [["no", "yes"].index(row["label"]) for row in csv.DictReader(file, delimiter="\t")]
    np.testing.assert_array_equal(saved["labels"], labels)
    np.testing.assert_array_equal(saved["ids"], np.arange(37))
    np.testing.assert_allclose(saved["probabilities"].sum(1), 1.0, atol=1e-5)
    accuracy = np.mean(saved["probabilities"].argmax(1) == labels)
    assert result_of(finetuned)["accuracy"] == pytest.approx(accuracy)


def test_predictions_along_training_are_kept_when_asked(finetuned) -> None:
    folder = finetuned / "predictions"
    assert sorted(path.name for path in folder.iterdir()) == ["dev.npz", "step-3", "step-6"]
    last, early = (np.load(folder / name) for name in ("dev.npz", "step-3/dev.npz"))
    # Those of all rows, not of the few that a curve takes, and of other parameters.
    np.testing.assert_array_equal(early["ids"], last["ids"])
    assert np.abs(early["probabilities"] - last["probabilities"]).max() > 1e-4
    rows = [json.loads(line) for line in (finetuned / "metrics.jsonl").read_text().splitlines()]
    accuracy = next(row["accuracy"] for row in rows if row.get("event") == "eval")
    assert accuracy == np.mean(early["probabilities"].argmax(1) == early["labels"])


def test_what_was_evaluated_is_what_the_artifact_and_the_checkpoint_hold(compressed) -> None:
    packed = flatten(load_artifact(compressed / "artifact" / "model.safetensors").params)
    from_checkpoint = flatten(saved_model.load(str(compressed / "compressed" / "0"), Impl()).params)
    assert packed.keys() == from_checkpoint.keys()
    for path, leaf in packed.items():
        assert np.asarray(leaf).tobytes() == np.asarray(from_checkpoint[path]).tobytes(), path


def test_the_artifact_reloads_to_the_same_predictions(compressed, tmp_path) -> None:
    assert tlc("evaluate", f"--init={compressed}", f"--workdir={tmp_path}") == 0
    first, again = (
        np.load(folder / "predictions" / "dev.npz") for folder in (compressed, tmp_path)
    )
    np.testing.assert_array_equal(first["probabilities"], again["probabilities"])
    assert result_of(tmp_path)["accuracy"] == result_of(compressed)["accuracy"]


@pytest.mark.parametrize("kind", ["mlm", "classifier", "translator"])
def test_latency_is_measured_where_it_is_asked_for(
    kind, request, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(latency, "_LEAST_SECONDS", 0.0)
    run = request.getfixturevalue(
        {"mlm": "pretrained", "classifier": "compressed", "translator": "translated"}[kind]
    )
    assert (
        tlc("evaluate", f"--init={run}", f"--workdir={tmp_path}", "--config.eval.latency=1,3") == 0
    )
    result = result_of(tmp_path)
    if kind == "translator":
        assert "eval.latency is for encoders" in capsys.readouterr().err
        assert "latency" not in result
        return
    assert [one["batch_size"] for one in result["latency"]["batches"]] == [1, 3]
    assert result["latency"]["length"] == 32
    assert result["latency_ms_1"] > 0


def test_compression_reports_its_sizes_and_rounds(compressed) -> None:
    result = result_of(compressed)
    assert result["bits"] == 4
    assert result["sparsity"] == pytest.approx(0.75, abs=1e-3)
    assert 0 < result["sparsity_all"] < 0.75
    assert [round_["sparsity"] for round_ in result["rounds"]] == [0.0, 0.4, 0.75]
    assert result["nonzero"] < result["params"]
    assert result["bytes_paper"] < result["bytes_ideal"] <= result["bytes_artifact"]
    assert result["bytes_checkpoint"] > 0


def test_predict_gives_the_evaluated_labels_in_order(compressed, world, tmp_path) -> None:
    output = tmp_path / "out.tsv"
    arguments = (
        "--config.predict.input=" + str(world / "dev.tsv"),
        f"--config.predict.output={output}",
    )
    assert tlc("predict", f"--init={compressed}", *arguments) == 0
    with output.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    probabilities = np.load(compressed / "predictions" / "dev.npz")["probabilities"]
    assert [row["label"] for row in rows] == [["no", "yes"][i] for i in probabilities.argmax(1)]
    np.testing.assert_allclose([float(row["yes"]) for row in rows], probabilities[:, 1], atol=1e-6)


def test_an_artifact_can_be_moved_away_from_its_run(compressed, world, tmp_path, capsys) -> None:
    shutil.copytree(compressed / "artifact", tmp_path / "elsewhere")
    text = tmp_path / "in.txt"
    text.write_text("red cat\nblue dog\n")
    config = (
        "--config=configs/sst2.py",
        "--config.data.length=32",
        f"--config.predict.input={text}",
    )
    assert (
        tlc("predict", f"--init={tmp_path / 'elsewhere'}", *config, "--config.eval.batch_size=8")
        == 0
    )
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_compressing_before_finetuning_holds_the_mask_and_quantizes_again(
    world, pretrained, tmp_path
) -> None:
    more = (
        f"--config.init.from={pretrained}",
        "--config.compress.when=before",
        "--config.recipe=prune:0.6,scope=tensor+quantize:8,per=tensor",
    )
    assert tlc(*finetune_arguments("compress", world, tmp_path, *more)) == 0
    result = result_of(tmp_path)
    assert result["when"] == "before"
    assert result["steps"] == 8
    packed = flatten(load_artifact(tmp_path / "artifact" / "model.safetensors").params)
    kernel = np.asarray(packed["blocks/ffn/up/kernel"])
    trained = _trained_params(tmp_path)["blocks/ffn/up/kernel"]
    np.testing.assert_array_equal(kernel[trained == 0], 0)
    assert np.mean(trained == 0) == pytest.approx(0.6, abs=1e-3)
    assert len(np.unique(kernel)) <= 256


def _trained_params(workdir):
    """What training left, before it was packed."""
    (step, *_) = complete_steps(workdir / "checkpoints")
    params = saved_model.load(str(workdir / "checkpoints" / str(step)), Impl()).params
    return {path: np.asarray(leaf) for path, leaf in flatten(params).items()}


def test_finetuning_from_a_compressed_encoder_keeps_its_zeros(
    world, pretrained, tmp_path, monkeypatch
) -> None:
    calls, evaluate, test = [], ClassifierRun.evaluate, ClassifierRun.evaluate_test
    monkeypatch.setattr(
        ClassifierRun, "evaluate", lambda *args: calls.append("valid") or evaluate(*args)
    )
    monkeypatch.setattr(
        ClassifierRun, "evaluate_test", lambda *args: calls.append("test") or test(*args)
    )
    small = tmp_path / "small"
    arguments = ["compress", "--config=configs/mlm.py:1x64", *pretrain_arguments(world, small)[3:]]
    arguments += [
        f"--workdir={small}",
        f"--config.init.from={pretrained}",
        "--config.compress.recover=0.0",
    ]
    assert tlc(*arguments, "--config.recipe=prune:0.5") == 0
    assert result_of(small)["valid_perplexity"] > 1
    tuned = tmp_path / "tuned"
    shutil.copy(world / "dev.tsv", tmp_path / "test.tsv")
    more = (f"--config.init.from={small}", f"--config.data.test=files:{tmp_path}/test.tsv")
    assert tlc(*finetune_arguments("finetune", world, tuned, *more)) == 0
    # Once, at the end, of the weights that the artifact holds.
    assert calls == ["valid", "valid", "test"]
    result = result_of(tuned)
    assert result["test_accuracy"] == result["accuracy"]
    assert result["test_loss"] == result["valid_loss"]
    start = flatten(load_artifact(small / "artifact" / "model.safetensors").params)
    end = _trained_params(tuned)
    for path in ("embedding/token", "blocks/attention/query/kernel"):
        np.testing.assert_array_equal(end[path][np.asarray(start[path]) == 0], 0)
        assert np.any(end[path] != np.asarray(start[path]))
    assert result_of(tuned)["recipe"] == "prune:0.5"
    assert (tuned / "artifact" / "model.safetensors").exists()


def test_a_sweep_over_seeds_runs_each_once_and_sums_up(
    world, pretrained, finetuned, tmp_path
) -> None:
    arguments = finetune_arguments("finetune", world, tmp_path, f"--config.init.from={pretrained}")
    shutil.copy(world / "dev.tsv", tmp_path / "test.tsv")
    arguments.append(f"--config.data.test=files:{tmp_path}/test.tsv")
    assert tlc(*arguments, "--config.seeds=(3, 0)") == 0
    result = result_of(tmp_path)
    each = [result_of(tmp_path / f"seed-{seed}") for seed in (3, 0)]
    assert result["accuracy_over_seeds"]["values"] == [one["accuracy"] for one in each]
    assert result["accuracy"] == pytest.approx(np.mean(result["accuracy_over_seeds"]["values"]))
    assert result["test_accuracy_over_seeds"] == result["accuracy_over_seeds"]
    # The second seed uses the programs of the first, and ends like a run of its own to the bit.
    assert each[1]["seconds"]["compile"] == 0 < each[0]["seconds"]["compile"]
    for name, leaf in _trained_params(finetuned).items():
        np.testing.assert_array_equal(_trained_params(tmp_path / "seed-0")[name], leaf)


def test_perplexity_of_a_checkpoint_is_that_of_its_run(pretrained, tmp_path) -> None:
    assert tlc("evaluate", f"--init={pretrained}", f"--workdir={tmp_path}") == 0
    assert result_of(tmp_path)["valid_loss"] == pytest.approx(
        result_of(pretrained)["valid_loss"], rel=1e-6
    )


def test_pretraining_goes_on_from_an_encoder(world, pretrained, tmp_path, capsys) -> None:
    still = ("--config.budget.steps=1",)  # the first step of warm-up has a learning rate of zero
    shutil.copy(world / "valid.txt", tmp_path / "test.txt")
    still += (f"--config.data.test=files:{tmp_path}/test.txt",)
    # Those of the encoder count.
    other = ("--config.model.layers=3", "--config.tokenizer.vocab_size=400")
    arguments = pretrain_arguments(
        world, tmp_path, *still, *other, f"--config.init.from={pretrained}"
    )
    assert tlc(*arguments) == 0
    assert "not restored, so from the seed: none" in capsys.readouterr().err
    result, source = result_of(tmp_path), result_of(pretrained)
    assert result["valid_loss"] == pytest.approx(source["valid_loss"], rel=1e-6)
    # Here the test split has the text of the validation split, and its masks depend on the row.
    for name in ("loss", "perplexity", "masked_accuracy"):
        assert result[f"test_{name}"] == result[f"valid_{name}"]
    assert result["init"].startswith(str(pretrained)) and source["init"] == "scratch"
    assert result["params"] == source["params"]


def test_implementation_settings_do_not_change_results(world, pretrained, tmp_path) -> None:
    more = (
        "--config.impl.mesh=data=2,fsdp=-1",
        "--config.impl.layer_loop=unrolled",
        "--config.impl.remat=True",
    )
    more += ("--config.impl.prefetch=0", "--config.impl.microbatch=8", "--config.model.dropout=0.0")
    plain = tmp_path / "plain"
    assert tlc(*pretrain_arguments(world, plain, "--config.model.dropout=0.0")) == 0
    other = tmp_path / "other"
    assert tlc(*pretrain_arguments(world, other, *more)) == 0
    assert result_of(other)["valid_loss"] == pytest.approx(result_of(plain)["valid_loss"], rel=1e-4)


def test_golden_metrics(pretrained, golden) -> None:
    """A change that means to alter results says so and runs `pytest --update-golden`."""
    rows = [json.loads(line) for line in (pretrained / "metrics.jsonl").read_text().splitlines()]
    now = {
        "valid_loss": rows[-1]["valid_loss"],
        "steps": rows[-1]["step"],
        "tokens": rows[-1]["tokens"],
    }
    expected = golden("metrics.json", now)
    assert now["steps"] == expected["steps"]
    assert now["tokens"] == expected["tokens"]
    assert now["valid_loss"] == pytest.approx(expected["valid_loss"], rel=1e-3)


def test_the_run_uses_all_devices(pretrained) -> None:
    assert result_of(pretrained)["devices"] == jax.device_count()


def test_a_model_that_was_saved_before_its_newest_settings_existed_has_their_defaults() -> None:
    names = ("layers", "hidden", "heads", "ffn", "max_length", "dropout", "share", "init")
    model = Model(layers=2, hidden=128)
    meta = {
        "kind": "mlm",
        "model": {name: getattr(model, name) for name in names},
        "vocab_size": 300,
        "labels": [],
    }
    assert saved_model.network_of(meta, Impl()).model == model
