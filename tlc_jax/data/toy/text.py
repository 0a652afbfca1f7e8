"""Running text about the toy world: documents of paragraphs, each about one person, town, land or kind.

The facts come back again and again in several wordings, so a word of them can be predicted by whoever remembers the
fact; names, pronouns, agreement and restatements can be predicted from the context alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

from tlc_jax.data.toy import grammar, lexicon
from tlc_jax.data.toy.dice import Dice
from tlc_jax.data.toy.grammar import BY_SORT, RELATIONS, phrase, sentence
from tlc_jax.data.toy.world import World

COUPLES = 0.7  # of the paragraphs on people are about a woman and a man in turn: pronouns must be resolved
HELD_OUT = 8  # one line in so many belongs to the validation split


def belongs(text: str, split: str) -> bool:
    """Whether a line may appear in a split: its checksum decides, so that no line is in both, whatever the seeds."""
    return (zlib.crc32(text.encode()) % HELD_OUT == 0) == (split == "valid")


class Writer:
    """Writes sentences about a world, by the rolls of one seed."""

    def __init__(self, world: World, dice: Dice) -> None:
        self.world, self.dice = world, dice
        self._objects = {name: tuple(dict.fromkeys(values.values())) for name, values in world.facts.items()}

    def paragraph(self, sort: str, names: Sequence[str]) -> str:
        """A few sentences about one subject, or about two in turn; facts do not repeat unless they are restated."""
        dice = self.dice
        told: list[str] = []
        many = sort == "kind" and dice.chance(0.6)
        untold = {name: dice.shuffled([r for r in BY_SORT[sort] if name in self.world.facts[r]]) for name in names}
        for number in range(3 + int(dice.roll() * 3)):
            name = names[number] if number < len(names) else dice.pick(names)
            relations = tuple(untold[name].pop() for _ in range(min(len(untold[name]), 2 if dice.chance(0.4) else 1)))
            if not relations:
                break
            subject = self.subject(sort, name, many, first=number < len(names))
            told.append(sentence(self.clause(sort, name, subject, many, relations)))
            if sort == "person" and dice.chance(0.12):
                told.append(self.deed(name))
        return " ".join(told)

    def subject(self, sort: str, name: str, many: bool, first: bool) -> str:
        """A noun phrase for the subject, a pronoun at times once it has been named."""
        if not first and self.dice.chance(0.6):
            if many:
                return "they"
            if sort == "person":
                return "she" if name in self.world.women else "he"
            return "it"
        if sort != "kind":
            return name
        if many:
            return self.dice.pick(("all ", "", "")) + lexicon.plural(name)
        return self.dice.pick(("every ", "the ", "a ")) + name

    def clause(self, sort: str, name: str, subject: str, many: bool, relations: tuple[str, ...]) -> str:
        """One sentence that tells the facts of one or two relations."""
        dice = self.dice
        first = self.said(relations[0], name, many)
        if len(relations) == 1:
            return self.single(sort, name, subject, many, relations[0], first)
        second = self.said(relations[1], name, many)
        if subject in ("he", "she", "it", "they") or dice.chance(0.5):
            return f"{subject} {first} and {second}"
        if sort == "land" or sort == "town":
            return f"{subject}, which {first}, {second}"
        return f"{subject}, who {first}, {second}" if sort == "person" else f"{subject} that {first} {second}"

    def single(self, sort: str, name: str, subject: str, many: bool, relation: str, said: str) -> str:
        dice, value = self.dice, self.world.facts[relation][name]
        roll = dice.roll()
        if roll < 0.15:
            return f"{subject} {self.denied(relation, name, many)}"
        if roll < 0.35 and RELATIONS[relation].turned:
            named = lexicon.plural(name) if sort == "kind" else name
            return grammar.turn(dice.pick(RELATIONS[relation].turned), value, named)
        if roll < 0.5 and value in self.world.wider:
            above = self.world.wider[value]
            wide = phrase(RELATIONS[relation].says[0], above, many)
            return f"{subject} {said}, so {subject} {wide}"
        if roll < 0.6 and sort == "kind":
            other = phrase(dice.pick(RELATIONS[relation].says), self.wrong(relation, value))
            return f"no {name} {other}"
        return f"{subject} {said}"

    def said(self, relation: str, name: str, many: bool) -> str:
        return phrase(self.dice.pick(RELATIONS[relation].says), self.world.facts[relation][name], many)

    def denied(self, relation: str, name: str, many: bool) -> str:
        value = self.world.facts[relation][name]
        no = phrase(self.dice.pick(RELATIONS[relation].denies), self.wrong(relation, value), many)
        if self.dice.chance(0.5):
            return no
        return f"{no} but {self.said(relation, name, many)}"

    def wrong(self, relation: str, right: str) -> str:
        """A value that some other subject has."""
        while (value := self.dice.pick(self._objects[relation])) == right:
            pass
        return value

    def deed(self, name: str) -> str:
        """Something that happened between two people, told twice: in the active and in the passive."""
        dice = self.dice
        other = self.world.talk["person"].pick(dice)
        past, base = dice.pick(lexicon.DEEDS)
        if other == name:
            return sentence(f"{name} {past} {dice.pick(lexicon.STRANGERS)}")
        if dice.chance(0.5):
            name, other = other, name
        if dice.chance(0.5):
            return f"{name} {past} {other}, so {other} was {grammar.participle(past)} by {name}."
        return f"{name} did not {base} {other}, so {other} was not {grammar.participle(past)} by {name}."


_FOCUS = ("person",) * 9 + ("kind",) * 6 + ("town",) * 4 + ("land",)


def documents(world: World, dice: Dice) -> Iterator[list[str]]:
    """Endless documents of four to eight paragraphs."""
    writer = Writer(world, dice)
    while True:
        document = []
        for _ in range(4 + int(dice.roll() * 5)):
            sort = dice.pick(_FOCUS)
            names = [world.talk[sort].pick(dice)]
            if sort == "person" and dice.chance(COUPLES):
                names.append(_counterpart(world, dice, names[0]))
            document.append(writer.paragraph(sort, names))
        yield document


def _counterpart(world: World, dice: Dice, name: str) -> str:
    """Someone who is called by the other pronoun."""
    while ((other := world.talk["person"].pick(dice)) in world.women) == (name in world.women):
        pass
    return other
