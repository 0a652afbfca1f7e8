"""Models for the rest of the project: pure functions of a nested dict of float32 arrays."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from tlc_jax import config
from tlc_jax.core import plugins
from tlc_jax.core.params import flatten
from tlc_jax.models.encoder import Classifier, Encoder, MaskedLanguageModel
from tlc_jax.models.layers import Shape

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Network:
    """A model as pure functions of its parameters.

    Attributes:
      kind: "mlm", "classifier", "translator", "encoder" (without a head), or the task of a
        plug-in.
      model: settings of its architecture.
      vocab_size: number of rows of its token embedding.
      classes: number of outputs of a classifier; 0 for others.
      impl: settings of how it computes.
    """

    kind: str
    model: config.Model
    vocab_size: int
    classes: int
    impl: config.Impl

    @property
    def shape(self) -> Shape:
        """All widths, and the settings of `impl` that the layers have."""
        return Shape.of(self.model, self.impl)

    def _create(self, rngs: nnx.Rngs) -> nnx.Module:
        build = _MODULES.get(self.kind) or plugins.find("task", self.kind, "").module
        return build(self.vocab_size, self.classes, self.shape, rngs)

    @functools.partial(jax.jit, static_argnums=0)
    def init(self, key: Array) -> Params:
        """Fresh parameters; a pure function of the key."""
        return nnx.to_pure_dict(nnx.state(self._create(nnx.Rngs(params=key)), nnx.Param))

    def abstract(self) -> Params:
        """Shapes and types of the parameters."""
        return cast(Params, jax.eval_shape(self.init, jax.random.key(0)))

    def parameter_counts(self) -> tuple[int, int]:
        """(all parameters, those outside the tables of tokens, positions and token types)."""
        sizes = {path: leaf.size for path, leaf in flatten(self.abstract()).items()}
        tables = {f"embedding/{name}" for name in ("token", "position", "token_type")}
        nonembedding = sum(size for path, size in sizes.items() if path not in tables)
        return sum(sizes.values()), nonembedding

    def cast(self, params: Params) -> Params:
        """Parameters with kernels in the type that matrix products round them to."""
        # For loops such as beam search, which would otherwise round the kernels in every step.
        if self.shape.matmul == "float32":
            return params
        return jax.tree.map_with_path(
            lambda path, leaf: leaf.astype(jnp.bfloat16) if path[-1].key == "kernel" else leaf,
            params,
        )

    def apply(self, params: Params, *args: Any, method: str = "__call__", **kwargs: Any) -> Any:
        """Calls a method of the module, by default its `__call__`, with these parameters."""
        graph, state = _parts(self)
        state = jax.tree.map(lambda leaf: leaf, state)  # a copy, since the next line writes into it
        nnx.replace_by_pure_dict(state, params)
        return getattr(nnx.merge(graph, state), method)(*args, **kwargs)


@functools.lru_cache
def _parts(network: Network) -> tuple[nnx.GraphDef, nnx.State]:
    """The structure of a network's module, and the shapes of its parameters."""
    # Kept, since it takes longer to build a module than to trace its call.
    return nnx.split(nnx.eval_shape(lambda: network._create(nnx.Rngs(params=0))))


Build = Callable[[int, int, Shape, nnx.Rngs], nnx.Module]
"""(vocabulary size, classes, dimensions, generators) -> the module of a kind of model."""


def _translator(vocab_size: int, classes: int, shape: Shape, rngs: nnx.Rngs) -> nnx.Module:
    # Imported late, because most commands work on encoders alone.
    from tlc_jax.models.translator import Translator

    return Translator(vocab_size, shape, rngs)


_MODULES: dict[str, Build] = {
    "mlm": lambda vocab_size, classes, shape, rngs: MaskedLanguageModel(vocab_size, shape, rngs),
    "encoder": lambda vocab_size, classes, shape, rngs: Encoder(vocab_size, shape, rngs),
    "translator": _translator,
    "classifier": Classifier,
}


def masked_language_model(model: config.Model, vocab_size: int, impl: config.Impl) -> Network:
    """The network that pretraining trains."""
    return Network("mlm", model, vocab_size, 0, impl)


def classifier(model: config.Model, vocab_size: int, classes: int, impl: config.Impl) -> Network:
    """The network that finetuning trains, unless a plug-in has another."""
    return Network("classifier", model, vocab_size, classes, impl)


def translator(model: config.Model, vocab_size: int, impl: config.Impl) -> Network:
    """The network that `translate` trains."""
    return Network("translator", model, vocab_size, 0, impl)
