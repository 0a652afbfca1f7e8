"""A study that gains axes: what runs, what does not run again, its rows and its report."""

from __future__ import annotations

import csv
import json

from tests.commands.conftest import tlc
from tests.commands.test_study import states, study_settings, write_config
from tlc_jax import api
from tlc_jax.study.rows import load

BATCH = {"stage": "pretrain", "16": {}, "8": {"optimizer": {"batch_size": 8}}}
AGE = {"stage": "checkpoint", "end": {}, "1": {"init": {"from": "checkpoints/1"}}}


def _rows(run):
    return [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]


def test_a_study_gains_axes(world, tmp_path, capsys):
    run = tmp_path / "run"
    settings = study_settings(world, recipes=["dense"], scratch=[])
    settings["checkpoint"]["keep_every_steps"] = 1

    def config(**study):
        settings["study"] |= study
        return write_config(tmp_path / "study.py", settings)

    plain = config()
    assert tlc("study", plain, f"--workdir={run}") == 0
    assert not {"point", "vary.batch"} & _rows(run)[0].keys()
    times = {path: path.stat().st_mtime_ns for path in run.glob("jobs/*/result.json")}

    gained = config(vary={"batch": BATCH, "age": AGE}, vary_points=["batch=8", "age=1"])
    before = states(gained, run, capsys)
    assert [name for name, state in before.items() if state == "done"] == [
        path.parent.name
        for path in sorted(times, key=lambda path: list(before).index(path.parent.name))
    ]
    assert len(before) == 3 + 3 + 2
    # One job, and what it needs, as an array job would; then the rest.
    wanted = "compress-1x64-p0-words-s0-age=1-dense"
    assert tlc("study", gained, f"--workdir={run}", f"--job={list(before).index(wanted)}") == 0
    assert [row["point"] for row in _rows(run)] == ["", "age=1"]
    assert tlc("study", gained, f"--workdir={run}") == 0
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert set(states(gained, run, capsys).values()) == {"done"}

    rows = {row["point"]: row for row in _rows(run)}
    assert {point: (row["vary.batch"], row["vary.age"]) for point, row in rows.items()} == {
        "": ("16", "end"),
        "age=1": ("16", "1"),
        "batch=8": ("8", "end"),
    }
    # Another start, and another run: all three end with weights of their own.
    assert len({row["valid_loss"] for row in rows.values()}) == 3
    assert {point: row["steps"] for point, row in rows.items()} == {"": 2, "age=1": 1, "batch=8": 2}
    assert rows["age=1"]["pretrain_valid_loss"] is None  # that of the run's end is another
    assert rows["batch=8"]["pretrain_valid_loss"] != rows[""]["pretrain_valid_loss"]
    log = json.loads((run / "jobs/finetune-1x64-p0-words-s0-age=1/config.json").read_text())
    assert log["init"]["from"].endswith("pretrain-1x64-p0/checkpoints/1")

    assert tlc("report", f"--workdir={run}") == 0
    assert "and 2 at other values of" in capsys.readouterr().out
    with (run / "report/vary.csv").open() as file:
        table = {(row["vary.batch"], row["vary.age"]): row for row in csv.DictReader(file)}
    assert {key: row["jobs"] for key, row in table.items()} == {
        ("16", "end"): rows[""]["job"],
        ("16", "1"): rows["age=1"]["job"],
        ("8", "end"): rows["batch=8"]["job"],
    }
    with (run / "report/models.csv").open() as file:
        assert [row["jobs"] for row in csv.DictReader(file)] == [rows[""]["job"]]
    assert "Axes of the study" in (run / "report/index.html").read_text()
    curves = api.load_study(run).curves()
    assert set(curves["job"]) == {"pretrain-1x64-p0", "pretrain-1x64-p0-batch=8"}

    # An axis may train alone: its point has learning curves and no evaluated models.
    share = {
        "stage": "pretrain",
        "none": {},
        "all": {"model": {"share": "all"}},
        "grid": {"tasks": ()},
    }
    trains = config(
        vary={"batch": BATCH, "age": AGE, "share": share},
        vary_points=["batch=8", "age=1", "share=all"],
    )
    assert len(states(trains, run, capsys)) == len(before) + 1
    assert tlc("study", trains, f"--workdir={run}") == 0
    (trained,) = [one for one in load(run).varied if one.point["share"] == "all"]
    assert [curve.job for curve in trained.curves] == ["pretrain-1x64-p0-share=all"]
    assert trained.models == ()
    assert trained.point == {"batch": "16", "age": "end", "share": "all"}
    assert tlc("report", f"--workdir={run}") == 0

    # What an axis has run with stays as it is.
    other = {**BATCH, "8": {"optimizer": {"batch_size": 4}}}
    changed = config(vary={"batch": other, "age": AGE, "share": share})
    capsys.readouterr()
    assert tlc("study", changed, f"--workdir={run}") == 2
    assert "study.vary.batch.8.optimizer.batch_size: 8 -> 4" in capsys.readouterr().err
