"""The pre-norm RoBERTa encoder with a masked-language head or a classification head.

Inside this module a model is an NNX module; outside it is a `Network`: pure functions of a plain nested dict of
float32 arrays. Shapes are named as in `blocks.py`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx

from tlc_jax import config
from tlc_jax.models.blocks import Dense, Shape, Stack, layer_norm
from tlc_jax.models.numerics import affine, dropout

Params = dict[str, Any]


def sinusoids(length: int, width: int) -> jax.Array:
    """Sines and cosines of geometrically spaced wavelengths, [length, width], of mean square 1."""
    frequency = 1000.0 ** -(jnp.arange(width // 2) / (width // 2))
    angle = jnp.arange(length)[:, None] * frequency
    return jnp.sqrt(2.0) * jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)


class Embedding(nnx.Module):
    """Token and learned position embeddings, summed and normalised.

    With `init="fan_in"` positions start as sinusoids instead of noise (and are learned from there): neighbours are then
    told apart from the first step, and small models under small budgets leave the plateau of context-free prediction
    much sooner.
    """

    def __init__(self, vocab_size: int, shape: Shape, rngs: nnx.Rngs):
        scale = 0.02 if shape.init == "normal" else shape.hidden**-0.5
        normal = nnx.initializers.truncated_normal(stddev=scale)
        self.token = nnx.Param(normal(rngs.params(), (vocab_size, shape.hidden), jnp.float32))
        if shape.init == "normal":
            self.position = nnx.Param(normal(rngs.params(), (shape.max_length, shape.hidden), jnp.float32))
        else:
            self.position = nnx.Param(scale * sinusoids(shape.max_length, shape.hidden))
        self.norm = layer_norm(shape.hidden, rngs)

    def __call__(self, tokens_BxL: jax.Array) -> jax.Array:
        return self.norm(self.token[...][tokens_BxL] + self.position[...][: tokens_BxL.shape[1]])


class Encoder(nnx.Module):
    """Tokens to contextual vectors."""

    def __init__(self, vocab_size: int, shape: Shape, rngs: nnx.Rngs):
        self.shape = shape
        self.embedding = Embedding(vocab_size, shape, rngs)
        self.stack = Stack(shape, rngs)
        self.final_norm = layer_norm(shape.hidden, rngs)

    def encode(self, tokens_BxL: jax.Array, mask_BxL: jax.Array | None, key: jax.Array | None) -> jax.Array:
        """Hidden states x_BxLxD. `mask_BxL` is true at real tokens (None: everywhere); a key turns dropout on."""
        key_embedding, key_stack = (None, None) if key is None else jax.random.split(key)
        x_BxLxD = dropout(key_embedding, self.embedding(tokens_BxL), self.shape.dropout)
        if self.shape.matmul == "bfloat16":
            x_BxLxD = x_BxLxD.astype(jnp.bfloat16)
        mask_Bx1x1xL = None if mask_BxL is None else mask_BxL[:, None, None, :]
        return self.final_norm(self.stack(x_BxLxD, mask_Bx1x1xL, key_stack))


class MaskedLanguageHead(nnx.Module):
    """Vectors to logits over the vocabulary, through the tied token embedding."""

    def __init__(self, vocab_size: int, shape: Shape, rngs: nnx.Rngs):
        # Logits are never rounded to bfloat16: neighbouring tokens of a large vocabulary would tie.
        self.matmul = "float32" if shape.matmul == "float32" else "mix"
        self.dense = Dense(shape.hidden, shape.hidden, shape, rngs)
        self.norm = layer_norm(shape.hidden, rngs)
        self.bias = nnx.Param(jnp.zeros((vocab_size,), jnp.float32))

    def __call__(self, x_BxKxD: jax.Array, token_VxD: jax.Array) -> jax.Array:
        x_BxKxD = self.norm(jax.nn.gelu(self.dense(x_BxKxD), approximate=False))
        return affine(x_BxKxD, token_VxD, self.bias[...], self.matmul, kernel_is_OxI=True)


class MaskedLanguageModel(Encoder):
    """An encoder that predicts the tokens at chosen positions, and computes logits there only."""

    def __init__(self, vocab_size: int, shape: Shape, rngs: nnx.Rngs):
        super().__init__(vocab_size, shape, rngs)
        self.mlm_head = MaskedLanguageHead(vocab_size, shape, rngs)

    def __call__(self, tokens_BxL: jax.Array, positions_BxK: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Logits_BxKxV at `positions_BxK`. Rows are full, so nothing is masked out of attention."""
        x_BxLxD = self.encode(tokens_BxL, None, key)
        x_BxKxD = jnp.take_along_axis(x_BxLxD, positions_BxK[:, :, None], axis=1)
        return self.mlm_head(x_BxKxD, self.embedding.token[...])


