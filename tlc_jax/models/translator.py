"""The pre-norm encoder-decoder Transformer for translation, and how it decodes one token at a time.

The blocks are the encoder's. Source embedding, target embedding and output projection are one table, as in
tensor2tensor. Where that differs from our encoder, the encoder's choice stands: learned positions, GELU, normalized
embeddings, no dropout on attention probabilities.

Shapes are named as in `blocks.py`, with S source positions, T target positions, K hypotheses (beams), and P for
the positions of all hypotheses, T x K of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from tlc_jax.models.layers import Attention, Embedding, FeedForward, Shape, Stack, layer_norm
from tlc_jax.models.numerics import affine, dropout


class DecoderBlock(nnx.Module):
    """A layer that attends to the target so far, then to the source."""

    def __init__(self, shape: Shape, rngs: nnx.Rngs):
        self.dropout = shape.dropout
        self.attention_norm = layer_norm(shape, rngs)
        self.attention = Attention(shape, rngs)
        self.cross_norm = layer_norm(shape, rngs)
        self.cross = Attention(shape, rngs)
        self.ffn_norm = layer_norm(shape, rngs)
        self.ffn = FeedForward(shape, rngs)

    def __call__(
        self,
        x_BxTxD: jax.Array,
        key: jax.Array | None,
        memory_BxSxD: jax.Array,
        mask_Bx1x1xS: jax.Array,
    ) -> jax.Array:
        key_self, key_cross, key_ffn = (
            (None, None, None) if key is None else jax.random.split(key, 3)
        )
        y_BxTxD = self.attention(self.attention_norm(x_BxTxD), None, causal=True)
        x_BxTxD = x_BxTxD + dropout(key_self, y_BxTxD, self.dropout)
        y_BxTxD = self.cross.attend(
            self.cross_norm(x_BxTxD), *self.cross.keys_and_values(memory_BxSxD), mask_Bx1x1xS
        )
        x_BxTxD = x_BxTxD + dropout(key_cross, y_BxTxD, self.dropout)
        y_BxTxD = self.ffn(self.ffn_norm(x_BxTxD))
        return x_BxTxD + dropout(key_ffn, y_BxTxD, self.dropout)

    def step(
        self,
        x_BxKxD: jax.Array,
        cache: LayerCache,
        own_Bx1xKxP: jax.Array,
        mask_Bx1x1xS: jax.Array,
        t: jax.Array,
    ) -> tuple[jax.Array, LayerCache]:
        """One more position of every hypothesis; `own` is true at the keys that are a hypothesis' own past."""
        y_BxKxD = self.attention_norm(x_BxKxD)
        k_BxKxHxE, v_BxKxHxE = self.attention.keys_and_values(y_BxKxD)
        place = t * x_BxKxD.shape[1]
        k_BxHxExP = jax.lax.dynamic_update_slice_in_dim(
            cache.k_BxHxExP, k_BxKxHxE.transpose(0, 2, 3, 1), place, 3
        )
        v_BxHxPxE = jax.lax.dynamic_update_slice_in_dim(
            cache.v_BxHxPxE, v_BxKxHxE.swapaxes(1, 2), place, 2
        )
        x_BxKxD = x_BxKxD + self.attention.attend_cached(y_BxKxD, k_BxHxExP, v_BxHxPxE, own_Bx1xKxP)
        y_BxKxD = self.cross.attend_cached(
            self.cross_norm(x_BxKxD), cache.memory_k_BxHxExS, cache.memory_v_BxHxSxE, mask_Bx1x1xS
        )
        x_BxKxD = x_BxKxD + y_BxKxD
        x_BxKxD = x_BxKxD + self.ffn(self.ffn_norm(x_BxKxD))
        return x_BxKxD, cache._replace(k_BxHxExP=k_BxHxExP, v_BxHxPxE=v_BxHxPxE)


