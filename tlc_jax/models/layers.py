"""Transformer layers: embedding, attention, feed-forward, and a stack of blocks of them.

Shapes in names: B rows of a batch, L positions, D hidden width, F feed-forward width, H heads, E
head size, A = H x E inner width of attention, N layers, V vocabulary, K predicted positions, C
classes, I and O any input and output width.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from tlc_jax import config
from tlc_jax.core.mesh import split_rows
from tlc_jax.models import numerics
from tlc_jax.models.dropout import Key, dropout, split_key, stacked_keys

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": numerics.gelu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}
"""Activation functions, by `model.activation`."""


@dataclasses.dataclass(frozen=True)
class Shape(config.Model):
    """Settings of a model with all widths filled in, and settings of `impl` for its layers."""

    matmul: str = "float32"
    layer_loop: str = "scan"
    remat: bool = False
    attention: Literal["xla", "cudnn", "pallas"] = "xla"

    @staticmethod
    def of(model: config.Model, impl: config.Impl) -> Shape:
        # Shapes of parameters are asked for before devices are known. What is still `auto` then
        # has the defaults above, which work everywhere.
        names = ("matmul", "layer_loop", "remat", "attention")
        how = {name: value for name in names if (value := getattr(impl, name)) != "auto"}
        return Shape(**dataclasses.asdict(model.filled()), **how)


class Dense(nnx.Module):
    """An affine map of the last axis."""

    def __init__(self, inputs: int, outputs: int, shape: Shape, rngs: nnx.Rngs):
        self.matmul = shape.matmul
        # BERT's fixed 0.02 suits wide models; in narrow ones it lets activations fade.
        init = nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        if shape.init == "normal":
            init = nnx.initializers.truncated_normal(stddev=0.02)
        self.kernel = nnx.Param(init(rngs.params(), (inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((outputs,), jnp.float32))

    def __call__(self, x: Array) -> Array:
        return numerics.affine(x, self.kernel[...], self.bias[...], self.matmul)


class LayerNorm(nnx.LayerNorm):
    """Layer normalization over the last axis, computed in float32 whatever the input's type."""

    def __init__(self, shape: Shape, rngs: nnx.Rngs):
        self.result = jnp.bfloat16 if shape.matmul == "bfloat16" else jnp.float32
        super().__init__(shape.hidden, epsilon=shape.norm_epsilon, rngs=rngs)

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        """The normalized vectors, in the type of the residual stream."""
        scale: Any = self.scale
        bias: Any = self.bias
        return numerics.layer_norm(x, scale[...], bias[...], self.epsilon, self.result)


