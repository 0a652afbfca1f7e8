"""Claims about training: size in steps and in seconds, width against depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from tlc_jax.statistics.curves import (
    LOSS,
    Curve,
    Quantity,
    by_size,
    measured,
    reaching,
    shared_end,
    values_at,
)
from tlc_jax.statistics.frontier import summarize
from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR, Kind, Size
from tlc_jax.statistics.regime import Regime
from tlc_jax.statistics.uncertainty import LOSS_MARGIN, Claim, judge, trend

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


def _faster(
    kind: Kind, number: str, text: str, curves: Sequence[Curve], axis: str, regime: Regime
) -> Claim:
    others = measured(curves)[1:]
    name = "gradient step" if axis == "steps" else "training second"
    criterion = f"Validation loss at the last {name} that every size reached falls with size."
    if others:
        criterion += f" The same for {others[0].name} is listed and does not count."
    if axis == "steps":
        criterion += (
            " Read with care: schedules follow each run's own budget, so at that step the learning "
            "rate has decayed for the size with the fewest steps only, which favors it."
        )
    sizes = by_size(curves)
    if len(sizes) < 2:
        return judge(kind, number, text, criterion, [], "fewer than two sizes have loss curves")
    holds, at_the_end, reached = _standing(sizes, axis, LOSS)
    crossings = [crossing.describe(_UNITS[axis]) for crossing in getattr(regime, axis)]
    evidence = [at_the_end, *crossings, reached]
    for quantity in others:
        evidence += _standing(sizes, axis, quantity)[1:]
    return judge(kind, number, text, criterion, [(holds, line) for line in evidence])


def _standing(
    sizes: Mapping[Size, Sequence[Curve]], axis: str, of: Quantity
) -> tuple[bool, str, str]:
    """Whether larger sizes end ahead, where each ends, and its cost to match the smallest."""
    unit, smallest = _UNITS[axis], min(sizes)
    end = shared_end([curve for members in sizes.values() for curve in members], axis)
    values = {size: values_at(members, axis, end, of) for size, members in sizes.items()}
    signed = {size: [of.better * value for value in some] for size, some in values.items()}
    found = trend(signed, of.margin)
    listing = ", ".join(f"{size} {summarize(some).written('.3f')}" for size, some in values.items())
    # The worst seed of the smallest size: every seed of it gets there.
    goal = min(values[smallest], key=lambda value: of.better * value)
    costs = {size: reaching(members, axis, goal, of) for size, members in sizes.items()}
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
        f"Sizes whose parameters are within a factor {_MATCHED_PARAMETERS} but whose depths differ "
        "end, at equal steps, closer than a quarter of the range over all sizes."
    )
    end = shared_end(curves, "steps") if curves else 0.0
    losses = {
        size: summarize(values_at(members, "steps", end)).mean
        for size, members in by_size(curves).items()
    }
    reach = max(losses.values(), default=0.0) - min(losses.values(), default=0.0)
    findings = [
        (
            abs(losses[small] - losses[large]) < reach / 4,
            f"{small} ({_millions(small)}) {losses[small]:.3f}, "
            f"{large} ({_millions(large)}) {losses[large]:.3f} nats at step {end:,.0f}; "
            f"range over all sizes {reach:.3f}",
        )
        for small, large in combinations(losses, 2)
        if small.layers != large.layers and _ratio(small, large) <= _MATCHED_PARAMETERS
    ]
    needed = (
        "needs two sizes with about as many parameters but different depth, "
        "and a range of sizes around them"
    )
    if reach <= LOSS_MARGIN:
        findings = []
    return judge(ENCODER, "3", text, criterion, findings, needed)


def width_before_depth(curves: Sequence[Curve], regime: Regime) -> Claim:
    """Claim 3 for translators."""
    criterion = (
        "Of two sizes grown from the same trained size, one by width alone and one by depth alone, "
        "the wider is more often clearly ahead than clearly behind, in validation loss at the end "
        "of the training seconds that both reached: seconds are the cost that they share, "
        "parameters may differ. Two sizes whose parameters are within a factor "
        f"{_MATCHED_PARAMETERS} are compared even where the size they grew from was not trained. "
        "Each wider size is compared with the deeper one nearest to it in parameters."
    )
    needed = (
        "needs a size grown by width alone and one grown by depth alone from the same trained "
        "size, such as 2x256 and 4x128 beside 2x128, or two such sizes with parameters within a "
        f"factor {_MATCHED_PARAMETERS}"
    )
    sizes = by_size(curves)
    crossings = {(crossing.small, crossing.large): crossing for crossing in regime.seconds}
    balance, evidence = 0, []
    for wide, deep in _wide_and_deep(list(sizes)):
        small, large = sorted((wide, deep))
        crossing = crossings[small, large]
        balance += crossing.outcome if large == wide else -crossing.outcome
        line = (
            f"wider {wide} ({_millions(wide)}), deeper {deep} ({_millions(deep)}): "
            f"{crossing.describe('s')}"
        )
        end = shared_end([*sizes[wide], *sizes[deep]], "seconds")
        for of in measured(curves)[1:]:
            ends = (
                f"{size} {summarize(values_at(sizes[size], 'seconds', end, of)).written('.3f')}"
                for size in (wide, deep)
            )
            line += f"; {of.name} {', '.join(ends)}"
        evidence.append(line)
    findings = [(balance > 0, line) for line in evidence]
    text = "Width is to be preferred over depth."
    return judge(TRANSLATOR, "3", text, criterion, findings, needed)


def _wide_and_deep(sizes: Sequence[Size]) -> list[tuple[Size, Size]]:
    """Each wider size with the comparable deeper size that is nearest in parameters."""
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


def _millions(size: Size) -> str:
    return f"{size.params / 1e6:.3g} M"
