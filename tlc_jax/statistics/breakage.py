"""Which right answers does compression break, beyond what another seed would?

A compressed model shares its pretraining seed p and its finetuning seed f with the dense model that
it was made from. D_ipf and K_ipf say whether the dense and the compressed one are right on instance
i; d_ip and k_ip are their accuracies over all finetunings of pretraining run p that there could be.

The rate at which compression turns right answers wrong, E[D_ipf (1 - K_ipf)], must not be compared
with the rate of another finetuning seed, E[D_ipf (1 - D_ipg)], g != f: the first pair of models
shares its luck and the second does not. Harm on some instances would hide behind the luck shared on
others. Here both rates change the finetuning seed, and only one of them compresses as well:

    E[D_ipf (1 - K_ipg)] - E[D_ipf (1 - D_ipg)] = E[d_ip (d_ip - k_ip)],    g != f.

It is zero wherever compression leaves the accuracies d_ip as they are, whether it changes no answer
or draws every one again like another seed would. It is positive where compression breaks instances
that most seeds get right. With right and wrong exchanged the same difference counts answers that
compression mends, (1 - d)(k - d); the two differ by the accuracy that is lost, d - k.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tlc_jax.core.errors import InputError
from tlc_jax.statistics.comparison import Pair, Runs
from tlc_jax.statistics.effects import Effect, contrast
from tlc_jax.statistics.instances import decaying_bound, instance_accuracy, threshold_bias
from tlc_jax.statistics.variance import disagreements


def broken_beyond_seeds(dense: np.ndarray, compressed: np.ndarray) -> np.ndarray:
    """Right answers that another compressed seed breaks, minus those that another seed breaks.

    The mean over all ordered pairs of different finetunings f, g of D_f (D_g - K_g), which is an
    unbiased estimate of d (d - k) on each instance for each pretraining run. It assumes that the
    finetunings of one pretrained model are independent of each other; the dense and the compressed
    model of one finetuning may depend on each other in any way.

    Args:
      dense, compressed: bool [N, P, F], whether each run is right; equal seeds at equal places.
        Negated, they give the answers that are mended beyond seeds.

    Returns:
      float64 [N, P].

    Raises:
      InputError: the shapes differ, or there is one finetuning seed.
    """
    dense, compressed = np.asarray(dense, bool), np.asarray(compressed, bool)
    if dense.shape != compressed.shape or dense.ndim != 3:
        raise InputError(
            f"a compressed model is compared with the seeds of its dense one, not {dense.shape} "
            f"with {compressed.shape}"
        )
    finetunings = dense.shape[2]
    if finetunings < 2:
        raise InputError("what another seed breaks needs at least two finetuning seeds")
    right_NxP = dense.sum(2, dtype=np.int64)
    all_pairs_NxP = right_NxP * (right_NxP - compressed.sum(2, dtype=np.int64))
    same_seed_NxP = (dense & ~compressed).sum(2)
    return (all_pairs_NxP - same_seed_NxP) / (finetunings * (finetunings - 1))


def over_pretraining_runs(values_NxP: np.ndarray) -> Effect:
    """The mean over instances and pretraining runs, with its error.

    Pretraining runs are the unit of replication: finetunings of one of them are not independent.
    The error of the test set, which more runs would not reduce, comes on top. What single runs add
    to the spread over instances is counted in both, so the interval is a little too wide.

    Args:
      values_NxP: float [N, P] of N instances and P independent pretraining runs.
    """
    means_N = values_NxP.mean(1)
    of_instances = float(means_N.std(ddof=1) / np.sqrt(len(means_N)))
    return contrast([values_NxP.mean(0).tolist()], [1.0], of_instances)


def compare_compressed(
    pairs: Sequence[Pair], rng: np.random.Generator, draws: int = 200
) -> pd.DataFrame:
    """One row per dense model and compressed version of it.

    `broken` and `mended` are the shares of all answers that compression turns from right to wrong
    and back in the same runs; `broken_by_finetuning_seed` and `broken_by_pretraining_seed` are the
    shares that another dense run turns from right to wrong (and as many back). `broken_beyond` and
    `mended_beyond` are what compression adds to another finetuning seed, and `difference` is the
    change of accuracy; `_low` and `_high` are the ends of their 95 % intervals over pretraining
    runs and instances. `decaying` and `improving` are bounds on the fraction of instances by
    Theorem 1, from paired ensembles.

    Args:
      pairs: a dense model and a compressed version of it, with the same seeds at the same places.
      rng: random generator of the bootstrap.
      draws: bootstrap samples of `threshold_bias`.
    """
    rows = []
    for dense, compressed in pairs:
        before, after = dense.correct, compressed.correct
        by_seed = disagreements(before)  # as many turn right as turn wrong
        ensembles = dense.ensembles, compressed.ensembles
        decaying = decaying_bound(*ensembles, paired=True)
        effects = {
            "difference": accuracy_gained(before, after),
            "broken_beyond": broken_beyond_seeds(before, after),
            "mended_beyond": broken_beyond_seeds(~before, ~after),
        }
        row = {
            "dense": dense.name,
            "compressed": compressed.name,
            "accuracy_dense": float(instance_accuracy(before).mean()),
            "accuracy_compressed": float(instance_accuracy(after).mean()),
            "broken": float((before & ~after).mean()),
            "mended": float((after & ~before).mean()),
            "broken_by_finetuning_seed": by_seed["within"] / 2,
            "broken_by_pretraining_seed": by_seed["across"] / 2,
        }
        for name, values_NxP in effects.items():
            effect = over_pretraining_runs(values_NxP)
            low, high = effect.interval()
            row |= {name: effect.estimate, f"{name}_low": low, f"{name}_high": high}
        row |= {
            "decaying": decaying.fraction,
            "decaying_error": decaying.standard_error,
            "decaying_threshold": decaying.threshold,
            "threshold_bias": threshold_bias(*ensembles, rng, draws, paired=True),
            "improving": decaying_bound(*ensembles[::-1], paired=True).fraction,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def accuracy_gained(dense: np.ndarray, compressed: np.ndarray) -> np.ndarray:
    """Accuracy gained by each pretraining run on each instance: float64 [N, P]."""
    return compressed.mean(2, dtype=np.float64) - dense.mean(2, dtype=np.float64)


def broken_instances(dense: Runs, compressed: Runs, count: int) -> pd.DataFrame:
    """The instances that compression breaks most beyond seeds, at most `count` of them.

    Returns:
      Columns `instance` (its position), `accuracy_dense`, `accuracy_compressed`, `broken` (share of
      runs in which compression turns it wrong), `broken_by_seed` (share of pairs of dense
      finetunings in which the second is wrong and the first right) and `broken_beyond`, with the
      largest of these first. The largest of many estimates are too large: the bound says how many
      instances to expect beyond chance.
    """
    before, after = dense.correct, compressed.correct
    beyond_N = broken_beyond_seeds(before, after).mean(1)
    order = np.argsort(-beyond_N, kind="stable")[:count]
    order = order[beyond_N[order] > 0]
    return pd.DataFrame(
        {
            "instance": order,
            "accuracy_dense": instance_accuracy(before[order]),
            "accuracy_compressed": instance_accuracy(after[order]),
            "broken": instance_accuracy(before[order] & ~after[order]),
            # D_f (1 - D_g) of two finetunings has the mean d (1 - d), which is their variance.
            "broken_by_seed": dense.decomposition.variances[1][order],
            "broken_beyond": beyond_N[order],
        }
    )
