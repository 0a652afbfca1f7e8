"""The pre-norm encoder-decoder Transformer for translation, and how it decodes one token at a time.

The blocks are those of the encoder. Source embedding, target embedding and output projection are
one table, as in tensor2tensor. Elsewhere the encoder's choices stand where tensor2tensor's differ:
learned positions, GELU, normalized embeddings, no dropout on attention probabilities.

Shapes are named as in `layers.py`, with S source positions, T target positions, K hypotheses
(beams), and P = T x K for the positions of all hypotheses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from tlc_jax.models.dropout import split_key
from tlc_jax.models.layers import Block, Embedding, LayerNorm, Shape, Stack


class DecoderBlock(Block):
    """A pre-norm layer that attends to the target so far, then to the source."""

    def __init__(self, shape: Shape, rngs: nnx.Rngs):
        super().__init__(shape, rngs, cross=True)

    def __call__(  # type: ignore[override]
        self, x_BxTxD: Array, key: Array | None, memory_BxSxD: Array, mask_Bx1x1xS: Array
    ) -> Array:
        key_self, key_cross, key_ffn = split_key(key, 3)
        attend_to_target = functools.partial(self.attention, mask_Bx1x1xL=None, causal=True)

        def attend_to_source(y_BxTxD: Array) -> Array:
            k_and_v = self.cross.keys_and_values(memory_BxSxD)
            return self.cross.attend(y_BxTxD, *k_and_v, mask_Bx1x1xS)

        x_BxTxD = self._add(x_BxTxD, attend_to_target, self.attention_norm, key_self)
        x_BxTxD = self._add(x_BxTxD, attend_to_source, self.cross_norm, key_cross)
        return self._add(x_BxTxD, self.ffn, self.ffn_norm, key_ffn)

    def step(
        self, x_BxKxD: Array, cache: LayerCache, own_Bx1xKxP: Array, mask_Bx1x1xS: Array, t: Array
    ) -> tuple[Array, LayerCache]:
        """One more position of every hypothesis.

        Args:
          x_BxKxD: vectors of the position.
          cache: keys and values of the source and of the positions before.
          own_Bx1xKxP: true at the keys of a hypothesis' own past.
          mask_Bx1x1xS: true at real source tokens.
          t: the position.
        """
        y_BxKxD = self.attention_norm(x_BxKxD)
        k_BxKxHxE, v_BxKxHxE = self.attention.keys_and_values(y_BxKxD)
        place, update = t * x_BxKxD.shape[1], jax.lax.dynamic_update_slice_in_dim
        k_BxHxExP = update(cache.k_BxHxExP, k_BxKxHxE.transpose(0, 2, 3, 1), place, 3)
        v_BxHxPxE = update(cache.v_BxHxPxE, v_BxKxHxE.swapaxes(1, 2), place, 2)
        x_BxKxD = x_BxKxD + self.attention.attend_cached(y_BxKxD, k_BxHxExP, v_BxHxPxE, own_Bx1xKxP)
        y_BxKxD = self.cross.attend_cached(
            self.cross_norm(x_BxKxD), cache.memory_k_BxHxExS, cache.memory_v_BxHxSxE, mask_Bx1x1xS
        )
        x_BxKxD = x_BxKxD + y_BxKxD
        x_BxKxD = x_BxKxD + self.ffn(self.ffn_norm(x_BxKxD))
        return x_BxKxD, cache._replace(k_BxHxExP=k_BxHxExP, v_BxHxPxE=v_BxHxPxE)


class LayerCache(NamedTuple):
    """Keys and values of a decoder layer: those of the target so far, and those of the source."""

    # Positions come last in the keys: XLA's CPU backend reads them so, as the right-hand side of a
    # product, at 2.6 times the speed.
    k_BxHxExP: Array
    v_BxHxPxE: Array
    memory_k_BxHxExS: Array
    memory_v_BxHxSxE: Array


class Cache(NamedTuple):
    """The state that decoding carries from one position to the next."""

    layers: tuple[LayerCache, ...]
    mask_Bx1x1xS: Array


Step = Callable[[Cache, Array, Array, Array], tuple[Array, Cache]]


class Translator(nnx.Module):
    """Source tokens and the target so far to logits of the next target token."""

    def __init__(self, vocab_size: int, shape: Shape, rngs: nnx.Rngs):
        self.embedding = Embedding(vocab_size, shape, rngs)
        self.encoder = Stack(shape, rngs)
        self.encoder_norm = LayerNorm(shape, rngs)
        self.decoder = Stack(shape, rngs, DecoderBlock)
        self.decoder_norm = LayerNorm(shape, rngs)
        self.output_bias = nnx.Param(jnp.zeros((vocab_size,), jnp.float32))

    def __call__(
        self, source_BxS: Array, mask_BxS: Array, inputs_BxT: Array, key: Array | None = None
    ) -> Array:
        """Logits_BxTxV: position t predicts the token after inputs[: t + 1]."""
        key_source, key_target, key_encoder, key_decoder = split_key(key, 4)
        memory_BxSxD, mask_Bx1x1xS = self.encode(source_BxS, mask_BxS, key_source, key_encoder)
        x_BxTxD = self.embedding(inputs_BxT, key_target)
        # Targets are padded at their ends only, so causality hides the padding from real positions.
        x_BxTxD = self.decoder.layers(x_BxTxD, key_decoder, memory_BxSxD, mask_Bx1x1xS)
        return self._logits(x_BxTxD)

    def encode(
        self,
        source_BxS: Array,
        mask_BxS: Array,
        key_embedding: Array | None = None,
        key_stack: Array | None = None,
    ) -> tuple[Array, Array]:
        """The source's vectors, and its mask in the form that attention takes."""
        x_BxSxD = self.embedding(source_BxS, key_embedding)
        mask_Bx1x1xS = mask_BxS[:, None, None, :]
        x_BxSxD = self.encoder.layers(x_BxSxD, key_stack, mask_Bx1x1xS)
        return self.encoder_norm(x_BxSxD), mask_Bx1x1xS

    def start(self, source_BxS: Array, mask_BxS: Array, beams: int, length: int) -> Cache:
        """The cache before the first target token.

        Args:
          source_BxS: source tokens.
          mask_BxS: true at real source tokens.
          beams: hypotheses of each sentence.
          length: tokens that a hypothesis may have.
        """
        memory_BxSxD, mask_Bx1x1xS = self.encode(source_BxS, mask_BxS)
        layers = []
        for block in self.decoder.each():
            k_BxSxHxE, v_BxSxHxE = block.cross.keys_and_values(memory_BxSxD)
            B, _, H, E = k_BxSxHxE.shape
            k_BxHxExP = jnp.zeros((B, H, E, length * beams), k_BxSxHxE.dtype)
            v_BxHxPxE = jnp.zeros((B, H, length * beams, E), v_BxSxHxE.dtype)
            k_BxHxExS, v_BxHxSxE = k_BxSxHxE.transpose(0, 2, 3, 1), v_BxSxHxE.swapaxes(1, 2)
            layers.append(LayerCache(k_BxHxExP, v_BxHxPxE, k_BxHxExS, v_BxHxSxE))
        return Cache(tuple(layers), mask_Bx1x1xS)

    def stepper(self) -> Step:
        """The function that decodes one position.

        It takes (cache, tokens_BxK, ancestors_BxKxT, t) and returns logits_BxKxV of the token after
        `tokens`, which stand at position t, and the cache with their keys and values. These stay
        where they were written when hypotheses change places. Instead, ancestors[b, k, u] is the
        beam that held the token at position u of hypothesis k, and the mask of attention over the
        keys of all beams follows from it.
        """
        # Taken out of the stack before the caller's loop: XLA does not move these copies out of it.
        blocks = [*self.decoder.each()]

        def step(
            cache: Cache, tokens_BxK: Array, ancestors_BxKxT: Array, t: Array
        ) -> tuple[Array, Cache]:
            x_BxKxD = self.embedding.at(tokens_BxK, t)
            B, K, T = ancestors_BxKxT.shape
            own_BxKxTxK = ancestors_BxKxT[..., None] == jnp.arange(K)
            own_BxKxTxK &= (jnp.arange(T) <= t)[:, None]
            own_Bx1xKxP = own_BxKxTxK.reshape(B, 1, K, T * K)
            layers = []
            for block, layer in zip(blocks, cache.layers, strict=True):
                y_BxKxD, layer = block.step(x_BxKxD, layer, own_Bx1xKxP, cache.mask_Bx1x1xS, t)
                x_BxKxD = y_BxKxD.astype(x_BxKxD.dtype)
                layers.append(layer)
            return self._logits(x_BxKxD), cache._replace(layers=tuple(layers))

        return step

    def _logits(self, x: Array) -> Array:
        return self.embedding.logits(self.decoder_norm(x), self.output_bias[...])
