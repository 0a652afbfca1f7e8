"""Effects and verdicts: by hand, and calibrated on simulated studies with known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tlc_jax.statistics.effects import (
    ByInstance,
    Effect,
    Sample,
    by_pretraining,
    contrast,
    instance_error,
    trend,
    weigh,
)
from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR
from tlc_jax.statistics.verdicts import (
    CONTRADICTED,
    HOLDS,
    SUGGESTED,
    UNDECIDED,
    UNTESTED,
    described,
    rule,
    verdict,
)

SIZES = (1e6, 3e6, 10e6)
STUDIES = 1000


def study(rng, shape, means, between=1.0, within=1.0):
    """Scores of a study: by size, by (pretraining seed, finetuning seed)."""
    pretraining, finetuning = shape
    scores = {}
    for size, mean in zip(SIZES, means, strict=True):
        luck = rng.normal(0, between, pretraining)
        scores[size] = {
            (p, f): mean + luck[p] + rng.normal(0, within)
            for p in range(pretraining)
            for f in range(finetuning)
        }
    return scores


def difference(first, second, test_error=math.nan):
    return contrast([first, second], [-1.0, 1.0], test_error)


def trend_of(scores):
    return trend(list(scores), [Sample(by_pretraining(some)) for some in scores.values()])


def verdicts(shape, means, claim, studies=STUDIES, **spread):
    rng = np.random.default_rng(0)
    found = [claim(study(rng, shape, means, **spread)) for _ in range(studies)]
    return {name: found.count(name) / studies for name in set(found)}


def test_finetunings_are_averaged_within_their_pretraining():
    assert by_pretraining({(0, 0): 1.0, (0, 1): 3.0, (5, 0): 7.0}) == [2.0, 7.0]


def test_difference_is_students_test():
    first, second = [1.0, 2.0, 4.0], [3.0, 5.0, 5.5, 6.0]
    effect = difference(first, second)
    expected = stats.ttest_ind(second, first)
    low, high = expected.confidence_interval()
    assert effect.interval() == pytest.approx((low, high))
    assert (effect.freedom, effect.runs) == (5, 3)


def test_trend_of_two_sizes_is_their_difference():
    first, second = [1.0, 2.0], [3.0, 5.0]
    assert trend([10.0, 20.0], [Sample(first), Sample(second)]).interval() == pytest.approx(
        difference(first, second).interval()
    )


def test_trend_is_a_line_on_a_log_scale():
    samples = [Sample([mean, mean]) for mean in (1.0, 3.0, 2.0)]
    exact = trend([10.0, 1000.0, 100.0], samples)
    assert exact.estimate == pytest.approx(2.0)
    assert exact.interval() == pytest.approx((2.0, 2.0))


def test_error_of_the_test_set_does_not_vanish_with_runs():
    runs = [[0.0, 0.1] * 200, [1.0, 1.1] * 200]
    effect = difference(*runs, test_error=0.5)
    low, high = effect.interval()
    assert high - low == pytest.approx(2 * 1.96 * 0.5, rel=0.01)


def answers(rng, chances_RxN):
    return (rng.random(chances_RxN.shape) < chances_RxN).astype(float)


def sample(values_RxN, ids=None):
    ids = np.arange(values_RxN.shape[1]) if ids is None else ids
    return Sample(values_RxN.mean(1).tolist(), ByInstance(ids, values_RxN))


def test_error_of_two_models_on_the_same_instances_is_paired():
    small, large = np.array([[1.0, 0, 0, 1, 0, 0]]), np.array([[1.0, 1, 0, 1, 1, 0]])
    expected = stats.sem((large - small)[0])
    samples = sample(small), sample(large)
    assert instance_error(samples, [-1.0, 1.0]) == pytest.approx(expected)
    # Other instances cannot be paired, and without a variance nothing is known.
    apart = sample(small), sample(large, np.arange(1, 7))
    assert math.isnan(instance_error(apart, [-1.0, 1.0]))
    assert instance_error([*samples, Sample([1.0])], [-1.0, 1.0, 0.0]) == pytest.approx(expected)
    known = [Sample([0.5], test_variance=0.01), Sample([0.6], test_variance=0.02)]
    assert instance_error(known, [-1.0, 1.0]) == pytest.approx(math.sqrt(0.03))


def test_luck_of_runs_on_instances_is_not_in_the_error_of_the_test_set():
    """All instances are alike, so another test set would change nothing beyond the runs' luck."""
    rng = np.random.default_rng(0)
    chances = np.full((4, 4000), 0.6)
    found = [
        instance_error([sample(answers(rng, chances)) for _ in range(2)], [-1, 1]) ** 2
        for _ in range(20)
    ]
    naive = 2 * 0.6 * 0.4 / 4 / 4000
    assert np.mean(found) < 0.05 * naive


