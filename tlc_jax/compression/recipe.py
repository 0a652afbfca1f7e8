"""The recipe language: its operations, its parser, and the matrices that an operation selects.

    dense                                   nothing
    prune:0.75                              zeros the 75 % of the weights of smallest magnitude
    prune:2:4,embeddings=false              zeros two of every four consecutive inputs of an output
    quantize:8,only=embedding/.*+quantize:4,group=64
                                            8-bit embeddings, all other matrices in 4 bits
    remove:0.5,of=heads+remove:0.5,of=neurons
                                            removes half of the attention heads and of the FFN
    prune:0.9,gradual=true+finetune+quantize:4
                                            prunes gradually while finetuning, then quantizes
    quantize:4,aware=true+finetune          finetunes through the rounding of the weights

Operations are joined by `+` and happen in their order; each is `name:value[,key=value...]`. The
fields of an operation's class are its keys, with their types, choices and defaults. `only` is a
selector, a regular expression over whole parameter paths. A matrix is quantized by the first
quantize that selects it. This module does not import JAX, so that help and errors come at once.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_type_hints

from tlc_jax.core import plugins
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten, select
from tlc_jax.core.text import did_you_mean

FLOAT_BITS = 32
ANY = ".*"


def _need(holds: object, message: str) -> None:
    if not holds:
        raise InputError(f"recipe: {message}")


def _need_choice(operation: str, key: str, value: Any, choices: tuple[Any, ...]) -> None:
    _need(value in choices, f"{operation} {key}={value} must be one of {', '.join(choices)}")


def _check_fields(operation: Operation) -> None:
    """Refuses values that are not among the choices of their field, and selectors that do not
    compile.
    """
    name = _name(operation)
    for key, hint in get_type_hints(type(operation)).items():
        value = getattr(operation, key)
        if choices := get_args(hint):
            _need_choice(name, key, value, choices)
        if key == "only":
            try:
                re.compile(value)
            except re.error as error:
                _need(False, f"{name} only={value} is not a regular expression: {error}")


@dataclasses.dataclass(frozen=True)
class Prune:
    """Pruning of single weights: they stay in their matrices as zeros.

    Paper 1 does not say whether its threshold is global or per matrix. Global is the default: it
    lets redundant layers give up more than others. Its points lie at (1 - sparsity) x all
    parameters, so embeddings are pruned by default.

    Attributes:
      sparsity: share of the weights in scope that become zero, in [0, 1).
      scope: weights that are ranked together: all ("global"), a layer's matrix ("tensor"), all
        matrices of a layer ("layer"), or the inputs of one output ("row"; of an embedding, one
        row).
      block: 0, or the M of prune:N:M, which keeps N of each M consecutive inputs of an output and
        ignores `scope`. It is a part of the value and not a key.
      gradual: reach the sparsity during the finetuning that follows, on Zhu & Gupta's cubic
        schedule (2017).
      score: what weights are ranked by: their magnitude, or the score of a plug-in.
      embeddings: whether token and position embeddings are in scope.
      only: selector of the parameters in scope.
    """

    sparsity: float
    scope: Literal["global", "tensor", "layer", "row"] = "global"
    block: int = 0
    gradual: bool = False
    score: str = "magnitude"
    embeddings: bool = True
    only: str = ANY

    def __post_init__(self) -> None:
        _check_fields(self)
        says = f"sparsity {self.sparsity} must lie in [0, 1): prune:0.75 keeps a quarter"
        _need(0 <= self.sparsity < 1, says)
        says = "prune:N:M ranks M weights among themselves and at once: leave out scope and gradual"
        _need(not (self.block and (self.gradual or self.scope != "global")), says)

    @property
    def amount(self) -> str:
        """The value as recipes spell it: N:M for blocks, otherwise the sparsity."""
        if self.block:
            return f"{round((1 - self.sparsity) * self.block)}:{self.block}"
        return str(self.sparsity)


@dataclasses.dataclass(frozen=True)
class Remove:
    """Structured pruning: the parameters are taken out, so the model is smaller and computes less.

    Every layer loses the same number of heads or neurons, so that layers can still be stacked.

    Attributes:
      share: share of the heads, neurons or layers to remove; the number that stays is rounded, and
        at least 1.
      of: "heads", "neurons" (of the feed-forward layers) or "layers".
      which: layers to remove: the last ones ("top"), or evenly spaced ones ("spread"). Heads and
        neurons are always chosen by magnitude.
    """

    share: float
    of: Literal["heads", "neurons", "layers"]
    which: Literal["top", "spread"] = "top"

    def __post_init__(self) -> None:
        _check_fields(self)
        says = f"remove:{self.share} must lie between 0 and 1: remove:0.25,of=heads keeps 75 %"
        _need(0 < self.share < 1, says)
        allowed = self.which == "top" or self.of == "layers"
        _need(allowed, f"remove which={self.which} is for of=layers")


@dataclasses.dataclass(frozen=True)
class Quantize:
    """Uniform quantization of weights; activations stay as they are.

    Paper 1 quantizes uniformly between minimum and maximum (`scheme=minmax`) and does not say over
    which group of weights. One range per output channel is the default, because a single outlier in
    a tensor spoils a 4-bit grid for all of it; `per=tensor` is the plain reading of the paper. The
    default scheme is AQT's symmetric one: it stores no zero points and represents pruned weights
    exactly.

    Attributes:
      bits: bits of a weight, 2 to 8, or 32 to leave weights as they are.
      per: weights that share a scale: a layer's matrix ("tensor"), or its columns, an embedding's
        rows ("channel").
      group: 0, or the number of consecutive inputs of a channel that have a scale of their own.
      scheme: symmetric by AQT ("aqt"), paper 1's range from minimum to maximum ("minmax"), or the
        scheme of a plug-in.
      range: what a grid spans: all weights ("extremes"), the part of that with the least squared
        error ("mse"), or a percentage of the weights such as "99.9", the rest being clipped.
      aware: train through the rounding in the finetuning that follows, with gradients passed
        straight through it.
      embeddings: whether token and position embeddings are quantized, as in the paper.
      only: selector of the parameters to quantize.
    """

    bits: int
    per: Literal["tensor", "channel"] = "channel"
    group: int = 0
    scheme: str = "aqt"
    range: str = "extremes"
    aware: bool = False
    embeddings: bool = True
    only: str = ANY

    def __post_init__(self) -> None:
        _check_fields(self)
        valid = 2 <= self.bits <= 8 or self.bits == FLOAT_BITS
        _need(valid, f"bits {self.bits} must be 2 to 8, or 32 for none")
        says = f"quantize group={self.group} must be a number of weights, or 0 for whole channels"
        _need(self.group >= 0, says)
        says = "quantize group=N divides channels: leave out per=tensor"
        _need(not self.group or self.per == "channel", says)
        says = f"quantize aware=true computes with aqt or minmax, not with scheme={self.scheme}"
        _need(not self.aware or self.scheme in plugins.OURS["scheme"], says)
        says = f"quantize range={self.range} must be extremes, mse, or a percentage from 50 to 100"
        _need(self.percentile is None or 50 <= self.percentile <= 100, says)

    @property
    def percentile(self) -> float | None:
        """Percentage of the weights inside the range; None where `range` is a word."""
        if self.range in ("extremes", "mse"):
            return None
        try:
            return float(self.range)
        except ValueError:
            return math.nan  # fails every comparison, so __post_init__ refuses it


@dataclasses.dataclass(frozen=True)
class Finetune:
    """Training on data.train under `budget`, with pruned weights kept at zero."""


Operation = Prune | Remove | Quantize | Finetune
_OPERATIONS: dict[str, type[Operation]] = {
    kind.__name__.lower(): kind for kind in (Prune, Remove, Quantize, Finetune)
}
_EXAMPLES = {"prune": "0.75", "remove": "0.5,of=heads", "quantize": "4"}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Operations in the order in which they are applied; none for a dense model."""

    operations: tuple[Operation, ...] = ()

    def __post_init__(self) -> None:
        kinds = [type(operation) for operation in self.operations]
        _need(kinds.count(Finetune) <= 1, "finetune occurs twice; give it one longer budget")
        # Masks and grids belong to a shape, and removing structures changes it.
        first = not any(kind is Remove for kind in kinds[len(self.removes) :])
        _need(first, "remove must come first: what others do is bound to the model's shape")
        for operation in self.around_finetuning()[1]:
            for key in ("gradual", "aware"):
                says = f"{_name(operation)} {key}=true happens during finetuning"
                _need(not getattr(operation, key, False), f"{says}: add +finetune after it")

    @property
    def prunes(self) -> tuple[Prune, ...]:
        return tuple(one for one in self.operations if isinstance(one, Prune))

    @property
    def quantizes(self) -> tuple[Quantize, ...]:
        return tuple(one for one in self.operations if isinstance(one, Quantize))

    @property
    def removes(self) -> tuple[Remove, ...]:
        return tuple(one for one in self.operations if isinstance(one, Remove))

    @property
    def finetunes(self) -> bool:
        return Finetune() in self.operations

    def require_names(self) -> None:
        """Refuses scores and schemes that are neither ours nor those of a plug-in.

        Reading a recipe does without plug-ins, so that reports and saved models do.
        """
        for prune in self.prunes:
            plugins.find("score", prune.score, "recipe: ")
        for quantize in self.quantizes:
            plugins.find("scheme", quantize.scheme, "recipe: ")

    def around_finetuning(self) -> tuple[tuple[Operation, ...], tuple[Operation, ...]]:
        """The operations before the finetuning and those after it; without one, all of them come
        after.
        """
        if not self.finetunes:
            return (), self.operations
        at = self.operations.index(Finetune())
        return self.operations[:at], self.operations[at + 1 :]


