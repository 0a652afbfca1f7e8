"""Transformer blocks: attention and feed-forward layers, each normalized at its input (pre-norm) or after its sum.

Shapes in names: B batch, L positions, D hidden width, F feed-forward width, H heads, E head size, A = H x E attention's
inner width, N layers, V vocabulary, K predicted positions, C classes, I and O any input and output width.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tlc_jax import config
from tlc_jax.core.mesh import split_rows
from tlc_jax.models.numerics import affine, dropout

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}
"""By `model.activation`."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """A model's dimensions with the defaults filled in, and how its arithmetic is done."""

    layers: int
    hidden: int
    heads: int
    head_size: int
    ffn: int
    max_length: int
    dropout: float
    share: str
    init: str
    norm: str
    norm_epsilon: float
    activation: str
    token_types: int
    separator: int
    matmul: str = "float32"
    layer_loop: str = "scan"
    remat: bool = False

    @staticmethod
    def of(model: config.Model, impl: config.Impl) -> Shape:
        widths = model.filled()
        return Shape(
            layers=model.layers,
            hidden=model.hidden,
            heads=widths.heads,
            head_size=widths.head_size,
            ffn=widths.ffn,
            max_length=model.max_length,
            dropout=model.dropout,
            share=model.share,
            init=model.init,
            norm=model.norm,
            norm_epsilon=model.norm_epsilon,
            activation=model.activation,
            token_types=model.token_types,
            separator=model.separator,
            matmul=impl.matmul,
            layer_loop=impl.layer_loop,
            remat=impl.remat,
        )


def kernel_init(shape: Shape) -> Callable[..., jax.Array]:
    """The initializer of kernels: BERT's fixed 0.02, or one that keeps activations' scale in narrow models."""
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


