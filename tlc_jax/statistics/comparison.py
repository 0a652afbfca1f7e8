"""Families of runs compared instance by instance: the tables of `tlc compare`.

A family is one model with its seeds: bool [N, P, F], and class probabilities where ensembles are
wanted. The tables are data frames with one row per pair, family or bucket.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from tlc_jax.statistics.instances import (
    decaying_bound,
    fisher_bound,
    instance_accuracy,
    instance_difference,
    momentum,
    threshold_bias,
)
from tlc_jax.statistics.variance import Decomposition, decompose, self_check


@dataclasses.dataclass(frozen=True)
class Runs:
    """One family as the estimators take it.

    Attributes:
      name: of the model.
      correct: bool [N, P, F]: whether each run is right.
      ensembles: bool [N, P]: whether the ensemble over the finetunings of each pretrained model is
        right. These are independent, single finetunings are not.
      trained: the model that was trained. Families of one model, such as dense and compressed ones,
        share its seeds, in the same order.
    """

    name: str
    correct: np.ndarray
    ensembles: np.ndarray
    trained: str = ""

    def shares_seeds(self, other: Runs) -> bool:
        """Whether both families are versions of the same runs."""
        return bool(self.trained) and self.trained == other.trained

    @functools.cached_property
    def decomposition(self) -> Decomposition:
        """Bias and variances, which the table and the figure of variances share."""
        return decompose(self.correct)


Pair = tuple[Runs, Runs]


def compare_pairs(
    pairs: Sequence[Pair], rng: np.random.Generator, draws: int = 200
) -> pd.DataFrame:
    """One row per pair of families, the second compared with the first.

    Columns with `_of_runs` use all finetunings, whose seeds are not independent: these bounds are
    higher and hold no guarantee. `threshold_bias` is relative. The standard errors are those of
    instances, for the runs at hand. Fisher's test is of independent runs and left out where two
    families share their seeds.

    Args:
      pairs: families on the same instances with the same numbers of seeds.
      rng: random generator of the bootstrap.
      draws: bootstrap samples of `threshold_bias`.
    """
    rows = []
    for small, large in pairs:
        paired = small.shares_seeds(large)
        ensembles = small.ensembles, large.ensembles
        decaying = decaying_bound(*ensembles, paired)
        improving = decaying_bound(*ensembles[::-1], paired)
        difference_N = instance_difference(small.correct, large.correct)
        rows.append(
            {
                "small": small.name,
                "large": large.name,
                "accuracy_small": float(instance_accuracy(small.correct).mean()),
                "accuracy_large": float(instance_accuracy(large.correct).mean()),
                "difference": float(difference_N.mean()),
                "difference_error": float(difference_N.std(ddof=1) / np.sqrt(len(difference_N))),
                "decaying": decaying.fraction,
                "decaying_error": decaying.standard_error,
                "decaying_threshold": decaying.threshold,
                "threshold_bias": threshold_bias(*ensembles, rng, draws, paired),
                "improving": improving.fraction,
                "improving_error": improving.standard_error,
                "decaying_of_runs": decaying_bound(small.correct, large.correct, paired).fraction,
                "improving_of_runs": decaying_bound(large.correct, small.correct, paired).fraction,
                "fisher": np.nan if paired else fisher_bound(*ensembles),
                "fisher_first_crossing": np.nan if paired else fisher_bound(*ensembles, True),
            }
        )
    return pd.DataFrame(rows)


def bounds_by_seeds(pairs: Sequence[Pair]) -> pd.DataFrame:
    """The bounds of every pair from its first 2, 3, ... pretraining seeds (Table 11)."""
    rows = []
    for small, large in pairs:
        paired = small.shares_seeds(large)
        for seeds in range(2, small.ensembles.shape[1] + 1):
            pair = small.ensembles[:, :seeds], large.ensembles[:, :seeds]
            rows.append(
                {
                    "small": small.name,
                    "large": large.name,
                    "seeds": seeds,
                    "decaying": decaying_bound(*pair, paired).fraction,
                    "fisher": np.nan if paired else fisher_bound(*pair),
                }
            )
    return pd.DataFrame(rows)


def compare_variances(families: Sequence[Runs]) -> pd.DataFrame:
    """Loss, bias squared and variances of each family, and the errors of three exact identities.

    Standard errors are those of instances. `check_` columns are differences of two ways to compute
    the same number; anything above 1e-12 is a defect.
    """
    rows = []
    for family in families:
        found = family.decomposition
        errors = found.variances.std(1, ddof=1) / np.sqrt(len(found.loss))
        means = found.means()
        ratio = means["finetuning_variance"] / means["pretraining_variance"]
        rows.append(
            {
                "model": family.name,
                **means,
                "pretraining_variance_error": float(errors[0]),
                "finetuning_variance_error": float(errors[1]),
                "finetuning_over_pretraining": float(ratio) if ratio > 0 else float("nan"),
                **{f"check_{k}": v for k, v in self_check(family.correct, found).items()},
            }
        )
    return pd.DataFrame(rows)


def compare_momentum(families: Sequence[Runs]) -> pd.DataFrame:
    """Momentum by bucket of middle accuracy for every three families in ascending order."""
    rows = [
        {"small": a.name, "middle": b.name, "large": c.name, **dataclasses.asdict(bucket)}
        for a, b, c in combinations(families, 3)
        for bucket in momentum(a.correct, b.correct, c.correct)
    ]
    return pd.DataFrame(rows)


def decaying_instances(small: Runs, large: Runs, count: int) -> pd.DataFrame:
    """The instances on which the larger family loses most accuracy, at most `count` of them.

    Returns:
      Columns `instance` (its position), `accuracy_small`, `accuracy_large` and `difference`, with
      the largest loss first. Chance alone puts instances here; the bound says how many to expect
      beyond chance.
    """
    accuracies = instance_accuracy(small.correct), instance_accuracy(large.correct)
    difference_N = accuracies[1] - accuracies[0]
    order = np.argsort(difference_N, kind="stable")[:count]
    order = order[difference_N[order] < 0]
    return pd.DataFrame(
        {
            "instance": order,
            "accuracy_small": accuracies[0][order],
            "accuracy_large": accuracies[1][order],
            "difference": difference_N[order],
        }
    )
