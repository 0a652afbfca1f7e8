"""Is the larger model better on every instance? Estimators of Zhong et al. (2021), sections 3 to 6.

The currency is an array of correctness, bool [N, P, F]: N instances, P pretraining seeds and F
finetuning seeds of one size. Arrays go in and numbers come out; nothing here reads files.
`small` and `large` are the two models compared; any two families of runs may take their places,
for example a dense and a compressed model, or two checkpoints.
"""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
from scipy import stats

from tlc_jax.core.errors import InputError

_CHUNK = 10_000  # instances at once, where all bootstrap samples of each are computed together


def instance_accuracy(correct: np.ndarray) -> np.ndarray:
    """The share of runs that are right on each instance: float64 [N], from [N, ...]."""
    return np.asarray(correct).reshape(len(correct), -1).mean(1, dtype=np.float64)


def instance_difference(small: np.ndarray, large: np.ndarray) -> np.ndarray:
    """Accuracy of the larger model minus accuracy of the smaller one, by instance: float64 [N].

    The appendix of the paper prints the opposite sign once (equation 17); its equations 29 and 30
    and its results use this one.
    """
    return instance_accuracy(large) - instance_accuracy(small)


def ensemble(probabilities: np.ndarray) -> np.ndarray:
    """The class with the largest mean probability over finetuning seeds.

    Finetunings of one pretrained model are not independent. Their ensembles over different
    pretrained models are, which is what `decaying_bound` assumes.

    Args:
      probabilities: float [N, P, F, C].

    Returns:
      int [N, P].
    """
    return np.asarray(probabilities).mean(2, dtype=np.float64).argmax(-1)


@dataclasses.dataclass(frozen=True)
class Bound:
    """A lower bound on the fraction of instances on which the larger model is worse.

    Attributes:
      fraction: the bound, discovered minus baseline, at the best threshold; at least 0.
      threshold: instances with a difference of at most this are discovered.
      discovered: fraction of instances discovered at the threshold.
      baseline: fraction discovered where there is nothing to discover.
      standard_error: standard error of `fraction` over instances, for the runs at hand.
      independent: whether the runs compared are independent, as the theorem assumes. False where
        finetunings share pretrained models; the bound is then no guarantee.
    """

    fraction: float
    threshold: float
    discovered: float
    baseline: float
    standard_error: float
    independent: bool


def decaying_bound(small: np.ndarray, large: np.ndarray, paired: bool = False) -> Bound:
    """A lower bound on the fraction of instances whose true accuracy falls with size (Theorem 1).

    The fraction of instances with an estimated difference of at most t is compared with the same
    fraction for a random baseline: half of the runs of both sizes minus the other half, which
    differ by chance alone. For every t the expected excess is at most the true decaying fraction,
    if all runs are independent (equations 16 to 20). The largest excess over t is reported, which
    is biased upward a little: see `threshold_bias`. Exchanging the arguments gives the bound on
    the improving fraction.

    A compressed model shares its seeds with the dense one, so the two are not independent. The
    baseline of equation 19 adds them up and fails: if compression changed nothing, no instance
    would decay, yet the sums of half of the seeds would differ and the differences would not, which
    reads as a discovery. With `paired` the baseline is the paired differences d_p = large_p -
    small_p of half of the seeds minus those of the other half. With one 0/1 answer per seed, an
    instance that does not decay has P[d_p = -1] <= P[d_p = 1], so d_p is stochastically at least
    -d_p, and their sum at least the baseline: the theorem holds for any dependence within pairs, if
    the pairs are independent. For independent runs and an even number of seeds both baselines have
    one distribution, so nothing is lost.

    Args:
      small, large: bool [N, P] or [N, P, F] with the same number of runs, at least two pretraining
        seeds. Finetuning seeds are averaged within their pretrained model.
      paired: whether the runs of both share their seeds, in the same order.

    Raises:
      InputError: the shapes do not fit, or there is one pretraining seed.
    """
    small_NxP, runs_per_seed = _counts(small)
    large_NxP, other = _counts(large)
    if small_NxP.shape != large_NxP.shape or runs_per_seed != other:
        raise InputError(
            f"two sizes are compared with the same instances and seeds, not {np.shape(small)} "
            f"and {np.shape(large)}"
        )
    if small_NxP.shape[1] < 2:
        raise InputError("a bound needs at least two pretraining seeds of each size")
    runs = small_NxP.shape[1] * runs_per_seed
    difference_N, baseline_N = _difference_and_baseline(small_NxP, large_NxP, paired)
    excess, discovered, baseline = _excess(difference_N, baseline_N, runs)
    best = int(np.argmax(excess))
    threshold = best - runs
    indicator_N = (difference_N <= threshold).astype(np.int8) - (baseline_N <= threshold)
    return Bound(
        fraction=float(excess[best]),
        threshold=threshold / runs,
        discovered=float(discovered[best]),
        baseline=float(baseline[best]),
        standard_error=float(indicator_N.std(ddof=1) / np.sqrt(len(indicator_N))),
        independent=runs_per_seed == 1,
    )


