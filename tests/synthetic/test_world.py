"""The synthetic world is fixed, large enough, and the same on every machine."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from tlc_jax import synthetic
from tlc_jax.core.errors import InputError
from tlc_jax.synthetic.world import COINED, RELATIONS, Dice, build

SOURCES = {
    "text": synthetic.lines,
    "nli": synthetic.pairs,
    "translation": synthetic.translations,
}


def test_dice_give_known_numbers():
    dice = Dice(7)
    assert [dice.pick("abcdef") for _ in range(6)] == list("badadc")
    assert dice.shuffled(range(8)) == [2, 0, 4, 5, 6, 3, 1, 7]


def test_early_items_are_picked_more_often():
    dice = Dice(0)
    counts = Counter(dice.pick_early("abcd") for _ in range(8000))
    for item, share in zip("abcd", (0.5, 0.207, 0.159, 0.134), strict=True):
        assert counts[item] / 8000 == pytest.approx(share, abs=0.02)


def test_world_has_thousands_of_facts_about_different_names():
    world = build()
    assert sum(map(len, world.facts.values())) > 7000
    names = [name for sort in COINED for name in world.words[sort]]
    assert len(set(names)) == len(names) == sum(count for count, _ in COINED.values())


@pytest.mark.parametrize("relation", RELATIONS)
def test_every_subject_has_one_value_of_the_right_sort(relation):
    subjects, values, _ = RELATIONS[relation]
    facts = build().facts[relation]
    assert list(facts) == build().words[subjects]
    assert set(facts.values()) <= set(build().words[values])


@pytest.mark.parametrize("kind", SOURCES)
def test_seed_decides_what_is_drawn(kind):
    first, again, other = (
        list(itertools.islice(SOURCES[kind]("train", seed), 300)) for seed in (0, 0, 1)
    )
    assert first == again
    assert len(set(first) - set(other)) > 200


@pytest.mark.parametrize("kind", SOURCES)
def test_splits_share_nothing_whatever_the_seeds(kind):
    train, valid = (
        {
            example
            for seed in seeds
            for example in itertools.islice(SOURCES[kind](split, seed), 5000)
        }
        for split, seeds in (("train", (0, 1)), ("valid", (0, 1, 2, 3)))
    )
    assert train & valid <= {""}
    assert len(valid) > 3000


@pytest.mark.parametrize("kind", SOURCES)
def test_unknown_split_is_refused(kind):
    with pytest.raises(InputError, match="no split 'test': use train or valid"):
        next(SOURCES[kind]("test"))


def test_another_process_draws_the_same():
    """Sets and dicts of strings have another order there."""
    code = (
        "import itertools; from tlc_jax import synthetic as s;"
        "drawn = [s.lines('valid'), s.pairs('valid'), s.translations('valid')];"
        "print([list(itertools.islice(one, 300)) for one in drawn])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    here = [list(itertools.islice(source("valid"), 300)) for source in SOURCES.values()]
    assert done.stdout.strip() == str(here)


def test_fingerprint_follows_the_source(tmp_path, monkeypatch):
    before = synthetic.fingerprint()
    assert re.fullmatch(r"[0-9a-f]{16}", before)
    (tmp_path / "__init__.py").write_text("changed")
    monkeypatch.setattr(synthetic, "__file__", str(tmp_path / "__init__.py"))
    assert synthetic.fingerprint.__wrapped__() != before
