"""The regime of training of a study: which size leads when, and whose curves cross.

The paper's effect appears once every size has read enough text. Before that small models lead,
because they read more. A report must say which of the two a study shows, if it shows either: a lead
counts where its interval excludes zero, which takes two runs of a size.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from tlc_jax.statistics.curves import (
    LOSS_MARGIN,
    Curve,
    by_size,
    loss_sample,
    mean_at,
    shared_costs,
    shared_end,
    values_at,
)
from tlc_jax.statistics.effects import Effect, weigh
from tlc_jax.statistics.frontier import summarize
from tlc_jax.statistics.kinds import ENCODER, Kind, Size
from tlc_jax.statistics.records import Study

# A loss above this share of its reference counts as the early plateau, on which a model knows how
# frequent tokens are and little else. The reference is the entropy of single tokens where the
# pretraining run reports it; otherwise it is the logarithm of the vocabulary, of which that entropy
# is roughly three quarters.
PLATEAU_OF_UNIGRAM = 0.8
_PLATEAU_OF_VOCABULARY = 0.6


@dataclasses.dataclass(frozen=True)
class Crossing:
    """A larger size against a smaller one, by mean validation loss at equal cost.

    Attributes:
      small, large: the two sizes.
      lead: loss of the smaller minus loss of the larger at the end of the shared budget, in nats.
      level: of the interval of the lead, such that those of all pairs hold at once in 95 % of
        studies.
      at: cost from which on the larger is ahead; None where it never is, or always was.
      narrowing: whether the lead grew over the second half of the shared budget.
    """

    small: Size
    large: Size
    lead: Effect
    level: float
    at: float | None
    narrowing: bool

    @property
    def shown(self) -> bool:
        """Whether both sizes have the two runs without which a lead may be luck."""
        return self.lead.runs > 1

    @property
    def outcome(self) -> int:
        """1 where the larger is ahead at the end, -1 where it is behind, 0 where they are level.

        It is ahead where the interval of its lead excludes zero. With a single run it seems so
        where the lead exceeds the least that is worth speaking of.
        """
        low, high = self.lead.interval(self.level)
        if not self.shown:
            low, high = self.lead.estimate - LOSS_MARGIN, self.lead.estimate + LOSS_MARGIN
        return 1 if low > 0 else -1 if high < 0 else 0

    def describe(self, unit: str) -> str:
        return f"{self._course(unit)} ({self._certainty()})"

    def _course(self, unit: str) -> str:
        lead = self.lead.estimate
        if self.outcome > 0:
            when = f"leads {self.small} from the first evaluation on"
            if self.at is not None:
                at = f"{self.at:,.0f}" if self.at >= 100 else f"{self.at:.3g}"
                when = f"overtakes {self.small} at {at} {unit}"
            return f"{self.large} {when} and ends {lead:.3f} nats ahead"
        if self.outcome < 0:
            course = "narrowing" if self.narrowing else "not narrowing"
            return (
                f"{self.large} has not overtaken {self.small}: "
                f"{-lead:.3f} nats behind at the end, {course}"
            )
        return f"{self.large} and {self.small} are level at the end (lead {lead:+.3f} nats)"

    def _certainty(self) -> str:
        if not self.shown:
            return "one run per size: suggested at most"
        low, high = self.lead.interval(self.level)
        return (
            f"its lead: 95 % interval over all pairs {low:+.3f} to {high:+.3f}, "
            f"{self.lead.runs} runs per size"
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
      end: training seconds that every run had.
      leader: the size of the lowest mean loss at `end`.
    """

    seconds: tuple[Crossing, ...]
    progress: tuple[Progress, ...]
    end: float
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
        at_end = f"after the {self.end:,.0f} training seconds that every run had"
        # Of the smallest size against the others: whether the leader is ahead of it, and whether it
        # is ahead of any.
        against = {pair.large: pair.outcome for pair in self.seconds if pair.small == smallest}
        if against.get(self.leader, 0) > 0:
            text = (
                f"Large-model regime: {self.leader} leads {at_end}, and the larger size "
                f"is ahead in {won} of {len(self.seconds)} pairs"
            )
        elif won:
            leads = f"{smallest}, the smallest size, still leads"
            if self.leader != smallest:
                leads = f"{self.leader} leads, not surely ahead of {smallest}, the smallest size,"
            text = (
                f"Mixed regime: {leads} {at_end}, although a larger size is ahead of a smaller one "
                f"in {won} of {len(self.seconds)} pairs"
            )
        elif self.leader == smallest and min(against.values()) < 0:
            text = (
                f"Small-model regime: {smallest}, the smallest size, leads {at_end}, and no "
                "larger size overtook a smaller one: too short a time for these sizes to show the "
                "paper's effect"
            )
        else:
            text = (
                f"Undecided regime: {self.leader} has the lowest mean loss {at_end}, but no "
                f"larger size is surely ahead of a smaller one, nor is {smallest} surely ahead of "
                "a larger one"
            )
        if sizes := ", ".join(str(item.size) for item in self.progress if item.plateau):
            text += f"; still on the early plateau of masked-language training: {sizes}"
        if sizes := ", ".join(str(item.size) for item in self.progress if item.fall > LOSS_MARGIN):
            text += f". When its budget ended the loss was still falling for {sizes}"
        if not all(crossing.shown for crossing in self.seconds):
            text += ". One run per size can suggest this but cannot show it"
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
        end=end,
        leader=min(finals, key=lambda size: finals[size], default=None),
    )


