"""The encoder, RoBERTa's in pre-norm form or BERT's, and its two heads.

Shapes are named as in `layers.py`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from tlc_jax.core.mesh import split_rows
from tlc_jax.models.dropout import Key, dropout, split_key
from tlc_jax.models.layers import ACTIVATIONS, Dense, Embedding, LayerNorm, Shape, Stack


class Encoder(Stack):
    """Tokens to contextual vectors: a stack of blocks after an embedding."""

    def __init__(self, vocab_size: int, shape: Shape, rngs: nnx.Rngs):
        # The embedding comes first, because the order of draws decides the fresh parameters.
        self.embedding = Embedding(vocab_size, shape, rngs)
        super().__init__(shape, rngs)
        if shape.norm == "pre":
            self.final_norm = LayerNorm(shape, rngs)

    def encode(self, tokens_BxL: Array, mask_BxL: Array | None, key: Key | None) -> Array:
        """Hidden states x_BxLxD.

        Args:
          tokens_BxL: token ids.
          mask_BxL: true at real tokens; None: everywhere.
          key: random key of dropout; None: no dropout.
        """
        key_embedding, key_stack = split_key(key, 2)
        x_BxLxD = self.embedding(tokens_BxL, key_embedding)
        mask_Bx1x1xL = None if mask_BxL is None else mask_BxL[:, None, None, :]
        x_BxLxD = self.layers(x_BxLxD, key_stack, mask_Bx1x1xL)
        return self.final_norm(x_BxLxD) if self.shape.norm == "pre" else x_BxLxD


class MaskedLanguageHead(nnx.Module):
    """Vectors to logits over the vocabulary, through the token embedding."""

    def __init__(self, vocab_size: int, shape: Shape, rngs: nnx.Rngs):
        self.activation = ACTIVATIONS[shape.activation]
        self.dense = Dense(shape.hidden, shape.hidden, shape, rngs)
        self.norm = LayerNorm(shape, rngs)
        self.bias = nnx.Param(jnp.zeros((vocab_size,), jnp.float32))

    def __call__(self, x_BxKxD: Array, embedding: Embedding) -> Array:
        x_BxKxD = self.norm(self.activation(self.dense(x_BxKxD)))
        return embedding.logits(x_BxKxD, self.bias[...])


class MaskedLanguageModel(Encoder):
    """An encoder that predicts the tokens at chosen positions, and computes logits there only."""

    def __init__(self, vocab_size: int, shape: Shape, rngs: nnx.Rngs):
        super().__init__(vocab_size, shape, rngs)
        self.mlm_head = MaskedLanguageHead(vocab_size, shape, rngs)

    def __call__(self, tokens_BxL: Array, positions_BxK: Array, key: Key | None = None) -> Array:
        """Logits_BxKxV at `positions_BxK` of full rows."""
        # Packed rows hold no padding, and attention without a mask can use faster kernels.
        x_BxLxD = self.encode(tokens_BxL, None, key)
        # A product with ones and zeros: the gradient of a gather is a scatter, which starts from
        # zeros in memory that XLA then reads in every dropout too, and which TPUs are slow at.
        chosen_BxKxL = positions_BxK[:, :, None] == jnp.arange(tokens_BxL.shape[1])
        chosen_BxKxL = chosen_BxKxL.astype(x_BxLxD.dtype)
        exact = jax.lax.Precision.HIGHEST
        x_BxKxD = split_rows(jnp.einsum("bkl,bld->bkd", chosen_BxKxL, x_BxLxD, precision=exact))
        return self.mlm_head(x_BxKxD, self.embedding)

    def everywhere(self, tokens_BxL: Array, mask_BxL: Array) -> Array:
        """Logits_BxLxV at every position of rows padded where `mask_BxL` is false."""
        return self.mlm_head(self.encode(tokens_BxL, mask_BxL, None), self.embedding)


class ClassificationHead(nnx.Module):
    """RoBERTa's head on the first position: dropout, dense, tanh, dropout, projection."""

    def __init__(self, classes: int, shape: Shape, rngs: nnx.Rngs):
        self.rate = shape.dropout
        self.dense = Dense(shape.hidden, shape.hidden, shape, rngs)
        self.output = Dense(shape.hidden, classes, shape, rngs)

    def __call__(self, x_BxD: Array, key: Key | None) -> Array:
        key_in, key_out = split_key(key, 2)
        x_BxD = jnp.tanh(self.dense(dropout(key_in, x_BxD, self.rate)))
        return self.output(dropout(key_out, x_BxD, self.rate)).astype(jnp.float32)


class Classifier(Encoder):
    """An encoder that assigns each row to a class."""

    def __init__(self, vocab_size: int, classes: int, shape: Shape, rngs: nnx.Rngs):
        super().__init__(vocab_size, shape, rngs)
        self.classifier = ClassificationHead(classes, shape, rngs)

    def __call__(self, tokens_BxL: Array, mask_BxL: Array, key: Key | None = None) -> Array:
        """Logits_BxC of rows padded where `mask_BxL` is false."""
        key_encoder, key_head = split_key(key, 2)
        x_BxLxD = self.encode(tokens_BxL, mask_BxL, key_encoder)
        return self.classifier(x_BxLxD[:, 0], key_head)
