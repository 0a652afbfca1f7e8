"""Where the time of a traced run went, by kind of kernel: what impl.profile wrote, summed up.

The program is not among the files of a run, so attention and products of XLA's own fusions are told
by the names of their kernels alone; bench.profile=True reads the program as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jax.profiler import ProfileData

from tlc_jax.bench import kernels
from tlc_jax.config import Config
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import local_copy, path_of
from tlc_jax.core.mesh import Placement


def check(config: Config) -> None:
    """Refuses a run without a trace, before any device work.

    Raises:
      InputError: init.from is empty, or names a folder without a trace.
    """
    if not config.init.source:
        raise InputError("bench.task=trace reads a run: name its workdir in init.from")
    if not _traces(config):
        raise InputError(
            f"init.from={config.init.source}: no trace in profile/; train it with "
            "--config.impl.profile=START:STEPS"
        )


def _traces(config: Config) -> list[Path]:
    found = path_of(config.init.source).glob("profile/plugins/profile/*/*.xplane.pb")
    return sorted(found, key=str)


def measure(config: Config, placement: Placement, with_peers: bool) -> dict[str, Any]:
    """The kernels of the newest trace of a run, as `kernels.split` finds them."""
    path = _traces(config)[-1]
    with local_copy(path) as local:
        profile = ProfileData.from_file(str(local))
    steps = kernels.count_steps(profile)
    found = kernels.split(kernels.device_events(profile), max(1, steps))
    return {"trace": str(path), "steps": steps, "kernels": found}


def describe(result: dict[str, Any]) -> list[str]:
    """Lines for the terminal."""
    lines = [f"trace             {result['trace']}, {result['steps']} steps"]
    return [*lines, *kernels.describe(result["kernels"])]