def threshold_curve(
    small: np.ndarray, large: np.ndarray, paired: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds, and the fractions discovered at each and by the random baseline: float64 [T].

    Args:
      small, large, paired: as for `decaying_bound`, whose fraction is the largest gap of the two
        curves.
    """
    (small_NxP, finetunings), (large_NxP, _) = _counts(small), _counts(large)
    runs = small_NxP.shape[1] * finetunings
    pair = _difference_and_baseline(small_NxP, large_NxP, paired)
    _, discovered, baseline = _excess(*pair, runs)
    return np.arange(-runs, runs + 1) / runs, discovered, baseline


def _counts(correct: np.ndarray) -> tuple[np.ndarray, int]:
    """Right finetunings of each pretrained model, int32 [N, P], and the number F of them."""
    correct = np.asarray(correct)
    if correct.ndim not in (2, 3):
        raise InputError(f"correctness is [instance, pretraining, finetuning], not {correct.shape}")
    correct = correct.reshape(*correct.shape[:2], -1)
    return correct.sum(2, dtype=np.int32), correct.shape[2]


def _difference_and_baseline(
    small_NxP: np.ndarray, large_NxP: np.ndarray, paired: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Differences in right runs, int [N], and those of the random baseline (equation 19).

    With an odd number of seeds the first group of the baseline has one seed of the larger model
    more. Each run of the smaller model in place of one of the larger only lowers the baseline of
    an instance that does not decay, so the bound stays valid.
    """
    seeds = small_NxP.shape[1]
    half = seeds // 2
    if paired:
        differences_NxP = large_NxP - small_NxP
        first_N, second_N = differences_NxP[:, :half].sum(1), differences_NxP[:, half:].sum(1)
        return first_N + second_N, first_N - second_N
    first_N = small_NxP[:, :half].sum(1) + large_NxP[:, : seeds - half].sum(1)
    second_N = small_NxP[:, half:].sum(1) + large_NxP[:, seeds - half :].sum(1)
    return large_NxP.sum(1) - small_NxP.sum(1), first_N - second_N


def _excess(
    difference_N: np.ndarray, baseline_N: np.ndarray, runs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Discovered minus baseline, discovered, and baseline fractions, by threshold.

    Differences are whole numbers of runs, so the thresholds -runs ... runs are all there are, and
    no rounding decides on which side an instance falls.
    """
    size = 2 * runs + 1
    instances = len(difference_N)
    discovered = np.bincount(difference_N + runs, minlength=size).cumsum()
    baseline = np.bincount(baseline_N + runs, minlength=size).cumsum()
    # Subtracted as whole numbers, so that thresholds with equal excess stay equal.
    return (discovered - baseline) / instances, discovered / instances, baseline / instances


def threshold_bias(
    small: np.ndarray,
    large: np.ndarray,
    rng: np.random.Generator,
    draws: int = 200,
    paired: bool = False,
) -> float:
    """The relative bias of `decaying_bound` from choosing the threshold on the same runs.

    The pretrained models at hand stand for the population. The threshold that is best on one
    bootstrap sample of them is evaluated on a second one: E[L* - L] / E[L] with L* the bound that
    chooses its threshold on the second sample itself (appendix D.2, Table 10).

    Args:
      small, large, paired: as for `decaying_bound`. Paired runs are drawn together.
      rng: the random generator.
      draws: number of pairs of bootstrap samples.

    Returns:
      The relative bias; NaN where the mean bound is not positive.
    """
    (small_NxP, finetunings), (large_NxP, _) = _counts(small), _counts(large)
    seeds = small_NxP.shape[1]
    # Differences and baselines are linear in the counts of runs, so those of all samples are one
    # matrix product. Their weights are those of unit counts.
    units_small, units_large = np.split(np.eye(2 * seeds, dtype=np.int32), 2, axis=1)
    rows: list[np.ndarray] = []
    for _ in range(2 * draws):
        ours, theirs = rng.integers(seeds, size=(2, seeds))
        theirs = ours if paired else theirs
        rows += _difference_and_baseline(units_small[:, ours], units_large[:, theirs], paired)
    weights = np.array(rows, np.float32)  # [4 * draws, 2 * P]; sums are exact
    runs = seeds * finetunings
    size = 2 * runs + 1
    shift = (runs + size * np.arange(len(weights)))[:, None]
    histogram = np.zeros(size * len(weights), np.int64)
    for start in range(0, len(small_NxP), _CHUNK):
        part = slice(start, start + _CHUNK)
        counts = np.concatenate([small_NxP[part], large_NxP[part]], axis=1, dtype=np.float32)
        index = (weights @ counts.T).astype(np.int64) + shift
        histogram += np.bincount(index.reshape(-1), minlength=len(histogram))
    discovered, baseline = histogram.reshape(2 * draws, 2, size).cumsum(2).transpose(1, 0, 2)
    first, second = (
        ((discovered - baseline) / len(small_NxP)).reshape(draws, 2, size).swapaxes(0, 1)
    )
    chosen = second.max(1)
    fresh = np.take_along_axis(second, first.argmax(1)[:, None], axis=1)[:, 0]
    mean = float(fresh.mean())
    return float((chosen - fresh).mean() / mean) if mean > 0 else float("nan")


def fisher_bound(small: np.ndarray, large: np.ndarray, first_crossing: bool = False) -> float:
    """A bound on the decaying fraction from one test per instance, which Theorem 1 improves on.

    Fisher's exact test, one-sided towards the smaller model being better, gives a p-value per
    instance. At false discovery rate q the Benjamini-Hochberg procedure rejects the largest share
    r of instances whose largest p-value is at most r * q; at least r * (1 - q) of all instances
    then decay, in expectation. The best q of 0.01 ... 0.99 is reported.

    Args:
      small, large: bool [N, P]: independent runs, such as ensembles over finetuning seeds.
      first_crossing: count up to the first rank that fails instead of the last that passes, and
        include it, as the paper's code does. This is not the Benjamini-Hochberg procedure.
    """
    small_N, large_N = (np.asarray(x).sum(1, dtype=np.int64) for x in (small, large))
    runs_small, runs_large = np.shape(small)[1], np.shape(large)[1]
    total_N = small_N + large_N
    # P[the smaller model has at least this many of all right runs], hypergeometric given the total.
    # Few pairs of counts occur, however many instances there are.
    pairs, inverse = np.unique(np.stack([small_N, total_N]), axis=1, return_inverse=True)
    p_values = stats.hypergeom.sf(pairs[0] - 1, runs_small + runs_large, pairs[1], runs_small)
    p_N = np.sort(p_values[inverse.reshape(-1)])
    shares_N = np.arange(1, len(p_N) + 1) / len(p_N)
    bounds = [0.0]
    for q in np.arange(1, 100) / 100:
        if first_crossing:
            failing = np.flatnonzero(p_N >= shares_N * q)
            share = shares_N[failing[0]] if len(failing) else 1.0
        else:
            passing = np.flatnonzero(p_N <= shares_N * q)
            share = shares_N[passing[-1]] if len(passing) else 0.0
        bounds.append(float(share * (1 - q)))
    return max(bounds)


@dataclasses.dataclass(frozen=True)
class Momentum:
    """Correlation of two successive improvements within a bucket of middle accuracy.

    Attributes:
      low, high: the bucket, low <= accuracy of the middle size < high.
      count: number of instances in it.
      pearson, spearman: correlation of (middle - small) with (large - middle); NaN with fewer than
        three instances or without variance.
    """

    low: float
    high: float
    count: int
    pearson: float
    spearman: float


def momentum(
    small: np.ndarray, middle: np.ndarray, large: np.ndarray, width: float = 0.1
) -> list[Momentum]:
    """Whether instances that improved from small to middle also improve from middle to large.

    Accuracies are bounded, so an instance near 1 can hardly improve again and the correlation over
    all instances says nothing. The paper therefore looks within buckets of the middle size's
    accuracy, and so does this. Its last bucket leaves out instances with an accuracy of 1. The
    middle size's estimate enters both differences with opposite signs, which lowers the
    correlation.

    Args:
      small, middle, large: bool [N, ...], correctness of three sizes on the same instances.
      width: width of the buckets.
    """
    accuracies = [instance_accuracy(x) for x in (small, middle, large)]
    before_N, after_N = accuracies[1] - accuracies[0], accuracies[2] - accuracies[1]
    edges = np.linspace(0.0, 1.0, round(1 / width) + 1)
    # Accuracies are fractions of few runs: 0.3 computed as 3/10 must not fall below an edge of
    # 0.30000000000000004.
    bucket_N = np.floor(accuracies[1] / width + 1e-9).astype(int)
    found = []
    for index, (low, high) in enumerate(pairwise(edges)):
        here = (bucket_N == index) & (accuracies[1] < 1.0)
        first, second = before_N[here], after_N[here]
        pearson = spearman = float("nan")
        if len(first) > 2 and np.ptp(first) > 0 and np.ptp(second) > 0:
            pearson = float(stats.pearsonr(first, second).statistic)
            spearman = float(stats.spearmanr(first, second).statistic)
        found.append(Momentum(float(low), float(high), len(first), pearson, spearman))
    return found
