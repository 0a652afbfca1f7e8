"""Finds and reads the model that `init.from` names, with its tokenizer."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from tlc_jax.compression.recipe import parse_recipe
from tlc_jax.config import Config, Impl, Model
from tlc_jax.config.resolve import require_budget
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import path_of
from tlc_jax.core.params import flatten, unflatten
from tlc_jax.data.sources import check_sources, check_test_sources
from tlc_jax.data.tokenizer import Tokenizer, kept_in
from tlc_jax.models.network import Network, Params
from tlc_jax.runs import session
from tlc_jax.training import checkpoint

log = logging.getLogger(__name__)

AVERAGED = "averaged"
_HUGGING_FACE = "hf:"


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """A saved model.

    Attributes:
      path: the checkpoint, artifact or folder of an imported model that was read.
      meta: what was saved about it: kind, model, length, labels, vocab_size, tokenizer_hash, and
        recipe if compressed.
      params: float32 parameters; those of an artifact are dequantized, exactly.
      masks: which weights of the pruned leaves are kept; empty where nothing is pruned.
      tokenizer: tokenizer that the model was trained with.
      tokenizer_path: file that the tokenizer was read from.
      pooler: first layer of a classification head, which an imported encoder may bring along.
    """

    path: Path
    meta: dict[str, Any]
    params: Params
    masks: Mapping[str, Any]
    tokenizer: Tokenizer
    tokenizer_path: Path
    pooler: Params = dataclasses.field(default_factory=dict)

    @property
    def kind(self) -> str:
        return str(self.meta["kind"])

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.meta["labels"])

    @property
    def recipe(self) -> str:
        return str(self.meta.get("recipe", "dense"))

    @property
    def model(self) -> Model:
        return Model(**self.meta["model"])

    def network(self, impl: Impl) -> Network:
        return network_of(self.meta, impl)


def network_of(meta: dict[str, Any], impl: Impl) -> Network:
    """The network that a checkpoint's meta describes."""
    model, classes = Model(**meta["model"]), len(meta["labels"])
    return Network(meta["kind"], model, meta["vocab_size"], classes, impl)


def find(source: str) -> Path:
    """The artifact, checkpoint folder (`.../checkpoints/STEP`) or imported folder of `init.from`.

    Reads no weights.

    Raises:
      InputError: the source is empty, or the model does not exist.
    """
    if source.startswith(_HUGGING_FACE):
        # Imported here, because few runs start from an imported model.
        from tlc_jax.interop import huggingface_import

        return huggingface_import.find(source)
    path = path_of(source)
    if not source or not path.exists():
        problem = f"={source} does not exist" if source else " is empty"
        raise InputError(
            f"init.from{problem}: name a workdir, a checkpoint, an artifact or hf:FOLDER"
        )
    if path.is_file():
        return path
    # Imported here, because training from scratch reads no artifact.
    from tlc_jax.compression.artifact import ARTIFACT

    # The model that a workdir's result.json describes comes first: the artifact, or the mean of the
    # last checkpoints. A run without either is evaluated at its newest checkpoint.
    for artifact in (path / ARTIFACT, path / ARTIFACT.name):
        if artifact.exists():
            return artifact
    if (path / AVERAGED / "0" / "params").is_dir():
        return path / AVERAGED / "0"
    if path.name.isdecimal() and (path / "params").is_dir():
        return path
    directory = path if path.name == "checkpoints" else path / "checkpoints"
    steps = checkpoint.complete_steps(directory)
    if not steps:
        raise InputError(f"init.from={source} holds neither a checkpoint nor an artifact of tlc")
    return directory / str(steps[0])


def check_inputs(config: Config, train: bool = False) -> None:
    """Refuses what is missing before anything slow begins.

    Raises:
      InputError: data.valid, data.test or init.from names something that does not exist; with
        `train`, also data.train, or the budget is missing.
    """
    if train:
        require_budget(config)
        check_sources(config.data.train, "data.train", config.data)
    if config.data.valid:
        check_sources(config.data.valid, "data.valid", config.data)
    check_test_sources(config.data)
    if config.init.source:
        find(config.init.source)


def load_start(config: Config) -> tuple[SavedModel, Config]:
    """The model that init.from names, and the config with its architecture.

    Raises:
      InputError: as `load`; or data.length is beyond the model's positions.
    """
    start = load(config.init.source, config.impl, config.tokenizer.path)
    return start, session.adopt_model(config, start.model, start.path)


def load_dense_start(config: Config, *kinds: str) -> tuple[SavedModel | None, Config]:
    """Like `load_start`, for training one of `kinds`; without init.from, None and the same config.

    Raises:
      InputError: as `load_start`; or the model is compressed or of another kind.
    """
    if not config.init.source:
        return None, config
    start, config = load_start(config)
    require_dense(start, kinds)
    return start, config


