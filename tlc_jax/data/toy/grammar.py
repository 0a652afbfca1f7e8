"""How facts are said: verb phrases with agreement, their negations, and sentences turned round.

A template holds `[singular|plural]` where the verb or noun agrees with its subject, `{o}` for the object, `{a}` for
the object with its indefinite article, `{os}` for its plural, and `{s}` for the subject in turned sentences.
"""

from __future__ import annotations

import dataclasses
import functools
import re

from tlc_jax.data.toy.lexicon import a, plural, words

_AGREEMENT = re.compile(r"\[([^|\]]*)\|([^\]]*)\]")


@dataclasses.dataclass(frozen=True)
class Relation:
    """The ways to say that a relation holds (`says`, `turned`) and that it does not (`denies`)."""

    subject: str  # person, town, land or kind
    says: tuple[str, ...]
    denies: tuple[str, ...]
    turned: tuple[str, ...] = ()


RELATIONS = {
    "trade": Relation(
        "person",
        ("[is {a}|are {os}]", "[works as {a}|work as {os}]", "[earns|earn] a living as {a}"),
        ("[is not {a}|are not {os}]", "[does not work as {a}|do not work as {os}]"),
    ),
    "home": Relation(
        "person",
        ("[lives|live] in {o}", "[has|have] a house in {o}", "[is|are] at home in {o}"),
        ("[does|do] not live in {o}", "[has|have] no house in {o}"),
        ("{o} is home to {s}", "{o} is the town of {s}"),
    ),
    "likes": Relation(
        "person",
        ("[likes|like] {o}", "[enjoys|enjoy] {o}", "[is|are] fond of {o}"),
        ("[does|do] not like {o}", "[is|are] not fond of {o}"),
        ("{o} [is|are] liked by {s}",),
    ),
    "plays": Relation(
        "person",
        ("[plays|play] the {o}", "[practises|practise] the {o}"),
        ("[does|do] not play the {o}", "never [plays|play] the {o}"),
        ("the {o} is played by {s}",),
    ),
    "keeps": Relation(
        "person",
        ("[keeps|keep] {a}", "[owns|own] {a}"),
        ("[does|do] not keep {a}", "[does|do] not own {a}"),
        ("{a} is kept by {s}", "{a} is owned by {s}"),
    ),
    "teacher": Relation(
        "person",
        ("[was|were] taught by {o}", "[is a pupil|are pupils] of {o}"),
        ("[was|were] not taught by {o}", "[is no pupil|are no pupils] of {o}"),
        ("{o} taught {s}", "{o} is the teacher of {s}"),
    ),
    "land": Relation(
        "town",
        ("[lies|lie] in {o}", "[is a town|are towns] in {o}", "[belongs|belong] to {o}"),
        ("[does|do] not lie in {o}", "[does|do] not belong to {o}"),
        ("{o} is the land of {s}",),
    ),
    "goods": Relation(
        "town",
        ("[is|are] famous for {o}", "[is|are] known for {o}", "[trades|trade] in {o}"),
        ("[is|are] not famous for {o}", "[does|do] not trade in {o}"),
        ("{o} [comes|come] from {s}",),
    ),
    "size": Relation(
        "town", ("[is a {o} town|are {o} towns]", "[is|are] {o}"), ("[is not a {o} town|are not {o} towns]",)
    ),
    "river": Relation(
        "town",
        ("[stands|stand] on the {o}", "[lies|lie] by the {o}"),
        ("[does|do] not stand on the {o}",),
        ("the {o} flows through {s}",),
    ),
    "capital": Relation(
        "land",
        ("[has|have] its capital in {o}", "[is|are] ruled from {o}"),
        ("[is|are] not ruled from {o}",),
        ("the capital of {s} is {o}", "{o} is the capital of {s}"),
    ),
    "flag": Relation(
        "land",
        ("[has|have] a {o} flag", "[flies|fly] a {o} flag"),
        ("[does|do] not have a {o} flag",),
        ("the flag of {s} is {o}",),
    ),
    "export": Relation(
        "land", ("[sells|sell] {o}", "[exports|export] {o}"), ("[does|do] not sell {o}",), ("{o} [is|are] sold by {s}",)
    ),
    "class": Relation(
        "kind", ("[is {a}|are {os}]", "[is a kind of {o}|are kinds of {o}]"), ("[is not {a}|are not {os}]",)
    ),
    "colour": Relation(
        "kind", ("[is|are] {o}", "[is|are] {o} in colour", "[has|have] a {o} colour"), ("[is|are] not {o}",)
    ),
    "bulk": Relation("kind", ("[is|are] {o}", "[is|are] {o} in size"), ("[is|are] not {o}",)),
    "place": Relation(
        "kind",
        ("[is|are] found in the {o}", "[comes|come] from the {o}"),
        ("[is|are] never found in the {o}", "[does|do] not come from the {o}"),
        ("the {o} is the place of {s}", "in the {o} you find {s}"),
    ),
}

BY_SORT = {
    sort: tuple(name for name, relation in RELATIONS.items() if relation.subject == sort)
    for sort in ("person", "town", "land", "kind")
}
_PLURAL_OBJECTS = frozenset(words("plums beans apples onions nuts pears melons candles"))


@functools.cache
def agree(template: str, many: bool) -> str:
    """The template with every `[singular|plural]` settled."""
    return _AGREEMENT.sub(r"\2" if many else r"\1", template)


@functools.cache
def phrase(template: str, value: str, many: bool = False) -> str:
    """A verb phrase with its object filled in, agreeing with one subject or many."""
    return agree(template, many).format(o=value, a=a(value), os=plural(value))


def turn(template: str, value: str, subject: str) -> str:
    """A turned sentence, without capital and full stop: its verb agrees with the object."""
    return agree(template, value in _PLURAL_OBJECTS).format(o=value, a=a(value), s=subject)


def sentence(text: str) -> str:
    """The text with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def participle(past: str) -> str:
    """The form of a deed after "was"."""
    return {"saw": "seen"}.get(past, past)
