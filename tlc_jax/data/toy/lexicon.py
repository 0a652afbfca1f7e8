"""The words of the toy world: plain English for what many things share, coined names for the things themselves."""

from __future__ import annotations

from collections.abc import Iterable

from tlc_jax.data.toy.dice import Dice


def words(text: str, separator: str = " ") -> tuple[str, ...]:
    return tuple(text.split(separator))


# Trades by the wider word for them, so that "baker" is to "merchant" what "dog" is to "animal".
TRADES = {
    "artist": words("painter singer dancer poet"),
    "craftsman": words("potter smith weaver carpenter tailor cobbler"),
    "healer": words("doctor nurse midwife dentist"),
    "merchant": words("grocer baker butcher brewer"),
    "officer": words("judge sheriff captain clerk"),
    "scholar": words("teacher lawyer historian chemist"),
}
# Classes that the coined kinds fall into, by the wider word.
CLASSES = {
    "animal": words("bird fish snake frog beetle spider goat cat"),
    "plant": words("tree flower grass vine moss mushroom"),
    "tool": words("hammer knife saw needle"),
}
COLOURS = words("red blue green yellow white black brown grey pink purple")
SIZES = words("tiny small large huge")
PLACES = words("marsh forest desert meadow cave valley lake garden")
FOODS = words("plums bread cheese honey soup rice beans apples cake onions nuts butter pears garlic cabbage melons")
INSTRUMENTS = words("flute drum harp violin horn bell lute whistle")
GOODS = words("silk wine salt glass paper wool iron rope soap pepper leather candles")

# What happened, told in the past: (past tense, base form).
DEEDS = (
    ("helped", "help"), ("saw", "see"), ("thanked", "thank"), ("warned", "warn"), ("followed", "follow"),
    ("found", "find"), ("praised", "praise"), ("visited", "visit"), ("called", "call"), ("trusted", "trust"),
    ("blamed", "blame"), ("feared", "fear"),
)  # fmt: skip
# Objects of deeds whose author is the question.
STRANGERS = words("the stranger|the king|the queen|the guard|the old man|the child|the thief|the guest", "|")
# What may happen to the kinds: said after was / were.
STATES = words("sold hidden stolen lost washed counted painted weighed broken moved")

_ONSETS = words("b d f g k l m n p r s t v z br dr gr kr pl tr sk st")
_VOWELS = words("a e i o u")
_CODAS = ["", "", "l", "n", "r", "s"]
_PLURALS = {"fish": "fish", "craftsman": "craftsmen", "knife": "knives", "grass": "grasses", "moss": "mosses"}


def plural(noun: str) -> str:
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun.endswith(("h", "s", "x")):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


def a(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def coin(dice: Dice, count: int, endings: Iterable[str], taken: set[str]) -> list[str]:
    """`count` new words of two or three syllables that end in one of `endings`; they are added to `taken`."""
    endings = list(endings)
    words: list[str] = []
    while len(words) < count:
        stem = dice.pick(_ONSETS) + dice.pick(_VOWELS) + dice.pick(_CODAS)
        if dice.chance(0.3):
            stem += dice.pick(_ONSETS[:14]) + dice.pick(_VOWELS)
        word = stem + dice.pick(_ONSETS[:14]) + dice.pick(endings)
        if word not in taken:
            taken.add(word)
            words.append(word)
    return words
