"""Measure this machine: training tokens/s, MFU, goodput, input and compilation for a config.

bench.profile=True also traces a few training steps and prints where their time goes, by kind of
kernel.

bench.task=decode measures the tokens/s of beam search, of --config.decode.batch_size sentences at
once, bench.task=compress the seconds of each operation of `recipe` and the peak memory, and
bench.task=compare those of each statistic of `tlc compare`. bench.task=loop measures what the
training loop itself costs per step, around a step that computes almost nothing. bench.task=trace
sums up by kind of kernel what impl.profile traced in the run of init.from. Weights, tokens and
answers are random, so nothing is read or downloaded. Only bench.task=seeds finetunes on data: it
measures the seconds of bench.seeds seeds from start to results, as runs of their own, in turn, and
mapped in one program.

--peers times other systems doing the same, each side in a process of its own, and prints ratios. In
pretraining they are plain JAX that computes all logits, and Hugging Face transformers (PyTorch), in
decoding transformers' `generate` and CTranslate2. bench.peers says whether they compute in float32
or in bfloat16, which includes torch.compile. A side that fails is a line that says why.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlc_jax.bench import (
    comparing,
    compressing,
    decoding,
    finetuning_seeds,
    peers,
    pretraining,
    traced_run,
    training_loop,
)
from tlc_jax.commands import fit_to_memory
from tlc_jax.config import Config
from tlc_jax.config.resolve import require_budget
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import write_json
from tlc_jax.runs import auto, session

_TASKS = {
    "pretrain": pretraining,
    "decode": decoding,
    "compress": compressing,
    "compare": comparing,
    "seeds": finetuning_seeds,
    "loop": training_loop,
    "trace": traced_run,
}


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Measures, prints a table, and writes result.json again.

    Raises:
      InputError: the task cannot be timed with this config, or --peers lacks a package.
    """
    task, with_peers = _TASKS[config.bench.task], bool(options.get("peers"))
    if with_peers and task not in (pretraining, decoding):
        raise InputError(f"bench.task={config.bench.task} has no peers: leave out --peers")
    if task in (compressing, decoding, traced_run):
        task.check(config)
    if task is finetuning_seeds:
        require_budget(config)
    if with_peers:
        peers.check(config)
    workdir.mkdir(parents=True, exist_ok=True)
    if task is finetuning_seeds:
        # Before JAX opens the devices here: its processes need them.
        measured = finetuning_seeds.measure(config)
    else:
        measured = _measure_here(task, config, workdir, with_peers)
    result = {"stage": "bench", **session.provenance(), **measured}
    write_json(workdir / "result.json", result)
    device, count, machine = (result[name] for name in ("device", "devices", "machine"))
    print(f"device            {device} x {count} ({machine})", *task.describe(result), sep="\n")
    return result


def _measure_here(task: Any, config: Config, workdir: Path, with_peers: bool) -> dict[str, Any]:
    if with_peers:
        # Set before JAX starts: several processes will share the accelerator, and each would
        # reserve most of its memory.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # Memory kept for a next training step would count as held during the work.
    trains = task not in (compressing, comparing, traced_run)
    config, placement = session.open_devices(config, trains=trains)
    if task is pretraining:
        training = pretraining.run_on_random_rows(config, placement)
        fit_to_memory(training, workdir)
        config = training.config
    return {**auto.chosen(config), **task.measure(config, placement, with_peers)}
