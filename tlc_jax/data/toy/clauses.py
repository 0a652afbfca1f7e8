"""Clauses of the toy translations, in English and in French: tense, negation, questions, clitics, agreement."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from tlc_jax.data.toy import french
from tlc_jax.data.toy.dictionary import Verb, verb
from tlc_jax.data.toy.english import PLURAL, gerund, past, third
from tlc_jax.data.toy.french import Words, conjugate
from tlc_jax.data.toy.phrases import PRONOUNS, Phrase, Said

BE = verb("*be/was/been=être")
HAVE = verb("*have/had/had=avoir")
# Tenses go by their English: "present", "progressive", "past", "was doing", "near" ("is going to"), "future"; so do
# "can", "must" and "want", which are treated as tenses of the verb that follows.
_HELPERS = {"near": "aller", "can": "pouvoir", "must": "devoir", "want": "vouloir"}
NEGATIONS = {"": (), "not": ("pas",), "never": ("jamais",), "no longer": ("plus",)}


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
        plain = stands in ("I", *PLURAL)
        is_ = "am" if stands == "I" else "are" if plain else "is"
        was = "were" if stands in PLURAL else "was"
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
        pas = (*NEGATIONS[self.negation], *self.adverb[1])
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
