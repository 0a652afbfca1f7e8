"""Measure how a trained encoder takes compression: error by module, sensitivity, convergence.

--init names a masked-language model or a classifier, and --config.recipe a recipe, which is applied
in one go, without recovery. analyze.parts selects the parts; each writes rows to result.json, and a
CSV and figures to report/:

error: the difference between every matrix and its compressed form, by kind of module and by layer.
sensitivity: the cost of compressing one matrix alone, for each of them; a pruning threshold is then
that matrix's own. convergence: the model dense and compressed at every checkpoint that its run kept
(see checkpoint.keep_every_steps), which tells whether longer training makes a model harder to
compress. Costs are of accuracy, or of a masked-language model's validation loss, on at most
eval.examples rows of each validation split.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from tlc_jax.compression import error as compression_error
from tlc_jax.compression.apply import compress_params
from tlc_jax.compression.recipe import Prune, Recipe, parse_one_shot
from tlc_jax.config import Config
from tlc_jax.core import distributed
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import path_of, write_text
from tlc_jax.core.params import flatten, unflatten
from tlc_jax.data.progress import Bar
from tlc_jax.models.network import Params
from tlc_jax.report import compression_figures as figures
from tlc_jax.report import style
from tlc_jax.report.labels import recipe_labels
from tlc_jax.runs import auto, saved_model, session
from tlc_jax.runs.saved_model import SavedModel
from tlc_jax.tasks.base import open_saved
from tlc_jax.tasks.masked_lm import require_head
from tlc_jax.training.checkpoint import complete_steps, read_meta, read_params

Row = dict[str, Any]


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Analyzes in `workdir`; returns the content of result.json."""
    saved_model.find(config.init.source)
    parse_one_shot(config.recipe)
    saved_model.check_inputs(config)
    return session.run_once(workdir, config, lambda config: _analyze(config, workdir))


def _analyze(config: Config, workdir: Path) -> dict[str, Any]:
    start, config = saved_model.load_start(config)
    require_head(start)
    if start.kind not in _METRICS:
        raise InputError(
            f"{start.path} is a {start.kind}: analyze takes masked-language models and classifiers"
        )
    saved_model.require_dense(start)
    with matplotlib.rc_context(style.RC):
        return _Analysis(config, start, workdir).run()


@dataclasses.dataclass(frozen=True)
class _Metric:
    """The metric whose loss is the cost of compression.

    Attributes:
      name: its name in an evaluation.
      worse: 1 if larger is worse, otherwise -1.
      scale: factor for figures.
      label, cost: the metric and its loss in words, with units.
    """

    name: str
    worse: int
    scale: float
    label: str
    cost: str

    def lost(self, before: Row, after: Row) -> float:
        return self.worse * (after[self.name] - before[self.name])


_LOSS = "validation loss (nats per predicted token)"
_ACCURACY_LOST = "accuracy lost (percentage points)"
_METRICS = {
    "mlm": _Metric("valid_loss", 1, 1.0, _LOSS, "rise of the loss (nats)"),
    "classifier": _Metric("accuracy", -1, 100.0, "accuracy (%)", _ACCURACY_LOST),
}