class ClassificationHead(nnx.Module):
    """RoBERTa's head on the first position: dropout, dense, tanh, dropout, projection."""

    def __init__(self, classes: int, shape: Shape, rngs: nnx.Rngs):
        self.rate = shape.dropout
        self.dense = Dense(shape.hidden, shape.hidden, shape, rngs)
        self.output = Dense(shape.hidden, classes, shape, rngs)

    def __call__(self, x_BxD: jax.Array, key: jax.Array | None) -> jax.Array:
        key_in, key_out = (None, None) if key is None else jax.random.split(key)
        x_BxD = jnp.tanh(self.dense(dropout(key_in, x_BxD, self.rate)))
        return self.output(dropout(key_out, x_BxD, self.rate)).astype(jnp.float32)


class Classifier(Encoder):
    """An encoder that assigns each row to a class."""

    def __init__(self, vocab_size: int, classes: int, shape: Shape, rngs: nnx.Rngs):
        super().__init__(vocab_size, shape, rngs)
        self.classifier = ClassificationHead(classes, shape, rngs)

    def __call__(self, tokens_BxL: jax.Array, mask_BxL: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Logits_BxC of rows padded where `mask_BxL` is false."""
        key_encoder, key_head = (None, None) if key is None else jax.random.split(key)
        x_BxLxD = self.encode(tokens_BxL, mask_BxL, key_encoder)
        return self.classifier(x_BxLxD[:, 0], key_head)


@dataclasses.dataclass(frozen=True)
class Network:
    """A model as pure functions of its parameters.

    Attributes:
      kind: "mlm" or "classifier".
      graph: the NNX graph that parameters are merged into.
      abstract: shapes and types of the parameters, as nested dicts.
    """

    kind: str
    model: config.Model
    vocab_size: int
    classes: int
    impl: config.Impl

    def _create(self, rngs: nnx.Rngs) -> nnx.Module:
        shape = Shape.of(self.model, self.impl)
        if self.kind == "mlm":
            return MaskedLanguageModel(self.vocab_size, shape, rngs)
        return Classifier(self.vocab_size, self.classes, shape, rngs)

    @functools.partial(jax.jit, static_argnums=0)
    def init(self, key: jax.Array) -> Params:
        """Fresh parameters; a pure function of the key."""
        return _export(nnx.to_pure_dict(nnx.state(self._create(nnx.Rngs(params=key)), nnx.Param)))

    def abstract(self) -> Params:
        """Shapes and types of the parameters."""
        return cast(Params, jax.eval_shape(self.init, jax.random.key(0)))

    def apply(self, params: Params, *args: Any, **kwargs: Any) -> jax.Array:
        """The module's `__call__` with these parameters."""
        module = nnx.eval_shape(lambda: self._create(nnx.Rngs(params=0)))
        graph, state = nnx.split(module)
        nnx.replace_by_pure_dict(state, _import(params))
        return cast(Any, nnx.merge(graph, state))(*args, **kwargs)


def _export(tree: Params) -> Params:
    """NNX's nesting to ours: the stack's parameters are simply `blocks`."""
    tree = dict(tree)
    tree["blocks"] = tree.pop("stack")["blocks"]
    return tree


def _import(params: Params) -> Params:
    tree = dict(params)
    tree["stack"] = {"blocks": tree.pop("blocks")}
    return tree


def masked_language_model(model: config.Model, vocab_size: int, impl: config.Impl) -> Network:
    """The network that pretraining trains."""
    return Network("mlm", model, vocab_size, 0, impl)


def classifier(model: config.Model, vocab_size: int, classes: int, impl: config.Impl) -> Network:
    """The network that finetuning trains."""
    return Network("classifier", model, vocab_size, classes, impl)
