"""Selectors: first match wins, nothing is silently unmatched."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten, select, select_tree, unflatten

NAMES = st.sampled_from(["a", "b", "kernel", "bias", "query"])
TREES = st.recursive(
    st.integers(),
    lambda children: st.dictionaries(NAMES, children, min_size=1, max_size=3),
    max_leaves=12,
).filter(lambda tree: isinstance(tree, dict))
PATHS = st.lists(
    st.lists(NAMES, min_size=1, max_size=3).map("/".join), min_size=1, max_size=8, unique=True
)


@given(TREES)
def test_unflatten_undoes_flatten(tree):
    assert unflatten(flatten(tree)) == tree
    assert list(flatten(tree)) == sorted(flatten(tree))


@given(
    PATHS,
    st.lists(st.sampled_from(["a.*", ".*/kernel", ".*bias", ".*", "b", "(a|b)/.*"]), unique=True),
)
def test_first_matching_rule_decides(paths, patterns):
    rules = [(pattern, index) for index, pattern in enumerate(patterns)]
    # Sound reference: walk the rules for every path. Rules without any match are an error.
    hits = {
        path: [index for pattern, index in rules if re.fullmatch(pattern, path)] for path in paths
    }
    if any(all(index not in found for found in hits.values()) for _, index in rules):
        with pytest.raises(InputError, match="matches no parameter"):
            select(rules, paths, default=-1)
    else:
        assert select(rules, paths, default=-1) == {
            path: min(found, default=-1) for path, found in hits.items()
        }


def test_a_pattern_must_match_the_whole_path():
    assert select([("a/kernel", True)], ["a/kernel", "a/kernel/more", "b/a/kernel"]) == {
        "a/kernel": True,
        "a/kernel/more": None,
        "b/a/kernel": None,
    }


def test_shadowed_rule_is_accepted():
    # The second rule matches a path, though the first one decides it.
    assert select([(".*", 1), ("a", 2)], ["a"]) == {"a": 1}


def test_select_tree_keeps_the_nesting():
    tree = {"a": {"kernel": 1, "bias": 2}, "b": {"kernel": 3}}
    assert select_tree([(".*/kernel", True)], tree, False) == {
        "a": {"kernel": True, "bias": False},
        "b": {"kernel": True},
    }


def test_a_broken_expression_is_refused():
    with pytest.raises(InputError, match="is not a regular expression"):
        select([("(", 1)], ["a"])


def test_the_message_shows_what_paths_look_like():
    with pytest.raises(InputError, match="blocks/attention/query/kernel"):
        select([("attn/.*", 1)], ["blocks/attention/query/kernel"])
