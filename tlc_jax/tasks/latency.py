"""eval.latency: how long a model that a run left, or that another one reads, takes for a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tlc_jax.config import Config
from tlc_jax.core import distributed as processes
from tlc_jax.runs import saved_model as starting_point
from tlc_jax.runs import session
from tlc_jax.runs.saved_model import StartingPoint
from tlc_jax.tasks.forward_latency import measure


def of_model(config: Config, start: StartingPoint) -> dict[str, Any]:
    """What `measure` returns, of a saved model at data.length; nothing where eval.latency is empty.

    Of several processes the first one measures, on one of its devices.
    """
    if not config.eval.latency:
        return {}
    if start.kind == "translator":
        session.say(
            "eval.latency is for encoders: `tlc bench --config.bench.task=decode` times translators"
        )
        return {}
    if not processes.first():
        return {}
    network = start.network(config.impl)
    return measure(
        network, start.params, config.eval.latency, config.data.length, config.objective.mask_rate
    )


def of_run(config: Config, workdir: Path) -> dict[str, Any]:
    """As `of_model`, of what a finished run left in its workdir: its artifact where it has one."""
    if not config.eval.latency:
        return {}
    return of_model(config, starting_point.load(str(workdir), config.impl))