def load(source: str, impl: Impl, tokenizer_path: str = "") -> SavedModel:
    """Reads the model that `init.from` names.

    Args:
      source: see `find`.
      impl: settings of a network of the model's shapes.
      tokenizer_path: `tokenizer.path`; empty: the tokenizer that lies beside the model.

    Raises:
      InputError: the model cannot be read, or the tokenizer is not the one that the model was
        trained with.
    """
    path = find(source)
    if source.startswith(_HUGGING_FACE):
        return _import(path, tokenizer_path)
    if path.is_file():
        from tlc_jax.compression.artifact import load_artifact

        artifact = load_artifact(path)
        meta, masks = dict(artifact.metadata), artifact.masks
        params = jax.tree.map(jnp.asarray, artifact.params)
        beside = kept_in(path.parent)
    else:
        path, meta, params = _read_checkpoint(path, impl)
        masks = {}
        if prunes := parse_recipe(meta.get("recipe", "dense")).prunes:
            from tlc_jax.compression.prune import masks_from_zeros

            # A checkpoint stores no masks: the leaves that the recipe prunes are kept where not
            # zero.
            masks = masks_from_zeros(params, prunes)
        beside = kept_in(path.parent.parent)
    where = path_of(tokenizer_path) if tokenizer_path else beside
    tokenizer = Tokenizer.load(where)
    if tokenizer.hash != meta["tokenizer_hash"]:
        raise InputError(
            f"the tokenizer {where} is not the one that {path} was trained with: "
            f"leave tokenizer.path empty, or point it at that run's {beside.name}"
        )
    return SavedModel(path, meta, params, masks, tokenizer, where)


def _import(folder: Path, tokenizer_path: str) -> SavedModel:
    from tlc_jax.interop import huggingface_import

    if tokenizer_path:
        raise InputError(
            f"tokenizer.path={tokenizer_path}: {folder} has a tokenizer of its own; leave it empty"
        )
    model = huggingface_import.load(folder)
    if model.unused:
        session.say(f"{folder}: tensors that have no place here: {', '.join(model.unused)}")
    params, pooler = jax.tree.map(jnp.asarray, (model.params, model.pooler))
    return SavedModel(folder, model.meta, params, {}, model.tokenizer, model.tokenizer_path, pooler)


def _read_checkpoint(path: Path, impl: Impl) -> tuple[Path, dict[str, Any], Params]:
    """Reads the checkpoint or, where it is damaged, the newest readable one before it."""
    errors: list[InputError] = []
    for step in checkpoint.complete_steps(path.parent):
        if step > int(path.name):
            continue
        try:
            meta = checkpoint.read_meta(path.parent, step)
            if seeds := meta.get("seeds"):
                raise InputError(
                    f"{path} holds {len(seeds)} seeds that were still training together: finish "
                    f"the sweep, and name one of them, such as {path.parents[1]}/seed-{seeds[0]}"
                )
            params = checkpoint.read_params(path.parent, step, network_of(meta, impl).abstract())
        except InputError as error:
            errors.append(error)
            continue
        if errors:
            log.warning("%s; using the one of step %d", errors[0], step)
        return path.parent / str(step), meta, params
    raise errors[0]


def require_dense(start: SavedModel, kinds: tuple[str, ...] = ()) -> None:
    """Refuses a compressed model and, if `kinds` are given, a model of another kind."""
    if kinds and start.kind not in kinds:
        raise InputError(
            f"{start.path} is a model of kind {start.kind}, and {' or '.join(kinds)} is needed: "
            "name another in init.from, or leave it empty to start from scratch"
        )
    if start.recipe != "dense":
        raise InputError(
            f"{start.path} is compressed already ({start.recipe}): start from the dense model"
        )


def initializer(
    network: Network, seed: int | tuple[int, ...], start: SavedModel | None
) -> Callable[[], Params]:
    """A function that makes the parameters that training starts from.

    They are random, except for those that the saved model has with the same path and shape. The
    pooler of an imported encoder counts as part of the saved model. Those of several seeds are
    stacked on a first axis.

    Raises:
      InputError: nothing in the saved model fits the network.
    """
    restored = {}
    if start:
        shapes = {path: leaf.shape for path, leaf in flatten(network.abstract()).items()}
        saved = flatten({**start.params, **start.pooler})
        restored = {path: leaf for path, leaf in saved.items() if shapes.get(path) == leaf.shape}
        if not restored:
            raise InputError(f"nothing in {start.path} fits this model")
        kept = ", ".join(path for path in shapes if path not in restored)
        session.say(
            f"from {start.path}: {len(restored)} parameters restored; not restored, so from the "
            f"seed: {kept or 'none'}; no optimizer state is taken"
        )

    # Computed when it is called, so that no second copy of the parameters lives through training.
    def init_one(seed: int) -> Params:
        return unflatten({**flatten(network.init(jax.random.key(seed))), **restored})

    def init() -> Params:
        if isinstance(seed, int):
            return init_one(seed)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(init_one, seed))

    return init
