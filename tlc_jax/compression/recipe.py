"""Compression recipes: a small language, and what it means. No JAX here, so that configs are checked before it loads.

    dense                                                   nothing
    prune:0.75                                              zero 75 % of the weights, smallest magnitude first
    prune:2:4,embeddings=false                              zero two of every four consecutive inputs of an output
    quantize:8,only=embedding/.*+quantize:4,group=64        8-bit embeddings, all other matrices in 4 bits
    remove:0.5,of=heads+remove:0.5,of=neurons               half of the attention heads and of the FFN, really gone
    prune:0.9,gradual=true+finetune+quantize:4              pruned bit by bit while finetuning, then quantised
    quantize:4,aware=true+finetune                          finetuned through the rounding of its weights

Operations are joined by `+` and happen in their order; each is `name:value[,key=value...]`. `only` is a selector, a
regular expression over whole parameter paths. The first quantisation that selects a matrix is the one that it gets.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable
from typing import Any

from tlc_jax.core.errors import InputError

FLOAT_BITS = 32
ANY = ".*"


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise InputError(f"recipe: {message}")


def _need_choice(operation: str, key: str, value: str, choices: tuple[str, ...]) -> None:
    _need(value in choices, f"{operation} {key}={value} must be one of {', '.join(choices)}")


def _need_selector(operation: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        _need(False, f"{operation} only={pattern} is no regular expression: {error}")


@dataclasses.dataclass(frozen=True)
class Prune:
    """Magnitude pruning of single weights, which stay in their matrices as zeros.

    Paper 1 does not say whether its threshold is global or per matrix. Global is the default: it lets redundant layers
    give up more than others. Its points lie at (1 - sparsity) x all parameters, so embeddings are pruned by default.

    Attributes:
      sparsity: share of the weights in scope that become zero, in [0, 1).
      scope: which weights are ranked together: all ("global"), a layer's matrix ("tensor"), all matrices of a layer
        ("layer"), or the inputs of one output ("row"; of an embedding, one row).
      block: 0, or M, written prune:N:M: of each M consecutive inputs of an output N are kept (`scope` means nothing).
      gradual: reach the sparsity during the finetuning that follows, on Zhu & Gupta's cubic schedule (2017).
      embeddings: whether token and position embeddings are in scope.
      only: selector of the parameters in scope.
    """

    sparsity: float
    scope: str = "global"
    block: int = 0
    gradual: bool = False
    embeddings: bool = True
    only: str = ANY

    def __post_init__(self) -> None:
        _need(
            0 <= self.sparsity < 1,
            f"sparsity {self.sparsity} must lie in [0, 1): prune:0.75 keeps a quarter",
        )
        _need_choice("prune", "scope", self.scope, ("global", "tensor", "layer", "row"))
        _need(
            not (self.block and (self.gradual or self.scope != "global")),
            "prune:N:M ranks each M weights among themselves and at once: leave out scope and gradual",
        )
        _need_selector("prune", self.only)

    @property
    def amount(self) -> str:
        return (
            f"{round((1 - self.sparsity) * self.block)}:{self.block}"
            if self.block
            else repr(self.sparsity)
        )


@dataclasses.dataclass(frozen=True)
class Remove:
    """Structured pruning: the parameters are taken out and the model is a smaller one, which also computes less.

    Every layer loses as many heads or neurons as the others, so that layers can still be stacked.

    Attributes:
      share: of the heads, neurons or layers; the number that stays is rounded, and at least 1.
      of: "heads", "neurons" (of the feed-forward layers) or "layers".
      which: of layers: the last ones ("top"), or evenly spaced ones ("spread"). Heads and neurons go by magnitude.
    """

    share: float
    of: str
    which: str = "top"

    def __post_init__(self) -> None:
        _need(
            0 < self.share < 1,
            f"remove:{self.share} must lie between 0 and 1: remove:0.25,of=heads keeps 75 %",
        )
        _need_choice("remove", "of", self.of, ("heads", "neurons", "layers"))
        _need_choice("remove", "which", self.which, ("top", "spread"))
        _need(
            self.which == "top" or self.of == "layers",
            f"remove which={self.which} is for of=layers",
        )

    @property
    def amount(self) -> str:
        return repr(self.share)


@dataclasses.dataclass(frozen=True)
class Quantize:
    """Uniform quantisation of weights; activations stay as they are.

    Paper 1 quantises uniformly between minimum and maximum (`scheme=minmax`) and does not say over what group of
    weights. One range per output channel is the default, because a single outlier in a tensor spoils a 4-bit grid for
    all of it; `per=tensor` is the plain reading of the paper. The default scheme is AQT's symmetric one: it stores no
    zero points and represents pruned weights exactly.

    Attributes:
      bits: 2 to 8, or 32 for none.
      per: weights that share a scale: a layer's matrix ("tensor"), or its columns, an embedding's rows ("channel").
      group: 0, or a number of consecutive inputs of a channel that have a scale of their own.
      scheme: symmetric by AQT ("aqt"), or paper 1's range from minimum to maximum ("minmax").
      range: what a grid spans: all weights ("extremes"), the part of that with the least squared error ("mse"), or a
        percentage of the weights such as "99.9", the rest being clipped.
      aware: train through the rounding in the finetuning that follows, with gradients passed straight through it.
      embeddings: whether token and position embeddings are quantised, as in the paper.
      only: selector of the parameters to quantise.
    """

    bits: int
    per: str = "channel"
    group: int = 0
    scheme: str = "aqt"
    range: str = "extremes"
    aware: bool = False
    embeddings: bool = True
    only: str = ANY

    def __post_init__(self) -> None:
        _need(
            2 <= self.bits <= 8 or self.bits == FLOAT_BITS,
            f"bits {self.bits} must be 2 to 8, or 32 for none",
        )
        _need_choice("quantize", "per", self.per, ("tensor", "channel"))
        _need_choice("quantize", "scheme", self.scheme, ("aqt", "minmax"))
        _need(
            self.group >= 0,
            f"quantize group={self.group} must be a number of weights, or 0 for whole channels",
        )
        _need(
            not self.group or self.per == "channel",
            "quantize group=N divides channels: leave out per=tensor",
        )
        _need(
            self.range in ("extremes", "mse") or 50 <= _float(self.range) <= 100,
            f"quantize range={self.range} must be extremes, mse, or a percentage from 50 to 100",
        )
        _need_selector("quantize", self.only)

    @property
    def amount(self) -> str:
        return str(self.bits)

    @property
    def percentile(self) -> float | None:
        """Percentage of the weights inside the range, where it is chosen so."""
        return None if self.range in ("extremes", "mse") else float(self.range)


@dataclasses.dataclass(frozen=True)
class Finetune:
    """Training on data.train under `budget`, with pruned weights held at zero."""

    @property
    def amount(self) -> str:
        return ""


Operation = Prune | Remove | Quantize | Finetune
OPERATIONS: dict[str, type[Operation]] = {
    "prune": Prune,
    "remove": Remove,
    "quantize": Quantize,
    "finetune": Finetune,
}
NAMES: dict[type, str] = {kind: name for name, kind in OPERATIONS.items()}
_EXAMPLES = {"prune": "0.75", "remove": "0.5,of=heads", "quantize": "4"}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Operations in the order in which they are applied; none for a dense model."""

    operations: tuple[Operation, ...] = ()

    def __post_init__(self) -> None:
        kinds = [type(operation) for operation in self.operations]
        _need(kinds.count(Finetune) <= 1, "finetune occurs twice; give it one longer budget")
        first = kinds.count(Remove)
        _need(
            Remove not in kinds[first:],
            "remove must come first: what others do is bound to the model's shape",
        )
        finetuned_at = kinds.index(Finetune) if Finetune in kinds else -1
        for index, operation in enumerate(self.operations):
            if isinstance(operation, Prune) and operation.gradual:
                _need(
                    index < finetuned_at,
                    "prune gradual=true happens during finetuning: add +finetune after it",
                )
            if isinstance(operation, Quantize) and operation.aware:
                _need(
                    index < finetuned_at,
                    "quantize aware=true happens during finetuning: add +finetune after it",
                )

    @property
    def prunes(self) -> tuple[Prune, ...]:
        return tuple(operation for operation in self.operations if isinstance(operation, Prune))

    @property
    def quantizes(self) -> tuple[Quantize, ...]:
        return tuple(operation for operation in self.operations if isinstance(operation, Quantize))

    @property
    def removes(self) -> tuple[Remove, ...]:
        return tuple(operation for operation in self.operations if isinstance(operation, Remove))

    @property
    def finetunes(self) -> bool:
        return Finetune() in self.operations

    def around_finetuning(self) -> tuple[tuple[Operation, ...], tuple[Operation, ...]]:
        """What comes before the finetuning and what comes after it; without one, all of it is after."""
        if not self.finetunes:
            return (), self.operations
        at = self.operations.index(Finetune())
        return self.operations[:at], self.operations[at + 1 :]


