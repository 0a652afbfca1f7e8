"""Beam search over any model that scores the next token, in one compiled loop.

Shapes in names: B sentences, K hypotheses (beams) of each, T positions, V vocabulary, C
continuations of a hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tlc_jax.data.tokenizer import BOS, EOS, FIRST_ORDINARY, PAD

Step = Callable[[Any, jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]
"""(cache, tokens_BxK, ancestors_BxKxT, t) -> logits_BxKxV of the next token, cache."""

_CHUNK = 128


class Hypotheses(NamedTuple):
    """Finished translations of each sentence, best first.

    Attributes:
      tokens_BxKxT: int32, with </s> at their ends and <pad> after.
      scores_BxK: log-probability over the length penalty; -inf beyond the hypotheses found.
      lengths_BxK: number of tokens, </s> included.
    """

    tokens_BxKxT: jax.Array
    scores_BxK: jax.Array
    lengths_BxK: jax.Array


class _State(NamedTuple):
    t: jax.Array
    tokens_BxKxT: jax.Array
    log_p_BxK: jax.Array
    ancestors_BxKxT: jax.Array
    finished: Hypotheses
    done_B: jax.Array
    cache: Any


def length_penalty(length: jax.Array, alpha: float) -> jax.Array:
    """((5 + length) / 6) ** alpha of Wu et al. (2016), the divisor of log-probabilities."""
    return ((5.0 + length) / 6.0) ** alpha


def beam_search(
    step: Step, cache: Any, limits_B: jax.Array, beams: int, length: int, alpha: float
) -> Hypotheses:
    """Finds the best translations with a beam of `beams` live hypotheses.

    Of all continuations of the live hypotheses, one that ends (</s>) is finished if it is among the
    best `beams`; the best `beams` others stay alive. A sentence is done once no live hypothesis can
    overtake the worst of its `beams` finished ones. At its limit the live hypotheses of a sentence
    are ended. With one beam this is greedy search, and stops at the first </s>.

    Args:
      step: the model. Position 0 of every hypothesis is <s>.
      cache: first argument of `step` at position 0.
      limits_B: tokens that a translation may have, </s> included, from 1 to `length`.
      beams: number of hypotheses.
      length: number of positions. Decoding takes as many steps as the longest translation of the
        batch needs, which may be fewer.
      alpha: exponent of the length penalty, not negative; 0: no penalty.
    """
    longest_B = length_penalty(limits_B, alpha)

    def proceed(state: _State) -> jax.Array:
        return (state.t < length) & ~jnp.all(state.done_B)

    def advance(state: _State) -> _State:
        t = state.t
        previous_BxK = jnp.where(t == 0, BOS, state.tokens_BxKxT[:, :, jnp.maximum(t - 1, 0)])
        # The token at position t is that of the hypothesis itself, so far in its own beam.
        ancestors_BxKxT = state.ancestors_BxKxT.at[:, :, t].set(jnp.arange(beams))
        logits_BxKxV, cache = step(state.cache, previous_BxK, ancestors_BxKxT, t)
        logits_BxKxV = logits_BxKxV.astype(jnp.float32)
        normalizer_BxK = jax.nn.logsumexp(logits_BxKxV, axis=-1)

        ended_BxK = state.log_p_BxK + logits_BxKxV[:, :, EOS] - normalizer_BxK
        log_p_BxK, parent_BxK, token_BxK = _grow(state.log_p_BxK, logits_BxKxV, normalizer_BxK)
        finished, at_limit_B = _finish(state, ended_BxK, log_p_BxK, limits_B, alpha)
        # Log-probabilities only fall, and no length helps more than the longest one: no live
        # hypothesis can end with a score above this bound.
        bound_B = log_p_BxK[:, 0] / longest_B
        enough_B = finished.scores_BxK[:, -1] >= bound_B
        if beams == 1:
            enough_B = finished.scores_BxK[:, 0] > -jnp.inf
        done_B = state.done_B | at_limit_B | enough_B
        tokens_BxKxT = jnp.take_along_axis(state.tokens_BxKxT, parent_BxK[:, :, None], axis=1)
        return _State(
            t + 1,
            tokens_BxKxT.at[:, :, t].set(token_BxK),
            log_p_BxK,
            jnp.take_along_axis(ancestors_BxKxT, parent_BxK[:, :, None], axis=1),
            finished,
            done_B,
            cache,
        )

    start = _start(limits_B.shape[0], beams, length, cache)
    return jax.lax.while_loop(proceed, advance, start).finished


def _start(B: int, K: int, T: int, cache: Any) -> _State:
    tokens_BxKxT = jnp.full((B, K, T), PAD, jnp.int32)
    nothing = Hypotheses(tokens_BxKxT, jnp.full((B, K), -jnp.inf), jnp.zeros((B, K), jnp.int32))
    # All hypotheses start out the same, so only the first one may grow in the first step.
    log_p_BxK = jnp.where(jnp.arange(K) == 0, 0.0, -jnp.inf) * jnp.ones((B, 1))
    ancestors_BxKxT, done_B = jnp.zeros((B, K, T), jnp.int32), jnp.zeros((B,), bool)
    return _State(jnp.int32(0), tokens_BxKxT, log_p_BxK, ancestors_BxKxT, nothing, done_B, cache)


def _grow(
    log_p_BxK: jax.Array, logits_BxKxV: jax.Array, normalizer_BxK: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-probability, parent and last token of the best K hypotheses that go on."""
    B, K, V = logits_BxKxV.shape
    # No hypothesis can have more than K of the best K continuations.
    C = min(K, V)
    alive_BxKxV = logits_BxKxV.at[:, :, :FIRST_ORDINARY].set(-jnp.inf)
    best_BxKxC, token_BxKxC = top_k(alive_BxKxV, C)
    scores_BxKxC = log_p_BxK[:, :, None] + best_BxKxC - normalizer_BxK[:, :, None]
    log_p_BxK, chosen_BxK = jax.lax.top_k(scores_BxKxC.reshape(B, K * C), K)
    parent_BxK = chosen_BxK // C
    token_BxK = jnp.take_along_axis(token_BxKxC.reshape(B, K * C), chosen_BxK, axis=1)
    return log_p_BxK, parent_BxK, token_BxK


