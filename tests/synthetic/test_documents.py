"""The text tells true facts in correct English, and is as large as the demo needs."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import pytest

from tlc_jax import synthetic
from tlc_jax.synthetic.grammar import Clause, English, Phrase, Sentence, pronoun, tell
from tlc_jax.synthetic.world import build


@pytest.fixture(scope="module")
def train() -> list[str]:
    return list(synthetic.lines("train"))


def words(lines: list[str]) -> Counter[str]:
    return Counter(word for line in lines for word in re.findall(r"\w+", line))


def test_text_has_enough_words_for_one_pass_and_few_enough_types(train):
    counts = words(train)
    assert 1_000_000 < counts.total() < 2_000_000
    assert 2000 < len(counts) < 5000
    assert not set(words(list(synthetic.lines("valid")))) - set(counts)


def test_documents_end_in_empty_lines(train):
    assert train[-1] == "" and "\n\n\n" not in "\n".join(train)
    assert train.count("") > 9_900


# The predicates that tell a relation of one subject, and those that deny it.
TOLD = {
    "home": (
        r"(?:lives|is at home|has a house) in (\w+)",
        r"(?:does not live|is not at home|does not have a house) in (\w+)",
    ),
    "likes": (
        r"(?:likes|enjoys|is fond of) (\w+)",
        r"(?:does not like|does not enjoy|is not fond of) (\w+)",
    ),
    "class": (r"(?:is|counts as) an? (\w+)", r"(?:is not|does not count as) an? (\w+)"),
}


def predicates(line: str) -> list[tuple[str, str]]:
    """(subject, predicate) of the sentences of a line that name one subject and restate nothing."""
    found = []
    for sentence in re.findall(r"[^.]+", line):
        named = re.match(r"\s*(?:[Tt]he |[Aa] |[Tt]his )?(\w+),? (?:who |which )?(.*)", sentence)
        if named and ", so " not in sentence:
            found += [(named[1], one) for one in re.split(", | and | but ", named[2])]
    return found


@pytest.mark.parametrize("relation", TOLD)
def test_told_facts_are_true_and_denied_ones_are_false(train, relation):
    facts, told = build().facts[relation], Counter()
    for subject, predicate in (one for line in train[:20_000] for one in predicates(line)):
        for positive, pattern in zip((True, False), TOLD[relation], strict=True):
            value = re.fullmatch(pattern, predicate)
            if value and subject in facts:
                assert (facts[subject] == value[1]) == positive, (subject, predicate)
                told[positive] += 1
    assert min(told[True], told[False]) > 100


def test_restated_facts_are_true_of_the_wider_word(train):
    world, checked = build(), 0
    for name, narrow, again, wide in re.findall(
        r"(\w+) lives in (\w+), so (\w+) lives in (\w+)\.", " ".join(train)
    ):
        assert (name.lower(), wide) == (again.lower(), world.facts["land"][narrow])
        checked += 1
    assert checked > 100


@pytest.mark.parametrize(
    "mistake",
    [
        r"\b(?:They|we) (?:is|has|does|was|comes)\b",
        r"\b(?:[Hh]e|[Ss]he|[Ii]t) (?:are|have|do|were|come|count)\b",
        r"\b(?:[Tt]hese|[Ss]ome) (?:\w+ )?\w+s (?:is|was|has|does|counts)\b",
        r"\b(?:[Tt]his|[Aa]n?) (?:(?:old|red|tiny) )?\w+[^s\W] (?:are|were|have|do)\b",
        r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]",
        r"\b(?:[Tt]hese|[Ss]ome) (?:\w+ )?\w+[^s\W] (?:was|were)\b",
        r"\bby (?:he|she|they|it)\b",
        r"\b(\w+) \1\b",
        r"  | [.,]|,,|\.\.",
    ],
)
def test_english_mistakes_do_not_occur(train, mistake):
    assert not [line for line in train if re.search(mistake, line)][:3]


def test_pronouns_point_at_someone_named_before_of_whom_the_fact_is_true(train):
    facts, checked = build().facts, Counter()
    for line in train[:20_000]:
        for found in re.finditer(r"\b(He|She) (?:plays|practices) the (\w+)", line):
            names = re.findall(r"[A-Z]\w+", line[: found.start()])
            fitting = {name for name in names if pronoun(name) == found[1].lower()}
            assert found[2] in {facts["plays"].get(name) for name in fitting}, line
            checked[found[1]] += 1
    assert min(checked["He"], checked["She"]) > 100


def test_a_paragraph_is_about_one_woman_and_one_man_at_most(train):
    counts = Counter()
    for line in train[:20_000]:
        # "Basek was helped by Matine" names somebody whom the paragraph is not about.
        names = {name for name, predicate in predicates(line) if not predicate.startswith("was ")}
        people = Counter(pronoun(name) for name in names if name in build().facts["trade"])
        assert people["she"] <= 1 and people["he"] <= 1, line
        counts[people["she"] + people["he"]] += 1
    assert min(counts[1], counts[2]) > 1000


KING, BAKERS = Phrase("king", "the"), Phrase("baker", "some", True, "old")


@pytest.mark.parametrize(
    ("clause", "text"),
    [
        (Clause(KING, "like", Phrase("bread")), "The king likes bread."),
        (Clause(KING, "like", Phrase("bread"), passive=True), "Bread is liked by the king."),
        (Clause(KING, "like", Phrase("bread"), negated=True), "The king does not like bread."),
        (Clause(BAKERS, "help", KING, True, True), "Some old bakers did not help the king."),
        (
            Clause(KING, "help", BAKERS, True, True, True),
            "Some old bakers were not helped by the king.",
        ),
        (Clause(BAKERS, "admire", KING, past=True), "Some old bakers admired the king."),
        (tell(BAKERS, "be a", "artist"), "Some old bakers are artists."),
        (tell(KING, "be a", "artist", negated=True), "The king is not an artist."),
        (tell(BAKERS, "have a _ color", "orange"), "Some old bakers have an orange color."),
        (tell(KING, "have a house in", "Burzark"), "The king has a house in Burzark."),
    ],
)
def test_english_agrees(clause, text):
    assert English().render(Sentence(clause)) == text


@pytest.mark.parametrize(
    ("link", "text"),
    [
        ("and", "The king likes bread and helped some old bakers."),
        ("who", "The king, which likes bread, helped some old bakers."),
        ("so", "The king likes bread, so the king helped some old bakers."),
    ],
)
def test_clauses_are_linked(link, text):
    first, second = Clause(KING, "like", Phrase("bread")), Clause(KING, "help", BAKERS, past=True)
    assert English().render(Sentence(first, link, second)) == text


def test_documents_restate_deeds_in_the_passive(train):
    found = re.findall(
        r"([A-Z]\w+) (\w+ed) ([A-Z]\w+), so (\w+) was (\w+) by (\w+)\.",
        " ".join(itertools.islice(train, 20_000)),
    )
    assert len(found) > 100
    assert all(one[:3] == (one[5], one[4], one[3]) for one in found)
