"""Transformer blocks in pre-norm form: attention and feed-forward layers, each normalised at its input.

Shapes in names: B batch, L positions, D hidden width, F feed-forward width, H heads, E head size, N layers,
V vocabulary, K predicted positions, C classes, I and O any input and output width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tlc_jax import config
from tlc_jax.models.numerics import affine, dropout

HEAD_SIZE = 64
NORM_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Shape:
    """A model's dimensions with the defaults filled in, and how its arithmetic is done."""

    layers: int
    hidden: int
    heads: int
    ffn: int
    max_length: int
    dropout: float
    share: str
    init: str
    matmul: str = "float32"
    layer_loop: str = "scan"
    remat: bool = False

    @staticmethod
    def of(model: config.Model, impl: config.Impl) -> Shape:
        return Shape(
            layers=model.layers,
            hidden=model.hidden,
            heads=model.heads or model.hidden // HEAD_SIZE,
            ffn=model.ffn or 4 * model.hidden,
            max_length=model.max_length,
            dropout=model.dropout,
            share=model.share,
            init=model.init,
            matmul=impl.matmul,
            layer_loop=impl.layer_loop,
            remat=impl.remat,
        )


def kernel_init(shape: Shape) -> Callable[..., jax.Array]:
    """The initialiser of kernels: BERT's fixed 0.02, or one that keeps activations' scale in narrow models."""
    if shape.init == "normal":
        return nnx.initializers.truncated_normal(stddev=0.02)
    return nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


class Dense(nnx.Module):
    """An affine map of the last axis."""

    def __init__(self, inputs: int, outputs: int, shape: Shape, rngs: nnx.Rngs):
        self.matmul = shape.matmul
        self.kernel = nnx.Param(kernel_init(shape)(rngs.params(), (inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((outputs,), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        return affine(x, self.kernel[...], self.bias[...], self.matmul)


def layer_norm(width: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer normalisation over the last axis, computed in float32 whatever comes in."""
    return nnx.LayerNorm(width, epsilon=NORM_EPSILON, dtype=jnp.float32, rngs=rngs)


class Attention(nnx.Module):
    """Multi-head self-attention.

    Attention probabilities are not dropped out: the fused kernels behind `jax.nn.dot_product_attention` have no such
    option, and dropping the layer's output serves the same end.
    """

    def __init__(self, shape: Shape, rngs: nnx.Rngs):
        self.heads = shape.heads
        self.query = Dense(shape.hidden, shape.hidden, shape, rngs)
        self.key = Dense(shape.hidden, shape.hidden, shape, rngs)
        self.value = Dense(shape.hidden, shape.hidden, shape, rngs)
        self.output = Dense(shape.hidden, shape.hidden, shape, rngs)

    def __call__(self, x_BxLxD: jax.Array, mask_Bx1x1xL: jax.Array | None) -> jax.Array:
        B, L, D = x_BxLxD.shape

        def split(x: jax.Array) -> jax.Array:
            return x.reshape(B, L, self.heads, D // self.heads)

        q_BxLxHxE, k_BxLxHxE, v_BxLxHxE = (
            split(self.query(x_BxLxD)),
            split(self.key(x_BxLxD)),
            split(self.value(x_BxLxD)),
        )
        y_BxLxHxE = jax.nn.dot_product_attention(q_BxLxHxE, k_BxLxHxE, v_BxLxHxE, mask=mask_Bx1x1xL)
        return self.output(y_BxLxHxE.reshape(B, L, D))


class FeedForward(nnx.Module):
    """Two affine maps with a GELU (its exact form, as in RoBERTa) between them."""

    def __init__(self, shape: Shape, rngs: nnx.Rngs):
        self.up = Dense(shape.hidden, shape.ffn, shape, rngs)
        self.down = Dense(shape.ffn, shape.hidden, shape, rngs)

    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        return self.down(jax.nn.gelu(self.up(x_BxLxD), approximate=False))


class Block(nnx.Module):
    """One pre-norm Transformer layer."""

    def __init__(self, shape: Shape, rngs: nnx.Rngs):
        self.dropout = shape.dropout
        self.attention_norm = layer_norm(shape.hidden, rngs)
        self.attention = Attention(shape, rngs)
        self.ffn_norm = layer_norm(shape.hidden, rngs)
        self.ffn = FeedForward(shape, rngs)

    def __call__(self, x_BxLxD: jax.Array, mask_Bx1x1xL: jax.Array | None, key: jax.Array | None) -> jax.Array:
        key_attention, key_ffn = (None, None) if key is None else jax.random.split(key)
        y_BxLxD = self.attention(self.attention_norm(x_BxLxD), mask_Bx1x1xL)
        x_BxLxD = x_BxLxD + dropout(key_attention, y_BxLxD, self.dropout)
        y_BxLxD = self.ffn(self.ffn_norm(x_BxLxD))
        return x_BxLxD + dropout(key_ffn, y_BxLxD, self.dropout)


SHARED_BY = {
    "none": (),
    "attention": ("attention", "attention_norm"),
    "all": ("attention", "attention_norm", "ffn", "ffn_norm"),
}
"""Which sub-layers have one set of parameters for all layers, by `model.share`."""


class Stack(nnx.Module):
    """N blocks whose parameters are stacked on a leading axis (of length 1 where the layers share them)."""

    def __init__(self, shape: Shape, rngs: nnx.Rngs):
        self.shape = shape
        self.shared = SHARED_BY[shape.share]

        @nnx.split_rngs(splits=shape.layers)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def create(rngs: nnx.Rngs) -> Block:
            return Block(shape, rngs)

        graph, state = nnx.split(create(rngs))
        for name in self.shared:
            state[name] = jax.tree.map(lambda leaf: leaf[:1], state[name])
        self.blocks = nnx.merge(graph, state)

    def __call__(self, x_BxLxD: jax.Array, mask_Bx1x1xL: jax.Array | None, key: jax.Array | None) -> jax.Array:
        parts: Any = nnx.split(self.blocks, lambda path, _: path[0] in self.shared, ...)
        graph, shared, own = parts
        shared = jax.tree.map(lambda leaf: leaf[0], shared)
        keys_N = None if key is None else jax.random.split(key, self.shape.layers)

        def layer(x_BxLxD: jax.Array, own_and_key: tuple[nnx.State, jax.Array | None]) -> tuple[jax.Array, None]:
            own, key = own_and_key
            block: Block = nnx.merge(graph, shared, own)
            return block(x_BxLxD, mask_Bx1x1xL, key).astype(x_BxLxD.dtype), None

        if self.shape.remat:
            layer = jax.checkpoint(layer)
        if self.shape.layer_loop == "scan":
            return jax.lax.scan(layer, x_BxLxD, (own, keys_N), length=self.shape.layers)[0]
        for index in range(self.shape.layers):
            x_BxLxD, _ = layer(x_BxLxD, jax.tree.map(lambda leaf, index=index: leaf[index], (own, keys_N)))
        return x_BxLxD
