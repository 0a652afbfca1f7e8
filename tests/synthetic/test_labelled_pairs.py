"""Labels follow from the facts and from logic, and words alone do not give them away."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.helpers.word_baselines import baselines
from tlc_jax import synthetic
from tlc_jax.synthetic.world import build

WORLD = build()
DEEDS = {deed + ("d" if deed.endswith("e") else "ed"): deed for deed in WORLD.words["deed"]}
PEOPLE, KINDS = frozenset(WORLD.words["person"]), frozenset(WORLD.words["kind"])


@pytest.fixture(scope="module")
def valid() -> list[tuple[str, str, str]]:
    return list(synthetic.pairs("valid"))


def members(words: str) -> frozenset[str]:
    """Who belongs to a group, by its singular name: worked out from the facts alone."""
    facts = WORLD.facts
    if words in PEOPLE | KINDS:
        return frozenset([words])
    value, _, noun = words.rpartition(" ")
    has = {
        "": lambda name, own: own["trade" if name in PEOPLE else "class"] in narrower(noun),
        "native": lambda name, own: value in (own["home"], facts["land"][own["home"]]),
        "lover": lambda name, own: own["likes"] == value,
        "player": lambda name, own: own["plays"] == value,
        "thing": lambda name, own: value in (own["color"], own["bulk"], own["place"]),
    }["" if not value else noun]
    domain = {"native": PEOPLE, "lover": PEOPLE, "player": PEOPLE, "thing": KINDS}
    found = set()
    for name in domain.get(noun, PEOPLE | KINDS):
        own = {relation: values.get(name) for relation, values in facts.items()}
        if has(name, own):
            found.add(name)
    assert found, words
    return frozenset(found)


def narrower(word: str) -> set[str]:
    return {word} | {narrow for narrow, wide in WORLD.wider.items() if wide == word}


def parse(sentence: str) -> tuple[str, bool, bool, str, str]:
    """Verb, whether the group is the doer, whether all or no members are meant, stranger, group."""
    done, do = "|".join(DEEDS), "|".join(DEEDS.values())
    passive = re.fullmatch(rf"(.+?) (?:was|were) (not )?({done}) by (.+)\.", sentence)
    active = re.fullmatch(rf"(.+?) (?:did (not) ({do})|({done})) (.+)\.", sentence)
    if passive:
        target, negated, verb, doer = passive.groups()
        verb = DEEDS[verb]
    else:
        assert active, sentence
        doer, negated, base, verb, target = active.groups()
        verb = base or DEEDS[verb]
    strangers = "|".join(WORLD.words["stranger"])
    doing = re.fullmatch(rf"the (?:{strangers})", target.lower()) is not None
    group, stranger = (doer, target.lower()) if doing else (target, doer.lower())
    none = re.match(r"(?:no|not one|none of the) ", group, re.IGNORECASE)
    words = re.sub(r"^(?:every|each|all the|all|none of the|not one|no) ", "", group, flags=re.I)
    return verb, doing, not (none or negated), stranger, words


def label(premise: str, hypothesis: str, cache: dict[str, frozenset[str]]) -> str:
    """Tries the property that is true of as few as the premise allows, and of as many."""
    given, asked = parse(premise), parse(hypothesis)
    assert (given[0], given[3]) == (asked[0], asked[3])
    if given[1] != asked[1]:
        return "neutral"
    sets = []
    for *_, words in (given, asked):
        if words not in cache:
            singular = words if words in PEOPLE | KINDS else re.sub(r"s$", "", words)
            cache[words] = members(singular)
        sets.append(cache[words])
    everyone = PEOPLE | KINDS
    extremes = (sets[0], everyone) if given[2] else (frozenset(), everyone - sets[0])
    truths = {sets[1] <= having if asked[2] else not sets[1] & having for having in extremes}
    if len(truths) == 2:
        return "neutral"
    return "entailment" if truths == {True} else "contradiction"


def test_labels_follow_from_facts_and_logic(valid):
    cache: dict[str, frozenset[str]] = {}
    for premise, hypothesis, expected in valid:
        assert label(premise, hypothesis, cache) == expected, (premise, hypothesis)
        assert premise != hypothesis
    assert len(cache) > 500


def test_labels_are_equally_frequent_and_pairs_distinct(valid):
    share = synthetic.PAIRS["valid"] // 3
    assert Counter(one for *_, one in valid) == dict.fromkeys(synthetic.LABELS, share)
    assert len({pair[:2] for pair in valid}) == len(valid)
    assert max(len(f"{one} {two}".split()) for one, two, _ in valid) <= 24


def test_training_set_has_its_size():
    labels = Counter(one for *_, one in synthetic.pairs("train"))
    assert labels == dict.fromkeys(synthetic.LABELS, synthetic.PAIRS["train"] // 3)


def test_counting_words_does_not_give_the_labels():
    scores = baselines(epochs=6)
    assert scores["majority"] == pytest.approx(1 / 3, abs=0.001)
    assert scores["hypothesis_only"] < 0.42
    assert 0.40 < scores["bag_of_words"] < 0.60
