"""The pre-norm encoder-decoder Transformer for translation, and how it decodes one token at a time.

The blocks are the encoder's. Source embedding, target embedding and output projection are one table, as in
tensor2tensor. Where that differs from our encoder, the encoder's choice stands: learned positions, GELU, normalised
embeddings, no dropout on attention probabilities.

Shapes are named as in `blocks.py`, with S source positions, T target positions, and J and K for hypotheses (beams).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from tlc_jax.models.blocks import Attention, Embedding, FeedForward, Shape, Stack, layer_norm
from tlc_jax.models.numerics import affine, dropout


class DecoderBlock(nnx.Module):
    """A layer that attends to the target so far, then to the source."""

    def __init__(self, shape: Shape, rngs: nnx.Rngs):
        self.dropout = shape.dropout
        self.attention_norm = layer_norm(shape.hidden, rngs)
        self.attention = Attention(shape, rngs)
        self.cross_norm = layer_norm(shape.hidden, rngs)
        self.cross = Attention(shape, rngs)
        self.ffn_norm = layer_norm(shape.hidden, rngs)
        self.ffn = FeedForward(shape, rngs)

    def __call__(
        self, x_BxTxD: jax.Array, key: jax.Array | None, memory_BxSxD: jax.Array, mask_Bx1x1xS: jax.Array
    ) -> jax.Array:
        key_self, key_cross, key_ffn = (None, None, None) if key is None else jax.random.split(key, 3)
        y_BxTxD = self.attention(self.attention_norm(x_BxTxD), None, causal=True)
        x_BxTxD = x_BxTxD + dropout(key_self, y_BxTxD, self.dropout)
        y_BxTxD = self.cross.attend(self.cross_norm(x_BxTxD), *self.cross.keys_and_values(memory_BxSxD), mask_Bx1x1xS)
        x_BxTxD = x_BxTxD + dropout(key_cross, y_BxTxD, self.dropout)
        y_BxTxD = self.ffn(self.ffn_norm(x_BxTxD))
        return x_BxTxD + dropout(key_ffn, y_BxTxD, self.dropout)

    def step(
        self, x_BxKxD: jax.Array, cache: LayerCache, own_BxKxTxJ: jax.Array, mask_Bx1x1xS: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, LayerCache]:
        """One more position of every hypothesis; `own` is true at the keys that are a hypothesis' own past."""
        y_BxKxD = self.attention_norm(x_BxKxD)
        k_BxKxHxE, v_BxKxHxE = self.attention.keys_and_values(y_BxKxD)
        k_BxHxTxJxE = jax.lax.dynamic_update_index_in_dim(cache.k_BxHxTxJxE, k_BxKxHxE.swapaxes(1, 2), t, 2)
        v_BxHxTxJxE = jax.lax.dynamic_update_index_in_dim(cache.v_BxHxTxJxE, v_BxKxHxE.swapaxes(1, 2), t, 2)
        B, H, T, J, E = k_BxHxTxJxE.shape
        x_BxKxD = x_BxKxD + self.attention.attend_cached(
            y_BxKxD,
            k_BxHxTxJxE.reshape(B, H, T * J, E),
            v_BxHxTxJxE.reshape(B, H, T * J, E),
            own_BxKxTxJ.reshape(B, 1, J, T * J),
        )
        y_BxKxD = self.cross.attend_cached(
            self.cross_norm(x_BxKxD), cache.memory_k_BxHxSxE, cache.memory_v_BxHxSxE, mask_Bx1x1xS
        )
        x_BxKxD = x_BxKxD + y_BxKxD
        x_BxKxD = x_BxKxD + self.ffn(self.ffn_norm(x_BxKxD))
        return x_BxKxD, cache._replace(k_BxHxTxJxE=k_BxHxTxJxE, v_BxHxTxJxE=v_BxHxTxJxE)


class LayerCache(NamedTuple):
    """Keys and values that a decoder layer has seen: of the target by position and beam, and of the source."""

    k_BxHxTxJxE: jax.Array
    v_BxHxTxJxE: jax.Array
    memory_k_BxHxSxE: jax.Array
    memory_v_BxHxSxE: jax.Array


class Cache(NamedTuple):
    """What decoding carries from one position to the next."""

    layers: tuple[LayerCache, ...]
    mask_Bx1x1xS: jax.Array


