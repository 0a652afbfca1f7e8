"""Large and heavily compressed models against small and lightly compressed ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tlc_jax.data.order import in_second_half
from tlc_jax.statistics.effects import ByInstance, Sample, paired, pretraining_means
from tlc_jax.statistics.records import Model

_BUDGETS = 64  # tried evenly on a log scale


@dataclasses.dataclass(frozen=True, eq=False)
class Leads:
    """Leads of the best large model over the best other one.

    Attributes:
      low, high: smallest and largest budget under which both sides have a model.
      sample: mean leads over the budgets, by pretraining seed.
      ahead: share of budgets (and of seeds) under which the large model is ahead.
      halves: whether models were chosen on one half of the instances and judged on the other.
    """

    low: float
    high: float
    sample: Sample
    ahead: float
    halves: bool


def leads(models: Sequence[Model], cost: str) -> Leads | None:
    """The mean lead of large, compressed models over all budgets, judged on what was not seen.

    A size is large under a budget that its dense model exceeds. The smallest size never is: under
    budgets below every dense model it is the one that needs the least compression. Budgets go from
    the smallest compressed to the largest dense model.

    Choosing the best model by the runs and instances that it is then judged on would favor the side
    with more models. So for each pretraining seed models are chosen by their means over the other
    seeds on one half of the instances and judged on the other half, and the reverse. A single seed
    has no others and chooses itself. Where answers are not known by instance, the whole test set
    serves for both.

    Args:
      models: pretrained models of one task.
      cost: attribute of `Model` that the budgets are about.

    Returns:
      The leads; None where no budget has a model on both sides.
    """
    dense = {model.size: getattr(model, cost) for model in models if model.recipe == "dense"}
    models = [model for model in models if model.size in dense]
    compressed = [getattr(model, cost) for model in models if model.recipe != "dense"]
    if len(dense) < 2 or not compressed:
        return None
    costs = np.array([getattr(model, cost) for model in models])
    whole = np.array([dense[model.size] for model in models])
    # [model, seed, instance]; without answers a score is like that of a single instance.
    seeds, ids, values = _values(models)
    second = np.zeros(1, bool) if ids is None else in_second_half(ids)
    halves = bool(second.any() and not second.all())
    folds = [(~second, second), (second, ~second)] if halves else [(~second | second,) * 2]
    budgets_Bx1 = np.geomspace(min(compressed), max(dense.values()), _BUDGETS)[:, None]
    fits_BxM, large_BxM = costs <= budgets_Bx1, whole > np.maximum(budgets_Bx1, whole.min())
    # How often each model was chosen, less how often as the rival: [fold, model, seed].
    chosen = np.zeros((len(folds), *values.shape[:2]))
    tried, won = np.zeros((len(folds), len(seeds))), []
    for fold, (choosing, judging) in enumerate(folds):
        chances_MxS = _means_of_others(values[..., choosing].mean(-1))
        scores_MxS = values[..., judging].mean(-1)
        ours_BxMxS, rival_BxMxS = (
            np.where((fits_BxM & side)[..., None], chances_MxS, -np.inf)
            for side in (large_BxM, ~large_BxM)
        )
        both_BxS = np.isfinite(ours_BxMxS.max(1)) & np.isfinite(rival_BxMxS.max(1))
        place, seed = np.nonzero(both_BxS)
        first, other = (side.argmax(1)[place, seed] for side in (ours_BxMxS, rival_BxMxS))
        won += (scores_MxS[first, seed] > scores_MxS[other, seed]).tolist()
        tried[fold] = both_BxS.sum(0)
        np.add.at(chosen[fold], (first, seed), 1)
        np.add.at(chosen[fold], (other, seed), -1)
    used = tried[0] > 0
    if not used.any():
        return None
    compared_Bx1 = budgets_Bx1[both_BxS.any(1)]
    weights = chosen[:, :, used] / tried[:, None, used]
    leads_RxN = np.empty((int(used.sum()), values.shape[-1]))
    for (_, judging), weight in zip(folds, weights, strict=True):
        scores = np.where(weight[..., None] == 0, 0.0, values[:, used][..., judging])  # may be NaN
        leads_RxN[:, judging] = np.einsum("ms,msn->sn", weight, scores)
    by_instance = None if ids is None else ByInstance(ids, leads_RxN)
    picked = zip(weights[0].mean(1), models, strict=True)
    variance = sum(weight**2 * model.test_variance for weight, model in picked if weight)
    sample = Sample(leads_RxN.mean(1).tolist(), by_instance, variance)
    low, high = float(compared_Bx1.min()), float(compared_Bx1.max())
    return Leads(low, high, sample, float(np.mean(won)), halves)


def _values(models: Sequence[Model]) -> tuple[list[int], np.ndarray | None, np.ndarray]:
    """Pretraining seeds; ids of the instances, if known; and scores by model, seed and instance.

    The scores are NaN where a model lacks a seed. Without ids the last axis has a length of 1.
    """
    means = [pretraining_means(model.scores) for model in models]
    seeds = sorted({seed for some in means for seed in some})
    known = paired([model.sample for model in models])
    if known and all(len(some) == len(seeds) for some in means):
        rows = [[list(some).index(seed) for seed in seeds] for some in means]
        values = [one.values_RxN[order] for one, order in zip(known, rows, strict=True)]
        return seeds, known[0].ids, np.stack(values)
    scores = np.array([[some.get(seed, np.nan) for seed in seeds] for some in means])
    return seeds, None, scores[..., None]


def _means_of_others(scores: np.ndarray) -> np.ndarray:
    """Means over the other seeds, [model, seed]; -inf where a seed is missing.

    A model that lacks a seed is left out, because means over different seeds would compare the
    seeds.
    """
    seeds = scores.shape[1]
    if seeds > 1:
        scores = (scores.sum(axis=1, keepdims=True) - scores) / (seeds - 1)
    return np.where(np.isnan(scores), -np.inf, scores)
