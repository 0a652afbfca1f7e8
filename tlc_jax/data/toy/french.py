"""The forms of French, for the toy world's translations: spelling, articles, agreement, conjugation.

French text is handled as a tuple of words in full ("le", "homme", "que", "elle"); `join` elides them at the end.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable

from tlc_jax.data.toy import lexicon

Words = tuple[str, ...]
VOICES = ("je", "il", "nous", "vous", "ils")  # the persons that verbs are conjugated for, in this order

# Spelling of words in a row.

_VOWELS = "aàâeéèêëiîïoôœuùûü"
_ELIDING = frozenset(("le", "la", "de", "ne", "que", "je", "me", "se", "ce"))
# Words with an h that forbids elision, and numbers that do as well; plurals need no entry.
_ASPIRATED = frozenset(
    lexicon.words("hache haie hamster haricot harpe haut haute hérisson héros hibou homard huit onze")
)
_CONTRACTED = {("de", "le"): "du", ("de", "les"): "des", ("à", "le"): "au", ("à", "les"): "aux"}


def vowel_sound(word: str) -> bool:
    """Whether words before this one are elided: it begins with a vowel or a mute h."""
    word = word.lower().rstrip(",")
    if word in _ASPIRATED or word[:-1] in _ASPIRATED:
        return False
    return word == "y" or (word != "" and word[0] in f"{_VOWELS}h")


def join(words: Iterable[str]) -> str:
    """The words as a text, with elisions: ("je", "ai") is "j'ai", ("la", "hache") stays."""
    row = [*words]
    text = ""
    for word, following in zip(row, [*row[1:], ""], strict=True):
        if (word in _ELIDING and vowel_sound(following)) or (word == "si" and following in ("il", "ils")):
            text += f"{word[:-1]}'"
        else:
            text += f"{word} "
    return text.rstrip()


def after(preposition: str, words: Words) -> Words:
    """A preposition before a noun phrase: "de" and "à" contract with the articles "le" and "les"."""
    *lead, last = preposition.split()
    contracted = _CONTRACTED.get((last, words[0]))
    if contracted and not (words[0] == "le" and vowel_sound(words[1])):
        return (*lead, contracted, *words[1:])
    return (*lead, last, *words)


# Nouns, adjectives and articles.

_PLURALS = {"bleu": "bleus"}
_OU_X = frozenset(lexicon.words("bijou caillou chou genou hibou joujou pou"))


def plural(noun: str) -> str:
    """The plural; of several words ("pomme de terre") the first one has it."""
    first, *rest = noun.split()
    if rest:
        return " ".join([plural(first), *rest])
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun[-1] in "sxz":
        return noun
    if noun.endswith("al"):
        return f"{noun[:-2]}aux"
    return noun + ("x" if noun.endswith(("au", "eu")) or noun in _OU_X else "s")


_FEMININES = {
    "beau": "belle", "blanc": "blanche", "bon": "bonne", "doux": "douce", "frais": "fraîche", "gentil": "gentille",
    "gros": "grosse", "inquiet": "inquiète", "jaloux": "jalouse", "long": "longue", "nouveau": "nouvelle",
    "sec": "sèche", "secret": "secrète", "vieux": "vieille", "violet": "violette",
    "épais": "épaisse",
}  # fmt: skip
_BEFORE_VOWELS = {"beau": "bel", "nouveau": "nouvel", "vieux": "vieil"}
_FEMININE_ENDINGS = (("er", "ère"), ("eux", "euse"), ("el", "elle"), ("en", "enne"), ("f", "ve"), ("e", "e"))


def feminine(adjective: str) -> str:
    """The feminine singular of an adjective, from its masculine."""
    if adjective in _FEMININES:
        return _FEMININES[adjective]
    for ending, changed in _FEMININE_ENDINGS:
        if adjective.endswith(ending):
            return adjective.removesuffix(ending) + changed
    return f"{adjective}e"


def agree(adjective: str, she: bool, many: bool, following: str = "") -> Words:
    """An adjective as it agrees with a feminine noun (`she`) or plural one; phrases ("en bois") do not change.

    Args:
      following: the word after it, for "un vieil homme".
    """
    if " " in adjective:
        return tuple(adjective.split())
    if she:
        return (feminine(adjective) + ("s" if many else ""),)
    if many:
        return (plural(adjective),)
    return (_BEFORE_VOWELS.get(adjective, adjective) if vowel_sound(following) else adjective,)


def participle(past: str, she: bool, many: bool) -> str:
    """A past participle as it agrees."""
    past += "e" if she else ""
    return f"{past}s" if many and not past.endswith("s") else past


# Determiner: masculine, feminine and plural.
_DETERMINERS = {
    "the": ("le", "la", "les"), "a": ("un", "une", "des"), "this": ("ce", "cette", "ces"), "my": ("mon", "ma", "mes"),
    "his": ("son", "sa", "ses"), "our": ("notre", "notre", "nos"), "your": ("votre", "votre", "vos"),
    "their": ("leur", "leur", "leurs"), "every": ("chaque", "chaque", ""), "no": ("aucun", "aucune", ""),
}  # fmt: skip


def determine(determiner: str, she: bool, many: bool, noun: Words, preposed: bool = False) -> Words:
    """A noun, its adjectives with it, behind the French for an English determiner.

    Determiners: the keys of the table above (its, her: "his"), "some" for a partitive, "which", "all the".

    Args:
      preposed: whether an adjective stands before the noun, which turns "des" into "de".
    """
    vowel = vowel_sound(noun[0])
    if determiner == "some":
        return after("de", determine("the", she, many, noun))
    if determiner == "which":
        return (f"quel{'le' if she else ''}{'s' if many else ''}", *noun)
    if determiner == "all the":
        return ("toutes" if she else "tous", "les", *noun)
    if many:
        return ("de" if determiner == "a" and preposed else _DETERMINERS[determiner][2], *noun)
    if vowel and determiner == "this" and not she:
        return ("cet", *noun)
    # "mon amie": the feminine possessives avoid a hiatus.
    hiatus = vowel and determiner in ("my", "his")
    return (_DETERMINERS[determiner][1 if she and not hiatus else 0], *noun)


# Verbs.


@dataclasses.dataclass(frozen=True)
class Conjugation:
    """A verb's forms; each tense holds one for every one of `VOICES`."""

    present: Words
    imperfect: Words
    future: Words
    participle: str


