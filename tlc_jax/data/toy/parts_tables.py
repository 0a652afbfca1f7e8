"""What the parts of the toy translations' sentences are drawn from, each item as often as it weighs."""

from __future__ import annotations

from tlc_jax.data.toy import dictionary, lexicon
from tlc_jax.data.toy.dictionary import NUMBERS, verb
from tlc_jax.data.toy.phrases import Said


def translated(table: str) -> tuple[Said, ...]:
    """Reads "english=french; english=french"."""
    return tuple((english, tuple(words.split())) for english, words in dictionary.entries(table))


def weighted(table: str) -> tuple[str, ...]:
    """Reads "item*weight; item*weight": each item as often as it weighs."""
    pairs = (entry.strip().rsplit("*", 1) for entry in table.split(";"))
    return tuple(item for item, weight in pairs for _ in range(int(weight)))


FREE = weighted("the*30; a*24; this*5; that*4; own*14; of*8; number*7; the number*1; several*2; a few*2; many*2")
DEED_TENSES = weighted("present*24; progressive*13; past*33; near*8; future*10; can*4; must*4; want*4")
PLAIN = weighted("the*34; a*34; this*6; that*4; own*16; of*6")  # under a negation
DEFINITE = weighted("the*60; this*8; that*5; own*18; of*9")
SOON = "tomorrow=demain; tonight=ce soir; next week=la semaine prochaine; soon=bientôt; on Friday=vendredi"
TIMES = {
    "present": translated(
        "every day=tous les jours; in the morning=le matin; in the evening=le soir; on Sundays=le dimanche;"
        " in winter=en hiver; in summer=en été; at night=la nuit; every week=toutes les semaines"
    ),
    "progressive": translated("now=maintenant; at the moment=en ce moment"),
    "past": translated(
        "yesterday=hier; last week=la semaine dernière; this morning=ce matin; last year=l'année dernière;"
        " last night=hier soir; on Monday=lundi"
    ),
    "near": translated(SOON),
    "future": translated(f"{SOON}; next year=l'année prochaine; this summer=cet été"),
}
OFTEN = translated("often=souvent; sometimes=parfois; always=toujours; rarely=rarement")
INSIDE = translated("in=dans; in=dans; in=dans; near=près de; in front of=devant; behind=derrière")
BESIDE = translated("next to=à côté de; near=près de; behind=derrière; in front of=devant; opposite=en face de")
PREPOSITIONS = {  # of what tags, and the prepositions for it
    "inside": INSIDE,
    "goal": (*translated("at=à; at=à; at=à; at=à"), *BESIDE),
    "on": translated("on=sur; on=sur; near=près de"),
    "beside": (*BESIDE[:-1], *translated("far from=loin de")),
    "surface": translated("on=sur; on=sur; under=sous; behind=derrière; next to=à côté de"),
    "box": translated("in=dans; in=dans; behind=derrière; next to=à côté de"),
}
OUT = weighted("inside*6; goal*6; on*3; beside*3")  # where deeds are done
FEELINGS = tuple(
    verb(f"*be/was/been {entry}")
    for entry in (
        "hungry=avoir faim", "thirsty=avoir soif", "sleepy=avoir sommeil", "cold=avoir froid", "hot=avoir chaud",
        "right=avoir raison", "wrong=avoir tort",
    )
)  # fmt: skip
UNOWNED = ("man", "woman", "girl")  # "sa femme" is his wife, "sa fille" his daughter
TASTES = tuple(verb(entry) for entry in ("*like=aimer", "*like=aimer", "*adore=adorer", "*hate=détester"))
OPPOSITES = frozenset(
    frozenset(pair.split("-"))
    for pair in lexicon.words(
        "rich-poor strong-weak lazy-brave heavy-light dirty-clean easy-difficult interesting-boring warm-cold"
        " quiet-dark sweet-bitter fast-slow happy-sad tall-short good-bad kind-cruel wild-faithful boring-funny"
        " light-precious"
    )
)
COUNTED = ("number", "the number", "several", "a few", "many")
PLACES = weighted("the*68; this*7; that*4; own*11; of*7; a*3")
SITES = frozenset(lexicon.words("building outdoors room goal inside street bridge island castle village"))
COUNTS = tuple(word for rank, word in enumerate(NUMBERS) for _ in range(24 // (rank + 1)))
SUBJECTS = ("I", "you", "he", "she", "we")
OTHERS = ("I", "you", "we")  # such as cannot be mistaken for someone named
PERSON = frozenset(("person",))
BEINGS = weighted("person*4; animal*1")
OBJECTS = frozenset(lexicon.words("thing clothes text food drink jewel animal vehicle furniture"))

# Pairs of places of adjectives, as two may follow each other in English.
ORDERS = frozenset(
    tuple(pair.split("-"))
    for pair in lexicon.words(
        "first-before first-age first-colour first-origin first-stuff before-after before-colour before-origin"
        " before-stuff after-age after-after age-colour age-origin age-stuff colour-origin colour-stuff origin-stuff"
    )
)
