"""Sentence pairs about the toy world, labelled by evaluating them against logic and the world's facts.

The hypothesis is drawn first, without a look at the label, then premises until one makes the label true: so the
hypothesis alone carries next to nothing. Most problems turn on a fact that the pair does not state (that Matine is a
midwife, and therefore a healer), which pretraining on the world's text can teach. The facts are taken as known and
complete, and every group as having members.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tlc_jax.data.toy import lexicon, terms
from tlc_jax.data.toy.dice import Dice
from tlc_jax.data.toy.grammar import participle, sentence
from tlc_jax.data.toy.logic import LABELS, infer, relation
from tlc_jax.data.toy.terms import Term, Terms
from tlc_jax.data.toy.world import World

TRIES = 60  # premises drawn for a hypothesis before another hypothesis is


class Pair(NamedTuple):
    """Premise, hypothesis, and "entailment", "neutral" or "contradiction"."""

    text: str
    pair: str
    label: str


# A problem draws a hypothesis: its text, and a function that draws a premise and the label it brings.
Problem = Callable[[Dice], tuple[str, Callable[[], tuple[str, str]]]]


def problems(world: World) -> tuple[Problem, ...]:
    """The families of problems, all equally frequent."""
    people, kinds = terms.people(world), terms.kinds(world)
    return (
        lambda dice: _deeds(dice, people),
        lambda dice: _states(dice, kinds),
        lambda dice: _voices(dice, people),
        lambda dice: _whereabouts(dice, world, people),
        lambda dice: _purchases(dice, people, kinds),
    )


def generate(world: World, dice: Dice) -> Iterator[Pair]:
    """Endless pairs; each label comes once in every three."""
    families = problems(world)
    while True:
        for wanted in dice.shuffled(LABELS):
            yield _pair(dice, dice.pick(families), wanted)


def _pair(dice: Dice, problem: Problem, wanted: str) -> Pair:
    while True:
        hypothesis, draw = problem(dice)
        for _ in range(TRIES):
            premise, label = draw()
            if label == wanted and premise != hypothesis:
                return Pair(premise, hypothesis, label)


def _quantified(
    dice: Dice, domain: Terms, say: Callable[[str, Term], str]
) -> tuple[str, Callable[[], tuple[str, str]]]:
    """Two quantified statements with one predicate over two terms."""

    def quantifier(term: Term) -> str:
        return dice.pick(("all", "some", "no", "notall") if term.many else ("all", "no"))

    term = domain.draw(dice)
    asked = quantifier(term)

    def premise() -> tuple[str, str]:
        other = domain.near(dice, term)
        given = quantifier(other)
        return say(given, other), infer(given, asked, relation(other.members, term.members))

    return say(asked, term), premise


def _deeds(dice: Dice, people: Terms) -> tuple[str, Callable[[], tuple[str, str]]]:
    """Every baker helped the king. / Matine helped the king."""
    (past, base), whom = dice.pick(lexicon.DEEDS), dice.pick(lexicon.STRANGERS)

    def say(quantifier: str, term: Term) -> str:
        if not term.many:
            did = past if quantifier == "all" else f"did not {base}"
            return f"{term.one} {did} {whom}."
        word = {"all": "every", "some": "some", "no": "no", "notall": "not every"}[quantifier]
        return sentence(f"{word} {term.one} {past} {whom}")

    return _quantified(dice, people, say)


def _states(dice: Dice, kinds: Terms) -> tuple[str, Callable[[], tuple[str, str]]]:
    """No animal was sold. / All dakots were sold."""
    state = dice.pick(lexicon.STATES)

    def say(quantifier: str, term: Term) -> str:
        if quantifier in ("all", "no") and dice.chance(0.5):
            return sentence(f"{'every' if quantifier == 'all' else 'no'} {term.one} was {state}")
        word = {"all": "all", "some": "some", "no": "no", "notall": "not all"}[quantifier]
        return sentence(f"{word} {term.many} were {state}")

    return _quantified(dice, kinds, say)


def _voices(dice: Dice, people: Terms) -> tuple[str, Callable[[], tuple[str, str]]]:
    """Matine did not help Tanrek. / Tanrek was helped by Matine."""
    past, base = dice.pick(lexicon.DEEDS)
    one = people.pick(dice)
    while (two := people.pick(dice)) == one:
        pass

    def say(who: str, whom: str, negated: bool) -> str:
        if dice.chance(0.5):
            return f"{whom} was {'not ' if negated else ''}{participle(past)} by {who}."
        return f"{who} did not {base} {whom}." if negated else f"{who} {past} {whom}."

    asked = dice.chance(0.5)

    def premise() -> tuple[str, str]:
        given, swapped = dice.chance(0.5), dice.chance(0.33)
        label = "neutral" if swapped else "entailment" if given == asked else "contradiction"
        return say(two, one, given) if swapped else say(one, two, given), label

    return say(one, two, asked), premise


def _whereabouts(dice: Dice, world: World, people: Terms) -> tuple[str, Callable[[], tuple[str, str]]]:
    """Matine is at home. / Matine is in Draredark."""
    homes = world.facts["home"]
    who, host = people.pick(dice), people.pick(dice)
    town, negated = homes[dice.pick((who, host))], dice.chance(0.3)
    asked = dice.pick((town, world.facts["land"][town]))

    def premise() -> tuple[str, str]:
        visitor = who if dice.chance(0.67) else host
        place = dice.pick((visitor, who, host, people.pick(dice)))
        where = homes[place]
        inside = asked in (where, world.facts["land"][where])
        label = "neutral" if visitor != who else "entailment" if inside != negated else "contradiction"
        return f"{visitor} is at home." if place == visitor else f"{visitor} is at the house of {place}.", label

    return f"{who} is {'not ' if negated else ''}in {asked}.", premise


def _purchases(dice: Dice, people: Terms, kinds: Terms) -> tuple[str, Callable[[], tuple[str, str]]]:
    """Tanrek bought only a dakot. / Tanrek bought a flower."""
    who, other = people.pick(dice), people.pick(dice)
    kind = kinds.pick(dice)
    group, negated = kinds.group_of(dice, kind), dice.chance(0.3)
    bought = "did not buy" if negated else "bought"

    def premise() -> tuple[str, str]:
        buyer = who if dice.chance(0.67) else other
        thing = dice.pick(sorted(group.members)) if dice.chance(0.5) else kinds.pick(dice)
        label = "neutral" if buyer != who else "entailment" if (thing in group.members) != negated else "contradiction"
        return f"{buyer} bought only {lexicon.a(thing)}.", label

    return f"{who} {bought} {lexicon.a(group.one)}.", premise
