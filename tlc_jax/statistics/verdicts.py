"""A claim with its verdict, and how the numbers behind it are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tlc_jax.statistics.frontier import summarise
from tlc_jax.statistics.kinds import ENCODER, Kind, Size

HOLDS, FAILS, UNTESTED = "holds", "does not hold", "not tested"


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim, the test it was put to, what was found and the verdict."""

    number: str  # of the claim in the paper's order
    text: str
    criterion: str
    verdict: str
    evidence: tuple[str, ...]  # one finding each, with the numbers


def headed(kind: Kind, number: str, text: str) -> tuple[str, str]:
    """Number and text of a claim about a kind of model: what is 1a for encoders is 1a-mt for translators."""
    return (number if kind == ENCODER else f"{number}-mt"), kind.titled(text)


def points(values: Sequence[float]) -> str:
    """Scores, or differences of scores, times 100."""
    return summarise(values).written(".1f", 100)


def percent(values: Sequence[float]) -> str:
    """Accuracies, with the number of seeds."""
    return f"{points(values)} % (n={len(values)})"


def millions(size: Size) -> str:
    """Parameters in millions."""
    return f"{size.params / 1e6:.3g} M"
