"""Measure a saved model: perplexity, accuracy or BLEU on data.valid and data.test, and its size.

--init names a workdir, a checkpoint or an artifact; without --config the settings of the run it
belongs to are used. Predictions for every instance go to predictions/.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlc_jax.compression.artifact import directory_bytes, load_artifact, measure
from tlc_jax.config import Config
from tlc_jax.runs import auto, saved_model, session
from tlc_jax.tasks import latency
from tlc_jax.tasks.base import open_saved


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluates in `workdir`; returns the content of result.json."""
    saved_model.find(config.init.source)
    saved_model.check_inputs(config)
    result = session.run_once(workdir, config, lambda config: _evaluate(config, workdir))
    print(json.dumps(result, indent=2))
    return result


def _evaluate(config: Config, workdir: Path) -> dict[str, Any]:
    start, config = saved_model.load_start(config)
    config, placement = session.open_devices(config)
    run = open_saved(config, start, workdir, placement)
    numbers = run.measure(start.params)
    run.save_predictions(workdir)
    return {
        "stage": "evaluate",
        "init": str(start.path),
        "kind": start.kind,
        "recipe": start.recipe,
        **session.size_numbers(start.network(config.impl)),
        **_size(start.path),
        **auto.chosen(config),
        **numbers,
        **latency.of_model(config, start),
    }


def _size(path: Path) -> dict[str, Any]:
    """Bytes of an artifact by every definition, or of the parameters' folder of a checkpoint."""
    if path.is_file():
        sizes = measure(load_artifact(path), artifact=path)
        return {name: value for name, value in sizes.items() if value is not None}
    # An imported model is a folder too, but its files are not a checkpoint of ours.
    ours = path / "params"
    return {"bytes_checkpoint": directory_bytes(ours)} if ours.is_dir() else {}
