"""Short names of recipes and sizes for figures and tables."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

from tlc_jax.compression.recipe import Prune, Quantize, Recipe, Remove, format_recipe, parse_recipe
from tlc_jax.core.errors import InputError
from tlc_jax.statistics.kinds import Size
from tlc_jax.statistics.records import Model


def recipes_of(models: Sequence[Model]) -> dict[str, str]:
    """Returns recipes with labels, the lightest first: dense, then by bits left per parameter."""
    left = {model.recipe: (1 - model.sparsity) * model.bits for model in models}
    return recipe_labels(sorted(left, key=lambda one: (one != "dense", -left[one], one)))


def recipe_labels(recipes: Iterable[str]) -> dict[str, str]:
    """Returns a short label per recipe, with options only where two labels would be equal."""
    short = {recipe: _label(recipe, options=False) for recipe in recipes}
    # Two recipes may differ in an option alone, such as the group size.
    count = Counter(short.values())
    return {
        recipe: label if count[label] == 1 else _label(recipe, options=True)
        for recipe, label in short.items()
    }


def _label(recipe: str, *, options: bool) -> str:
    try:
        operations = parse_recipe(recipe).operations
    except InputError:  # of a version that knows more
        return recipe
    return " + ".join(_operation(operation, options=options) for operation in operations) or "dense"


def _operation(operation: object, *, options: bool) -> str:
    if isinstance(operation, Prune):
        amount = operation.amount if operation.block else f"{100 * operation.sparsity:g} %"
        label = f"{'gradually ' if operation.gradual else ''}pruned {amount}"
        # The label says it already, so the options do not.
        operation = dataclasses.replace(operation, gradual=False)
    elif isinstance(operation, Quantize):
        label = f"{'aware ' if operation.aware else ''}{operation.bits}-bit"
        operation = dataclasses.replace(operation, aware=False)
    elif isinstance(operation, Remove):
        return f"{100 * (1 - operation.share):g} % of {operation.of}"
    else:
        return "finetuned"
    extra = format_recipe(Recipe((operation,))).split(",", 1)[1:]
    return f"{label} ({extra[0].replace(',', ', ')})" if options and extra else label


def count_label(count: float) -> str:
    """Writes a number with three digits: 0.25, 612 k, 5.43 M, 1.2e18."""
    count = float(f"{count:.3g}")  # first, so that 999,999 becomes 1 M and not 1000 k
    if count >= 1e12:
        return f"{count:.3g}".replace("e+", "e")
    for unit, divisor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= divisor:
            return f"{count / divisor:.3g} {unit}"
    return f"{count:.3g}"


def counted(number: int, noun: str) -> str:
    """Writes a number with its noun: 1 seed, 2 seeds."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def size_label(size: Size) -> str:
    """Writes a size with its parameters, for legends."""
    return f"{size} ({count_label(size.params)})"


def model_label(model: Model, labels: dict[str, str]) -> str:
    """Writes the size, the recipe and, where it is so, that the model was never pretrained."""
    return f"{model.size}, {labels[model.recipe]}" + ("" if model.pretrained else ", from scratch")
