"""Measure this machine: training tokens/s, MFU, goodput, input pipeline and compilation for a config.

With bench.task=decode: tokens/s of beam search (--config.decode.batch_size sentences at once) instead. With
bench.task=compress: seconds of each operation of `recipe` and peak memory, on a model of random weights. Tokens are
random, so nothing is read or downloaded. --peers times others doing the same, in alternation, and prints ratios:
pretraining as plain JAX that computes all logits and as Hugging Face transformers (PyTorch), decoding as transformers'
`generate` and as CTranslate2, whose int8 is a side of its own; the others run in float32, ours also with
impl.matmul=mix.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from tlc_jax.bench import compressing as bench_compressing
from tlc_jax.bench import decoding as bench_decoding
from tlc_jax.bench import decoding_peers, peers
from tlc_jax.bench.throughput import Variant, alternate, summary
from tlc_jax.compression.recipe import parse_recipe
from tlc_jax.config import Budget, Checkpoint, Config, Eval
from tlc_jax.config.resolve import require_own_architecture, require_translator
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import write_json
from tlc_jax.core.mesh import Placement
from tlc_jax.data.batches import RowBatches
from tlc_jax.data.packing import Packed
from tlc_jax.data.tokenizer import FIRST_ORDINARY, dtype_for
from tlc_jax.models.network import masked_language_model
from tlc_jax.planning import fit
from tlc_jax.runs import session
from tlc_jax.tasks.masked_lm import MaskedLanguageRun
from tlc_jax.training.loop import Task, train
from tlc_jax.training.step import init_state, step_key

_ROWS = 8192
HUGGING_FACE = "Hugging Face, all logits, float32"


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Measures, prints a table, and writes result.json again.

    Raises:
      InputError: --peers without the packages that it needs; sentences to decode longer than the model allows.
    """
    decode, with_peers = config.bench.task == "decode", bool(options.get("peers"))
    if decode:
        require_translator(config)
    if with_peers:
        require_own_architecture(config)
        (decoding_peers.require_packages if decode else peers.require_transformers)()
    if decode:
        decoding_peers.check_lengths(config)
        if with_peers:  # several processes share an accelerator
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if config.bench.task == "compress":
        recipe = parse_recipe(config.recipe)
        if recipe.removes or recipe.finetunes or not recipe.operations:
            raise InputError(
                f"recipe={config.recipe}: bench times prune and quantize, such as prune:0.6+quantize:4"
            )
        if with_peers:
            raise InputError("bench.task=compress has no peers: leave out --peers")
    workdir.mkdir(parents=True, exist_ok=True)
    placement = session.open_devices(config, trains=config.bench.task != "compress")
    result: dict[str, Any] = {"stage": "bench", **session.provenance()}
    if decode:
        result["decoding"] = bench_decoding.measure(config, with_peers)
        lines = bench_decoding.describe(result["decoding"])
    elif config.bench.task == "compress":
        result["compression"] = bench_compressing.measure(config)
        lines = bench_compressing.describe(result["compression"])
    else:
        packed = _random_rows(config)
        config = fit.of_run(_masked_language_run(config, placement, packed), workdir)
        result |= {"microbatch": config.microbatch}
        result |= _pretraining(config, placement, packed, with_peers)
        lines = _describe(result)
    write_json(workdir / "result.json", result)
    print(
        f"device            {result['device']} x {result['devices']} ({result['machine']})",
        *lines,
        sep="\n",
    )
    return result


def _random_rows(config: Config) -> Packed:
    vocab_size, shape = config.tokenizer.vocab_size, (_ROWS, config.data.length)
    rows = np.random.default_rng(0).integers(FIRST_ORDINARY, vocab_size, shape)
    return Packed(rows.astype(dtype_for(vocab_size)), "random")


def _pretraining(
    config: Config, placement: Placement, packed: Packed, with_peers: bool
) -> dict[str, Any]:
    return {
        "compile": _compilation(config, placement, packed),
        "training": _training(config, placement, packed),
        "input_tokens_per_second": _input(config, packed),
        "goodput": _goodput(config, placement, packed),
        **({"peers": _peers(config, placement, packed)} if with_peers else {}),
    }


def _step(config: Config, placement: Placement, packed: Packed) -> Variant:
    """One training step of ours on a batch that stays."""
    task = _task(config, placement, packed)
    state = [init_state(placement.put_params(task.init()), task.optimizer)]
    batch = task.batch(0)
    compiled = jax.jit(
        lambda state, batch, index, fraction: task.step(state, batch, step_key(0, index), fraction),
        donate_argnums=0,
    )

    def one() -> None:
        state[0], metrics = compiled(state[0], batch, np.int32(0), np.float32(0.5))
        jax.block_until_ready(metrics)

    return one


def _masked_language_run(config: Config, placement: Placement, packed: Packed) -> MaskedLanguageRun:
    """Masked-language training on random rows."""
    network = masked_language_model(config.model, config.tokenizer.vocab_size, config.impl)
    return MaskedLanguageRun(config, network, placement, train_text=[packed])


