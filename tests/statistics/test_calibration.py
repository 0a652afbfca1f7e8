"""False claims rarely hold: whole claims on simulated studies in which all sizes are equal."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tlc_jax.statistics.claims import evaluate
from tlc_jax.statistics.curves import Curve
from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR, Size
from tlc_jax.statistics.records import Model, Study
from tlc_jax.statistics.regime import regime
from tlc_jax.statistics.verdicts import CONTRADICTED, HOLDS, SUGGESTED, UNTESTED

SIZES = ((2, 64, 1e6), (6, 64, 2e6), (2, 128, 2.2e6), (4, 256, 10e6))
RECIPES = {"dense": (0.0, 32.0), "quantize:4": (0.0, 4.0), "prune:0.6": (0.6, 32.0)}
STUDIES, MANY = 100, 1000
BETWEEN, WITHIN = 0.01, 0.01  # luck of a pretraining run and of a finetuning


def allowed(studies):
    """The largest share of rare errors, up to two standard errors of the simulation."""
    return 0.05 + 2 * math.sqrt(0.05 * 0.95 / studies)


def level_curves(rng, kind, runs):
    return tuple(
        Curve(
            size=Size(int(params), layers, hidden, kind),
            seed=run,
            job=f"{layers}x{hidden}-{run}",
            steps=(1, 10, 100),
            seconds=(1.0, 10.0, 100.0),
            losses=(6.0, 4.0, rng.normal(3.0, 0.02)),
            result={},
            vocab_size=0,
        )
        for layers, hidden, params in SIZES
        for run in range(runs)
    )


def equal_sizes(rng, kind, runs, finetunings):
    """A study whose sizes and recipes differ by luck alone."""
    models, analyses, curves = [], [], level_curves(rng, kind, runs)
    for layers, hidden, params in SIZES:
        size = Size(int(params), layers, hidden, kind)
        for recipe, (sparsity, bits) in RECIPES.items():
            luck = rng.normal(0.7, BETWEEN, runs)
            scores = {
                (run, seed): luck[run] + rng.normal(0, WITHIN)
                for run in range(runs)
                for seed in range(finetunings)
            }
            models.append(
                Model(
                    task="task",
                    size=size,
                    pretrained=True,
                    recipe=recipe,
                    rows=pd.DataFrame({"pretrain_valid_loss": [3.0]}),
                    scores=scores,
                    megabytes=params * (1 - sparsity) * bits / 8e6,
                    nonzero=params * (1 - sparsity),
                    sparsity=sparsity,
                    bits=bits,
                )
            )
            if recipe == "dense" and kind == ENCODER:
                scratch = {(0, seed): rng.normal(0.7, WITHIN) for seed in range(finetunings)}
                twin = {"pretrained": False, "scores": scratch}
                models.append(dataclasses.replace(models[-1], **twin))
        for run in range(runs):
            error = {"recipe": "quantize:4", "job": "none", "size": size, "seed": run}
            analyses.append({**error, "relative_error": rng.normal(0.1, 0.01)})
    empty = pd.DataFrame({"kind": [kind.name]})
    results = {"none": {}}
    return Study(
        Path("made"), empty, tuple(models), curves, tuple(analyses), (), {}, {}, results, ()
    )


@pytest.mark.parametrize("studies", [STUDIES, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", [(1, 3), (3, 3), (9, 1)])
@pytest.mark.parametrize("kind", [ENCODER, TRANSLATOR])
def test_no_claim_holds_by_luck(shape, kind, studies):
    rng = np.random.default_rng(0)
    found = Counter()
    for _ in range(studies):
        for claim in evaluate(equal_sizes(rng, kind, *shape)):
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
    assert max(held.values()) <= 0.05
    if shape[0] == 1:
        assert not any(held.values())
        assert found["1b-mt" if kind == TRANSLATOR else "1b", SUGGESTED] > 0


@pytest.mark.parametrize("runs", [2, 3, 9])
def test_no_regime_is_seen_by_luck(runs):
    rng = np.random.default_rng(0)
    decided = 0
    for _ in range(STUDIES):
        headline = regime(level_curves(rng, ENCODER, runs)).headline()
        decided += not headline.startswith("Undecided")
    assert decided / STUDIES <= allowed(STUDIES)