def crossings(curves: Sequence[Curve], axis: str) -> tuple[Crossing, ...]:
    """Compares all pairs of sizes of one kind; `axis` is "seconds" or "steps"."""
    sizes = by_size(curves)
    pairs = list(combinations(sizes, 2))
    # Bonferroni: of many pairs, some would be apart by luck.
    return tuple(_crossing(*pair, sizes, axis, 1 - 0.05 / len(pairs)) for pair in pairs)


def _crossing(
    first: Size, second: Size, sizes: Mapping[Size, Sequence[Curve]], axis: str, level: float
) -> Crossing:
    small, large = sizes[first], sizes[second]

    def gap(cost: float) -> float:
        return mean_at(large, axis, cost) - mean_at(small, axis, cost)

    costs = shared_costs([*small, *large], axis)
    gaps, end = [gap(cost) for cost in costs], costs[-1]
    # The variance of runs is pooled over all sizes, not over these two: more degrees of freedom.
    losses = [loss_sample(own, values_at(own, axis, end)) for own in sizes.values()]
    lead = weigh(losses, [float(size == first) - float(size == second) for size in sizes])
    behind = [place for place, value in enumerate(gaps) if value >= 0]
    at = None
    if behind and behind[-1] + 1 < len(gaps):
        # The larger one may overtake several times: the last time counts. Reversed, because
        # numpy.interp needs rising gaps.
        around = slice(behind[-1], behind[-1] + 2)
        at = float(np.interp(0.0, gaps[around][::-1], costs[around][::-1]))
    narrowing = gaps[-1] < gap(max(costs[0], end / 2))
    return Crossing(first, second, lead, level, at, narrowing)


def _progress(curves: Sequence[Curve]) -> Progress:
    loss = summarize(curve.losses[-1] for curve in curves).mean
    falls = [values_at([c], "steps", 0.8 * c.steps[-1])[0] - c.losses[-1] for c in curves]
    reference = plateau_loss(curves[0])
    return Progress(
        size=curves[0].size,
        steps=summarize(curve.steps[-1] for curve in curves).mean,
        loss=loss,
        fall=summarize(falls).mean,
        plateau=None if reference is None else loss > reference,
    )


def plateau_loss(curve: Curve) -> float | None:
    """Returns the loss above which a model is on the early plateau."""
    if curve.size.kind != ENCODER:
        return None
    if curve.result.get("unigram_loss"):
        return PLATEAU_OF_UNIGRAM * float(curve.result["unigram_loss"])
    return _PLATEAU_OF_VOCABULARY * math.log(curve.vocab_size) if curve.vocab_size > 1 else None
