"""Seeds of a finetuning sweep in one program, and one after another."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.commands.conftest import finetune_arguments, result_of, tlc
from tests.helpers import processes
from tlc_jax.commands import study
from tlc_jax.config import Budget, Config, Impl, Study
from tlc_jax.core.mesh import Placement
from tlc_jax.runs import saved_model, session
from tlc_jax.tasks import seeds_together
from tlc_jax.tasks.seeds_together import SeedsTogether, compared

TINY = (
    "--config.model.hidden=16",
    "--config.model.heads=2",
    "--config.tokenizer.vocab_size=296",
    "--config.impl.dropout_keys=rbg",
    "--config.impl.log_seconds=0.0",
    "--config.eval.every_steps=2",
    "--config.eval.examples=8",
    "--config.budget.steps=3",
    "--config.eval.batch_size=64",
    # Examples of very different lengths, few in a batch: widths differ between seeds.
    "--config.optimizer.batch_size=8",
    "--config.model.max_length=48",
    "--config.data.length=48",
    "--config.impl.layer_loop=unrolled",
)


def sweep(world: Path, workdir: Path, way: str, seeds: object, *more: str) -> int:
    flags = (*TINY, f"--config.seeds={seeds}", f"--config.impl.seeds_together={way}", *more)
    return tlc(*finetune_arguments("finetune", world, workdir, *flags))


def rows_of(workdir: Path, event: str) -> list[dict]:
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["event"] == event]


def assert_same(mapped: Path, in_turn: Path, seeds: tuple[int, ...]) -> None:
    for seed in seeds:
        one, other = mapped / f"seed-{seed}", in_turn / f"seed-{seed}"
        a, b = (np.load(folder / "predictions" / "dev.npz") for folder in (one, other))
        np.testing.assert_allclose(a["probabilities"], b["probabilities"], atol=1e-4)
        np.testing.assert_array_equal(a["ids"], b["ids"])
        for name in ("steps", "tokens", "flops", "examples", "epochs", "seed", "labels"):
            assert result_of(one)[name] == result_of(other)[name], name
        # A row averages all steps since the last one, which a stop may change; the norm is of one.
        norms, expected = (
            {row["tokens"]: row["gradient_norm"] for row in rows_of(folder, "train")}
            for folder in (one, other)
        )
        assert len(norms) > 1
        assert norms == pytest.approx(expected, rel=1e-3)
        assert rows_of(one, "eval")[-1]["accuracy"] == rows_of(other, "eval")[-1]["accuracy"]
        ends = [result_of(folder)["curve_end"] for folder in (one, other)]
        assert ends[0].keys() == ends[1].keys() and ends[0]["accuracy"] == ends[1]["accuracy"]


def test_mapped_seeds_end_like_seeds_in_turn_also_after_a_stop(
    world, tmp_path, monkeypatch, refused
) -> None:
    seeds, mapped, in_turn = (5, 2, 9), tmp_path / "mapped", tmp_path / "in_turn"
    assert sweep(world, in_turn, "auto", seeds) == 0
    choice = json.loads((in_turn / "seeds_together.json").read_text())
    assert choice["seeds_together"] == "in_turn"  # this is a CPU
    batch = SeedsTogether.batch
    widths = set()

    def stopping(self, step):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        placed = batch(self, step)
        widths.update(np.asarray(placed["widths"])[:, 0].tolist())
        return placed

    with monkeypatch.context() as patched:
        patched.setattr(SeedsTogether, "batch", stopping)
        assert sweep(world, mapped, "mapped", seeds, "--config.impl.prefetch=0") == 75
    assert len(widths) > 1  # so some batches were padded beyond their own width
    evaluate = ("evaluate", f"--init={mapped}", f"--workdir={tmp_path / 'evaluated'}")
    assert f"such as {mapped}/seed-5" in refused(*evaluate)
    assert sweep(world, mapped, "mapped", seeds) == 0
    assert not (mapped / "checkpoints").exists()
    assert_same(mapped, in_turn, seeds)
    assert saved_model.load(str(mapped / "seed-9"), Impl()).kind == "classifier"
    before = (mapped / "seed-2" / "result.json").stat().st_mtime_ns
    (mapped / "result.json").unlink()
    assert sweep(world, mapped, "mapped", seeds) == 0
    assert (mapped / "seed-2" / "result.json").stat().st_mtime_ns == before
    assert result_of(mapped)["accuracy"] == pytest.approx(result_of(in_turn)["accuracy"])


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
def test_sixteen_seeds_together_end_like_sixteen_runs(world, tmp_path, monkeypatch, devices):
    def open_devices(config, trains=True):
        chosen = jax.devices()[:devices]
        return config, Placement.parse(config.impl.mesh, config.impl.sharding, chosen)

    monkeypatch.setattr(session, "open_devices", open_devices)
    seeds = tuple(range(16))
    for way in ("mapped", "in_turn"):
        assert sweep(world, tmp_path / way, way, seeds) == 0
    for seed in seeds:
        one = finetune_arguments("finetune", world, tmp_path / "alone" / f"seed-{seed}", *TINY)
        assert tlc(*one, f"--config.seed={seed}", "--config.seeds=()") == 0
    assert_same(tmp_path / "mapped", tmp_path / "alone", seeds)
    assert_same(tmp_path / "in_turn", tmp_path / "alone", seeds)


@pytest.mark.slow
def test_two_processes_train_seeds_together(world, tmp_path) -> None:
    arguments = finetune_arguments("finetune", world, tmp_path / "mapped", *TINY)
    arguments += ["--config.seeds=(5, 0)", "--config.impl.seeds_together=mapped"]
    for status, errors in processes.ends(processes.start(arguments, 2)):
        assert status == 0, errors
    arguments[2] = f"--workdir={tmp_path / 'in_turn'}"
    arguments[-1] = "--config.impl.seeds_together=in_turn"
    for status, errors in processes.ends(processes.start(arguments, 2)):
        assert status == 0, errors
    assert_same(tmp_path / "mapped", tmp_path / "in_turn", (5, 0))


def test_finetuning_jobs_of_a_study_share_until_another_command_comes(tmp_path, monkeypatch):
    config = Config(study=Study(sizes=("1x64",), tasks={"a": {"budget": {"steps": 1}}}))
    config = dataclasses.replace(config, budget=Budget(steps=1))
    given = []
    names = ("finetune", "finetune", "compress", "finetune")

    def run_jobs(chosen, jobs, workdir, run_job):
        for name in names:
            run_job(name, config, workdir)

    monkeypatch.setattr(study, "run_jobs", run_jobs)
    monkeypatch.setattr(study, "run_command", lambda *arguments: None)
    monkeypatch.setattr(
        study.finetune, "run_sharing", lambda config, workdir, shared: given.append(shared)
    )
    study.run(config, tmp_path / "study", {})
    assert given[0] is given[1] is not given[2]


def test_what_cannot_be_mapped_is_refused_or_goes_in_turn(world, tmp_path, refused, monkeypatch):
    arguments = (*TINY, "--config.seeds=(0, 1)", "--config.impl.seeds_together=mapped")
    line = refused(
        *finetune_arguments(
            "finetune", world, tmp_path / "a", *arguments, "--config.budget.seconds=3.0"
        )
    )
    assert "impl.seeds_together=mapped: budget.seconds" in line
    assert "set impl.seeds_together=in_turn" in line
    assert not (tmp_path / "a").exists()
    kept = ("--config.eval.keep_predictions=True", "--config.eval.every_steps=1")
    line = refused(*finetune_arguments("finetune", world, tmp_path / "a", *arguments, *kept))
    assert "impl.seeds_together=mapped: eval.keep_predictions" in line
    measured = "--config.eval.noise_scale=True"
    line = refused(*finetune_arguments("finetune", world, tmp_path / "a", *arguments, measured))
    assert "impl.seeds_together=mapped: eval.noise_scale" in line
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    line = refused(*finetune_arguments("finetune", world, tmp_path / "b", *arguments))
    assert "take threefry2x32" in line


@pytest.mark.slow
def test_both_ways_are_timed_where_it_is_in_doubt(world, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(seeds_together, "_BOUND_BY_LAUNCHES", 0.0)
    assert sweep(world, tmp_path, "auto", (0, 1)) == 0
    choice = json.loads((tmp_path / "seeds_together.json").read_text())
    in_turn, mapped = (choice["seconds_per_step"][way] for way in ("in_turn", "mapped"))
    assert choice["seeds_together"] == ("mapped" if mapped < in_turn else "in_turn")
    assert min(in_turn, mapped) > 0


def test_the_faster_way_is_chosen_once(tmp_path, monkeypatch) -> None:
    together = SeedsTogether.__new__(SeedsTogether)
    times = iter([{"in_turn": 2.0, "mapped": 1.0}])
    monkeypatch.setattr(SeedsTogether, "_compare", lambda self: compared(next(times)))
    for _ in range(2):  # the second time it is read
        assert together.worth_mapping(tmp_path / "choice.json")
    assert compared({"in_turn": 1.0, "mapped": 2.0})["seeds_together"] == "in_turn"
    assert compared({"in_turn": 1.0, "mapped": None})["seeds_together"] == "in_turn"


def test_compressed_starts_are_not_mapped(finetuned, world) -> None:
    start = saved_model.load(str(finetuned), Impl())
    network = start.network(Impl())
    run = type("Run", (), {"network": network, "config": Config()})
    assert seeds_together.obstacle_of_run(run, start) == ""
    start.meta["recipe"] = "prune:0.5"
    assert "is compressed (prune:0.5)" in seeds_together.obstacle_of_run(run, start)
