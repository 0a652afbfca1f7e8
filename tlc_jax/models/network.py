"""Models as the rest of the project sees them: pure functions of a plain nested dict of float32 arrays."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx

from tlc_jax import config
from tlc_jax.core.params import flatten
from tlc_jax.models.encoder import Classifier, Encoder, MaskedLanguageModel
from tlc_jax.models.layers import Shape
from tlc_jax.models.translator import Translator

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Network:
    """A model as pure functions of its parameters.

    Attributes:
      kind: "mlm", "classifier", "translator", "encoder" (without a head), or a registered kind.
      model: its dimensions.
      vocab_size: rows of its token embedding.
      classes: outputs of a classifier; 0 for others.
      impl: how it computes.
    """

    kind: str
    model: config.Model
    vocab_size: int
    classes: int
    impl: config.Impl

    def _create(self, rngs: nnx.Rngs) -> nnx.Module:
        return _MODULES[self.kind](
            self.vocab_size, self.classes, Shape.of(self.model, self.impl), rngs
        )

    @functools.partial(jax.jit, static_argnums=0)
    def init(self, key: jax.Array) -> Params:
        """Fresh parameters; a pure function of the key."""
        return _export(nnx.to_pure_dict(nnx.state(self._create(nnx.Rngs(params=key)), nnx.Param)))

    def abstract(self) -> Params:
        """Shapes and types of the parameters."""
        return cast(Params, jax.eval_shape(self.init, jax.random.key(0)))

    def parameter_counts(self) -> tuple[int, int]:
        """(all parameters, those outside the tables of tokens, positions and token types)."""
        sizes = {path: leaf.size for path, leaf in flatten(self.abstract()).items()}
        tables = sum(
            sizes.get(f"embedding/{name}", 0) for name in ("token", "position", "token_type")
        )
        return sum(sizes.values()), sum(sizes.values()) - tables

    def cast(self, params: Params) -> Params:
        """Kernels in the type that products round them to anyway: for loops that would round them again each time."""
        if self.impl.matmul == "float32":
            return params
        return jax.tree.map_with_path(
            lambda path, leaf: leaf.astype(jnp.bfloat16) if path[-1].key == "kernel" else leaf,
            params,
        )

    def apply(self, params: Params, *args: Any, method: str = "__call__", **kwargs: Any) -> Any:
        """A method of the module, by default its `__call__`, with these parameters."""
        module = nnx.eval_shape(lambda: self._create(nnx.Rngs(params=0)))
        graph, state = nnx.split(module)
        nnx.replace_by_pure_dict(state, _import(params))
        return getattr(nnx.merge(graph, state), method)(*args, **kwargs)


Build = Callable[[int, int, Shape, nnx.Rngs], nnx.Module]
"""(vocabulary size, classes, dimensions, generators) -> the module of a kind of model."""

_MODULES: dict[str, Build] = {
    "mlm": lambda vocab_size, classes, shape, rngs: MaskedLanguageModel(vocab_size, shape, rngs),
    "encoder": lambda vocab_size, classes, shape, rngs: Encoder(vocab_size, shape, rngs),
    "translator": lambda vocab_size, classes, shape, rngs: Translator(vocab_size, shape, rngs),
    "classifier": Classifier,
}


def register_module(kind: str, build: Build) -> None:
    """Makes a kind of model known to `Network`."""
    _MODULES[kind] = build


def _export(tree: Params) -> Params:
    """NNX's nesting to ours: the parameters of an encoder's stack are simply `blocks`."""
    tree = dict(tree)
    if "stack" in tree:
        tree["blocks"] = tree.pop("stack")["blocks"]
    return tree


def _import(params: Params) -> Params:
    tree = dict(params)
    if "blocks" in tree:
        tree["stack"] = {"blocks": tree.pop("blocks")}
    return tree


def masked_language_model(model: config.Model, vocab_size: int, impl: config.Impl) -> Network:
    """The network that pretraining trains."""
    return Network("mlm", model, vocab_size, 0, impl)


def classifier(model: config.Model, vocab_size: int, classes: int, impl: config.Impl) -> Network:
    """The network that finetuning trains."""
    return Network("classifier", model, vocab_size, classes, impl)


def translator(model: config.Model, vocab_size: int, impl: config.Impl) -> Network:
    """The network that `translate` trains."""
    return Network("translator", model, vocab_size, 0, impl)
