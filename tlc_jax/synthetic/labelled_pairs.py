"""Labelled sentence pairs about the synthetic world. Most turn on facts that they do not state
(Matine is a nurse, and so a healer), which pretraining on the text can teach."""

from collections import defaultdict
from collections.abc import Iterator

from tlc_jax.synthetic.grammar import Clause, English, Phrase, Sentence
from tlc_jax.synthetic.world import Dice, World

# Relations whose subjects form groups by value, and the noun for the members: a person from Burzark
# is a Burzark native. Where there is none, the value is the noun: a baker.
GROUPED = {"trade": "", "home": "native", "likes": "lover", "plays": "player", "class": ""}
GROUPED |= {"color": "thing", "bulk": "thing", "place": "thing"}
# Determiners, each with whether it is plural: several, for a repeated one gives the label away.
EVERY = (("every", False), ("each", False), ("all", True), ("all the", True))
NO = (("no", False), ("not one", False), ("no", True), ("none of the", True))


class PairWriter:
    """Draws labelled pairs about a world, by the rolls of `dice`."""

    def __init__(self, world: World, dice: Dice) -> None:
        self.words, self.dice, self.english = world.words, dice, English()
        self.groups: dict[str, list[Phrase]] = defaultdict(list)
        self.members: dict[Phrase, dict[str, None]] = defaultdict(dict)
        for relation, noun in GROUPED.items():
            for name, value in world.facts[relation].items():
                for shared in filter(None, (value, world.wider.get(value))):
                    group = Phrase(noun, adjective=shared) if noun else Phrase(shared)
                    self.groups[name].append(group)
                    self.members[group][name] = None
        for name, groups in self.groups.items():
            # People and kinds go by their own name half of the time.
            groups += [Phrase(name)] * len(groups)
            self.members[Phrase(name)] = {name: None}

    def pairs(self, wanted: str) -> Iterator[tuple[str, str, str]]:
        """Endless pairs with one label: No nurse helped the king. Mo did not help the king."""
        dice = self.dice
        while True:
            # The groups do something to somebody outside of them, or the other way round.
            sort, reverse = dice.pick(("person", "kind")), dice.pick((True, False))
            deed = dice.pick(self.words["deed"]), Phrase(dice.pick(self.words["stranger"]), "the")
            name, asked_true = dice.pick_early(self.words[sort]), dice.roll() < 0.5
            asked = dice.pick(self.groups[name])
            hypothesis = self.english.render(self.draw(asked, asked_true, reverse, *deed))
            # The hypothesis is drawn without the label, so it alone says next to nothing. Some have
            # hardly any premise with the label, hence the limit.
            for _ in range(100):
                near = list(self.members[asked]) if dice.roll() < 0.8 else self.words[sort]
                given, given_true = dice.pick(self.groups[dice.pick(near)]), dice.roll() < 0.5
                # Nothing follows from a deed for the same deed in the other direction.
                turned = dice.roll() < 0.2
                drawn = self.draw(given, given_true, reverse != turned, *deed)
                found = self.label(given, asked, given_true == asked_true)
                if ("neutral" if turned else found) != wanted:
                    continue
                premise = self.english.render(drawn)
                if premise != hypothesis:
                    yield premise, hypothesis, wanted
                    break

    def label(self, given: Phrase, asked: Phrase, alike: bool) -> str:
        """What follows for all members of a group from what is true of all members of another."""
        about, covered = self.members[asked].keys(), self.members[given].keys()
        if alike:
            return "entailment" if about <= covered else "neutral"
        return "neutral" if about.isdisjoint(covered) else "contradiction"

    def draw(self, group: Phrase, true: bool, reverse: bool, verb: str, other: Phrase) -> Sentence:
        if not group.noun.istitle():
            determiner, many = self.dice.pick(EVERY if true else NO)
            group = group._replace(determiner=determiner, many=many)
        negated, passive = group.noun.istitle() and not true, self.dice.roll() < 0.5
        doer, target = (other, group) if reverse else (group, other)
        return Sentence(Clause(doer, verb, target, negated, True, passive))
