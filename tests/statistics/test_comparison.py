"""Tables of families compared instance by instance, on simulated families with known truth."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tlc_jax.statistics.comparison import (
    Runs,
    bounds_by_seeds,
    compare_momentum,
    compare_pairs,
    compare_variances,
    decaying_instances,
)


def family(name, rng, accuracy_N, seeds=4, finetunings=3):
    correct = rng.random((len(accuracy_N), seeds, finetunings)) < accuracy_N[:, None, None]
    return Runs(name, correct, correct.sum(2) * 2 > finetunings)


@pytest.fixture(scope="module")
def families():
    """Three families of rising accuracy; on every tenth instance the accuracy falls instead."""
    rng = np.random.default_rng(0)
    accuracy_N = rng.beta(3, 2, 5000)
    falls = np.arange(5000) % 10 == 0
    better_N = np.where(falls, accuracy_N * 0.5, accuracy_N**0.7)
    best_N = np.where(falls, accuracy_N * 0.1, accuracy_N**0.4)
    return [
        family(*named)
        for named in (("a", rng, accuracy_N), ("b", rng, better_N), ("c", rng, best_N))
    ]


def test_pairs_have_bounds_below_the_truth(families):
    table = compare_pairs(list(combinations(families, 2)), np.random.default_rng(0), draws=20)
    assert list(zip(table["small"], table["large"], strict=True)) == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]
    assert (table["difference"] > 0).all()
    assert (table["decaying"] < 0.1).all() and (table["decaying"][:2] > 0.005).all()
    assert (table["improving"] < 0.9).all() and (table["improving"] > table["decaying"]).all()
    assert (table["fisher"] <= table["decaying"]).all()


def test_bounds_grow_with_the_number_of_seeds(families):
    table = bounds_by_seeds(list(combinations(families, 2))).query("small == 'a' and large == 'c'")
    assert table["seeds"].tolist() == [2, 3, 4]
    assert table["decaying"].iloc[-1] > table["decaying"].iloc[0] > 0


def test_variances_are_checked_by_identities(families):
    table = compare_variances(families)
    assert table["model"].tolist() == ["a", "b", "c"]
    checks = table[[name for name in table if name.startswith("check_")]]
    assert checks.abs().to_numpy().max() < 1e-12
    # Runs are independent given the instance, so nothing varies with the pretrained model.
    assert (table["pretraining_variance"].abs() < 5 * table["pretraining_variance_error"]).all()


def test_momentum_has_a_row_per_bucket(families):
    table = compare_momentum(families)
    assert len(table) == 10
    assert table["pearson"].dropna().between(-1, 1).all()


def test_decaying_instances_come_worst_first_and_do_not_include_improved_ones(families):
    table = decaying_instances(families[0], families[2], 200)
    assert table["difference"].is_monotonic_increasing and table["difference"].max() < 0
    assert (table["instance"] % 10 == 0).mean() > 0.8
    all_of_them = decaying_instances(families[0], families[2], 10**6)
    assert len(all_of_them) < 5000 and all_of_them["difference"].max() < 0
