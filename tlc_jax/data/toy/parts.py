"""Draws the parts of the toy translations' sentences: who, what, where, when, and clauses made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from tlc_jax.data.toy.clauses import BE, HAVE, Clause
from tlc_jax.data.toy.dice import Dice
from tlc_jax.data.toy.dictionary import GIFTS, NUMBERS, Adjective, Noun, Verb
from tlc_jax.data.toy.parts_tables import (
    BEINGS,
    COUNTED,
    COUNTS,
    DEFINITE,
    FEELINGS,
    FREE,
    OBJECTS,
    OFTEN,
    OPPOSITES,
    ORDERS,
    OTHERS,
    OUT,
    PERSON,
    PLACES,
    PLAIN,
    PREPOSITIONS,
    SITES,
    SUBJECTS,
    TASTES,
    TIMES,
    UNOWNED,
)
from tlc_jax.data.toy.phrases import PRONOUNS, Phrase, Said, phrase, pronoun, replaced, together
from tlc_jax.data.toy.pools import DeadEnd, Pool, adjectives, nouns, verbs
from tlc_jax.data.toy.world import World

TRIES = 40  # draws until something is found that fits, before another sentence is begun

T = TypeVar("T")


def _in_order(one: Adjective, two: Adjective) -> bool:
    """Whether two adjectives may stand before an English noun in this order."""
    return one != two and {one.en, two.en} not in OPPOSITES and (one.place, two.place) in ORDERS


def _allowed(verb: Verb, subject: Phrase, tense: str) -> bool:
    """Whether a verb is used in a tense; not where "you read" or "vous êtes parti" would leave something in doubt."""
    if verb.state and tense not in ("present", "past"):
        return False
    if verb.past == verb.base and tense == "present" and (subject.many or subject.stands in ("I", "you")):
        return False
    if verb.steady and tense in ("progressive", "was doing"):
        return False
    return not (subject.stands == "you" and tense == "past" and verb.with_etre() and not verb.state)


def _coupled(phrase: Phrase) -> bool:
    """Whether it may be of two, for either of which French would repeat a preposition."""
    return "et" in phrase.fr


def linked(first: Said, *more: Said) -> Said:
    """Texts in a row."""
    english, words = first
    for text, row in more:
        english, words = f"{english} {text}", (*words, *row)
    return english, words


def untold(phrase: Phrase) -> bool:
    """Whether the sentence may still have to tell that it is feminine."""
    return phrase.she and not phrase.pronoun and phrase.en[0].islower()


def gendered(phrase: Phrase) -> bool:
    """Whether French knows its gender and number."""
    return phrase.stands != "you"


def rendered(clause: Clause) -> Said:
    """A clause by itself, in both languages."""
    return clause.english(), clause.french()


class Parts:
    """Draws parts of a sentence about the people and towns of a world, by the rolls of one seed."""

    def __init__(self, world: World, dice: Dice) -> None:
        self.world, self.dice = world, dice
        self.begin()

    def begin(self) -> None:
        """Forgets the sentence so far."""
        self._used: set[str] = set()  # the nouns and names of the sentence so far
        self._nested = False  # whether within a relative clause
        self._alone = True  # whether "her" cannot be mistaken for someone named before

    def until(self, fits: Callable[[T], bool], draw: Callable[[], T]) -> T:
        """What is drawn, as soon as it fits."""
        for _ in range(TRIES):
            if fits(drawn := draw()):
                return drawn
        raise DeadEnd

    def noun(self, tags: frozenset[str]) -> Noun:
        """A noun that the sentence does not have yet."""
        noun = self.until(lambda noun: noun.en not in self._used, lambda: nouns(tags).pick(self.dice))
        self._used.add(noun.en)
        return noun

    def name(self) -> Phrase:
        """Somebody whom the sentence does not name yet."""
        name = self.until(lambda name: name not in self._used, lambda: self.world.talk["person"].pick(self.dice))
        self._used.add(name)
        woman = name in self.world.women
        return Phrase(name, (name,), "she" if woman else "he", woman)

    def town(self) -> str:
        return self.world.talk["town"].pick(self.dice)

    def described(self, noun: Noun) -> tuple[Adjective, ...]:
        """None, one or two adjectives for a noun, in the English order."""
        dice, roll = self.dice, self.dice.roll()
        pool = adjectives(noun.tags, "next")
        if roll < 0.62 or not pool.items:
            return ()
        one = pool.pick(dice)
        if roll < 0.9:
            return (one,)
        two = pool.pick(dice)
        for pair in ((one, two), (two, one)):
            if _in_order(*pair):
                return pair
        return (one,)

    def common(self, noun: Noun, style: Sequence[str], owner: str | None = None, many: bool | None = None) -> Phrase:
        """A phrase with a noun.

        Args:
          style: the determiners to choose from.
          owner: whose the possessives may be: of the subject that this pronoun stands for, or of me, you or us; of
            anyone if None. Others would be mistaken for the subject's.
          many: whether it is plural where the determiner leaves it open; at times if None.
        """
        dice = self.dice
        kin, mass = "kin" in noun.tags, "mass" in noun.tags
        many = noun.plural() and (dice.chance(0.25) if many is None else many)
        determiner = dice.pick(("own", "own", "of")) if kin else dice.pick(style)
        if mass and determiner in COUNTED:
            determiner = "a"
        many = many or determiner in COUNTED
        described = () if kin and dice.chance(0.9) else self.described(noun)
        if determiner in ("own", "of") and noun.en in UNOWNED:
            determiner = "the"
        if kin and owner == "it":
            owner = ""
        if determiner == "own":
            return phrase(noun, self.possessive(owner), many, described)
        if determiner == "of":
            return phrase(noun, "the", many, described, owner=self.possessor(owner))
        # Of what is said not to be, French would tell in the subjunctive.
        told = determiner in ("the", "that") or (determiner == "a" and style is FREE)
        clause = self.relative(noun, many) if told else ("", ())
        if determiner.endswith("number"):
            determiner = determiner.replace("number", dice.pick(COUNTS))
        return phrase(noun, determiner, many, described, clause=clause)

    def possessive(self, owner: str | None) -> str:
        """Whose something is, by a pronoun; see `common`."""
        if owner and self.dice.chance(0.7):
            return PRONOUNS[owner].possessive
        return self.dice.pick(
            ("my", "your", "our") if owner is not None else ("my", "your", "our", "his", "her", "their")
        )

    def possessor(self, owner: str | None) -> Phrase:
        """Whose something is, by a name or noun."""
        if self.dice.chance(0.5):
            return self.name()
        if self.dice.chance(0.4):
            return phrase(self.noun(frozenset(("kin",))), self.possessive(owner))
        return phrase(self.noun(PERSON), self.dice.pick(("the", "the", "this")), many=self.dice.chance(0.2))

    def relative(self, noun: Noun, many: bool) -> Said:
        """At times a relative clause; in one there is no other."""
        dice = self.dice
        if self._nested or dice.chance(0.88):
            return "", ()
        self._nested, alone, self._alone = True, self._alone, False
        antecedent = phrase(noun, "the", many)
        tense = dice.pick(("past", "past", "present", "progressive", "future"))
        said: Said = ("", ())
        who = noun.tags & frozenset(BEINGS)
        choices = verbs(PERSON, noun.tags, "direct")
        if who and dice.chance(0.6):
            clause = self.deed(antecedent, tense, dice.pick(("", "", "", "not")), owner="", timed=False)
            said = f"{'who' if 'person' in who else 'that'} {clause.english('')}", clause.french(("qui",))
        elif choices.items:
            subject = self.someone(OTHERS, owner="", style=DEFINITE)
            clause = Clause(subject, self.verb(subject, tense, choices), tense, ahead=antecedent)
            said = f"that {clause.english()}", ("que", *clause.french())
        self._nested, self._alone = False, alone
        return said

    def someone(
        self,
        pronouns: Sequence[str] = SUBJECTS,
        owner: str | None = None,
        style: Sequence[str] = FREE,
        clue: bool = False,
    ) -> Phrase:
        """A person, or several.

        Args:
          pronouns: which may be used.
          owner, style: see `common`.
          clue: whether the sentence will tell the gender, so that it may be feminine where the noun does not tell.
        """
        roll = self.dice.roll()
        if roll < 0.28:
            return self.name()
        if roll < 0.44 and pronouns:
            return pronoun(self.dice.pick(pronouns))
        if roll < 0.54:
            return self.common(self.noun(frozenset(("kin",))), style, owner)
        if roll < 0.61:
            return self.couple(pronouns is SUBJECTS)
        noun = self.noun(PERSON)
        if clue and noun.woman is not None and self.dice.chance(0.6):
            return self.common(noun.woman, PLAIN, owner, many=False)
        return self.common(noun, style, owner)

    def couple(self, me: bool) -> Phrase:
        """Somebody and another, who at times is "I" or a relative."""
        dice, one = self.dice, self.name()
        if me and dice.chance(0.25):
            return together(one, pronoun("I"))
        if dice.chance(0.5):
            return together(one, self.name())
        whose = dice.pick((PRONOUNS[one.stands].possessive, "my", "our"))
        return together(one, phrase(self.noun(frozenset(("kin",))), whose))

    def subject(self, pronouns: Sequence[str] = SUBJECTS, owner: str | None = None, clue: bool = False) -> Phrase:
        """Somebody or an animal."""
        if self.dice.pick(BEINGS) == "animal":
            return self.common(self.noun(frozenset(("animal",))), FREE, owner)
        return self.someone(pronouns, owner, clue=clue)

    def next(self, before: Phrase | None) -> Phrase:
        """The subject of a second clause: the pronoun for the one before it, or if there is none, somebody else."""
        self._alone = False
        return self.subject(OTHERS, "") if before is None else replaced(before)

    def verb(self, subject: Phrase, tense: str, choices: Pool[Verb]) -> Verb:
        """One of the choices that can be said in this tense."""
        return self.until(lambda verb: _allowed(verb, subject, tense), lambda: choices.pick(self.dice))

    def negation(self, tense: str) -> str:
        """At times a negation that goes with a tense."""
        roll = self.dice.roll()
        if roll < 0.04 and tense in ("present", "past", "future"):
            return "never"
        if roll < 0.07 and tense in ("present", "progressive"):
            return "no longer"
        return "not" if roll < 0.19 else ""

    def where(self, tags: Sequence[str] = OUT, owner: str | None = "") -> Said:
        """A place: in a town or by something."""
        if tags is OUT and self.dice.chance(0.2):
            town = self.town()
            return f"in {town}", ("à", town)
        tag = self.dice.pick(tags)
        place = self.common(self.noun(frozenset((tag,))), PLACES, owner, many=False)
        english, words = self.dice.pick(PREPOSITIONS[tag])
        return f"{english} {place.en}", place.behind(" ".join(words))

    def time(self, tense: str) -> Said:
        """When something is done."""
        if tense in ("past", "future") and self.dice.chance(0.15):
            number = self.dice.pick(COUNTS)
            if tense == "past":
                return f"{number} days ago", ("il", "y", "a", NUMBERS[number], "jours")
            return f"in {number} days", ("dans", NUMBERS[number], "jours")
        return self.dice.pick(TIMES[tense])

    def object(self, verb: Verb, subject: Phrase, denied: bool, owner: str, avoid: str = "") -> Phrase:
        """What is done something to; not what the pronoun `avoid` could stand for."""
        dice = self.dice
        if verb.fr == "jouer":
            return phrase(self.noun(verb.objects), "the")
        settled = verb.state and not verb.preposition and "clothes" not in verb.objects
        style = DEFINITE if settled else PLAIN if denied else FREE
        mine = ("I", "we") if subject.stands in ("I", "we") else (subject.stands,)
        pronouns = [one for one in (SUBJECTS if self._alone else OTHERS) if one not in mine]
        if verb.preposition == "de":
            pronouns = []
        elif verb.preposition == "" and "you" in pronouns:
            pronouns.remove("you")

        def draw() -> Phrase:
            noun = self.noun(verb.objects)
            if "person" in verb.objects and "person" in noun.tags and dice.chance(0.5):
                return self.someone(pronouns, owner, style)
            one = self.common(noun, style, owner)
            if denied or verb.preposition or dice.chance(0.95):
                return one
            return together(one, self.common(self.noun(verb.objects), style, owner))

        return self.until(lambda found: found.stands != avoid and not (verb.preposition and _coupled(found)), draw)

    def deed(
        self,
        subject: Phrase,
        tense: str,
        negation: str = "",
        owner: str | None = None,
        avoid: str = "",
        timed: bool = True,
        placed: bool = True,
    ) -> Clause:
        """A clause on what somebody or an animal does.

        Args:
          owner: see `common`; the subject if None.
          avoid: a pronoun that no object may be mistaken for.
          timed, placed: whether it may say when and where.
        """
        dice = self.dice
        owner = subject.stands if owner is None else owner
        denied = bool(negation) or subject.negative
        given: Phrase | None = None
        to: Phrase | None = None
        if "person" in subject.tags and dice.chance(0.08):
            verb = dice.pick(GIFTS)
            given = self.common(self.noun(OBJECTS), PLAIN if denied else FREE, owner)
            to = self.until(
                lambda one: one.stands not in (avoid, subject.stands) and not _coupled(one),
                lambda: self.someone(("he", "she") if self._alone else (), owner, DEFINITE),
            )
            if given.stands == avoid:
                given = phrase(self.noun(OBJECTS), "the", many=avoid == "it")
        else:
            verb = self.verb(
                subject, tense, verbs(subject.tags, frozenset(), "any" if dice.chance(0.8) else "intransitive")
            )
            if verb.objects:
                given = self.object(verb, subject, denied, owner, avoid)
        rest: Said = ("", ())
        moving = verb.with_etre() and not verb.reflexive
        somewhere = placed and not verb.state and not moving and to is None and not verb.objects & SITES
        if somewhere and dice.chance(0.12 if verb.objects else 0.3):
            rest = self.where(owner=owner)
        usual = tense == "present" and not denied and not verb.state
        if timed and tense in TIMES and not verb.state and negation in ("", "not") and dice.chance(0.2):
            rest = linked(rest, self.time(tense)) if rest[0] else self.time(tense)
            usual = False
        adverb = dice.pick(OFTEN) if usual and dice.chance(0.15) else ("", ())
        return Clause(subject, verb, tense, given, to, None, negation, adverb, rest)

    def being(self, subject: Phrase, tense: str, negation: str = "") -> Clause:
        """A clause on what somebody or something is like."""
        dice = self.dice
        pool = adjectives(subject.tags, "be")
        one = pool.pick(dice)
        english, words = one.en, subject.agreed(one.fr)
        if one.graded() and not negation and dice.chance(0.3):
            degree = dice.pick((("very", "très"), ("very", "très"), ("too", "trop")))
            english, words = f"{degree[0]} {english}", (degree[1], *words)
        elif dice.chance(0.2):
            two = pool.pick(dice)
            if two != one and {one.en, two.en} not in OPPOSITES and two.place == one.place and not negation:
                english, words = f"{english} and {two.en}", (*words, "et", *subject.agreed(two.fr))
        return Clause(subject, BE, tense, negation=negation, rest=(english, words))

    def likes(self, subject: Phrase, tense: str, negation: str = "") -> Clause:
        """A clause on what somebody likes or hates."""
        return Clause(subject, self.dice.pick(TASTES), tense, self.general(), negation=negation)

    def general(self) -> Phrase:
        """Things or animals of a kind: "cats", "cheese"."""
        noun = self.noun(frozenset(("food", "drink", "animal")))
        return phrase(noun, "", many=noun.plural())

    def lacking(self, subject: Phrase, tense: str) -> Clause:
        """A clause on what somebody does not have."""
        noun = self.noun(frozenset(("thing", "clothes", "vehicle", "text")))
        missing = phrase(noun, "a", many=self.dice.chance(0.3))
        return Clause(subject, HAVE, tense, missing, negation=self.dice.pick(("not", "not", "no longer")))

    def ground(self, subject: Phrase, tense: str) -> Clause:
        """A clause that can be a reason: how somebody is, what is missing or liked."""
        roll = self.dice.roll()
        person = "person" in subject.tags
        if roll < 0.45 and subject.stands != "you":
            return self.being(subject, tense)
        if roll < 0.7 or not person:
            return Clause(subject, self.dice.pick(FEELINGS[: 7 if person else 5]), tense)
        if roll < 0.85:
            return self.lacking(subject, tense)
        return self.likes(subject, tense)
