"""The facts of the toy world: who and what there is, and the one value of every attribute of each.

The world is the same for every seed of text or pairs: it is drawn once from a constant seed.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from tlc_jax.data.toy import lexicon
from tlc_jax.data.toy.dice import Dice, Zipf

WORLD_SEED = 20_20


@dataclasses.dataclass(frozen=True)
class WorldSize:
    """How many things there are. Facts: about 6 a person, 4 a town, 3 a land, 5 a kind."""

    people: int = 800
    towns: int = 160
    lands: int = 24
    rivers: int = 40
    kinds: int = 480
    exponent: float = 1.0  # of the Zipf law by which people, towns and kinds are talked about
    offset: float = 30.0  # ... and how flat it begins


@dataclasses.dataclass(frozen=True)
class World:
    """Names by sort, and `facts[relation][subject] -> object`.

    `wider` leads from each English class word to the word above it ("bird" to "animal", "baker" to "merchant").
    `women` are the people called "she".
    """

    people: Sequence[str]
    towns: Sequence[str]
    lands: Sequence[str]
    kinds: Sequence[str]
    women: frozenset[str]
    facts: Mapping[str, Mapping[str, str]]
    wider: Mapping[str, str]
    talk: Mapping[str, Zipf]  # sort -> how often each of it is talked about

    def count(self) -> int:
        """The number of facts."""
        return sum(len(values) for values in self.facts.values())


def _wider(classes: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {word: above for above, words in classes.items() for word in words}


def _others(dice: Dice, names: Sequence[str]) -> dict[str, str]:
    """Each name with another one: a single random cycle through all of them."""
    order = dice.shuffled(names)
    return dict(zip(order, order[1:] + order[:1], strict=True))


@functools.cache
def build(size: WorldSize = WorldSize()) -> World:
    """The world of this size, always the same."""
    dice, taken = Dice(WORLD_SEED), set[str]()
    women = lexicon.coin(dice, size.people // 2, ("a", "ia", "ine"), taken)
    men = lexicon.coin(dice, size.people - size.people // 2, ("o", "us", "ek"), taken)
    people = [name.title() for name in dice.shuffled(women + men)]
    towns = [name.title() for name in lexicon.coin(dice, size.towns, ("olm", "ark", "elst", "urg"), taken)]
    lands = [name.title() for name in lexicon.coin(dice, size.lands, ("andia", "onia"), taken)]
    rivers = [name.title() for name in lexicon.coin(dice, size.rivers, ("ey", "ow"), taken)]
    kinds = lexicon.coin(dice, size.kinds, ("in", "el", "ot", "um"), taken)
    wider = _wider(lexicon.TRADES) | _wider(lexicon.CLASSES)
    talk = {
        sort: Zipf(names, size.exponent, size.offset)
        for sort, names in {"person": people, "town": towns, "land": lands, "kind": kinds}.items()
    }

    def drawn(subjects: Sequence[str], values: Sequence[str]) -> dict[str, str]:
        return {subject: dice.pick(values) for subject in subjects}

    trades = [word for words in lexicon.TRADES.values() for word in words]
    classes = [word for words in lexicon.CLASSES.values() for word in words]
    facts = {
        "trade": drawn(people, trades),
        "home": drawn(people, towns),
        "likes": drawn(people, lexicon.FOODS),
        "plays": drawn(people, lexicon.INSTRUMENTS),
        "keeps": drawn(people, kinds),
        "teacher": _others(dice, people),
        "land": drawn(towns, lands),
        "goods": drawn(towns, lexicon.GOODS),
        "size": drawn(towns, lexicon.SIZES),
        "river": drawn(towns, rivers),
        "class": drawn(kinds, classes),
        "colour": drawn(kinds, lexicon.COLOURS),
        "bulk": drawn(kinds, lexicon.SIZES),
        "place": drawn(kinds, lexicon.PLACES),
    }
    by_land: dict[str, list[str]] = {land: [] for land in lands}
    for town, land in facts["land"].items():
        by_land[land].append(town)
    facts["capital"] = {land: dice.pick(of_it) for land, of_it in by_land.items() if of_it}
    facts["flag"] = drawn(lands, lexicon.COLOURS)
    facts["export"] = drawn(lands, lexicon.GOODS)
    women_names = frozenset(name.title() for name in women)
    return World(people, towns, lands, kinds, women_names, facts, wider, talk)
