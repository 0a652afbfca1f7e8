"""Masked-language corruption on the device: a fixed number of positions a row, so that every shape is static."""

from __future__ import annotations

import functools
import math
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tlc_jax.config import Objective
from tlc_jax.data.vocabulary import OURS, SpecialIds


class Masked(NamedTuple):
    """A corrupted batch: B rows of L tokens with K positions to predict in each."""

    inputs_BxL: jax.Array
    positions_BxK: jax.Array
    targets_BxK: jax.Array
    weights_BxK: jax.Array


def predicted_positions(length: int, mask_rate: float) -> int:
    """K: the positions selected in a row of `length` tokens."""
    return max(1, math.ceil(mask_rate * length - 1e-9))


def mask_tokens(
    key: jax.Array,
    tokens_BxL: jax.Array,
    objective: Objective,
    vocab_size: int,
    special: SpecialIds = OURS,
) -> Masked:
    """Selects K positions of each row without replacement and corrupts them.

    The last of the K is weighted by the fractional part of `mask_rate * L`, so that the expected weight is exactly
    that share of the row. Special tokens are never selected: where a row has too few others, the weight is 0.
    Of the selected, `objective.mask_token` become <mask>, `objective.random_token` a random ordinary token, and the
    rest stay as they are.
    """
    B, L = tokens_BxL.shape
    K = predicted_positions(L, objective.mask_rate)
    key_choice, key_action, key_token = jax.random.split(key, 3)
    priority_BxL = jnp.where(
        _ordinary(tokens_BxL, special), jax.random.uniform(key_choice, (B, L)), -1.0
    )
    _, positions_BxK = jax.lax.top_k(priority_BxL, K)
    targets_BxK = jnp.take_along_axis(tokens_BxL, positions_BxK, axis=1)
    last = objective.mask_rate * L - (K - 1)
    weights_BxK = jnp.where(jnp.arange(K) < K - 1, 1.0, min(1.0, last)) * _ordinary(
        targets_BxK, special
    )

    action_BxK = jax.random.uniform(key_action, (B, K))
    random_BxK = jax.random.randint(
        key_token, (B, K), 0, vocab_size - len(special.all), tokens_BxL.dtype
    )
    for id in special.all:  # ascending, so that each moves the rest up by one
        random_BxK += random_BxK >= id
    corrupted_BxK = jnp.where(
        action_BxK < objective.mask_token,
        jnp.asarray(special.mask, tokens_BxL.dtype),
        jnp.where(
            action_BxK < objective.mask_token + objective.random_token, random_BxK, targets_BxK
        ),
    )
    corrupted_BxK = jnp.where(weights_BxK > 0, corrupted_BxK, targets_BxK)
    inputs_BxL = jax.vmap(lambda row, where, what: row.at[where].set(what))(
        tokens_BxL, positions_BxK, corrupted_BxK
    )
    return Masked(inputs_BxL, positions_BxK, targets_BxK, weights_BxK)


def _ordinary(tokens: jax.Array, special: SpecialIds) -> jax.Array:
    """Where there is text."""
    return functools.reduce(operator.and_, [tokens != id for id in special.all])