def parse_recipe(text: str) -> Recipe:
    """The recipe that `text` spells.

    Raises:
      InputError: an unknown operation or key, an impossible value, or operations that do not fit
        together.
    """
    if text.strip() == "dense":
        return Recipe()
    # Selectors may contain `+` and `,`, so both separate only where an operation or a key follows.
    parts = re.split(r"\+(?=\s*(?:[a-z]+\s*:|finetune|dense))", text)
    return Recipe(tuple(_parse_operation(part.strip()) for part in parts))


def parse_one_shot(text: str) -> Recipe:
    """The recipe that `text` spells, which prunes or quantizes without training and without a
    change of shape.

    Raises:
      InputError: it is another kind of recipe.
    """
    recipe = parse_recipe(text)
    if recipe.removes or recipe.finetunes:
        raise InputError(
            f"recipe={text}: analyze prunes and quantizes at once: leave out remove and finetune"
        )
    recipe.require_names()
    if not recipe.operations:
        raise InputError("recipe=dense changes nothing: name one, such as quantize:4")
    return recipe


def format_recipe(recipe: Recipe) -> str:
    """The shortest text of a recipe: defaults are left out. `parse_recipe` takes it back to an
    equal recipe.
    """
    return "+".join(map(_format_operation, recipe.operations)) or "dense"