# je, il, nous, vous, ils of the present; the future without its ending; the past participle.
_IRREGULAR = {
    "aller": "vais va allons allez vont ir allé",
    "avoir": "ai a avons avez ont aur eu",
    "boire": "bois boit buvons buvez boivent boir bu",
    "conduire": "conduis conduit conduisons conduisez conduisent conduir conduit",
    "connaître": "connais connaît connaissons connaissez connaissent connaîtr connu",
    "construire": "construis construit construisons construisez construisent construir construit",
    "courir": "cours court courons courez courent courr couru",
    "craindre": "crains craint craignons craignez craignent craindr craint",
    "croire": "crois croit croyons croyez croient croir cru",
    "cueillir": "cueille cueille cueillons cueillez cueillent cueiller cueilli",
    "devoir": "dois doit devons devez doivent devr dû",
    "dire": "dis dit disons dites disent dir dit",
    "dormir": "dors dort dormons dormez dorment dormir dormi",
    "envoyer": "envoie envoie envoyons envoyez envoient enverr envoyé",
    "faire": "fais fait faisons faites font fer fait",
    "lire": "lis lit lisons lisez lisent lir lu",
    "mentir": "mens ment mentons mentez mentent mentir menti",
    "naître": "nais naît naissons naissez naissent naîtr né",
    "offrir": "offre offre offrons offrez offrent offrir offert",
    "ouvrir": "ouvre ouvre ouvrons ouvrez ouvrent ouvrir ouvert",
    "partir": "pars part partons partez partent partir parti",
    "peindre": "peins peint peignons peignez peignent peindr peint",
    "pouvoir": "peux peut pouvons pouvez peuvent pourr pu",
    "prendre": "prends prend prenons prenez prennent prendr pris",
    "recevoir": "reçois reçoit recevons recevez reçoivent recevr reçu",
    "rire": "ris rit rions riez rient rir ri",
    "savoir": "sais sait savons savez savent saur su",
    "sortir": "sors sort sortons sortez sortent sortir sorti",
    "suivre": "suis suit suivons suivez suivent suivr suivi",
    "tenir": "tiens tient tenons tenez tiennent tiendr tenu",
    "traduire": "traduis traduit traduisons traduisez traduisent traduir traduit",
    "venir": "viens vient venons venez viennent viendr venu",
    "voir": "vois voit voyons voyez voient verr vu",
    "vouloir": "veux veut voulons voulez veulent voudr voulu",
    "écrire": "écris écrit écrivons écrivez écrivent écrir écrit",
    "être": "suis est sommes êtes sont ser été",
}
# These are a prefix and an irregular verb.
_PREFIXED = {
    "apprendre": "ap", "comprendre": "com", "devenir": "de", "découvrir": "déc", "poursuivre": "pour",
    "prévenir": "pré", "reconnaître": "re", "revenir": "re", "sourire": "sou",
}  # fmt: skip
_DOUBLED = {"appel": "appell", "jet": "jett"}  # where other verbs write è
# With "être" in the passé composé, as are all reflexive ones.
ETRE = frozenset(
    lexicon.words(
        "aller arriver descendre devenir entrer monter naître partir rentrer rester revenir sortir tomber venir"
    )
)