class Translator(nnx.Module):
    """Source tokens and the target so far to logits of the next target token."""

    def __init__(self, vocab_size: int, shape: Shape, rngs: nnx.Rngs):
        self.shape = shape
        # Logits are never rounded to bfloat16: neighbouring tokens of a large vocabulary would tie.
        self.output_matmul = "float32" if shape.matmul == "float32" else "mix"
        self.embedding = Embedding(vocab_size, shape, rngs)
        self.encoder = Stack(shape, rngs)
        self.encoder_norm = layer_norm(shape.hidden, rngs)
        self.decoder = Stack(shape, rngs, DecoderBlock)
        self.decoder_norm = layer_norm(shape.hidden, rngs)
        self.output_bias = nnx.Param(jnp.zeros((vocab_size,), jnp.float32))

    def __call__(
        self, source_BxS: jax.Array, mask_BxS: jax.Array, inputs_BxT: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        """Logits_BxTxV: position t predicts the token after inputs[: t + 1].

        Targets are padded at their ends only, so that causality alone hides the padding from real positions.
        """
        key_source, key_target, key_encoder, key_decoder = (
            (None, None, None, None) if key is None else jax.random.split(key, 4)
        )
        memory_BxSxD, mask_Bx1x1xS = self.encode(source_BxS, mask_BxS, key_source, key_encoder)
        x_BxTxD = self._cast(dropout(key_target, self.embedding(inputs_BxT), self.shape.dropout))
        x_BxTxD = self.decoder(x_BxTxD, key_decoder, memory_BxSxD, mask_Bx1x1xS)
        return self._logits(x_BxTxD)

    def encode(
        self,
        source_BxS: jax.Array,
        mask_BxS: jax.Array,
        key_embedding: jax.Array | None = None,
        key_stack: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """The source's vectors, and its mask in the form that attention takes."""
        x_BxSxD = self._cast(dropout(key_embedding, self.embedding(source_BxS), self.shape.dropout))
        mask_Bx1x1xS = mask_BxS[:, None, None, :]
        return self.encoder_norm(self.encoder(x_BxSxD, key_stack, mask_Bx1x1xS)), mask_Bx1x1xS

    def start(self, source_BxS: jax.Array, mask_BxS: jax.Array, beams: int, length: int) -> Cache:
        """The cache before the first target token, with room for `length` tokens of `beams` hypotheses a sentence."""
        memory_BxSxD, mask_Bx1x1xS = self.encode(source_BxS, mask_BxS)
        layers = []
        for block in self.decoder.each():
            k_BxSxHxE, v_BxSxHxE = block.cross.keys_and_values(memory_BxSxD)
            B, _, H, E = k_BxSxHxE.shape
            empty = jnp.zeros((B, H, length, beams, E), k_BxSxHxE.dtype)
            layers.append(LayerCache(empty, empty, k_BxSxHxE.swapaxes(1, 2), v_BxSxHxE.swapaxes(1, 2)))
        return Cache(tuple(layers), mask_Bx1x1xS)

    def step(
        self, cache: Cache, tokens_BxK: jax.Array, ancestors_BxKxT: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, Cache]:
        """Logits_BxKxV of the token after `tokens`, which stand at position `t`.

        Keys and values stay where they were written when hypotheses are reordered. Instead, ancestors[b, k, u] says in
        which beam the token at position u of hypothesis k was, and attention over the keys of all beams is masked
        accordingly.
        """
        x_BxKxD = self._cast(self.embedding.at(tokens_BxK, t))
        T, J = cache.layers[0].k_BxHxTxJxE.shape[2:4]
        own_BxKxTxJ = (ancestors_BxKxT[..., None] == jnp.arange(J)) & (jnp.arange(T) <= t)[:, None]
        layers = []
        for block, layer in zip(self.decoder.each(), cache.layers, strict=True):
            x_BxKxD, layer = block.step(x_BxKxD, layer, own_BxKxTxJ, cache.mask_Bx1x1xS, t)
            x_BxKxD = self._cast(x_BxKxD)
            layers.append(layer)
        return self._logits(x_BxKxD), cache._replace(layers=tuple(layers))

    def _cast(self, x: jax.Array) -> jax.Array:
        return x.astype(jnp.bfloat16) if self.shape.matmul == "bfloat16" else x

    def _logits(self, x: jax.Array) -> jax.Array:
        x = self.decoder_norm(x)
        return affine(x, self.embedding.token[...], self.output_bias[...], self.output_matmul, kernel_is_OxI=True)
