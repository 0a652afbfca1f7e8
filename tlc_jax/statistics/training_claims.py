"""The claims about training: how fast sizes learn, depth against width, and finetuning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from tlc_jax.statistics.curves import (
    LOSS,
    Curve,
    Quantity,
    alike,
    by_size,
    loss_sample,
    measured,
    reaching,
    shared_end,
    values_at,
)
from tlc_jax.statistics.effects import Effect, Sample, contrast, slope, weigh
from tlc_jax.statistics.frontier import summarize
from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR, Size
from tlc_jax.statistics.records import Model, Study
from tlc_jax.statistics.regime import crossings
from tlc_jax.statistics.statement import POINTS, Findings, claim, rise, several
from tlc_jax.statistics.varied_runs import by_shape, changed_settings
from tlc_jax.statistics.verdicts import UNDECIDED, described

_MATCHED_PARAMETERS = 1.25  # ratio up to which two sizes count as equally large
_MATCHED_LOSS = 0.05  # nats up to which two pretrained models count as equally good


def _equal_steps(study: Study) -> Study:
    """The part whose runs end at equal steps: the base, or else a point of study.vary."""
    if not study.curves or alike(study.curves, "steps"):
        return study
    return next((part for part in study.varied if _of_a_budget(study, part, "steps")), study)


def _longest_budget(study: Study) -> Study:
    """The part with the longest budget, of those with two runs of each size; else the base."""
    budgets = _budgets(study)
    replicated = [
        part for part in budgets if min(len(curves) for curves in by_size(part.curves).values()) > 1
    ]
    return (replicated or [study])[-1]


def _budgets(study: Study) -> list[Study]:
    """The base and the points of study.vary that differ from it in budget, the shortest first."""
    varied = [part for part in study.varied if _of_a_budget(study, part, "seconds")]
    parts = [study, *varied] if study.curves else []
    return sorted(parts, key=lambda part: shared_end(part.curves, "seconds"))


def _of_a_budget(study: Study, part: Study, axis: str) -> bool:
    """Whether a point of study.vary has comparable runs that differ in their budgets alone.

    The warm-up is a share of the budget, so it may differ too.
    """
    if not several(by_size(part.curves)) or not alike(part.curves, axis):
        return False
    runs = by_shape(part.curves)
    if not runs.keys() <= by_shape(study.curves).keys():
        return False
    changed = changed_settings(study, runs) - {"optimizer.warmup"}
    return bool(changed) and all(name.startswith("budget.") for name in changed)


def _at(study: Study, part: Study) -> str:
    """Names the point of study.vary that a line of evidence is about; empty for the base."""
    own = part.point.items() - study.point.items() if part is not study else ()
    return ", ".join(f"{axis}={value}" for axis, value in sorted(own)) + ": " * bool(own)


@claim(
    "1a",
    "Larger models reach a given validation loss in fewer gradient steps.",
    "Validation loss at the last gradient step that every run reached falls with size.{also} "
    "Schedules follow each run's own budget, so runs that end more than 10 % apart in steps cannot "
    "be compared: at the shared step the learning rate of the shortest alone has decayed. Then "
    "runs of study.vary count that end at equal steps and differ from the others in the budget.",
    needed="fewer than two sizes have loss curves",
    decided_by=_equal_steps,
)
def _fewer_steps(study: Study) -> Findings:
    part = _equal_steps(study)
    for found, line in _faster(part, "steps"):
        yield found, _at(study, part) + line


@claim(
    "1b",
    "The saving in steps outweighs their cost: larger models are also ahead in wall-clock time.",
    "Validation loss at the last training second that every run reached falls with size, where "
    "runs end within 10 % of each other.{also} Of several budgets (study.vary), the longest that "
    "has two runs of each of its sizes decides, and the others are listed.",
    needed="fewer than two sizes have loss curves",
    decided_by=_longest_budget,
)
def _less_time(study: Study) -> Findings:
    longest = _longest_budget(study)
    for found, line in _faster(longest, "seconds"):
        yield found, _at(study, longest) + line
    for part in _budgets(study):
        if part is not longest:
            for found, line in _faster(part, "seconds"):
                also = f"; {described(found, 'nats')}" if isinstance(found, Effect) else ""
                yield None, (_at(study, part) or "base: ") + line + also


def _faster(study: Study, axis: str) -> Findings:
    sizes, unit = by_size(study.curves), "s" if axis == "seconds" else axis
    if not several(sizes):
        return
    smallest, end = min(sizes), shared_end(study.curves, axis)
    comparable = alike(study.curves, axis)
    for of in measured(study.curves):
        values = {size: values_at(own, axis, end, of) for size, own in sizes.items()}
        signed = {size: _signed(own, values[size], of) for size, own in sizes.items()}
        ends = ", ".join(_ended(size, some) for size, some in values.items())
        line = f"{of.name} at {end:,.0f} {unit}: {ends}{of.unit}"
        if of != LOSS or not comparable:
            also = f"; {described(rise(signed), '')}" if comparable else ""
            yield None, line + also
        else:  # the loss alone decides
            yield rise(signed), line
            for crossing in crossings(study.curves, axis):
                yield None, crossing.describe(unit)
        # The worst seed of the smallest size: every seed of it gets there.
        goal = min(values[smallest], key=lambda value: of.better * value)
        costs = {size: reaching(own, axis, goal, of) for size, own in sizes.items()}
        reached = ", ".join(
            f"{size} {cost:,.0f} {unit}" if cost else f"{size} never"
            for size, cost in costs.items()
        )
        goal_text = f"{goal:.3f}{of.unit or f' {of.name}'}"
        yield None, f"to reach {goal_text}, where {smallest} was then: {reached}"
    if not comparable:
        yield _apart(study, axis)


def _signed(curves: Sequence[Curve], values: Sequence[float], of: Quantity) -> Sample:
    """Values that are better larger."""
    if of == LOSS:
        return loss_sample(curves, values, of.better)
    return Sample([of.better * value for value in values])


def _apart(study: Study, axis: str) -> tuple[str, str]:
    """The finding that runs end at different costs, which decides nothing."""
    ends = ", ".join(
        f"{size} {summarize(getattr(curve, axis)[-1] for curve in own).mean:,.0f}"
        for size, own in by_size(study.curves).items()
    )
    return UNDECIDED, (
        f"runs end at different {axis} ({ends}), so at the shared end the learning rate has "
        f"decayed for the shortest alone; runs of equally many {axis} would decide"
    )


@claim(
    "3",
    "Validation loss depends mainly on the number of parameters, little on depth against width.",
    "Loss against the logarithm of the parameters lies on one line: of sizes whose parameters are "
    f"within a factor {_MATCHED_PARAMETERS} but whose depths differ, the distances from that line "
    "differ by less than what doubling the parameters brings. At equal steps where runs end within "
    "10 % of each other, else at equal seconds. Listed is what doubling brings minus the lead of "
    "either shape.",
    needed="needs two sizes with about as many parameters but different depth, and a range of "
    "sizes around them on which the loss falls",
    kinds=(ENCODER,),
)
def _shape_matters_little(study: Study) -> Findings:
    sizes = by_size(study.curves)
    # Two sizes alone lie on their line whatever their losses.
    if len(sizes) < 3 or not several(sizes):
        return
    axis = "steps" if alike(study.curves, "steps") else "seconds"
    if not alike(study.curves, axis):
        yield _apart(study, axis)
        return
    end = shared_end(study.curves, axis)
    losses = [loss_sample(own, values_at(own, axis, end)) for own in sizes.values()]
    logs = np.log([size.params for size in sizes])
    line = slope([size.params for size in sizes])
    doubling = -math.log(2) * line
    gain = weigh(losses, doubling.tolist()).estimate
    if gain <= 0:
        yield None, f"the loss at {end:,.0f} {axis} does not fall with the parameters"
        return
    for (first, small), (second, large) in combinations(enumerate(sizes), 2):
        if small.layers == large.layers or _ratio(small, large) > _MATCHED_PARAMETERS:
            continue
        lead = -(logs[second] - logs[first]) * line
        lead[[first, second]] += [-1, 1]
        # Both are linear in the mean losses, so their intervals are exact. That of the ratio of
        # the two, which is itself uncertain below the line, would not be.
        for ahead, behind, sign in ((small, large, -1), (large, small, 1)):
            text = (
                f"{_counted(ahead)} against {_counted(behind)} at {end:,.0f} {axis}: "
                f"doubling brings {gain:.3f} nats, its lead is "
                f"{-sign * weigh(losses, lead.tolist()).estimate:+.3f}"
            )
            yield weigh(losses, (doubling + sign * lead).tolist()), text


@claim(
    "3",
    "Width is to be preferred over depth.",
    "Of two sizes grown from the same trained size, one by width alone and one by depth alone, "
    "the wider has the lower validation loss, at the end of the training seconds that both "
    "reached: seconds are the cost that they share, parameters may differ. Two sizes whose "
    f"parameters are within a factor {_MATCHED_PARAMETERS} are compared even where the size they "
    "grew from was not trained. Each wider size is compared with the deeper one nearest to it in "
    "parameters.",
    needed="needs a size grown by width alone and one grown by depth alone from the same trained "
    "size, such as 2x256 and 4x128 beside 2x128, or two such sizes with parameters within a "
    f"factor {_MATCHED_PARAMETERS}",
    kinds=(TRANSLATOR,),
)
def width_before_depth(study: Study) -> Findings:
    sizes = by_size(study.curves)
    for wide, deep in _wide_and_deep(list(sizes)):
        end = shared_end([*sizes[wide], *sizes[deep]], "seconds")
        texts, losses = [], [values_at(own, "seconds", end) for own in sizes.values()]
        for of in measured(study.curves):
            ends = [(size, values_at(sizes[size], "seconds", end, of)) for size in (wide, deep)]
            texts.append(f"{of.name} {', '.join(_ended(size, values) for size, values in ends)}")
        weights = [float(size == deep) - float(size == wide) for size in sizes]
        line = f"wider {_counted(wide)}, deeper {_counted(deep)} at {end:,.0f} s: "
        yield contrast(losses, weights), line + "; ".join(texts)
        if not alike([*sizes[wide], *sizes[deep]], "seconds"):
            yield _apart(study, "seconds")


def _wide_and_deep(sizes: Sequence[Size]) -> list[tuple[Size, Size]]:
    """Pairs each wider size with the comparable deeper size that is nearest in parameters."""
    shapes = {(size.layers, size.hidden) for size in sizes}
    pairs = []
    for wide in sizes:
        deeper = [
            deep
            for deep in sizes
            if deep.hidden < wide.hidden and deep.layers > wide.layers
            # The size that both grew from has the depth of one and the width of the other.
            if (wide.layers, deep.hidden) in shapes or _ratio(wide, deep) <= _MATCHED_PARAMETERS
        ]
        if deeper:
            pairs.append((wide, min(deeper, key=lambda deep: _ratio(wide, deep))))
    return pairs


@claim(
    "5",
    "Larger models are not harder to finetune: at equal pretraining loss they reach at least the "
    "same accuracy.",
    f"Of sizes whose pretraining losses lie within {_MATCHED_LOSS} nats, the larger is less than "
    "one point of accuracy worse.",
    needed="needs dense rows with their pretraining loss",
    kinds=(ENCODER,),
    low=-0.01,
    unit=POINTS,
)
def _finetuning_no_harder(study: Study) -> Findings:
    for task in study.tasks:
        dense = study.by_size(task)
        # NaN where the encoder was trained elsewhere, inf where its training went wrong.
        losses = {size: m.summary("pretrain_valid_loss").mean for size, m in dense.items()}
        reached = {
            size: f"{size} at {loss:.3f} nats reaches {_percent(dense[size])}"
            for size, loss in losses.items()
            if math.isfinite(loss)
        }
        matched = [
            pair
            for pair in combinations(reached, 2)
            if abs(losses[pair[0]] - losses[pair[1]]) <= _MATCHED_LOSS
        ]
        for small, large in matched:
            weights = [float(size == large) - float(size == small) for size in dense]
            effect = weigh([model.sample for model in dense.values()], weights)
            yield effect, f"{task}: {reached[small]} against {reached[large]}"
        if reached and not matched:
            listing = "; ".join(reached.values())
            yield None, f"{task}: no two sizes are within {_MATCHED_LOSS} nats: {listing}"


@claim(
    "control",
    "Control: pretraining helps. A pretrained model beats its own twin trained from scratch.",
    "The dense accuracy of pretrained models is higher than that of their twins, on average over "
    "the sizes that have one, on every task. A twin's finetuning seeds are its runs.",
    needed="no size was also finetuned from random weights",
    kinds=(ENCODER,),
    unit=POINTS,
)
def _pretraining_helps(study: Study) -> Findings:
    for task in study.tasks:
        dense, twins = study.by_size(task), study.by_size(task, pretrained=False)
        paired = [size for size in dense if size in twins]
        if not paired:
            continue
        # The mean, and not the size that does best: the best of several is so by luck in part.
        samples = [model.sample for model in (*dense.values(), *twins.values())]
        weights = [float(size in paired) / len(paired) for size in dense]
        weights += [-float(size in paired) / len(paired) for size in twins]
        listing = ", ".join(
            f"{size} pretrained {_percent(dense[size])}, from scratch {_percent(twins[size])}"
            for size in paired
        )
        yield weigh(samples, weights), f"{task}: {listing}"


def _percent(model: Model) -> str:
    """Writes the accuracy of a model with its number of seeds."""
    return f"{model.points.written('.1f')} % (n={model.score.n})"


def _ratio(first: Size, second: Size) -> float:
    return max(first.params, second.params) / min(first.params, second.params)


def _counted(size: Size) -> str:
    return f"{size} ({size.params / 1e6:.3g} M)"


def _ended(size: Size, values: Sequence[float]) -> str:
    return f"{size} {summarize(values).written('.3f')}"
