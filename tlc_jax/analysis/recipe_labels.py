"""Short names of recipes and sizes for figures and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tlc_jax.analysis.kinds import Size
from tlc_jax.analysis.records import Model


def recipe_labels(recipes: Iterable[str]) -> dict[str, str]:
    """A short label per recipe string, options named only where two recipes would share a label without them."""
    unique = list(dict.fromkeys(recipes))
    short = {recipe: " + ".join(_operation(part, options=False) for part in recipe.split("+")) for recipe in unique}
    count = Counter(short.values())
    return {
        recipe: short[recipe]
        if count[short[recipe]] == 1
        else " + ".join(_operation(part, options=True) for part in recipe.split("+"))
        for recipe in unique
    }


def _operation(part: str, *, options: bool) -> str:
    head, *extra = part.split(",")
    name, _, value = head.partition(":")
    label = head
    if name == "quantize" and value.isdecimal():
        label = f"{value}-bit"
    elif name == "prune" and _is_number(value):
        label = f"pruned {100 * float(value):g} %"
    return f"{label} ({', '.join(extra)})" if options and extra else label


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def count_label(count: float) -> str:
    """A number of parameters with three digits: 612 k, 5.43 M."""
    count = float(f"{count:.3g}")
    for unit, divisor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= divisor:
            return f"{count / divisor:.3g} {unit}"
    return f"{count:.0f}"


def size_label(size: Size) -> str:
    """A size with its parameters, for legends."""
    return f"{size} ({count_label(size.params)})"


def model_label(model: Model, labels: dict[str, str]) -> str:
    """Size, recipe and, where it matters, that the model was never pretrained."""
    return f"{model.size}, {labels[model.recipe]}" + ("" if model.pretrained else ", from scratch")