def _name(operation: Operation) -> str:
    return type(operation).__name__.lower()


def _parse_operation(text: str) -> Operation:
    head, *settings = (part.strip() for part in re.split(r",(?=\s*[a-z]*\s*(?:=|,|$))", text))
    name, _, value = (part.strip() for part in head.partition(":"))
    known = did_you_mean(name, ("dense", *_OPERATIONS))
    _need(name in _OPERATIONS, f"unknown operation {name!r}{known}")
    kind = _OPERATIONS[name]
    if kind is Finetune:
        _need(text == name, f"{text}: finetune takes no value; it trains under `budget`")
        return Finetune()
    hints = get_type_hints(kind)
    amount, *keys = (key for key in hints if key != "block")
    example = f"such as {name}:{_EXAMPLES[name]}"
    _need(value, f"{name} needs its {amount}, {example}")
    if kind is Prune and ":" in value:
        values = _parse_blocks(value)
    else:
        values = {amount: _parse_value(name, amount, value, hints[amount])}
    for setting in settings:
        key, _, value = (part.strip() for part in setting.partition("="))
        _need(key in keys, f"{name} has no key {key!r}{did_you_mean(key, keys)}")
        _need(value, f"{name} key {key} needs a value, written {key}=VALUE")
        _need(key not in values, f"{name} key {key} occurs twice")
        values[key] = _parse_value(name, key, value, hints[key])
    _need(kind is not Remove or "of" in values, f"remove needs of=, {example}")
    return kind(**values)


