"""The facts of the synthetic world: who and what exists, under coined names, and what is true of
each, in plain English words that many of them share."""

import functools
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

# Coined names by sort: how many, and their endings, by which the sorts can be told apart.
COINED = {
    "woman": (400, "a ia ine"),
    "man": (400, "o us ek"),
    "town": (160, "olm ark elst urg"),
    "land": (24, "andy ony"),
    "kind": (480, "in el ot um"),
}
# Every noun and verb is regular but "be" and "have", so that the grammar has few exceptions.
WORDS = {
    "stranger": "stranger king queen guard robber guest farmer sailor",
    "manner": "old young tall brave clever proud gentle loyal lazy quiet rich poor",
    "deed": "help thank warn follow praise visit call trust blame admire join greet",
    "food": "bread cheese honey soup rice cake butter garlic cabbage fruit meat salad milk tea",
    "instrument": "flute drum harp violin horn bell lute whistle",
    "goods": "silk wine salt glass paper wool iron rope soap pepper leather wax",
    "size": "tiny small large huge",
    "color": "red blue green yellow white black brown grey pink purple",
    "place": "marsh forest desert meadow cave valley lake garden",
}
# Trades and classes by the wider word for them: a baker is a merchant as a bird is an animal.
WIDER = {
    ("trade", "artist"): "painter singer dancer poet",
    ("trade", "artisan"): "potter smith weaver carpenter tailor cobbler",
    ("trade", "healer"): "doctor nurse surgeon dentist",
    ("trade", "merchant"): "grocer baker butcher brewer",
    ("trade", "officer"): "judge sheriff captain clerk",
    ("trade", "scholar"): "teacher lawyer historian chemist",
    ("class", "animal"): "bird frog snake spider goat cat beetle horse",
    ("class", "plant"): "tree flower fern vine mushroom herb",
    ("class", "tool"): "hammer spoon saw needle",
}
# Relation: the sort of its subjects, the sort of its values, and ways to say it. A wording is a
# verb and the determiner of the value; where the value is an adjective, `_` stands before its noun.
RELATIONS = {
    "trade": ("person", "trade", "be a, work as a, earn a living as a"),
    "home": ("person", "town", "live in, be at home in, have a house in"),
    "likes": ("person", "food", "like, enjoy, be fond of"),
    "plays": ("person", "instrument", "play the, practice the"),
    "keeps": ("person", "kind", "own a, raise a"),
    "teacher": ("person", "person", "learn from, be a pupil of"),
    "land": ("town", "land", "lie in, belong to, be a town in"),
    "goods": ("town", "goods", "be famous for, be known for, trade in"),
    "extent": ("town", "size", "be a _ town, count as a _ town"),
    "near": ("town", "place", "stand near the, be close to the"),
    "class": ("kind", "class", "be a, count as a"),
    "color": ("kind", "color", "be a _ thing, have a _ color"),
    "bulk": ("kind", "size", "be a _ thing, come in a _ size"),
    "place": ("kind", "place", "come from the, be found in the"),
}
ONSETS = [*"bdfgklmnprstvz", "br", "dr", "gr", "kr", "pl", "tr", "sk", "st"]
CODAS = ["", "", "l", "n", "r", "s"]


class Dice:
    """A stream of random choices, fixed by an integer seed."""

    def __init__(self, seed: int) -> None:
        # The one method that gives the same numbers in every version of Python.
        self.roll = random.Random(seed).random

    def pick(self, items: Sequence[Any]) -> Any:
        return items[int(self.roll() * len(items))]

    def pick_early(self, items: Sequence[Any]) -> Any:
        """An item, the early ones more often: frequency falls with the square root of the rank."""
        roll = self.roll()
        return items[int(roll * roll * len(items))]

    def shuffled(self, items: Sequence[Any]) -> list[Any]:
        return sorted(items, key=lambda _: self.roll())

    def coin(self, count: int, *parts: Sequence[str]) -> list[str]:
        """New words, all different, with one of each of these parts."""
        words = dict[str, None]()
        while len(words) < count:
            words["".join(map(self.pick, parts))] = None
        return list(words)


class World(NamedTuple):
    """Everything that is true."""

    words: dict[str, list[str]]  # of each sort; the early ones are talked about more often
    facts: dict[str, dict[str, str]]  # for each relation, the value of each subject
    wider: dict[str, str]  # the wider word for a trade or a class, and the land of a town


@functools.cache
def build() -> World:
    """The world, which is the same at every call."""
    dice, wider = Dice(2020), dict[str, str]()
    words = {sort: text.split() for sort, text in WORDS.items()} | {"trade": [], "class": []}
    for (sort, above), narrow in WIDER.items():
        words[sort] += narrow.split()
        wider |= dict.fromkeys(narrow.split(), above)
    for sort, (count, endings) in COINED.items():
        coined = dice.coin(count, ONSETS, "aeiou", CODAS, ONSETS, endings.split())
        words[sort] = coined if sort == "kind" else [*map(str.title, coined)]
    words["person"] = dice.shuffled(words["woman"] + words["man"])
    facts = {
        relation: {name: dice.pick(words[values]) for name in words[sort]}
        for relation, (sort, values, _) in RELATIONS.items()
    }
    return World(words, facts, wider | facts["land"])
