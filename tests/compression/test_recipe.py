from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlc_jax.compression.recipe import (
    Finetune,
    Prune,
    Quantize,
    Recipe,
    Remove,
    format_recipe,
    parse_recipe,
)
from tlc_jax.core.errors import InputError

SELECTORS = st.sampled_from([".*", "embedding/.*", "blocks/.+/kernel", "(a,b){1,2}/x+y"])
PRUNES = st.builds(
    Prune,
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["global", "tensor", "layer", "row"]),
    embeddings=st.booleans(),
    only=SELECTORS,
) | st.sampled_from(
    [Prune(0.5, block=4), Prune(0.75, block=8, embeddings=False), Prune(1 - 1 / 3, block=3)]
)
QUANTIZES = st.builds(
    Quantize,
    st.sampled_from([2, 3, 4, 5, 6, 7, 8, 32]),
    scheme=st.sampled_from(["aqt", "minmax"]),
    range=st.sampled_from(["extremes", "mse", "99.9"]),
    embeddings=st.booleans(),
    only=SELECTORS,
) | st.sampled_from([Quantize(4, per="tensor"), Quantize(3, group=64)])
REMOVES = st.sampled_from(
    [Remove(0.5, "heads"), Remove(0.25, "neurons"), Remove(0.5, "layers", "spread")]
)
AFTER = st.lists(PRUNES | QUANTIZES, max_size=3).map(tuple)
DURING = st.sampled_from(
    [(), (Finetune(),), (Prune(0.9, gradual=True), Quantize(4, aware=True), Finetune())]
)
RECIPES = st.builds(
    lambda removes, during, after: Recipe((*removes, *during, *after)),
    st.lists(REMOVES, max_size=2),
    DURING,
    AFTER,
)


@given(RECIPES)
def test_text_and_recipe_are_the_same(recipe: Recipe) -> None:
    assert parse_recipe(format_recipe(recipe)) == recipe


@given(RECIPES)
def test_canonical_text_is_a_fixed_point(recipe: Recipe) -> None:
    text = format_recipe(recipe)
    assert format_recipe(parse_recipe(text)) == text


def test_defaults_are_left_out() -> None:
    text = " prune:0.75, scope=global + quantize:4 ,per=tensor, embeddings=true "
    recipe = parse_recipe(text)
    assert recipe == Recipe((Prune(0.75), Quantize(4, per="tensor")))
    assert format_recipe(recipe) == "prune:0.75+quantize:4,per=tensor"


def test_dense_has_no_operations() -> None:
    assert parse_recipe("dense") == Recipe()
    assert format_recipe(Recipe()) == "dense"


def test_selectors_may_contain_plus_and_comma() -> None:
    recipe = parse_recipe("quantize:8,only=.+/(key|query){1,}/.+,group=32 + quantize:4")
    assert recipe.operations == (Quantize(8, group=32, only=".+/(key|query){1,}/.+"), Quantize(4))


def test_blocks_are_written_as_kept_of_size() -> None:
    assert parse_recipe("prune:1:4").operations == (Prune(0.75, block=4),)


def test_finetuning_splits_the_operations() -> None:
    before, after = parse_recipe("prune:0.6+finetune+quantize:4").around_finetuning()
    assert (before, after) == ((Prune(0.6),), (Quantize(4),))
    assert parse_recipe("prune:0.6+quantize:4").around_finetuning() == (
        (),
        (Prune(0.6), Quantize(4)),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prun:0.5", "did you mean prune?"),
        ("dens", "did you mean dense?"),
        ("distil:0.5", "known are dense, prune, remove, quantize, finetune"),
        ("", "unknown operation ''"),
        ("prune:0.5+", "must be a number"),
        ("dense+prune:0.5", "unknown operation 'dense'"),
        ("prune:0.5,scop=global", "did you mean scope?"),
        ("quantize:4,sparsity=0.5", "has no key 'sparsity'"),
        ("quantize:4,bits=8", "has no key 'bits'"),
        ("prune:0.5,scope=column", "scope=column must be one of global, tensor, layer, row"),
        ("quantize:4,per=row", "per=row must be one of tensor, channel"),
        ("quantize:4,scheme=nf4", "unknown scheme 'nf4'; known are aqt, minmax"),
        ("quantize:4,scheme=nf4,aware=true+finetune", "aware=true computes with aqt or minmax"),
        ("prune:0.5,score=random", "unknown score 'random'; known are magnitude"),
        ("quantize:4,embeddings=no", "embeddings=no must be one of true, false"),
        ("quantize:4,per", "needs a value"),
        ("quantize:4,per=tensor,per=channel", "occurs twice"),
        ("prune", "needs its sparsity"),
        ("quantize:", "needs its bits"),
        ("prune:half", "must be a number"),
        ("quantize:4.5", "must be a whole number"),
        ("prune:1", "must lie in [0, 1)"),
        ("prune:-0.1", "must lie in [0, 1)"),
        ("prune:nan", "must lie in [0, 1)"),
        ("quantize:1", "must be 2 to 8, or 32"),
        ("quantize:16", "must be 2 to 8, or 32"),
        ("prune:4:2", "0 < N < M <= 32"),
        ("prune:2:", "0 < N < M <= 32"),
        ("prune:2:4,scope=row", "leave out scope"),
        ("prune:0.5,only=[", "is not a regular expression"),
        ("prune:0.5,block=4", "has no key 'block'"),
        ("quantize:4,group=64,per=tensor", "leave out per=tensor"),
        ("quantize:4,group=-1", "must be a number of weights"),
        ("quantize:4,group=many", "must be a whole number"),
        ("quantize:4,range=median", "must be extremes, mse, or a percentage"),
        ("quantize:4,range=1", "must be extremes, mse, or a percentage"),
        ("remove:0.5", "remove needs of="),
        ("remove:0.5,of=tails", "must be one of heads, neurons, layers"),
        ("remove:1,of=heads", "must lie between 0 and 1"),
        ("remove:0.5,of=heads,which=spread", "is for of=layers"),
        ("prune:0.5+remove:0.5,of=heads", "remove must come first"),
        ("finetune+remove:0.5,of=heads", "remove must come first"),
        ("finetune:3", "finetune takes no value"),
        ("finetune+finetune", "finetune occurs twice"),
        ("prune:0.9,gradual=true", "add +finetune after it"),
        ("finetune+quantize:4,aware=true", "add +finetune after it"),
    ],
)
def test_bad_recipes_are_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_recipe(text).require_names()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_recipes_are_checked_without_jax() -> None:
    code = "import sys, tlc_jax.compression.recipe; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
