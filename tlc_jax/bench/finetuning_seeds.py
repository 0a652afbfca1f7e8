"""Times finetuning with several seeds (bench.task=seeds): as runs of their own, and together.

Everything counts from the start of a process to its results: loading, compiling, evaluating.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlc_jax.config import Config, to_dict
from tlc_jax.config.resolve import require_budget
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import write_json
from tlc_jax.core.text import table
from tlc_jax.tasks.seeds_together import obstacle

# A process of its own for every run, through the same function as `tlc finetune`.
_FINETUNE = (
    "import sys, json; from pathlib import Path; from tlc_jax.config import resolve;"
    "from tlc_jax.commands import run_command;"
    "run_command('finetune', resolve(json.load(open(sys.argv[1]))), Path(sys.argv[2]))"
)


def check(config: Config, with_peers: bool) -> None:
    """Refuses a config without a budget, and --peers.

    Raises:
      InputError: how to mend it.
    """
    require_budget(config)
    if with_peers:
        raise InputError("bench.task=seeds has no peers: leave out --peers")


def measure(config: Config) -> dict[str, Any]:
    """Seconds for all seeds in turn and mapped, and as runs of their own.

    Half of the single runs come before the others and half after them, so that a machine that slows
    down slows all alike. `mapped` is None where the run cannot be mapped. impl.seeds_together names
    the only way to measure, unless it is auto.
    """
    seeds = tuple(range(config.bench.seeds))
    half, chosen = len(seeds) // 2, config.impl.seeds_together
    ways = ("in_turn", "mapped") if chosen == "auto" else (chosen,)
    together: dict[str, float | None] = dict.fromkeys(ways)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        singles = [_seconds(config, folder / str(seed), (), seed) for seed in seeds[:half]]
        for way in ways:
            if way == "mapped" and obstacle(config):
                continue
            together[way] = _seconds(config, folder / way, seeds, seeds[0], way)
        singles += [_seconds(config, folder / str(seed), (), seed) for seed in seeds[half:]]
    # A run that fails alone has told why on the terminal.
    if None in singles:
        raise InputError("a single run failed; see its message above")
    alone = sum(one for one in singles if one is not None)
    return {"seeds": {"count": len(seeds), "single": alone, **together}}


def _seconds(
    config: Config, folder: Path, seeds: Sequence[int], seed: int, way: str = "in_turn"
) -> float | None:
    """Seconds of a process that finetunes; None if it fails."""
    impl = dataclasses.replace(config.impl, seeds_together=way)
    one = dataclasses.replace(config, seed=seed, seeds=tuple(seeds), impl=impl)
    settings = folder.with_suffix(".json")
    write_json(settings, to_dict(one))
    command = [sys.executable, "-c", _FINETUNE, str(settings), str(folder)]
    started = time.perf_counter()
    failed = subprocess.run(command, check=False).returncode
    return None if failed else time.perf_counter() - started


def describe(result: dict[str, Any]) -> list[str]:
    """Lines for the terminal."""
    found = result["seeds"]
    names = {"single": "runs of their own", "in_turn": "in turn", "mapped": "mapped"}
    rows = [["", "seconds", "share of runs of their own"]]
    for way in (name for name in names if name in found):
        seconds = found[way]
        share = "cannot be mapped" if seconds is None else f"{seconds / found['single']:.2f}"
        rows.append([names[way], "" if seconds is None else f"{seconds:.1f}", share])
    return [f"finetuning        {found['count']} seeds, from start to results", table(rows)]
