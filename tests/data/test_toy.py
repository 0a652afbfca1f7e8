"""The toy world is fixed by its seeds, true to its facts, sound in its labels, and not solved by counting words."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import pytest

from tlc_jax.core.errors import InputError
from tlc_jax.data import toy
from tlc_jax.data.toy import grammar, lexicon, logic, terms
from tlc_jax.data.toy.baselines import baselines
from tlc_jax.data.toy.dice import Dice, Zipf


@pytest.fixture(scope="module")
def some_pairs() -> list[toy.Pair]:
    return list(itertools.islice(toy.pairs("train"), 3000))


def test_dice_are_the_same_everywhere():
    dice = Dice(7)
    assert dice.shuffled(range(8)) == [5, 4, 6, 7, 0, 3, 1, 2]
    assert [dice.pick("abcdef") for _ in range(6)] == list("dacaac")


def test_zipf_prefers_the_first():
    dice, zipf = Dice(0), Zipf(["a", "b", "c"], exponent=1.0, offset=1.0)
    counts = Counter(zipf.pick(dice) for _ in range(6000))
    assert counts["a"] / 6000 == pytest.approx(6 / 11, abs=0.03)
    assert counts["c"] / 6000 == pytest.approx(2 / 11, abs=0.03)


def test_the_world_is_one_and_large():
    world = toy.build()
    assert world is toy.build()
    assert world.count() > 7000
    names = [*world.people, *world.towns, *world.lands, *world.kinds]
    assert len(set(names)) == len(names)
    assert all(world.facts["teacher"][name] != name for name in world.people)


def test_text_repeats_by_seed_and_differs_by_seed():
    first, again, other = (list(itertools.islice(toy.lines("train", seed), 300)) for seed in (1, 1, 2))
    assert first == again
    assert not set(first) & set(other) - {""}


def test_splits_share_no_line_and_no_pair(some_pairs):
    train = {line for seed in range(2) for line in itertools.islice(toy.lines("train", seed), 8000)}
    valid = {line for seed in range(2) for line in toy.lines("valid", seed)}
    assert train & valid == {""}
    assert not set(some_pairs) & set(toy.pairs("valid"))


def test_text_has_a_few_thousand_types_and_enough_words():
    words = Counter(word for line in toy.lines("train") for word in re.findall(r"\w+", line))
    assert 1_000_000 < words.total() < 2_000_000
    assert 2000 < len(words) < 5000
    unseen = {word for line in toy.lines("valid") for word in re.findall(r"\w+", line)} - set(words)
    assert not unseen


def test_text_tells_the_facts():
    """Every plain statement of a home, wherever it stands, is true."""
    homes = toy.build().facts["home"]
    told = 0
    for line in itertools.islice(toy.lines("train"), 3000):
        for name, town in re.findall(r"(?:^|\. )([A-Z]\w+) (?:lives|is at home) in (\w+)", line):
            if name in homes:  # not a pronoun
                assert homes[name] == town
                told += 1
    assert told > 100


def test_verbs_agree():
    assert grammar.phrase("[is {a}|are {os}]", "artist") == "is an artist"
    assert grammar.phrase("[is {a}|are {os}]", "knife", many=True) == "are knives"
    assert grammar.turn("{o} [is|are] liked by {s}", "plums", "Mo") == "plums are liked by Mo"
    for line in itertools.islice(toy.lines("train"), 4000):
        assert not re.search(r"\b(They|We) (is|has|does|was|comes)\b|\b(He|She|It) (are|have|do|were|come)\b", line), (
            line
        )


@pytest.mark.parametrize(
    ("premise", "lie", "hypothesis", "label"),
    [
        ("all", "around", "all", "entailment"),  # all birds -> all of one kind of bird
        ("all", "inside", "all", "neutral"),
        ("some", "inside", "some", "entailment"),
        ("some", "around", "some", "neutral"),
        ("no", "around", "all", "contradiction"),
        ("no", "across", "all", "contradiction"),  # their common members
        ("all", "equal", "some", "entailment"),  # groups have members
        ("notall", "equal", "all", "contradiction"),
        ("some", "equal", "notall", "neutral"),
        ("all", "apart", "all", "neutral"),
    ],
)
def test_logic(premise, lie, hypothesis, label):
    assert logic.infer(premise, hypothesis, lie) == label


def test_labels_are_balanced_and_pairs_distinct():
    pairs = list(toy.pairs("valid"))
    assert set(Counter(pair.label for pair in pairs).values()) == {toy.PAIRS["valid"] // 3}
    assert len(set(pairs)) == len(pairs)
    assert max(len(f"{pair.text} {pair.pair}".split()) for pair in pairs) <= 20
    assert list(itertools.islice(toy.pairs("train", 3), 50)) != list(itertools.islice(toy.pairs("train", 4), 50))


def test_labels_of_whereabouts_follow_from_the_facts(some_pairs):
    """Worked out anew from the sentences, by other code than the generator's."""
    facts, checked = toy.build().facts, Counter()
    for premise, hypothesis, label in some_pairs:
        said = re.fullmatch(r"(\w+) is at (?:home|the house of (\w+))\.", premise)
        asked = re.fullmatch(r"(\w+) is (not )?in (\w+)\.", hypothesis)
        if said and asked:
            town = facts["home"][said[2] or said[1]]
            there = asked[3] in (town, facts["land"][town])
            right = "entailment" if there != bool(asked[2]) else "contradiction"
            assert label == (right if said[1] == asked[1] else "neutral")
            checked[label] += 1
    assert min(checked.values()) > 50 and len(checked) == 3


def test_labels_of_deeds_follow_from_the_facts(some_pairs):
    trades, checked = toy.build().facts["trade"], Counter()
    for premise, hypothesis, label in some_pairs:
        group = re.fullmatch(r"(Every|No) (\w+) (\w+ .*)\.", premise)
        name = re.fullmatch(r"([A-Z]\w+) (did not )?(\w+ .*)\.", hypothesis)
        if group and name and group[2] in {trade for words in lexicon.TRADES.values() for trade in words}:
            member = name[1] in trades and trades[name[1]] == group[2]
            right = "entailment" if (group[1] == "Every") != bool(name[2]) else "contradiction"
            if name[1] in trades:
                assert label == (right if member else "neutral")
                checked[label] += 1
    assert checked["entailment"] and checked["neutral"] and checked["contradiction"]


def test_groups_are_named_after_what_their_members_share():
    world = toy.build()
    people = terms.people(world)
    name = world.people[0]
    around = {people.group_of(dice, name).one for dice in map(Dice, range(60))}
    trade = world.facts["trade"][name]
    assert {trade, world.wider[trade], f"person from {world.facts['home'][name]}"} & around
    assert f"player of the {world.facts['plays'][name]}" in around


def test_counting_words_does_not_solve_the_pairs():
    scores = baselines(epochs=6)
    assert scores["majority"] == pytest.approx(1 / 3, abs=0.001)
    assert scores["hypothesis_only"] < 0.42
    assert 0.40 < scores["bag_of_words"] < 0.60


def test_it_says_that_it_is_synthetic_and_what_it_has():
    assert "ynthetic" in toy.SYNTHETIC_NOTE and "ynthetic" in (toy.__doc__ or "")
    assert re.fullmatch(r"[0-9a-f]{16}", toy.fingerprint())
    with pytest.raises(InputError, match="no split 'test'"):
        next(toy.lines("test"))
    with pytest.raises(InputError, match="no split 'dev'"):
        next(toy.pairs("dev"))
