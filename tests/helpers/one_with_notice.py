"""One process of a run of two, of which process 1 alone gets a notice to stop.

It is run as `python -m tests.helpers.one_with_notice WORKDIR ADDRESS,COUNT,INDEX KIND`.
KIND says from whom: `metadata`, the metadata server; `service`, JAX's preemption service; `off`,
that service while it is off. Beside WORKDIR it leaves the weights of a run that ends, and those of
one that was not stopped.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from tests.helpers.metadata_server import MetadataServer
from tlc_jax.core import distributed as processes
from tlc_jax.core import jax_internals
from tlc_jax.core.errors import StoppedEarly
from tlc_jax.core.mesh import Placement
from tlc_jax.training.loop import Outcome, train


def notify_service() -> None:
    """Does what JAX's listener for SIGTERM does in C++, whose handler ours replaces."""
    death_time = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 30))
    jax_internals.coordination_client().key_value_set("RECEIVED_PREEMPTION_NOTICE", death_time)


def main() -> None:
    workdir, where, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    jax.config.update("jax_enable_preemption_service", kind != "off")
    processes.connect(where)
    from tests.training.test_loop import make_task, settings, some_rows

    placement = Placement.parse("data=-1")
    limits = settings(budget={"steps": 60}, impl={"prefetch": 0}, checkpoint={"every_steps": 9})

    def run(folder: Path, notice: Callable[[], None]) -> Outcome:
        begun = -1

        def batch(step: int) -> dict[str, jax.Array]:
            nonlocal begun
            begun = step if begun < 0 else begun
            time.sleep(0.02)  # the notice arrives between two steps, not after the last one
            if step == begun + 5 and jax.process_index() == 1:
                notice()
            return placement.put_batch({"x": some_rows(step)})

        return train(make_task(batch=batch), limits, folder, placement)

    if kind == "metadata" and jax.process_index() == 1:
        with MetadataServer().running() as server:
            os.environ["GCE_METADATA_HOST"] = server.host
            run(workdir, lambda: (server.wait_for_listeners(), server.set("preempted", "TRUE")))
    resumed = run(workdir, notify_service if kind != "metadata" else lambda: None)
    whole = run(workdir.with_name("whole"), lambda: None)
    weights = [
        np.asarray(outcome.params["final_norm"]["scale"]).tobytes().hex()
        for outcome in (resumed, whole)
    ]
    workdir.with_name(f"weights{jax.process_index()}.json").write_text(json.dumps(weights))
    processes.disconnect(clean=True)


if __name__ == "__main__":
    try:
        main()
    except StoppedEarly as stopped:
        processes.disconnect(clean=True)
        sys.exit(print(f"tlc: {stopped}", file=sys.stderr) or stopped.status)
