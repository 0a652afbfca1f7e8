"""In which regime of training a study was: who leads when, whose curves cross, who is still on the plateau.

The paper's effect appears once every size has seen enough text. Before that small models lead because they see more;
a report must say which of the two was observed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from tlc_jax.statistics.curves import Curve, interpolate, shared_end, values_at
from tlc_jax.statistics.frontier import group, summarise
from tlc_jax.statistics.kinds import ENCODER, Kind, Size
from tlc_jax.statistics.records import Study
from tlc_jax.statistics.uncertainty import LOSS_MARGIN, clear, pool

# A loss that is still above this share of its reference counts as the early plateau, on which a model has learned
# how frequent tokens are and little else. The reference is the entropy of single tokens where the pretraining run
# reports it; without it, the logarithm of the vocabulary, of which that entropy is roughly three quarters.
_PLATEAU_OF_UNIGRAM = 0.8
_PLATEAU_OF_VOCABULARY = 0.6


@dataclasses.dataclass(frozen=True)
class Crossing:
    """How a larger size fared against a smaller one, on mean validation loss at equal cost."""

    small: Size
    large: Size
    outcome: int  # at the end of the shared budget: 1 the larger is clearly ahead, -1 clearly behind, 0 neither
    at: (
        float | None
    )  # where the larger went ahead for good; None: it never did, or it led from the first evaluation
    gap: float  # loss of the larger minus loss of the smaller at the end, nats
    narrowing: bool  # whether that gap fell over the second half of the shared budget

    def describe(self, unit: str) -> str:
        if self.outcome > 0:
            led = f"leads {self.small} from the first evaluation on"
            when = led if self.at is None else f"overtakes {self.small} at {_round(self.at)} {unit}"
            return f"{self.large} {when} and ends {-self.gap:.3f} nats ahead"
        if self.outcome < 0:
            course = "narrowing" if self.narrowing else "not narrowing"
            return f"{self.large} has not overtaken {self.small}: {self.gap:.3f} nats behind at the end, {course}"
        return (
            f"{self.large} and {self.small} are level at the end (difference {self.gap:+.3f} nats)"
        )


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far the training of one size had come when its budget ended."""

    size: Size
    steps: float
    loss: float  # at the end, nats, mean over seeds
    fall: float  # of the loss over the last fifth of its steps, nats
    plateau: (
        bool | None
    )  # None: no reference to judge by, or no plateau to be on, as with translators


@dataclasses.dataclass(frozen=True)
class Regime:
    """Everything a report says about the regime."""

    seconds: tuple[Crossing, ...]
    steps: tuple[Crossing, ...]
    progress: tuple[Progress, ...]
    leader: Size | None  # lowest mean loss at the end of the shared training seconds

    def headline(self) -> str:
        """One sentence, safe to quote alone."""
        if self.leader is None or len(self.progress) < 2:
            return "Fewer than two sizes have loss curves, so nothing can be said about which size trains faster."
        smallest = min(item.size for item in self.progress)
        won = sum(crossing.outcome > 0 for crossing in self.seconds)
        on_plateau = [str(item.size) for item in self.progress if item.plateau]
        if self.leader == smallest and not won:
            text = f"Small-model regime: {smallest}, the smallest size, leads at the end of the training budget and no "
            text += "larger size overtook a smaller one: too short a budget for these sizes to show the paper's effect"
        elif self.leader == smallest:
            text = f"Mixed regime: {smallest}, the smallest size, still leads at the end of the training budget, "
            text += f"although a larger size is ahead of a smaller one in {won} of {len(self.seconds)} pairs"
        else:
            text = f"Large-model regime: {self.leader} leads at the end of the training budget, and the larger size "
            text += f"is clearly ahead in {won} of {len(self.seconds)} pairs"
        if on_plateau:
            text += (
                f"; still on the early plateau of masked-language training: {', '.join(on_plateau)}"
            )
        falling = [str(item.size) for item in self.progress if item.fall > LOSS_MARGIN]
        if falling:
            text += f". When its budget ended the loss was still falling for {', '.join(falling)}"
        return f"{text}."


def regimes(study: Study) -> dict[Kind, Regime]:
    """The regime of each kind of model."""
    return {kind: regime(study.of(kind).curves) for kind in study.kinds}


def regime(curves: Sequence[Curve]) -> Regime:
    """Compares the loss curves of all sizes of one kind at equal training seconds and at equal steps."""
    by_size = group(sorted(curves, key=lambda curve: curve.size), lambda curve: curve.size)
    pairs = [(small, large) for small in by_size for large in by_size if small < large]
    end = shared_end(curves, "seconds") if curves else 0.0
    finals = {
        size: summarise(values_at(members, "seconds", end)).mean
        for size, members in by_size.items()
    }
    return Regime(
        seconds=tuple(
            _crossing(by_size[small], by_size[large], curves, "seconds") for small, large in pairs
        ),
        steps=tuple(
            _crossing(by_size[small], by_size[large], curves, "steps") for small, large in pairs
        ),
        progress=tuple(_progress(members) for members in by_size.values()),
        leader=min(finals, key=lambda size: finals[size], default=None),
    )


def _crossing(
    small: Sequence[Curve], large: Sequence[Curve], all_curves: Sequence[Curve], axis: str
) -> Crossing:
    both = [*small, *large]
    end = shared_end(both, axis)
    start = min(end, max(getattr(curve, axis)[0] for curve in both))
    inner = {float(cost) for curve in both for cost in getattr(curve, axis) if start < cost < end}
    grid = sorted({float(start), *inner, end})

    def gap(cost: float) -> float:
        return (
            summarise(values_at(large, axis, cost)).mean
            - summarise(values_at(small, axis, cost)).mean
        )

    gaps = [gap(cost) for cost in grid]
    spread = pool([values_at(m, axis, end) for m in group(all_curves, lambda c: c.size).values()])
    outcome = -clear(values_at(small, axis, end), values_at(large, axis, end), spread, LOSS_MARGIN)
    behind = [place for place, value in enumerate(gaps) if value >= 0]
    at = None
    if outcome > 0 and behind:
        last = behind[-1]
        share = gaps[last] / (gaps[last] - gaps[last + 1])
        at = grid[last] + share * (grid[last + 1] - grid[last])
    return Crossing(
        small[0].size, large[0].size, outcome, at, gaps[-1], gaps[-1] < gap(max(start, end / 2))
    )


def _progress(curves: Sequence[Curve]) -> Progress:
    finals = [curve.losses[-1] for curve in curves]
    falls = [
        interpolate(curve.steps, curve.losses, 0.8 * curve.steps[-1]) - curve.losses[-1]
        for curve in curves
    ]
    loss = summarise(finals).mean
    reference = _plateau(curves[0])
    steps = summarise(curve.steps[-1] for curve in curves).mean
    plateau = None if reference is None else loss > reference
    return Progress(curves[0].size, steps, loss, summarise(falls).mean, plateau)


def _plateau(curve: Curve) -> float | None:
    """The loss above which a model is on the early plateau."""
    if curve.size.kind != ENCODER:
        return None
    if curve.result.get("unigram_loss"):
        return _PLATEAU_OF_UNIGRAM * float(curve.result["unigram_loss"])
    return _PLATEAU_OF_VOCABULARY * math.log(curve.vocab_size) if curve.vocab_size > 1 else None


def _round(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
