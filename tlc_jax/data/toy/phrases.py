"""Noun phrases and pronouns of the toy translations, in English and in French."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tlc_jax.data.toy import french
from tlc_jax.data.toy.dictionary import NUMBERS, Adjective, Noun
from tlc_jax.data.toy.english import a, named
from tlc_jax.data.toy.french import Words, after, agree, determine

Said = tuple[str, Words]  # the same in English and in French


@dataclasses.dataclass(frozen=True)
class Phrase:
    """A noun phrase or pronoun, in both languages.

    Attributes:
      stands: the English pronoun that could stand for it.
      she: whether it is feminine in French.
      article: "a" or "some", or nothing for any other.
      bare: without it.
      pronoun: whether it is a pronoun.
      negative: whether French adds "ne" to the verb ("personne").
    """

    en: str
    fr: Words
    stands: str
    she: bool = False
    tags: frozenset[str] = frozenset(("person",))
    bare: Said = ("", ())
    article: str = ""
    pronoun: bool = False
    negative: bool = False

    @property
    def many(self) -> bool:
        """Whether it is plural."""
        return self.stands in ("we", "they")

    def denied(self) -> Said:
        """As the object of a negated verb."""
        english = f"any {self.bare[0]}" if self.article == "some" else self.en
        return english, ("de", *self.bare[1]) if self.article else self.fr

    def behind(self, preposition: str) -> Words:
        """The French after a preposition: de + des is de."""
        if self.pronoun:
            return (*preposition.split(), PRONOUNS[self.stands].disjunctive[self.she])
        if self.article == "some" and preposition.split()[-1] == "de":
            return (*preposition.split(), *self.bare[1])
        return after(preposition, self.fr)

    def agreed(self, adjective: str) -> Words:
        """A French adjective as it agrees with it."""
        return agree(adjective, self.she, self.many)


@dataclasses.dataclass(frozen=True)
class Pronoun:
    """The forms of an English pronoun and of its French ones: masculine, feminine where they differ."""

    object: str
    possessive: str
    voice: int  # of french.VOICES
    subject: Words
    direct: Words
    dative: str
    disjunctive: Words


def _pronoun(table: str) -> Pronoun:
    object_, possessive, voice, dative, *rest = table.split()
    subject, direct, disjunctive = ((first, second or first) for first, _, second in (r.partition("/") for r in rest))
    return Pronoun(object_, possessive, french.VOICES.index(voice), subject, direct, dative, disjunctive)


PRONOUNS = {
    "I": _pronoun("me my je me je me moi"),
    "you": _pronoun("you your vous vous vous vous vous"),
    "he": _pronoun("him his il lui il le lui"),
    "she": _pronoun("her her il lui elle la elle"),
    "it": _pronoun("it its il lui il/elle le/la lui/elle"),
    "we": _pronoun("us our nous nous nous nous nous"),
    "they": _pronoun("them their ils leur ils/elles les eux/elles"),
}


def pronoun(stands: str, she: bool = False) -> Phrase:
    """A pronoun, by its English; `she` if feminine in French."""
    she = she or stands == "she"
    return Phrase(stands, (PRONOUNS[stands].subject[she],), stands, she, pronoun=True)


def replaced(phrase: Phrase) -> Phrase:
    """The pronoun for a phrase."""
    return dataclasses.replace(pronoun(phrase.stands, phrase.she), tags=phrase.tags)


def head(noun: Noun, many: bool, described: Sequence[Adjective]) -> tuple[str, Words, bool]:
    """A noun and its adjectives, in the English order: in English, in French, and whether one is before the noun."""
    before = [one for one in described if one.place in ("first", "before", "age")]
    behind = [one for one in described if one not in before]
    words = tuple((noun.frs if many else noun.fr).split())
    for one in reversed(before):
        words = (*agree(one.fr, noun.she, many, words[0]), *words)
    both = len(behind) == 2 and behind[0].place == behind[1].place  # of a kind: joined by "and"
    behind.sort(key=lambda one: ("origin", "colour", "after", "stuff").index(one.place))
    for number, one in enumerate(behind):
        words = (*words, *(("et",) if both and number else ()), *agree(one.fr, noun.she, many))
    english = (" and " if both else " ").join(one.en for one in described)
    return f"{english} {named(noun, many)}".strip(), words, bool(before)


def phrase(
    noun: Noun,
    determiner: str,
    many: bool = False,
    described: Sequence[Adjective] = (),
    owner: Phrase | None = None,
    clause: Said = ("", ()),
) -> Phrase:
    """A noun phrase.

    Args:
      determiner: "the", "a" ("some" in the plural and of masses), "this", "that", a possessive, "every", "no",
        "all the", "several", "a few", "many", "which", a number, "the" and a number, or "" for what is said in general.
      described: the adjectives, in the English order.
      owner: whose it is, told by a genitive; the determiner is "the" then.
      clause: a relative clause.
    """
    mass = "mass" in noun.tags
    english, words, preposed = head(noun, many, described)
    if owner is not None:
        words = (*words, *owner.behind("de"))
        english = f"{owner.en}'{'' if owner.many and owner.en.endswith('s') else 's'} {english}"
    if clause[0]:
        english, words = f"{english} {clause[0]}", (*words, *clause[1])
    article = ""
    bare: Said = ("", ())
    first, _, number = determiner.rpartition(" ")
    if determiner == "a":
        article = "some" if many or mass else "a"
        bare = (english, words)
        english = f"some {english}" if many or mass else a(english)
        fr = determine("some" if mass else "a", noun.she, many, words, preposed)
    elif determiner == "":
        fr = determine("the", noun.she, many, words)
    elif determiner in ("several", "a few"):
        english, fr = f"{determiner} {english}", ({"several": "plusieurs", "a few": "quelques"}[determiner], *words)
    elif determiner == "many":
        english, fr = f"many {english}", ("beaucoup", "de", *words)
    elif number in NUMBERS:
        fr = (*(("les",) if first else ()), NUMBERS[number], *words)
        english = f"{determiner} {english}"
    else:
        like = {"that": "this", "her": "his", "its": "his"}.get(determiner, determiner)
        fr = determine(like, noun.she, many, words)
        shown = {"this": "these", "that": "those"}.get(determiner, determiner) if many else determiner
        english = english if owner is not None else f"{shown} {english}"
    tags = noun.tags | {"person"} if "kin" in noun.tags else noun.tags
    stands = "they" if many else "it" if "person" not in tags else "she" if noun.she else "he"
    return Phrase(english, fr, stands, noun.she, tags, bare, article, negative=determiner == "no")


def together(one: Phrase, two: Phrase) -> Phrase:
    """Both of two; the second may be "I"."""
    english, words = f"{one.en} and {two.en}", (*one.fr, "et", *two.fr)
    if two.stands == "I":
        return Phrase(english, (*one.fr, "et", "moi"), "we")
    return Phrase(english, words, "they", one.she and two.she, one.tags & two.tags)
