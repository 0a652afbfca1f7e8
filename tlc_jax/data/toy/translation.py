"""English sentences of the toy world with their French translations, from one grammar for both languages.

A sentence is drawn once, as a structure of phrases and clauses, and rendered in both languages, so every pair is an
exact translation. What makes it hard is what French asks and English leaves to the context: genders, hence the forms
of articles, adjectives, participles and of "it" and "they"; tenses; the order of words. Where English alone does not
tell a gender ("the baker"), the sentence does ("... lost her key"), or it is masculine, as is whoever says "I".
French questions end in a space and a question mark, as it is printed in France.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from tlc_jax.data.toy import french, lexicon
from tlc_jax.data.toy.dice import Dice, Zipf
from tlc_jax.data.toy.french import (
    GIFTS,
    NUMBERS,
    Adjective,
    Noun,
    Verb,
    Words,
    after,
    agree,
    conjugate,
    determine,
    join,
    verb,
)
from tlc_jax.data.toy.text import belongs
from tlc_jax.data.toy.world import World, build
from tlc_jax.errors import InputError

TRANSLATIONS = {"train": 40_000, "valid": 1_000}
TRIES = 40  # draws until something is found that fits, before another sentence is begun
SHORTEST, LONGEST = 3, 26  # words of a sentence: in English, in either language
RANKS_SEED = 1_021  # of the order in which words are frequent
ZIPF = (1.0, 6.0)  # exponent and offset of the law by which they are

T = TypeVar("T")
Said = tuple[str, Words]  # the same in English and in French


def translations(split: str, seed: int = 0) -> Iterator[tuple[str, str]]:
    """English and French sentences; none of one split is in the other, whatever the seeds, or twice in one.

    Raises:
      InputError: no such split.
    """
    if split not in TRANSLATIONS:
        raise InputError(f"the toy world has no split {split!r}: use {' or '.join(TRANSLATIONS)}")
    splits = [*TRANSLATIONS]
    writer = Writer(build(), Dice(seed * len(splits) + splits.index(split)))
    seen: set[str] = set()
    while len(seen) < TRANSLATIONS[split]:
        english, french_ = writer.sentence()
        if english not in seen and belongs(english, split):
            seen.add(english)
            yield english, french_


@functools.cache
def fingerprint() -> str:
    """Changes whenever the generated content does: a hash of the words and of what is generated first."""
    tables = (french.NOUN_TABLE, french.ADJECTIVE_TABLE, french.VERB_TABLE, french.GIFT_TABLE, french.NUMBER_TABLE)
    digest = hashlib.sha256(repr((TRANSLATIONS, tables)).encode())
    for split in TRANSLATIONS:
        for pair in itertools.islice(translations(split), 1000):
            digest.update("\t".join(pair).encode())
    return digest.hexdigest()[:16]


# English forms.

_DOUBLED = frozenset(lexicon.words("cut forget get prefer run stop swim travel"))
_PLURAL = ("you", "we", "they")  # pronouns with which English verbs are plural


def plural(noun: str) -> str:
    """The plural of a regular noun."""
    if noun.endswith(("ch", "sh", "s", "x")):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else f"{noun}s"


def a(noun: str) -> str:
    """The noun, or adjective and noun, with its indefinite article."""
    vowel = noun.startswith("honest") or (noun[0] in "aeiouEI" and not noun.startswith(("uni", "use")))
    return f"an {noun}" if vowel else f"a {noun}"


def named(noun: Noun, many: bool) -> str:
    """The noun in the singular or plural."""
    return (noun.ens or plural(noun.en)) if many else noun.en


def third(verb: str) -> str:
    """The third person singular."""
    return {"be": "is", "have": "has"}.get(verb) or (f"{verb}es" if verb == "go" else plural(verb))


def gerund(verb: str) -> str:
    """The form in -ing."""
    if verb.endswith("ie"):
        return f"{verb[:-2]}ying"
    if verb in _DOUBLED:
        verb += verb[-1]
    return (verb[:-1] if verb[-1] == "e" and verb not in ("be", "see") else verb) + "ing"


def past(verb: str) -> str:
    """The past tense, and participle, of a regular verb."""
    if verb in _DOUBLED:
        verb += verb[-1]
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return f"{verb[:-1]}ied"
    return f"{verb}d" if verb.endswith("e") else f"{verb}ed"


def compared(adjective: str, ending: str) -> str:
    """The comparative ("er") or superlative ("est")."""
    if adjective == "good":
        return {"er": "better", "est": "best"}[ending]
    stem = adjective.removesuffix("e")
    groups = sum(one in "aeiouy" and other not in "aeiouy" for one, other in zip(stem, f"{stem[1:]}.", strict=True))
    if groups > 1 and not adjective.endswith("y"):
        return f"{'more' if ending == 'er' else 'most'} {adjective}"
    if adjective.endswith("y"):
        stem = f"{stem[:-1]}i"
    elif stem == adjective and stem[-1] not in "aeiouwxy" and stem[-2] in "aeiou" and stem[-3] not in "aeiou":
        stem += stem[-1]
    return stem + ending


# The words, by what they can be combined with.


class DeadEnd(Exception):
    """The sentence begun cannot be continued."""


class Pool(Generic[T]):
    """Items drawn by the Zipf law, in an order of their own."""

    def __init__(self, items: Iterable[T]) -> None:
        self.items = [*items]
        self._ranks = Zipf([str(rank) for rank in range(len(self.items))], *ZIPF)

    def pick(self, dice: Dice) -> T:
        if not self.items:
            raise DeadEnd
        return self.items[int(self._ranks.pick(dice))]


def _ranked(items: Iterable[T]) -> tuple[T, ...]:
    """The most frequent first: a random order, always the same."""
    return tuple(Dice(RANKS_SEED).shuffled([*items]))


NOUNS, ADJECTIVES, VERBS = _ranked(french.NOUNS), _ranked(french.ADJECTIVES), _ranked(french.VERBS)


@functools.cache
def nouns(tags: frozenset[str]) -> Pool[Noun]:
    """The nouns with one of these tags."""
    return Pool(noun for noun in NOUNS if noun.tags & tags)


@functools.cache
def verbs(subject: frozenset[str], objects: frozenset[str], shape: str) -> Pool[Verb]:
    """The verbs for a subject with these tags: of a shape, and in "direct" ones for objects with these, if any.

    Shapes: "direct" (an object, without preposition), "intransitive" or "any".
    """

    def fits(verb: Verb) -> bool:
        if not verb.subjects & subject:
            return False
        if shape == "direct":
            return not verb.preposition and bool(verb.objects & objects if objects else verb.objects)
        return shape == "any" or not verb.objects

    return Pool(verb for verb in VERBS if fits(verb))


@functools.cache
def adjectives(tags: frozenset[str], use: str) -> Pool[Adjective]:
    """The adjectives for a noun with these tags: next to it ("next"), after "be" ("be"), or such as have degrees."""

    def fits(adjective: Adjective) -> bool:
        if not adjective.suits(tags):
            return False
        if use == "next":
            return adjective.place != "never"
        if use == "be":
            return adjective.en not in ("new", "hungry") and adjective.place != "stuff"  # "hungry" is "avoir faim" then
        return adjective.graded() and (use != "most" or adjective.place != "never")

    return Pool(adjective for adjective in ADJECTIVES if fits(adjective))


# Phrases.


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


# Clauses.

BE = verb("*be/was/been=être")
HAVE = verb("*have/had/had=avoir")
# Tenses go by their English: "present", "progressive", "past", "was doing", "near" ("is going to"), "future"; so do
# "can", "must" and "want", which are treated as tenses of the verb that follows.
_HELPERS = {"near": "aller", "can": "pouvoir", "must": "devoir", "want": "vouloir"}
_NOT = {"": (), "not": ("pas",), "never": ("jamais",), "no longer": ("plus",)}


@dataclasses.dataclass(frozen=True)
class Clause:
    """A clause, in both languages.

    Attributes:
      object, to: what the verb is done to, and the receiver; pronouns stand before the French verb.
      ahead: the object, where it has already been said: in relative clauses and questions.
      negation: "", "not", "never" or "no longer".
      adverb: after the French verb ("often").
      rest: what comes after the objects.
    """

    subject: Phrase
    verb: Verb
    tense: str
    object: Phrase | None = None
    to: Phrase | None = None
    ahead: Phrase | None = None
    negation: str = ""
    adverb: Said = ("", ())
    rest: Said = ("", ())

    def english(self, subject: str | None = None, asked: bool = False) -> str:
        """In English; as a question, without the words that ask, if `asked`."""
        helper, main = self._english_verb(asked)
        middle = self.negation or self.adverb[0]
        if helper == "can" and middle == "not":
            helper, middle = "cannot", ""
        subject = self.subject.en if subject is None else subject
        order = [helper, subject, middle, main] if asked else [subject, helper, middle, main]
        return " ".join(part for part in [*order, self.verb.particle, *self._english_objects(), self.rest[0]] if part)

    def _english_verb(self, asked: bool) -> tuple[str, str]:
        """The auxiliary, if any, and the verb."""
        verb, tense, stands = self.verb, self.tense, self.subject.stands
        plain = stands in ("I", *_PLURAL)
        is_ = "am" if stands == "I" else "are" if plain else "is"
        was = "were" if stands in _PLURAL else "was"
        base, rest = ("want", f"to {verb.base}") if tense == "want" else (verb.base, "")
        if base == "be" and tense in ("present", "past"):
            return (was if tense == "past" else is_), ""
        if tense in ("present", "past", "want"):
            if asked or self.negation == "not":
                return ("did" if tense == "past" else "do" if plain else "does"), f"{base} {rest}".strip()
            told = (verb.past or past(base)) if tense == "past" else base if plain else third(base)
            return "", f"{told} {rest}".strip()
        if tense in ("progressive", "was doing"):
            return (is_ if tense == "progressive" else was), gerund(base)
        if tense == "near":
            return is_, f"going to {base}"
        return {"future": "will"}.get(tense, tense), base

    def _english_objects(self) -> Iterator[str]:
        direct, to = self.object, self.to
        shown = ""
        if direct is not None:
            if direct.pronoun:
                shown = PRONOUNS[direct.stands].object
            else:
                shown = direct.denied()[0] if self.denied else direct.en
        if to is not None and to.pronoun and not (direct and direct.pronoun):
            yield f"{PRONOUNS[to.stands].object} {shown}".strip()
        else:
            yield shown
            if to is not None:
                yield f"to {PRONOUNS[to.stands].object if to.pronoun else to.en}"

    @property
    def denied(self) -> bool:
        """Whether its objects are those of a negated verb."""
        return self.negation != "" or self.subject.negative

    def french(self, subject: Words | None = None) -> Words:
        """In French."""
        verb, voice = self.verb, PRONOUNS[self.subject.stands].voice
        before, behind = self._clitics(), self._french_objects()
        pas = (*_NOT[self.negation], *self.adverb[1])
        ne = ("ne",) if self.denied else ()
        forms = conjugate(verb.fr)
        if self.tense == "past" and not verb.state:  # passé composé
            helper = conjugate("être" if verb.with_etre() else "avoir").present[voice]
            done: Words = (*ne, *before, helper, *pas, self._participle(forms.participle))
        elif self.tense in _HELPERS:
            helper = conjugate(_HELPERS[self.tense]).present[voice]
            done = (*ne, helper, *pas, *before, verb.fr)
        else:
            tense = {"past": forms.imperfect, "was doing": forms.imperfect, "future": forms.future}
            done = (*ne, *before, tense.get(self.tense, forms.present)[voice], *pas)
        return (*(self.subject.fr if subject is None else subject), *done, *verb.fixed, *behind, *self.rest[1])

    def _clitics(self) -> Words:
        """The pronouns before the verb: reflexive, then direct, then the others; but "lui" and "leur" come last."""
        own = PRONOUNS[self.subject.stands]
        row: list[str] = []
        if self.verb.reflexive:
            row.append("se" if own.voice in (1, 4) else own.dative)
        direct, to = self.object, self.to
        if direct is not None and direct.pronoun:
            forms = PRONOUNS[direct.stands]
            row.append(forms.dative if self.verb.preposition else forms.direct[direct.she])
        if to is not None and to.pronoun:
            row.insert(len(row) if to.stands in ("he", "she", "they") else 0, PRONOUNS[to.stands].dative)
        return tuple(row)

    def _french_objects(self) -> Words:
        direct, to = self.object, self.to
        words: Words = ()
        if direct is not None and not direct.pronoun:
            if self.verb.preposition:
                words = direct.behind(self.verb.preposition)
            else:
                words = direct.denied()[1] if self.denied else direct.fr
        return words if to is None or to.pronoun else (*words, *to.behind("à"))

    def _participle(self, past: str) -> str:
        """It agrees with the subject after "être", with a direct object before the verb after "avoir"."""
        if self.verb.with_etre():
            return french.participle(past, self.subject.she, self.subject.many)
        ahead = self.object if self.object is not None and self.object.pronoun else self.ahead
        if ahead is None or self.verb.preposition:
            return past
        return french.participle(past, ahead.she, ahead.many)


# Drawing sentences.


def _said(table: str) -> tuple[Said, ...]:
    """Reads "english=french; english=french"."""
    return tuple((english, tuple(words.split())) for english, words in french.entries(table))


def _spread(table: str) -> tuple[str, ...]:
    """Reads "item*weight; item*weight": each item as often as it weighs."""
    pairs = (entry.strip().rsplit("*", 1) for entry in table.split(";"))
    return tuple(item for item, weight in pairs for _ in range(int(weight)))


_FREE = _spread("the*30; a*24; this*5; that*4; own*14; of*8; number*7; the number*1; several*2; a few*2; many*2")
_PLAIN = _spread("the*34; a*34; this*6; that*4; own*16; of*6")  # under a negation
_SHOWN = _spread("the*34; a*34; own*16; of*6")
_DEFINITE = _spread("the*60; this*8; that*5; own*18; of*9")
_DEED_TENSES = _spread("present*24; progressive*13; past*33; near*8; future*10; can*4; must*4; want*4")
_SOON = "tomorrow=demain; tonight=ce soir; next week=la semaine prochaine; soon=bientôt; on Friday=vendredi"
_TIMES = {
    "present": _said(
        "every day=tous les jours; in the morning=le matin; in the evening=le soir; on Sundays=le dimanche;"
        " in winter=en hiver; in summer=en été; at night=la nuit; every week=toutes les semaines"
    ),
    "progressive": _said("now=maintenant; at the moment=en ce moment"),
    "past": _said(
        "yesterday=hier; last week=la semaine dernière; this morning=ce matin; last year=l'année dernière;"
        " last night=hier soir; on Monday=lundi"
    ),
    "near": _said(_SOON),
    "future": _said(f"{_SOON}; next year=l'année prochaine; this summer=cet été"),
}
_OFTEN = _said("often=souvent; sometimes=parfois; always=toujours; rarely=rarement")
_INSIDE = _said("in=dans; in=dans; in=dans; near=près de; in front of=devant; behind=derrière")
_BESIDE = _said("next to=à côté de; near=près de; behind=derrière; in front of=devant; opposite=en face de")
_PREPOSITIONS = {  # of what tags, and the prepositions for it
    "inside": _INSIDE,
    "goal": (*_said("at=à; at=à; at=à; at=à"), *_BESIDE),
    "on": _said("on=sur; on=sur; near=près de"),
    "beside": (*_BESIDE[:-1], *_said("far from=loin de")),
    "surface": _said("on=sur; on=sur; under=sous; behind=derrière; next to=à côté de"),
    "box": _said("in=dans; in=dans; behind=derrière; next to=à côté de"),
}
_OUT = _spread("inside*6; goal*6; on*3; beside*3")  # where deeds are done
_AROUND = _spread("inside*5; goal*2; on*2; beside*3; surface*7; box*3")  # where things are
_FEELINGS = tuple(
    verb(f"*be/was/been {entry}")
    for entry in (
        "hungry=avoir faim", "thirsty=avoir soif", "sleepy=avoir sommeil", "cold=avoir froid", "hot=avoir chaud",
        "right=avoir raison", "wrong=avoir tort",
    )
)  # fmt: skip
_OPINIONS = tuple(
    verb(entry)
    for entry in ("*think/thought/thought=penser", "*say/said/said=dire", "*believe=croire", "*know/knew/known=savoir")
)
_HOPE = verb("*hope=espérer")
_PREFER = verb("*prefer=préférer")
_UNOWNED = ("man", "woman", "girl")  # "sa femme" is his wife, "sa fille" his daughter
_UNORDERED = frozenset(
    lexicon.words("lose forget find recognize see meet understand hear")
)  # not what one is told to do
_TASTES = tuple(verb(entry) for entry in ("*like=aimer", "*like=aimer", "*adore=adorer", "*hate=détester"))
_MOVES = {  # verbs that go with a town or a place: the prepositions for a town, for a place, and in French
    verb("go/went/gone=aller"): ("to", "to", "à"),
    verb("come/came/come=venir"): ("from", "from", "de"),
    verb("come/came/come back=revenir"): ("from", "from", "de"),
    verb("arrive=arriver"): ("in", "at", "à"),
    verb("stay=rester"): ("in", "at", "à"),
    verb("leave/left/left=partir"): ("for", "for", "pour"),
}
_BECOME = verb("~become/became/become=devenir")
_LIVE = verb("*live=habiter")
_BORN = verb("~be/was/been born=naître")
_WHO = Phrase("who", ("qui",), "he")
_NOBODY = Phrase("nobody", ("personne",), "he", negative=True)
_EVERYBODY = Phrase("everybody", ("tout", "le", "monde"), "he")
_WEATHER = {  # by tense
    "present": _said(
        "it rains=il pleut; it snows=il neige; the weather is cold=il fait froid; the weather is hot=il fait chaud"
    ),
    "progressive": _said("it is raining=il pleut; it is snowing=il neige"),
    "past": _said("it was raining=il pleuvait; it was snowing=il neigeait; the weather was cold=il faisait froid"),
}
_LINKS = _said("and=et; and=et; but=mais")
_OPPOSITES = frozenset(
    frozenset(pair.split("-"))
    for pair in lexicon.words(
        "rich-poor strong-weak lazy-brave heavy-light dirty-clean easy-difficult interesting-boring warm-cold"
        " quiet-dark sweet-bitter fast-slow happy-sad tall-short good-bad kind-cruel wild-faithful boring-funny"
        " light-precious"
    )
)
_COUNTED = ("number", "the number", "several", "a few", "many")
_PLACES = _spread("the*68; this*7; that*4; own*11; of*7; a*3")
_SITES = frozenset(lexicon.words("building outdoors room goal inside street bridge island castle village"))
_COUNTS = tuple(word for rank, word in enumerate(NUMBERS) for _ in range(24 // (rank + 1)))
_SUBJECTS = ("I", "you", "he", "she", "we")
_OTHERS = ("I", "you", "we")  # such as cannot be mistaken for someone named
_PERSON = frozenset(("person",))
_BEINGS = _spread("person*4; animal*1")
_OBJECTS = frozenset(lexicon.words("thing clothes text food drink jewel animal vehicle furniture"))
_DESCRIBED = frozenset(
    lexicon.words("thing clothes text food drink furniture vehicle building room opening box idea outdoors")
)
_COMPARED = tuple(
    lexicon.words("animal animal thing clothes text food drink furniture vehicle building room outdoors idea")
)
# Pairs of places of adjectives, as two may follow each other in English.
_ORDERS = frozenset(
    tuple(pair.split("-"))
    for pair in lexicon.words(
        "first-before first-age first-colour first-origin first-stuff before-after before-colour before-origin"
        " before-stuff after-age after-after age-colour age-origin age-stuff colour-origin colour-stuff origin-stuff"
    )
)


def _in_order(one: Adjective, two: Adjective) -> bool:
    """Whether two adjectives may stand before an English noun in this order."""
    return one != two and {one.en, two.en} not in _OPPOSITES and (one.place, two.place) in _ORDERS


def _allowed(verb: Verb, subject: Phrase, tense: str) -> bool:
    """Whether a verb is used in a tense; not where "you read" or "vous êtes parti" would leave something in doubt."""
    if verb.state and tense not in ("present", "past"):
        return False
    if verb.past == verb.base and tense == "present" and (subject.many or subject.stands in ("I", "you")):
        return False
    if verb.steady and tense in ("progressive", "was doing"):
        return False
    return not (subject.stands == "you" and tense == "past" and verb.with_etre() and not verb.state)


def _untold(phrase: Phrase) -> bool:
    """Whether the sentence may still have to tell that it is feminine."""
    return phrase.she and not phrase.pronoun and phrase.en[0].islower()


def _gendered(phrase: Phrase) -> bool:
    """Whether French knows its gender and number."""
    return phrase.stands != "you"


def _coupled(phrase: Phrase) -> bool:
    """Whether it may be of two, for either of which French would repeat a preposition."""
    return "et" in phrase.fr


def _finish(text: str, mark: str) -> str:
    return f"{text[0].upper()}{text[1:]}{mark}"


def _linked(first: Said, *more: Said) -> Said:
    """Texts in a row."""
    english, words = first
    for text, row in more:
        english, words = f"{english} {text}", (*words, *row)
    return english, words


def _comma(said: Said) -> Said:
    return f"{said[0]},", (*said[1][:-1], f"{said[1][-1]},")


def _whole(clause: Clause) -> Said:
    return clause.english(), clause.french()


class Writer:
    """Writes pairs of sentences about the people and towns of a world, by the rolls of one seed."""

    def __init__(self, world: World, dice: Dice) -> None:
        self.world, self.dice = world, dice
        self._used: set[str] = set()  # the nouns and names of the sentence so far
        self._nested = False  # whether within a relative clause
        self._alone = True  # whether "her" cannot be mistaken for someone named before
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
            self._used.clear()
            self._nested, self._alone = False, True
            try:
                (english, words), mark = self.dice.pick(self._ways)()
            except DeadEnd:
                continue
            text = join(words)
            length = len(english.split())
            clumsy = " that that " in english
            if not clumsy and length >= SHORTEST and max(length, len(text.split())) <= LONGEST:
                return _finish(english, mark), _finish(text, f" {mark}" if mark == "?" else mark)

    # Parts of sentences.

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
        if mass and determiner in _COUNTED:
            determiner = "a"
        many = many or determiner in _COUNTED
        described = () if kin and dice.chance(0.9) else self.described(noun)
        if determiner in ("own", "of") and noun.en in _UNOWNED:
            determiner = "the"
        if kin and owner == "it":
            owner = ""
        if determiner == "own":
            return phrase(noun, self.possessive(owner), many, described)
        if determiner == "of":
            return phrase(noun, "the", many, described, owner=self.possessor(owner))
        # Of what is said not to be, French would tell in the subjunctive.
        told = determiner in ("the", "that") or (determiner == "a" and style is _FREE)
        clause = self.relative(noun, many) if told else ("", ())
        if determiner.endswith("number"):
            determiner = determiner.replace("number", dice.pick(_COUNTS))
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
        return phrase(self.noun(_PERSON), self.dice.pick(("the", "the", "this")), many=self.dice.chance(0.2))

    def relative(self, noun: Noun, many: bool) -> Said:
        """At times a relative clause; in one there is no other."""
        dice = self.dice
        if self._nested or dice.chance(0.88):
            return "", ()
        self._nested, alone, self._alone = True, self._alone, False
        antecedent = phrase(noun, "the", many)
        tense = dice.pick(("past", "past", "present", "progressive", "future"))
        said: Said = ("", ())
        who = noun.tags & frozenset(_BEINGS)
        choices = verbs(_PERSON, noun.tags, "direct")
        if who and dice.chance(0.6):
            clause = self.deed(antecedent, tense, dice.pick(("", "", "", "not")), owner="", timed=False)
            said = f"{'who' if 'person' in who else 'that'} {clause.english('')}", clause.french(("qui",))
        elif choices.items:
            subject = self.someone(_OTHERS, owner="", style=_DEFINITE)
            clause = Clause(subject, self.verb(subject, tense, choices), tense, ahead=antecedent)
            said = f"that {clause.english()}", ("que", *clause.french())
        self._nested, self._alone = False, alone
        return said

    def someone(
        self,
        pronouns: Sequence[str] = _SUBJECTS,
        owner: str | None = None,
        style: Sequence[str] = _FREE,
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
            return self.couple(pronouns is _SUBJECTS)
        noun = self.noun(_PERSON)
        if clue and noun.woman is not None and self.dice.chance(0.6):
            return self.common(noun.woman, _PLAIN, owner, many=False)
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

    def subject(self, pronouns: Sequence[str] = _SUBJECTS, owner: str | None = None, clue: bool = False) -> Phrase:
        """Somebody or an animal."""
        if self.dice.pick(_BEINGS) == "animal":
            return self.common(self.noun(frozenset(("animal",))), _FREE, owner)
        return self.someone(pronouns, owner, clue=clue)

    def next(self, before: Phrase | None) -> Phrase:
        """The subject of a second clause: the pronoun for the one before it, or if there is none, somebody else."""
        self._alone = False
        return self.subject(_OTHERS, "") if before is None else replaced(before)

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

    def where(self, tags: Sequence[str] = _OUT, owner: str | None = "") -> Said:
        """A place: in a town or by something."""
        if tags is _OUT and self.dice.chance(0.2):
            town = self.town()
            return f"in {town}", ("à", town)
        tag = self.dice.pick(tags)
        place = self.common(self.noun(frozenset((tag,))), _PLACES, owner, many=False)
        english, words = self.dice.pick(_PREPOSITIONS[tag])
        return f"{english} {place.en}", place.behind(" ".join(words))

    def time(self, tense: str) -> Said:
        """When something is done."""
        if tense in ("past", "future") and self.dice.chance(0.15):
            number = self.dice.pick(_COUNTS)
            if tense == "past":
                return f"{number} days ago", ("il", "y", "a", NUMBERS[number], "jours")
            return f"in {number} days", ("dans", NUMBERS[number], "jours")
        return self.dice.pick(_TIMES[tense])

    def object(self, verb: Verb, subject: Phrase, denied: bool, owner: str, avoid: str = "") -> Phrase:
        """What is done something to; not what the pronoun `avoid` could stand for."""
        dice = self.dice
        if verb.fr == "jouer":
            return phrase(self.noun(verb.objects), "the")
        settled = verb.state and not verb.preposition and "clothes" not in verb.objects
        style = _DEFINITE if settled else _PLAIN if denied else _FREE
        mine = ("I", "we") if subject.stands in ("I", "we") else (subject.stands,)
        pronouns = [one for one in (_SUBJECTS if self._alone else _OTHERS) if one not in mine]
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
            given = self.common(self.noun(_OBJECTS), _PLAIN if denied else _FREE, owner)
            to = self.until(
                lambda one: one.stands not in (avoid, subject.stands) and not _coupled(one),
                lambda: self.someone(("he", "she") if self._alone else (), owner, _DEFINITE),
            )
            if given.stands == avoid:
                given = phrase(self.noun(_OBJECTS), "the", many=avoid == "it")
        else:
            verb = self.verb(
                subject, tense, verbs(subject.tags, frozenset(), "any" if dice.chance(0.8) else "intransitive")
            )
            if verb.objects:
                given = self.object(verb, subject, denied, owner, avoid)
        rest: Said = ("", ())
        moving = verb.with_etre() and not verb.reflexive
        somewhere = placed and not verb.state and not moving and to is None and not verb.objects & _SITES
        if somewhere and dice.chance(0.12 if verb.objects else 0.3):
            rest = self.where(owner=owner)
        usual = tense == "present" and not denied and not verb.state
        if timed and tense in _TIMES and not verb.state and negation in ("", "not") and dice.chance(0.2):
            rest = _linked(rest, self.time(tense)) if rest[0] else self.time(tense)
            usual = False
        adverb = dice.pick(_OFTEN) if usual and dice.chance(0.15) else ("", ())
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
            if two != one and {one.en, two.en} not in _OPPOSITES and two.place == one.place and not negation:
                english, words = f"{english} and {two.en}", (*words, "et", *subject.agreed(two.fr))
        return Clause(subject, BE, tense, negation=negation, rest=(english, words))

    def likes(self, subject: Phrase, tense: str, negation: str = "") -> Clause:
        """A clause on what somebody likes or hates."""
        return Clause(subject, self.dice.pick(_TASTES), tense, self.general(), negation=negation)

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
            return Clause(subject, self.dice.pick(_FEELINGS[: 7 if person else 5]), tense)
        if roll < 0.85:
            return self.lacking(subject, tense)
        return self.likes(subject, tense)

    # Kinds of sentences.

    def report(self) -> tuple[Said, str]:
        """The king is hiding a crown."""
        subject, tense = self.subject(), self.dice.pick(_DEED_TENSES)
        if tense in _TIMES and self.dice.chance(0.12):
            clause = self.deed(subject, tense, timed=False)
            if not clause.verb.state:
                return _linked(_comma(self.time(tense)), _whole(clause)), "."
        return _whole(self.deed(subject, tense, self.negation(tense))), "."

    def own(self) -> tuple[Said, str]:
        """The baker lost her key."""
        dice = self.dice
        subject = self.until(_gendered, lambda: self.someone(clue=True))
        tense = dice.pick(_DEED_TENSES)
        verb = self.verb(subject, tense, verbs(subject.tags, _OBJECTS | _PERSON, "direct"))
        tags = verb.objects - {"person"} | (frozenset(("kin",)) if "person" in verb.objects else frozenset())
        noun = self.noun(tags)
        many = noun.plural() and dice.chance(0.3)
        owned = phrase(noun, PRONOUNS[subject.stands].possessive, many, self.described(noun))
        return _whole(Clause(subject, verb, tense, owned, negation=self.negation(tense))), "."

    def sequel(self) -> tuple[Said, str]:
        """The girl bought a hat, but she lost it."""
        dice = self.dice
        another = dice.chance(0.2)
        subject = self.subject(clue=not another)
        tense = dice.pick(("past", "past", "past", "present", "future", "near"))
        first = self.verb(subject, tense, verbs(subject.tags, _OBJECTS, "direct"))
        given = self.until(
            lambda given: given.stands != subject.stands,
            lambda: self.common(self.noun(first.objects - _PERSON), _FREE, subject.stands),
        )
        actor = self.next(None if another else subject)
        choices = verbs(actor.tags, given.tags, "direct")
        second = self.until(lambda verb: verb.base != first.base, lambda: self.verb(actor, tense, choices))
        follows = Clause(actor, second, tense, replaced(given), negation="not" if dice.chance(0.2) else "")
        link = dice.pick(_LINKS)
        start = _whole(Clause(subject, first, tense, given))
        whole = _linked(_comma(start) if link[0] == "but" else start, link, _whole(follows))
        if tense in _TIMES and not first.state and dice.chance(0.15):
            whole = _linked(_comma(self.time(tense)), whole)
        return whole, "."

    def reason(self) -> tuple[Said, str]:
        """The horses are resting because they are tired."""
        dice = self.dice
        subject = self.subject(clue=True)
        tense = dice.pick(("past", "past", "present", "progressive", "future"))
        main = self.deed(subject, tense, self.negation(tense), avoid=subject.stands, placed=subject.stands != "it")
        then = "past" if tense == "past" else "present"
        if dice.chance(0.1) and not _untold(subject):
            because = dice.pick(_WEATHER["past" if tense == "past" else dice.pick(("present", "progressive"))])
        else:
            because = _whole(self.ground(replaced(subject), then))
        return _linked(_whole(main), ("because", ("parce", "que")), because), "."

    def when(self) -> tuple[Said, str]:
        """When the queen arrived, the dog was sleeping."""
        dice = self.dice
        same = dice.chance(0.3)
        if not same and dice.chance(0.5):
            occasion, main = dice.pick(_WEATHER["present"]), _whole(self.deed(self.subject(), "present", timed=False))
        else:
            subject = self.subject(clue=same)
            occasion = _whole(self.deed(subject, "past", avoid=subject.stands, timed=False, placed=False))
            actor = self.next(subject if same else None)
            main = _whole(self.deed(actor, dice.pick(("past", "was doing")), timed=False))
        return self._around(("when", ("quand",)), occasion, main, same), "."

    def _around(self, conjunction: Said, clause: Said, main: Said, first: bool) -> Said:
        """A subordinate clause before or after the main one: before it if that has a pronoun for something in it."""
        clause = _linked(conjunction, clause)
        return _linked(_comma(clause), main) if first or self.dice.chance(0.5) else _linked(main, clause)

    def meanwhile(self) -> tuple[Said, str]:
        """While the king was sleeping, a thief stole the crown."""
        during = self.deed(self.subject(), "was doing", timed=False)
        main = self.deed(self.next(None), self.dice.pick(("past", "past", "was doing")), timed=False)
        return self._around(("while", ("pendant", "que")), _whole(during), _whole(main), False), "."

    def condition(self) -> tuple[Said, str]:
        """If it rains, we will stay at the hotel."""
        dice = self.dice
        same = dice.chance(0.3)
        if not same and dice.chance(0.55):
            case, main = dice.pick(_WEATHER["present"]), self.deed(self.subject(), "future", self.negation("past"))
        else:
            subject = self.subject(clue=same)
            case = _whole(self.deed(subject, "present", dice.pick(("", "", "not")), avoid=subject.stands, timed=False))
            main = self.deed(self.next(subject if same else None), "future")
        return self._around(("if", ("si",)), case, _whole(main), same), "."

    def topic(self) -> Phrase:
        """Something that may be large, red or interesting."""
        return self.common(self.noun(_DESCRIBED), _DEFINITE)

    def state(self) -> tuple[Said, str]:
        """The old shoes are dirty. / My sister was hungry."""
        dice = self.dice
        tense = dice.pick(("present", "present", "past", "past", "future"))
        negation = dice.pick(("", "", "", "", "", "not", "never" if tense == "present" else "not", "no longer"))
        if tense == "future":
            negation = negation and "not"
        if dice.chance(0.5):
            return _whole(self.being(self.topic(), tense, negation)), "."
        subject = self.subject()
        if subject.stands == "you" or dice.chance(0.3):
            return _whole(Clause(subject, dice.pick(_FEELINGS[:5]), tense, negation=negation)), "."
        return _whole(self.being(subject, tense, negation)), "."

    def comparison(self) -> tuple[Said, str]:
        """The fox is faster than the hens."""
        dice = self.dice
        if dice.chance(0.5):
            one = self.until(_gendered, self.someone)
            two = self.until(lambda two: two.stands != one.stands, lambda: self.someone(_OTHERS, "", _DEFINITE))
        else:
            kind = frozenset((dice.pick(_COMPARED),))
            one, two = (self.common(self.noun(kind), _DEFINITE) for _ in range(2))
        adjective = adjectives(one.tags & two.tags, "grade").pick(dice)
        words = one.agreed(adjective.fr)
        how = dice.pick(("more", "more", "less", "as", "as", "not as"))
        if how == "less" and not compared(adjective.en, "er").startswith("more "):
            how = "more"
        more = {"more": "plus", "less": "moins"}.get(how, "aussi")
        words = one.agreed("meilleur") if how == "more" and adjective.fr == "bon" else (more, *words)
        english = {"more": compared(adjective.en, "er"), "less": f"less {adjective.en}"}.get(how, f"as {adjective.en}")
        beside = PRONOUNS[two.stands].object if two.pronoun else two.en
        rest = (f"{english} {'than' if how in ('more', 'less') else 'as'} {beside}", (*words, *two.behind("que")))
        tense = dice.pick(("present", "present", "past"))
        return _whole(Clause(one, BE, tense, negation="not" if how == "not as" else "", rest=rest)), "."

    def superlative(self) -> tuple[Said, str]:
        """This is the oldest house in the village."""
        dice = self.dice
        if dice.chance(0.5):
            subject = self.until(lambda someone: not someone.many, lambda: self.someone(()))
            noun = self.called(subject, _PERSON)
            english, words = _whole(Clause(subject, BE, dice.pick(("present", "present", "past"))))
        else:
            noun = self.noun(frozenset(("building", "outdoors", "animal")))
            english, words = "this is", ("ce", "est")
        adjective = adjectives(noun.tags, "most").pick(dice)
        french_ = "meilleur" if adjective.fr == "bon" else adjective.fr
        before = adjective.place != "after"
        agreed = agree(french_, noun.she, False, noun.fr.split()[0] if before else "")
        most: Words = agreed if french_ == "meilleur" else ("plus", *agreed)
        article = "la" if noun.she else "le"
        row = (article, *most, noun.fr) if before else (article, noun.fr, article, *most)
        where = self._region()
        return (
            f"{english} the {compared(adjective.en, 'est')} {noun.en} in {where[0]}",
            (*words, *row, *where[1]),
        ), "."

    def _region(self) -> Said:
        if self.dice.chance(0.3):
            town = self.town()
            return town, ("de", town)
        place = phrase(self.noun(frozenset(("village", "town", "valley"))), "the")
        return place.en, place.behind("de")

    def called(self, subject: Phrase, tags: frozenset[str]) -> Noun:
        """A noun for what a person is, of the right gender."""
        noun = self.until(lambda noun: noun.she == subject.she or noun.woman is not None, lambda: self.noun(tags))
        return noun.woman if subject.she and noun.woman is not None else noun

    def existence(self) -> tuple[Said, str]:
        """There are three cats under the table."""
        dice = self.dice
        living = dice.chance(0.4)
        noun = self.noun(frozenset(_BEINGS) if living else frozenset(("thing", "clothes", "text", "food")))
        tense = dice.pick(("present", "present", "past", "future"))
        many = noun.plural() and dice.chance(0.4)
        missing = tense != "future" and dice.chance(0.2)
        found = self.common(noun, ("a",) if missing else ("a", "a", "number", "several", "a few", "many"), "", many)
        verb_ = {"present": "are" if found.many else "is", "past": "were" if found.many else "was", "future": "will be"}
        has = {"present": "a", "past": "avait", "future": "aura"}[tense]
        where = self.where(_OUT if living else _AROUND)
        if missing:
            english, words = f"no {found.bare[0]}", ("il", "ne", "y", has, "pas", "de", *found.bare[1])
        else:
            english, words = found.en, ("il", "y", has, *found.fr)
        return _linked((f"there {verb_[tense]} {english}", words), where), "."

    def position(self) -> tuple[Said, str]:
        """The key is in the blue box."""
        dice = self.dice
        tense = dice.pick(("present", "present", "past", "future"))
        thing = dice.chance(0.6)
        if thing:
            subject = self.common(self.noun(frozenset(("thing", "clothes", "text", "animal"))), _DEFINITE)
        else:
            subject = self.someone()
        negation = dice.pick(("", "", "", "", "not"))
        where = self.where(_AROUND if thing else _OUT)
        return _whole(Clause(subject, BE, tense, negation=negation, rest=where)), "."

    def possession(self) -> tuple[Said, str]:
        """My uncle has two horses."""
        dice = self.dice
        subject, tense = self.someone(), dice.pick(("present", "present", "present", "past", "future"))
        negation = (
            "" if tense == "future" else dice.pick(("", "", "", "not", "never" if tense == "past" else "no longer"))
        )
        if dice.chance(0.3):
            noun = self.noun(frozenset(("kin",)))
            many = noun.plural() and dice.chance(0.7)
            had = phrase(noun, "a" if negation or not many else dice.pick(_COUNTS), many)
        else:
            noun = self.noun(_OBJECTS - {"drink"})
            had = self.common(noun, ("a",) if negation else ("a", "a", "number", "several", "many"), "")
        return _whole(Clause(subject, HAVE, tense, had, negation=negation)), "."

    def taste(self) -> tuple[Said, str]:
        """Matine prefers tea to coffee."""
        dice = self.dice
        subject, tense = self.someone(), dice.pick(("present", "present", "present", "past"))
        if dice.chance(0.65):
            return _whole(self.likes(subject, tense, dice.pick(("", "", "not")))), "."
        pool = frozenset((dice.pick(("food", "drink", "animal")),))
        one, two = (phrase(noun, "", noun.plural()) for noun in (self.noun(pool), self.noun(pool)))
        rest = (f"to {two.en}", two.behind("à"))
        return _whole(Clause(subject, _PREFER, tense, one, rest=rest)), "."

    def passive(self) -> tuple[Said, str]:
        """The letter was not read by the queen."""
        dice = self.dice
        doer = self.someone((), "") if dice.chance(0.8) else self.common(self.noun(frozenset(("animal",))), _FREE)
        choices = verbs(doer.tags, frozenset(), "direct")
        verb = self.until(lambda verb: not verb.state, lambda: self.verb(doer, "past", choices))
        noun = self.noun(verb.objects)
        done = self.common(noun, _DEFINITE, "")
        tense = dice.pick(("past", "past", "past", "future"))
        negation = dice.pick(("", "", "", "", "not"))
        by = (f"{verb.participle or past(verb.base)} {verb.particle}".strip() + f" by {doer.en}", ("par", *doer.fr))
        agreed = french.participle(conjugate(verb.fr).participle, done.she, done.many)
        # "a été" is the passé composé of "être", which as a state has the imparfait.
        be = dataclasses.replace(BE, state=tense != "past")
        return _whole(Clause(done, be, tense, negation=negation, rest=(by[0], (agreed, *by[1])))), "."

    def opinion(self) -> tuple[Said, str]:
        """My brother says that the queen has left."""
        dice = self.dice
        thinker = self.someone(clue=True)
        same = _untold(thinker) or dice.chance(0.4)
        subject = self.next(thinker if same else None)
        if dice.chance(0.2):
            thought, verb = self.deed(subject, "future", self.negation("future")), _HOPE
        else:
            verb = dice.pick(_OPINIONS)
            if subject.stands != "you" and dice.chance(0.35):
                thought = self.being(subject, dice.pick(("present", "past")), dice.pick(("", "", "not")))
            else:
                tense = dice.pick(("present", "progressive", "past", "near", "future", "can", "must"))
                thought = self.deed(subject, tense, self.negation(tense))
        start = _whole(Clause(thinker, verb, "present"))
        return _linked(start, ("that", ("que",)), _whole(thought)), "."

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
        english, word = self.dice.pick(_said("why=pourquoi; why=pourquoi; when=quand; where=où; how=comment"))
        if english != "why" and tense == "progressive":
            tense = "past"
        clause = self.until(
            lambda clause: not clause.verb.state and not clause.adverb[0],
            lambda: self.deed(subject, tense, timed=False, placed=False),
        )
        return f"{english} {clause.english(asked=True)}", (*word, "est-ce", "que", *clause.french())

    def _what(self) -> Said:
        subject, tense = self._asked(), self.dice.pick(("progressive", "past", "past", "future", "want", "near"))
        verb = self.verb(subject, tense, verbs(subject.tags, _OBJECTS - {"animal"}, "direct"))
        clause = Clause(subject, verb, tense)
        return f"what {clause.english(asked=True)}", ("qu'est-ce", "que", *clause.french())

    def _which(self) -> Said:
        dice = self.dice
        subject, tense = self._asked(), dice.pick(("progressive", "past", "past", "past", "future", "want"))
        verb = self.verb(subject, tense, verbs(subject.tags, _OBJECTS, "direct"))
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
        return _whole(clause)

    def _find(self) -> Said:
        """Where is the key? / How old is the king?"""
        dice = self.dice
        if dice.chance(0.3):
            someone = self.until(lambda one: not one.many, lambda: self.someone((), "", _DEFINITE))
            return f"how old is {someone.en}", ("quel", "âge", "a", *someone.fr)
        thing = self.common(self.noun(frozenset(("thing", "clothes", "text", "animal", "person", "goal"))), _DEFINITE)
        tense = dice.pick(("present", "present", "past"))
        forms = conjugate("être")
        is_ = (forms.present if tense == "present" else forms.imperfect)[PRONOUNS[thing.stands].voice]
        return f"where {Clause(thing, BE, tense).english(asked=True)}", ("où", is_, *thing.fr)

    def everyone(self) -> tuple[Said, str]:
        """No child wants to drink the milk."""
        dice = self.dice
        determiner = dice.pick(("no", "no", "every", "all the", "", ""))
        if determiner:
            subject = phrase(self.noun(_PERSON), determiner, many=determiner == "all the")
        else:
            subject = dice.pick((_NOBODY, _EVERYBODY))
        if dice.chance(0.25):
            return _whole(Clause(subject, dice.pick(_TASTES), "present", self.general())), "."
        tense = dice.pick(("present", "progressive", "past", "past", "future", "can", "want"))
        return _whole(self.deed(subject, tense, owner="", timed=not subject.negative)), "."

    def profession(self) -> tuple[Said, str]:
        """Matine is a baker."""
        dice = self.dice
        couple = dice.chance(0.2)
        subject = self.name() if couple or dice.chance(0.6) else pronoun(dice.pick(("he", "she")))
        if couple:
            subject = together(subject, self.name())
        noun = self.called(subject, frozenset(("job",)))
        verb = _BECOME if dice.chance(0.3) else BE
        tense = dice.pick(("past", "future", "want") if verb is _BECOME else ("present", "present", "past"))
        described = () if subject.pronoun or couple else self.described(noun)
        negation = dice.pick(("", "", "", "", "not"))
        what = phrase(noun, "a", couple, described)
        english = named(noun, True) if couple else what.en
        words = what.fr if described else (noun.frs if couple else noun.fr,)
        return _whole(Clause(subject, verb, tense, negation=negation, rest=(english, words))), "."

    def age(self) -> tuple[Said, str]:
        """His cousin was twelve years old."""
        number = self.dice.pick(tuple(NUMBERS))
        tense = self.dice.pick(("present", "present", "past"))
        subject = self.subject()
        words = conjugate("avoir")
        voice = PRONOUNS[subject.stands].voice
        has = (words.present if tense == "present" else words.imperfect)[voice]
        is_ = Clause(subject, BE, tense).english()
        return (f"{is_} {number} years old", (*subject.fr, has, NUMBERS[number], "ans")), "."

    def whereabouts(self) -> tuple[Said, str]:
        """She comes from Stegark. / We are going to the market."""
        dice = self.dice
        subject = self.until(_gendered, self.someone)
        town = self.town()
        roll = dice.roll()
        if roll < 0.2:
            tense = dice.pick(("present", "present", "past"))
            return _whole(
                Clause(subject, _LIVE, tense, negation=self.negation(""), rest=(f"in {town}", ("à", town)))
            ), "."
        if roll < 0.3:
            return _whole(Clause(subject, _BORN, "past", rest=(f"in {town}", ("à", town)))), "."
        verb = dice.pick(tuple(_MOVES))
        tense = dice.pick(_DEED_TENSES)
        to_town, to_place, preposition = _MOVES[verb]
        if dice.chance(0.5):
            rest: Said = (f"{to_town} {town}", (preposition, town))
        else:
            place = self.common(self.noun(frozenset(("goal",))), ("the", "the", "the", "own", "this"), "", many=False)
            rest = (f"{to_place} {place.en}", place.behind(preposition))
        if tense in _TIMES and dice.chance(0.3):
            rest = _linked(rest, self.time(tense))
        return _whole(Clause(subject, verb, tense, negation=self.negation(tense), rest=rest)), "."

    def presentation(self) -> tuple[Said, str]:
        """These are the king's horses."""
        dice = self.dice
        shown = self.common(self.noun(_OBJECTS | {"person", "kin", "building", "instrument"}), _SHOWN)
        that = dice.chance(0.4)
        negated = dice.chance(0.2)
        if shown.stands == "they":
            english, words = ("those are" if that else "these are"), ("sont",)
        else:
            english, words = ("that is" if that else "this is"), ("est",)
        what = shown.bare[0] if shown.article == "some" else shown.en
        if negated:
            return (f"{english} not {what}", ("ce", "ne", *words, "pas", *shown.fr)), "."
        return (f"{english} {what}", ("ce", *words, *shown.fr)), "."

    def order(self) -> tuple[Said, str]:
        """Do not close the door."""
        dice = self.dice
        choices = verbs(_PERSON, frozenset(), "direct")
        verb = self.until(lambda verb: not verb.state and verb.base not in _UNORDERED, lambda: choices.pick(dice))
        negation = dice.pick(("", "", "", "not", "never"))
        told = self.common(self.noun(verb.objects), _DEFINITE if negation else _FREE, "you")
        start = {"": "", "not": "do not ", "never": "never "}[negation]
        ne = ("ne",) if negation else ()
        verb_ = f"{start}{verb.base} {verb.particle}".strip()
        return (f"{verb_} {told.en}", (*ne, conjugate(verb.fr).present[3], *_NOT[negation], *told.fr)), "."