def sinusoids(length: int, width: int) -> Array:
    """[length, width] sines and cosines of geometrically spaced wavelengths, of mean square 1."""
    frequency = 1000.0 ** -(jnp.arange(width // 2) / (width // 2))
    angle = jnp.arange(length)[:, None] * frequency
    return jnp.sqrt(2.0) * jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)


class Embedding(nnx.Module):
    """Sums and normalizes the embeddings of token, position and, if a model has it, token type.

    A row's tokens have type 0 up to and including the first separator and type 1 after it, as
    BERT's tokenizers number the two texts of a pair. The table of tokens also projects to logits.
    """

    def __init__(self, vocab_size: int, shape: Shape, rngs: nnx.Rngs):
        self.shape = shape
        scale = 0.02 if shape.init == "normal" else shape.hidden**-0.5
        normal = nnx.initializers.truncated_normal(stddev=scale)

        def rows(count: int) -> nnx.Param:
            return nnx.Param(normal(rngs.params(), (count, shape.hidden), jnp.float32))

        self.token = rows(vocab_size)
        if shape.init == "normal":
            self.position = rows(shape.max_length)
        else:
            # Sinusoids tell neighbors apart from the first step, noise does not: small models under
            # small budgets leave the plateau of context-free prediction much sooner.
            self.position = nnx.Param(scale * sinusoids(shape.max_length, shape.hidden))
        if shape.token_types:
            self.token_type = rows(shape.token_types)
        self.norm = LayerNorm(shape, rngs)

    def __call__(self, tokens_BxL: Array, key: Key | None = None) -> Array:
        """x_BxLxD in the type of the residual stream; a key turns dropout on."""
        x_BxLxD = self.token[...][tokens_BxL] + self.position[...][: tokens_BxL.shape[1]]
        if self.shape.token_types:
            is_separator_BxL = (tokens_BxL == self.shape.separator).astype(jnp.int32)
            before_BxL = jnp.cumsum(is_separator_BxL, axis=1) - is_separator_BxL
            types_BxL = jnp.minimum(before_BxL, self.shape.token_types - 1)
            x_BxLxD = x_BxLxD + self.token_type[...][types_BxL]
        return self._finished(x_BxLxD, key)

    def at(self, tokens_BxK: Array, position: Array) -> Array:
        """Embeddings of tokens that all stand at one position."""
        return self._finished(self.token[...][tokens_BxK] + self.position[...][position], None)

    def _finished(self, x: Array, key: Key | None) -> Array:
        return dropout(key, self.norm(x), self.shape.dropout)

    def logits(self, x: Array, bias_V: Array) -> Array:
        """Logits over the vocabulary of vectors on the last axis."""
        # Never rounded to bfloat16: neighboring tokens of a large vocabulary would tie.
        precision = "float32" if self.shape.matmul == "float32" else "mix"
        return numerics.affine(x, self.token[...], bias_V, precision, kernel_is_OxI=True)


class Attention(nnx.Module):
    """Multi-head attention, to the same positions or to those of another sequence.

    Attention probabilities are not dropped out: the fused kernels behind
    `jax.nn.dot_product_attention` cannot do it, and dropout of the layer's output serves the same
    end.
    """

    def __init__(self, shape: Shape, rngs: nnx.Rngs):
        self.heads, self.implementation = shape.heads, shape.attention
        inner = shape.heads * shape.head_size
        self.query = Dense(shape.hidden, inner, shape, rngs)
        self.key = Dense(shape.hidden, inner, shape, rngs)
        self.value = Dense(shape.hidden, inner, shape, rngs)
        self.output = Dense(inner, shape.hidden, shape, rngs)

    def __call__(self, x_BxLxD: Array, mask_Bx1x1xL: Array | None, causal: bool = False) -> Array:
        """Self-attention; if `causal`, of each position to itself and earlier ones only."""
        return self.attend(x_BxLxD, *self.keys_and_values(x_BxLxD), mask_Bx1x1xL, causal)

    def keys_and_values(self, x_BxLxD: Array) -> tuple[Array, Array]:
        """Keys and values for `attend`, each [B, L, H, E], of the sequence to attend to."""
        return self._split(self.key(x_BxLxD)), self._split(self.value(x_BxLxD))

    def attend(
        self,
        x_BxTxD: Array,
        k_BxLxHxE: Array,
        v_BxLxHxE: Array,
        mask_Bx1x1xL: Array | None,
        causal: bool = False,
    ) -> Array:
        """Attention of T positions to L positions, those where `mask` is true (None: all)."""
        q_BxTxHxE = self._split(self.query(x_BxTxD))
        lengths_B = None
        if self.implementation != "xla" and mask_Bx1x1xL is not None:
            # cuDNN takes masks of full size only, as a bias. Rows are padded at their ends, so
            # lengths say the same; rows of padding alone, which fill up a batch, have length 1.
            lengths_B = jnp.maximum(jnp.sum(mask_Bx1x1xL, axis=(1, 2, 3), dtype=jnp.int32), 1)
        # The name tells a plan and a profile which kernels these are.
        with jax.named_scope("attention"):
            if self.implementation == "pallas":
                # Imported late, because it takes a second and only TPUs need it.
                from tlc_jax.models.tpu_attention import attention

                y_BxTxHxE = attention(q_BxTxHxE, k_BxLxHxE, v_BxLxHxE, lengths_B, causal)
            else:
                padding: dict[str, Any] = {"mask": mask_Bx1x1xL}
                if lengths_B is not None:
                    # All queries count. Mapped over seeds, JAX wants an axis of them here as well.
                    queries_B = 0 * lengths_B + q_BxTxHxE.shape[1]
                    padding = {"key_value_seq_lengths": lengths_B, "query_seq_lengths": queries_B}
                y_BxTxHxE = jax.nn.dot_product_attention(
                    q_BxTxHxE,
                    k_BxLxHxE,
                    v_BxLxHxE,
                    is_causal=causal,
                    implementation=self.implementation,
                    **padding,
                )
        return self.output(y_BxTxHxE.reshape(*x_BxTxD.shape[:2], -1))

    def attend_cached(
        self, x_BxTxD: Array, k_BxHxExL: Array, v_BxHxLxE: Array, mask_Bx1xTxL: Array
    ) -> Array:
        """Like `attend`, with keys and values head by head, as decoding keeps them."""
        q_BxHxTxE = self._split(self.query(x_BxTxD)).swapaxes(1, 2)
        # The softmax needs float32 scores: in bfloat16 close ones would tie.
        score_BxHxTxL = jnp.einsum(
            "bhte,bhel->bhtl", q_BxHxTxE, k_BxHxExL, preferred_element_type=jnp.float32
        )
        score_BxHxTxL = score_BxHxTxL * k_BxHxExL.shape[-2] ** -0.5
        score_BxHxTxL = jnp.where(mask_Bx1xTxL, score_BxHxTxL, -jnp.inf)
        share_BxHxTxL = jax.nn.softmax(score_BxHxTxL).astype(v_BxHxLxE.dtype)
        y_BxHxTxE = jnp.einsum("bhtl,bhle->bhte", share_BxHxTxL, v_BxHxLxE)
        return self.output(y_BxHxTxE.swapaxes(1, 2).reshape(*x_BxTxD.shape[:2], -1))

    def _split(self, x_BxLxA: Array) -> Array:
        B, L, A = x_BxLxA.shape
        return x_BxLxA.reshape(B, L, self.heads, A // self.heads)


class FeedForward(nnx.Module):
    """Two affine maps with an activation between them."""

    def __init__(self, shape: Shape, rngs: nnx.Rngs):
        self.activation = ACTIVATIONS[shape.activation]
        self.up = Dense(shape.hidden, shape.ffn, shape, rngs)
        self.down = Dense(shape.ffn, shape.hidden, shape, rngs)

    def __call__(self, x_BxLxD: Array) -> Array:
        return self.down(self.activation(self.up(x_BxLxD)))


class Block(nnx.Module):
    """One Transformer layer, whose sublayers normalize their inputs (pre-norm) or their sums."""

    def __init__(self, shape: Shape, rngs: nnx.Rngs, cross: bool = False):
        """Makes the sublayers; `cross` adds attention to another sequence, for decoders."""
        self.dropout = shape.dropout
        self.pre_norm = shape.norm == "pre"
        # Each sublayer draws from `rngs`, so this order decides every fresh parameter.
        self.attention_norm = LayerNorm(shape, rngs)
        self.attention = Attention(shape, rngs)
        if cross:
            self.cross_norm = LayerNorm(shape, rngs)
            self.cross = Attention(shape, rngs)
        self.ffn_norm = LayerNorm(shape, rngs)
        self.ffn = FeedForward(shape, rngs)

    def __call__(self, x_BxLxD: Array, key: Key | None, mask_Bx1x1xL: Array | None) -> Array:
        key_attention, key_ffn = split_key(key, 2)
        attention = functools.partial(self.attention, mask_Bx1x1xL=mask_Bx1x1xL)
        x_BxLxD = self._add(x_BxLxD, attention, self.attention_norm, key_attention)
        return self._add(x_BxLxD, self.ffn, self.ffn_norm, key_ffn)

    def _add(
        self, x_BxLxD: Array, sublayer: Callable[..., Array], norm: LayerNorm, key: Key | None
    ) -> Array:
        if self.pre_norm:
            return x_BxLxD + dropout(key, sublayer(norm(x_BxLxD)), self.dropout)
        return norm(x_BxLxD + dropout(key, sublayer(x_BxLxD), self.dropout))


SHARED_BY = {
    "none": (),
    "attention": ("attention", "attention_norm", "cross", "cross_norm"),
    "all": ("attention", "attention_norm", "cross", "cross_norm", "ffn", "ffn_norm"),
}
"""Sublayers with one set of parameters for all layers, by `model.share`."""


class Stack(nnx.Module):
    """N blocks, their parameters stacked on a leading axis (of length 1 where layers share one)."""

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

    def layers(self, x_BxLxD: Array, key: Key | None, *context: Array | None) -> Array:
        """Runs all layers; every block takes `context` after its input and its key."""
        graph, shared, own = self._parts()
        keys_N = stacked_keys(key, self.shape.layers)

        def layer(x_BxLxD: Array, own_and_key: tuple[nnx.State, Key | None]) -> tuple[Array, None]:
            own, key = own_and_key
            block = nnx.merge(graph, shared, own)
            return block(split_rows(x_BxLxD), key, *context).astype(x_BxLxD.dtype), None

        if self.shape.remat:
            layer = jax.checkpoint(layer)
        if self.shape.layer_loop == "scan":
            x_BxLxD, _ = jax.lax.scan(layer, x_BxLxD, (own, keys_N), length=self.shape.layers)
            return split_rows(x_BxLxD)
        for index in range(self.shape.layers):
            x_BxLxD, _ = layer(x_BxLxD, _row((own, keys_N), index))
        return split_rows(x_BxLxD)

    def each(self) -> Iterator[Any]:
        """The blocks, one by one."""
        graph, shared, own = self._parts()
        for index in range(self.shape.layers):
            yield nnx.merge(graph, shared, _row(own, index))

    def _parts(self) -> tuple[Any, nnx.State, nnx.State]:
        """The graph of a block, the parameters that all layers share, and the stacked others."""
        parts: Any = nnx.split(self.blocks, lambda path, _: path[0] in self.shared, ...)
        graph, shared, own = parts
        return graph, _row(shared, 0), own


def _row(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)
