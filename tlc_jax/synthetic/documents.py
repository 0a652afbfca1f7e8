"""Text about the synthetic world. Facts return in several wordings, so whoever remembers one can
predict its words; names, pronouns, agreement and restatements follow from their context."""

from tlc_jax.synthetic.grammar import PRONOUN, Clause, English, Phrase, Sentence, pronoun, tell
from tlc_jax.synthetic.world import RELATIONS, Dice, World

TOPICS = ("person",) * 9 + ("kind",) * 6 + ("town",) * 4
# Determiners of unnamed people and things, each with whether it is plural.
DETERMINERS = [("the", False), ("a", False), ("this", False)]
DETERMINERS += [("the", True), ("", True), ("some", True), ("these", True)]
DESCRIBED = {"stranger": "manner", "trade": "manner", "class": "size", "kind": "color"}


class Writer:
    """Draws sentences about a world, by the rolls of `dice`."""

    def __init__(self, world: World, dice: Dice) -> None:
        self.words, self.facts, self.wider = world
        self.dice, self.english = dice, English()

    def paragraph(self) -> str:
        """Sentences about one subject, or about a woman and a man in turn."""
        subject, untold = self.topic()
        topics = [(subject, untold)]
        if pronoun(subject.noun) != "it" and self.dice.roll() < 0.7:
            # The other pronoun belongs to the other person, so it is clear whom each points at.
            other = self.words["man" if pronoun(subject.noun) == "she" else "woman"]
            topics.append((Phrase(self.dice.pick_early(other)), self.dice.shuffled(untold)))
        told = []
        for number in range(self.dice.pick((3, 4, 5))):
            subject, untold = (topics[number:] or [self.dice.pick(topics)])[0]
            if pronoun(subject.noun) != "it" and self.dice.roll() < 0.15:
                told.append(self.event(subject))
            if number >= len(topics) and self.dice.roll() < 0.6:
                subject = subject._replace(determiner=PRONOUN)
            if untold:
                told.append(self.tell(subject, untold))
        return " ".join(map(self.english.render, told))

    def topic(self) -> tuple[Phrase, list[str]]:
        """A subject of facts, and the relations that it has."""
        sort = self.dice.pick(TOPICS)
        name = self.dice.pick_early(self.words[sort])
        untold = self.dice.shuffled([name for name, row in RELATIONS.items() if row[0] == sort])
        determiner, many = ("", False) if name.istitle() else self.dice.pick(DETERMINERS[:5])
        return Phrase(name, determiner, many), untold

    def sentence(self) -> Sentence:
        """A sentence that can stand alone. An event is told only once."""
        event = self.event(self.someone())._replace(second=None)
        return event if self.dice.roll() < 0.5 else self.tell(*self.topic())

    def tell(self, subject: Phrase, untold: list[str]) -> Sentence:
        """A true sentence about one or two of the relations in `untold`, which loses them."""
        relation, roll = untold.pop(), self.dice.roll()
        first = self.fact(subject, relation)
        if roll < 0.4 and untold:
            link = "and" if subject.determiner == PRONOUN else self.dice.pick(("and", "who"))
            return Sentence(first, link, self.fact(subject, untold.pop()))
        if roll < 0.5:
            return Sentence(self.fact(subject, relation, negated=True), "but", first)
        if roll < 0.6 and first.object.noun in self.wider:
            wider = first.object._replace(noun=self.wider[first.object.noun])
            return Sentence(first, "so", first._replace(object=wider))
        # Single verbs but these have a passive, and no pronoun stands after its "by".
        single = " " not in first.verb and first.verb not in ("be", "have")
        passive = single and subject.determiner != PRONOUN and self.dice.roll() < 0.3
        return Sentence(first._replace(passive=passive))

    def fact(self, subject: Phrase, relation: str, negated: bool = False) -> Clause:
        """What is true of a subject; a negated fact denies a value that is not its own."""
        _, values, wordings = RELATIONS[relation]
        value = self.facts[relation][subject.noun]
        if negated:
            value = self.dice.pick([word for word in self.words[values] if word != value])
        return tell(subject, self.dice.pick(wordings.split(", ")), value, negated)

    def event(self, subject: Phrase) -> Sentence:
        """What someone did to others, often told again in the passive."""
        deed, negated = self.dice.pick(self.words["deed"]), self.dice.roll() < 0.3
        active = Clause(subject, deed, self.someone(), negated, past=True)
        passive = active._replace(passive=True)
        twice = Sentence(active, "so", passive)
        return self.dice.pick((twice, twice, Sentence(active), Sentence(passive)))

    def someone(self) -> Phrase:
        """A named person, or an unnamed person, animal, plant or tool with an adjective."""
        sort = self.dice.pick(("person", "person", *DESCRIBED))
        noun = self.dice.pick_early(self.words[sort])
        if sort == "person":
            return Phrase(noun)
        determiner, many = self.dice.pick(DETERMINERS)
        return Phrase(noun, determiner, many, self.dice.pick(self.words[DESCRIBED[sort]]))
