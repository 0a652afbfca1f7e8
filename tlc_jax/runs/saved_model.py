"""What `init.from` names: a workdir, a checkpoint, an artifact or an imported model, read with its tokenizer."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from tlc_jax import config as configs
from tlc_jax.compression.artifact import ARTIFACT, load_artifact
from tlc_jax.compression.prune import Masks, masks_from_zeros
from tlc_jax.compression.recipe import parse_recipe
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten, unflatten
from tlc_jax.data.tokenizer import Tokenizer, kept_in
from tlc_jax.interop import huggingface_import as importing
from tlc_jax.models.network import Network, Params
from tlc_jax.runs import session
from tlc_jax.training import checkpoint

log = logging.getLogger(__name__)

AVERAGED = "averaged"


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """A saved model.

    Attributes:
      path: the checkpoint, artifact or folder of an imported model that was read.
      meta: what was saved about it: kind, model, length, labels, vocab_size, tokenizer_hash, and recipe if compressed.
      params: float32 parameters; of an artifact, exactly what it stands for.
      masks: which weights of the pruned leaves are kept; empty where nothing is pruned.
      pooler: the first layer of a classification head that an imported encoder has beside its own network.
    """

    path: Path
    meta: dict[str, Any]
    params: Params
    masks: Masks
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
    def model(self) -> configs.Model:
        return configs.Model(**self.meta["model"])

    def network(self, impl: configs.Impl) -> Network:
        return network_of(self.meta, impl)


def network_of(meta: dict[str, Any], impl: configs.Impl) -> Network:
    """The network that a checkpoint's meta describes."""
    return Network(
        meta["kind"], configs.Model(**meta["model"]), meta["vocab_size"], len(meta["labels"]), impl
    )


def find(source: str) -> Path:
    """The artifact file, checkpoint folder (`.../checkpoints/STEP`) or folder of a public model that `init.from` means.

    Nothing is read yet but the settings of a public model (`hf:FOLDER`, see `importing`).
    A workdir means its artifact or averaged checkpoint where it has one, since that is what was evaluated, and else its
    newest checkpoint.

    Raises:
      InputError: there is nothing of the kind.
    """
    if source.startswith(importing.PREFIX):
        return importing.find(source)
    path = Path(source).expanduser()
    if not path.exists():
        raise InputError(
            f"init.from={source} does not exist: name a workdir, a checkpoint, an artifact or hf:FOLDER"
        )
    if path.is_file():
        return path
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


def load(source: str, impl: configs.Impl, tokenizer_path: str = "") -> SavedModel:
    """Reads the model that `init.from` names.

    Args:
      source: see `find`.
      impl: only shapes matter here.
      tokenizer_path: `tokenizer.path`; empty: the tokenizer that lies beside the model.

    Raises:
      InputError: nothing readable is there, or the tokenizer is not the one that the model was trained with.
    """
    path = find(source)
    if source.startswith(importing.PREFIX):
        return _import(path, tokenizer_path)
    if path.is_file():
        artifact = load_artifact(path)
        meta, params, masks = (
            dict(artifact.metadata),
            jax.tree.map(jnp.asarray, artifact.params),
            artifact.masks,
        )
        beside = kept_in(path.parent)
    else:
        path, meta, params = _read_checkpoint(path, impl)
        masks = masks_from_zeros(params, parse_recipe(meta.get("recipe", "dense")).prunes)
        beside = kept_in(path.parent.parent)
    where = Path(tokenizer_path or beside)
    tokenizer = Tokenizer.load(where)
    if tokenizer.hash != meta["tokenizer_hash"]:
        raise InputError(
            f"the tokenizer {where} is not the one that {path} was trained with: "
            f"leave tokenizer.path empty, or point it at that run's {beside.name}"
        )
    return SavedModel(path, meta, params, masks, tokenizer, where)


def _import(folder: Path, tokenizer_path: str) -> SavedModel:
    if tokenizer_path:
        raise InputError(
            f"tokenizer.path={tokenizer_path}: {folder} has a tokenizer of its own; leave it empty"
        )
    model = importing.load(folder)
    if model.unused:
        session.say(f"{folder}: tensors that have no place here: {', '.join(model.unused)}")
    params, pooler = jax.tree.map(jnp.asarray, (model.params, model.pooler))
    return SavedModel(folder, model.meta, params, {}, model.tokenizer, model.tokenizer_path, pooler)


def _read_checkpoint(path: Path, impl: configs.Impl) -> tuple[Path, dict[str, Any], Params]:
    """The checkpoint, or where it is damaged the newest older one beside it that is whole."""
    steps = [s for s in checkpoint.complete_steps(path.parent) if s <= int(path.name)]
    first_error: InputError | None = None
    for step in steps:
        try:
            meta = checkpoint.read_meta(path.parent, step)
            params = checkpoint.read_params(path.parent, step, network_of(meta, impl).abstract())
        except InputError as error:
            first_error = first_error or error
            continue
        if first_error is not None:
            log.warning("%s; using the one of step %d", first_error, step)
        return path.parent / str(step), meta, params
    raise first_error or InputError(f"{path} is not a readable tlc checkpoint")


def require_dense(start: SavedModel, kinds: tuple[str, ...] = ()) -> None:
    """Refuses compressed models, and where `kinds` are given models of others."""
    if kinds and start.kind not in kinds:
        raise InputError(
            f"{start.path} is a model of kind {start.kind}, and {' or '.join(kinds)} is needed: "
            "name another in init.from, or leave it empty to start from scratch"
        )
    if start.recipe != "dense":
        raise InputError(
            f"{start.path} is compressed already ({start.recipe}): start from the dense model"
        )


def initialized_from(fresh: Params, start: SavedModel) -> Params:
    """Fresh parameters with those of a saved model, its pooler too, put in; the log says which.

    Raises:
      InputError: nothing did.
    """
    params, restored, kept = copy_matching(fresh, {**start.params, **start.pooler})
    if not restored:
        raise InputError(f"nothing in {start.path} fits this model")
    session.say(
        f"from {start.path}: {len(restored)} parameters restored; not restored, so from the seed: "
        f"{', '.join(kept) or 'none'}; no optimizer state is taken"
    )
    return params


def copy_matching(fresh: Params, saved: Params) -> tuple[Params, list[str], list[str]]:
    """Fresh parameters with every saved one of the same path and shape put in.

    Returns:
      the parameters; paths that were restored; paths that keep their fresh values.
    """
    target, source = flatten(fresh), flatten(saved)
    restored = [p for p, leaf in target.items() if p in source and source[p].shape == leaf.shape]
    merged = {
        path: source[path] if path in set(restored) else leaf for path, leaf in target.items()
    }
    return unflatten(merged), restored, [path for path in target if path not in set(restored)]
