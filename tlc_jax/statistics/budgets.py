"""Large and heavily compressed models against small and lightly compressed ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tlc_jax.statistics.effects import pretraining_means
from tlc_jax.statistics.records import Model

_BUDGETS = 64  # tried evenly on a log scale


def leads(models: Sequence[Model], cost: str) -> dict[int, dict[float, float]]:
    """The lead of the large, compressed model under each budget, judged on unseen runs.

    A size is large under a budget that its dense model exceeds. Budgets go from the smallest
    compressed to the largest dense model. Choosing the best model by the runs that it is then
    judged on would favor the side with more models, so for each pretraining seed the models are
    chosen by their means over the other seeds. A single seed has no others and chooses itself.

    Args:
      models: pretrained models of one task.
      cost: attribute of `Model` that the budgets are about.

    Returns:
      By pretraining seed and budget, the score of the best large model minus that of the best other
      one; without the budgets that one side has no model for.
    """
    dense = {model.size: getattr(model, cost) for model in models if model.recipe == "dense"}
    models = [model for model in models if model.size in dense]
    compressed = [getattr(model, cost) for model in models if model.recipe != "dense"]
    if len(dense) < 2 or not compressed:
        return {}
    costs = np.array([getattr(model, cost) for model in models])
    whole = np.array([dense[model.size] for model in models])
    means = [pretraining_means(model.scores) for model in models]
    seeds = sorted({seed for some in means for seed in some})
    # [model, seed]; NaN where a model lacks a seed.
    scores = np.array([[some.get(seed, np.nan) for seed in seeds] for some in means])
    # The mean over the other seeds. A model that lacks one is no candidate, because means over
    # different seeds would compare the seeds.
    chances = scores
    if len(seeds) > 1:
        chances = (scores.sum(axis=1, keepdims=True) - scores) / (len(seeds) - 1)
    chances = np.where(np.isnan(chances), -np.inf, chances)
    found: dict[int, dict[float, float]] = {seed: {} for seed in seeds}
    for budget in np.geomspace(min(compressed), max(dense.values()), _BUDGETS):
        fits, large = costs <= budget, whole > budget
        ours, rival = (
            np.where((fits & side)[:, None], chances, -np.inf) for side in (large, ~large)
        )
        both = np.isfinite(ours.max(axis=0)) & np.isfinite(rival.max(axis=0))
        for place in np.flatnonzero(both):
            lead = scores[ours[:, place].argmax(), place] - scores[rival[:, place].argmax(), place]
            found[seeds[place]][float(budget)] = float(lead)
    return {seed: some for seed, some in found.items() if some}
