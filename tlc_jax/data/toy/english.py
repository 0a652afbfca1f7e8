"""Forms of English words: plurals, articles, persons, tenses and degrees."""

from __future__ import annotations

from tlc_jax.data.toy import lexicon
from tlc_jax.data.toy.dictionary import Noun

_DOUBLED = frozenset(lexicon.words("cut forget get prefer run stop swim travel"))
PLURAL = ("you", "we", "they")  # pronouns with which English verbs are plural


def plural(noun: str) -> str:
    """The plural of a regular noun."""
    if noun.endswith(("ch", "sh", "s", "x")):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else f"{noun}s"


def a(noun: str) -> str:
    """The noun, or adjective and noun, with its indefinite article."""
    vowel = noun.startswith("honest") or (noun[0] in "aeiouEI" and not noun.startswith(("uni", "use")))
    return f"an {noun}" if vowel else f"a {noun}"


def named(noun: Noun, many: bool) -> str:
    """The noun in the singular or plural."""
    return (noun.ens or plural(noun.en)) if many else noun.en


def third(verb: str) -> str:
    """The third person singular."""
    return {"be": "is", "have": "has"}.get(verb) or (f"{verb}es" if verb == "go" else plural(verb))


def gerund(verb: str) -> str:
    """The form in -ing."""
    if verb.endswith("ie"):
        return f"{verb[:-2]}ying"
    if verb in _DOUBLED:
        verb += verb[-1]
    return (verb[:-1] if verb[-1] == "e" and verb not in ("be", "see") else verb) + "ing"


def past(verb: str) -> str:
    """The past tense, and participle, of a regular verb."""
    if verb in _DOUBLED:
        verb += verb[-1]
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return f"{verb[:-1]}ied"
    return f"{verb}d" if verb.endswith("e") else f"{verb}ed"


def compared(adjective: str, ending: str) -> str:
    """The comparative ("er") or superlative ("est")."""
    if adjective == "good":
        return {"er": "better", "est": "best"}[ending]
    stem = adjective.removesuffix("e")
    groups = sum(one in "aeiouy" and other not in "aeiouy" for one, other in zip(stem, f"{stem[1:]}.", strict=True))
    if groups > 1 and not adjective.endswith("y"):
        return f"{'more' if ending == 'er' else 'most'} {adjective}"
    if adjective.endswith("y"):
        stem = f"{stem[:-1]}i"
    elif stem == adjective and stem[-1] not in "aeiouwxy" and stem[-2] in "aeiou" and stem[-3] not in "aeiou":
        stem += stem[-1]
    return stem + ending
