"""Compression during training: masks, gradual pruning and rounding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.helpers import trees
from tlc_jax.compression.during_training import GRADUAL_LEVELS, DuringTraining, sparsity_at
from tlc_jax.compression.prune import pruning_masks
from tlc_jax.compression.recipe import Prune
from tlc_jax.core.params import flatten

PRUNE = Prune(0.8, only="blocks/.*")


def test_sparsity_follows_zhu_and_gupta() -> None:
    assert (sparsity_at(0.9, 0), sparsity_at(0.9, GRADUAL_LEVELS)) == (0.0, 0.9)
    assert sparsity_at(0.9, GRADUAL_LEVELS // 2) == pytest.approx(0.9 * 7 / 8)


def test_levels_follow_the_budget_and_end_before_it() -> None:
    during_training = DuringTraining(gradual=(PRUNE,))
    assert [
        during_training.pruning_level(fraction) for fraction in (0.0, 0.0374, 0.0376, 0.75, 1.0)
    ] == [
        0,
        0,
        1,
        20,
        20,
    ]
    assert DuringTraining().pruning_level(0.9) == 0


def test_pruning_to_a_level_is_idempotent_and_lasts() -> None:
    params = jax.tree.map(jnp.asarray, trees.classifier())
    during_training = DuringTraining(gradual=(PRUNE,))
    optimizer = optax.chain(optax.adam(0.1), during_training.mask_transform(params))
    state = optimizer.init(params)
    updates, state = optimizer.update(params, state, params)
    dense = optax.apply_updates(params, updates)
    half, state = during_training.prune_to(dense, state, GRADUAL_LEVELS // 2)
    expected = pruning_masks(dense, PRUNE, 0.8 * 7 / 8)
    for path, mask in flatten(expected).items():
        np.testing.assert_array_equal(flatten(half)[path], np.where(mask, flatten(dense)[path], 0))
        np.testing.assert_array_equal(flatten(state[0][0].mu)[path] != 0, mask)
    assert bool((half["embedding"]["token"] == dense["embedding"]["token"]).all())
    again, same = during_training.prune_to(half, state, GRADUAL_LEVELS // 2)
    jax.tree.map(np.testing.assert_array_equal, (again, same), (half, state))

    updates, _ = optimizer.update(dense, state, half)
    moved = optax.apply_updates(half, updates)
    frozen = during_training.mask_gradient(dense, state)
    for path, mask in flatten(expected).items():
        assert not np.asarray(flatten(moved)[path])[~mask].any()
        assert not np.asarray(flatten(frozen)[path])[~mask].any()


def test_training_without_compression_changes_nothing() -> None:
    params = trees.few_leaves()
    assert DuringTraining().mask_transform(params) is None
    assert (
        DuringTraining().forward_params(params) is params
        and DuringTraining().mask_gradient(params, None) is params
    )
