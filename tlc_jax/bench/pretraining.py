"""Times pretraining (bench.task=pretrain): steps, compilation, input, goodput, and peers' steps."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import statistics
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tlc_jax.bench import pretraining_peers as peers
from tlc_jax.bench import throughput
from tlc_jax.config import Budget, Checkpoint, Config, Eval
from tlc_jax.config.resolve import require_own_architecture
from tlc_jax.core.mesh import Placement
from tlc_jax.core.text import number
from tlc_jax.data.packing import Packed
from tlc_jax.data.tokenizer import FIRST_ORDINARY, dtype_for
from tlc_jax.models import flops
from tlc_jax.models.network import masked_language_model
from tlc_jax.runs import session
from tlc_jax.runs.saved_model import initializer
from tlc_jax.tasks.masked_lm import MaskedLanguageRun
from tlc_jax.training.loop import train
from tlc_jax.training.step import init_state, step_key

_ROWS = 8192
HUGGING_FACE = "Hugging Face, all logits, float32"
_REFERENCES = {"": HUGGING_FACE}


def check(config: Config, with_peers: bool) -> None:
    """Refuses --peers for a model that differs from those of the peers, or if they are missing.

    Raises:
      InputError: how to mend it.
    """
    if with_peers:
        require_own_architecture(config)
        peers.require_transformers()


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
    return {
        "microbatch": config.microbatch,
        "compile": _compilation(run),
        "training": _training(run),
        "input_tokens_per_second": _input(run),
        "goodput": _goodput(run),
        **({"peers": _peers(run)} if with_peers else {}),
    }


def _step(run: MaskedLanguageRun) -> throughput.Variant:
    """A training step on a batch that stays on the devices."""
    task = run.task(initializer(run.network, run.config.seed, None))
    state = [init_state(run.placement.put_params(task.init()), task.optimizer)]
    batch, key = task.batch(0), step_key(0, 0)
    compiled = jax.jit(task.step, donate_argnums=0)

    def one() -> None:
        # The state is donated, so each step must replace it.
        state[0], metrics = compiled(state[0], batch, key, np.float32(0.5))
        jax.block_until_ready(metrics)  # JAX dispatches asynchronously

    return one


def _compilation(run: MaskedLanguageRun) -> dict[str, float]:
    """Seconds of the first step: without a persistent cache, and with a filled one."""
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as cache, session.compilation_cache(Path(cache)):
        # However quickly a step compiles, the second one is to find it.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        for name in ("cold_seconds", "warm_cache_seconds"):
            jax.clear_caches()
            step = _step(run)
            with throughput.timed(seconds, name):
                step()
    return seconds


def _training(run: MaskedLanguageRun) -> dict[str, Any]:
    seconds = throughput.time_alone(_step(run), run.config.bench.rounds, run.config.bench.steps)
    cost, median = run.cost(run.batches(0)(0)), statistics.median(seconds)
    peak = session.peak(run.config)
    return {
        **throughput.rate(seconds, cost.tokens),
        "flops_per_second": cost.flops / median,
        "mfu": flops.mfu(cost.flops, median, peak),
    }


def _input(run: MaskedLanguageRun) -> float:
    """Tokens per second that one process prepares."""
    batches, steps = run.host_batches(0), itertools.count(1)
    seconds = throughput.time_alone(lambda: batches(next(steps)), run.config.bench.rounds, 50)
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


def _peers(run: MaskedLanguageRun) -> dict[str, Any]:
    """Tokens per second of ours and of others, and ratios to Hugging Face's step as it comes."""
    config, placement = run.config, run.placement
    tokens_BxL = run.host_batches(0)(0)["tokens"]

    def ours(matmul: str) -> throughput.Variant:
        impl = dataclasses.replace(config.impl, matmul=matmul)
        return _step(run_on_random_rows(dataclasses.replace(config, impl=impl), placement))

    theirs = functools.partial(peers.transformers_step, config, tokens_BxL)
    variants = {
        HUGGING_FACE: theirs(masked_only=False),
        "Hugging Face, masked positions, float32": theirs(masked_only=True),
        "plain JAX, all logits, float32": peers.plain_step(config, tokens_BxL),
        "tlc, masked positions, float32": ours("float32"),
        "tlc, masked positions, mix": ours("mix"),
    }
    seconds = throughput.alternate(variants, config.bench.rounds, config.bench.steps)
    return throughput.summary(seconds, tokens_BxL.size, _REFERENCES)


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
        f"goodput           {result['goodput']['share']:.1%} outside compilation and evaluation",
    ]
    if "peers" in result:
        lines.append(throughput.summary_table(result["peers"], _REFERENCES))
    return lines
