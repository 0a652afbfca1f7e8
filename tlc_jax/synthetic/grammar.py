"""Sentences as structures, which say who does what to whom, and their first surface, English,
which chooses the words, their order and their agreement."""

from typing import NamedTuple

PRONOUN = "(pronoun)"  # determiner of a phrase that only points back at its noun


class Phrase(NamedTuple):
    """A noun phrase: its noun in the singular, and an adjective or a noun used as one."""

    noun: str
    determiner: str = ""
    many: bool = False
    adjective: str = ""


class Clause(NamedTuple):
    """Who does what. In the passive, `subject` is still the doer, but `object` comes first."""

    subject: Phrase
    verb: str  # base form with what belongs to it, such as "be fond of"
    object: Phrase
    negated: bool = False
    past: bool = False
    passive: bool = False


class Sentence(NamedTuple):
    """A clause or two: "so" links clauses, "and" and "but" predicates, "who" makes one relative."""

    first: Clause
    link: str = ""
    second: Clause | None = None


def tell(subject: Phrase, wording: str, value: str, negated: bool = False) -> Clause:
    """The clause that gives the subject a value, in one of the wordings of `world.RELATIONS`."""
    said, _, head = wording.partition(" _ ")
    verb, _, determiner = said.rpartition(" ")
    if determiner not in ("a", "the"):
        verb, determiner = said, ""
    # Dakots "are birds", but "have a red color".
    many = subject.many and verb in ("be", "count as")
    return Clause(subject, verb, Phrase(head or value, determiner, many, head and value), negated)


def pronoun(noun: str) -> str:
    """The English pronoun for one; the ending of a name tells women from men."""
    if noun.istitle() and noun.endswith(("a", "ine")):
        return "she"
    return "he" if noun.istitle() and noun.endswith(("o", "us", "ek")) else "it"


class English:
    """Subject, verb, object; determiner, adjective, noun. Other languages override its methods."""

    def link(self, link: str, subject: Phrase) -> str:
        """The word for the link of a sentence about this subject."""
        return "which" if link == "who" and pronoun(subject.noun) == "it" else link

    def phrase(self, phrase: Phrase, is_object: bool = False) -> str:
        noun, determiner, many, adjective = phrase
        if determiner == PRONOUN:
            return "they" if many else pronoun(noun)
        words = f"{adjective} {noun}".strip() + "s" * many
        if determiner == "a":
            determiner = "" if many else "an" if words[0] in "aeiou" else "a"
        return f"{determiner} {words}".strip()

    def predicate(self, clause: Clause) -> str:
        """Everything after the first phrase of a clause."""
        first, last = (clause.subject, clause.object)[:: -1 if clause.passive else 1]
        verb, _, rest = clause.verb.partition(" ")
        done = verb + ("d" if verb.endswith("e") else "ed")
        if clause.passive or verb == "be":
            be = ("was", "were") if clause.past else ("is", "are")
            words = [be[first.many], "not" * clause.negated, f"{done} by" * clause.passive or rest]
        elif clause.negated:
            words = ["did" if clause.past else "do" if first.many else "does", "not", verb, rest]
        elif clause.past:
            words = [done, rest]
        else:
            words = [verb if first.many else "has" if verb == "have" else f"{verb}s", rest]
        return " ".join(word for word in (*words, self.phrase(last)) if word)

    def clause(self, clause: Clause) -> str:
        first = clause.object if clause.passive else clause.subject
        return f"{self.phrase(first, clause.passive)} {self.predicate(clause)}"

    def render(self, sentence: Sentence) -> str:
        """The sentence with a capital and a full stop."""
        first, link, second = sentence
        text = self.clause(first)
        if second:
            word, subject = self.link(link, first.subject), self.phrase(first.subject)
            text = {
                "who": f"{subject}, {word} {self.predicate(first)}, {self.predicate(second)}",
                "so": f"{text}, {word} {self.clause(second)}",
            }.get(link, f"{text} {word} {self.predicate(second)}")
        return f"{text[0].upper()}{text[1:]}."
