"""The claims that take training runs of other settings than the base, which study.vary makes.

Runs count where their settings differ from those of the base in the one that a claim is about. They
are compared at the end of the training seconds that all of them had.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from tlc_jax.core.errors import InputError
from tlc_jax.statistics.batch_size import critical_batch_size
from tlc_jax.statistics.curves import Curve, alike, loss_sample, reaching, shared_end, values_at
from tlc_jax.statistics.effects import Effect, Sample, slope, weigh
from tlc_jax.statistics.frontier import summarize
from tlc_jax.statistics.kinds import ENCODER, Size
from tlc_jax.statistics.records import Study, operations
from tlc_jax.statistics.statement import POINTS, Findings, claim
from tlc_jax.statistics.varied_runs import Runs, by_shape, changed_settings, settings
from tlc_jax.statistics.verdicts import UNDECIDED

_STABLE = 0.75  # share of a run at which schedules with a cooldown still have their constant rate

Term = tuple[float, str, list[Curve]]  # weight of a mean loss, what it is, and its runs


@claim(
    "4",
    "Growing the model pays more than growing the batch.",
    "At equal training seconds the next larger size with the batch of the base has a lower "
    "validation loss than a size with a larger batch, for every such size and batch. The paper "
    "says so of batches in the critical range. Where a study has three batches that range is "
    "listed, and does not count.",
    needed="needs an axis of study.vary that sets optimizer.batch_size, for a size below another",
    kinds=(ENCODER,),
)
def _model_before_batch(study: Study) -> Findings:
    base, *others = _by_value(study, "optimizer.batch_size", also=("optimizer.learning_rate",))
    batch, own = base
    larger = dict(zip(own, [*own][1:], strict=False))
    for other, runs in others:
        for shape, curves in runs.items():
            if other > batch and shape in larger:
                # Those of weight 0 tell how much runs vary.
                yield _compared(
                    (1.0, f"with batch {other}", curves),
                    (-1.0, f"with batch {batch}", own[larger[shape]]),
                    *((0.0, "", some) for some in (*own.values(), *runs.values())),
                )
    for shape in own:
        of_shape = {value: runs[shape] for value, runs in (base, *others) if shape in runs}
        if len(of_shape) > 2:
            yield None, _critical_batch_size(of_shape)


def _critical_batch_size(runs: Mapping[int, list[Curve]]) -> str:
    every = [curve for curves in runs.values() for curve in curves]
    # A loss that all runs reach before rates fall: steps to it do not depend on the budget.
    goal = max(values_at([one], "steps", _STABLE * one.steps[-1])[0] for one in every)
    steps = {
        batch: [cost for one in curves if (cost := reaching([one], "steps", goal))]
        for batch, curves in runs.items()
    }
    try:
        fit = critical_batch_size(steps, np.random.default_rng(0))
    except InputError as error:
        return f"{every[0].size}: {error}"
    text = f"{every[0].size}: {fit.critical:.3g} is the critical batch by steps to {goal:.3f} nats"
    if fit.interval:
        text += f" (95 % interval {fit.interval[0]:.3g} to {fit.interval[1]:.3g})"
    noise = [scale for one in every if (scale := one.result.get("noise_scale"))]
    return text + (f"; noise scale {summarize(noise).written('.3g')}" if noise else "")


@claim(
    "6a",
    "How long a model was pretrained does not affect how well it quantizes once it is finetuned.",
    "What quantization alone costs a finetuned model in {kind.score} changes by less than a point "
    "from an earlier checkpoint of pretraining to its end, for every size and recipe.",
    needed="needs an axis of study.vary of stage checkpoint, and a recipe of quantization alone",
    kinds=(ENCODER,),
    low=-0.01,
    high=0.01,
    unit=POINTS,
)
def _age_after_finetuning(study: Study) -> Findings:
    earlier = [part for part in study.varied if not part.curves]  # the pretraining is the base's
    for task, part in product(study.tasks, earlier):
        for recipe in dict.fromkeys(model.recipe for model in part.models):
            if operations(recipe) != {"quantize"}:
                continue
            first, last = _kept(part, task, recipe), _kept(study, task, recipe)
            sizes = [size for size in first if size in last]
            samples = [run for size in sizes for run in (first[size][1], last[size][1])]
            for place, size in enumerate(sizes):
                (early, before), (end, after) = first[size], last[size]
                if early >= end:
                    continue
                weights = [0.0] * len(samples)
                weights[2 * place : 2 * place + 2] = 1.0, -1.0
                costs = [
                    f"{summarize([-v for v in one.values]).written('.1f', 100)} after {steps:,.0f}"
                    for one, steps in ((before, early), (after, end))
                ]
                line = f"{task}, {recipe}: points that {size} loses: {', '.join(costs)} steps"
                yield weigh(samples, weights), line


def _kept(study: Study, task: str, recipe: str) -> dict[Size, tuple[float, Sample]]:
    """Steps of pretraining, and compressed minus dense scores, of each size."""
    dense = study.by_size(task)
    return {
        size: (model.summary("steps").mean, model.minus(dense[size]))
        for size, model in study.by_size(task, recipe).items()
        if size in dense
    }


@claim(
    "7",
    "With 5 % or 1 % of the text the advantage of size shrinks or reverses.",
    "The validation loss falls less from the smallest to the largest size with a part of the text "
    "than with all of it, on straight lines over the logarithm of the parameters, for every part.",
    needed="needs an axis of study.vary that sets data.subsample, for two sizes",
    kinds=(ENCODER,),
)
def _advantage_shrinks(study: Study) -> Findings:
    (_, full), *parts = _by_value(study, "data.subsample")
    for share, runs in parts:
        params = [full[shape][0].size.params for shape in runs]
        if len(set(params)) > 1:
            # Of a loss that falls the line falls: what all of the text brings has a minus.
            rise = slope(params) * math.log(max(params) / min(params))
            rises = dict(zip(runs, rise, strict=True))
            yield _compared(
                *((-rises[shape], "with all", full[shape]) for shape in runs),
                *((rises[shape], f"with {100 * share:g} %", runs[shape]) for shape in runs),
            )


@claim(
    "9",
    "Sharing parameters across layers slows convergence.",
    "At equal training seconds the validation loss is higher where layers share parameters, on "
    "average over the sizes that ran both ways, for every way of sharing.",
    needed="needs an axis of study.vary that sets model.share",
    kinds=(ENCODER,),
)
def _sharing_slows(study: Study) -> Findings:
    (_, own), *ways = _by_value(study, "model.share")
    for way, runs in ways:
        share = 1 / len(runs)
        yield _compared(
            *((share, f"sharing {way}", runs[shape]) for shape in runs),
            *((-share, "without", own[shape]) for shape in runs),
        )


def _by_value(study: Study, setting: str, also: Sequence[str] = ()) -> list[tuple[Any, Runs]]:
    """Runs by value of a setting, those of the base first; others of sizes that the base has.

    Args:
      study: one kind's part of a study.
      setting: name of the setting.
      also: settings that may change with it.
    """
    base = by_shape(study.curves)
    first = next((settings(study, own[0]) for own in base.values()), {})
    found: list[tuple[Any, Runs]] = [(first.get(setting), base)]
    for part in study.varied:
        runs = {shape: own for shape, own in by_shape(part.curves).items() if shape in base}
        changed = changed_settings(study, runs)
        values = {settings(study, own[0]).get(setting) for own in runs.values()}
        if setting in changed and changed <= {setting, *also} and len(values) == 1:
            found.append((values.pop(), runs))
    return found


def _compared(*terms: Term) -> tuple[Effect | str, str]:
    """The weighted sum of mean losses at the end of the seconds that all runs had."""
    curves = [curve for _, _, some in terms for curve in some]
    end = shared_end(curves, "seconds")
    losses = [values_at(some, "seconds", end) for _, _, some in terms]
    text = f"valid_loss at {end:,.0f} s: " + ", ".join(
        f"{some[0].size} {what} {summarize(values).written('.3f')}"
        for (weight, what, some), values in zip(terms, losses, strict=True)
        if weight
    )
    if not alike(curves, "seconds"):
        return (
            UNDECIDED,
            f"{text}; runs end at different seconds: equal budgets would decide",
        )
    samples = [
        loss_sample(some, values) for (_, _, some), values in zip(terms, losses, strict=True)
    ]
    return weigh(samples, [weight for weight, _, _ in terms]), text
