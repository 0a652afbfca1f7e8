"""Look into how a trained encoder takes compression: error by module, sensitivity, and convergence of the run.

--init names a masked-language model or a classifier, and --config.recipe a recipe, which is applied in one go, without
recovery. analyze.parts says what is done; each part writes rows to result.json, and a CSV and figures to report/:

error: the difference of every matrix from what it was, by kind of module and by layer. sensitivity: what it costs to
compress one matrix alone, for each of them; a pruning threshold is then that matrix's own. convergence: the model dense
and compressed at every checkpoint that its run kept (see checkpoint.keep_every_steps), to tell whether training longer
makes a model harder to compress. Costs are of accuracy, or of a masked-language model's validation loss, on at most
eval.examples rows of each validation split.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import matplotlib
from matplotlib.figure import Figure

from tlc_jax.compression import error as compression_error
from tlc_jax.compression.apply import compress_params
from tlc_jax.compression.recipe import Prune, Recipe, parse_one_shot
from tlc_jax.config import Config
from tlc_jax.core import distributed as processes
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten, unflatten
from tlc_jax.data.progress import Bar
from tlc_jax.data.sources import check_sources
from tlc_jax.models.network import Params
from tlc_jax.report import compression_figures as figures
from tlc_jax.report import style
from tlc_jax.report.labels import recipe_labels
from tlc_jax.runs import saved_model as starting_point
from tlc_jax.runs import session
from tlc_jax.runs.saved_model import StartingPoint
from tlc_jax.tasks.base import task_of
from tlc_jax.training.checkpoint import complete_steps, read_meta, read_params

Rows = list[dict[str, Any]]


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Analyses in `workdir`; returns what result.json says."""
    del options
    if not config.init.source:
        raise InputError("nothing to analyze: name a run or a checkpoint with --init=DIR")
    parse_one_shot(config.recipe)
    starting_point.find(config.init.source)
    if config.data.valid:
        check_sources(config.data.valid, "data.valid", config.data)
    return session.run_once(workdir, config, lambda: _analyze(config, workdir))


def _analyze(config: Config, workdir: Path) -> dict[str, Any]:
    start = starting_point.load(config.init.source, config.impl, config.tokenizer.path)
    if start.kind == "translator":
        raise InputError(
            f"{start.path} is a translator: analyze takes masked-language models and classifiers"
        )
    starting_point.require_dense(start)
    config = session.adopt_model(config, start.model, start.path)
    with matplotlib.rc_context(style.RC):
        return {**_Analysis(config, start, workdir).run(), **session.provenance()}


@dataclasses.dataclass(frozen=True)
class _Metric:
    """What is lost: a number of an evaluation, and which way is worse."""

    name: str
    worse: int  # 1: the larger the worse
    scale: float  # in figures
    label: str
    cost: str

    def lost(self, before: float, after: float) -> float:
        return self.worse * (after - before)


_METRICS = {
    "mlm": _Metric(
        "valid_loss",
        1,
        1.0,
        "validation loss (nats per predicted token)",
        "rise of the loss (nats)",
    ),
    "classifier": _Metric(
        "accuracy", -1, 100.0, "accuracy (%)", "accuracy lost (percentage points)"
    ),
}


