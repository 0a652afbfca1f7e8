"""Devices of a TPU slice that is not there: enough for the TPU compiler, which needs no TPU."""

from __future__ import annotations

import os
from importlib.util import find_spec

import jax

from tlc_jax.core.errors import InputError
from tlc_jax.planning.tpu import CHIPS, parse_topology

# The compiler alone is wanted: no search for a TPU or its neighbours, no lock against other users of the library, and
# no log of what it could not find.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def prepare_for(text: str) -> None:
    """Checks `plan.topology`, and makes JAX leave the machine's own accelerators alone. Call it before JAX starts.

    Raises:
      InputError: no such slice, or the TPU compiler is not installed.
    """
    parse_topology(text)
    if find_spec("libtpu") is None:
        raise InputError(f"plan.topology={text} needs the TPU compiler: pip install 'tlc_jax[tpu]'")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")


def devices_of(text: str) -> list[jax.Device]:
    """The devices of the slice, a chip each.

    Raises:
      InputError: chips cannot be wired like that.
    """
    from jax.experimental import topologies

    name, sides = parse_topology(text)
    width, height, *_ = sides
    options = {"chips_per_host_bounds": (min(2, width), min(2, height), 1)}
    if CHIPS[name].config:
        options["chip_config_name"] = CHIPS[name].config  # type: ignore[assignment]
    try:
        return list(topologies.get_topology_desc(text, "tpu", **options).devices)
    except jax.errors.JaxRuntimeError as error:
        line = str(error).strip().splitlines()[0]
        raise InputError(f"plan.topology={text}: {line}; take even sides, or 1") from error
