"""Experiment trackers that get the rows of metrics.jsonl too (impl.trackers).

Each keeps a run under one identity, so a run that is stopped and resumed is one run there. Where
they store it, and with what credentials, is theirs to know: WANDB_PROJECT and WANDB_MODE,
MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME, or what else their documentation says.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tlc_jax.core import plugins
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import is_remote, read_json, upload_folder, write_json

PROJECT = "tlc_jax"
"""The project, or experiment, of runs whose environment names none."""


class Tracker(Protocol):
    """Where the metrics of one run go, beside metrics.jsonl."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the values of one row, named EVENT/NAME. Steps may come a second time."""

    def close(self) -> None:
        """Ends the session; all values are sent or stored when it returns."""


class _TensorBoard:
    def __init__(self, workdir: Path, identity: str, config: Mapping[str, Any]):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(workdir / "tensorboard"))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, workdir: Path, identity: str, config: Mapping[str, Any]):
        import wandb

        project = os.environ.get("WANDB_PROJECT", PROJECT)
        self._run = wandb.init(
            project=project,
            id=identity,
            name=workdir.name,
            dir=str(workdir),
            config=dict(config),
            resume="allow",
        )
        # Its own count of steps never goes back, as a run that resumes from a checkpoint does.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    def __init__(self, workdir: Path, identity: str, config: Mapping[str, Any]):
        from mlflow import MlflowClient

        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        known = self._client.search_runs([number], f"tags.identity = '{identity}'")
        if known:
            self._id = known[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        run = self._client.create_run(number, tags={"identity": identity}, run_name=workdir.name)
        self._id = run.info.run_id
        for section, settings in config.items():
            self._client.log_param(self._id, section, str(settings)[:6000])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1e3)
        self._client.log_batch(
            self._id, [Metric(name, value, now, step) for name, value in values.items()]
        )

    def close(self) -> None:
        self._client.set_terminated(self._id)


class _Trackio:
    def __init__(self, workdir: Path, identity: str, config: Mapping[str, Any]):
        import trackio

        name = f"{workdir.name}-{identity[:8]}"
        self._run = trackio.init(PROJECT, name=name, config=dict(config), resume="allow")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _Uploaded:
    """A tracker whose files are copied to object storage, every minute and at the end."""

    def __init__(self, tracker: Tracker, folder: Path, workdir: Path):
        self._tracker, self._folder, self._workdir = tracker, folder, workdir
        self._copied = time.monotonic()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._tracker.log(step, values)
        if time.monotonic() - self._copied > 60:
            upload_folder(self._folder, self._workdir)
            self._copied = time.monotonic()

    def close(self) -> None:
        self._tracker.close()
        upload_folder(self._folder, self._workdir)


Open = Callable[[Path, str, Mapping[str, Any]], Tracker]
"""(workdir, identity of the run, config) -> tracker."""

TRACKERS: dict[str, Open] = {
    "tensorboard": _TensorBoard,
    "wandb": _WeightsAndBiases,
    "mlflow": _MLflow,
    "trackio": _Trackio,
}
"""Our trackers by their names in impl.trackers."""


def open_trackers(names: Sequence[str], workdir: Path, config: Mapping[str, Any]) -> list[Tracker]:
    """The trackers of a run, under the identity that its workdir keeps in trackers.json.

    Raises:
      InputError: the package of a tracker is not installed, or it refuses to start.
    """
    path = workdir / "trackers.json"
    if not path.exists():
        write_json(path, {"identity": uuid.uuid4().hex})
    identity = read_json(path)["identity"]
    # Their libraries write to disks alone.
    folder = Path(tempfile.mkdtemp(prefix="tlc-"), workdir.name) if is_remote(workdir) else workdir
    folder.mkdir(exist_ok=True)
    opened: list[Tracker] = []
    for name in names:
        start: Open = plugins.find("tracker", name, "config.impl.trackers: ") or TRACKERS[name]
        try:
            tracker = start(folder, identity, config)
            opened.append(_Uploaded(tracker, folder, workdir) if is_remote(workdir) else tracker)
        except Exception as error:  # each has errors of its own, such as for a missing login
            if isinstance(error, ImportError) and name in TRACKERS:
                raise InputError(
                    f"impl.trackers={name} needs the extra: pip install 'tlc_jax[{name}]' ({error})"
                ) from error
            what = (str(error).strip() or type(error).__name__).partition("\n")[0]
            raise InputError(f"impl.trackers={name} cannot start: {what}") from error
    return opened
