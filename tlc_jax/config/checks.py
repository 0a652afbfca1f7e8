"""What settings cannot be, each refused in one line that says how to mend it."""

from __future__ import annotations

import typing

from tlc_jax.config.durations import UNITS
from tlc_jax.core.distributed import parse as parse_processes
from tlc_jax.core.errors import InputError

if typing.TYPE_CHECKING:
    from tlc_jax.config import Config


def check_values(config: Config) -> None:
    """Refuses values that cannot be, whatever the stage."""

    def need(holds: bool, message: str) -> None:
        if not holds:
            raise InputError(message)

    model, data, optimizer, objective = (
        config.model,
        config.data,
        config.optimizer,
        config.objective,
    )
    need(
        model.layers >= 1 and model.hidden >= 1, "model.layers and model.hidden must be at least 1"
    )
    need(
        min(model.heads, model.head_size, model.ffn) >= 0,
        "model.heads, model.head_size and model.ffn must not be negative",
    )
    if model.heads and not model.head_size:
        need(
            model.hidden % model.heads == 0,
            f"model.hidden={model.hidden} is not divisible by model.heads={model.heads}",
        )
    elif not model.heads:
        width = model.head_size or model.HEAD_SIZE
        need(
            model.hidden % width == 0,
            f"model.hidden={model.hidden} is not a multiple of the head size {width}: change it or set model.heads",
        )
    need(model.norm_epsilon > 0, f"model.norm_epsilon={model.norm_epsilon} must be above 0")
    need(model.token_types in (0, 1, 2), f"model.token_types={model.token_types} must be 0, 1 or 2")
    need(
        min(model.separator, model.padding) >= 0,
        "model.separator and model.padding must not be negative",
    )
    if config.study.translators:
        require_translator(config)
    need(
        data.length <= model.max_length,
        f"data.length={data.length} is beyond the model's positions: raise model.max_length={model.max_length}",
    )
    need(data.length >= 8, f"data.length={data.length} must be at least 8 tokens")
    need(0 < data.holdout < 1, f"data.holdout={data.holdout} must lie between 0 and 1")
    need(0 < data.subsample <= 1, f"data.subsample={data.subsample} must lie in (0, 1]")
    need(0 <= model.dropout < 1, f"model.dropout={model.dropout} must lie in [0, 1)")
    need(
        0 < objective.mask_rate < 1,
        f"objective.mask_rate={objective.mask_rate} must lie between 0 and 1",
    )
    need(
        objective.mask_token >= 0
        and objective.random_token >= 0
        and objective.mask_token + objective.random_token <= 1,
        "objective.mask_token and objective.random_token must be shares that add up to at most 1",
    )
    for unit in UNITS:
        need(
            getattr(config.budget, unit) >= 0,
            f"budget.{unit}={getattr(config.budget, unit)} must not be negative",
        )
    need(
        optimizer.batch_size >= 1, f"optimizer.batch_size={optimizer.batch_size} must be at least 1"
    )
    need(
        optimizer.learning_rate >= 0,
        f"optimizer.learning_rate={optimizer.learning_rate} must not be negative",
    )
    need(
        0 <= optimizer.warmup <= 1,
        f"optimizer.warmup={optimizer.warmup} is a fraction of the budget, from 0 to 1",
    )
    need(
        optimizer.schedule != "rsqrt" or optimizer.warmup > 0,
        "optimizer.schedule=rsqrt falls from the end of the warm-up on: set optimizer.warmup above 0",
    )
    micro = config.impl.microbatch
    if isinstance(micro, str):
        need(
            micro == "auto",
            f"impl.microbatch={micro!r}: write a number that divides optimizer.batch_size, or auto",
        )
    else:
        need(
            micro >= 0 and (micro == 0 or optimizer.batch_size % micro == 0),
            f"impl.microbatch={micro} does not divide optimizer.batch_size={optimizer.batch_size}",
        )
    need(
        all(size >= 1 for size in config.eval.latency), "eval.latency: batches have at least 1 row"
    )
    need(config.plan.seconds >= 0, f"plan.seconds={config.plan.seconds} must not be negative")
    need(
        0 <= config.compress.recover <= 1,
        f"compress.recover={config.compress.recover} must lie in [0, 1]",
    )
    need(0 < config.compress.step <= 1, f"compress.step={config.compress.step} must lie in (0, 1]")
    need(
        config.checkpoint.keep >= 1, f"checkpoint.keep={config.checkpoint.keep} must be at least 1"
    )
    need(
        config.checkpoint.keep_every_steps >= 0, "checkpoint.keep_every_steps must not be negative"
    )
    analyses = type(config.analyse)().parts
    for part in config.analyse.parts:
        need(part in analyses, f"analyse.parts: {part!r} is none of {', '.join(analyses)}")
    need(
        0 <= config.checkpoint.average <= config.checkpoint.keep,
        f"checkpoint.average={config.checkpoint.average} is more than checkpoint.keep={config.checkpoint.keep}",
    )
    decode = config.decode
    need(
        decode.beams >= 1 and decode.batch_size >= 1,
        "decode.beams and decode.batch_size must be at least 1",
    )
    need(
        decode.alpha >= 0,
        f"decode.alpha={decode.alpha} must not be negative: stopping early would not be safe",
    )
    need(decode.extra >= 0, f"decode.extra={decode.extra} must not be negative")
    need(
        1 <= decode.nbest <= decode.beams,
        f"decode.nbest={decode.nbest} must be 1 to decode.beams={decode.beams}",
    )
    need(
        data.max_ratio == 0 or data.max_ratio >= 1,
        f"data.max_ratio={data.max_ratio} must be 0 or at least 1",
    )
    need(data.buckets >= 1, f"data.buckets={data.buckets} must be at least 1")
    need(
        0 <= objective.label_smoothing < 1,
        f"objective.label_smoothing={objective.label_smoothing} must lie in [0, 1)",
    )
    need(optimizer.reference_width >= 0, "optimizer.reference_width must not be negative")
    if config.impl.processes not in ("auto", "one"):
        parse_processes(config.impl.processes)
    need(config.impl.prefetch >= 0, f"impl.prefetch={config.impl.prefetch} must not be negative")
    for size in config.study.scratch:
        need(
            size in config.study.sizes,
            f"study.scratch has the size {size}, which study.sizes has not",
        )


