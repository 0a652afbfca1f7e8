"""Runs and studies whose workdir is in a bucket: killed, cut off, shared, and read again."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.commands.conftest import finetune_arguments, pretrain_arguments, result_of, tlc
from tests.commands.test_study import study_settings, write_config
from tests.helpers import processes
from tests.helpers.processes import bits_of, finish, rows_of
from tlc_jax.core.files import path_of
from tlc_jax.training.checkpoint import complete_steps


def on_bucket(world: Path, workdir: Path, *more: str) -> list[str]:
    """A pretraining run that reads its text from the bucket and keeps everything there."""
    for name in ("train.txt", "valid.txt"):
        if not (workdir.parent / name).exists():
            (workdir.parent / name).write_bytes((world / name).read_bytes())
    arguments = pretrain_arguments(
        workdir.parent,
        workdir,
        "--config.budget.steps=60",
        "--config.checkpoint.every_steps=15",
        "--config.eval.every_steps=25",
        "--config.impl.log_seconds=0.0",
        *more,
    )
    return arguments


@pytest.mark.parametrize(
    "count", [1, pytest.param(2, marks=pytest.mark.slow)], ids=["one process", "two processes"]
)
def test_a_killed_run_goes_on_elsewhere_and_ends_with_the_same_bits(
    storage, world, tmp_path, monkeypatch, count
) -> None:
    whole, broken = tmp_path / "whole", storage.folder("killed") / "run"
    finish(processes.start(on_bucket(world, whole), count))
    started = processes.start(on_bucket(world, broken), count)
    deadline = time.monotonic() + 120
    while not complete_steps(broken / "checkpoints") and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in started:
        process.send_signal(signal.SIGKILL)
    processes.ends(started)
    assert not (broken / "result.json").exists()
    # Another machine has no copy of the packed text; meanwhile storage is away for a moment.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    started = processes.start(on_bucket(world, broken), count)
    time.sleep(4.0)
    storage.stop()
    time.sleep(3.0)
    storage.start()
    finish(started)
    assert bits_of(broken) == bits_of(whole)
    steps = [row["step"] for row in rows_of(broken) if row["event"] == "train"]
    # In order, so none twice; a row may be of two steps.
    assert steps == sorted(steps) and len(set(steps)) >= 55
    assert [row["step"] for row in rows_of(broken) if row["event"] == "eval"] == [25, 50]
    assert not (broken / ".lock").exists()
    data = [path.name for path in (broken.parent / "cache").iterdir()]
    assert sum(name.endswith(".bin") for name in data) == 2  # packed once, by the first machine


@pytest.fixture(scope="module")
def study(storage, world, tmp_path_factory) -> Path:
    """A small study in the bucket, shared by two launchers that start at the same time."""
    workdir = storage.folder("study")
    settings = study_settings(world, recipes=["dense", "quantize:4"], scratch=[])
    settings["data"]["cache"] = str(workdir / "cache")
    config = write_config(tmp_path_factory.mktemp("config") / "study.py", settings)
    command = ["study", config, f"--workdir={workdir}"]
    for _ in range(3):  # a launcher ends with 75 where a job that the other one runs is missing
        ended = processes.ends([process for _ in range(2) for process in processes.start(command)])
        assert {status for status, _ in ended} <= {0, 75}, ended
        if all(status == 0 for status, _ in ended):
            break
    return workdir


def test_two_launchers_share_a_study(study) -> None:
    jobs = json.loads((study / "study.json").read_text())["jobs"]
    assert {job["state"] for job in jobs} == {"done"}
    assert len((study / "results.jsonl").read_text().splitlines()) == 2
    # Each job was trained once: its log has one session.
    for job in (path for path in (study / "jobs").iterdir() if "compress" not in path.name):
        assert len(list(job.glob("metrics-*.jsonl"))) == 1, job


def test_a_study_is_reported_and_its_models_are_used(study, world, tmp_path, capsys) -> None:
    assert tlc("report", f"--workdir={study}") == 0
    page = (study / "report" / "index.html").read_text()
    assert "<img" in page and f"report: {study}/report/index.html" in capsys.readouterr().out
    assert (study / "report" / "models.csv").read_text().count("\n") == 3
    model = next(path for path in (study / "jobs").iterdir() if "quantize4" in path.name)
    (study / "texts.txt").write_text("a red cat\nthe blue dog\n")
    for output in (study / "labels.tsv", tmp_path / "labels.tsv"):
        arguments = [f"--config.predict.input={study}/texts.txt"]
        arguments.append(f"--config.predict.output={output}")
        assert tlc("predict", f"--init={model}", *arguments) == 0
    assert (study / "labels.tsv").read_text() == (tmp_path / "labels.tsv").read_text()
    shutil.copytree(Path(world), tmp_path / "world")
    evaluated = study / "evaluated"
    assert tlc("evaluate", f"--init={model}", f"--workdir={evaluated}") == 0
    assert result_of(evaluated)["accuracy"] == result_of(model)["accuracy"]
    exported = study / "exported"
    assert tlc("export", f"--init={model}", f"--workdir={exported}") == 0
    assert (exported / "huggingface" / "model.safetensors").stat().st_size > 100_000


def test_what_is_finetuned_and_compressed_there_equals_the_local_model(
    storage, world, pretrained, tmp_path
) -> None:
    there = storage.folder("chain")
    for place in (there, tmp_path):
        more = (f"--config.init.from={pretrained}", "--config.impl.profile=2:2")
        assert tlc(*finetune_arguments("finetune", world, place / "model", *more)) == 0
        more = (f"--config.init.from={place}/model", "--config.recipe=prune:0.5+quantize:4")
        assert tlc(*finetune_arguments("compress", world, place / "small", *more)) == 0
    artifacts = [place / "small" / "artifact" / "model.safetensors" for place in (there, tmp_path)]
    assert artifacts[0].read_bytes() == artifacts[1].read_bytes()
    assert list(there.glob("model/profile/plugins/profile/*/*.xplane.pb"))


def test_a_checkpoint_that_vanished_is_named(storage, world, pretrained, refused) -> None:
    place = storage.folder("vanished")
    for path in pretrained.rglob("*"):
        if path.is_file():
            (place / path.relative_to(pretrained).as_posix()).write_bytes(path.read_bytes())
    found = [path for path in place.rglob("*") if "/params/" in str(path) and path.is_file()]
    for path in found:
        path.unlink()
    command = finetune_arguments("finetune", world, place / "x", f"--config.init.from={place}")
    assert "is not a readable tlc checkpoint" in refused(*command)


@pytest.mark.parametrize(
    ("bucket", "writing", "reading"),
    [
        ("none-such", "the bucket is missing", "does not exist"),
        ("forbidden", "access to object storage is denied", "access to object storage is denied"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_refused(
    storage, world, refused, tmp_path, bucket, writing, reading
) -> None:
    assert writing in refused(*pretrain_arguments(world, path_of(f"gs://{bucket}/run")))
    command = ("evaluate", f"--init=gs://{bucket}/run", f"--workdir={tmp_path}/evaluated")
    assert reading in refused(*command)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (
            "--config.data.valid=tfds:glue/sst2 --config.data.dir=gs://tests/tfds",
            "mount the bucket",
        ),
        ("--config.init.from=hf:gs://tests/roberta", "copy the model to a disk"),
        ("--config.data.train=files:gs://tests/none/*.txt", "matches no file"),
        ("--config.data.train=files:gs://tests/none.txt", "does not exist"),
        ("--config.tokenizer.path=gs://tests/none.model", "cannot be read"),
    ],
)
def test_what_a_bucket_lacks_is_refused(storage, world, tmp_path, refused, setting, says) -> None:
    assert says in refused(*pretrain_arguments(world, tmp_path / "run", *setting.split()))


@pytest.mark.kills
@pytest.mark.parametrize("count", [1, 2])
def test_a_study_killed_ten_times_ends_with_the_bits_of_a_local_one(
    storage, tmp_path, count
) -> None:
    """The demo with one encoder and one translator, in steps, and a seed each."""
    arguments = [
        "study",
        "--config=configs/demo.py",
        *(f"--config.study.{name}=('1x64',)" for name in ("sizes", "translators")),
        "--config.study.seeds=(0,)",
        "--config.budget.seconds=0.0",
        "--config.budget.steps=600",
        "--config.eval.every_seconds=0.0",
        "--config.eval.every_steps=100",
        "--config.checkpoint.every_steps=50",
        "--config.study.translation.budget.seconds=0.0",
        "--config.study.translation.budget.steps=150",
        "--config.study.translation.eval.every_seconds=0.0",
        "--config.study.translation.eval.every_steps=50",
    ]
    whole, broken = tmp_path / "whole", storage.folder("study")
    started = time.monotonic()
    finish(processes.start([*arguments, f"--workdir={whole}"], count), within=1200)
    seconds = time.monotonic() - started
    rng, kills = random.Random(count), []
    while len(kills) < 10:
        run = processes.start([*arguments, f"--workdir={broken}"], count)
        # On average all ten together come before the end.
        deadline = time.monotonic() + rng.uniform(0.04, 0.16) * seconds
        while time.monotonic() < deadline and all(process.poll() is None for process in run):
            time.sleep(0.1)
        if all(process.poll() == 0 for process in run):
            finish(run)
            break
        victim = rng.choice(run)
        kind = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        victim.send_signal(kind)
        kills.append(kind.name)
        ended = processes.ends(run, processes.ENDS_WITHIN)
        assert {status for status, _ in ended} <= {0, 75, -kind, -signal.SIGTERM}, ended
    finish(processes.start([*arguments, f"--workdir={broken}"], count), within=1200)
    print(f"{count} process(es): {seconds:.0f} s undisturbed, killed {len(kills)} times: {kills}")
    assert len(kills) >= 8
    for job in sorted((whole / "jobs").iterdir()):
        there = broken / "jobs" / job.name
        if (artifact := job / "artifact" / "model.safetensors").exists():
            assert (there / "artifact" / "model.safetensors").read_bytes() == artifact.read_bytes()
        elif (job / "checkpoints").exists():
            assert bits_of(there) == bits_of(job), job.name
    rows = [(place / "results.jsonl").read_text().splitlines() for place in (whole, broken)]
    assert len(rows[0]) == len(rows[1])
    for first, again in zip(*(map(json.loads, some) for some in rows), strict=True):
        for name in ("job", "accuracy", "bleu", "valid_loss", "bytes_artifact", "bytes_ideal"):
            assert np.all(first.get(name) == again.get(name)), (first["job"], name)
