"""What follows from what: quantified statements about sets, decided by trying every way the world could be.

A statement is a quantifier over a set ("all", "some", "no", "notall") and one predicate, the same for premise and
hypothesis: which members it is true of is left open. A name is a set of one.
"""

from __future__ import annotations

import functools
import itertools

QUANTIFIERS = ("all", "some", "no", "notall")
LABELS = ("entailment", "neutral", "contradiction")


def holds(quantifier: str, some: bool, others: bool) -> bool:
    """Whether a statement is true of a set in which `some` member has the predicate, and some other (`others`) not."""
    return {"all": not others, "some": some, "no": not some, "notall": others}[quantifier]


def relation(first: frozenset[str], second: frozenset[str]) -> str:
    """How two non-empty sets lie: equal, inside, around, apart or across."""
    if first == second:
        return "equal"
    if first < second:
        return "inside"
    if first > second:
        return "around"
    return "across" if first & second else "apart"


# The parts of the picture that have members, as (in the first set, in the second set).
_PARTS = {
    "equal": ((True, True),),
    "inside": ((True, True), (False, True)),
    "around": ((True, True), (True, False)),
    "apart": ((True, False), (False, True)),
    "across": ((True, True), (True, False), (False, True)),
}


@functools.cache
def infer(premise: str, hypothesis: str, lie: str) -> str:
    """The label of `hypothesis` over the second set given `premise` over the first, by enumerating all models.

    Each part of the picture may have the predicate true of all its members, of none, or of some.
    """
    parts = _PARTS[lie]
    outcomes = set()
    for fills in itertools.product(((True, False), (False, True), (True, True)), repeat=len(parts)):
        truth = []
        for side, quantifier in enumerate((premise, hypothesis)):
            inside = [fill for part, fill in zip(parts, fills, strict=True) if part[side]]
            truth.append(holds(quantifier, any(yes for yes, _ in inside), any(no for _, no in inside)))
        if truth[0]:
            outcomes.add(truth[1])
    if len(outcomes) > 1:
        return "neutral"
    return "entailment" if True in outcomes else "contradiction"