def require_translator(config: Config) -> None:
    """Refuses settings of `model` that encoders alone have."""
    model = config.model
    if model.norm != "pre":
        raise InputError(
            f"model.norm={model.norm}: translators are normalised at their inputs; leave model.norm=pre"
        )
    if model.token_types or model.padding:
        raise InputError(
            "model.token_types and model.padding are of imported encoders: leave them 0 for a translator"
        )


def require_own_architecture(config: Config) -> None:
    """Refuses settings of `model` that the implementations beside ours in `bench --peers` are not written for."""
    defaults: dict[str, object] = {
        "norm": "pre",
        "activation": "gelu",
        "token_types": 0,
        "head_size": 0,
    }
    for name, default in defaults.items():
        if getattr(config.model, name) != default:
            raise InputError(
                f"model.{name}: --peers compares pre-norm models with GELU; leave it at {default!r}"
            )


def require_budget(config: Config) -> None:
    """Refuses a training stage without any limit."""
    if not any(getattr(config.budget, unit) > 0 for unit in UNITS):
        raise InputError(
            f"no budget: set at least one of {', '.join(f'budget.{unit}' for unit in UNITS)}"
        )
    if config.budget.clock == "benchmark" and config.budget.seconds <= 0:
        raise InputError("budget.clock=benchmark turns seconds into steps: set budget.seconds")
    if config.budget.clock == "benchmark" and config.budget.charge == "total":
        raise InputError(
            "budget.clock=benchmark counts training steps only: leave budget.charge=training"
        )
