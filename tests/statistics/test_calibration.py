"""False claims rarely hold: whole claims on simulated studies in which all sizes are equal."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from tests.helpers import simulated_study as simulated
from tlc_jax.statistics.claims import evaluate
from tlc_jax.statistics.effects import Sample, trend
from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR
from tlc_jax.statistics.records import Model
from tlc_jax.statistics.regime import regime
from tlc_jax.statistics.verdicts import CONTRADICTED, HOLDS, SUGGESTED, UNTESTED, verdict

SHAPES = ((2, 64, 1e6), (6, 64, 2e6), (2, 128, 2.2e6), (4, 256, 10e6))
RECIPES = {"dense": (0.0, 32.0), "quantize:4": (0.0, 4.0), "prune:0.6": (0.6, 32.0)}
STUDIES, MANY = 60, 1000
INSTANCES = 300
# Sizes and recipes have an own taste in instances, so the test set moves differences between them
# by up to three points; runs move them by less.
LUCK = simulated.Luck(size=0.5, recipe=0.4, pretraining_instance=0.2, finetuning_instance=0.2)
BETWEEN, WITHIN = 0.01, 0.01  # of BLEU: luck of a translator and of its compression


def allowed(studies):
    """The largest share of rare errors; fewer studies have room for two standard errors."""
    return 0.05 if studies == MANY else 0.05 + 2 * math.sqrt(0.05 * 0.95 / studies)


def equal_encoders(rng, shape):
    """A study whose sizes and recipes differ by luck alone, that of the test set included."""
    sizes = simulated.sizes(SHAPES)
    models = simulated.models(
        rng, sizes, RECIPES, shape, lambda size, recipe: 0.7, INSTANCES, LUCK, lambda size: 0.7
    )
    analyses = [
        {
            "recipe": "quantize:4",
            "job": "none",
            "size": size,
            "seed": run,
            "relative_error": rng.normal(0.1, 0.01),
        }
        for size in sizes
        for run in range(shape[0])
    ]
    curves = simulated.curves(rng, sizes, shape[0])
    return simulated.study(models, curves, analyses, {"none": {}})


def equal_translators(rng, shape):
    sizes = simulated.sizes(SHAPES, TRANSLATOR)
    models = [
        Model(
            task="task",
            size=size,
            pretrained=True,
            recipe=recipe,
            rows=pd.DataFrame(),
            scores={
                (run, seed): score + rng.normal(0, WITHIN)
                for run, score in enumerate(rng.normal(0.3, BETWEEN, shape[0]))
                for seed in range(shape[1])
            },
            megabytes=size.params * (1 - sparsity) * bits / 8e6,
            nonzero=size.params * (1 - sparsity),
            sparsity=sparsity,
            bits=bits,
        )
        for size in sizes
        for recipe, (sparsity, bits) in RECIPES.items()
    ]
    return simulated.study(models, simulated.curves(rng, sizes, shape[0]), kind=TRANSLATOR)


@pytest.mark.parametrize("studies", [STUDIES, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", [(1, 3), (3, 3), (9, 1)])
@pytest.mark.parametrize("kind", [ENCODER, TRANSLATOR])
def test_no_claim_holds_by_luck(shape, kind, studies):
    rng = np.random.default_rng(0)
    found = Counter()
    for _ in range(studies):
        equal = equal_encoders if kind == ENCODER else equal_translators
        for claim in evaluate(equal(rng, shape)):
            found[claim.number, claim.verdict] += 1
    tested = {number for number, verdict in found if verdict != UNTESTED}
    expected = {"1a", "1b", "2a", "2b", "2c", "3"}
    if kind == TRANSLATOR:
        assert tested == {f"{number}-mt" for number in expected}
    else:
        assert tested == expected | {"5", "8", "control"}
    # A false contradiction is as rare.
    contradicted = max(found[number, CONTRADICTED] for number in tested) / studies
    assert contradicted <= allowed(studies)
    held = {number: found[number, HOLDS] / studies for number in tested}
    held.pop("5", None)  # equal sizes are not inferior: it is true
    assert max(held.values()) <= allowed(studies)
    if shape[0] == 1:
        assert not any(held.values())
        assert found["1b-mt" if kind == TRANSLATOR else "1b", SUGGESTED] > 0


def test_intervals_without_the_test_set_would_fail_this_test():
    """The mistake that answers by instance avoid: one test set counts as all there could be."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(STUDIES):
        models = equal_encoders(rng, (9, 1)).by_size("task").values()
        blind = [Sample(model.runs) for model in models]
        held += verdict([trend([model.size.params for model in models], blind)]) == HOLDS
    assert held / STUDIES > 0.1


@pytest.mark.parametrize("runs", [2, 3, 9])
def test_no_regime_is_seen_by_luck(runs):
    rng = np.random.default_rng(0)
    decided = 0
    for _ in range(STUDIES):
        headline = regime(simulated.curves(rng, simulated.sizes(SHAPES), runs)).headline()
        decided += not headline.startswith("Undecided")
    assert decided / STUDIES <= allowed(STUDIES)
