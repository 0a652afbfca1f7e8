"""`tlc forecast` on studies made by a test: table, files, speeds of a plan, and refusals."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

from tests.helpers import studies_of_budgets as made
from tlc_jax.cli.main import main


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return made.write_study(tmp_path_factory.mktemp("short") / "study")


def forecast(study, *flags):
    assert main(["forecast", f"--init={study}", *map("--config.forecast.{}".format, flags)]) == 0
    return json.loads((study / "forecast" / "result.json").read_text())


def refusal(capsys, study, *flags):
    arguments = ["forecast", f"--init={study}", *map("--config.forecast.{}".format, flags)]
    capsys.readouterr()
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_table_and_files(study, capsys):
    result = forecast(study, "seconds=(400,4000,40000)", "recipe=quantize:4")
    text = capsys.readouterr().out
    first, second, third = result["forecasts"]
    assert (first["size"], second["size"]) == ("2x128", "4x256")
    truth = made.loss_of(second["params_nonembedding"], second["tokens"])
    assert second["run_low"] < second["low"] < truth < second["high"] < second["run_high"]
    assert second["flat_low"] < second["best"] < second["flat_high"]
    assert second["megabytes"] == pytest.approx(0.5 * second["params"] / 1e6)
    lost = 3 * (second["params_nonembedding"] / 1e6) ** -0.5
    assert second["lost_nli"] == pytest.approx(lost, abs=0.2)
    assert second["lost_nli_low"] < lost < second["lost_nli_high"]
    assert third["beyond"] == pytest.approx(100, rel=0.01)
    assert "size" not in third
    assert "40,000 seconds: no forecast: 100 times" in text
    assert "4x256" in text
    assert result["backtest"]["predicted"] == 8
    assert result["backtest"]["mean_absolute_error"] < 0.1
    with (study / "forecast" / "forecast.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["seconds"]) for row in rows] == [400, 4000, 40000]
    assert float(rows[1]["loss"]) == pytest.approx(second["loss"])
    assert (study / "forecast" / "forecast.png").read_bytes().startswith(b"\x89PNG")


def test_defaults(study, tmp_path):
    assert main(["forecast", f"--init={study}", f"--workdir={tmp_path}"]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert [row["seconds"] for row in result["forecasts"]] == [400, 1200, 4000]
    dense = result["forecasts"][-1]
    assert dense["megabytes"] == pytest.approx(4 * dense["params"] / 1e6)


def plan(folder, speedup, sizes, kind="encoder"):
    plans = [
        {
            "kind": kind, "layers": layers, "hidden": hidden, "params": total,
            "params_nonembedding": inner,
            "tokens_per_second": speedup and speedup * made.speed_of(inner),
        }
        for layers, hidden in sizes
        for inner, total in [made.params_of(layers, hidden)]
    ]  # fmt: skip
    folder.mkdir()
    result = {"stage": "plan", "device": "TPU v5e", "devices": 4, "plans": plans}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_speeds_of_a_plan(study, tmp_path, capsys):
    # Twenty times as fast: 200 seconds are as 4000, also for a size that was never trained.
    folder = plan(tmp_path / "plan", 20, [*made.SIZES, (5, 320)])
    (ours,) = forecast(study, "seconds=4000")["forecasts"]
    result = forecast(study, "seconds=200", f"speeds={folder}")
    (theirs,) = result["forecasts"]
    assert theirs["beyond"] == pytest.approx(ours["beyond"], rel=0.05)
    assert "speeds of 4 x TPU v5e" in capsys.readouterr().out
    assert theirs["best"] == pytest.approx(ours["best"], rel=0.1)
    assert {theirs["size"], *theirs["flat"].split()} <= {"4x256", "5x320"}
    (beyond,) = forecast(study, "seconds=4000", f"speeds={folder}")["forecasts"]
    assert "times the largest budget" in beyond["refused"]
    assert not (study / "forecast" / "forecast.png").exists()


def test_wrong_speeds_and_recipes(study, tmp_path, capsys):
    unknown = plan(tmp_path / "unknown", None, made.SIZES)
    assert "no step time" in refusal(capsys, study, f"speeds={unknown}")
    translators = plan(tmp_path / "translators", 1, made.SIZES, "translator")
    assert "no step time" in refusal(capsys, study, f"speeds={translators}")
    assert "does not exist" in refusal(capsys, study, f"speeds={tmp_path / 'none'}")
    far = plan(tmp_path / "far", 1, [(40, 2048)])
    assert "within tenfold" in refusal(capsys, study, f"speeds={far}")
    other = tmp_path / "result.json"
    other.write_text(json.dumps({"stage": "pretrain"}))
    assert "not the result of `tlc plan`" in refusal(capsys, study, f"speeds={other}")
    assert "did you mean quantize:4" in refusal(capsys, study, "recipe=quantize:5")


def test_too_few_sizes_and_budgets(tmp_path, capsys):
    two = made.write_study(tmp_path / "two", sizes=made.SIZES[:2])
    assert "three sizes; there are 2" in refusal(capsys, two)
    one = made.write_study(tmp_path / "one", budgets=(400,))
    line = refusal(capsys, one)
    assert "two budgets; each size has one" in line
    assert str(one) in line
    assert "no jobs/" in refusal(capsys, one, f"studies=('{tmp_path}',)")
    assert "there are 0" in refusal(capsys, one, "kind=translator")


def test_budgets_of_several_studies(tmp_path):
    long = made.write_study(tmp_path / "long", budgets=(400,))
    short = made.write_study(tmp_path / "short", budgets=(100,))
    result = forecast(long, f"studies=('{short}',)", "recipe=quantize:4")
    assert result["runs"] == 16
    assert result["forecasts"][0]["lost_nli"] > 0
    assert "two budgets" in result["backtest"]["refused"]
    assert forecast(long, f"studies=('{short}',)", "backtest=0")["backtest"] is None


def test_branches_are_budgets(study, tmp_path):
    """Runs of half and a quarter of the budget, where budget.branches keeps them."""
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    for run in sorted((copy / "jobs").glob("*-b400-*")):
        for share, seconds in (("0.25", 100), ("0.5", 200)):
            shorter = run.with_name(run.name.replace("b400", f"b{seconds}"))
            (run / "branches").mkdir(exist_ok=True)
            shorter.rename(run / "branches" / share)
        for path in run.rglob("config.json"):
            config = json.loads(path.read_text())
            # As long as that of the shortest budget, so another share of each.
            warmup = 0.06 if path.parent == run else 0.24 * 0.25 / float(path.parent.name)
            config["optimizer"] = {"schedule": "wsd", "warmup": warmup}
            path.write_text(json.dumps(config))
    before, after = forecast(study, "recipe=quantize:4"), forecast(copy, "recipe=quantize:4")
    assert after["notes"] == []
    assert after["runs"] == 24
    assert after["law"] == pytest.approx(before["law"], rel=1e-3)
    assert after["forecasts"][0]["lost_nli"] == pytest.approx(before["forecasts"][0]["lost_nli"])


def test_other_points_of_a_study_leave_the_recipe_alone(study, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    path = copy / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    varied = [
        row | {"point": "rounds=one", "accuracy": row["accuracy"] - 0.1 * (row["bits"] < 32)}
        for row in rows
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*varied, *rows]))
    before, after = forecast(study, "recipe=quantize:4"), forecast(copy, "recipe=quantize:4")
    assert after["forecasts"] == before["forecasts"]


def test_no_curvature_gives_no_forecast(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(made, "loss_of", lambda params, tokens: 3 + (tokens / 1e8) ** -0.3)
    result = forecast(made.write_study(tmp_path / "flat"))
    assert "no curvature: over the parameters" in result["refused"]
    assert result["forecasts"] == []
    assert "no forecast: no curvature" in capsys.readouterr().out


def test_runs_of_other_settings_are_left_out_and_named(study, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    for seed in (0, 1):
        path = copy / f"jobs/pretrain-2x128-b400-p{seed}/config.json"
        config = json.loads(path.read_text()) | {"optimizer": {"batch_size": 64}}
        path.write_text(json.dumps(config))
    damaged = copy / "jobs/pretrain-1x64-b100-p0/result.json"
    damaged.write_text(json.dumps(json.loads(damaged.read_text()) | {"valid_loss": None}))
    assert forecast(copy)["runs"] == 21
    text = capsys.readouterr().out
    assert "2 of 23 training runs are left out: they differ" in text
    assert "optimizer.batch_size" in text
    assert "pretrain-1x64-b100-p0 is left out" in text


def test_recipe_that_two_sizes_have(study, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    path = copy / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row for row in rows if row["recipe"] == "dense" or row["layers"] < 4]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = forecast(copy, "recipe=quantize:4")
    assert "lost_nli" not in result["forecasts"][0]
    assert "three sizes with this recipe" in capsys.readouterr().out
    assert np.isfinite(result["forecasts"][0]["megabytes"])


def test_runs_on_the_early_plateau_are_left_out(tmp_path, capsys):
    study = made.write_study(tmp_path / "study")
    before = forecast(study, "seconds=1000")["forecasts"]
    layers, hidden = made.SIZES[0]
    inner, total = made.params_of(layers, hidden)
    # 0.8 of the entropy of single tokens is 4.8 nats.
    for name, loss in (("young", 5.1), ("old", 4.6)):
        result = {
            "params": total, "params_nonembedding": inner, "tokens": 1e5, "steps": 10,
            "train_seconds": 1.0, "valid_loss": loss, "unigram_loss": 6.0,
        }  # fmt: skip
        config = {"seed": 0, "model": {"layers": layers, "hidden": hidden}}
        made.write_run(study, f"pretrain-{name}", result, config)
        after = forecast(study, "seconds=1000")["forecasts"]
        assert (after == before) == (name == "young")
    text = capsys.readouterr().out
    assert "pretrain-young is left out: it ended on the early plateau" in text
    assert "pretrain-old" not in text
