"""Translation from pairs on disk to a compressed artifact that translates."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import tlc_jax
from tests.commands.conftest import pairs_arguments, result_of, tlc
from tlc_jax.cli.main import main
from tlc_jax.compression.artifact import load_artifact
from tlc_jax.config import Impl
from tlc_jax.core.params import flatten
from tlc_jax.runs import saved_model


def test_training_reports_what_the_design_promises(pairs, translated) -> None:
    result = result_of(translated)
    assert (
        result["stage"] == "translate" and result["steps"] == 12 and result["stopped_by"] == "steps"
    )
    counted = result["pairs"]["train"]
    assert counted["pairs"] == 400 == counted["kept"] + counted["too_long"]
    assert 0 <= result["padding"]["target"] < 1
    assert {
        "bleu",
        "chrf",
        "bleu_tokenized",
        "approx_bleu",
        "token_accuracy",
        "valid_perplexity",
    } <= result.keys()
    assert "tok:13a" in result["bleu_signature"] and "case:mixed" in result["bleu_signature"]
    assert result["sentences"] == 21
    lines = (translated / "predictions" / "dev.txt").read_text().splitlines()
    assert len(lines) == 21
    samples = result["samples"]
    assert len(samples) == 10
    english, french = ((pairs / f"valid.{side}").read_text().splitlines() for side in ("en", "fr"))
    rows = [english.index(one["source"]) for one in samples]
    assert rows == sorted(set(rows)) and rows != [*range(10)]
    assert [(one["reference"], one["translation"]) for one in samples] == [
        (french[row], lines[row]) for row in rows
    ]


def test_evaluation_of_the_run_is_that_of_its_training(translated, tmp_path) -> None:
    assert tlc("evaluate", f"--init={translated}", f"--workdir={tmp_path}") == 0
    found, trained = result_of(tmp_path), result_of(translated)
    for name in ("valid_loss", "bleu", "chrf", "approx_bleu"):
        assert found[name] == pytest.approx(trained[name]), name
    assert (tmp_path / "predictions/dev.txt").read_text() == (
        translated / "predictions/dev.txt"
    ).read_text()


def test_a_stopped_run_goes_on_to_the_same_bits(pairs, translated, tmp_path) -> None:
    run = pairs_arguments("translate", pairs, tmp_path, "--config.checkpoint.every_steps=5")
    assert tlc(*run) == 0
    (tmp_path / "result.json").unlink()  # as if it had been killed after step 10
    shutil.rmtree(tmp_path / "checkpoints" / "12")
    assert tlc(*run) == 0
    bits = [
        {
            path: np.asarray(leaf).tobytes()
            for path, leaf in flatten(saved_model.load(str(run), Impl()).params).items()
        }
        for run in (translated, tmp_path)
    ]
    assert bits[0] == bits[1]
    assert result_of(tmp_path)["bleu"] == result_of(translated)["bleu"]


def test_averaging_takes_the_mean_of_the_last_checkpoints(pairs, tmp_path) -> None:
    for side in ("en", "fr"):
        shutil.copy(pairs / f"valid.{side}", tmp_path / f"test.{side}")
    more = (
        f"--config.data.test=files:{tmp_path}/test.en+{tmp_path}/test.fr",
        "--config.checkpoint.every_steps=4",
        "--config.checkpoint.average=2",
        "--config.checkpoint.keep=2",
    )
    assert tlc(*pairs_arguments("translate", pairs, tmp_path, *more)) == 0
    result = result_of(tmp_path)
    assert result["averaged_steps"] == [12, 8] and "valid_loss_last" in result
    # The test is of the mean too; here its sentences are those of the validation split.
    for name in ("valid_loss", "bleu", "approx_bleu", "bleu_signature", "sentences"):
        assert result[f"test_{name.removeprefix('valid_')}"] == result[name]
    translations = [
        (tmp_path / f"predictions/{split}.txt").read_text() for split in ("dev", "test")
    ]
    assert translations[0] == translations[1]
    mean = flatten(saved_model.load(str(tmp_path), Impl()).params)
    parts = [
        flatten(saved_model.load(str(tmp_path / f"checkpoints/{step}"), Impl()).params)
        for step in (8, 12)
    ]
    for path, leaf in mean.items():
        np.testing.assert_allclose(
            leaf, (parts[0][path] + parts[1][path]) / 2, atol=1e-7, err_msg=path
        )
    assert np.abs(parts[0]["embedding/token"] - parts[1]["embedding/token"]).max() > 0


@pytest.fixture(scope="session")
def compressed(pairs, translated):
    workdir = pairs / "compressed"
    more = (
        "--config.recipe=prune:0.6+quantize:8",
        "--config.compress.step=0.3",
        f"--config.init.from={translated}",
    )
    assert tlc(*pairs_arguments("compress", pairs, workdir, *more)) == 0
    return workdir


def test_a_compressed_translator_is_what_its_artifact_holds(compressed, tmp_path) -> None:
    result = result_of(compressed)
    assert result["sparsity"] == pytest.approx(0.6, abs=0.01) and result["bits"] == 8
    assert [row["sparsity"] for row in result["rounds"]] == [0.0, 0.3, 0.6]
    assert all("token_accuracy" in row for row in result["rounds"])
    assert (
        tlc(
            "evaluate",
            f"--init={compressed}/artifact",
            "--config=configs/wmt14_enfr.py",
            *_dev(compressed, tmp_path),
        )
        == 0
    )
    assert result_of(tmp_path)["bleu"] == result["bleu"]
    assert load_artifact(compressed / "artifact/model.safetensors").metadata["kind"] == "translator"


def _dev(compressed, workdir):
    settings = json.loads((compressed / "config.json").read_text())
    flags = [
        f"--config.data.{name}={settings['data'][name]}"
        for name in ("train", "valid", "test", "length", "buckets")
    ]
    flags += [
        f"--config.decode.{name}={settings['decode'][name]}"
        for name in ("beams", "batch_size", "extra")
    ]
    return [
        *flags,
        "--config.model.max_length=40",
        "--config.eval.batch_size=512",
        f"--workdir={workdir}",
    ]


def test_predict_translates_a_file_in_its_order(compressed, pairs, tmp_path) -> None:
    texts = (pairs / "valid.en").read_text().splitlines()[:9]
    (tmp_path / "in.txt").write_text("".join(f"{text}\n" for text in texts))
    run = ("predict", f"--init={compressed}", f"--config.predict.input={tmp_path}/in.txt")
    assert tlc(*run, f"--config.predict.output={tmp_path}/out.txt") == 0
    best = (tmp_path / "out.txt").read_text().splitlines()
    assert best == (compressed / "predictions/dev.txt").read_text().splitlines()[:9]
    assert tlc(*run, f"--config.predict.output={tmp_path}/n.tsv", "--config.decode.nbest=2") == 0
    rows = [line.split("\t") for line in (tmp_path / "n.tsv").read_text().splitlines()]
    assert [(row[0], row[1]) for row in rows] == [
        (str(n), str(k)) for n in range(1, 10) for k in (1, 2)
    ]
    assert [row[3] for row in rows if row[1] == "1"] == best
    scores = [float(row[2]) for row in rows]
    assert all(first >= second for first, second in zip(scores[::2], scores[1::2], strict=True))
    assert tlc_jax.load(compressed).predict(texts) == best
    found = tlc_jax.load(compressed, {"decode": {"nbest": 2}}).predict(texts)
    assert list(found.columns) == ["sentence", "rank", "score", "translation"]
    assert list(found.translation) == [row[3] for row in rows]
    np.testing.assert_allclose(found.score, scores, atol=1e-4)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.decode.nbest=5", "decode.nbest=5 is more than decode.beams=2"),
        ("--config.decode.alpha=-1.0", "decode.alpha=-1.0 must be >= 0"),
        ("--config.optimizer.warmup=0.0", "optimizer.schedule=rsqrt"),
        ("--config.checkpoint.average=9", "checkpoint.average=9 is more than checkpoint.keep=8"),
        ("--config.data.train=files:a.en+b.fr+c.de", "not two line-aligned text files"),
        ("--config.optimizer.batch_size=8", "raise it"),
    ],
)
def test_bad_settings_end_in_one_line(pairs, tmp_path, capsys, flag, message) -> None:
    assert main(pairs_arguments("translate", pairs, tmp_path, flag)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error


def test_pairs_can_be_prepared_ahead(pairs, translated, tmp_path, capsys) -> None:
    del translated  # so that the cache is full
    flags = [
        flag
        for flag in pairs_arguments("prepare", pairs, tmp_path)
        if flag.startswith(("--config.data", "--config.tok"))
    ]
    assert (
        tlc("prepare", "--pairs", "--config=configs/wmt14_enfr.py", f"--workdir={tmp_path}", *flags)
        == 0
    )
    assert "training a tokenizer" not in capsys.readouterr().err
