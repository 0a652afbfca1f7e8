"""Trains the seeds of one finetuning run in one program, mapped over them.

Each seed has the batches, the dropout and the updates that it has alone. State, batches and metrics
have an axis of seeds in front. Batches of the seeds differ in width: all are padded to the widest,
and dropout draws the bits of each in its own width (`models.dropout.OwnWidthKey`).
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tlc_jax.config import Config
from tlc_jax.core import distributed as processes
from tlc_jax.core import json_lines
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import write_json
from tlc_jax.data.labelled import Labelled
from tlc_jax.models.dropout import LANES
from tlc_jax.models.network import Params
from tlc_jax.runs import session
from tlc_jax.runs.saved_model import SavedModel, initializer
from tlc_jax.tasks.base import test_numbers
from tlc_jax.tasks.classification import ClassifierRun, Predictions, summarize
from tlc_jax.training.checkpoint import save_params
from tlc_jax.training.loop import Outcome, Task, train
from tlc_jax.training.metrics_log import METRICS
from tlc_jax.training.step import Batch, jit_step, new_state, seed_bits

# An accelerator needs about a millisecond for this many operations in small products, and about as
# long to launch the kernels of a step. Above it, mapping may gain nothing.
_BOUND_BY_LAUNCHES = 1e11
_WARM_STEPS, _TIMED_STEPS = 3, 10


def obstacle(config: Config) -> str:
    """Why settings do not let the seeds of a finetuning run be mapped over, or an empty text."""
    budget = config.budget
    if budget.seconds:
        return "budget.seconds is measured for each seed, and these would share a clock"
    for unit in ("tokens", "flops"):
        if getattr(budget, unit):
            return f"budget.{unit} ends at another step for each seed, as their batches differ"
    if config.eval.keep_predictions:
        return "eval.keep_predictions writes files of each seed while it trains"
    if config.eval.noise_scale:
        return "eval.noise_scale is measured for one seed at a time"
    return ""


def obstacle_of_run(run: ClassifierRun, start: SavedModel | None) -> str:
    """Why an opened run cannot be mapped over seeds on its devices, or an empty text."""
    model, keys = run.network.model, run.config.impl.dropout_keys
    if (kind := run.network.kind) != "classifier":
        return f"task={kind} evaluates one seed at a time"
    if start and start.recipe != "dense":
        return f"{start.path} is compressed ({start.recipe})"
    if not model.dropout:
        return ""
    if keys == "rbg" and model.hidden % LANES:
        return f"model.hidden={model.hidden} is not a multiple of {LANES}"
    if keys == "rbg" and jax.default_backend() == "tpu":
        return "a TPU draws impl.dropout_keys=rbg in a way of its own, so take threefry2x32"
    if keys != "rbg" and not jax.config.values["jax_threefry_partitionable"]:
        return "jax_threefry_partitionable is off"
    return ""


class SeedsTogether:
    """A finetuning run of several seeds.

    Args:
      run: the run of any one of them.
      seeds: the seeds.
      start: dense model to start from; None: random weights.

    Attributes:
      runs: the run of each seed, which gets its predictions from the final evaluation.
      placement: that of `run`, with an axis of seeds.
    """

    def __init__(self, run: ClassifierRun, seeds: tuple[int, ...], start: SavedModel | None):
        self.runs = [run.with_seed(seed) for seed in seeds]
        self.placement = dataclasses.replace(run.placement, over_seeds=True)
        self._run, self._seeds, self._start = run, seeds, start
        self._batches = [run.host_batches(seed) for seed in seeds]
        self._tests: list[dict[str, Any]] = []
        self._widths = np.empty((len(seeds), 0), np.int64)  # of the batches of each seed alone

    def task(self) -> Task:
        """The training run for the loop."""
        one = self._run.task(initializer(self._run.network, self._seeds, self._start))
        return dataclasses.replace(
            one,
            batch=self.batch,
            evaluate=self.evaluate,
            meta={**one.meta, "seeds": list(self._seeds)},
            # Costs are those of one seed.
            peak_flops=one.peak_flops and one.peak_flops / len(self._seeds),
            seeds=self._seeds,
        )

    def batch(self, step: int) -> Batch:
        """The batches of all seeds, padded to the widest; "widths" holds the width of each."""
        each = [batches(step) for batches in self._batches]
        widths = np.array([batch["tokens"].shape[1] for batch in each], np.uint32)
        shape = len(each), len(each[0]["labels"]), int(widths.max())
        tokens = np.full(shape, self._run.network.model.padding, np.int32)
        for row, batch in zip(tokens, each, strict=True):
            row[:, : batch["tokens"].shape[1]] = batch["tokens"]
        labels = np.stack([batch["labels"] for batch in each])
        widths = np.broadcast_to(widths[:, None], labels.shape)
        return self.placement.for_step({"tokens": tokens, "labels": labels, "widths": widths})

    def evaluate(self, params: Params, final: bool) -> dict[str, Any]:
        """The metrics of each seed under "seeds", and the means of those that are numbers."""
        limit = 0 if final else self._run.config.eval.examples
        found = self._classify(params, self._run.data.valid, limit)
        each = [summarize(predictions, final) for predictions in found]
        for run, predictions in zip(self.runs, found, strict=True):
            if final:
                run.predictions = predictions
        means = {
            name: statistics.fmean(one[name] for one in each)
            for name, value in each[0].items()
            if isinstance(value, float)
        }
        return {**means, "seeds": each}

    def _classify(
        self, params: Params, splits: Sequence[Labelled], limit: int = 0
    ) -> list[dict[str, Predictions]]:
        """The predictions of each seed, by split."""
        found = {
            split.name: self._run.classify_together(params, len(self._seeds), split, limit)
            for split in splits
        }
        return [
            {name: of_seeds[index] for name, of_seeds in found.items()}
            for index in range(len(self._seeds))
        ]

    def train(self, workdir: Path) -> Outcome:
        """Trains under the config's budget, which is that of each seed, and tests."""
        outcome = train(self.task(), self._run.config, workdir, self.placement)
        found = self._classify(outcome.params, self._run.data.test)
        for run, predictions in zip(self.runs, found, strict=True):
            run.predictions = {**run.predictions, **predictions}
        self._tests = [test_numbers(summarize(one)) if one else {} for one in found]
        self._widths = np.stack([batches.widths_of(outcome.steps) for batches in self._batches])
        return outcome

    def write(self, index: int, outcome: Outcome, shared: Path, workdir: Path) -> dict[str, Any]:
        """Writes what a run of one of the seeds leaves, apart from config.json and result.json.

        Args:
          index: place of the seed among the seeds.
          outcome: the outcome of `train`.
          shared: workdir of `train`.
          workdir: workdir of the seed.

        Returns:
          The fields of result.json that training decides. Seconds are those of all seeds together.
        """
        run, steps = self.runs[index], outcome.steps
        params = run.placement.gather(jax.tree.map(lambda leaf: leaf[index], outcome.params))
        save_params(workdir / "checkpoints", steps, params, run.meta)
        session.keep_tokenizer(run.tokenizer, workdir)
        run.write_parameters(workdir)
        run.save_predictions(workdir)
        rows = self._run.config.optimizer.batch_size
        widths = self._widths
        # Together all are padded to the widest; alone, the seed trains on fewer tokens.
        spent, own = (rows * np.cumsum([0, *row]) for row in (widths.max(axis=0), widths[index]))
        if processes.first():
            together = json_lines.read(shared / METRICS)
            done = [int(np.searchsorted(spent, row["tokens"])) for row in together]
            json_lines.write(
                workdir / METRICS,
                [
                    _row_of(row, index) | {"tokens": int(own[steps])}
                    for row, steps in zip(together, done, strict=True)
                ],
            )
        numbers = _row_of(outcome.numbers, index)
        seconds = numbers["seconds"]["train"]
        return {
            **run.numbers(self._start),
            **numbers,
            **self._tests[index],
            "tokens": int(own[-1]),
            "flops": float(sum(run.train_flops(rows, int(width)) for width in widths[index])),
            "tokens_per_second": int(own[-1]) / seconds if seconds else None,
            "seeds_together": len(self._seeds),
        }

    def worth_mapping(self, path: Path) -> bool:
        """Whether mapping takes less time than the seeds in turn, on the devices at hand.

        Where that is in doubt, both are timed. The answer is kept in a file, so that a restarted
        run goes on in the same way.

        Args:
          path: the file.
        """
        known: dict[str, Any] = {}
        with suppress(FileNotFoundError, ValueError):
            known = json.loads(path.read_text(encoding="utf-8"))
        way = processes.share(str(known.get("seeds_together", "")))
        if not way:
            known = self._compare()
            way = processes.share(known["seeds_together"])
            if processes.first():
                write_json(path, known)
        return way == "mapped"

    def _compare(self) -> dict[str, Any]:
        if jax.default_backend() == "cpu":
            return {"seeds_together": "in_turn", "why": "a CPU is not bound by launches"}
        workload = self._run.workload()
        if workload.cost.flops < _BOUND_BY_LAUNCHES * jax.device_count():
            return {"seeds_together": "mapped", "why": "steps of one seed are bound by launches"}
        return compared(self.seconds_per_step())

    def seconds_per_step(self) -> dict[str, float | None]:
        """Seconds for a step of all seeds, in turn and mapped; None if memory does not suffice."""
        first = self.runs[0].task(initializer(self._run.network, self._seeds[0], self._start))
        alone = _time_step(first, self.runs[0].placement, seed_bits(self._seeds[0]))
        seeds = np.stack([seed_bits(seed) for seed in self._seeds])
        try:
            mapped = _time_step(self.task(), self.placement, seeds)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            mapped = None
        return {"in_turn": alone * len(self._seeds), "mapped": mapped}


