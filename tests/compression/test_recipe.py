from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlc_jax.compression.recipe import Prune, Quantize, Recipe, format_recipe, parse_recipe
from tlc_jax.errors import InputError

PRUNES = st.builds(
    Prune, st.floats(0, 1, exclude_max=True), st.sampled_from(["global", "tensor"]), embeddings=st.booleans()
)
QUANTIZES = st.builds(
    Quantize,
    st.sampled_from([2, 3, 4, 5, 6, 7, 8, 32]),
    st.sampled_from(["tensor", "channel"]),
    st.sampled_from(["aqt", "minmax"]),
    st.booleans(),
)
RECIPES = st.builds(
    lambda *steps: Recipe(sum(steps, ())), *(st.just(()) | st.tuples(kind) for kind in (PRUNES, QUANTIZES))
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
    assert (recipe.sparsity, recipe.bits) == (0.75, 4)


def test_dense_means_nothing() -> None:
    recipe = parse_recipe("dense")
    assert (recipe.prune, recipe.quantize, recipe.sparsity, recipe.bits) == (None, None, 0.0, 32)
    assert format_recipe(recipe) == "dense"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prun:0.5", "did you mean prune?"),
        ("dens", "did you mean dense?"),
        ("distil:0.5", "known here: dense, prune, quantize"),
        ("", "unknown operation ''"),
        ("prune:0.5+", "unknown operation ''"),
        ("dense+prune:0.5", "unknown operation 'dense'"),
        ("prune:0.5,scop=global", "did you mean scope?"),
        ("quantize:4,sparsity=0.5", "has no key 'sparsity'"),
        ("quantize:4,bits=8", "has no key 'bits'"),
        ("prune:0.5,scope=layer", "scope=layer must be one of global, tensor"),
        ("quantize:4,per=row", "per=row must be one of tensor, channel"),
        ("quantize:4,scheme=nf4", "scheme=nf4 must be one of aqt, minmax"),
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
        ("quantize:4+prune:0.5", "prune must come before quantize"),
        ("prune:0.5+prune:0.6", "prune occurs twice"),
    ],
)
def test_bad_recipes_are_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_recipe(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_recipes_are_checked_without_jax() -> None:
    code = "import sys, tlc_jax.compression.recipe; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
