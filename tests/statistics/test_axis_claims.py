"""Claims about batches, parts of the text and sharing, on simulated runs with known losses."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from tests.helpers import simulated_study as simulated
from tlc_jax.statistics import claims

SIZES = simulated.sizes([(1, 64, 1e5), (2, 96, 4e5), (3, 128, 1.6e6)])
SMALL, MIDDLE, LARGE = SIZES
BASE = {
    "budget": {"seconds": 100.0, "steps": 0},
    "data": {"subsample": 1.0, "cache": "here"},
    "model": {"share": "none"},
    "optimizer": {"batch_size": 16, "learning_rate": 1e-3},
}


def _study(*parts, seed=0, runs=3, spread=0.02, ends=None):
    """A study with axes; a part is (settings, {size: loss}), and its losses end after `ends`."""
    rng = np.random.default_rng(seed)
    losses = {SMALL: 3.0, MIDDLE: 2.8, LARGE: 2.6}
    base = simulated.study(curves=simulated.curves(rng, SIZES, runs, losses.get, spread))
    configs = {curve.job: BASE for curve in base.curves}
    varied = []
    for number, (settings, losses) in enumerate(parts):
        own = {section: values | settings.get(section, {}) for section, values in BASE.items()}
        curves = [
            dataclasses.replace(curve, job=f"{curve.job}-{number}")
            for curve in simulated.curves(
                rng, list(losses), runs, losses.get, spread, seconds=ends or 100.0
            )
        ]
        configs |= {curve.job: own for curve in curves}
        varied.append(dataclasses.replace(base, curves=tuple(curves)))
    return dataclasses.replace(base, configs=configs, varied=tuple(varied))


def _claim(study, number):
    (found,) = [claim for claim in claims.evaluate(study) if claim.number == number]
    return found


def _batch(size, loss, batch=64, rate=2e-3, **more):
    return {"optimizer": {"batch_size": batch, "learning_rate": rate}, **more}, {size: loss}


@pytest.mark.parametrize(
    ("loss", "verdict"), [(2.95, "holds"), (2.8, "undecided"), (2.6, "contradicted")]
)
def test_a_larger_batch_against_the_next_larger_size(loss, verdict):
    found = _claim(_study(_batch(SMALL, loss)), "4")
    assert found.verdict == verdict
    assert "1x64 with batch 64 2.9" in found.evidence[0] or verdict != "holds"
    assert "2x96 with batch 16" in found.evidence[0]


def test_an_undecided_claim_says_what_deciding_would_cost():
    found = _claim(_study(_batch(SMALL, 2.84), spread=0.1), "4")
    assert found.verdict == "undecided"
    runs = int(re.search(r"about (\d+) would decide", found.evidence[0])[1])
    # Three sizes of 100 seconds each.
    hours = f"{(runs - 3) * 300 / 3600:.2g}"
    assert found.evidence[1].startswith(
        f"to decide: {runs - 3} more runs of each size, {hours} hours of pretraining"
    )
    decided = _claim(_study(_batch(SMALL, 2.95)), "4")
    assert not any("to decide" in line for line in decided.evidence)


def test_smaller_batches_and_the_largest_size_say_nothing_about_growing():
    assert _claim(_study(_batch(SMALL, 2.0, batch=8)), "4").verdict == "not tested"
    assert _claim(_study(_batch(LARGE, 2.0)), "4").verdict == "not tested"


def test_the_critical_batch_size_is_listed():
    study = _study(_batch(SMALL, 3.1), _batch(SMALL, 2.9, batch=32))
    assert any("is the critical batch by steps to" in line for line in _claim(study, "4").evidence)


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [((3.1, 3.1), "holds"), ((3.1, 2.7), "undecided"), ((3.2, 2.2), "contradicted")],
)
def test_the_advantage_of_size_with_a_part_of_the_text(losses, verdict):
    part = {"data": {"subsample": 0.05}}, dict(zip((SMALL, LARGE), losses, strict=True))
    found = _claim(_study(part), "7")
    assert found.verdict == verdict
    assert "1x64 with all" in found.evidence[0] and "3x128 with 5 %" in found.evidence[0]


def test_one_size_with_a_part_of_the_text_shows_no_advantage():
    assert _claim(_study(({"data": {"subsample": 0.05}}, {SMALL: 3.0})), "7").verdict == (
        "not tested"
    )


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [((3.0, 2.8), "holds"), ((2.7, 2.7), "undecided"), ((2.4, 2.4), "contradicted")],
)
def test_sharing_on_average_over_sizes(losses, verdict):
    part = {"model": {"share": "all"}}, dict(zip((MIDDLE, LARGE), losses, strict=True))
    found = _claim(_study(part, seed=1), "9")
    assert found.verdict == verdict
    assert "2x96 sharing all" in found.evidence[0] and "3x128 without" in found.evidence[0]


def test_runs_that_differ_in_more_than_the_setting_do_not_count():
    study = _study(_batch(SMALL, 2.95, model={"share": "all"}))
    assert {_claim(study, number).verdict for number in "479"} == {"not tested"}
    # Where files are kept is not a difference.
    elsewhere = _study(_batch(SMALL, 2.95, data={"cache": "there"}))
    assert _claim(elsewhere, "4").verdict == "holds"


def test_runs_that_end_at_other_seconds_decide_nothing():
    found = _claim(_study(_batch(SMALL, 2.95), ends=60.0), "4")
    assert found.verdict == "undecided"
    assert "equal budgets would decide" in found.evidence[0]


@pytest.mark.parametrize(("late", "verdict"), [(0.78, "holds"), (0.70, "contradicted")])
def test_the_cost_of_quantization_at_an_earlier_checkpoint(late, verdict):
    """Dense models have 80 %; quantized they have 78 % early, and `late` at the end."""
    rng, luck = np.random.default_rng(0), simulated.Luck(recipe=0.0, recipe_instance=0.0)

    def at(steps, quantized):
        found = simulated.models(
            rng,
            SIZES,
            {"dense": (0.0, 32.0), "quantize:4": (0.0, 4.0), "prune:0.5": (0.5, 32.0)},
            (3, 2),
            lambda _, recipe: {"quantize:4": quantized}.get(recipe, 0.8),
            instances=20_000,
            luck=luck,
        )
        return [dataclasses.replace(one, rows=one.rows.assign(steps=steps)) for one in found]

    base = simulated.study(models=at(100, late))
    early = dataclasses.replace(base, models=tuple(at(10, 0.78)))
    found = _claim(dataclasses.replace(base, varied=(early,)), "6a")
    assert found.verdict == verdict
    assert len(found.evidence) == len(SIZES)
    assert "10 steps" not in found.evidence[0] and "after 10, " in found.evidence[0]
    assert _claim(base, "6a").verdict == "not tested"


def test_one_run_per_size_suggests_at_most():
    assert _claim(_study(_batch(SMALL, 2.95), runs=1), "4").verdict == "suggested"


@pytest.mark.parametrize(
    ("losses", "verdict"), [((3.0, 2.8, 2.6), "holds"), ((2.6, 2.8, 3.0), "contradicted")]
)
def test_runs_of_equally_many_steps_decide_which_size_needs_fewer(losses, verdict):
    study = _study(({"budget": {"steps": 100}}, dict(zip(SIZES, losses, strict=True))))
    study = _ending_apart(study)
    found = _claim(study, "1a")
    assert found.verdict == verdict
    assert found.evidence[0].startswith("steps=100: valid_loss at 100 steps: 1x64")


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({"budget": {"steps": 100}, "model": {"share": "all"}}, SIZES),
        ({"budget": {"steps": 9}}, [LARGE]),
    ],
)
def test_runs_that_differ_in_more_or_in_one_size_do_not_decide_it(settings, sizes):
    study = _ending_apart(_study((settings, dict.fromkeys(sizes, 2.8))))
    assert _claim(study, "1a").verdict == "undecided"


def _ending_apart(study):
    """The study with base runs of fewer steps the larger they are, and a named point."""
    curves = [
        dataclasses.replace(curve, steps=tuple(s * (4 - curve.size.layers) for s in curve.steps))
        for curve in study.curves
    ]
    (part,) = study.varied
    part = dataclasses.replace(part, point={"steps": "100", "batch": "16"})
    return dataclasses.replace(
        study, curves=tuple(curves), varied=(part,), point={"steps": "own", "batch": "16"}
    )


LONG = {"budget": {"seconds": 600.0}, "optimizer": {"warmup": 0.1}}
CROSSED = {SMALL: 2.7, MIDDLE: 2.5, LARGE: 2.3}


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [(CROSSED, "holds"), ({SMALL: 2.3, MIDDLE: 2.5, LARGE: 2.7}, "contradicted")],
)
def test_the_longest_budget_decides_which_size_is_ahead_in_time(losses, verdict):
    study = _named(_study((LONG, losses), ends=600.0), "600s")
    found = _claim(study, "1b")
    assert found.verdict == verdict
    assert found.evidence[0].startswith("budget=600s: valid_loss at 600 s: 1x64")
    listed = [line for line in found.evidence if line.startswith("base: valid_loss at 100 s")]
    assert len(listed) == 1 and "effect +0." in listed[0]


@pytest.mark.parametrize(
    ("settings", "runs", "ends"),
    [
        (LONG, 1, 600.0),  # no seed shows the luck of a run
        ({"budget": {"seconds": 50.0}}, 3, 50.0),
    ],
)
def test_single_and_shorter_runs_are_listed_and_the_base_decides(settings, runs, ends):
    losses = {SMALL: 2.3, MIDDLE: 2.5, LARGE: 2.7}
    study = _study((settings, losses), ends=ends)
    (part,) = study.varied
    few = tuple(curve for curve in part.curves if curve.seed < runs)
    study = _named(dataclasses.replace(study, varied=(dataclasses.replace(part, curves=few),)), "x")
    found = _claim(study, "1b")
    assert found.verdict == "holds"
    assert found.evidence[0].startswith("valid_loss at 100 s")
    (listed,) = [line for line in found.evidence if line.startswith("budget=x: valid_loss at")]
    assert "effect -0." in listed


def test_a_shorter_budget_with_several_seeds_decides_where_the_base_has_one():
    study = _study(
        ({"budget": {"seconds": 50.0}}, {SMALL: 2.3, MIDDLE: 2.5, LARGE: 2.7}), ends=50.0
    )
    single = tuple(curve for curve in study.curves if curve.seed == 0)
    found = _claim(_named(dataclasses.replace(study, curves=single), "50s"), "1b")
    assert found.verdict == "contradicted"
    assert found.evidence[0].startswith("budget=50s: valid_loss at 50 s")


def test_runs_with_another_setting_are_not_those_of_another_budget():
    settings = LONG | {"model": {"share": "all"}}
    found = _claim(_named(_study((settings, CROSSED), ends=600.0), "600s"), "1b")
    assert not any("600" in line for line in found.evidence)


def test_an_undecided_budget_costs_runs_of_that_budget():
    study = _study((LONG, {SMALL: 2.53, MIDDLE: 2.51, LARGE: 2.5}), ends=600.0, spread=0.05)
    found = _claim(_named(study, "600s"), "1b")
    assert found.verdict == "undecided"
    runs = int(re.search(r"about (\d+) would decide", found.evidence[0])[1])
    hours = f"{(runs - 3) * 3 * 600 / 3600:.2g}"
    assert f"to decide: {runs - 3} more runs of each size, {hours} hours" in found.evidence[-1]


def _named(study, budget):
    """The study with names for the base and for its only point."""
    (part,) = study.varied
    part = dataclasses.replace(part, point={"budget": budget, "batch": "16"})
    return dataclasses.replace(study, varied=(part,), point={"budget": "100s", "batch": "16"})