class _Analysis:
    """One model under one recipe."""

    def __init__(self, config: Config, start: StartingPoint, workdir: Path):
        self.config, self.start, self.workdir, self.folder = (
            config,
            start,
            workdir,
            workdir / "report",
        )
        self.metric, self.recipe = _METRICS[start.kind], parse_one_shot(config.recipe)
        self.label = recipe_labels([config.recipe])[config.recipe]
        self.name = f"{start.model.layers}x{start.model.hidden}, {self.label}, one shot"
        self.params = jax.device_get(start.params)
        self.compressed = compress_params(start.params, self.recipe).params
        self.matrices = compression_error.matrices(self.params, self.compressed, start.model.layers)

    def run(self) -> dict[str, Any]:
        """Does the parts that were asked for."""
        if processes.first():
            self.folder.mkdir(exist_ok=True)
        parts = self.config.analyze.parts
        result: dict[str, Any] = {
            "stage": "analyze",
            "init": str(self.start.path),
            "kind": self.start.kind,
            "recipe": self.config.recipe,
            **session.size_numbers(self.start.network(self.config.impl)),
        }
        if "error" in parts:
            result["error"] = self._error()
        if {"sensitivity", "convergence"} & set(parts):
            placement = session.open_devices(self.config)
            task = task_of(self.start.kind)
            run = task.of_saved(self.config, self.start, self.workdir, placement)

            def evaluate(params: Params) -> dict[str, Any]:
                return run.evaluate(params, False)

            dense = evaluate(self.params)
            if dense[self.metric.name] is None:
                raise InputError(f"data.valid has no labels: {self.metric.name} cannot be measured")
            for name, numbers in (("dense", dense), ("compressed", evaluate(self.compressed))):
                result |= {
                    f"{measure}_{name}": numbers[measure]
                    for measure in (self.metric.name, "valid_loss")
                }
            if "sensitivity" in parts:
                result["sensitivity"] = self._sensitivity(evaluate, placement.put_params, dense)
            if "convergence" in parts:
                result["convergence"] = self._convergence(evaluate)
        return result

    def _error(self) -> Rows:
        errors = compression_error.errors(self.matrices, self.params, self.compressed)
        self._save("error_modules", figures.error_by_module(errors, self.name))
        if any((error.matrix.layer or 1) > 1 for error in errors):
            self._save("error_depth", figures.error_by_depth(errors, self.name))
        return self._write("error", [error.row() for error in errors])

    def _sensitivity(
        self,
        evaluate: Callable[[Params], dict[str, Any]],
        put: Callable[[Params], Params],
        dense: dict[str, Any],
    ) -> Rows:
        """Each matrix compressed alone; everything has the same shapes, so nothing is compiled anew."""
        alone = compress_params(self.start.params, _own_thresholds(self.recipe)).params
        matrices = compression_error.matrices(self.params, alone, self.start.model.layers)
        placed = flatten(put(self.params))
        rows: Rows = []
        bar = Bar("sensitivity", "matrices")
        for number, matrix in enumerate(matrices):
            leaf = compression_error.with_one(matrix, self.params, alone)
            numbers = evaluate(unflatten({**placed, matrix.path: leaf}))
            row: dict[str, Any] = {"path": matrix.path, "name": matrix.name, "layer": matrix.layer}
            for measure in dict.fromkeys((self.metric.name, "valid_loss")):
                row[measure] = numbers[measure]
            row["lost"] = self.metric.lost(dense[self.metric.name], numbers[self.metric.name])
            row["loss_rise"] = numbers["valid_loss"] - dense["valid_loss"]
            rows.append(row)
            bar.update((number + 1) / len(matrices), number + 1)
        bar.close(len(rows))
        found = [
            (matrix, self.metric.scale * row["lost"])
            for matrix, row in zip(matrices, rows, strict=True)
        ]
        title = f"{self.name}: each matrix alone"
        self._save("sensitivity", figures.sensitivity(found, self.metric.cost, title))
        return self._write("sensitivity", rows)

    def _convergence(self, evaluate: Callable[[Params], dict[str, Any]]) -> Rows:
        """The model at every checkpoint of its run, dense and compressed."""
        source = Path(self.config.init.source).expanduser()
        directory = source if source.name == "checkpoints" else source / "checkpoints"
        steps = complete_steps(directory)[::-1]
        if len(steps) < 2:
            session.say(
                f"convergence is left out: {source} is no run with several checkpoints; pretrain or finetune with "
                "checkpoint.keep_every_steps keeps them"
            )
            return []
        rows: Rows = []
        for step in steps:
            network = starting_point.network_of(read_meta(directory, step), self.config.impl)
            params = read_params(directory, step, network.abstract())
            dense, small = evaluate(params), evaluate(compress_params(params, self.recipe).params)
            row: dict[str, Any] = {"step": step}
            for measure in dict.fromkeys((self.metric.name, "valid_loss")):
                row |= {f"{measure}_dense": dense[measure], f"{measure}_compressed": small[measure]}
            row["lost"] = self.metric.lost(dense[self.metric.name], small[self.metric.name])
            rows.append(row)
            session.say(
                f"step {step}: {self.metric.name} {dense[self.metric.name]:.4f}, lost {row['lost']:.4f}"
            )
        metric = self.metric
        self._save(
            "convergence",
            figures.convergence(rows, metric.name, metric.label, metric.scale, self.name),
        )
        return self._write("convergence", rows)

    def _save(self, name: str, figure: Figure) -> None:
        if processes.first():
            style.save(figure, self.folder / f"{name}.png")

    def _write(self, name: str, rows: Rows) -> Rows:
        if processes.first():
            with (self.folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        return rows


def _own_thresholds(recipe: Recipe) -> Recipe:
    """The recipe with a pruning threshold for each matrix, so that what becomes of one does not depend on others."""
    return Recipe(
        tuple(
            dataclasses.replace(operation, scope="tensor")
            if isinstance(operation, Prune)
            and operation.scope in ("global", "layer")
            and not operation.block
            else operation
            for operation in recipe.operations
        )
    )
