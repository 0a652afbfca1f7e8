"""Rules between settings; bounds of single settings stand in `schema`."""

from __future__ import annotations

import typing

from tlc_jax.config.durations import UNITS
from tlc_jax.core.distributed import parse as parse_processes
from tlc_jax.core.errors import InputError
from tlc_jax.core.text import note_once

if typing.TYPE_CHECKING:
    from tlc_jax.config import Config


def check_values(config: Config) -> None:
    """Refuses settings that contradict each other, whatever the command."""
    model, data, optimizer = config.model, config.data, config.optimizer
    objective, checkpoint, decode = config.objective, config.checkpoint, config.decode
    width = model.head_size or model.HEAD_SIZE
    microbatch = config.impl.microbatch
    too_large = "is more than"
    rules = [
        (
            not model.heads or bool(model.head_size) or model.hidden % model.heads == 0,
            f"model.hidden={model.hidden} is not divisible by model.heads={model.heads}",
        ),
        (
            bool(model.heads) or model.hidden % width == 0,
            f"model.hidden={model.hidden} is not a multiple of the head size {width}: "
            "change it or set model.heads",
        ),
        (
            data.length <= model.max_length,
            f"data.length={data.length} is beyond the model's positions: "
            f"raise model.max_length={model.max_length}",
        ),
        (
            objective.mask_token + objective.random_token <= 1,
            "objective.mask_token and objective.random_token must add up to at most 1",
        ),
        (
            optimizer.schedule != "rsqrt" or optimizer.warmup > 0,
            "optimizer.schedule=rsqrt starts at the end of warm-up: set optimizer.warmup above 0",
        ),
        (
            microbatch == "auto" or not isinstance(microbatch, str),
            f"impl.microbatch={microbatch!r}: write a number or auto",
        ),
        (
            checkpoint.average <= checkpoint.keep,
            f"checkpoint.average={checkpoint.average} {too_large} checkpoint.keep={checkpoint.keep}",
        ),
        (
            decode.nbest <= decode.beams,
            f"decode.nbest={decode.nbest} {too_large} decode.beams={decode.beams}",
        ),
        (
            data.max_ratio == 0 or data.max_ratio >= 1,
            f"data.max_ratio={data.max_ratio} must be 0 or at least 1",
        ),
        (
            set(config.study.scratch) <= set(config.study.sizes),
            f"study.scratch={config.study.scratch} must be among study.sizes",
        ),
    ]
    for holds, message in rules:
        if not holds:
            raise InputError(message)
    if config.study.translators:
        require_translator(config)
    if config.impl.processes not in ("auto", "one"):
        parse_processes(config.impl.processes)


def require_translator(config: Config) -> None:
    """Refuses settings of `model` that encoders alone have."""
    model = config.model
    if model.norm != "pre":
        raise InputError(
            f"model.norm={model.norm}: translators normalize the inputs of layers; leave model.norm=pre"
        )
    if model.token_types or model.padding:
        raise InputError(
            "model.token_types and model.padding are for imported encoders: leave them 0 for a translator"
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
    """Refuses to train without any limit."""
    if not any(getattr(config.budget, unit) > 0 for unit in UNITS):
        raise InputError(
            f"no budget: set at least one of {', '.join(f'budget.{unit}' for unit in UNITS)}"
        )
    if config.budget.clock == "benchmark" and not config.budget.converts_seconds:
        note_once("budget.clock=benchmark has no effect without budget.seconds")
    if config.budget.clock == "benchmark" and config.budget.charge == "total":
        raise InputError(
            "budget.clock=benchmark counts training steps only: leave budget.charge=training"
        )
