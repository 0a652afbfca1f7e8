"""What a claim consists of: its texts, and a function that finds effects in a study."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tlc_jax.statistics.curves import by_size, measured
from tlc_jax.statistics.effects import Effect, Sample, trend
from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR, Kind, Size
from tlc_jax.statistics.records import Study
from tlc_jax.statistics.verdicts import UNDECIDED, Claim, described, runs_to_decide, verdict

# An effect, None for numbers that do not decide, or UNDECIDED; and the line of evidence.
Findings = Iterator[tuple[Effect | str | None, str]]
Test = Callable[[Study, Kind], Claim]
_Find = Callable[[Study], Findings]

POINTS = "{kind.points}"
_NATS = "nats"

# Sentences that a criterion may take in, where they apply.
_ALSO = " The same for approx_bleu is listed and does not count."
_CARE = (
    " Read with care where the dense models are far apart: one with little BLEU has little to lose."
)
STATED: list[tuple[tuple[Kind, ...], Test]] = []
"""The kinds of model that a claim is about, and its test; all claims that were declared."""


def claim(
    number: str,
    text: str,
    criterion: str,
    needed: str,
    kinds: tuple[Kind, ...] = (ENCODER, TRANSLATOR),
    low: float = 0.0,
    high: float = math.inf,
    unit: str = _NATS,
    decided_by: Callable[[Study], Study] = lambda study: study,
) -> Callable[[_Find], Test]:
    """Turns a function that finds effects in one kind's part of a study into a claim.

    Args:
      number, text, criterion: see `Claim`; text without the topic of the kind.
      needed: what a study needs for the test.
      kinds: the kinds of model that the claim is about.
      low, high: the claim says that every effect lies between them.
      unit: unit in which effects are written. Other units than nats are hundredths of an effect.
      decided_by: returns the part of the study whose runs decide, and more of which would cost what
        an undecided claim says.
    """
    scale = 1.0 if unit == _NATS else 100.0

    def register(find: _Find) -> Test:
        def test(study: Study, kind: Kind) -> Claim:
            effects, lines, comparable = [], [], True
            for found, line in find(study):
                if isinstance(found, Effect):
                    effects.append(found)
                    line += f"; {described(found, unit.format(kind=kind), scale, low, high)}"
                lines.append(line)
                comparable = comparable and found != UNDECIDED
            found_verdict = verdict(effects, low, high) if comparable else UNDECIDED
            if found_verdict == UNDECIDED and (
                cost := _cost(decided_by(study), effects, low, high)
            ):
                lines.append(cost)
            also = _ALSO if len(measured(study.curves)) > 1 else ""
            care = _CARE if kind == TRANSLATOR else ""
            return Claim(
                f"{number}-mt" if kind == TRANSLATOR else number,
                kind.titled(text.format(kind=kind)),
                criterion.format(kind=kind, also=also, care=care),
                found_verdict,
                tuple(lines or [needed]),
            )

        STATED.append((kinds, test))
        return test

    return register


def _cost(study: Study, effects: Sequence[Effect], low: float, high: float) -> str:
    """Says what deciding would cost; empty where more runs would not, or their time is unknown."""
    open_ = [effect for effect in effects if verdict([effect], low, high) == UNDECIDED]
    needed = [runs_to_decide(effect, low, high) for effect in open_]
    times = [
        statistics.fmean(curve.seconds[-1] for curve in curves)
        for curves in by_size(study.curves).values()
    ]
    if not times or not needed or None in needed:
        return ""
    more = max(
        runs - effect.runs for runs, effect in zip(needed, open_, strict=True) if runs is not None
    )
    hours = more * sum(times) / 3600
    return (
        f"to decide: {more} more {'run' if more == 1 else 'runs'} of each size, {hours:.2g} hours "
        f"of {study.kind.training} here, and what follows it"
    )


def several(sizes: Iterable[Size]) -> bool:
    """Whether there are sizes of at least two numbers of parameters, as a trend needs."""
    return len({size.params for size in sizes}) > 1


def rise(samples: Mapping[Size, Sample]) -> Effect:
    """The trend of values of independent runs, which are better larger, over `several` sizes."""
    return trend([size.params for size in samples], list(samples.values()))
