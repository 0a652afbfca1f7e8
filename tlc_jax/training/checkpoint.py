"""Saving and restoring with Orbax: parameters, optimizer state and bookkeeping as three items of one checkpoint.

Items are apart so that finetuning and compression can take the parameters alone, into any placement.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from tlc_jax import config
from tlc_jax.errors import InputError
from tlc_jax.models.network import Params
from tlc_jax.training.step import TrainState

log = logging.getLogger(__name__)


class Checkpointer:
    """The checkpoints of a run, under `workdir/checkpoints`."""

    def __init__(self, workdir: Path, settings: config.Checkpoint):
        self.directory = (workdir / "checkpoints").absolute()
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=settings.keep, cleanup_tmp_directories=True, enable_background_delete=False
            ),
            item_names=("params", "train", "meta"),
        )

    def save(self, step: int, state: TrainState, meta: dict[str, Any]) -> None:
        """Starts saving; returns once the arrays may be donated to the next step."""
        if jax.default_backend() == "cpu":
            # A host view of a CPU array is the array itself, which the next step overwrites: save a copy.
            state = jax.tree.map(jnp.copy, state)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state.params),
                train=ocp.args.StandardSave({"optimizer": state.optimizer}),
                meta=ocp.args.JsonSave(meta),
            ),
            force=True,
        )

    def wait(self) -> None:
        """Returns once everything started is on disk."""
        self._manager.wait_until_finished()

    def restore(self, abstract: TrainState) -> tuple[int, TrainState, dict[str, Any]] | None:
        """The newest complete checkpoint as (step, state, meta), or None where there is none at all.

        Args:
          abstract: shapes, types and shardings to restore into.

        A checkpoint that cannot be read is passed over with a warning, in favour of the one before it.

        Raises:
          InputError: there are checkpoints, but none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                restored = self._manager.restore(
                    step,
                    args=ocp.args.Composite(
                        params=ocp.args.StandardRestore(abstract.params),
                        train=ocp.args.StandardRestore({"optimizer": abstract.optimizer}),
                        meta=ocp.args.JsonRestore(),
                    ),
                )
            except Exception as error:
                log.warning(
                    "checkpoint %s/%d cannot be read (%s): trying the one before", self.directory, step, _line(error)
                )
                continue
            for newer in (s for s in steps if s > step):
                self._manager.delete(newer)  # damaged: it would stand in the way of saving that step again
            return step, TrainState(restored["params"], restored["train"]["optimizer"]), dict(restored["meta"])
        if steps:
            raise InputError(f"no checkpoint in {self.directory} can be read: delete that directory to start afresh")
        return None

    def close(self) -> None:
        self._manager.close()


def complete_steps(directory: Path) -> list[int]:
    """Steps of the checkpoints in a `checkpoints` directory, newest first."""
    if not directory.is_dir():
        return []
    return sorted((int(p.name) for p in directory.iterdir() if p.name.isdecimal() and p.is_dir()), reverse=True)


def read_meta(directory: Path, step: int) -> dict[str, Any]:
    """The bookkeeping saved with a checkpoint.

    Raises:
      InputError: it is missing or damaged.
    """
    path = directory / str(step)
    try:
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            return cast(dict[str, Any], dict(reader.restore((path / "meta").absolute())))
    except Exception as error:
        raise InputError(f"{path} is no readable checkpoint of tlc ({_line(error)})") from error


def read_params(directory: Path, step: int, abstract: Params, device: jax.Device | None = None) -> Params:
    """The parameters of a checkpoint, on one device (by default the first).

    Raises:
      InputError: they are missing, damaged, or of other shapes than `abstract`.
    """
    path = directory / str(step)
    sharding = jax.sharding.SingleDeviceSharding(device or jax.devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract)
    try:
        with ocp.StandardCheckpointer() as reader:
            return cast(Params, reader.restore((path / "params").absolute(), target))
    except Exception as error:
        raise InputError(f"{path} is no readable checkpoint of tlc ({_line(error)})") from error


def save_params(directory: Path, step: int, params: Params, meta: dict[str, Any]) -> Path:
    """Writes parameters alone as a checkpoint, in place of one that is there; returns the folder they lie in."""
    path = (directory / str(step)).absolute()
    handler = ocp.CompositeCheckpointHandler(params=ocp.StandardCheckpointHandler(), meta=ocp.JsonCheckpointHandler())
    with ocp.Checkpointer(handler) as writer:
        writer.save(
            path,
            args=ocp.args.Composite(params=ocp.args.StandardSave(params), meta=ocp.args.JsonSave(meta)),
            force=True,
        )
    return path / "params"


def _line(error: Exception) -> str:
    """The first line of an error, cut to a length that a terminal shows."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if len(text) <= 200 else text[:200] + "..."
