import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest

from tlc_jax.config import Impl, Model
from tlc_jax.models import flops
from tlc_jax.models.network import classifier, masked_language_model

# Wide enough that element-wise work, which the formula leaves out, is small beside the products.
# Nothing of this size runs: it is only compiled.
MODEL = Model(layers=1, hidden=768, max_length=64)
VOCAB, BATCH, LENGTH, POSITIONS, CLASSES = 8192, 2, 64, 10, 3


def _counted_by_xla(function, *shapes, compiled=False):
    """XLA's count before its optimizations, which takes no compilation, or after them."""
    lowered = jax.jit(function).lower(*shapes)
    return (lowered.compile() if compiled else lowered).cost_analysis()["flops"]


def _count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_train_step_matches_the_closed_form():
    tokens, head_tokens, h = BATCH * LENGTH, BATCH * POSITIONS, MODEL.hidden
    expected = (
        6 * tokens * 12 * MODEL.layers * h**2
        + 12 * MODEL.layers * LENGTH * h * tokens
        + 6 * head_tokens * (h**2 + h * VOCAB)
    )
    assert flops.encoder_train_flops(MODEL, VOCAB, BATCH, LENGTH, POSITIONS) == expected


def test_narrower_feed_forward_costs_less():
    narrow = dataclasses.replace(MODEL, ffn=MODEL.hidden)
    wide_flops, narrow_flops = (
        flops.encoder_train_flops(model, VOCAB, BATCH, LENGTH, POSITIONS)
        for model in (MODEL, narrow)
    )
    saved = wide_flops - narrow_flops
    assert saved == 6 * BATCH * LENGTH * MODEL.layers * 2 * MODEL.hidden * (3 * MODEL.hidden)


@pytest.mark.parametrize(
    ("train", "model"),
    [
        (False, MODEL),
        (True, MODEL),
        (False, dataclasses.replace(MODEL, heads=5, head_size=32)),
        (False, dataclasses.replace(MODEL, norm="post", activation="relu", token_types=2)),
    ],
)
def test_formula_agrees_with_the_compiler(train, model):
    network = masked_language_model(
        dataclasses.replace(model, dropout=0.0), VOCAB, Impl(layer_loop="unrolled")
    )

    def loss(params, tokens, positions):
        return jax.nn.logsumexp(network.apply(params, tokens, positions), axis=-1).sum()

    tokens = jax.ShapeDtypeStruct((BATCH, LENGTH), jnp.int32)
    positions = jax.ShapeDtypeStruct((BATCH, POSITIONS), jnp.int32)
    function = jax.grad(loss) if train else loss
    measured = _counted_by_xla(function, network.abstract(), tokens, positions, compiled=train)
    formula = flops.encoder_train_flops(model, VOCAB, BATCH, LENGTH, POSITIONS)
    # The backward pass costs twice the forward pass.
    assert (formula if train else formula / 3) == pytest.approx(measured, rel=0.02)


def test_classifier_formula_agrees_with_the_compiler():
    network = classifier(
        dataclasses.replace(MODEL, dropout=0.0), VOCAB, CLASSES, Impl(layer_loop="unrolled")
    )

    def loss(params, tokens, mask):
        return jax.nn.logsumexp(network.apply(params, tokens, mask), axis=-1).sum()

    tokens = jax.ShapeDtypeStruct((BATCH, LENGTH), jnp.int32)
    mask = jax.ShapeDtypeStruct((BATCH, LENGTH), jnp.bool_)
    measured = _counted_by_xla(jax.grad(loss), network.abstract(), tokens, mask)
    formula = flops.encoder_train_flops(MODEL, CLASSES, BATCH, LENGTH)
    assert formula == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize(
    "switches",
    [
        {"share": "none"},
        {"share": "attention"},
        {"share": "all"},
        {"norm": "post", "token_types": 2},
        {"heads": 5, "head_size": 32},
    ],
)
def test_parameter_count_is_that_of_the_model(switches):
    model = dataclasses.replace(MODEL, layers=3, ffn=384, **switches)
    network = masked_language_model(model, VOCAB, Impl())
    tables = (VOCAB + model.max_length + model.token_types) * model.hidden
    count = _count(network.abstract())
    assert network.parameter_counts() == (count, count - tables)


def test_paper_sizes_have_about_the_papers_parameters():
    # Paper 1's 12x768 has 111.0 M and its 24x768 195.7 M (digitised); its vocabulary is about 32 k.
    for layers, millions in ((12, 111.0), (24, 195.7)):
        model = Model(layers=layers, hidden=768, max_length=512)
        count, _ = masked_language_model(model, 32768, Impl()).parameter_counts()
        assert count / 1e6 == pytest.approx(millions, rel=0.01)


def test_mfu():
    assert flops.mfu(3e12, 0.5, 1e13, devices=2) == pytest.approx(0.3)
    assert flops.mfu(3e12, 0.5, None) is None
