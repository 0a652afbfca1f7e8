"""Killed at random moments: the same weights to the bit, and no budget spent twice."""

from __future__ import annotations

import functools
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.commands.conftest import pairs_arguments, pretrain_arguments, result_of
from tests.helpers import processes
from tests.helpers.processes import Process, bits_of, finish, rows_of, wait_for_step

STEPS = 90


def start(arguments: Callable[..., list[str]], data: Path, workdir: Path) -> list[Process]:
    return processes.start(
        arguments(
            data,
            workdir,
            f"--config.budget.steps={STEPS}",
            "--config.checkpoint.every_steps=15",
            "--config.eval.every_steps=25",
            "--config.impl.log_seconds=0.0",
            "--config.optimizer.batch_size=32",
            "--config.impl.dropout_keys=rbg",
        )
    )


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_runs_end_with_the_same_bits(packed, tmp_path, kills) -> None:
    whole, broken = run_and_kill(
        functools.partial(start, pretrain_arguments, packed), tmp_path, kills
    )
    assert bits_of(broken) == bits_of(whole)
    check_amounts(whole, broken)


@pytest.mark.slow
def test_killed_translators_end_with_the_same_bits(pairs, translated, tmp_path) -> None:
    del translated  # only so that the pairs are tokenized already
    whole, broken = run_and_kill(functools.partial(start, translate_arguments, pairs), tmp_path, 10)
    assert bits_of(broken) == bits_of(whole)
    check_amounts(whole, broken)
    assert result_of(broken)["bleu"] == result_of(whole)["bleu"]


def translate_arguments(pairs: Path, workdir: Path, *more: str) -> list[str]:
    # A batch of 32 target tokens holds a single pair: let it be sixteen.
    return pairs_arguments("translate", pairs, workdir, *more, "--config.optimizer.batch_size=512")


def run_and_kill(
    start: Callable[[Path], list[Process]], tmp_path: Path, kills: int
) -> tuple[Path, Path]:
    """The workdirs of a run that nothing disturbs, and of one that is killed and restarted."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(whole))
    rng = random.Random(kills)
    killed_at = []
    for step in sorted(rng.sample(range(1, STEPS), kills)):
        started = start(broken)
        wait_for_step(started, broken, step, len(rows_of(broken)))
        # Not always just after a row, so that some kills hit a save.
        time.sleep(rng.uniform(0.0, 0.05))
        if started[0].poll() is not None:
            break  # done before the last kill
        started[0].send_signal(signal.SIGKILL)
        started[0].communicate()
        killed_at.append(rows_of(broken)[-1]["step"])
    if not (broken / "result.json").exists():
        finish(start(broken))
    print("killed at steps", killed_at)
    assert len(killed_at) >= kills // 2
    return whole, broken


def check_amounts(whole: Path, broken: Path, evaluated: range = range(25, STEPS, 25)) -> None:
    """The killed run reports what the other one spent."""
    first, again = result_of(whole), result_of(broken)
    for name in ("steps", "tokens", "examples", "epochs", "flops", "stopped_by", "valid_loss"):
        assert first[name] == again[name], name
    # What a kill lost is not counted: every step and every evaluation occurs once.
    evaluations = [row["step"] for row in rows_of(broken) if row["event"] == "eval"]
    assert evaluations == sorted(set(evaluations)) == list(evaluated)
    tokens = [row["tokens"] for row in rows_of(broken)]
    assert tokens == sorted(tokens)
    assert again["seconds"]["train"] == pytest.approx(rows_of(broken)[-1]["train_seconds"])


@pytest.mark.kills
@pytest.mark.parametrize("count", [1, 2])
def test_fifty_kills_of_one_and_of_two_processes(packed, tmp_path, count) -> None:
    """SIGTERM and SIGKILL at random moments of start-up, training, evaluation and saving.

    Every run that comes to its end must have the weights and the amounts of one that nothing
    disturbed; nothing is repaired by hand in between.
    """
    rng = random.Random(count)

    def begin(workdir: Path) -> list[Process]:
        flags = (
            "--config.budget.steps=610",
            "--config.checkpoint.every_steps=15",
            "--config.eval.every_steps=25",
            "--config.impl.log_seconds=0.0",
            "--config.optimizer.batch_size=32",
            "--config.impl.dropout_keys=rbg",
        )
        return processes.start(pretrain_arguments(packed, workdir, *flags), count)

    whole = tmp_path / "whole"
    finish(begin(whole))
    kills: list[tuple[str, str]] = []
    run = 0
    while len(kills) < 50:
        workdir = tmp_path / f"broken-{run}"
        while not (workdir / "result.json").exists():
            if len(kills) == 50:
                finish(begin(workdir))
                break
            kills += kill_once(begin(workdir), workdir, rng)
        assert bits_of(workdir) == bits_of(whole)
        check_amounts(whole, workdir, range(25, 610, 25))
        run += 1
    print(
        f"{count} process(es), {len(kills)} kills, {run} runs:",
        {kind: kills.count(kind) for kind in sorted(set(kills))},
    )


def kill_once(
    started: Sequence[Process], workdir: Path, rng: random.Random
) -> list[tuple[str, str]]:
    """Signals one of the processes at a random moment.

    Returns:
      (signal, what was going on); nothing if the run ended first.
    """
    rows = len(rows_of(workdir))
    if rng.random() < 0.9:  # else during start-up, too
        wait_for_step(started, workdir, 0, rows)
    time.sleep(rng.uniform(0.0, 2.0))
    victim = rng.choice(list(started))
    number = rng.choice([signal.SIGTERM, signal.SIGKILL])
    if any(process.poll() is not None for process in started):
        finish(started)
        return []
    last = rows_of(workdir)[-1]["event"] if len(rows_of(workdir)) != rows else "start"
    saving = any(workdir.glob("checkpoints/*tmp*"))
    victim.send_signal(number)
    if last == "start" and len(started) > 1:
        # A process waits minutes for one that it has not met yet; launchers have less patience.
        deadline = time.monotonic() + 20
        while any(process.poll() is None for process in started) and time.monotonic() < deadline:
            time.sleep(0.1)
        for process in started:
            process.kill()
        processes.ends(started)
        return [(number.name, "start")]
    for process, (status, errors) in zip(
        started, processes.ends(started, processes.ENDS_WITHIN), strict=True
    ):
        # SIGTERM before the command listens simply ends it; and a run may have been done already.
        allowed = {75, 0, -number} if process is victim else {75, 0}
        assert status in allowed, (status, errors[-2000:])
    return [(number.name, "saving" if saving else last if last == "start" else f"after {last}")]