def compared(seconds: dict[str, float | None]) -> dict[str, Any]:
    """The faster way and the `SeedsTogether.seconds_per_step` that decided it."""
    in_turn, mapped = seconds["in_turn"], seconds["mapped"]
    faster = mapped is not None and in_turn is not None and mapped < in_turn
    way = "mapped" if faster else "in_turn"
    return {"seeds_together": way, "seconds_per_step": seconds}


def _time_step(task: Task, placement: Any, seed: np.ndarray) -> float:
    """Median seconds of a training step."""
    state = new_state(task.init, task.optimizer, placement)
    batch, seconds = task.batch(0), []
    with jax.set_mesh(placement.mesh):
        step = jit_step(task.step, state, placement)
        for index in range(_WARM_STEPS + _TIMED_STEPS):
            started = time.perf_counter()
            state, metrics, _ = step(state, batch, seed, np.int32(index), np.float32(0), None)
            jax.block_until_ready(metrics)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[_WARM_STEPS:])


def _row_of(row: dict[str, Any], index: int) -> dict[str, Any]:
    """A row of the shared metrics, or of its result, with the numbers of one seed."""
    own = row.get("seeds", [{}] * (index + 1))[index]
    if "curve_end" in row:
        own = {**own, "curve_end": _row_of(row["curve_end"], index)}
    return {name: value for name, value in row.items() if name != "seeds"} | own


def check(config: Config) -> None:
    """Refuses impl.seeds_together=mapped where the settings do not allow it.

    Raises:
      InputError: with the reason.
    """
    if config.impl.seeds_together == "mapped" and (why := obstacle(config)):
        raise refusal(why)


def refusal(why: str) -> InputError:
    """The error for impl.seeds_together=mapped where that is not possible."""
    return InputError(f"impl.seeds_together=mapped: {why}: set impl.seeds_together=in_turn or auto")
