"""What JAX has no public name for: the only file that uses `jax._src`.

Each function has a test that says what no longer works when JAX moves the name.
"""

from __future__ import annotations

from typing import Any


def coordinator_address() -> str:
    """HOST:PORT of process 0, also where JAX learned it from the environment of a cluster.

    Call it after `jax.distributed.initialize`.
    """
    from jax._src import distributed

    return str(distributed.global_state.coordinator_address)


def coordination_client() -> Any:
    """The connection of this process to the others of its run; None in a run of one process.

    Tests give notice of a preemption by it, as a service of JAX would.
    """
    from jax._src import distributed

    return distributed.global_state.client
