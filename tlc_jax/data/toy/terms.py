"""Noun phrases with what they stand for: single people and kinds, and the groups that the world's facts make."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from tlc_jax.data.toy.dice import Dice
from tlc_jax.data.toy.lexicon import plural
from tlc_jax.data.toy.world import World


@dataclasses.dataclass(frozen=True)
class Term:
    """A set of people or kinds and its name, one and many; the name of a single person has no `many`."""

    one: str
    many: str
    members: frozenset[str]


class Terms:
    """The terms of one domain: `single` ones by member, `groups` by what makes them a group."""

    def __init__(
        self, single: Mapping[str, Term], groups: Sequence[Sequence[Term]], pick: Callable[[Dice], str]
    ) -> None:
        self.single = single
        self._groups = [[term for term in terms if len(term.members) > 1] for terms in groups]
        self.pick = pick  # draws a member, the much talked about more often
        self._around: dict[str, list[Term]] = {member: [] for member in single}
        for term in (term for terms in self._groups for term in terms):
            for member in term.members:
                self._around[member].append(term)
        self._roster = {term: sorted(term.members) for terms in self._groups for term in terms}

    def draw(self, dice: Dice) -> Term:
        """A single term or a group: one of those that someone much talked about belongs to."""
        member = self.pick(dice)
        return self.single[member] if dice.chance(0.5) else self.group_of(dice, member)

    def group_of(self, dice: Dice, member: str) -> Term:
        """One of the groups that a member belongs to."""
        return dice.pick(self._around[member])

    def near(self, dice: Dice, term: Term) -> Term:
        """A term to compare with: often one inside or around it, else any."""
        if dice.chance(0.4):
            return self.draw(dice)
        member = dice.pick(self._roster[term]) if term in self._roster else next(iter(term.members))
        if term in self._roster and dice.chance(0.6):
            return self.single[member]
        return dice.pick(self._around[member])


def _groups(facts: Mapping[str, str], one: str, many: str) -> list[Term]:
    """The groups of subjects that share an object, named after it."""
    members: dict[str, set[str]] = {}
    for subject, value in facts.items():
        members.setdefault(value, set()).add(subject)
    return [
        Term(one.format(value), many.format(plural(value) if many == "{}" else value), frozenset(of_it))
        for value, of_it in members.items()
    ]


def _above(facts: Mapping[str, str], wider: Mapping[str, str]) -> dict[str, str]:
    return {subject: wider[value] for subject, value in facts.items()}


def people(world: World) -> Terms:
    """The people, and the groups of one trade, kind of trade, town, land, liking or instrument."""
    facts = world.facts
    groups = [
        _groups(facts["trade"], "{}", "{}"),
        _groups(_above(facts["trade"], world.wider), "{}", "{}"),
        _groups(facts["home"], "person from {}", "people from {}"),
        _groups(_above(facts["home"], facts["land"]), "person from {}", "people from {}"),
        _groups(facts["likes"], "lover of {}", "lovers of {}"),
        _groups(facts["plays"], "player of the {}", "players of the {}"),
    ]
    single = {name: Term(name, "", frozenset([name])) for name in world.people}
    return Terms(single, groups, world.talk["person"].pick)


def kinds(world: World) -> Terms:
    """The kinds of animals, plants and tools, and the groups of one class, wider class, colour, size or place."""
    facts = world.facts
    groups = [
        _groups(facts["class"], "{}", "{}"),
        _groups(_above(facts["class"], world.wider), "{}", "{}"),
        _groups(facts["colour"], "{} thing", "{} things"),
        _groups(facts["bulk"], "{} thing", "{} things"),
        _groups(facts["place"], "thing from the {}", "things from the {}"),
    ]
    single = {kind: Term(kind, plural(kind), frozenset([kind])) for kind in world.kinds}
    return Terms(single, groups, world.talk["kind"].pick)
