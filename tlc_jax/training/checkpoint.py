"""Saves and restores checkpoints with Orbax.

A checkpoint has three items: parameters, optimizer state and metadata. They are apart so that
finetuning and compression can read the parameters alone, into any sharding.
"""

from __future__ import annotations

import contextlib
import json
import logging
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from tlc_jax import config
from tlc_jax.core import distributed as processes
from tlc_jax.core.errors import InputError, StoppedEarly
from tlc_jax.core.files import is_remote
from tlc_jax.models.network import Params
from tlc_jax.training.step import TrainState

log = logging.getLogger(__name__)

_COMMITTED = "commit_success.txt"

RETRY_SECONDS = (1.0, 5.0, 15.0, 30.0, 60.0)
"""Pauses before the next attempts to save the last checkpoint of a run."""


class StorageFailed(Exception):
    """A checkpoint could not be written; the earlier ones are complete."""


class Checkpointer:
    """The checkpoints of a run, under `workdir/checkpoints`."""

    def __init__(self, workdir: Path, settings: config.Checkpoint):
        self.directory = (workdir / "checkpoints").absolute()
        self._manager = ocp.CheckpointManager(
            _place(self.directory),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=settings.keep,
                keep_period=settings.keep_every_steps or None,
                cleanup_tmp_directories=True,
                enable_background_delete=False,
                # In the background, a folder that cannot be made leaves threads waiting for it
                # for minutes.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            ),
            item_names=("params", "train", "meta"),
        )

    def save(self, step: int, state: TrainState, meta: dict[str, Any]) -> None:
        """Starts saving; returns once the arrays may be donated to the next step.

        Raises:
          StorageFailed: this checkpoint, or an earlier one still being written, cannot be written.
        """
        if jax.default_backend() == "cpu":
            # Orbax writes a host view of the array. On CPU that view is the array itself, which
            # the next step overwrites.
            state = jax.tree.map(jnp.copy, state)
        with _failures_named():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(state.params),
                    train=ocp.args.StandardSave({"optimizer": state.optimizer}),
                    meta=ocp.args.JsonSave(meta),
                ),
                force=True,
            )

    def try_to_save(self, step: int, state: TrainState, meta: dict[str, Any]) -> bool:
        """Starts saving and returns whether it worked; a run continues without one checkpoint.

        Raises:
          StoppedEarly: it failed in a run of several processes, where the others may be waiting
            for this one to finish the same save.
        """
        try:
            self.save(step, state, meta)
        except StorageFailed as error:
            if processes.several():
                raise self._given_up(step, error) from error
            log.warning("a checkpoint was not written (%s): trying again with the next one", error)
            return False
        return True

    def save_and_wait(
        self, step: int, state: TrainState, meta: dict[str, Any], started: bool
    ) -> None:
        """Saves and returns once this step is on disk; retries for two minutes if storage fails.

        Args:
          step: the training step, which names the checkpoint.
          state: the training state.
          meta: the metadata, a JSON object.
          started: whether saving this step was started already.

        Raises:
          StoppedEarly: storage still fails, or it fails in a run of several processes.
        """
        for pause in (*RETRY_SECONDS, None):
            try:
                if not started:
                    self.save(step, state, meta)
                self.wait()
                return
            except StorageFailed as error:
                started = False
                if pause is None or processes.several():
                    raise self._given_up(step, error) from error
                log.warning("step %d is not saved (%s): trying again in %g s", step, error, pause)
                time.sleep(pause)

    def _given_up(self, step: int, error: StorageFailed) -> StoppedEarly:
        return StoppedEarly(
            f"step {step} could not be saved in {self.directory} ({error}); what was saved before "
            "is whole: run the same command again"
        )

    def wait(self) -> None:
        """Returns once every checkpoint that was started is on disk.

        Raises:
          StorageFailed: one of them could not be written.
        """
        with _failures_named():
            self._manager.wait_until_finished()

    def reached_preemption(self, step: int) -> bool:
        """Whether JAX's preemption service, if it is on, had a notice and chose this step.

        Orbax asks it too when it saves, so the service must be asked by the steps of checkpoints.
        """
        return bool(self._manager.reached_preemption(step))

    def restore(self, abstract: TrainState) -> tuple[int, TrainState, dict[str, Any]] | None:
        """The newest readable checkpoint as (step, state, meta), or None if there is none at all.

        A checkpoint that any process cannot read is skipped with a warning, and the one before it
        is read instead.

        Args:
          abstract: shapes, types and shardings to restore into. The shardings may differ from
            those the checkpoint was saved with.

        Raises:
          InputError: there are checkpoints, but none can be read.
        """
        own = json.dumps(sorted(self._manager.all_steps(), reverse=True))
        steps = json.loads(processes.share(own))  # process 0's view of a shared file system
        for step in steps:
            restored, problem = self._try(step, abstract)
            if problem:
                message = "%s/%d cannot be read (%s): trying the one before"
                log.warning(message, self.directory, step, problem)
                continue
            for newer in (s for s in steps if s > step):
                self._manager.delete(newer)  # damaged, and in the way of saving that step again
            optimizer = restored["train"]["optimizer"]
            return step, TrainState(restored["params"], optimizer), dict(restored["meta"])
        if steps:
            raise InputError(
                f"no checkpoint in {self.directory} can be read: "
                "delete that directory to start afresh"
            )
        return None

    def _try(self, step: int, abstract: TrainState) -> tuple[Any, str]:
        """A checkpoint's items and an empty text, or None and the first process's problem."""
        arrays = ocp.StandardCheckpointHandler
        handler = ocp.CompositeCheckpointHandler(
            params=arrays(), train=arrays(), meta=ocp.JsonCheckpointHandler()
        )
        restored, problem = None, ""
        try:
            with _alone(handler) as reader:
                restored = reader.restore(
                    _place(self.directory / str(step)),
                    args=ocp.args.Composite(
                        params=ocp.args.StandardRestore(abstract.params),
                        train=ocp.args.StandardRestore({"optimizer": abstract.optimizer}),
                        meta=ocp.args.JsonRestore(),
                    ),
                )
        except StoppedEarly:
            raise
        except Exception as error:  # damage shows as errors of many types
            problem = _line(error)
        return restored, next(filter(None, processes.gather_texts(problem)), "")

    def close(self) -> None:
        self._manager.close()


