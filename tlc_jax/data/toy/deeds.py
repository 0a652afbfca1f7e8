"""Sentences of the toy translations that tell what happens, and why, when and on what condition."""

from __future__ import annotations

from tlc_jax.data.toy.clauses import Clause
from tlc_jax.data.toy.parts import Parts, gendered, linked, rendered, untold
from tlc_jax.data.toy.parts_tables import (
    DEED_TENSES,
    FREE,
    OBJECTS,
    PERSON,
    TIMES,
    translated,
)
from tlc_jax.data.toy.phrases import PRONOUNS, Said, phrase, replaced
from tlc_jax.data.toy.pools import verbs

_WEATHER = {  # by tense
    "present": translated(
        "it rains=il pleut; it snows=il neige; the weather is cold=il fait froid; the weather is hot=il fait chaud"
    ),
    "progressive": translated("it is raining=il pleut; it is snowing=il neige"),
    "past": translated("it was raining=il pleuvait; it was snowing=il neigeait; the weather was cold=il faisait froid"),
}
_LINKS = translated("and=et; and=et; but=mais")


def _comma(said: Said) -> Said:
    return f"{said[0]},", (*said[1][:-1], f"{said[1][-1]},")


class Deeds(Parts):
    """Sentences of one clause or two about deeds."""

    def report(self) -> tuple[Said, str]:
        """The king is hiding a crown."""
        subject, tense = self.subject(), self.dice.pick(DEED_TENSES)
        if tense in TIMES and self.dice.chance(0.12):
            clause = self.deed(subject, tense, timed=False)
            if not clause.verb.state:
                return linked(_comma(self.time(tense)), rendered(clause)), "."
        return rendered(self.deed(subject, tense, self.negation(tense))), "."

    def own(self) -> tuple[Said, str]:
        """The baker lost her key."""
        dice = self.dice
        subject = self.until(gendered, lambda: self.someone(clue=True))
        tense = dice.pick(DEED_TENSES)
        verb = self.verb(subject, tense, verbs(subject.tags, OBJECTS | PERSON, "direct"))
        tags = verb.objects - {"person"} | (frozenset(("kin",)) if "person" in verb.objects else frozenset())
        noun = self.noun(tags)
        many = noun.plural() and dice.chance(0.3)
        owned = phrase(noun, PRONOUNS[subject.stands].possessive, many, self.described(noun))
        return rendered(Clause(subject, verb, tense, owned, negation=self.negation(tense))), "."

    def sequel(self) -> tuple[Said, str]:
        """The girl bought a hat, but she lost it."""
        dice = self.dice
        another = dice.chance(0.2)
        subject = self.subject(clue=not another)
        tense = dice.pick(("past", "past", "past", "present", "future", "near"))
        first = self.verb(subject, tense, verbs(subject.tags, OBJECTS, "direct"))
        given = self.until(
            lambda given: given.stands != subject.stands,
            lambda: self.common(self.noun(first.objects - PERSON), FREE, subject.stands),
        )
        actor = self.next(None if another else subject)
        choices = verbs(actor.tags, given.tags, "direct")
        second = self.until(lambda verb: verb.base != first.base, lambda: self.verb(actor, tense, choices))
        follows = Clause(actor, second, tense, replaced(given), negation="not" if dice.chance(0.2) else "")
        link = dice.pick(_LINKS)
        start = rendered(Clause(subject, first, tense, given))
        whole = linked(_comma(start) if link[0] == "but" else start, link, rendered(follows))
        if tense in TIMES and not first.state and dice.chance(0.15):
            whole = linked(_comma(self.time(tense)), whole)
        return whole, "."

    def reason(self) -> tuple[Said, str]:
        """The horses are resting because they are tired."""
        dice = self.dice
        subject = self.subject(clue=True)
        tense = dice.pick(("past", "past", "present", "progressive", "future"))
        main = self.deed(subject, tense, self.negation(tense), avoid=subject.stands, placed=subject.stands != "it")
        then = "past" if tense == "past" else "present"
        if dice.chance(0.1) and not untold(subject):
            because = dice.pick(_WEATHER["past" if tense == "past" else dice.pick(("present", "progressive"))])
        else:
            because = rendered(self.ground(replaced(subject), then))
        return linked(rendered(main), ("because", ("parce", "que")), because), "."

    def when(self) -> tuple[Said, str]:
        """When the queen arrived, the dog was sleeping."""
        dice = self.dice
        same = dice.chance(0.3)
        if not same and dice.chance(0.5):
            occasion, main = dice.pick(_WEATHER["present"]), rendered(self.deed(self.subject(), "present", timed=False))
        else:
            subject = self.subject(clue=same)
            occasion = rendered(self.deed(subject, "past", avoid=subject.stands, timed=False, placed=False))
            actor = self.next(subject if same else None)
            main = rendered(self.deed(actor, dice.pick(("past", "was doing")), timed=False))
        return self._around(("when", ("quand",)), occasion, main, same), "."

    def _around(self, conjunction: Said, clause: Said, main: Said, first: bool) -> Said:
        """A subordinate clause before or after the main one: before it if that has a pronoun for something in it."""
        clause = linked(conjunction, clause)
        return linked(_comma(clause), main) if first or self.dice.chance(0.5) else linked(main, clause)

    def meanwhile(self) -> tuple[Said, str]:
        """While the king was sleeping, a thief stole the crown."""
        during = self.deed(self.subject(), "was doing", timed=False)
        main = self.deed(self.next(None), self.dice.pick(("past", "past", "was doing")), timed=False)
        return self._around(("while", ("pendant", "que")), rendered(during), rendered(main), False), "."

    def condition(self) -> tuple[Said, str]:
        """If it rains, we will stay at the hotel."""
        dice = self.dice
        same = dice.chance(0.3)
        if not same and dice.chance(0.55):
            case, main = dice.pick(_WEATHER["present"]), self.deed(self.subject(), "future", self.negation("past"))
        else:
            subject = self.subject(clue=same)
            case = rendered(
                self.deed(subject, "present", dice.pick(("", "", "not")), avoid=subject.stands, timed=False)
            )
            main = self.deed(self.next(subject if same else None), "future")
        return self._around(("if", ("si",)), case, rendered(main), same), "."
