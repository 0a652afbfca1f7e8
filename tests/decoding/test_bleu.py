"""Scores of translations against counts made by hand.

p1 to p4 are n-gram precisions, and `exp` is the brevity penalty.
"""

from __future__ import annotations

from math import exp

import numpy as np
import pytest

from tlc_jax.decoding.bleu import approx_bleu, score, split_compounds


def bleu_of(p1: float, p2: float, p3: float, p4: float, brevity: float = 1.0) -> float:
    return brevity * (p1 * p2 * p3 * p4) ** 0.25


def test_identical_lines_score_100() -> None:
    lines = ["Il n'a pas plu, c'est-à-dire pas ici.", "« Un état-major de 3,5 % » & co !"]
    numbers = score(lines, lines)
    for name in ("bleu", "chrf", "bleu_tokenized"):
        assert numbers[name] == pytest.approx(100.0)


def test_counts_are_pooled_over_lines_and_short_text_is_penalized() -> None:
    hypotheses = ["the cat sat on a mat", "it rains very hard"]
    references = ["the cat sat on the mat now", "it rains very hard"]
    # First line 5/6, 3/5, 2/4, 1/3; second 4/4, 3/3, 2/2, 1/1; 10 tokens against 11.
    expected = 100 * bleu_of(9 / 10, 6 / 8, 4 / 6, 2 / 4, exp(1 - 11 / 10))
    numbers = score(hypotheses, references)
    assert numbers["bleu"] == pytest.approx(expected)
    assert numbers["bleu_tokenized"] == pytest.approx(expected)


def test_punctuation_is_tokens() -> None:
    numbers = score(["we go home now, friend."], ["we go home now, friends."])
    expected = 100 * bleu_of(6 / 7, 4 / 6, 3 / 5, 2 / 4)  # we go home now , friend .
    assert numbers["bleu"] == pytest.approx(expected)
    assert numbers["bleu_tokenized"] == pytest.approx(expected)


def test_casing_counts() -> None:
    numbers = score(["the cat sat on the mat"], ["The cat sat on the mat"])
    expected = 100 * bleu_of(
        5 / 6, 4 / 5, 3 / 4, 2 / 3
    )  # and the second `the` has no other to match
    assert numbers["bleu"] == pytest.approx(expected)
    assert numbers["bleu_tokenized"] == pytest.approx(expected)


def test_only_the_tokenized_score_is_without_smoothing() -> None:
    numbers = score(["a b c x"], ["a b c d"])
    assert numbers["bleu"] == pytest.approx(100 * bleu_of(3 / 4, 2 / 3, 1 / 2, 1 / (2 * 1)))
    assert numbers["bleu_tokenized"] == pytest.approx(0.0)


def test_compounds_are_split_in_the_tokenized_score_only() -> None:
    numbers = score(["a state-of-the-art tool"], ["the state-of-the-art tool"])
    # Nine tokens a side, of which the first differs; whole words would be three, without a 4-gram.
    assert numbers["bleu_tokenized"] == pytest.approx(100 * bleu_of(8 / 9, 7 / 8, 6 / 7, 5 / 6))
    assert numbers["bleu"] == 0.0


@pytest.mark.parametrize(  # the right side is what Perl prints
    ("line", "expected"),
    [
        ("rich-text format", "rich ##AT##-##AT## text format"),
        ("a-t-il", "a ##AT##-##AT## t-il"),
        ("vis-à-vis", "vis ##AT##-##AT## à ##AT##-##AT## vis"),
        ("10--12 - x- -y", "10 ##AT##-##AT## -12 - x- -y"),
    ],
)
def test_compounds_are_split_as_perl_does(line: str, expected: str) -> None:
    assert split_compounds(line) == expected


def test_the_tokenizer_follows_the_language() -> None:
    hypotheses, references = ["eau est bonne et claire"], ["l'eau est bonne et claire"]
    french = score(hypotheses, references)["bleu_tokenized"]  # l' eau
    english = score(hypotheses, references, language="en")["bleu_tokenized"]  # l 'eau
    assert french == pytest.approx(100 * exp(1 - 6 / 5))
    assert english == pytest.approx(100 * bleu_of(4 / 5, 3 / 4, 2 / 3, 1 / 2, exp(1 - 6 / 5)))


def test_chrf_weighs_recall_twice() -> None:
    # Characters 2/3 and pairs 1/2 in precision, all in recall: F2 = 5PR / (4P + R).
    precision, recall = (2 / 3 + 1 / 2) / 2, 1.0
    expected = 100 * 5 * precision * recall / (4 * precision + recall)
    assert score(["abc"], ["ab"])["chrf"] == pytest.approx(expected)


def test_signatures_state_the_settings() -> None:
    numbers = score(["a b c d"], ["a b c d"])
    assert {"nrefs:1", "case:mixed", "tok:13a", "smooth:exp"} <= set(
        numbers["bleu_signature"].split("|")
    )
    assert {"nrefs:1", "case:mixed", "nc:6", "nw:0"} <= set(numbers["chrf_signature"].split("|"))


def test_lines_agree_in_number_and_are_not_empty() -> None:
    with pytest.raises(ValueError, match="2 hypotheses for 1 references"):
        score(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="no hypotheses to score"):
        score([], [])
    with pytest.raises(ValueError, match="1 predictions for 2 references"):
        approx_bleu([[1]], [[1], [2]])
    with pytest.raises(ValueError, match="no predictions to score"):
        approx_bleu([], [])


def test_approx_bleu_pools_counts_and_penalizes_short_rows() -> None:
    predictions, references = (
        [[5, 6, 7, 8, 9, 10], [11, 12, 13, 14]],
        [[5, 6, 7, 8, 5, 10, 15], [11, 12, 13, 14]],
    )
    expected = bleu_of(9 / 10, 6 / 8, 4 / 6, 2 / 4, exp(1 - 11 / 10))
    assert approx_bleu(predictions, references) == pytest.approx(expected)
    arrays = [[np.asarray(row, np.int32) for row in rows] for rows in (predictions, references)]
    assert approx_bleu(*arrays) == pytest.approx(expected)
    assert approx_bleu(references, references) == pytest.approx(1.0)


def test_approx_bleu_counts_a_token_as_often_as_the_reference_and_long_rows_gain_nothing() -> None:
    assert approx_bleu([[5, 5, 5, 5, 5]], [[5, 5, 5, 5]]) == pytest.approx(
        bleu_of(4 / 5, 3 / 4, 2 / 3, 1 / 2)
    )


def test_approx_bleu_halves_every_further_order_without_a_match() -> None:
    expected = bleu_of(3 / 4, 1 / 3, 1 / (2 * 2), 1 / (4 * 1))
    assert approx_bleu([[1, 2, 9, 3]], [[1, 2, 3, 4]]) == pytest.approx(expected)


def test_approx_bleu_of_rows_shorter_than_an_order() -> None:
    assert approx_bleu([[1, 5]], [[1, 2]]) == pytest.approx(bleu_of(1 / 2, 1 / (2 * 1), 1, 1))
    assert approx_bleu([[]], [[1, 2]]) == 0.0
