"""kill -9 at random moments: the same weights to the bit, and no budget spent twice."""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.stages.conftest import pairs_arguments, pretrain_arguments, result_of
from tlc_jax.config import Impl
from tlc_jax.selectors import flatten
from tlc_jax.stages import starting_point

STEPS = 240


def start(arguments: Callable[..., list[str]], data: Path, workdir: Path) -> subprocess.Popen[bytes]:
    flags = arguments(
        data,
        workdir,
        f"--config.budget.steps={STEPS}",
        "--config.checkpoint.every_steps=15",
        "--config.eval.every_steps=25",
        "--config.impl.log_seconds=0.0",
        "--config.optimizer.batch_size=32",
    )
    environment = {**os.environ, "XLA_FLAGS": ""}  # one device: what is tested is a process that dies
    return subprocess.Popen(
        [sys.executable, "-m", "tlc_jax", *flags],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()[-2000:]


def rows_of(workdir: Path) -> list[dict]:
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def wait_for_step(process: subprocess.Popen[bytes], workdir: Path, step: int, rows_before: int) -> None:
    """Returns once the process has written a row of its own at `step` or later, or has ended."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        rows = rows_of(workdir)
        if len(rows) != rows_before and rows and rows[-1]["step"] >= step:
            return
        time.sleep(0.005)


def bits_of(workdir: Path) -> dict[str, bytes]:
    params = starting_point.load(str(workdir), Impl()).params
    return {path: np.asarray(leaf).tobytes() for path, leaf in flatten(params).items()}


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_runs_end_with_the_same_bits(world, pretrained, tmp_path, kills) -> None:
    del pretrained  # only so that the packed data is there already
    whole, broken = run_and_kill(functools.partial(start, pretrain_arguments, world), tmp_path, kills)
    assert bits_of(broken) == bits_of(whole)
    check_books(whole, broken)


@pytest.mark.slow
def test_killed_translators_end_with_the_same_bits(pairs, translated, tmp_path) -> None:
    del translated  # only so that the pairs are tokenised already
    whole, broken = run_and_kill(functools.partial(start, translate_arguments, pairs), tmp_path, 10)
    assert bits_of(broken) == bits_of(whole)
    check_books(whole, broken)
    assert result_of(broken)["bleu"] == result_of(whole)["bleu"]


def translate_arguments(pairs: Path, workdir: Path, *more: str) -> list[str]:
    # A batch of 32 target tokens holds a single pair: let it be sixteen.
    return pairs_arguments("translate", pairs, workdir, *more, "--config.optimizer.batch_size=512")


def run_and_kill(start: Callable[[Path], subprocess.Popen[bytes]], tmp_path: Path, kills: int) -> tuple[Path, Path]:
    """The workdirs of a run that nothing disturbs, and of one that is killed again and again and started anew."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(whole))
    rng = random.Random(kills)
    killed_at = []
    for step in sorted(rng.sample(range(1, STEPS), kills)):
        process = start(broken)
        wait_for_step(process, broken, step, len(rows_of(broken)))
        time.sleep(rng.uniform(0.0, 0.05))  # not always just after a row: in the middle of a save, too
        if process.poll() is not None:
            break  # done before the last kill
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed_at.append(rows_of(broken)[-1]["step"])
    if not (broken / "result.json").exists():
        finish(start(broken))
    print("killed at steps", killed_at)
    assert len(killed_at) >= kills // 2
    return whole, broken


def check_books(whole: Path, broken: Path) -> None:
    """What the killed run says it spent is what the other one did."""
    first, again = result_of(whole), result_of(broken)
    for name in ("steps", "tokens", "examples", "epochs", "flops", "stopped_by", "valid_loss"):
        assert first[name] == again[name], name
    # What was lost in a kill is not in the books: every step and every evaluation stands there once.
    evaluations = [row["step"] for row in rows_of(broken) if row["event"] == "eval"]
    assert evaluations == sorted(set(evaluations)) == list(range(25, STEPS, 25))
    tokens = [row["tokens"] for row in rows_of(broken)]
    assert tokens == sorted(tokens)
    assert again["seconds"]["train"] == pytest.approx(rows_of(broken)[-1]["train_seconds"])