def _task(config: Config, placement: Placement, packed: Packed) -> Task:
    """The training run; evaluations measure nothing."""
    run = _masked_language_run(config, placement, packed)
    task = run.task(lambda: run.network.init(jax.random.key(config.seed)))
    return dataclasses.replace(task, evaluate=lambda params, final: {})


def _training(config: Config, placement: Placement, packed: Packed) -> dict[str, Any]:
    step = _step(config, placement, packed)
    seconds = alternate({"tlc": step}, config.bench.rounds, config.bench.steps)["tlc"]
    task = _task(config, placement, packed)
    cost = task.cost(task.batch(0))
    median = statistics.median(seconds)
    peak = session.peak(config)
    return {
        "tokens_per_second": cost.tokens / median,
        "tokens_per_second_spread": [cost.tokens / max(seconds), cost.tokens / min(seconds)],
        "flops_per_second": cost.flops / median,
        "mfu": None if peak is None else cost.flops / median / peak,
    }


def _compilation(config: Config, placement: Placement, packed: Packed) -> dict[str, float]:
    """Seconds from nothing to the first step's result: without a persistent cache, and with a warm one."""
    before = jax.config.values["jax_compilation_cache_dir"]
    seconds = []
    with tempfile.TemporaryDirectory() as cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        compilation_cache.reset_cache()
        for _ in range(2):
            jax.clear_caches()
            step = _step(config, placement, packed)
            started = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - started)
        jax.config.update("jax_compilation_cache_dir", before)
        compilation_cache.reset_cache()
    return {"cold_seconds": seconds[0], "warm_cache_seconds": seconds[1]}


def _input(config: Config, packed: Packed) -> float:
    """Tokens per second that one process can prepare."""
    batches = RowBatches([packed], config.optimizer.batch_size, 0)
    steps = iter(range(1, 1_000_000))
    seconds = alternate({"batch": lambda: _use(batches(next(steps)))}, config.bench.rounds, 50)[
        "batch"
    ]
    return config.optimizer.batch_size * config.data.length / statistics.median(seconds)


def _use(batch: dict[str, np.ndarray]) -> None:
    assert batch["tokens"].size


def _goodput(config: Config, placement: Placement, packed: Packed) -> dict[str, Any]:
    """The share of a short real run's time, compilation and evaluation apart, that is training steps."""
    short = dataclasses.replace(
        config,
        budget=Budget(seconds=config.bench.seconds),
        eval=Eval(every_seconds=config.bench.seconds / 3),
        checkpoint=Checkpoint(every_seconds=config.bench.seconds / 2, keep=1),
    )
    task = _task(short, placement, packed)
    with tempfile.TemporaryDirectory() as folder:
        seconds = train(task, short, Path(folder), placement).numbers["seconds"]
    return {
        "share": seconds["train"] / (seconds["total"] - seconds["compile"] - seconds["eval"]),
        "seconds": seconds,
    }


def _peers(config: Config, placement: Placement, packed: Packed) -> dict[str, Any]:
    """Tokens per second of ours and of others, and ratios to Hugging Face's step as it comes."""
    tokens_BxL = packed.take(np.arange(config.optimizer.batch_size))
    vocab_size = config.tokenizer.vocab_size

    def ours(matmul: str) -> Variant:
        impl = dataclasses.replace(config.impl, matmul=matmul)
        return _step(dataclasses.replace(config, impl=impl), placement, packed)

    variants: dict[str, Callable[[], None]] = {
        HUGGING_FACE: peers.transformers_step(config, vocab_size, tokens_BxL, masked_only=False),
        "Hugging Face, masked positions, float32": peers.transformers_step(
            config, vocab_size, tokens_BxL, True
        ),
        "plain JAX, all logits, float32": peers.plain_step(config, vocab_size, tokens_BxL),
        "tlc, masked positions, float32": ours("float32"),
        "tlc, masked positions, mix": ours("mix"),
    }
    return summary(
        alternate(variants, config.bench.rounds, config.bench.steps), tokens_BxL.size, HUGGING_FACE
    )


def _describe(result: dict[str, Any]) -> list[str]:
    """Lines for the terminal."""
    training, compile_ = result["training"], result["compile"]
    mfu = (
        "unknown (no peak for this device)" if training["mfu"] is None else f"{training['mfu']:.1%}"
    )
    return [
        f"training          {training['tokens_per_second']:,.0f} tokens/s",
        f"                  {training['flops_per_second'] / 1e9:,.0f} GFLOP/s, MFU {mfu}",
        f"input pipeline    {result['input_tokens_per_second']:,.0f} tokens/s",
        f"first step        {compile_['cold_seconds']:.1f} s, {compile_['warm_cache_seconds']:.1f} s from a warm cache",
        f"goodput           {result['goodput']['share']:.1%} outside compilation and evaluation",
        *(
            f"{name:42s}{row['per_second']:>12,.0f} tokens/s  {row['ratio']:.2f} times "
            f"({row['ratio_least']:.2f} to {row['ratio_most']:.2f})"
            for name, row in result.get("peers", {}).items()
        ),
    ]
