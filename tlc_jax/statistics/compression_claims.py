"""The claims about compression: who loses less, what is best under a budget, and why."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

import numpy as np

from tlc_jax.statistics import budgets
from tlc_jax.statistics.curves import LOSS_MARGIN
from tlc_jax.statistics.effects import Effect, Sample, contrast, weigh
from tlc_jax.statistics.frontier import summarize
from tlc_jax.statistics.kinds import ENCODER, Size
from tlc_jax.statistics.records import Model, Study, operations
from tlc_jax.statistics.regime import plateau_loss
from tlc_jax.statistics.statement import POINTS, Findings, claim, rise, several

_KEPT = 0.8  # share of the dense score above the floor, below which a pruned model is broken

_ROBUST = (
    "The loss of {kind.score} against the same seed's dense model falls with size, for every "
    "recipe listed"
)


@claim(
    "2a",
    "Larger models lose less {kind.score} under quantization.",
    _ROBUST + ": those that quantize and do nothing else, at 4 bits or else at the fewest.{care}",
    needed="no recipe of quantization alone, beside dense, on two sizes",
    unit=POINTS,
)
def _robust_to_quantization(study: Study) -> Findings:
    alone = [model for model in study.models if operations(model.recipe) == {"quantize"}]
    bits = {model.recipe: model.bits for model in alone if model.bits < 32}
    chosen = 4.0 if 4.0 in bits.values() else min(bits.values(), default=0.0)
    recipes = {recipe for recipe, value in bits.items() if value == chosen}
    for task in study.tasks:
        yield from _robust(study, task, recipes)


@claim(
    "2b",
    "Larger models lose less {kind.score} under pruning.",
    _ROBUST + ": those that prune and do nothing else, at the highest sparsity at which every size "
    f"keeps {100 * _KEPT:.0f} % of what its dense {{kind.score}} has above the floor. The floor is "
    "that of always answering the most frequent class, or zero where the rows do not tell it. "
    "Beyond it models answer like ones that have learned nothing, and the best has most to "
    "lose.{care}",
    needed="no recipe of pruning alone, beside dense, on two sizes",
    unit=POINTS,
)
def _robust_to_pruning(study: Study) -> Findings:
    alone = [model for model in study.models if operations(model.recipe) == {"prune"}]
    # Rounded, because the sparsity reached differs between sizes by a few weights.
    sparsities = {model.recipe: round(model.sparsity, 2) for model in alone}
    for task in study.tasks:
        dense, usable, kept = study.by_size(task), set(), []
        for recipe in sorted(sparsities, key=lambda recipe: sparsities[recipe]):
            pruned = study.by_size(task, recipe)
            shares = [_kept(dense[size], one) for size, one in pruned.items() if size in dense]
            if len(shares) > 1:
                kept.append(f"{recipe} {100 * min(shares):.0f} %")
                usable |= {recipe} if min(shares) >= _KEPT else set()
        highest = max((sparsities[recipe] for recipe in usable), default=0.0)
        yield from _robust(study, task, {r for r in usable if sparsities[r] == highest})
        if kept and not usable:
            least = ", ".join(kept)
            yield (
                None,
                f"{task}: at every sparsity some size is at the floor; kept at least {least}",
            )


def _kept(dense: Model, pruned: Model) -> float:
    """The share that a pruned model keeps of what its dense model has above the floor.

    The floor is the accuracy of always answering the most frequent class, 0 where it is unknown.
    """
    floor = dense.summary("accuracy_majority")
    lowest = floor.mean if floor.n else 0.0
    had = dense.score.mean - lowest
    # A model at the floor has nothing to keep, nor has a translator with a BLEU of zero.
    return (pruned.score.mean - lowest) / had if had > 0 else 0.0


def _robust(study: Study, task: str, recipes: Collection[str]) -> Findings:
    dense = study.by_size(task)
    for recipe in sorted(recipes):
        compressed = study.by_size(task, recipe)
        drops = study.drops(task, recipe)
        if not several(drops):
            continue
        # Not turned around, because a trend is about values that are better larger.
        kept = {size: compressed[size].minus(dense[size]) for size in drops}
        listing = ", ".join(
            f"{size} {summarize(some.values()).written('.1f', 100)}"
            f" of {dense[size].points.mean:.1f}"
            for size, some in drops.items()
        )
        yield rise(kept), f"{task}, {recipe}: points lost {listing}"


@claim(
    "2c",
    "For most memory budgets a large model, heavily compressed, is best.",
    "The best compressed model of the sizes whose dense model does not fit beats the best model, "
    "dense or compressed, of the sizes whose dense model fits, or of the smallest size where none "
    "does: on average over all budgets that have both, evenly on a log scale from the smallest "
    "compressed to the largest dense model; in megabytes and in nonzero parameters. Each run is "
    "judged on models that were chosen without it on the other half of the instances, and the "
    "interval allows for runs that choose for each other.",
    needed="needs dense models of two sizes, and compressed ones",
    unit=POINTS,
)
def _compressed_large_wins(study: Study) -> Findings:
    for task in study.tasks:
        models = [model for model in study.models if model.task == task and model.pretrained]
        for cost, words, scale in (("megabytes", "MB", 1.0), ("nonzero", "M nonzero", 1e-6)):
            found = budgets.leads(models, cost)
            if found is None:
                continue
            line = (
                f"{task}, {scale * found.low:.3g} to {scale * found.high:.3g} {words}: "
                f"the large one is ahead under {100 * found.ahead:.0f} % of the budgets"
            )
            if not found.halves:
                line += ", chosen and judged on the same instances"
            yield _widened(weigh([found.sample], [1.0])), line


def _widened(effect: Effect) -> Effect:
    """Allows for models that are chosen by almost the same runs.

    Two runs are judged on models that were chosen by the same others and by each other, so their
    values are not independent. The correction is that of Nadeau and Bengio (2003) for
    cross-validation, in which the share of a run in the choice takes the place of test to training
    examples. Without it, 6 to 9 % of simulated studies with nine runs called equal sizes different.
    """
    if effect.runs < 2:
        return effect
    factor = math.sqrt(1 + effect.runs / (effect.runs - 1))
    return dataclasses.replace(effect, spread=factor * effect.spread)


@claim(
    "6b",
    "How long a model was pretrained does not affect how well it quantizes without finetuning.",
    "From the first to the last checkpoint past the early plateau, what quantization alone costs a "
    f"pretrained encoder in validation loss changes by less than {10 * LOSS_MARGIN:g} nats, for "
    "every size. The part about size is claim 2a.",
    needed="needs `analyze` with a recipe of quantization alone (study.analyses) of pretraining "
    "runs that kept two checkpoints past the early plateau (checkpoint.keep_every_steps)",
    kinds=(ENCODER,),
    low=-10 * LOSS_MARGIN,
    high=10 * LOSS_MARGIN,
)
def _age_matters_little(study: Study) -> Findings:
    plateaus = {(curve.size, curve.seed): plateau_loss(curve) for curve in study.curves}
    changes: dict[str, dict[Size, list[tuple[float, float]]]] = {}
    for one in study.analyses:
        rows = study.results[one["job"]].get("convergence") or ()
        limit = plateaus.get((one["size"], one["seed"])) or math.inf
        past = sorted(
            (row["step"], row["valid_loss_compressed"] - row["valid_loss_dense"])
            for row in rows
            if row["valid_loss_dense"] <= limit
        )
        if operations(one["recipe"]) == {"quantize"} and len(past) > 1:
            own = changes.setdefault(one["recipe"], {}).setdefault(one["size"], [])
            own.append((past[0][1], past[-1][1]))
    for recipe, sizes in changes.items():
        groups = [[last - first for first, last in own] for own in sizes.values()]
        for place, (size, own) in enumerate(sizes.items()):
            first, last = np.mean(own, axis=0)
            weights = [float(place == other) for other in range(len(groups))]
            line = f"{recipe} costs {size} {first:.3f} nats at first and {last:.3f} at last"
            yield contrast(groups, weights), line


@claim(
    "8",
    "Quantizing and pruning change the weights of deeper models less.",
    "The relative error of the weights (norm of the change over norm of the matrix, median over "
    "all matrices) falls with size, for every recipe that was analyzed.",
    needed="needs `analyze` of pretrained encoders of two sizes (study.analyses)",
    kinds=(ENCODER,),
    unit="% of the norm",
)
def _weights_change_less(study: Study) -> Findings:
    errors: dict[str, dict[Size, list[float]]] = {}
    for one in study.analyses:
        if one["relative_error"] is not None:
            sizes = errors.setdefault(one["recipe"], {})
            sizes.setdefault(one["size"], []).append(one["relative_error"])
    for recipe, sizes in errors.items():
        if several(sizes):
            # No instance is asked, so none bring luck of their own.
            kept = {
                size: Sample([-error for error in some], test_variance=0.0)
                for size, some in sizes.items()
            }
            listing = ", ".join(
                f"{size} {summarize(some).written('.1f', 100)}" for size, some in sizes.items()
            )
            yield rise(kept), f"{recipe}: relative error in % {listing}"
