"""Saving and restoring with Orbax: parameters, optimizer state and bookkeeping as three items of one checkpoint.

Items are apart so that finetuning and compression can take the parameters alone, into any placement.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from tlc_jax import config
from tlc_jax.core import distributed as processes
from tlc_jax.core.errors import InputError, StoppedEarly
from tlc_jax.models.network import Params
from tlc_jax.training.step import TrainState

log = logging.getLogger(__name__)


RETRY_SECONDS = (1.0, 5.0, 15.0, 30.0, 60.0)
"""Pauses before the last checkpoint of a run is tried again."""


class StorageFailed(Exception):
    """A checkpoint could not be written; the ones before it are whole."""


class Checkpointer:
    """The checkpoints of a run, under `workdir/checkpoints`."""

    def __init__(self, workdir: Path, settings: config.Checkpoint):
        self.directory = (workdir / "checkpoints").absolute()
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=settings.keep,
                keep_period=settings.keep_every_steps or None,
                cleanup_tmp_directories=True,
                enable_background_delete=False,
                # Made in the background, folders that cannot be made leave threads that wait for them for minutes.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            ),
            item_names=("params", "train", "meta"),
        )

    def save(self, step: int, state: TrainState, meta: dict[str, Any]) -> None:
        """Starts saving; returns once the arrays may be donated to the next step.

        Raises:
          StorageFailed: this checkpoint, or the one before that was still on its way, cannot be written.
        """
        if jax.default_backend() == "cpu":
            # A host view of a CPU array is the array itself, which the next step overwrites: save a copy.
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
        """`save`, and whether storage took it. A run can do without one checkpoint, and go on.

        Raises:
          StoppedEarly: it did not, and there are other processes, which may be waiting for this one to finish.
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
        """Returns once this step is on disk. Storage that fails is given some minutes to come back.

        Args:
          step, state, meta: as for `save`.
          started: whether saving this step was started already.

        Raises:
          StoppedEarly: storage did not come back, or there are other processes.
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
            f"step {step} could not be saved in {self.directory} ({error}); what was saved before is whole: "
            "run the same command again"
        )

    def wait(self) -> None:
        """Returns once everything started is on disk.

        Raises:
          StorageFailed: it could not be written.
        """
        with _failures_named():
            self._manager.wait_until_finished()

    def restore(self, abstract: TrainState) -> tuple[int, TrainState, dict[str, Any]] | None:
        """The newest complete checkpoint as (step, state, meta), or None where there is none at all.

        Args:
          abstract: shapes, types and shardings to restore into, whatever those were that it was saved from.

        A checkpoint that cannot be read by every process is passed over with a warning, for the one before it.

        Raises:
          InputError: there are checkpoints, but none can be read.
        """
        steps = json.loads(
            processes.share(json.dumps(sorted(self._manager.all_steps(), reverse=True)))
        )
        for step in steps:
            restored, problem = self._try(step, abstract)
            if problem:
                log.warning(
                    "%s/%d cannot be read (%s): trying the one before",
                    self.directory,
                    step,
                    problem,
                )
                continue
            for newer in (s for s in steps if s > step):
                self._manager.delete(
                    newer
                )  # damaged: it would stand in the way of saving that step again
            return (
                step,
                TrainState(restored["params"], restored["train"]["optimizer"]),
                dict(restored["meta"]),
            )
        if steps:
            raise InputError(
                f"no checkpoint in {self.directory} can be read: delete that directory to start afresh"
            )
        return None

    def _try(self, step: int, abstract: TrainState) -> tuple[Any, str]:
        """What a checkpoint holds, and what was wrong with it for any of the processes: nothing, if empty."""
        arrays = ocp.StandardCheckpointHandler
        handler = ocp.CompositeCheckpointHandler(
            params=arrays(), train=arrays(), meta=ocp.JsonCheckpointHandler()
        )
        restored, problem = None, ""
        try:
            with _alone(handler) as reader:
                restored = reader.restore(
                    self.directory / str(step),
                    args=ocp.args.Composite(
                        params=ocp.args.StandardRestore(abstract.params),
                        train=ocp.args.StandardRestore({"optimizer": abstract.optimizer}),
                        meta=ocp.args.JsonRestore(),
                    ),
                )
        except Exception as error:
            problem = _line(error)
        return restored, next(filter(None, processes.gather_texts(problem)), "")

    def close(self) -> None:
        self._manager.close()


def complete_steps(directory: Path) -> list[int]:
    """Steps of the checkpoints in a `checkpoints` directory, newest first."""
    if not directory.is_dir():
        return []
    return sorted(
        (int(p.name) for p in directory.iterdir() if p.name.isdecimal() and p.is_dir()),
        reverse=True,
    )


def read_meta(directory: Path, step: int) -> dict[str, Any]:
    """The bookkeeping saved with a checkpoint.

    Raises:
      InputError: it is missing or damaged.
    """
    path = directory / str(step)
    try:
        with _alone(ocp.JsonCheckpointHandler()) as reader:
            return cast(dict[str, Any], dict(reader.restore((path / "meta").absolute())))
    except Exception as error:
        raise InputError(f"{path} is not a readable tlc checkpoint ({_line(error)})") from error


def read_params(
    directory: Path, step: int, abstract: Params, device: jax.Device | None = None
) -> Params:
    """The parameters of a checkpoint, on one device (by default the first of this process).

    Raises:
      InputError: they are missing, damaged, or of other shapes than `abstract`.
    """
    path = directory / str(step)
    sharding = jax.sharding.SingleDeviceSharding(device or jax.local_devices()[0])
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract
    )
    try:
        with _alone(ocp.StandardCheckpointHandler()) as reader:
            return cast(
                Params,
                reader.restore((path / "params").absolute(), args=ocp.args.StandardRestore(target)),
            )
    except Exception as error:
        raise InputError(f"{path} is not a readable tlc checkpoint ({_line(error)})") from error


def save_params(directory: Path, step: int, params: Params, meta: dict[str, Any]) -> Path:
    """Writes parameters alone as a checkpoint, in place of one that is there; returns the folder they lie in.

    Of several processes, all of which must hold the same parameters, the first one writes.
    """
    path = (directory / str(step)).absolute()
    if processes.first():
        own = _own_process()
        # Each handler would wait for all processes, whatever its checkpointer was told.
        handler = ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(multiprocessing_options=own),
            params=ocp.StandardCheckpointHandler(multiprocessing_options=own),
            meta=ocp.JsonCheckpointHandler(multiprocessing_options=own),
        )
        whole = (
            jax.tree.map(np.asarray, params) if processes.several() else params
        )  # of one process, so no array of all
        with _alone(handler) as writer:
            writer.save(
                path,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(whole), meta=ocp.args.JsonSave(meta)
                ),
                force=True,
            )
    processes.barrier()
    return path / "params"


def _alone(handler: Any) -> ocp.Checkpointer:
    """A checkpointer of this process, which waits for no other."""
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
    """Orbax and TensorStore report failing storage as errors of many types; none of them is a reason to give up."""
    try:
        yield
    except Exception as error:
        raise StorageFailed(_line(error)) from error


def _line(error: Exception) -> str:
    """The first line of an error, cut to a length that a terminal shows."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if len(text) <= 200 else text[:200] + "..."