def complete_steps(directory: Path) -> list[int]:
    """The steps of the checkpoints in a `checkpoints` directory, newest first."""
    paths = directory.iterdir() if directory.is_dir() else ()
    # Orbax renames a folder to its bare number when the checkpoint in it is complete. In object
    # storage, which cannot rename, it adds a file.
    whole = [_COMMITTED] if is_remote(directory) else []
    found = (p for p in paths if p.name.isdecimal() and p.joinpath(*whole).exists())
    return sorted((int(p.name) for p in found), reverse=True)


def read_meta(directory: Path, step: int) -> dict[str, Any]:
    """The metadata of a checkpoint.

    Raises:
      InputError: it is missing or damaged.
    """
    return dict(_read_item(directory / str(step), "meta", ocp.JsonCheckpointHandler()))


def read_params(
    directory: Path, step: int, abstract: Params, device: jax.Device | None = None
) -> Params:
    """The parameters of a checkpoint, on one device (by default the first of this process).

    Raises:
      InputError: they are missing, damaged, or of other shapes than `abstract`.
    """
    sharding = jax.sharding.SingleDeviceSharding(device or jax.local_devices()[0])
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract
    )
    arguments = ocp.args.StandardRestore(target)
    handler = ocp.StandardCheckpointHandler()
    return cast(Params, _read_item(directory / str(step), "params", handler, args=arguments))


def _read_item(checkpoint: Path, item: str, handler: Any, **arguments: Any) -> Any:
    try:
        with _alone(handler) as reader:
            return reader.restore(_place(checkpoint / item), **arguments)
    except StoppedEarly:  # SIGTERM, while it reads
        raise
    except Exception as error:
        line = f"{checkpoint} is not a readable tlc checkpoint ({_line(error)})"
        raise InputError(line) from error


def save_params(directory: Path, step: int, params: Params, meta: dict[str, Any]) -> Path:
    """Writes parameters and metadata as a checkpoint, replacing an earlier one of that step.

    Process 0 writes; all processes must hold the same parameters and call it.

    Returns:
      The folder of the parameters.
    """
    path = (directory / str(step)).absolute()
    if processes.first():
        own = _own_process()
        # The handlers need the option too: each waits for all processes, whatever its checkpointer
        # was told.
        handler = ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(multiprocessing_options=own),
            params=ocp.StandardCheckpointHandler(multiprocessing_options=own),
            meta=ocp.JsonCheckpointHandler(multiprocessing_options=own),
        )
        if processes.several():
            # As host arrays: Orbax expects all processes to take part in saving a jax.Array.
            params = jax.tree.map(np.asarray, params)
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(params), meta=ocp.args.JsonSave(meta)
        )
        with _alone(handler) as writer:
            writer.save(_place(path), args=items, force=True)
    processes.barrier()
    return path / "params"


def _place(path: Path) -> epath.Path:
    """The path as Orbax wants it."""
    return epath.Path(str(path.absolute()))


def _alone(handler: Any) -> ocp.Checkpointer:
    """A checkpointer of this process that does not wait for the others."""
    return ocp.Checkpointer(handler, multiprocessing_options=_own_process())


def _own_process() -> ocp.options.MultiprocessingOptions:
    if not processes.several():
        return ocp.options.MultiprocessingOptions()
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
    )


@contextlib.contextmanager
def _failures_named() -> Iterator[None]:
    """Raises StorageFailed for any error: Orbax and TensorStore report storage by many types."""
    try:
        yield
    except StoppedEarly:
        raise
    except Exception as error:
        raise StorageFailed(_line(error)) from error


def _line(error: Exception) -> str:
    """The first line of an error, cut to a length that a terminal shows."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return textwrap.shorten(line, width=200, placeholder="...")
