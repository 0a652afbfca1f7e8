"""The metrics file across restarts."""

from __future__ import annotations

import io
import json
import math

import pytest

from tlc_jax import config as configs
from tlc_jax.core import json_lines
from tlc_jax.core.errors import InputError
from tlc_jax.training import trackers
from tlc_jax.training.metrics_log import MetricsWriter, ProgressLine


def test_rows_of_lost_steps_and_half_rows_are_dropped_on_resume(tmp_path) -> None:
    first = MetricsWriter(tmp_path)
    for step in (1, 2, 3):
        first.write("train", step, loss=float(step))
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "event": "tra')
    second = MetricsWriter(tmp_path, step=2)
    second.write("train", 3, loss=9.0)
    second.close()
    assert [(row["step"], row["loss"]) for row in json_lines.read(tmp_path / "metrics.jsonl")] == [
        (1, 1.0),
        (2, 2.0),
        (3, 9.0),
    ]


def test_non_finite_values_become_null(tmp_path) -> None:
    writer = MetricsWriter(tmp_path)
    writer.write("train", 1, loss=float("nan"), mfu=None)
    writer.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {
        "step": 1,
        "event": "train",
        "loss": None,
        "mfu": None,
    }


def test_a_log_file_gets_a_line_now_and_then() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream)
    for now in (0.0, 1.0, 29.0, 30.0, 31.0, 70.0):
        line.show(f"at {now:g}", now)
    assert stream.getvalue().split("\n")[:-1] == ["at 0", "at 30", "at 70"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_line_rewritten_in_place() -> None:
    stream = Terminal()
    line = ProgressLine(stream)
    line.show("one", 0.0)
    line.show("two", 0.1)
    line.close()
    assert stream.getvalue() == "\r\x1b[2Kone\r\x1b[2Ktwo\n"


def with_trackers(*names: str) -> configs.Config:
    return configs.resolve({"impl": {"trackers": names}})


def test_trackers_get_the_numbers_of_every_row_under_one_identity(tmp_path, monkeypatch) -> None:
    logged, identities = [], []

    class Tracker:
        def __init__(self, workdir, identity, config):
            identities.append(identity)

        def log(self, step, values):
            logged.append((step, values))

        def close(self):
            logged.append("closed")

    monkeypatch.setitem(trackers.TRACKERS, "wandb", Tracker)
    for step in (1, 2):
        writer = MetricsWriter(tmp_path, step, with_trackers("wandb"))
        writer.write("eval", step, loss=2.0, wrong=math.nan, seeds=[1])
        writer.close()
    assert logged == [(1, {"eval/loss": 2.0}), "closed", (2, {"eval/loss": 2.0}), "closed"]
    assert len(set(identities)) == 1


def test_tensorboard_events_are_written_when_asked_for(tmp_path) -> None:
    writer = MetricsWriter(tmp_path, settings=with_trackers("tensorboard"))
    writer.write("train", 1, loss=2.0)
    writer.close()
    assert any((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError("no wandb"), r"needs the extra: pip install 'tlc_jax\[wandb\]'"),
        (RuntimeError("not logged in\nmore"), "impl.trackers=wandb cannot start: not logged in$"),
    ],
)
def test_a_tracker_that_cannot_start_is_refused(tmp_path, monkeypatch, error, message) -> None:
    def refuse(*_):
        raise error

    monkeypatch.setitem(trackers.TRACKERS, "wandb", refuse)
    with pytest.raises(InputError, match=message):
        MetricsWriter(tmp_path, settings=with_trackers("wandb"))


def test_a_tracker_that_loses_its_connection_does_not_stop_the_run(
    tmp_path, monkeypatch, capsys
) -> None:
    class Lost:
        def __init__(self, *_):
            pass

        def log(self, step, values):
            raise ConnectionError("the server is gone")

        def close(self):
            raise ConnectionError("the server is still gone")

    monkeypatch.setitem(trackers.TRACKERS, "wandb", Lost)
    writer = MetricsWriter(tmp_path, settings=with_trackers("wandb"))
    writer.write("train", 1, loss=2.0)
    writer.close()
    assert "the server is gone" in capsys.readouterr().err
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] == 2.0


@pytest.mark.trackers
@pytest.mark.filterwarnings("default")  # of their own libraries
@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_resumed_run_is_one_run_in_its_tracker(tmp_path, monkeypatch, name) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    workdir = tmp_path / "run"
    workdir.mkdir()
    for step in (1, 2):
        writer = MetricsWriter(workdir, step, with_trackers(name))
        writer.write("train", step, loss=2.0 / step)
        writer.close()
    if name == "wandb":  # the runs of an offline folder are told apart by the ends of their names
        names = {path.name.rpartition("-")[2] for path in workdir.glob("wandb/offline-run-*")}
        assert len(names) == 1
    elif name == "mlflow":
        from mlflow import MlflowClient

        client = MlflowClient()
        (run,) = client.search_runs([client.get_experiment_by_name("tlc_jax").experiment_id])
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.0)]
    else:
        from trackio.sqlite_storage import SQLiteStorage

        (run,) = SQLiteStorage.get_runs("tlc_jax")
        assert [row["step"] for row in SQLiteStorage.get_logs("tlc_jax", run)] == [1, 2]
