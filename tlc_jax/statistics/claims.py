"""The claims of "Train Large, Then Compress" (Li et al., 2020), each tested on one study.

A claim without data is "not tested" and says what it needs. Claims about a kind of model that a
study does not have are left out.
"""

from __future__ import annotations

# Imported because each declares its claims when it is.
from tlc_jax.statistics import axis_claims, compression_claims, training_claims  # noqa: F401
from tlc_jax.statistics.records import Study
from tlc_jax.statistics.statement import STATED
from tlc_jax.statistics.verdicts import Claim


def evaluate(study: Study) -> list[Claim]:
    """All claims in the paper's order; a claim about translation ends in -mt."""
    found = [
        test(study.of(kind), kind)
        for kind in study.kinds
        for kinds, test in STATED
        if kind in kinds
    ]
    return sorted(found, key=lambda claim: claim.number)  # digits sort before "control"
