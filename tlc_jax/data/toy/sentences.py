"""The kinds of sentences of the toy translations, and how often each is drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tlc_jax.data.toy import lexicon
from tlc_jax.data.toy.clauses import BE, NEGATIONS, Clause
from tlc_jax.data.toy.deeds import Deeds
from tlc_jax.data.toy.descriptions import Descriptions
from tlc_jax.data.toy.dice import Dice
from tlc_jax.data.toy.french import conjugate, join
from tlc_jax.data.toy.parts import rendered
from tlc_jax.data.toy.parts_tables import (
    DEFINITE,
    FREE,
    OBJECTS,
    PERSON,
    translated,
)
from tlc_jax.data.toy.phrases import PRONOUNS, Phrase, Said, phrase
from tlc_jax.data.toy.pools import DeadEnd, verbs
from tlc_jax.data.toy.world import World

SHORTEST, LONGEST = 3, 26  # words of a sentence: in English, in either language
_UNORDERED = frozenset(
    lexicon.words("lose forget find recognize see meet understand hear")
)  # not what one is told to do
_WHO = Phrase("who", ("qui",), "he")


def _finish(text: str, mark: str) -> str:
    return f"{text[0].upper()}{text[1:]}{mark}"


class Writer(Deeds, Descriptions):
    """Writes pairs of sentences about the people and towns of a world, by the rolls of one seed."""

    def __init__(self, world: World, dice: Dice) -> None:
        super().__init__(world, dice)
        self._ways: tuple[Callable[[], tuple[Said, str]], ...] = tuple(
            way
            for way, weight in (
                (self.report, 13), (self.own, 6), (self.sequel, 16), (self.reason, 9), (self.when, 5),
                (self.meanwhile, 4), (self.condition, 4), (self.state, 8), (self.comparison, 6), (self.superlative, 3),
                (self.existence, 4), (self.position, 4), (self.possession, 4), (self.taste, 4), (self.passive, 4),
                (self.opinion, 6), (self.question, 10), (self.everyone, 3), (self.profession, 4), (self.age, 2),
                (self.whereabouts, 5), (self.presentation, 3), (self.order, 3),
            )
            for _ in range(weight)
        )  # fmt: skip

    def sentence(self) -> tuple[str, str]:
        """An English sentence and its translation."""
        while True:
            self.begin()
            try:
                (english, words), mark = self.dice.pick(self._ways)()
            except DeadEnd:
                continue
            text = join(words)
            length = len(english.split())
            clumsy = " that that " in english
            if not clumsy and length >= SHORTEST and max(length, len(text.split())) <= LONGEST:
                return _finish(english, mark), _finish(text, f" {mark}" if mark == "?" else mark)

    def question(self) -> tuple[Said, str]:
        """What did the girl buy?"""
        dice = self.dice
        self._nested = True  # no relative clause between the parts of the verb
        ask = dice.pick(
            (self._whether, self._whether, self._whether, self._why, self._what, self._which, self._who, self._find)
        )
        return ask(), "?"

    def _asked(self) -> Phrase:
        """The subject of a question."""
        return self.subject(("you", "you", "he", "she", "we"))

    def _whether(self) -> Said:
        dice, subject = self.dice, self._asked()
        roll = dice.roll()
        if roll < 0.25 and subject.stands != "you":
            clause = self.being(subject, dice.pick(("present", "past")))
        elif roll < 0.35:
            clause = self.likes(subject, "present")
        else:
            clause = self.deed(subject, dice.pick(("present", "progressive", "past", "near", "future", "can")))
        return clause.english(asked=True), ("est-ce", "que", *clause.french())

    def _why(self) -> Said:
        subject, tense = self._asked(), self.dice.pick(("present", "progressive", "past", "past", "future"))
        english, word = self.dice.pick(translated("why=pourquoi; why=pourquoi; when=quand; where=où; how=comment"))
        if english != "why" and tense == "progressive":
            tense = "past"
        clause = self.until(
            lambda clause: not clause.verb.state and not clause.adverb[0],
            lambda: self.deed(subject, tense, timed=False, placed=False),
        )
        return f"{english} {clause.english(asked=True)}", (*word, "est-ce", "que", *clause.french())

    def _what(self) -> Said:
        subject, tense = self._asked(), self.dice.pick(("progressive", "past", "past", "future", "want", "near"))
        verb = self.verb(subject, tense, verbs(subject.tags, OBJECTS - {"animal"}, "direct"))
        clause = Clause(subject, verb, tense)
        return f"what {clause.english(asked=True)}", ("qu'est-ce", "que", *clause.french())

    def _which(self) -> Said:
        dice = self.dice
        subject, tense = self._asked(), dice.pick(("progressive", "past", "past", "past", "future", "want"))
        verb = self.verb(subject, tense, verbs(subject.tags, OBJECTS, "direct"))
        noun = self.noun(verb.objects)
        many = noun.plural() and dice.chance(0.4)
        ahead = phrase(noun, "which", many, self.described(noun))
        words = ahead.fr
        if many and dice.chance(0.4):
            ahead = phrase(noun, "many", True)
            ahead, words = dataclasses.replace(ahead, en=f"how {ahead.en}"), ("combien", *ahead.fr[1:])
        clause = Clause(subject, verb, tense, ahead=ahead)
        return f"{ahead.en} {clause.english(asked=True)}", (*words, "est-ce", "que", *clause.french())

    def _who(self) -> Said:
        clause = self.deed(_WHO, self.dice.pick(("present", "progressive", "past", "past", "future", "can")), owner="")
        return rendered(clause)

    def _find(self) -> Said:
        """Where is the key? / How old is the king?"""
        dice = self.dice
        if dice.chance(0.3):
            someone = self.until(lambda one: not one.many, lambda: self.someone((), "", DEFINITE))
            return f"how old is {someone.en}", ("quel", "âge", "a", *someone.fr)
        thing = self.common(self.noun(frozenset(("thing", "clothes", "text", "animal", "person", "goal"))), DEFINITE)
        tense = dice.pick(("present", "present", "past"))
        forms = conjugate("être")
        is_ = (forms.present if tense == "present" else forms.imperfect)[PRONOUNS[thing.stands].voice]
        return f"where {Clause(thing, BE, tense).english(asked=True)}", ("où", is_, *thing.fr)

    def order(self) -> tuple[Said, str]:
        """Do not close the door."""
        dice = self.dice
        choices = verbs(PERSON, frozenset(), "direct")
        verb = self.until(lambda verb: not verb.state and verb.base not in _UNORDERED, lambda: choices.pick(dice))
        negation = dice.pick(("", "", "", "not", "never"))
        told = self.common(self.noun(verb.objects), DEFINITE if negation else FREE, "you")
        start = {"": "", "not": "do not ", "never": "never "}[negation]
        ne = ("ne",) if negation else ()
        verb_ = f"{start}{verb.base} {verb.particle}".strip()
        return (f"{verb_} {told.en}", (*ne, conjugate(verb.fr).present[3], *NEGATIONS[negation], *told.fr)), "."
