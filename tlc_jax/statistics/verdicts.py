"""Verdicts on claims, which follow from the intervals of effects.

A verdict needs two runs of every model that is compared: with one it is a suggestion at most.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from tlc_jax.statistics.effects import Effect
from tlc_jax.statistics.kinds import ENCODER, Kind

HOLDS = "holds"
CONTRADICTED = "contradicted"
UNDECIDED = "undecided"
SUGGESTED = "suggested"
UNTESTED = "not tested"

VERDICTS = {
    HOLDS: "the 95 % interval of every effect lies on the claim's side",
    CONTRADICTED: "the interval of an effect, widened for the number of effects, lies beyond it",
    UNDECIDED: "an interval reaches to both sides, or the runs cannot be compared",
    SUGGESTED: "the numbers point to it, but one run per model cannot show it",
    UNTESTED: "the study has no data for it",
}
"""What each verdict means."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of the paper with its test and verdict.

    Attributes:
      number: its number in the paper's order; claims about translation end in -mt.
      text: the claim.
      criterion: the test, fixed before the numbers were known.
      verdict: one of `VERDICTS`.
      evidence: findings with their numbers, or what a study needs for the test.
    """

    number: str
    text: str
    criterion: str
    verdict: str = UNTESTED
    evidence: tuple[str, ...] = ()


def rule(kinds: Sequence[Kind]) -> str:
    """Says in words what counts as a run, and how effects become verdicts."""
    runs = " or ".join(f"{kind.training} run" for kind in kinds)
    nested = "finetunings of one pretrained model are averaged first; " if ENCODER in kinds else ""
    return (
        f"Every claim is put as an effect that is positive where it favors the claim. The unit of "
        f"replication is the {runs}: {nested}intervals are Student's at 95 %, with the variance "
        "of runs pooled over all sizes. A trend with size is the rise of a straight line from the "
        "smallest to the largest size over the logarithm of the parameters. Intervals "
        "take in the luck of the instances too, which all models answer, or say that they do not."
    )


def verdict(
    effects: Iterable[Effect], low: float = 0.0, high: float = math.inf, level: float = 0.95
) -> str:
    """The verdict on the claim that every effect lies between `low` and `high`.

    low=0 tests a direction; low=-margin tests that an effect is not inferior by more than a margin;
    -margin and margin test equivalence. All effects must hold at once, which needs no correction
    for their number (an intersection-union test has the level of each). One that lies outside is
    enough to contradict, so that is tested at a level divided by their number.

    Args:
      effects: of all tasks, recipes or pairs that the claim is about.
      low, high: where the claim puts them.
      level: of the confidence intervals.
    """
    effects = list(effects)
    if not effects:
        return UNTESTED
    if any(effect.run_freedom == 0 or effect.runs < 2 for effect in effects):
        points = all(low < effect.estimate < high for effect in effects)
        return SUGGESTED if points else UNDECIDED
    widened = 1 - (1 - level) / len(effects)
    if all(
        low < effect.interval(level)[0] and effect.interval(level)[1] < high for effect in effects
    ):
        return HOLDS
    for effect in effects:
        lower, upper = effect.interval(widened)
        if upper < low or lower > high:
            return CONTRADICTED
    return UNDECIDED


def described(
    effect: Effect, unit: str, scale: float = 1.0, low: float = 0.0, high: float = math.inf
) -> str:
    """Writes an effect with its interval, its runs, and how many would decide where they do not.

    Args:
      effect: of one line of evidence.
      unit: unit of the effect times `scale`.
      scale: factor before the numbers are written.
      low, high: as for `verdict`, in the unit of the effect.
    """
    text = f"effect {scale * effect.estimate:+.3g} {unit}".rstrip()
    if effect.run_freedom == 0:
        return f"{text}, one run per model"
    ends = " to ".join(f"{scale * end:+.3g}" for end in effect.interval())
    text += f", 95 % interval {ends}"
    if math.isnan(effect.test_error):
        text += " (without the luck of the instances)"
    if effect.runs < 2:
        return f"{text}, a model with one run"
    text += f", {effect.runs} runs per model"
    if verdict([effect], low, high) != UNDECIDED:
        return text
    runs = runs_to_decide(effect, low, high)
    if runs is None and effect.limited_by_test_set(_nearest(effect, low, high)):
        return f"{text}; no number of runs would decide on so few instances"
    return f"{text}; {f'about {runs}' if runs else 'not even a thousand'} would decide"


def runs_to_decide(effect: Effect, low: float = 0.0, high: float = math.inf) -> int | None:
    """Runs per model whose interval would decide, if this estimate were the truth.

    None where a thousand would not, or where the spread of runs is unknown.
    """
    runs = effect.runs_needed(_nearest(effect, low, high))
    # The estimate takes equally many runs of every model: here one may have more than another.
    return None if runs is None else max(runs, effect.runs + 1)


def _nearest(effect: Effect, low: float, high: float) -> float:
    """The bound that the interval has to exclude first."""
    return min((low, high), key=lambda end: abs(end - effect.estimate))
