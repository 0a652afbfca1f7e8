"""Two real processes share a run: it trains, stops when told, loses a process and goes on."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.commands.conftest import (
    finetune_arguments,
    pairs_arguments,
    pretrain_arguments,
    result_of,
)
from tests.commands.test_study import study_settings, write_config
from tests.helpers import processes
from tests.helpers.processes import finish, rows_of, wait_for_step
from tests.training.test_checkpoint import damage
from tlc_jax.training.checkpoint import complete_steps

STEPS = 90


def begin(world: Path, workdir: Path, count: int, *more: str) -> list[processes.Process]:
    flags = (
        f"--config.budget.steps={STEPS}",
        "--config.eval.every_steps=20",
        "--config.checkpoint.every_steps=15",
        "--config.impl.log_seconds=0.0",
        *more,
    )
    return processes.start(pretrain_arguments(world, workdir, *flags), count)


@pytest.fixture(scope="module")
def alone(packed, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("alone") / "run"
    finish(begin(packed, workdir, 1))
    return workdir


def test_stopped_killed_and_moved_runs_end_like_one_that_nothing_disturbed(
    world, alone, tmp_path
) -> None:
    """On two processes, told to stop; on two, one killed; then to its end on a single one."""
    run = tmp_path / "run"
    started = begin(world, run, 2)
    wait_for_step(started, run, 10, 0)
    started[1].send_signal(signal.SIGTERM)
    found = processes.ends(started, processes.ENDS_WITHIN)
    assert [status for status, _ in found] == [75, 75], found
    saved = complete_steps(run / "checkpoints")[0]
    assert f"another process was told to stop at step {saved}; all is saved in {run}" in found[0][1]
    assert f"tlc: stopped: SIGTERM at step {saved}" in found[1][1]
    assert (
        rows_of(run)[-1] | {"step": saved, "event": "stop", "stopped_by": "preemption"}
        == rows_of(run)[-1]
    )

    started = begin(world, run, 2)
    wait_for_step(started, run, saved + 20, len(rows_of(run)))
    started[0].send_signal(signal.SIGKILL)
    found = processes.ends(started, processes.ENDS_WITHIN)
    assert [status for status, _ in found] == [-signal.SIGKILL, 75], found
    assert found[1][1].splitlines()[-1] == (
        "tlc: stopped: process 0 of 2 ended early; this one (process 1) ends too. "
        "Nothing that was saved is lost: run the same command again"
    )

    finish(begin(world, run, 1))
    moved, whole = result_of(run), result_of(alone)
    for name in ("steps", "tokens", "examples", "flops"):
        assert moved[name] == whole[name], name
    assert moved["valid_loss"] == pytest.approx(whole["valid_loss"], rel=1e-5)
    evaluations = [
        (row["step"], row["valid_loss"]) for row in rows_of(run) if row["event"] == "eval"
    ]
    expected = [
        (row["step"], row["valid_loss"]) for row in rows_of(alone) if row["event"] == "eval"
    ]
    assert [step for step, _ in evaluations] == [step for step, _ in expected] == [20, 40, 60, 80]
    assert [loss for _, loss in evaluations] == pytest.approx(
        [loss for _, loss in expected], rel=1e-5
    )
    assert not list(run.glob("checkpoints/*tmp*"))


@pytest.mark.slow
def test_a_checkpoint_of_one_process_goes_on_in_two_with_its_parameters_split(
    world, alone, tmp_path
) -> None:
    run = tmp_path / "run"
    started = begin(world, run, 1)
    wait_for_step(started, run, 20, 0)
    started[0].send_signal(signal.SIGTERM)
    (status, errors), *_ = processes.ends(started)
    assert status == 75, errors
    damaged, _ = complete_steps(run / "checkpoints")
    damage(run / "checkpoints" / str(damaged))
    for status, errors in processes.ends(begin(world, run, 2, "--config.impl.mesh=fsdp=2")):
        assert status == 0, errors
        assert f"checkpoints/{damaged} cannot be read" in errors
    result = result_of(run)
    assert (result["processes"], result["devices"]) == (2, 2)
    assert result["valid_loss"] == pytest.approx(result_of(alone)["valid_loss"], rel=1e-5)
    assert set(result["straggler"]) == {"process", "seconds_waited_for"}
    assert "fsdp" in (run / "parameters.txt").read_text()


def test_finetuning_predicts_every_example_once_in_two_processes(
    world, pretrained, finetuned, tmp_path
) -> None:
    run = tmp_path / "run"
    finish(
        processes.start(
            finetune_arguments("finetune", world, run, f"--config.init.from={pretrained}"), 2
        )
    )
    two, one = result_of(run), result_of(finetuned)
    assert two["valid_loss"] == pytest.approx(one["valid_loss"], rel=1e-4)
    assert two["accuracy_by_split"] == one["accuracy_by_split"]
    ours, theirs = (np.load(folder / "predictions" / "dev.npz") for folder in (run, finetuned))
    np.testing.assert_array_equal(ours["ids"], theirs["ids"])
    np.testing.assert_allclose(ours["probabilities"], theirs["probabilities"], atol=1e-4)


@pytest.mark.slow
def test_two_processes_translate_the_same(pairs, translated, tmp_path) -> None:
    run = tmp_path / "run"
    finish(processes.start(pairs_arguments("translate", pairs, run), 2))
    two, one = result_of(run), result_of(translated)
    assert two["valid_loss"] == pytest.approx(one["valid_loss"], rel=1e-4)
    assert two["sentences"] == one["sentences"] == 21
    assert (run / "predictions" / "dev.txt").read_text().count("\n") == 21


@pytest.mark.slow
def test_two_processes_prune_and_round_on_the_way_what_lies_on_both(
    world, pretrained, tmp_path
) -> None:
    recipe = "--config.recipe=prune:0.5,gradual=true+quantize:4,group=32,aware=true+finetune"
    for folder, count, more in (("one", 1, ()), ("two", 2, ("--config.impl.mesh=fsdp=2",))):
        flags = (recipe, f"--config.init.from={pretrained}", *more)
        finish(
            processes.start(finetune_arguments("compress", world, tmp_path / folder, *flags), count)
        )
    one, two = (result_of(tmp_path / folder) for folder in ("one", "two"))
    assert two["processes"] == 2 and one["sparsity"] == pytest.approx(0.5, abs=1e-3)
    assert (two["nonzero"], two["bytes_artifact"]) == (one["nonzero"], one["bytes_artifact"])
    assert two["valid_loss"] == pytest.approx(one["valid_loss"], rel=1e-5)


@pytest.mark.slow
def test_two_processes_do_a_whole_study_together(packed, tmp_path) -> None:
    recipes = [
        "dense",
        "prune:0.5+quantize:4",
        "prune:0.5,gradual=true+quantize:4,aware=true+finetune",
    ]
    settings = study_settings(packed, scratch=[], recipes=recipes, analyses=["quantize:4"])
    flags = [write_config(tmp_path / "study.py", settings), f"--workdir={tmp_path / 'run'}"]
    finish(processes.start(["study", *flags], 2))
    jobs = json.loads((tmp_path / "run" / "study.json").read_text())["jobs"]
    assert [job["state"] for job in jobs] == ["done"] * 6
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    ]
    assert [row["recipe"] for row in rows] == recipes
    assert rows[1]["nonzero"] == rows[2]["nonzero"] < rows[0]["nonzero"]
    assert all(row["accuracy"] is not None for row in rows)


def test_processes_with_different_settings_are_refused_together(packed, tmp_path) -> None:
    port = processes.free_port()
    started = []
    for index in (0, 1):
        where = f"--config.impl.processes=127.0.0.1:{port},2,{index}"
        started += begin(
            packed, tmp_path / "run", 1, where, f"--config.optimizer.learning_rate={1 + index}e-3"
        )
    for status, errors in processes.ends(started):
        assert status == 2
        assert errors.splitlines()[-1] == (
            "tlc: error: the processes of this run were started with different settings: "
            "give all the same command"
        )
