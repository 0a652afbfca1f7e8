"""The words of the toy translations, by what they can be combined with."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Generic, TypeVar

from tlc_jax.data.toy import dictionary
from tlc_jax.data.toy.dice import Dice, Zipf
from tlc_jax.data.toy.dictionary import Adjective, Noun, Verb

RANKS_SEED = 1_021  # of the order in which words are frequent
ZIPF = (1.0, 6.0)  # exponent and offset of the law by which they are

T = TypeVar("T")


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


NOUNS, ADJECTIVES, VERBS = _ranked(dictionary.NOUNS), _ranked(dictionary.ADJECTIVES), _ranked(dictionary.VERBS)


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
