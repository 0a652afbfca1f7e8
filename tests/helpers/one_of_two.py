"""One process of a run of two with clocks of different speeds, one of them slow to make batches.

test_agreement.py runs it as `python -m tests.helpers.one_of_two WORKDIR ADDRESS,COUNT,INDEX`.
It prints the outcome of the run.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import jax
import numpy as np

from tlc_jax.core import distributed as processes
from tlc_jax.core.mesh import Placement
from tlc_jax.training.checkpoint import read_meta, save_params
from tlc_jax.training.loop import train

SLOW_SECONDS = 0.05


def main() -> None:
    workdir, where = Path(sys.argv[1]), sys.argv[2]
    processes.connect(where)
    from tests.training.test_loop import make_task, settings, some_rows

    index = jax.process_index()
    placement = Placement.parse("data=-1")
    fractions: list[float] = []

    def batch(step: int) -> dict[str, jax.Array]:
        if index == 1 and step >= 5:
            time.sleep(SLOW_SECONDS)
        return placement.put_batch({"x": some_rows(step)})

    def clock() -> float:
        return 1e6 * index + time.monotonic() * (1 + 2 * index)

    configured = settings(
        budget={"seconds": 2.0}, eval={"every_seconds": 0.3}, impl={"prefetch": 0}
    )
    task = make_task(
        batch=batch, evaluate=lambda params, final: fractions.append(0.0) or {"w": 0.0}
    )
    outcome = train(task, configured, workdir, placement, clock)
    numbers = {name: outcome.numbers[name] for name in ("steps", "stopped_by", "straggler")}
    params = np.asarray(outcome.params["final_norm"]["scale"]).tolist()
    # The first process writes by itself, while the other waits for it to be done.
    save_params(workdir / "alone", 0, placement.gather(outcome.params), {"of": "both"})
    assert read_meta(workdir / "alone", 0) == {"of": "both"}
    print(json.dumps({**numbers, "params": params, "evaluations": len(fractions)}))
    processes.disconnect(clean=True)


if __name__ == "__main__":
    main()