@functools.cache
def conjugate(infinitive: str) -> Conjugation:
    """The forms of a verb."""
    prefix = _PREFIXED.get(infinitive, "")
    base = infinitive.removeprefix(prefix)
    if base in _IRREGULAR:
        *present, future, past = (prefix + form for form in _IRREGULAR[base].split())
    else:
        present, future, past = _regular(infinitive)
    # "nous mangeons" but "nous mangions": the e and the cedilla stand only before a and o.
    stem = "ét" if infinitive == "être" else present[2].removesuffix("ons")
    soft = re.sub("ge$", "g", re.sub("ç$", "c", stem))
    return Conjugation(
        tuple(present),
        (f"{stem}ais", f"{stem}ait", f"{soft}ions", f"{soft}iez", f"{stem}aient"),
        tuple(future + ending for ending in ("ai", "a", "ons", "ez", "ont")),
        past,
    )


def _regular(infinitive: str) -> tuple[list[str], str, str]:
    """The present, the stem of the future and the participle of a regular verb in -er, -ir (finir) or -re."""
    stem = infinitive[:-2]
    if infinitive.endswith("ir"):
        return [stem + ending for ending in ("is", "it", "issons", "issez", "issent")], infinitive, f"{stem}i"
    if infinitive.endswith("re"):
        return [stem + ending for ending in ("s", "", "ons", "ez", "ent")], infinitive[:-1], f"{stem}u"
    # The stem where the ending is mute: il achète, appelle, nettoie, préfère.
    mute = _DOUBLED.get(stem) or re.sub("e([lmnprstv])$", r"è\1", re.sub("y$", "i", stem))
    future = f"{mute}er"
    mute = re.sub("é([bcdfglmnprstv])$", r"è\1", mute)
    hard = f"{stem}e" if stem.endswith("g") else re.sub("c$", "ç", stem)
    return [f"{mute}e", f"{mute}e", f"{hard}ons", f"{stem}ez", f"{mute}ent"], future, f"{stem}é"
