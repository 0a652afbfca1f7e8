"""Masked-language corruption: how many positions, which, and what becomes of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlc_jax.config import Objective
from tlc_jax.data.tokenizer import BOS, EOS, FIRST_ORDINARY, MASK
from tlc_jax.tasks.masked_lm import mask_tokens, predicted_positions

V = 1000


def rows(count: int, length: int) -> np.ndarray:
    tokens = np.random.default_rng(0).integers(FIRST_ORDINARY, V, (count, length)).astype(np.int32)
    tokens[:, 0] = BOS
    tokens[:, length // 2] = EOS
    return tokens


@pytest.mark.parametrize(
    ("length", "rate", "k"), [(128, 0.15, 20), (64, 0.25, 16), (100, 0.15, 15), (8, 0.01, 1)]
)
def test_the_number_of_positions_is_fixed(length, rate, k) -> None:
    assert predicted_positions(length, rate) == k


def test_positions_are_distinct_ordinary_and_carry_their_targets() -> None:
    tokens = rows(64, 128)
    masked = mask_tokens(jax.random.key(0), jnp.asarray(tokens), Objective(), V)
    assert masked.positions_BxK.shape == (64, 20)
    for row in range(64):
        assert len(set(np.asarray(masked.positions_BxK[row]))) == 20
    targets = np.take_along_axis(tokens, np.asarray(masked.positions_BxK), 1)
    np.testing.assert_array_equal(masked.targets_BxK, targets)
    assert (targets >= FIRST_ORDINARY).all()
    untouched = np.ones_like(tokens, bool)
    np.put_along_axis(untouched, np.asarray(masked.positions_BxK), False, 1)
    np.testing.assert_array_equal(np.asarray(masked.inputs_BxL)[untouched], tokens[untouched])


def test_the_weights_keep_the_expected_share() -> None:
    masked = mask_tokens(jax.random.key(0), jnp.asarray(rows(4, 128)), Objective(mask_rate=0.15), V)
    np.testing.assert_allclose(masked.weights_BxK.sum(1), 0.15 * 128, rtol=1e-5)
    np.testing.assert_allclose(masked.weights_BxK[:, -1], 0.2, rtol=1e-4)
    whole = mask_tokens(jax.random.key(0), jnp.asarray(rows(4, 64)), Objective(mask_rate=0.25), V)
    np.testing.assert_array_equal(whole.weights_BxK, np.ones((4, 16), np.float32))


def test_eighty_ten_ten() -> None:
    masked = mask_tokens(jax.random.key(3), jnp.asarray(rows(2000, 128)), Objective(), V)
    inputs = np.take_along_axis(np.asarray(masked.inputs_BxL), np.asarray(masked.positions_BxK), 1)
    targets = np.asarray(masked.targets_BxK)
    assert np.mean(inputs == MASK) == pytest.approx(0.8, abs=0.01)
    assert np.mean(inputs == targets) == pytest.approx(0.1, abs=0.01)
    random = inputs[(inputs != MASK) & (inputs != targets)]
    assert len(random) / inputs.size == pytest.approx(0.1, abs=0.01)
    assert random.min() >= FIRST_ORDINARY
    assert random.max() == V - 1
    assert np.mean(random) == pytest.approx((FIRST_ORDINARY + V - 1) / 2, rel=0.02)


def test_every_ordinary_position_is_chosen_equally_often() -> None:
    masked = mask_tokens(
        jax.random.key(5), jnp.asarray(rows(4000, 32)), Objective(mask_rate=0.25), V
    )
    counts = np.bincount(np.asarray(masked.positions_BxK).ravel(), minlength=32) / 4000
    assert counts[0] == counts[16] == 0
    np.testing.assert_allclose(np.delete(counts, [0, 16]), 8 / 30, atol=0.03)


def test_a_row_with_too_little_text_weighs_less_and_stays_as_it_is() -> None:
    tokens = np.full((1, 16), EOS, np.int32)
    tokens[0, 5] = 77
    masked = mask_tokens(jax.random.key(0), jnp.asarray(tokens), Objective(mask_rate=0.25), V)
    assert float(masked.weights_BxK.sum()) == 1.0
    kept = np.arange(16) != 5
    np.testing.assert_array_equal(np.asarray(masked.inputs_BxL)[0, kept], tokens[0, kept])


def test_draws_are_a_function_of_the_key() -> None:
    tokens = jnp.asarray(rows(4, 64))
    first, again, other = (
        mask_tokens(jax.random.key(n), tokens, Objective(), V) for n in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.inputs_BxL, again.inputs_BxL)
    assert np.any(first.positions_BxK != other.positions_BxK)
