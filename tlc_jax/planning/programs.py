"""The training steps of all stages as programs that can be compiled before there is data, or a device."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import optax

from tlc_jax.config import Config
from tlc_jax.config.durations import Amounts
from tlc_jax.core.errors import InputError
from tlc_jax.core.mesh import Placement
from tlc_jax.models import flops
from tlc_jax.models.network import Network, masked_language_model, translator
from tlc_jax.planning.memory_fit import divisors
from tlc_jax.tasks.classification import classification
from tlc_jax.tasks.masked_lm import cost_per_step, masked_language
from tlc_jax.tasks.translation import translation
from tlc_jax.training.compilation import Program
from tlc_jax.training.loss import Objective
from tlc_jax.training.optimizer import adamw
from tlc_jax.training.step import TrainStep, make_train_step


@dataclasses.dataclass(frozen=True)
class Work:
    """A model that is to be trained.

    Attributes:
      network: the model.
      unit: what optimizer.batch_size and impl.microbatch count.
      batch_size: of a step, in that unit.
      microbatches: those that are possible, ascending.
      program: microbatch -> the step, on a batch of the widest rows that training will see.
      cost: what such a step spends, seconds and epochs apart.
    """

    network: Network
    unit: str
    batch_size: int
    microbatches: Sequence[int]
    program: Callable[[int], Program]
    cost: Amounts


def make_step(
    config: Config, network: Network, objective: Objective
) -> tuple[optax.GradientTransformationExtraArgs, TrainStep]:
    """The optimizer and the training step of a network without pruned weights."""
    optimizer = adamw(config.optimizer, network.abstract(), config.model.hidden)
    return optimizer, make_train_step(
        objective, optimizer, config.microbatches, config.impl.dropout_keys
    )


def _program(
    config: Config, network: Network, objective: Objective, batch: Mapping[str, tuple[int, ...]]
) -> Program:
    optimizer, step = make_step(config, network, objective)
    return Program(
        lambda: network.init(jax.random.key(config.seed)), optimizer, step, batch, config.seed
    )


def pretraining(config: Config, vocab_size: int, place: Placement) -> Work:
    """Masked-language training.

    Raises:
      InputError: the batch does not divide among the devices.
    """
    network = masked_language_model(config.model, vocab_size, config.impl)
    rows = config.optimizer.batch_size
    batch = {"tokens": (rows, config.data.length)}

    def program(microbatch: int) -> Program:
        return _program(
            config.with_microbatch(microbatch),
            network,
            masked_language(network, config.objective),
            batch,
        )

    cost = cost_per_step(config, vocab_size, math.inf)
    return Work(network, "sequences", rows, _divisors(rows, place), program, cost)


def finetuning(config: Config, network: Network, place: Placement) -> Work:
    """Training of a classifier.

    Raises:
      InputError: the batch does not divide among the devices.
    """
    rows, length = config.optimizer.batch_size, config.data.length
    batch = {"tokens": (rows, length), "labels": (rows,)}

    def program(microbatch: int) -> Program:
        return _program(config.with_microbatch(microbatch), network, classification(network), batch)

    operations = flops.classifier_train_flops_per_step(config.model, network.classes, rows, length)
    cost = Amounts(steps=1, examples=rows, tokens=rows * length, flops=operations)
    return Work(network, "examples", rows, _divisors(rows, place), program, cost)


def translating(
    config: Config, vocab_size: int, shapes: Sequence[tuple[int, int]], place: Placement
) -> Work:
    """Training of a translator.

    Args:
      config: resolved.
      vocab_size: of both languages.
      shapes: (rows, width) of each kind of batch; rows must divide into microbatches in all of them.
      place: where arrays live.

    Raises:
      InputError: no microbatch suits all shapes and the devices.
    """
    network = translator(config.model, vocab_size, config.impl)
    tokens, shards = config.optimizer.batch_size, place.batch_shards
    parts = [
        n
        for n in range(1, tokens + 1)
        if tokens % n == 0 and all(rows % (n * shards) == 0 for rows, _ in shapes)
    ]
    if not parts:
        counts = ", ".join(str(rows) for rows, _ in shapes)
        raise InputError(
            f"batches of {counts} pairs do not divide among {shards} devices: change the batch size"
        )
    rows, width = max(shapes, key=lambda shape: shape[1])
    batch = {"source": (rows, width), "target": (rows, width)}

    def program(microbatch: int) -> Program:
        objective = translation(network, config.objective.label_smoothing)
        return _program(config.with_microbatch(microbatch), network, objective, batch)

    operations = flops.translator_train_flops_per_step(config.model, vocab_size, rows, width, width)
    cost = Amounts(steps=1, examples=rows, tokens=rows * width, flops=operations)
    return Work(network, "target tokens", tokens, sorted(tokens // n for n in parts), program, cost)


def _divisors(rows: int, place: Placement) -> list[int]:
    if not (found := divisors(rows, place.batch_shards)):
        raise InputError(
            f"a batch of {rows} rows does not divide among {place.batch_shards} devices: change the batch size"
        )
    return found
