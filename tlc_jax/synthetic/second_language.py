"""The second surface of the grammar: a coined language. The verb comes last; adjectives and
determiners follow their noun; what English says in the passive has its object first. Nouns have two
genders; nouns, adjectives and determiners end alike for gender, number and case, and the verb ends
like its doer. Names change only as objects, and stand where English has a pronoun."""

import functools

from tlc_jax.synthetic import grammar, world
from tlc_jax.synthetic.grammar import Clause, English, Phrase


@functools.cache
def stems() -> dict[str, str]:
    """The coined stem of every English word and verb; names stay as they are."""
    english = ["the", "some", "this", "these", "and", "but", "who", "so"]
    for words in (*world.build().words.values(), world.build().wider.values()):
        english += [word for word in words if word.islower()]
    for wording in (way for row in world.RELATIONS.values() for way in row[2].split(", ")):
        clause = grammar.tell(Phrase("king"), wording, "king")
        english += [clause.verb, clause.object.noun]
    coined = world.Dice(2021).coin(len(english), world.ONSETS, "aeiou", "bdgklmnprstvz")
    return dict(zip(english, coined, strict=True))


class SecondLanguage(English):
    """Subject, object, verb; noun, adjective, determiner."""

    def link(self, link: str, subject: Phrase) -> str:
        return stems()[link] + self.ending(subject) * (link == "who")

    def ending(self, phrase: Phrase) -> str:
        stem = stems().get(phrase.noun)
        # English does not show the gender of a noun: a translator learns it with each word.
        first_gender = len(stem) % 2 == 1 if stem else grammar.pronoun(phrase.noun) == "she"
        return ("oi", "ae")[first_gender][phrase.many]

    def phrase(self, phrase: Phrase, is_object: bool = False) -> str:
        stem, ending = stems().get(phrase.noun), self.ending(phrase) + "n" * is_object
        noun = stem + ending if stem else phrase.noun + "en" * is_object
        agreeing = [word for word in (phrase.adjective, phrase.determiner) if word in stems()]
        return " ".join([noun, *(stems()[word] + ending for word in agreeing)])

    def predicate(self, clause: Clause) -> str:
        stem = "ne" * clause.negated + stems()[clause.verb] + "iv" * clause.past
        last = clause.subject if clause.passive else clause.object
        return f"{self.phrase(last, not clause.passive)} {stem}{self.ending(clause.subject)}"
