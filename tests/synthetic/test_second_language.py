"""The second language follows its own grammar, and every English sentence has one translation."""

from __future__ import annotations

import itertools
import re

import pytest

from tlc_jax import synthetic
from tlc_jax.synthetic.documents import Writer
from tlc_jax.synthetic.grammar import Clause, English, Phrase, Sentence
from tlc_jax.synthetic.second_language import SecondLanguage, stems
from tlc_jax.synthetic.world import Dice, build

LANGUAGE = SecondLanguage()


@pytest.fixture(scope="module")
def train() -> list[tuple[str, str]]:
    return list(synthetic.translations("train"))


@pytest.fixture(scope="module")
def clauses() -> list[Clause]:
    writer = Writer(build(), Dice(0))
    sentences = [writer.sentence() for _ in range(2000)]
    return [clause for one in sentences for clause in (one.first, one.second) if clause]


def word(english: str) -> str:
    return stems()[english]


def gender(noun: str) -> str:
    if noun in stems():
        return "a" if len(stems()[noun]) % 2 else "o"
    return "a" if re.search(r"(?:a|ine)$", noun) else "o"


def test_splits_have_their_sizes(train):
    assert len(train) == len(set(train)) == synthetic.TRANSLATIONS["train"]
    assert len(list(synthetic.translations("valid"))) == synthetic.TRANSLATIONS["valid"]


def test_a_sentence_has_one_translation(train):
    known: dict[str, str] = {}
    more = itertools.islice(synthetic.translations("train", seed=1), 10_000)
    for english, other in itertools.chain(train, more):
        assert known.setdefault(english, other) == other, english
    assert len(known) > 45_000


def test_different_words_have_different_stems():
    assert len(set(stems().values())) == len(stems()) > 600
    known = set(build().words["person"] + build().words["town"])
    assert not known & set(stems().values())


def test_translation_shares_no_word_but_names(train):
    names = set(build().words["person"] + build().words["town"] + build().words["land"])
    for english, other in train[:5000]:
        ours, theirs = set(re.findall(r"\w+", english)), set(re.findall(r"\w+", other))
        assert (ours & theirs) <= names
        # A name stands as it is, or with the ending of an object.
        assert all({name, f"{name}en"} & theirs for name in ours & names), (english, other)


def test_validation_words_are_known_from_training(train):
    """But for names."""
    seen = {word for _, other in train for word in re.findall(r"\b[a-z]+", other)}
    words = {
        word
        for _, other in synthetic.translations("valid")
        for word in re.findall(r"\b[a-z]+", other)
    }
    assert len(words - seen) <= 0.02 * len(words)


def test_verb_comes_last_and_object_keeps_its_ending_in_the_passive():
    king, bakers = Phrase("king", "the"), Phrase("baker", "some", True, "old")
    active = Clause(king, "help", bakers, past=True)
    king_, bakers_ = LANGUAGE.phrase(king), LANGUAGE.phrase(bakers, True)
    verb = f"{word('help')}iv{king_[-1]}"
    assert LANGUAGE.clause(active) == f"{king_} {bakers_} {verb}"
    assert LANGUAGE.clause(active._replace(passive=True)) == f"{bakers_} {king_} {verb}"
    assert LANGUAGE.clause(active._replace(negated=True)).endswith(f" ne{verb}")


def test_adjectives_and_determiners_follow_and_agree(clauses):
    checked = 0
    for phrase in (phrase for clause in clauses for phrase in (clause.subject, clause.object)):
        if phrase.noun not in stems():
            continue
        vowel = {"a": "e", "o": "i"}[gender(phrase.noun)] if phrase.many else gender(phrase.noun)
        expected = [phrase.noun, phrase.adjective, phrase.determiner]
        expected = [word(one) for one in expected if one not in ("", "a")]
        for is_object, ending in ((False, vowel), (True, f"{vowel}n")):
            said = LANGUAGE.phrase(phrase, is_object).split()
            assert said == [stem + ending for stem in expected]
        checked += len(expected) > 2
    assert checked > 500


def test_verb_agrees_with_its_doer(clauses):
    for clause in clauses:
        vowel = gender(clause.subject.noun)
        if clause.subject.many:
            vowel = {"a": "e", "o": "i"}[vowel]
        verb = LANGUAGE.clause(clause).split()[-1]
        assert verb == "ne" * clause.negated + word(clause.verb) + "iv" * clause.past + vowel


def test_names_change_only_as_objects():
    assert LANGUAGE.phrase(Phrase("Matine")) == "Matine"
    assert LANGUAGE.phrase(Phrase("Matine"), is_object=True) == "Matineen"


def test_links_join_clauses_as_in_english():
    first = Clause(Phrase("Matine"), "like", Phrase("bread"))
    second = Clause(Phrase("Matine"), "enjoy", Phrase("rice"))
    one, two = LANGUAGE.predicate(first), LANGUAGE.predicate(second)
    rendered = {
        link: LANGUAGE.render(Sentence(first, link, second)) for link in ("and", "who", "so")
    }
    assert rendered["and"] == f"Matine {one} {word('and')} {two}."
    assert rendered["who"] == f"Matine, {word('who')}a {one}, {two}."
    assert rendered["so"] == f"Matine {one}, {word('so')} Matine {two}."


def test_both_surfaces_render_the_same_sentences():
    writer = Writer(build(), Dice(2))  # the dice of the first training sentences
    drawn = list(itertools.islice((writer.sentence() for _ in itertools.count()), 400))
    pairs = {(English().render(one), LANGUAGE.render(one)) for one in drawn}
    assert len(pairs & set(itertools.islice(synthetic.translations("train"), 300))) > 250
