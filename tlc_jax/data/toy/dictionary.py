"""The words of the toy translations, read from their tables: English, French, and what they go with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from tlc_jax.data.toy import lexicon
from tlc_jax.data.toy.dictionary_tables import (
    ADJECTIVE_TABLE,
    GIFT_TABLE,
    NOUN_TABLE,
    NUMBER_TABLE,
    VERB_TABLE,
)
from tlc_jax.data.toy.french import ETRE, Words, plural


@dataclasses.dataclass(frozen=True)
class Noun:
    """A noun.

    Attributes:
      en, ens: English, and its plural if irregular.
      fr, frs: French, and its plural.
      she: whether it is feminine.
      tags: what it can be combined with: those of its table, and the English word.
      woman: the feminine noun, where English has one word for both.
    """

    en: str
    ens: str
    fr: str
    frs: str
    she: bool
    tags: frozenset[str]
    woman: Noun | None = None

    def plural(self) -> bool:
        """Whether it is spoken of in the plural: nobody has fathers."""
        return "mass" not in self.tags and self.en not in ("father", "mother")


@dataclasses.dataclass(frozen=True)
class Adjective:
    """An adjective: its place (see `ADJECTIVE_TABLE`) and the nouns it goes with, by tags."""

    en: str
    fr: str
    place: str
    tags: frozenset[str]

    def suits(self, tags: frozenset[str]) -> bool:
        """Whether it can be said of what has these tags."""
        return bool(self.tags & tags) and not any(f"-{tag}" in self.tags for tag in tags)

    def graded(self) -> bool:
        """Whether one can be it more or less."""
        return self.place in ("first", "before", "age", "after", "never") and self.en not in _UNGRADED


@dataclasses.dataclass(frozen=True)
class Verb:
    """A verb.

    Attributes:
      base, past, participle: English; the last two empty if regular.
      particle: what follows it in English ("look at").
      fr: the French infinitive.
      fixed, preposition: what follows that ("avoir peur de"): noun and preposition.
      state: whether it has no progressive, and in the past the imparfait.
      steady: whether it has no progressive.
      subjects, objects: tags of the nouns that it goes with.
    """

    base: str
    past: str
    participle: str
    particle: str
    fr: str
    fixed: Words
    preposition: str
    reflexive: bool
    state: bool
    steady: bool
    subjects: frozenset[str]
    objects: frozenset[str]

    def with_etre(self) -> bool:
        """Whether its passé composé has "être"."""
        return self.reflexive or self.fr in ETRE


_UNGRADED = frozenset(
    lexicon.words(
        "new alone ready late angry blind deaf open closed empty full bad delicious ill round cruel secret hungry"
    )
)


def entries(table: str, separator: str = ";") -> Iterator[tuple[str, str]]:
    """Reads "english=french; english=french"."""
    for entry in table.split(separator):
        if entry.strip():
            english, other = entry.strip().split("=")
            yield english, other


def _nouns() -> Iterator[Noun]:
    for tags, table in NOUN_TABLE.items():
        for english, word in entries(table):
            one, _, many = english.partition("/")
            named = (one, many)
            kinds = frozenset((*tags.split(), one))
            he, _, she = word.partition("|")
            if she:
                woman = Noun(*named, she, plural(she), True, kinds)
                yield Noun(*named, he, plural(he), False, kinds, woman)
            else:
                word, gender = word.rsplit(" ", 1)
                one, _, many = word.partition("/")
                yield Noun(*named, one, many or plural(one), gender == "f", kinds)


def verb(entry: str) -> Verb:
    """Reads "english[/past/participle][ particle]=french[ words][ preposition][: subjects[ > objects]]"."""
    translated, _, frame = entry.partition(":")
    english, word = translated.strip().split("=")
    mark, english = (english[0], english[1:]) if english[0] in "*~" else ("", english)
    first, _, particle = english.partition(" ")
    base, past, participle_ = first.split("/") if "/" in first else (first, "", "")
    row = word.split()
    reflexive = row[0] == "se"
    row = row[reflexive:]
    preposition = row.pop() if row[-1] in ("à", "de") else ""
    subjects, _, objects = frame.partition(">")
    return Verb(
        base, past, participle_, particle, row[0], tuple(row[1:]), preposition, reflexive, mark == "*", mark != "",
        frozenset(subjects.split()), frozenset(objects.split()),
    )  # fmt: skip


NOUNS = tuple(_nouns())
ADJECTIVES = tuple(
    Adjective(english, word, place, frozenset(tags.split()))
    for tags, place, table in ADJECTIVE_TABLE
    for english, word in entries(table)
)
VERBS = tuple(verb(line) for line in VERB_TABLE.strip().splitlines())
GIFTS = tuple(verb(entry) for entry in GIFT_TABLE.split(";"))
NUMBERS = dict(entry.split("=") for entry in NUMBER_TABLE.split())