def test_effect_without_known_error_of_the_test_set_says_so():
    text = described(difference([0.0, 0.01], [0.5, 0.51]), "points", 100)
    assert text.endswith("+47 to +53 (without the luck of the instances), 2 runs per model")


def test_a_small_test_set_is_named_where_runs_cannot_help():
    effect = difference([0.0, 0.01], [0.1, 0.11], test_error=0.1)
    assert verdict([effect]) == UNDECIDED and effect.runs_needed() is None
    assert described(effect, "points").endswith("on so few instances")


def test_samples_of_one_test_set_share_its_luck():
    """Fewer than 5 % of test sets show a difference between models that are equal on average."""
    rng, found = np.random.default_rng(0), []
    for _ in range(300):
        # Each model has instances of its own that it finds easy.
        chances = [rng.choice([0.3, 0.9], 400) for _ in range(2)]
        samples = [sample(answers(rng, np.tile(one, (6, 1)))) for one in chances]
        found.append(verdict([weigh(samples, [-1.0, 1.0])]))
    assert found.count(HOLDS) / len(found) <= 0.05
    assert found.count(CONTRADICTED) / len(found) <= 0.05


def test_needed_runs_would_decide():
    effect = difference([0.0, 1.0, 2.0], [0.5, 1.5, 2.5])
    assert verdict([effect]) == UNDECIDED
    runs = effect.runs_needed()
    larger = contrast(
        [[0.0, 1.0, 2.0] * (runs // 3 + 1), [0.5, 1.5, 2.5] * (runs // 3 + 1)], [-1, 1]
    )
    assert verdict([larger]) == HOLDS
    assert difference([0.0], [1.0]).runs_needed() is None


def test_sizes_that_are_not_compared_sharpen_the_interval_alone():
    compared = [[0.0, 1.0], [2.0, 3.0]]
    wider = contrast([*compared, [9.0, 10.0], [5.0]], [-1.0, 1.0, 0.0, 0.0])
    narrow = difference(*compared)
    assert (wider.estimate, wider.runs) == (narrow.estimate, 2)
    assert wider.freedom == 3 > narrow.freedom == 2
    assert wider.interval()[0] > narrow.interval()[0]


def test_a_model_with_one_run_among_others_is_a_suggestion():
    effect = difference([0.0, 0.1], [1.0])
    assert verdict([effect]) == SUGGESTED and effect.runs_needed() is None
    assert described(effect, "nats").endswith("a model with one run")


def test_an_effect_is_written_in_its_unit_with_what_would_decide():
    assert described(difference([0.0], [0.012]), "points", 100) == (
        "effect +1.2 points, one run per model"
    )
    sure = described(difference([0.0, 0.01], [0.5, 0.51], test_error=0.0), "points", 100)
    assert sure == "effect +50 points, 95 % interval +47 to +53, 2 runs per model"
    open_ = difference([0.0, 1.0, 2.0], [0.5, 1.5, 2.5])
    assert described(open_, "nats").endswith(
        f"3 runs per model; about {open_.runs_needed()} would decide"
    )
    assert described(difference([0.0, 1.0], [0.0, 1.0]), "nats").endswith(
        "not even a thousand would decide"
    )


def test_the_rule_names_the_run_that_counts():
    assert "pretraining run: finetunings" in rule([ENCODER])
    assert "translation run: intervals" in rule([TRANSLATOR])
    assert "pretraining run or translation run" in rule([ENCODER, TRANSLATOR])


def certain(estimate):
    return Effect(estimate, 0.1, 100, 5, 2.0, 1.0)


def test_verdicts_by_hand():
    assert verdict([]) == UNTESTED
    assert verdict([certain(1.0), certain(0.5)]) == HOLDS
    assert verdict([certain(1.0), certain(0.1)]) == UNDECIDED
    assert verdict([certain(1.0), certain(-1.0)]) == CONTRADICTED
    assert verdict([difference([0.0], [1.0])]) == SUGGESTED
    assert verdict([difference([1.0], [0.0])]) == UNDECIDED
    # Not inferior by more than one; equivalent within one.
    assert verdict([certain(-0.5)], low=-1.0) == HOLDS
    assert verdict([certain(-1.5)], low=-1.0) == CONTRADICTED
    assert verdict([certain(0.5)], low=-1.0, high=1.0) == HOLDS
    assert verdict([certain(1.5)], low=-1.0, high=1.0) == CONTRADICTED
    assert verdict([certain(0.9)], low=-1.0, high=1.0) == UNDECIDED


@pytest.mark.parametrize("shape", [(3, 3), (9, 1), (2, 5)])
@pytest.mark.parametrize("between", [0.0, 1.0, 3.0])
def test_false_direction_is_rarely_said_to_hold(shape, between):
    found = verdicts(shape, (0, 0, 0), lambda s: verdict([trend_of(s)]), between=between)
    assert found.get(HOLDS, 0) <= 0.05
    assert found.get(CONTRADICTED, 0) <= 0.05


def test_one_pretraining_run_never_holds_and_never_contradicts():
    found = verdicts((1, 3), (0, 0, 0), lambda s: verdict([trend_of(s)]))
    assert set(found) <= {SUGGESTED, UNDECIDED}
    found = verdicts((1, 3), (0, 50, 100), lambda s: verdict([trend_of(s)]), studies=50)
    assert found == {SUGGESTED: 1.0}


def test_counting_finetunings_as_runs_would_fail_this_test():
    """The mistake that the unit of replication avoids: 15 runs that are really three."""

    def naive(scores):
        samples = [Sample(list(some.values())) for some in scores.values()]
        return verdict([trend(list(scores), samples)])

    found = verdicts((3, 5), (0, 0, 0), naive, between=1.0, within=0.3)
    assert found[HOLDS] > 0.1


@pytest.mark.parametrize("shape", [(3, 3), (9, 1)])
def test_false_equivalence_and_false_non_inferiority_are_rare(shape):
    # The truth lies on the edge of the claim, the hardest case.
    edge = verdicts(shape, (0, 0, -1.0), lambda s: verdict([last_minus_first(s)], low=-1.0))
    assert edge.get(HOLDS, 0) <= 0.05
    edge = verdicts(shape, (0, 0, 1.0), lambda s: verdict([last_minus_first(s)], -1.0, 1.0))
    assert edge.get(HOLDS, 0) <= 0.05


def last_minus_first(scores):
    return difference(by_pretraining(scores[SIZES[0]]), by_pretraining(scores[SIZES[-1]]))


def test_many_recipes_do_not_add_up_to_a_false_contradiction():
    rng = np.random.default_rng(0)
    contradicted = 0
    for _ in range(STUDIES):
        effects = [trend_of(study(rng, (4, 2), (0, 0, 0))) for _ in range(8)]
        contradicted += verdict(effects) == CONTRADICTED
    assert contradicted / STUDIES <= 0.05


def test_real_effects_are_found_with_five_runs_of_two():
    """Differences between sizes of the demo are five times the luck of a pretraining seed."""
    found = verdicts(
        (5, 2), (0, 1.0, 2.0), lambda s: verdict([trend_of(s)]), between=0.5, within=0.5
    )
    assert found[HOLDS] >= 0.5


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(STUDIES):
        low, high = trend_of(study(rng, (4, 2), (0.0, 0.0, 0.0))).interval()
        covered += low < 0.0 < high
    assert covered / STUDIES == pytest.approx(0.95, abs=0.025)
    assert math.isinf(difference([0.0], [1.0]).interval()[1])
