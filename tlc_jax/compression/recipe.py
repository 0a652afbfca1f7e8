"""Compression recipes: a small language, and what it means. No JAX here, so that configs are checked before it loads.

    dense                                              nothing
    prune:0.75                                         zero 75 % of the weights, smallest magnitude first
    quantize:4,per=tensor,scheme=minmax                4-bit weights
    prune:0.75,scope=tensor+quantize:4,embeddings=false

Operations are joined by `+`, each `name:value[,key=value...]`. Pruning comes before quantisation, each at most once.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Iterable
from typing import Any

from tlc_jax.errors import InputError

FLOAT_BITS = 32


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise InputError(message)


def _need_choice(operation: str, key: str, value: str, choices: tuple[str, ...]) -> None:
    _need(value in choices, f"recipe: {operation} {key}={value} must be one of {', '.join(choices)}")


@dataclasses.dataclass(frozen=True)
class Prune:
    """Unstructured magnitude pruning.

    Paper 1 does not say whether its threshold is global or per matrix. Global is the default: it lets redundant layers
    give up more than others. Its points lie at (1 - sparsity) x all parameters, so embeddings are pruned by default.

    Attributes:
      sparsity: share of the weights in scope that become zero, in [0, 1).
      scope: one threshold over all weights ("global"), or one for each layer's matrix ("tensor").
      embeddings: whether token and position embeddings are in scope.
    """

    sparsity: float
    scope: str = "global"
    embeddings: bool = True

    def __post_init__(self) -> None:
        _need(
            0 <= self.sparsity < 1, f"recipe: sparsity {self.sparsity} must lie in [0, 1): prune:0.75 keeps a quarter"
        )
        _need_choice("prune", "scope", self.scope, ("global", "tensor"))


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
      scheme: symmetric by AQT ("aqt"), or paper 1's range from minimum to maximum ("minmax").
      embeddings: whether token and position embeddings are quantised, as in the paper.
    """

    bits: int
    per: str = "channel"
    scheme: str = "aqt"
    embeddings: bool = True

    def __post_init__(self) -> None:
        _need(
            2 <= self.bits <= 8 or self.bits == FLOAT_BITS, f"recipe: bits {self.bits} must be 2 to 8, or 32 for none"
        )
        _need_choice("quantize", "per", self.per, ("tensor", "channel"))
        _need_choice("quantize", "scheme", self.scheme, ("aqt", "minmax"))


Operation = Prune | Quantize
OPERATIONS: dict[str, type[Prune] | type[Quantize]] = {"prune": Prune, "quantize": Quantize}
NAMES: dict[type, str] = {kind: name for name, kind in OPERATIONS.items()}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Operations in the order in which they are applied; none for a dense model."""

    operations: tuple[Operation, ...] = ()

    def __post_init__(self) -> None:
        order = [list(OPERATIONS).index(NAMES[type(operation)]) for operation in self.operations]
        for before, after in itertools.pairwise(order):
            name = list(OPERATIONS)[after]
            _need(before != after, f"recipe: {name} occurs twice; one is enough")
            _need(before < after, f"recipe: {name} must come before {list(OPERATIONS)[before]}")

    @property
    def prune(self) -> Prune | None:
        return next((operation for operation in self.operations if isinstance(operation, Prune)), None)

    @property
    def quantize(self) -> Quantize | None:
        return next((operation for operation in self.operations if isinstance(operation, Quantize)), None)

    @property
    def sparsity(self) -> float:
        """Target share of zeros among the weights in scope of pruning."""
        return self.prune.sparsity if self.prune else 0.0

    @property
    def bits(self) -> int:
        """Bits of a quantised weight, 32 without quantisation."""
        return self.quantize.bits if self.quantize else FLOAT_BITS


def parse_recipe(text: str) -> Recipe:
    """The recipe that `text` spells.

    Raises:
      InputError: an unknown operation or key, a value that cannot be, a wrong order or an operation given twice.
    """
    if text.strip() == "dense":
        return Recipe()
    return Recipe(tuple(_parse_operation(part.strip()) for part in text.split("+")))


def format_recipe(recipe: Recipe) -> str:
    """The shortest text of a recipe: defaults are left out. `parse_recipe` takes it back to an equal recipe."""
    return "+".join(map(_format_operation, recipe.operations)) or "dense"


def _parse_operation(text: str) -> Operation:
    head, *settings = (part.strip() for part in text.split(","))
    name, colon, value = (part.strip() for part in head.partition(":"))
    _need(name in OPERATIONS, f"recipe: unknown operation {name!r}{_hint(name, ('dense', *OPERATIONS))}")
    kind = OPERATIONS[name]
    amount, *keys = (field.name for field in dataclasses.fields(kind))
    _need(
        bool(colon and value), f"recipe: {name} needs its {amount}, such as {name}:{'0.75' if kind is Prune else '4'}"
    )
    values: dict[str, Any] = {amount: _number(name, amount, value, float if kind is Prune else int)}
    for setting in settings:
        key, equals, value = (part.strip() for part in setting.partition("="))
        _need(key in keys, f"recipe: {name} has no key {key!r}{_hint(key, keys)}")
        _need(bool(equals and value), f"recipe: {name} key {key} needs a value, written {key}=VALUE")
        _need(key not in values, f"recipe: {name} key {key} occurs twice")
        values[key] = _flag(name, key, value) if key == "embeddings" else value
    return kind(**values)


def _format_operation(operation: Operation) -> str:
    amount, *keys = dataclasses.fields(operation)
    parts = [f"{NAMES[type(operation)]}:{getattr(operation, amount.name)!r}"]
    for key in keys:
        value = getattr(operation, key.name)
        if value != key.default:
            parts.append(f"{key.name}={str(value).lower()}")
    return ",".join(parts)


def _number(operation: str, key: str, text: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise InputError(f"recipe: {operation}:{text}: {key} must be {what}") from None


def _flag(operation: str, key: str, text: str) -> bool:
    _need_choice(operation, key, text, ("true", "false"))
    return text == "true"


def _hint(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(known)}"
