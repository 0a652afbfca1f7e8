"""The regime of training of a study: which size leads when, and whose curves cross.

The paper's effect appears once every size has read enough text. Before that small models lead,
because they read more. A report must say which of the two a study shows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from tlc_jax.statistics.curves import Curve, by_size, mean_at, shared_costs, shared_end, values_at
from tlc_jax.statistics.frontier import summarize
from tlc_jax.statistics.kinds import ENCODER, Kind, Size
from tlc_jax.statistics.records import Study
from tlc_jax.statistics.uncertainty import LOSS_MARGIN, clear, pool

# A loss above this share of its reference counts as the early plateau, on which a model knows how
# frequent tokens are and little else. The reference is the entropy of single tokens where the
# pretraining run reports it; otherwise it is the logarithm of the vocabulary, of which that entropy
# is roughly three quarters.
_PLATEAU_OF_UNIGRAM = 0.8
_PLATEAU_OF_VOCABULARY = 0.6


@dataclasses.dataclass(frozen=True)
class Crossing:
    """A larger size against a smaller one, by mean validation loss at equal cost.

    Attributes:
      small, large: the two sizes.
      outcome: at the end of the shared budget: 1 where the larger is clearly ahead, -1 where it is
        clearly behind, else 0.
      at: cost from which on the larger is ahead; None where it never is, or always was.
      gap: loss of the larger minus loss of the smaller at the end, in nats.
      narrowing: whether that gap fell over the second half of the shared budget.
    """

    small: Size
    large: Size
    outcome: int
    at: float | None
    gap: float
    narrowing: bool

    def describe(self, unit: str) -> str:
        if self.outcome > 0:
            when = f"leads {self.small} from the first evaluation on"
            if self.at is not None:
                at = f"{self.at:,.0f}" if self.at >= 100 else f"{self.at:.3g}"
                when = f"overtakes {self.small} at {at} {unit}"
            return f"{self.large} {when} and ends {-self.gap:.3f} nats ahead"
        if self.outcome < 0:
            course = "narrowing" if self.narrowing else "not narrowing"
            return (
                f"{self.large} has not overtaken {self.small}: "
                f"{self.gap:.3f} nats behind at the end, {course}"
            )
        return (
            f"{self.large} and {self.small} are level at the end (difference {self.gap:+.3f} nats)"
        )


@dataclasses.dataclass(frozen=True)
class Progress:
    """The state of one size when its budget ended.

    Attributes:
      size, steps, loss: the size, its optimizer steps and loss (nats), means over seeds.
      fall: fall of the loss over the last fifth of the steps, in nats.
      plateau: whether the loss is on the early plateau; None without a reference, and for
        translators, which have none.
    """

    size: Size
    steps: float
    loss: float
    fall: float
    plateau: bool | None


@dataclasses.dataclass(frozen=True)
class Regime:
    """Which size leads, and what every size reached.

    Attributes:
      seconds: the crossings at equal training seconds.
      progress: of each size, the smallest first.
      leader: the size of the lowest mean loss at the end of the shared training seconds.
    """

    seconds: tuple[Crossing, ...]
    progress: tuple[Progress, ...]
    leader: Size | None

    def headline(self) -> str:
        """Says in one sentence which regime the study shows."""
        if self.leader is None or len(self.progress) < 2:
            return (
                "Fewer than two sizes have loss curves, "
                "so nothing can be said about which size trains faster."
            )
        smallest = min(item.size for item in self.progress)
        won = sum(crossing.outcome > 0 for crossing in self.seconds)
        if self.leader != smallest:
            text = (
                f"Large-model regime: {self.leader} leads at the end of the training budget, and "
                f"the larger size is clearly ahead in {won} of {len(self.seconds)} pairs"
            )
        elif won:
            text = (
                f"Mixed regime: {smallest}, the smallest size, still leads at the end of the "
                "training budget, although a larger size is ahead of a smaller one in "
                f"{won} of {len(self.seconds)} pairs"
            )
        else:
            text = (
                f"Small-model regime: {smallest}, the smallest size, leads at the end of the "
                "training budget and no larger size overtook a smaller one: too short a budget for "
                "these sizes to show the paper's effect"
            )
        if sizes := ", ".join(str(item.size) for item in self.progress if item.plateau):
            text += f"; still on the early plateau of masked-language training: {sizes}"
        if sizes := ", ".join(str(item.size) for item in self.progress if item.fall > LOSS_MARGIN):
            text += f". When its budget ended the loss was still falling for {sizes}"
        return f"{text}."


def regimes(study: Study) -> dict[Kind, Regime]:
    """Returns the regime of each kind of model."""
    return {kind: regime(study.of(kind).curves) for kind in study.kinds}


def regime(curves: Sequence[Curve]) -> Regime:
    """Returns the regime of the curves of all sizes of one kind."""
    sizes = by_size(curves)
    end = shared_end(curves, "seconds") if curves else 0.0
    finals = {size: mean_at(own, "seconds", end) for size, own in sizes.items()}
    return Regime(
        seconds=crossings(curves, "seconds"),
        progress=tuple(_progress(own) for own in sizes.values()),
        leader=min(finals, key=lambda size: finals[size], default=None),
    )


def crossings(curves: Sequence[Curve], axis: str) -> tuple[Crossing, ...]:
    """Compares all pairs of sizes of one kind; `axis` is "seconds" or "steps"."""
    pairs = combinations(by_size(curves).values(), 2)
    return tuple(_crossing(small, large, curves, axis) for small, large in pairs)


def _crossing(
    small: Sequence[Curve], large: Sequence[Curve], all_curves: Sequence[Curve], axis: str
) -> Crossing:
    def gap(cost: float) -> float:
        return mean_at(large, axis, cost) - mean_at(small, axis, cost)

    costs = shared_costs([*small, *large], axis)
    gaps, end = [gap(cost) for cost in costs], costs[-1]
    # The spread of seeds is pooled over all sizes, not over these two: more degrees of freedom.
    spread = pool([values_at(own, axis, end) for own in by_size(all_curves).values()])
    # Losses are better smaller, and `clear` is positive where the second is larger.
    outcome = -clear(values_at(small, axis, end), values_at(large, axis, end), spread, LOSS_MARGIN)
    behind = [place for place, value in enumerate(gaps) if value >= 0]
    at = None
    if outcome > 0 and behind:
        # The larger one may overtake several times: the last time counts. Reversed, because
        # numpy.interp needs rising gaps.
        around = slice(behind[-1], behind[-1] + 2)
        at = float(np.interp(0.0, gaps[around][::-1], costs[around][::-1]))
    narrowing = gaps[-1] < gap(max(costs[0], end / 2))
    return Crossing(small[0].size, large[0].size, outcome, at, gaps[-1], narrowing)


def _progress(curves: Sequence[Curve]) -> Progress:
    loss = summarize(curve.losses[-1] for curve in curves).mean
    falls = [values_at([c], "steps", 0.8 * c.steps[-1])[0] - c.losses[-1] for c in curves]
    reference = _plateau(curves[0])
    return Progress(
        size=curves[0].size,
        steps=summarize(curve.steps[-1] for curve in curves).mean,
        loss=loss,
        fall=summarize(falls).mean,
        plateau=None if reference is None else loss > reference,
    )


def _plateau(curve: Curve) -> float | None:
    """Returns the loss above which a model is on the early plateau."""
    if curve.size.kind != ENCODER:
        return None
    if curve.result.get("unigram_loss"):
        return _PLATEAU_OF_UNIGRAM * float(curve.result["unigram_loss"])
    return _PLATEAU_OF_VOCABULARY * math.log(curve.vocab_size) if curve.vocab_size > 1 else None
