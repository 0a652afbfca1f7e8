"""Branches: several budgets from one run, each with the bits of a run of its own."""

from __future__ import annotations

import json

import jax.numpy as jnp
import pytest

from tests.commands.conftest import finetune_arguments, pretrain_arguments, result_of, tlc
from tests.helpers.processes import bits_of, rows_of
from tlc_jax.config import Budget, Optimizer
from tlc_jax.training.loop import Trainer
from tlc_jax.training.optimizer import phase, schedule

WSD = (
    "--config.optimizer.schedule=wsd",
    "--config.optimizer.cooldown=0.3",
    "--config.checkpoint.every_steps=7",
    "--config.eval.every_steps=4",
)


def arguments(world, workdir, steps: int, warmup: float, *more: str) -> list[str]:
    own = (f"--config.budget.steps={steps}", f"--config.optimizer.warmup={warmup}")
    return pretrain_arguments(world, workdir, *WSD, *own, *more)


@pytest.fixture(scope="module")
def whole(packed, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("branches") / "whole"
    more = ("--config.budget.branches=(0.5, 0.25)",)
    assert tlc(*arguments(packed, workdir, 40, 0.4, *more)) == 0
    return workdir


@pytest.mark.parametrize(("share", "steps", "warmup"), [(0.25, 10, 0.4), (0.5, 20, 0.2)])
def test_a_branch_ends_with_the_bits_of_a_run_of_its_budget(
    packed, tmp_path, whole, share, steps, warmup
) -> None:
    assert tlc(*arguments(packed, tmp_path / "alone", steps, warmup)) == 0
    branch = whole / "branches" / f"{share:g}"
    assert bits_of(branch) == bits_of(tmp_path / "alone")
    alone = result_of(tmp_path / "alone")
    told = result_of(whole)["branches"][f"{share:g}"]
    assert told["steps"] == steps and told["valid_loss"] == alone["valid_loss"]
    assert result_of(branch)["tokens"] == alone["tokens"]
    # It trains what comes after the rate falls, and nothing before it a second time.
    trained = [row["step"] for row in rows_of(branch) if row["event"] in ("train", "eval")]
    assert min(trained) > 0.7 * steps


def test_the_run_itself_does_not_notice_its_branches(packed, tmp_path, whole) -> None:
    assert tlc(*arguments(packed, tmp_path / "alone", 40, 0.1)) == 0
    assert bits_of(whole) == bits_of(tmp_path / "alone")
    assert [row["step"] for row in rows_of(whole) if row["event"] == "eval"] == [*range(4, 41, 4)]


class Killed(BaseException):
    """As kill -9: nothing is saved on the way out."""


@pytest.mark.parametrize(
    "step", [9, *(pytest.param(step, marks=pytest.mark.slow) for step in (7, 15, 33))]
)
def test_a_killed_run_has_the_same_branches(packed, tmp_path, whole, monkeypatch, step) -> None:
    workdir, dispatch = tmp_path / "broken", Trainer.dispatch

    def killed(self, batch) -> None:
        if self.step == step:
            raise Killed
        dispatch(self, batch)

    command = arguments(packed, workdir, 40, 0.4, "--config.budget.branches=(0.5, 0.25)")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "dispatch", killed)
        tlc(*command)
    assert tlc(*command) == 0
    for name in ("0.25", "0.5"):
        assert bits_of(workdir / "branches" / name) == bits_of(whole / "branches" / name), name
    assert bits_of(workdir) == bits_of(whole)


def test_seconds_of_the_benchmark_clock_are_converted_once(packed, tmp_path) -> None:
    command = arguments(
        packed,
        tmp_path / "run",
        0,
        0.1,
        "--config.budget.seconds=0.4",
        "--config.budget.clock=benchmark",
        "--config.budget.branches=(0.5,)",
    )
    assert tlc(*command) == 0
    measured = [
        json.loads((folder / "benchmark.json").read_text())
        for folder in (tmp_path / "run", tmp_path / "run" / "branches" / "0.5")
    ]
    assert measured[0] == measured[1]
    result = result_of(tmp_path / "run")
    assert abs(result["branches"]["0.5"]["steps"] - result["steps"] / 2) <= 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("--config.budget.branches=(1.5,)",), "budget.branches=(1.5,) must be > 0 and < 1"),
        (("--config.budget.branches=(0.5,)",), "set optimizer.schedule=wsd"),
        (
            ("--config.budget.branches=(0.3,)", "--config.optimizer.schedule=wsd"),
            "budget.branches=0.3 of budget.steps=6 is not a whole number",
        ),
        (
            ("--config.optimizer.schedule=wsd", "--config.optimizer.warmup=0.9"),
            "optimizer.warmup and optimizer.cooldown must add up to at most 1",
        ),
    ],
)
def test_branches_that_cannot_be_are_refused(packed, tmp_path, refused, settings, says) -> None:
    assert says in refused(*pretrain_arguments(packed, tmp_path / "run", *settings))


def test_finetuning_has_no_branches(world, pretrained, tmp_path, refused) -> None:
    more = ("--config.optimizer.schedule=wsd", "--config.budget.branches=(0.5,)")
    more += (f"--config.init.from={pretrained}",)
    command = finetune_arguments("finetune", world, tmp_path / "run", *more)
    assert "is for pretrain and translate" in refused(*command)


def test_the_rate_rises_stays_and_falls() -> None:
    settings = Optimizer(learning_rate=2.0, warmup=0.2, cooldown=0.4, schedule="wsd")
    rate, at = schedule(settings, 64), phase(settings, Budget(branches=(0.5,)))
    # Warm-up takes a fifth of the shortest branch.
    expected = {0.0: 0.0, 0.05: 1.0, 0.1: 2.0, 0.3: 2.0, 0.6: 2.0, 0.8: 1.0, 1.0: 0.0, 1.2: 0.0}
    for fraction, value in expected.items():
        assert float(rate(jnp.float32(at(fraction)))) == pytest.approx(value, abs=1e-6)