class LayerCache(NamedTuple):
    """Keys and values that a decoder layer has seen: of the target, and of the source.

    Keys lie with their positions last: as the right-hand sides of products XLA's CPU backend reads them so at 2.6 times
    the speed.
    """

    k_BxHxExP: jax.Array
    v_BxHxPxE: jax.Array
    memory_k_BxHxExS: jax.Array
    memory_v_BxHxSxE: jax.Array


class Cache(NamedTuple):
    """What decoding carries from one position to the next."""

    layers: tuple[LayerCache, ...]
    mask_Bx1x1xS: jax.Array


class Translator(nnx.Module):
    """Source tokens and the target so far to logits of the next target token."""

    def __init__(self, vocab_size: int, shape: Shape, rngs: nnx.Rngs):
        self.shape = shape
        # Logits are never rounded to bfloat16: neighboring tokens of a large vocabulary would tie.
        self.output_matmul = "float32" if shape.matmul == "float32" else "mix"
        self.embedding = Embedding(vocab_size, shape, rngs)
        self.encoder = Stack(shape, rngs)
        self.encoder_norm = layer_norm(shape, rngs)
        self.decoder = Stack(shape, rngs, DecoderBlock)
        self.decoder_norm = layer_norm(shape, rngs)
        self.output_bias = nnx.Param(jnp.zeros((vocab_size,), jnp.float32))

    def __call__(
        self,
        source_BxS: jax.Array,
        mask_BxS: jax.Array,
        inputs_BxT: jax.Array,
        key: jax.Array | None = None,
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
            k_BxHxExP = jnp.zeros((B, H, E, length * beams), k_BxSxHxE.dtype)
            v_BxHxPxE = jnp.zeros((B, H, length * beams, E), v_BxSxHxE.dtype)
            layers.append(
                LayerCache(
                    k_BxHxExP, v_BxHxPxE, k_BxSxHxE.transpose(0, 2, 3, 1), v_BxSxHxE.swapaxes(1, 2)
                )
            )
        return Cache(tuple(layers), mask_Bx1x1xS)

    def stepper(
        self,
    ) -> Callable[[Cache, jax.Array, jax.Array, jax.Array], tuple[jax.Array, Cache]]:
        """The function of (cache, tokens_BxK, ancestors_BxKxT, t) that decodes one position.

        It returns logits_BxKxV of the token after `tokens`, which stand at position `t`, and the cache with them. Keys
        and values stay where they were written when hypotheses are reordered. Instead, ancestors[b, k, u] says in
        which beam the token at position u of hypothesis k was, and attention over the keys of all beams is masked
        accordingly.

        The layers are taken out of their stack here, outside the loop that the function is for: XLA does not move the
        copies that this takes out of a loop.
        """
        blocks = [*self.decoder.each()]

        def step(
            cache: Cache, tokens_BxK: jax.Array, ancestors_BxKxT: jax.Array, t: jax.Array
        ) -> tuple[jax.Array, Cache]:
            x_BxKxD = self._cast(self.embedding.at(tokens_BxK, t))
            B, K, T = ancestors_BxKxT.shape
            own_BxKxTxK = (ancestors_BxKxT[..., None] == jnp.arange(K)) & (jnp.arange(T) <= t)[
                :, None
            ]
            own_Bx1xKxP = own_BxKxTxK.reshape(B, 1, K, T * K)
            layers = []
            for block, layer in zip(blocks, cache.layers, strict=True):
                x_BxKxD, layer = block.step(x_BxKxD, layer, own_Bx1xKxP, cache.mask_Bx1x1xS, t)
                x_BxKxD = self._cast(x_BxKxD)
                layers.append(layer)
            return self._logits(x_BxKxD), cache._replace(layers=tuple(layers))

        return step

    def _cast(self, x: jax.Array) -> jax.Array:
        return x.astype(jnp.bfloat16) if self.shape.matmul == "bfloat16" else x

    def _logits(self, x: jax.Array) -> jax.Array:
        x = self.decoder_norm(x)
        return affine(
            x,
            self.embedding.token[...],
            self.output_bias[...],
            self.output_matmul,
            kernel_is_OxI=True,
        )
