"""Claims about training: does size pay in steps and in seconds, and which way is a model to grow?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tlc_jax.statistics.curves import (
    LOSS,
    Curve,
    Quantity,
    measured,
    reaching,
    shared_end,
    values_at,
)
from tlc_jax.statistics.frontier import group, summarise
from tlc_jax.statistics.kinds import TRANSLATOR, Kind, Size
from tlc_jax.statistics.regime import Regime
from tlc_jax.statistics.uncertainty import LOSS_MARGIN, trend
from tlc_jax.statistics.verdicts import FAILS, HOLDS, UNTESTED, Claim, headed, millions

_MATCHED_PARAMETERS = 1.25  # ratio up to which two sizes count as equally large
_UNITS = {"steps": "steps", "seconds": "s"}


def fewer_steps(kind: Kind, curves: Sequence[Curve], regime: Regime) -> Claim:
    """Claim 1a."""
    text = "Larger models reach a given validation loss in fewer gradient steps."
    return _faster(kind, "1a", text, curves, "steps", regime)


def less_time(kind: Kind, curves: Sequence[Curve], regime: Regime) -> Claim:
    """Claim 1b."""
    text = (
        "The saving in steps outweighs their cost: larger models are also ahead in wall-clock time."
    )
    return _faster(kind, "1b", text, curves, "seconds", regime)


_SCHEDULE_CAVEAT = (
    " Read with care: schedules follow each run's own budget, so at that step the learning rate has decayed for the "
    "size with the fewest steps only, which favours it."
)


def _faster(
    kind: Kind, number: str, text: str, curves: Sequence[Curve], axis: str, regime: Regime
) -> Claim:
    number, text = headed(kind, number, text)
    others = measured(curves)[1:]
    name = "gradient step" if axis == "steps" else "training second"
    criterion = f"Validation loss at the last {name} that every size reached falls with size."
    if others:
        criterion += f" The same for {others[0].name} is listed and does not count."
    if axis == "steps":
        criterion += _SCHEDULE_CAVEAT
    by_size = _by_size(curves)
    if len(by_size) < 2:
        return Claim(number, text, criterion, UNTESTED, ("fewer than two sizes have loss curves",))
    holds, at_the_end, reached = _standing(by_size, axis, LOSS)
    evidence = [
        at_the_end,
        *(crossing.describe(_UNITS[axis]) for crossing in getattr(regime, axis)),
        reached,
    ]
    for quantity in others:
        evidence += _standing(by_size, axis, quantity)[1:]
    return Claim(number, text, criterion, HOLDS if holds else FAILS, tuple(evidence))


def _standing(
    by_size: Mapping[Size, Sequence[Curve]], axis: str, of: Quantity
) -> tuple[bool, str, str]:
    """Whether larger sizes end ahead, where each ends, and what each needs to get where the smallest ends."""
    unit, smallest = _UNITS[axis], min(by_size)
    end = shared_end([curve for members in by_size.values() for curve in members], axis)
    values = {size: values_at(members, axis, end, of) for size, members in by_size.items()}
    found = trend(
        {size: [of.better * value for value in some] for size, some in values.items()}, of.margin
    )
    listing = ", ".join(f"{size} {summarise(some).written('.3f')}" for size, some in values.items())
    goal = min(
        values[smallest], key=lambda value: of.better * value
    )  # every seed of the smallest size gets there
    costs = {size: reaching(members, axis, goal, of) for size, members in by_size.items()}
    reached = ", ".join(
        f"{size} {cost:,.0f} {unit}" if cost else f"{size} never" for size, cost in costs.items()
    )
    return (
        found.holds,
        f"{of.name} at {end:,.0f} {unit}: {listing}{of.unit} ({found})",
        f"to reach {goal:.3f}{of.unit or f' {of.name}'}, where {smallest} was then: {reached}",
    )


def shape_matters_little(curves: Sequence[Curve]) -> Claim:
    """Claim 3 for encoders."""
    text = (
        "Validation loss depends mainly on the number of parameters, little on depth against width."
    )
    criterion = (
        f"Sizes whose parameters are within a factor {_MATCHED_PARAMETERS} but whose depths differ end, at equal "
        "steps, closer than a quarter of the range over all sizes."
    )
    by_size = _by_size(curves)
    end = shared_end(curves, "steps") if curves else 0.0
    losses = {
        size: summarise(values_at(members, "steps", end)).mean for size, members in by_size.items()
    }
    matched = [
        (small, large)
        for small in losses
        for large in losses
        if small < large
        and small.layers != large.layers
        and large.params <= _MATCHED_PARAMETERS * small.params
    ]
    reach = max(losses.values(), default=0.0) - min(losses.values(), default=0.0)
    if not matched or reach <= LOSS_MARGIN:
        needed = "needs two sizes with about as many parameters but different depth, and a range of sizes around them"
        return Claim("3", text, criterion, UNTESTED, (needed,))
    holds = all(abs(losses[small] - losses[large]) < reach / 4 for small, large in matched)
    evidence = [
        f"{small} ({millions(small)}) {losses[small]:.3f}, {large} ({millions(large)}) {losses[large]:.3f} nats "
        f"at step {end:,.0f}; range over all sizes {reach:.3f}"
        for small, large in matched
    ]
    return Claim("3", text, criterion, HOLDS if holds else FAILS, tuple(evidence))


def width_before_depth(curves: Sequence[Curve], regime: Regime) -> Claim:
    """Claim 3 for translators."""
    number, text = headed(TRANSLATOR, "3", "Width is to be preferred over depth.")
    criterion = (
        "Of two sizes grown from the same trained size, one by width alone and one by depth alone, the wider is more "
        "often clearly ahead than clearly behind, in validation loss at the end of the training seconds that both "
        "reached: seconds are the cost that they share, parameters may differ. Two sizes whose parameters are within "
        f"a factor {_MATCHED_PARAMETERS} are compared even where the size they grew from was not trained. Each wider "
        "size is compared with the deeper one nearest to it in parameters."
    )
    by_size = _by_size(curves)
    pairs = _wide_and_deep(list(by_size))
    if not pairs:
        needed = (
            "needs a size grown by width alone and one grown by depth alone from the same trained size, such as 2x256 "
            f"and 4x128 beside 2x128, or two such sizes with parameters within a factor {_MATCHED_PARAMETERS}"
        )
        return Claim(number, text, criterion, UNTESTED, (needed,))
    crossings = {(crossing.small, crossing.large): crossing for crossing in regime.seconds}
    balance, evidence = 0, []
    for wide, deep in pairs:
        both = sorted((wide, deep))
        crossing = crossings[both[0], both[1]]
        balance += crossing.outcome if crossing.large == wide else -crossing.outcome
        line = f"wider {wide} ({millions(wide)}), deeper {deep} ({millions(deep)}): {crossing.describe('s')}"
        for of in measured(curves)[1:]:
            end = shared_end([*by_size[wide], *by_size[deep]], "seconds")
            ends = {
                size: summarise(values_at(by_size[size], "seconds", end, of))
                for size in (wide, deep)
            }
            line += f"; {of.name} " + ", ".join(
                f"{size} {found.written('.3f')}" for size, found in ends.items()
            )
        evidence.append(line)
    return Claim(number, text, criterion, HOLDS if balance > 0 else FAILS, tuple(evidence))


def _wide_and_deep(sizes: Sequence[Size]) -> list[tuple[Size, Size]]:
    """Each size that is wider and shallower than another, with the nearest in parameters of those comparable to it."""
    shapes = {(size.layers, size.hidden) for size in sizes}
    pairs = []
    for wide in sizes:
        deeper = [
            deep
            for deep in sizes
            if deep.hidden < wide.hidden and deep.layers > wide.layers
            if (wide.layers, deep.hidden) in shapes or _ratio(wide, deep) <= _MATCHED_PARAMETERS
        ]
        if deeper:
            pairs.append((wide, min(deeper, key=lambda deep: _ratio(wide, deep))))
    return pairs


def _ratio(first: Size, second: Size) -> float:
    return max(first.params, second.params) / min(first.params, second.params)


def _by_size(curves: Sequence[Curve]) -> dict[Size, list[Curve]]:
    return group(sorted(curves, key=lambda curve: curve.size), lambda curve: curve.size)
