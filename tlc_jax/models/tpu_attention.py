"""Attention in one TPU kernel each way, which reads projections as they lie and writes no scores.

XLA's attention wants heads on an axis of their own and copies queries, keys and values for it. Here
a kernel takes lanes of several heads from arrays [B, L, A], and masks those of other heads before
a product, which costs nothing: the matrix unit is as wide as two heads of 64. Scores are computed
with keys on the first axis, so that sums over keys stay inside lanes. The backward pass computes
them again from queries and keys.

Shapes in names: B rows of a batch, T queries, L keys, H heads, E head size, A = H x E, W lanes of a
block.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from tlc_jax.core.mesh import split_rows_and_heads

_LANES = 128
_LARGEST = 4 * 512 * 512


def attention(
    q_BxTxHxE: Array, k_BxLxHxE: Array, v_BxLxHxE: Array, lengths_B: Array | None, causal: bool
) -> Array:
    """Attention of T to L positions, with the softmax in float32: [B, T, H, E].

    Sequences whose scores have no place in a chip's vector memory are left to XLA. The limit is 4
    times 512 x 512 scores in the heads of a block, two where heads are 64 wide and even in number.

    Args:
      q_BxTxHxE: queries.
      k_BxLxHxE: keys.
      v_BxLxHxE: values, of the same type.
      lengths_B: number of keys that each row attends to, from the first on, at least 1; None: all.
      causal: whether a position attends to itself and earlier ones only.
    """
    (T, H, E), L = q_BxTxHxE.shape[1:], k_BxLxHxE.shape[1]
    if _lanes(H * E, E) // E * T * L > _LARGEST:
        return jax.nn.dot_product_attention(
            q_BxTxHxE, k_BxLxHxE, v_BxLxHxE, key_value_seq_lengths=lengths_B, is_causal=causal
        )
    # As [B, T, A] they lie in memory the way the projections wrote them.
    q, k, v = (x.reshape(*x.shape[:2], H * E) for x in (q_BxTxHxE, k_BxLxHxE, v_BxLxHxE))
    return _attention(q, k, v, lengths_B, E, causal).reshape(q_BxTxHxE.shape)


def _lanes(A: int, E: int) -> int:
    """Lanes of a block: whole heads, and whole registers unless there is just one block."""
    if A % _LANES == 0 and _LANES % E == 0:
        return _LANES
    return E if E % _LANES == 0 else A


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attention(q: Array, k: Array, v: Array, lengths_B: Array | None, E: int, causal: bool) -> Any:
    return _call(_forward, (q, k, v), 1, lengths_B, E, causal)[0]


def _attention_forward(
    q: Array, k: Array, v: Array, lengths_B: Array | None, E: int, causal: bool
) -> tuple[Array, tuple[Array, Array, Array, Array | None]]:
    return _attention(q, k, v, lengths_B, E, causal), (q, k, v, lengths_B)


def _attention_backward(
    E: int, causal: bool, residuals: tuple[Array, Array, Array, Array | None], g_BxTxA: Array
) -> tuple[Array, Array, Array, None]:
    q, k, v, lengths_B = residuals
    dq, dk, dv = _call(_backward, (q, k, v, g_BxTxA), 3, lengths_B, E, causal)
    return dq, dk, dv, None


_attention.defvjp(_attention_forward, _attention_backward)


def _call(
    kernel: Callable[..., None],
    inputs: tuple[Array, ...],
    results: int,
    lengths_B: Array | None,
    E: int,
    causal: bool,
) -> list[Array]:
    """Runs a kernel on each device's own rows and heads; its results are like its first inputs."""
    rows, heads = inputs[0].shape[0], inputs[0].shape[2] // E

    def own(*arrays: Array) -> list[Array]:
        lengths, arrays = arrays[: -len(inputs)], arrays[-len(inputs) :]
        (B, T, A), L = arrays[0].shape, arrays[1].shape[1]
        W = _lanes(A, E)
        # So many rows that their scores fill 1 MiB: fewer would wait more, more would spill.
        R = math.gcd(B, 1 << max(0, (2**18 * E // (W * T * L)).bit_length() - 1))
        blocks = [
            pl.BlockSpec((R, array.shape[1], W), lambda row, lane: (row, 0, lane))
            for array in arrays
        ]
        # The scores' product spans the lanes of the block, and so do three of the backward pass.
        # Queries lie along lanes, which idle where a register is not full.
        spanned = 1 if kernel is _forward else 4
        scores = B * (A // E) * L * pl.cdiv(T, _LANES) * _LANES
        return pl.pallas_call(
            functools.partial(kernel, E=E, causal=causal),
            grid=(B // R, A // W),
            in_specs=[*(pl.BlockSpec(memory_space=pltpu.SMEM) for _ in lengths), *blocks],
            out_specs=blocks[:results],
            out_shape=[
                jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays[:results]
            ],
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
            cost_estimate=pl.CostEstimate(
                flops=2 * scores * (spanned * W + E),
                transcendentals=scores,
                bytes_accessed=sum(array.nbytes for array in (*arrays, *arrays[:results])),
            ),
            name=f"attention{kernel.__name__}",
        )(*(length[None] for length in lengths), *arrays)

    lengths = (lengths_B,) if lengths_B is not None else ()
    return split_rows_and_heads(own, rows, heads)(*lengths, *inputs)


def _forward(*refs: Any, E: int, causal: bool) -> None:
    """Writes the output of a block, from its queries, keys and values."""
    *lengths, q_ref, k_ref, v_ref, y_ref = refs

    q_RxTxW, k_RxLxW, v_RxLxW = q_ref[...], k_ref[...], v_ref[...]
    v_RxWxL, outputs = v_RxLxW.swapaxes(1, 2), []
    heads, hide = _heads(q_RxTxW.shape[2], E), _hide(lengths, causal)
    # One stage for all heads, then the next: so the scheduler finds something else to do while a
    # product or a sum is on its way, for a third less time.
    scores = [_dot(k_RxLxW, _only(own, q_RxTxW), 2) for _, own in heads]
    parts = [_softmax(hide(score), E) for score in scores]
    for (lanes, _), (part_RxLxT, scale_Rx1xT) in zip(heads, parts, strict=True):
        y_RxExT = _dot(v_RxWxL[:, lanes], part_RxLxT.astype(v_RxLxW.dtype), 1)
        outputs.append(y_RxExT * scale_Rx1xT)
    y_ref[...] = jnp.concatenate(outputs, axis=1).astype(y_ref.dtype).swapaxes(1, 2)


def _backward(*refs: Any, E: int, causal: bool) -> None:
    """Writes the gradients of a block's queries, keys and values, from those and the output's."""
    *lengths, q_ref, k_ref, v_ref, g_ref, dq_ref, dk_ref, dv_ref = refs

    q_RxTxW, k_RxLxW, v_RxLxW, g_RxTxW = q_ref[...], k_ref[...], v_ref[...], g_ref[...]
    k_RxWxL, dtype = k_RxLxW.swapaxes(1, 2), q_RxTxW.dtype
    heads, hide = _heads(q_RxTxW.shape[2], E), _hide(lengths, causal)
    scores = [_dot(k_RxLxW, _only(own, q_RxTxW), 2) for _, own in heads]
    g_shares = [_dot(v_RxLxW, _only(own, g_RxTxW), 2) for _, own in heads]
    parts = [_softmax(hide(score), E) for score in scores]
    shares, g_scores = [part * scale for part, scale in parts], []
    for share_RxLxT, g_share_RxLxT in zip(shares, g_shares, strict=True):
        mean_Rx1xT = jnp.sum(share_RxLxT * g_share_RxLxT, axis=1, keepdims=True)
        g_scores.append((share_RxLxT * (g_share_RxLxT - mean_Rx1xT)).astype(dtype))
    dv = [_dot(share.astype(dtype), g_RxTxW, 1) for share in shares]
    dk = [_dot(g_score, q_RxTxW, 1) for g_score in g_scores]
    dq = [_dot(k_RxWxL[:, lanes], g, 1) for (lanes, _), g in zip(heads, g_scores, strict=True)]
    dq_ref[...] = (jnp.concatenate(dq, axis=1) * E**-0.5).astype(dtype).swapaxes(1, 2)
    dk_ref[...] = (_join(heads, dk) * E**-0.5).astype(dtype)
    dv_ref[...] = _join(heads, dv).astype(dtype)


def _heads(W: int, E: int) -> list[tuple[slice, Array]]:
    """The place of each head of a block: its lanes as a slice and as a mask."""
    lane_1x1xW = lax.broadcasted_iota(jnp.int32, (1, 1, W), 2)
    return [
        (slice(first, first + E), (lane_1x1xW >= first) & (lane_1x1xW < first + E))
        for first in range(0, W, E)
    ]


def _only(own_1x1xW: Array, x: Array) -> Array:
    return jnp.where(own_1x1xW, x, jnp.zeros((), x.dtype))


def _join(heads: list[tuple[slice, Array]], results: list[Array]) -> Array:
    """From the result of each head, all lanes wide, the lanes that are its own."""
    joined = results[0]
    for (_, own_1x1xW), result in zip(heads[1:], results[1:], strict=True):
        joined = jnp.where(own_1x1xW, result, joined)
    return joined


def _hide(lengths: list[Any], causal: bool) -> Callable[[Array], Array]:
    """A function that gives scores [R, L, T] of hidden keys the least value.

    Args:
      lengths: a reference to the lengths of all rows, or none.
      causal: whether keys after the query are hidden.
    """

    def hide(score_RxLxT: Array) -> Array:
        R, L, T = score_RxLxT.shape
        key_LxT = lax.broadcasted_iota(jnp.int32, (L, T), 0)
        for ref in lengths:
            first = pl.program_id(0) * R
            hidden = [key_LxT >= ref[0, first + row] for row in range(R)]
            rows = [jnp.where(hidden[row], _NEVER, score_RxLxT[row]) for row in range(R)]
            score_RxLxT = jnp.stack(rows)
        if causal:
            later_LxT = key_LxT > lax.broadcasted_iota(jnp.int32, (L, T), 1)
            score_RxLxT = jnp.where(later_LxT, _NEVER, score_RxLxT)
        return score_RxLxT

    return hide


_NEVER = -1e30  # minus infinity would turn into NaN where a block has nothing else


def _softmax(score_RxLxT: Array, E: int) -> tuple[Array, Array]:
    """The softmax over keys in two factors: [R, L, T], and [R, 1, T] that makes its sums 1."""
    below_RxLxT = score_RxLxT - jnp.max(score_RxLxT, axis=1, keepdims=True)
    part_RxLxT = jnp.exp2(below_RxLxT * (E**-0.5 * math.log2(math.e)))
    return part_RxLxT, 1.0 / jnp.sum(part_RxLxT, axis=1, keepdims=True)


def _dot(x: Array, y: Array, contract_y: int) -> Array:
    """Float32 products of matrices over the last axis of x and axis `contract_y` of y."""
    dimensions = ((2,), (contract_y,)), ((0,), (0,))
    return lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)
