"""Simulated studies with known truth: curves, and answers of every run on every instance.

A model is right on an instance where ability + ease of the instance + luck > 0, all normal. The
ease is shared by all models in part; a size, a recipe and each run on each instance have parts of
their own. The ability is such that a model has a given accuracy over all instances that there could
be, so another test set favors one model or another by luck alone.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import ndtri

from tlc_jax.statistics.curves import Curve
from tlc_jax.statistics.kinds import ENCODER, Size
from tlc_jax.statistics.records import Answers, Model, Study


@dataclasses.dataclass(frozen=True)
class Luck:
    """Standard deviations in units of that of the shared ease of instances.

    Attributes:
      size, recipe: ease of an instance for one size, and for one recipe of it.
      recipe_instance: of a run under a recipe on an instance.
      pretraining, finetuning: of a run, on all instances alike.
      pretraining_instance, finetuning_instance: of a run on an instance.
    """

    size: float = 0.3
    recipe: float = 0.15
    recipe_instance: float = 0.0
    pretraining: float = 0.01
    finetuning: float = 0.005
    pretraining_instance: float = 0.3
    finetuning_instance: float = 0.3


def curves(rng, sizes, runs, loss=lambda size: 3.0, spread=0.02, seconds=100.0):
    """Loss curves that end after equally many steps and seconds, at `loss` and its luck."""
    return tuple(
        Curve(
            size=size,
            seed=run,
            job=f"{size}-{run}",
            steps=(1, 10, 100),
            seconds=(0.01 * seconds, 0.1 * seconds, seconds),
            losses=(6.0, 4.5, rng.normal(loss(size), spread)),
            result={},
            vocab_size=0,
        )
        for size in sizes
        for run in range(runs)
    )


def models(rng, sizes, recipes, shape, accuracy, instances=2249, luck=Luck(), scratch=None):
    """Evaluated models with their answers.

    Args:
      rng: the random generator.
      sizes: sizes of encoders.
      recipes: (sparsity, bits) by recipe; the dense one comes first.
      shape: numbers of pretraining and of finetuning seeds.
      accuracy: (size, recipe) -> true accuracy.
      instances: instances of the test set.
      luck: see `Luck`.
      scratch: size -> true accuracy of its twin from scratch; None: without twins.
    """
    ease_N, ids, found = rng.normal(0, 1, instances), np.arange(instances), []
    for size in sizes:
        own_N = ease_N + rng.normal(0, luck.size, instances)
        # The runs of a recipe start from the dense runs, so they share their luck.
        runs = _runs(rng, shape, instances, luck)
        for recipe, (sparsity, bits) in recipes.items():
            changed = recipe != "dense"
            here = luck if changed else dataclasses.replace(luck, recipe=0.0, recipe_instance=0.0)
            variance = 1 + sum(deviation**2 for deviation in vars(here).values())
            ability = ndtri(accuracy(size, recipe)) * math.sqrt(variance)
            here_N = ability + own_N
            if changed:
                here_N = here_N + rng.normal(0, luck.recipe, instances)
            answers = {}
            for seeds, luck_N in runs.items():
                right_N = here_N + luck_N
                if changed and luck.recipe_instance:
                    right_N = right_N + rng.normal(0, luck.recipe_instance, instances)
                answers[seeds] = Answers(ids, right_N > 0)
            found.append(_model(size, recipe, sparsity, bits, answers))
        if scratch:
            variance = 1 + luck.size**2 + luck.finetuning**2 + luck.finetuning_instance**2
            ability = ndtri(scratch(size)) * math.sqrt(variance)
            twin_N = ease_N + rng.normal(0, luck.size, instances)
            unborn = dataclasses.replace(luck, pretraining=0.0, pretraining_instance=0.0)
            answers = {
                seeds: Answers(ids, ability + twin_N + luck_N > 0)
                for seeds, luck_N in _runs(rng, (1, shape[1]), instances, unborn).items()
            }
            twin = _model(size, "dense", 0.0, 32.0, answers)
            found.append(dataclasses.replace(twin, pretrained=False))
    return tuple(found)


def _runs(rng, shape, instances, luck):
    """The luck of each run on each instance, by its seeds."""
    found = {}
    for run in range(shape[0]):
        trained_N = rng.normal(0, luck.pretraining) + rng.normal(
            0, luck.pretraining_instance, instances
        )
        for seed in range(shape[1]):
            found[run, seed] = (
                trained_N
                + rng.normal(0, luck.finetuning)
                + rng.normal(0, luck.finetuning_instance, instances)
            )
    return found


def _model(size, recipe, sparsity, bits, answers):
    return Model(
        task="task",
        size=size,
        pretrained=True,
        recipe=recipe,
        rows=pd.DataFrame(
            {"pretrain_valid_loss": [3.0], "valid_examples": [len(answers[0, 0].ids)]}
        ),
        scores={seeds: float(one.correct.mean()) for seeds, one in answers.items()},
        megabytes=size.params * (1 - sparsity) * bits / 8e6,
        nonzero=size.params * (1 - sparsity),
        sparsity=sparsity,
        bits=bits,
        answers=answers,
    )


def study(models=(), curves=(), analyses=(), results=None, kind=ENCODER):
    """A study of these parts."""
    rows = pd.DataFrame({"kind": [kind.name]})
    return Study(
        Path("made"), rows, tuple(models), tuple(curves), tuple(analyses), (), {}, {},
        results or {}, (),
    )  # fmt: skip


def sizes(shapes, kind=ENCODER):
    """Sizes from (layers, hidden, parameters)."""
    return [Size(int(params), layers, hidden, kind) for layers, hidden, params in shapes]