def layer_norm(shape: Shape, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer normalization over the last axis, computed in float32 whatever comes in."""
    return nnx.LayerNorm(shape.hidden, epsilon=shape.norm_epsilon, dtype=jnp.float32, rngs=rngs)


def sinusoids(length: int, width: int) -> jax.Array:
    """Sines and cosines of geometrically spaced wavelengths, [length, width], of mean square 1."""
    frequency = 1000.0 ** -(jnp.arange(width // 2) / (width // 2))
    angle = jnp.arange(length)[:, None] * frequency
    return jnp.sqrt(2.0) * jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)


class Embedding(nnx.Module):
    """Token, learned position and, where a model has them, token-type embeddings, summed and normalized.

    A row's tokens are of type 0 up to and including the first separator and of type 1 from there on, as BERT's
    tokenizers number the two texts of a pair.

    With `init="fan_in"` positions start as sinusoids instead of noise (and are learned from there): neighbors are then
    told apart from the first step, and small models under small budgets leave the plateau of context-free prediction
    much sooner.
    """

    def __init__(self, vocab_size: int, shape: Shape, rngs: nnx.Rngs):
        scale = 0.02 if shape.init == "normal" else shape.hidden**-0.5
        normal = nnx.initializers.truncated_normal(stddev=scale)
        self.token = nnx.Param(normal(rngs.params(), (vocab_size, shape.hidden), jnp.float32))
        if shape.init == "normal":
            self.position = nnx.Param(
                normal(rngs.params(), (shape.max_length, shape.hidden), jnp.float32)
            )
        else:
            self.position = nnx.Param(scale * sinusoids(shape.max_length, shape.hidden))
        self.types, self.separator = shape.token_types, shape.separator
        if self.types:
            self.token_type = nnx.Param(
                normal(rngs.params(), (self.types, shape.hidden), jnp.float32)
            )
        self.norm = layer_norm(shape, rngs)

    def __call__(self, tokens_BxL: jax.Array) -> jax.Array:
        x_BxLxD = self.token[...][tokens_BxL] + self.position[...][: tokens_BxL.shape[1]]
        if self.types:
            x_BxLxD = x_BxLxD + self.token_type[...][self._types(tokens_BxL)]
        return self.norm(x_BxLxD)

    def _types(self, tokens_BxL: jax.Array) -> jax.Array:
        is_separator_BxL = (tokens_BxL == self.separator).astype(jnp.int32)
        before_BxL = jnp.cumsum(is_separator_BxL, axis=1) - is_separator_BxL
        return jnp.minimum(before_BxL, self.types - 1)

    def at(self, tokens: jax.Array, position: jax.Array) -> jax.Array:
        """Embeddings of tokens that all stand at one position."""
        return self.norm(self.token[...][tokens] + self.position[...][position])


class Attention(nnx.Module):
    """Multi-head attention, to the same positions or to those of another sequence.

    Attention probabilities are not dropped out: the fused kernels behind `jax.nn.dot_product_attention` have no such
    option, and dropping the layer's output serves the same end.
    """

    def __init__(self, shape: Shape, rngs: nnx.Rngs):
        self.heads = shape.heads
        inner = shape.heads * shape.head_size
        self.query = Dense(shape.hidden, inner, shape, rngs)
        self.key = Dense(shape.hidden, inner, shape, rngs)
        self.value = Dense(shape.hidden, inner, shape, rngs)
        self.output = Dense(inner, shape.hidden, shape, rngs)

    def __call__(
        self, x_BxLxD: jax.Array, mask_Bx1x1xL: jax.Array | None, causal: bool = False
    ) -> jax.Array:
        """Self-attention; `causal`: to earlier positions and the own one only."""
        return self.attend(x_BxLxD, *self.keys_and_values(x_BxLxD), mask_Bx1x1xL, causal)

    def keys_and_values(self, x_BxLxD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What `attend` takes, [B, L, H, E] each, of the sequence that is attended to."""
        return self._split(self.key(x_BxLxD)), self._split(self.value(x_BxLxD))

    def attend(
        self,
        x_BxTxD: jax.Array,
        k_BxLxHxE: jax.Array,
        v_BxLxHxE: jax.Array,
        mask_Bx1x1xL: jax.Array | None,
        causal: bool = False,
    ) -> jax.Array:
        """Attention of the T positions of `x` to L positions; `mask` is true at those that count (None: all)."""
        q_BxTxHxE = self._split(self.query(x_BxTxD))
        y_BxTxHxE = jax.nn.dot_product_attention(
            q_BxTxHxE, k_BxLxHxE, v_BxLxHxE, mask=mask_Bx1x1xL, is_causal=causal
        )
        return self.output(y_BxTxHxE.reshape(*x_BxTxD.shape[:2], -1))

    def attend_cached(
        self,
        x_BxTxD: jax.Array,
        k_BxHxExL: jax.Array,
        v_BxHxLxE: jax.Array,
        mask_Bx1xTxL: jax.Array,
    ) -> jax.Array:
        """As `attend`, with keys and values head by head, as decoding keeps them; softmax in float32."""
        q_BxHxTxE = self._split(self.query(x_BxTxD)).swapaxes(1, 2)
        score_BxHxTxL = jnp.einsum(
            "bhte,bhel->bhtl", q_BxHxTxE, k_BxHxExL, preferred_element_type=jnp.float32
        )
        score_BxHxTxL = jnp.where(
            mask_Bx1xTxL, score_BxHxTxL * k_BxHxExL.shape[-2] ** -0.5, -jnp.inf
        )
        share_BxHxTxL = jax.nn.softmax(score_BxHxTxL).astype(v_BxHxLxE.dtype)
        y_BxHxTxE = jnp.einsum("bhtl,bhle->bhte", share_BxHxTxL, v_BxHxLxE)
        return self.output(y_BxHxTxE.swapaxes(1, 2).reshape(*x_BxTxD.shape[:2], -1))

    def _split(self, x_BxLxA: jax.Array) -> jax.Array:
        B, L, A = x_BxLxA.shape
        return x_BxLxA.reshape(B, L, self.heads, A // self.heads)


class FeedForward(nnx.Module):
    """Two affine maps with an activation between them."""

    def __init__(self, shape: Shape, rngs: nnx.Rngs):
        self.activation = shape.activation
        self.up = Dense(shape.hidden, shape.ffn, shape, rngs)
        self.down = Dense(shape.ffn, shape.hidden, shape, rngs)

    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        return self.down(ACTIVATIONS[self.activation](self.up(x_BxLxD)))


class Block(nnx.Module):
    """One Transformer layer."""

    def __init__(self, shape: Shape, rngs: nnx.Rngs):
        self.dropout = shape.dropout
        self.pre_norm = shape.norm == "pre"
        self.attention_norm = layer_norm(shape, rngs)
        self.attention = Attention(shape, rngs)
        self.ffn_norm = layer_norm(shape, rngs)
        self.ffn = FeedForward(shape, rngs)

    def __call__(
        self, x_BxLxD: jax.Array, key: jax.Array | None, mask_Bx1x1xL: jax.Array | None
    ) -> jax.Array:
        key_attention, key_ffn = (None, None) if key is None else jax.random.split(key)
        attention = functools.partial(self.attention, mask_Bx1x1xL=mask_Bx1x1xL)
        x_BxLxD = self._add(x_BxLxD, attention, self.attention_norm, key_attention)
        return self._add(x_BxLxD, self.ffn, self.ffn_norm, key_ffn)

    def _add(
        self,
        x_BxLxD: jax.Array,
        sublayer: Callable[..., jax.Array],
        norm: nnx.LayerNorm,
        key: jax.Array | None,
    ) -> jax.Array:
        if self.pre_norm:
            return x_BxLxD + dropout(key, sublayer(norm(x_BxLxD)), self.dropout)
        return norm(x_BxLxD + dropout(key, sublayer(x_BxLxD), self.dropout))


SHARED_BY = {
    "none": (),
    "attention": ("attention", "attention_norm", "cross", "cross_norm"),
    "all": ("attention", "attention_norm", "cross", "cross_norm", "ffn", "ffn_norm"),
}
"""Which sub-layers have one set of parameters for all layers, by `model.share`."""


class Stack(nnx.Module):
    """N blocks whose parameters are stacked on a leading axis (of length 1 where the layers share them)."""

    def __init__(
        self, shape: Shape, rngs: nnx.Rngs, block: Callable[[Shape, nnx.Rngs], Any] = Block
    ):
        self.shape = shape

        @nnx.split_rngs(splits=shape.layers)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def create(rngs: nnx.Rngs) -> Any:
            return block(shape, rngs)

        graph, state = nnx.split(create(rngs))
        self.shared = tuple(name for name in SHARED_BY[shape.share] if name in state)
        for name in self.shared:
            state[name] = jax.tree.map(lambda leaf: leaf[:1], state[name])
        self.blocks = nnx.merge(graph, state)

    def __call__(
        self, x_BxLxD: jax.Array, key: jax.Array | None, *context: jax.Array | None
    ) -> jax.Array:
        """All layers, one after the other; `context` is what every block takes after its input and its key."""
        graph, shared, own = self._parts()
        keys_N = None if key is None else jax.random.split(key, self.shape.layers)

        def layer(
            x_BxLxD: jax.Array, own_and_key: tuple[nnx.State, jax.Array | None]
        ) -> tuple[jax.Array, None]:
            own, key = own_and_key
            block = nnx.merge(graph, shared, own)
            return block(split_rows(x_BxLxD), key, *context).astype(x_BxLxD.dtype), None

        if self.shape.remat:
            layer = jax.checkpoint(layer)
        if self.shape.layer_loop == "scan":
            return split_rows(
                jax.lax.scan(layer, x_BxLxD, (own, keys_N), length=self.shape.layers)[0]
            )
        for index in range(self.shape.layers):
            x_BxLxD, _ = layer(
                x_BxLxD, jax.tree.map(lambda leaf, index=index: leaf[index], (own, keys_N))
            )
        return split_rows(x_BxLxD)

    def each(self) -> Iterator[Any]:
        """The blocks, one by one."""
        graph, shared, own = self._parts()
        for index in range(self.shape.layers):
            yield nnx.merge(graph, shared, jax.tree.map(lambda leaf, index=index: leaf[index], own))

    def _parts(self) -> tuple[Any, nnx.State, nnx.State]:
        """The graph of a block, the parameters that all layers share, and those of each, stacked."""
        parts: Any = nnx.split(self.blocks, lambda path, _: path[0] in self.shared, ...)
        graph, shared, own = parts
        return graph, jax.tree.map(lambda leaf: leaf[0], shared), own