class _Analysis:
    """One model under one recipe."""

    def __init__(self, config: Config, start: SavedModel, workdir: Path):
        self.config, self.start, self.workdir = config.without_test(), start, workdir
        self.metric, self.recipe = _METRICS[start.kind], parse_one_shot(config.recipe)
        label = recipe_labels([config.recipe])[config.recipe]
        self.title = f"{start.model.layers}x{start.model.hidden}, {label}, one shot"
        # On the host: one matrix after the other is compressed there, for the sensitivity.
        self.params = jax.device_get(start.params)
        self.compressed = compress_params(start.params, self.recipe).params
        # Here, so that a recipe that changes nothing is refused before anything is evaluated.
        self.matrices = compression_error.matrices(self.params, self.compressed, start.model.layers)

    def run(self) -> dict[str, Any]:
        """The parts that analyze.parts names."""
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
            self.config, self.placement = session.open_devices(self.config)
            result |= auto.chosen(self.config)
            self.task = open_saved(self.config, self.start, self.workdir, self.placement)
            dense = self._evaluate(self.params)
            if dense[self.metric.name] is None:
                raise InputError(f"data.valid has no labels: {self.metric.name} cannot be measured")
            result |= self._compared(dense, self._evaluate(self.compressed))
            if "sensitivity" in parts:
                result["sensitivity"] = self._sensitivity(dense)
            if "convergence" in parts:
                result["convergence"] = self._convergence()
        return result

    def _evaluate(self, params: Params) -> Row:
        """The headline metric and the loss, which may be the same."""
        numbers = self.task.evaluate(params, False)
        return {name: numbers[name] for name in (self.metric.name, "valid_loss")}

    def _compared(self, dense: Row, small: Row) -> Row:
        """The numbers of both models, by `NAME_dense` and `NAME_compressed`."""
        models = {"dense": dense, "compressed": small}
        return {f"{name}_{which}": models[which][name] for name in dense for which in models}

    def _error(self) -> list[Row]:
        errors = compression_error.errors(self.matrices, self.params, self.compressed)
        drawn = {"error_modules": figures.error_by_module(errors, self.title)}
        if any((error.matrix.layer or 1) > 1 for error in errors):
            drawn["error_depth"] = figures.error_by_depth(errors, self.title)
        return self._write("error", [error.row() for error in errors], drawn)

    def _sensitivity(self, dense: Row) -> list[Row]:
        """The cost of each matrix compressed alone."""
        alone = compress_params(self.start.params, _own_thresholds(self.recipe)).params
        matrices = compression_error.matrices(self.params, alone, self.start.model.layers)
        # On the devices once: per evaluation only the changed leaf travels, and as all shapes stay
        # the same, the evaluation is compiled once.
        placed = flatten(self.placement.put_params(self.params))
        rows: list[Row] = []
        bar = Bar("sensitivity", "matrices")
        for number, matrix in enumerate(matrices, start=1):
            leaf = compression_error.with_one(matrix, self.params, alone)
            numbers = self._evaluate(unflatten({**placed, matrix.path: leaf}))
            row = {"path": matrix.path, "name": matrix.name, "layer": matrix.layer, **numbers}
            row["lost"] = self.metric.lost(dense, numbers)
            row["loss_rise"] = numbers["valid_loss"] - dense["valid_loss"]
            rows.append(row)
            bar.reach(number, number / len(matrices))
        bar.finish(len(rows))
        found = [
            (m, self.metric.scale * row["lost"]) for m, row in zip(matrices, rows, strict=True)
        ]
        title = f"{self.title}: each matrix alone"
        drawn = {"sensitivity": figures.sensitivity(found, self.metric.cost, title)}
        return self._write("sensitivity", rows, drawn)

    def _convergence(self) -> list[Row]:
        """The model at every checkpoint of its run, dense and compressed."""
        source = path_of(self.config.init.source)
        directory = source if source.name == "checkpoints" else source / "checkpoints"
        steps = complete_steps(directory)[::-1]
        if len(steps) < 2:
            session.say(
                f"convergence is left out: {source} is not a run with several checkpoints; pretrain"
                " or finetune with checkpoint.keep_every_steps keeps them"
            )
            return []
        metric, rows = self.metric, []
        for step in steps:
            network = saved_model.network_of(read_meta(directory, step), self.config.impl)
            params = read_params(directory, step, network.abstract())
            dense = self._evaluate(params)
            small = self._evaluate(compress_params(params, self.recipe).params)
            lost = metric.lost(dense, small)
            rows.append({"step": step, **self._compared(dense, small), "lost": lost})
            session.say(f"step {step}: {metric.name} {dense[metric.name]:.4f}, lost {lost:.4f}")
        figure = figures.convergence(rows, metric.name, metric.label, metric.scale, self.title)
        return self._write("convergence", rows, {"convergence": figure})

    def _write(self, part: str, rows: list[Row], drawn: Mapping[str, Figure]) -> list[Row]:
        """Writes the rows of a part as CSV, and its figures."""
        folder = self.workdir / "report"
        # All processes have the same rows; two writers would spoil each other's files.
        if distributed.first():
            folder.mkdir(exist_ok=True)
            for name, figure in drawn.items():
                style.save(figure, folder / f"{name}.png")
            # As objects, because a column of layers with an empty cell would become floats.
            text = pd.DataFrame(rows, dtype=object).to_csv(index=False)
            write_text(folder / f"{part}.csv", text)
        return rows


def _own_thresholds(recipe: Recipe) -> Recipe:
    """The recipe with a pruning threshold for each matrix, which does not depend on the others."""

    def own(operation: Any) -> Any:
        shared = isinstance(operation, Prune) and operation.scope in ("global", "layer")
        # Blocks are ranked each among its own weights already, and refuse another scope.
        if shared and not operation.block:
            return dataclasses.replace(operation, scope="tensor")
        return operation

    return Recipe(tuple(map(own, recipe.operations)))
