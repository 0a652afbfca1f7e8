"""Times pretraining (bench.task=pretrain): steps, compilation, input, goodput, and peers' steps."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tlc_jax.bench import kernels, peers, throughput
from tlc_jax.bench import pretraining_peers as peers_steps
from tlc_jax.config import Budget, Checkpoint, Config, Eval, resolve, to_dict
from tlc_jax.core.mesh import Placement
from tlc_jax.core.text import byte_size, number
from tlc_jax.data.packing import Packed
from tlc_jax.data.tokenizer import FIRST_ORDINARY, dtype_for
from tlc_jax.models import flops
from tlc_jax.models.network import masked_language_model
from tlc_jax.runs import auto, session
from tlc_jax.runs.saved_model import initializer
from tlc_jax.tasks.masked_lm import MaskedLanguageRun
from tlc_jax.training.loop import train
from tlc_jax.training.step import new_state, step_key

_ROWS = 8192
_TRACED_STEPS = 3
HUGGING_FACE = "Hugging Face, all logits, float32"


def run_on_random_rows(config: Config, placement: Placement) -> MaskedLanguageRun:
    """Masked-language training on random tokens; it has nothing to evaluate on."""
    vocab_size, shape = config.tokenizer.vocab_size, (_ROWS, config.data.length)
    tokens = np.random.default_rng(0).integers(FIRST_ORDINARY, vocab_size, shape)
    rows = Packed(tokens.astype(dtype_for(vocab_size)), "random")
    network = masked_language_model(config.model, vocab_size, config.impl)
    return MaskedLanguageRun(config, network, placement, train_text=[rows])


def measure(config: Config, placement: Placement, with_peers: bool) -> dict[str, Any]:
    """Tokens and FLOPs per second, seconds of compilation, goodput; with peers also ratios.

    Args:
      config: config with a number as impl.microbatch.
      placement: where arrays live.
      with_peers: also time the steps of others.
    """
    run = run_on_random_rows(config, placement)
    # Others first, because the programs of this process keep the memory that they used.
    compared = _Comparison(run) if with_peers else None
    first, step = _compilation(run)
    seconds = throughput.time_alone(step, config.bench.rounds, config.bench.steps)
    return {
        "microbatch": config.microbatch,
        "compile": first,
        "training": _training(run, seconds),
        **({"kernels": step.kernels()} if config.bench.profile else {}),
        "input_tokens_per_second": _input(run),
        **({"goodput": _goodput(run)} if config.bench.seconds else {}),
        **(compared.ratios(seconds) if compared else {}),
    }


class _Steps:
    """Training steps on a batch that stays on the devices. The first call compiles.

    Args:
      run: what to train.
    """

    def __init__(self, run: MaskedLanguageRun) -> None:
        task = run.task(initializer(run.network, run.config.seed, None))
        self._state = new_state(task.init, task.optimizer, run.placement)
        batch = run.placement.put_batch(run.host_batches(0)(0))
        self._inputs = batch, step_key(0, 0), np.float32(0.5)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self._state)
        self._jitted = jax.jit(
            task.step,
            donate_argnums=0,
            out_shardings=(shardings, None),
            compiler_options=run.placement.compiler_options,
        )

    def __call__(self, repeats: int) -> None:
        for _ in range(repeats):
            # The state is donated, so each step must replace it.
            self._state, metrics = self._compiled(self._state, *self._inputs)
        jax.block_until_ready(metrics)  # JAX dispatches asynchronously

    @functools.cached_property
    def _compiled(self) -> jax.stages.Compiled:
        return self._jitted.lower(self._state, *self._inputs).compile()

    def kernels(self) -> dict[str, Any]:
        """Where the time of a step goes."""
        events = kernels.trace(self, _TRACED_STEPS)
        operations = kernels.operations_of(self._compiled.as_text() or "")
        return kernels.split(events, _TRACED_STEPS, operations)


def _compilation(run: MaskedLanguageRun) -> tuple[dict[str, float], _Steps]:
    """Seconds of the first step, without a persistent cache and with a filled one; and the step."""
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as cache, session.compilation_cache(Path(cache)):
        # However quickly a step compiles, the second one is to find it.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        for name in ("cold_seconds", "warm_cache_seconds"):
            jax.clear_caches()
            step = _Steps(run)
            with throughput.timed(seconds, name):
                step(1)
    return seconds, step


def _training(run: MaskedLanguageRun, seconds: Sequence[float]) -> dict[str, Any]:
    cost, median = run.cost(run.batches(0)(0)), statistics.median(seconds)
    peak = session.peak(run.config)
    return {
        **throughput.rate(seconds, cost.tokens),
        "tokens_per_step": cost.tokens,
        "flops_per_second": cost.flops / median,
        "mfu": flops.mfu(cost.flops, median, peak),
        # Of this process from its start; None where the device does not count it, as on CPUs.
        "peak_bytes": (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
    }


def _input(run: MaskedLanguageRun) -> float:
    """Tokens per second that one process prepares."""
    batches, steps = run.host_batches(0), itertools.count(1)

    def prepare(repeats: int) -> None:
        for step in itertools.islice(steps, repeats):
            batches(step)

    seconds = throughput.time_alone(prepare, run.config.bench.rounds, 50)
    tokens = batches(0)["tokens"].size
    return float(throughput.rate(seconds, tokens)["tokens_per_second"])


def _goodput(run: MaskedLanguageRun) -> dict[str, Any]:
    """The share of training steps in a short real run, compilation and evaluation left out."""
    limit = run.config.bench.seconds
    # Checkpoints and pauses for evaluation fall into the run, as they do in a long one.
    config = dataclasses.replace(
        run.config,
        budget=Budget(seconds=limit),
        eval=Eval(every_seconds=limit / 3),
        checkpoint=Checkpoint(every_seconds=limit / 2, keep=1),
    )
    task = run.task(initializer(run.network, run.config.seed, None))
    task = dataclasses.replace(task, evaluate=lambda params, final: {})
    with tempfile.TemporaryDirectory() as folder:
        seconds = train(task, config, Path(folder), run.placement).numbers["seconds"]
    share = seconds["train"] / (seconds["total"] - seconds["compile"] - seconds["eval"])
    return {"share": share, "seconds": seconds}


class _Comparison:
    """Others' steps and ours, as configured and with other products.

    On accelerators, where the sides follow each other, `measure` times the configured one itself.

    Args:
      run: what to train as configured.
    """

    def __init__(self, run: MaskedLanguageRun) -> None:
        config, tokens_BxL = run.config, run.host_batches(0)(0)["tokens"]
        makers = _makers(config, tokens_BxL)
        self._names, self._tokens = [*makers], tokens_BxL.size
        (self._configured,) = (name for name in makers if name.endswith(peers.CONFIGURED))
        if peers.in_turn():
            del makers[self._configured]
        self._seconds, self._failures = peers.time(config, makers, config.bench.steps)

    def ratios(self, configured: list[float]) -> dict[str, Any]:
        """Tokens per second of all sides, and ratios.

        Args:
          configured: seconds per step that `measure` found, by round.
        """
        seconds = {self._configured: configured} | self._seconds
        return peers.ratios(self._names, seconds, self._failures, HUGGING_FACE, self._tokens)


def _makers(config: Config, tokens_BxL: np.ndarray) -> dict[str, peers.Maker]:
    """The sides that are compared."""
    settings, platform = to_dict(config), jax.default_backend()
    theirs = functools.partial(peers_steps.transformers_step, settings, tokens_BxL, platform)
    types = peers.number_types(config)
    makers: dict[str, peers.Maker] = {}
    if "float32" in types:
        makers[HUGGING_FACE] = functools.partial(theirs, masked_only=False)
        makers["Hugging Face, masked positions, float32"] = theirs
        makers["plain JAX, all logits, float32"] = functools.partial(
            peers_steps.plain_step, settings, tokens_BxL
        )
    if "bfloat16" in types:
        name = "Hugging Face, masked positions, bfloat16"
        makers[name] = functools.partial(theirs, bfloat16=True)
        makers[f"{name}, torch.compile"] = functools.partial(theirs, bfloat16=True, compiled=True)
    for text, matmul in peers.our_matmuls(config).items():
        makers[f"{peers.OURS}masked positions, {text}"] = functools.partial(
            _our_step, settings, matmul
        )
    return makers


def _our_step(settings: dict[str, Any], matmul: str) -> throughput.Variant:
    config, placement = session.open_devices(auto.with_matmul(resolve(settings), matmul))
    return _Steps(run_on_random_rows(config, placement))


def describe(result: dict[str, Any]) -> list[str]:
    """Lines for the terminal."""
    training, first = result["training"], result["compile"]
    mfu = number(training["mfu"], ".1%", "unknown (no peak for this device)")
    lines = [
        f"training          {training['tokens_per_second']:,.0f} tokens/s",
        f"                  {training['flops_per_second'] / 1e9:,.0f} GFLOP/s, MFU {mfu}",
        f"input pipeline    {result['input_tokens_per_second']:,.0f} tokens/s",
        f"first step        {first['cold_seconds']:.1f} s, "
        f"{first['warm_cache_seconds']:.1f} s from a warm cache",
    ]
    if training["peak_bytes"]:
        lines.append(f"peak memory       {byte_size(training['peak_bytes'])}")
    if "goodput" in result:
        share = result["goodput"]["share"]
        lines.append(f"goodput           {share:.1%} outside compilation and evaluation")
    if "kernels" in result:
        lines += kernels.describe(result["kernels"])
    return [*lines, *(peers.describe(result) if "peers" in result else [])]