def parse_recipe(text: str) -> Recipe:
    """The recipe that `text` spells.

    Raises:
      InputError: an unknown operation or key, a value that cannot be, or operations that do not fit together.
    """
    if text.strip() == "dense":
        return Recipe()
    # Selectors may hold `+` and `,` of their own: a new operation begins like one, a new key like one.
    parts = re.split(r"\+(?=\s*(?:[a-z]+\s*:|finetune|dense))", text)
    return Recipe(tuple(_parse_operation(part.strip()) for part in parts))


def parse_one_shot(text: str) -> Recipe:
    """The recipe that `text` spells, which prunes or quantises and leaves the model's shape and training alone.

    Raises:
      InputError: it does not.
    """
    recipe = parse_recipe(text)
    if recipe.removes or recipe.finetunes:
        raise InputError(
            f"recipe={text}: analyze prunes and quantises at once: leave out remove and finetune"
        )
    if not recipe.operations:
        raise InputError("recipe=dense changes nothing: name one, such as quantize:4")
    return recipe


def format_recipe(recipe: Recipe) -> str:
    """The shortest text of a recipe: defaults are left out. `parse_recipe` takes it back to an equal recipe."""
    return "+".join(map(_format_operation, recipe.operations)) or "dense"


def _parse_operation(text: str) -> Operation:
    head, *settings = (part.strip() for part in re.split(r",(?=\s*[a-z]*\s*(?:=|,|$))", text))
    name, colon, value = (part.strip() for part in head.partition(":"))
    _need(name in OPERATIONS, f"unknown operation {name!r}{_hint(name, ('dense', *OPERATIONS))}")
    kind = OPERATIONS[name]
    if kind is Finetune:
        _need(
            not colon and not settings, f"{text}: finetune takes no value; it trains under `budget`"
        )
        return Finetune()
    amount, *fields = dataclasses.fields(kind)
    _need(
        bool(colon and value), f"{name} needs its {amount.name}, such as {name}:{_EXAMPLES[name]}"
    )
    values = _amount(name, amount.name, value)
    keys = {field.name: field for field in fields if field.name != "block"}
    for setting in settings:
        key, equals, value = (part.strip() for part in setting.partition("="))
        _need(key in keys, f"{name} has no key {key!r}{_hint(key, keys)}")
        _need(bool(equals and value), f"{name} key {key} needs a value, written {key}=VALUE")
        _need(key not in values, f"{name} key {key} occurs twice")
        values[key] = _value(name, key, value, keys[key].default)
    for key, field in keys.items():
        _need(
            key in values or field.default is not dataclasses.MISSING,
            f"{name} needs {key}=, such as {name}:{_EXAMPLES[name]}",
        )
    return kind(**values)


def _amount(name: str, key: str, text: str) -> dict[str, Any]:
    if name == "prune" and ":" in text:
        keep, _, block = text.partition(":")
        good = keep.isdecimal() and block.isdecimal() and 0 < int(keep) < int(block) <= 32
        _need(good, f"prune:{text}: N of M weights are kept, 0 < N < M <= 32, such as prune:2:4")
        return {"sparsity": 1 - int(keep) / int(block), "block": int(block)}
    return {key: _number(name, key, text, int if name == "quantize" else float)}


def _value(operation: str, key: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        _need_choice(operation, key, text, ("true", "false"))
        return text == "true"
    return _number(operation, key, text, int) if isinstance(default, int) else text


def _format_operation(operation: Operation) -> str:
    name = NAMES[type(operation)]
    parts = [f"{name}:{operation.amount}" if operation.amount else name]
    for field in dataclasses.fields(operation)[1:]:
        value = getattr(operation, field.name)
        if value != field.default and field.name != "block":
            parts.append(f"{field.name}={str(value).lower() if isinstance(value, bool) else value}")
    return ",".join(parts)


def _number(operation: str, key: str, text: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise InputError(f"recipe: {operation}:{text}: {key} must be {what}") from None


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _hint(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(known)}"