def _parse_blocks(text: str) -> dict[str, Any]:
    keep, _, block = text.partition(":")
    valid = keep.isdecimal() and block.isdecimal() and 0 < int(keep) < int(block) <= 32
    _need(valid, f"prune:{text}: N of M weights are kept, 0 < N < M <= 32, such as prune:2:4")
    return {"sparsity": 1 - int(keep) / int(block), "block": int(block)}


def _parse_value(operation: str, key: str, text: str, hint: Any) -> Any:
    """The value of a field with this type hint."""
    if hint is bool:
        _need_choice(operation, key, text, ("true", "false"))
        return text == "true"
    try:
        return hint(text) if hint in (int, float) else text
    except ValueError:
        what = "a whole number" if hint is int else "a number"
        raise InputError(f"recipe: {operation}:{text}: {key} must be {what}") from None


def _format_operation(operation: Operation) -> str:
    name = _name(operation)
    if isinstance(operation, Finetune):
        return name
    amount, *fields = dataclasses.fields(operation)
    value = operation.amount if isinstance(operation, Prune) else getattr(operation, amount.name)
    parts = [f"{name}:{value}"]
    for field in fields:
        value = getattr(operation, field.name)
        if value != field.default and field.name != "block":
            parts.append(f"{field.name}={str(value).lower() if isinstance(value, bool) else value}")
    return ",".join(parts)


def compressible(params: Mapping[str, Any], embeddings: bool, only: str = ANY) -> set[str]:
    """Paths of the weight matrices that may be pruned and quantized.

    These are the kernels and, if `embeddings`, the token and position embeddings: paper 1
    compresses every parameter, and a position table is as much a matrix of learned rows as a token
    table. Biases, normalization and the one or two rows of token types are left out: they are under
    one percent of a model, a zero scale cuts a feature off altogether, and four bits do not
    represent them well enough.

    Raises:
      InputError: `only` selects no such matrix.
    """
    paths = list(flatten(params))
    tables = "|embedding/(token|position)" if embeddings else ""
    matrices = {path for path in paths if re.fullmatch(f"(.*/)?(kernel{tables})", path)}
    # Without a selector, an empty scope is not an error: earlier operations may have taken all.
    if only == ANY:
        return matrices
    chosen = [path for path, hit in select([(only, True)], paths, default=False).items() if hit]
    if matrices.isdisjoint(chosen):
        named = ", ".join(chosen[:3])
        raise InputError(f"recipe: only={only} selects no weight matrix, but {named}")
    return matrices.intersection(chosen)


def input_axis(path: str) -> int:
    """The axis along which lie the weights of one channel, which may have a scale of its own.

    It is -2 for a kernel [..., in, out], and -1 for an embedding [rows, width]: each row is used by
    itself.
    """
    return -2 if path.endswith("kernel") else -1
