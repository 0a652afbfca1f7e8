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
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import read_json, write_json
from tlc_jax.core.text import number, table
from tlc_jax.tasks.seeds_together import obstacle

# A process of its own for every run, through the same function as `tlc finetune`.
_FINETUNE = (
    "import sys, json; from pathlib import Path; from tlc_jax.config import resolve;"
    "from tlc_jax.commands import run_command;"
    "run_command('finetune', resolve(json.load(open(sys.argv[1]))), Path(sys.argv[2]))"
)


_SINGLES = 4


def measure(config: Config) -> dict[str, Any]:
    """Seconds for all seeds in turn and mapped, and as runs of their own.

    At most four single runs are measured and count for all. Half of them come before the others and
    half after them, so that a machine that slows down slows all alike. `mapped` is None where the
    run cannot be mapped. impl.seeds_together names the only way to measure, unless it is auto.

    Returns:
      "seeds": the "count" of seeds, the number of single runs "measured", the seconds of "single",
      "in_turn" and "mapped" from start to results, and as "training" the training seconds in them.
    """
    seeds = tuple(range(config.bench.seeds))
    measured, chosen = seeds[:_SINGLES], config.impl.seeds_together
    half, ways = len(measured) // 2, ("in_turn", "mapped") if chosen == "auto" else (chosen,)
    together: dict[str, float | None] = dict.fromkeys(ways)
    training: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        singles = [_seconds(config, folder / str(seed), (), seed) for seed in measured[:half]]
        for way in ways:
            if way == "mapped" and obstacle(config):
                continue
            together[way] = _seconds(config, folder / way, seeds, seeds[0], way)
            if together[way] is not None:
                each = [_training_seconds(folder / way / f"seed-{seed}") for seed in seeds]
                # Mapped, each seed's seconds are those of all.
                training[way] = each[0] if way == "mapped" else sum(each)
        singles += [_seconds(config, folder / str(seed), (), seed) for seed in measured[half:]]
        # A run that fails alone has told why on the terminal.
        if None in singles:
            raise InputError("a single run failed; see its message above")
        share = len(seeds) / len(measured)
        alone = share * sum(one for one in singles if one is not None)
        training["single"] = share * sum(_training_seconds(folder / str(seed)) for seed in measured)
    counts = {"count": len(seeds), "measured": len(measured)}
    return {"seeds": {**counts, "single": alone, **together, "training": training}}


def _training_seconds(workdir: Path) -> float:
    return float(read_json(workdir / "result.json")["seconds"]["train"])


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
    rows = [["", "seconds", "share of runs of their own", "of it training, seconds"]]
    for way in (name for name in names if name in found):
        seconds = found[way]
        share = "cannot be mapped" if seconds is None else f"{seconds / found['single']:.2f}"
        training = number(found["training"].get(way), ".2f")
        rows.append([names[way], "" if seconds is None else f"{seconds:.1f}", share, training])
    single = f"{found['measured']} single runs measured"
    return [
        f"finetuning        {found['count']} seeds, from start to results; {single}",
        table(rows),
    ]