def _finish(
    state: _State, ended_BxK: jax.Array, log_p_BxK: jax.Array, limits_B: jax.Array, alpha: float
) -> tuple[Hypotheses, jax.Array]:
    """The finished hypotheses with those that end here, and which sentences are at their limit."""
    K, t = ended_BxK.shape[1], state.t
    worst_kept_B = jax.lax.top_k(jnp.concatenate([log_p_BxK, ended_BxK], axis=1), K)[0][:, -1]
    at_limit_B = t + 1 >= limits_B
    accepted_BxK = (ended_BxK >= worst_kept_B[:, None]) | at_limit_B[:, None]
    accepted_BxK &= ~state.done_B[:, None]
    new = Hypotheses(
        state.tokens_BxKxT.at[:, :, t].set(EOS),
        jnp.where(accepted_BxK, ended_BxK / length_penalty(t + 1, alpha), -jnp.inf),
        jnp.full(ended_BxK.shape, t + 1),
    )
    return _merge(state.finished, new), at_limit_B


def _merge(old: Hypotheses, new: Hypotheses) -> Hypotheses:
    """The best K hypotheses of both."""
    scores = jnp.concatenate([old.scores_BxK, new.scores_BxK], axis=1)
    scores_BxK, chosen_BxK = jax.lax.top_k(scores, old.scores_BxK.shape[1])
    tokens = jnp.concatenate([old.tokens_BxKxT, new.tokens_BxKxT], axis=1)
    lengths = jnp.concatenate([old.lengths_BxK, new.lengths_BxK], axis=1)
    tokens_BxKxT = jnp.take_along_axis(tokens, chosen_BxK[:, :, None], axis=1)
    return Hypotheses(tokens_BxKxT, scores_BxK, jnp.take_along_axis(lengths, chosen_BxK, axis=1))


def top_k(x: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """`jax.lax.top_k` over a long last axis, several times as fast on CPUs."""
    *outer, size = x.shape
    if size <= 2 * k * _CHUNK:
        return jax.lax.top_k(x, k)
    padding = -size % _CHUNK
    x = jnp.pad(x, [(0, 0)] * len(outer) + [(0, padding)], constant_values=-jnp.inf)
    chunks = x.reshape(*outer, -1, _CHUNK)
    # The k largest values lie in the k chunks with the largest maxima, so only these are searched.
    _, best = jax.lax.top_k(jnp.max(chunks, axis=-1), k)
    # Chunks in order, so that the first of equal values wins, as in `jax.lax.top_k`.
    best = jnp.sort(best, axis=-1)
    candidates = jnp.take_along_axis(chunks, best[..., None], axis=-2).reshape(*outer, k * _CHUNK)
    values, places = jax.lax.top_k(candidates, k)
    chunk = jnp.take_along_axis(best, places // _CHUNK, axis=-1)
    return values, chunk * _CHUNK + places % _CHUNK
