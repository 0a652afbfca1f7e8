"""What the report's page draws by itself: points and curves that can be hovered and filtered."""

from __future__ import annotations

from typing import Any

from matplotlib.colors import to_hex

from tlc_jax.report import style
from tlc_jax.report.labels import recipe_labels
from tlc_jax.report.tables import hundredths
from tlc_jax.statistics.frontier import group
from tlc_jax.statistics.records import Model, Study


def charts(study: Study) -> dict[str, Any]:
    """Sizes with their colors, recipes, and charts of series of points, ready for JSON.

    A point has `x`, `y` and `text`; a series has the size and the recipe that filters go by.
    """
    labels = recipe_labels(model.recipe for model in study.models)
    sizes, drawn = [], []
    for kind in study.kinds:
        part = study.of(kind)
        colors = style.size_colors(part.sizes)
        prefix = "" if len(study.kinds) == 1 else f"{kind.models}: "
        names = {size: f"{prefix}{size}" for size in part.sizes}
        sizes += [{"name": names[s], "color": to_hex(colors[s])} for s in part.sizes]
        for task, models in group(part.models, lambda model: model.task).items():
            series = [
                {
                    "size": names[model.size],
                    "recipe": labels[model.recipe],
                    "points": [_point(model, labels[model.recipe])],
                }
                for model in models
            ]
            title = f"{task}: {kind.score} against size"
            axes = {"x": "packed artifact (MB, log)", "y": f"{kind.score} ({kind.unit})"}
            drawn.append({"title": title, **axes, "log": True, "line": False, "series": series})
        curves = [
            {
                "size": names[curve.size],
                "points": [
                    {"x": seconds, "y": loss, "text": _evaluation(curve, step, seconds, loss)}
                    for step, seconds, loss in zip(
                        curve.steps, curve.seconds, curve.losses, strict=True
                    )
                    if seconds > 0
                ],
            }
            for curve in part.curves
        ]
        if any(one["points"] for one in curves):
            title = f"{prefix}validation loss during training"
            axes = {"x": "training seconds (log)", "y": "validation loss (nats)"}
            drawn.append({"title": title, **axes, "log": True, "line": True, "series": curves})
    used = dict.fromkeys(labels[model.recipe] for model in study.models)
    return {"sizes": sizes, "recipes": list(used), "charts": drawn}


def _point(model: Model, recipe: str) -> dict[str, Any]:
    kind = model.size.kind
    origin = "" if model.pretrained else ", from scratch"
    text = (
        f"{model.size}{origin}, {recipe}: {hundredths(model.score)} {kind.unit}, "
        f"{model.megabytes:.3f} MB, {model.score.n} seed{'' if model.score.n == 1 else 's'}"
    )
    return {"x": model.megabytes, "y": 100 * model.score.mean, "text": text}


def _evaluation(curve: Any, step: int, seconds: float, loss: float) -> str:
    return f"{curve.size}, seed {curve.seed}: {loss:.3f} nats after {seconds:.1f} s, {step:,} steps"
