"""A study: its grid, its jobs, and what survives failure and interruption."""

from __future__ import annotations

import csv
import fcntl
import json
import threading
from collections import Counter

import pytest

from tests.commands.conftest import tlc
from tlc_jax import config as configs
from tlc_jax.config.resolve import load_file
from tlc_jax.core.errors import InputError
from tlc_jax.study import rows
from tlc_jax.study.jobs import expand, needed_first
from tlc_jax.tasks import latency


def study_settings(world, **study) -> dict:
    settings = configs.merge(
        configs.to_dict(configs.Config()),
        {
            "data": {
                "train": f"files:{world}/train.txt",
                "valid": f"files:{world}/valid.txt",
                "cache": f"{world}/cache",
                "length": 32,
            },
            "tokenizer": {"vocab_size": 296},
            "model": {"max_length": 32},
            # As in `pretrained`, so that its programs serve here, too.
            "optimizer": {**load_file("configs/mlm.py").optimizer.to_dict(), "batch_size": 16},
            "impl": {"dropout_keys": "threefry2x32"},
            "budget": {"steps": 2},
            "eval": {"batch_size": 16},
            "compress": {"recover_epochs": 0.2, "step": 0.5},
        },
    )
    settings["study"] = {
        "sizes": ["1x64"],
        "recipes": ["dense", "quantize:4", "prune:0.5", "prune:0.5+quantize:4"],
        "scratch": ["1x64"],
        "finetune": {
            "budget": {"steps": 2},
            "optimizer": {"batch_size": 16},
            "eval": {"batch_size": 16},
            "model": {"max_length": 32},
        },
        "tasks": {
            "words": {
                "data": {
                    "train": f"files:{world}/train.tsv",
                    "valid": f"files:{world}/dev.tsv",
                    "test": f"test=files:{world}/d[e]v.tsv",
                }
            }
        },
        **study,
    }
    return settings


def write_config(path, settings) -> str:
    path.write_text(
        "import json\nfrom ml_collections import ConfigDict\n"
        "def get_config():\n"
        f"    return ConfigDict(json.loads({json.dumps(json.dumps(settings))}))\n"
    )
    return f"--config={path}"


def test_the_grid_expands_to_jobs_after_those_they_need(world, tmp_path) -> None:
    settings = study_settings(
        world,
        sizes=["1x64", "2x64"],
        scratch=["1x64", "2x64"],
        seeds=[0, 1],
        pretrain_seeds=[0, 5],
        analyses=["quantize:4", "prune:0.50"],
    )
    jobs = expand(configs.resolve(settings), tmp_path)
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    assert [job.number for job in jobs] == list(range(len(jobs)))
    counts = Counter(job.command for job in jobs)
    assert counts == {
        "pretrain": 4,
        "finetune": 4 * 2 + 2 * 2,
        "compress": 8 * 4 + 4,
        "analyze": 4 * 2,
    }
    for job in jobs:
        assert all(needed < job.number for needed in job.needs)
    last = jobs[names.index("compress-2x64-p5-words-s1-prune0.5+quantize4")]
    chain = [job.name for job in needed_first(last, jobs)]
    assert chain == ["pretrain-2x64-p5", "finetune-2x64-p5-words-s1", last.name]
    assert {job.config.budget.benchmarks for job in jobs} == {str(tmp_path / "benchmarks")}
    analyzed = jobs[names.index("analyze-2x64-p5-prune0.5")]
    assert [job.name for job in needed_first(analyzed, jobs)] == ["pretrain-2x64-p5", analyzed.name]


def test_tasks_start_from_defaults_and_not_from_pretraining(world, tmp_path) -> None:
    settings = study_settings(world)
    settings["budget"] = {"seconds": 9.0}
    settings["optimizer"]["learning_rate"] = 0.123
    jobs = expand(configs.resolve(settings), tmp_path)
    finetune = next(job for job in jobs if job.command == "finetune")
    assert finetune.config.budget.seconds == 0
    assert finetune.config.optimizer.learning_rate == configs.Optimizer().learning_rate
    assert finetune.config.model.layers == 1


def test_what_a_study_times_its_tasks_time_too(world, tmp_path) -> None:
    settings = study_settings(world)
    settings["eval"] = {**settings.get("eval", {}), "latency": [1, 8]}
    jobs = expand(configs.resolve(settings), tmp_path)
    assert {job.config.eval.latency for job in jobs} == {(1, 8)}


def test_a_mistake_in_a_task_names_the_job(world, tmp_path) -> None:
    settings = study_settings(world)
    settings["study"]["finetune"]["optimiser"] = {"batch_size": 4}
    with pytest.raises(
        InputError,
        match="settings of job finetune-1x64-p0-words-s0: unknown config field optimiser",
    ):
        expand(configs.resolve(settings), tmp_path)


def test_translators_are_trained_and_compressed_beside_encoders(world, tmp_path) -> None:
    translation = {"data": {"train": "files:a.en+a.fr"}, "budget": {"steps": 7}}
    changes = {"translators": ["2x64"], "translation": translation, "pretrain_seeds": [0, 1]}
    jobs = expand(configs.resolve(study_settings(world, **changes)), tmp_path)
    trained = [job for job in jobs if job.command == "translate"]
    assert [job.name for job in trained] == ["translate-2x64-p0", "translate-2x64-p1"]
    assert [
        (job.config.seed, job.config.budget.steps, job.config.data.train) for job in trained
    ] == [(0, 7, "files:a.en+a.fr"), (1, 7, "files:a.en+a.fr")]
    compressed = [job for job in jobs if job.name.startswith("compress-translator-2x64-p1")]
    assert [job.config.recipe for job in compressed] == list(
        dict.fromkeys(j.config.recipe for j in compressed)
    )
    assert {job.needs for job in compressed} == {(trained[1].number,)}
    assert {job.config.init.source for job in compressed} == {str(trained[1].workdir)}
    alone = expand(
        configs.resolve(study_settings(world, sizes=[], scratch=[], tasks={}, **changes)), tmp_path
    )
    assert {job.command for job in alone} == {"translate", "compress"}
    own = study_settings(world, translator_recipes=["quantize:8"], **changes)
    compressed = [
        job for job in expand(configs.resolve(own), tmp_path) if job.name.startswith("compress-")
    ]
    for_translators = {
        job.config.recipe for job in compressed if job.name.startswith("compress-translator")
    }
    assert for_translators == {"quantize:8"}
    assert len({job.config.recipe for job in compressed}) > 1


def test_a_study_starts_from_its_encoders_alone(world, tmp_path) -> None:
    settings = study_settings(world) | {"init": {"from": "runs/mlm"}}
    with pytest.raises(InputError, match=r"study\.encoders"):
        expand(configs.resolve(settings), tmp_path)


@pytest.mark.parametrize("field", ["sizes", "pretrain_seeds", "recipes", "seeds"])
def test_an_empty_grid_is_refused(world, tmp_path, field) -> None:
    with pytest.raises(InputError, match=rf"study\.{field}.* (is|are) empty"):
        expand(configs.resolve(study_settings(world, scratch=[], **{field: []})), tmp_path)


def states(config: str, workdir, capsys) -> dict[str, str]:
    capsys.readouterr()
    assert tlc("study", config, f"--workdir={workdir}", "--list") == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.strip().splitlines()]
    assert [int(number) for number, *_ in rows] == list(range(len(rows)))
    assert {name.partition("-")[0] for *_, name, needs in rows if needs == "-"} == {"pretrain"}
    assert all(
        int(needed) < int(number)
        for number, *_, needs in rows
        for needed in needs.split(",")
        if needs != "-"
    )
    return {name: state for _, state, name, _ in rows}


def test_a_study_of_encoders_that_are_trained_already(world, pretrained, tmp_path) -> None:
    recipes = ["dense", "prune:0.5+finetune+quantize:4"]
    settings = study_settings(
        world, sizes=[], scratch=[], encoders=[str(pretrained)], recipes=recipes
    )
    jobs = expand(configs.resolve(settings), tmp_path / "run")
    dense, own = jobs[1:]
    assert [job.command for job in jobs] == ["finetune", "compress", "compress"]
    assert (dense.config.init.source, dense.needs) == (str(jobs[0].workdir), (0,))
    assert (own.config.init.source, own.needs) == (str(pretrained), ())  # it finetunes by itself
    assert (
        tlc("study", write_config(tmp_path / "study.py", settings), f"--workdir={tmp_path / 'run'}")
        == 0
    )
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    ]
    assert [row["recipe"] for row in rows] == recipes
    assert all(row.keys() >= REQUIRED and row["steps"] is None for row in rows)
    assert rows[1]["bytes_artifact"] < rows[0]["bytes_artifact"] / 4
    assert tlc("report", f"--workdir={tmp_path / 'run'}") == 0


def test_names_of_jobs_are_names_of_folders(world, tmp_path) -> None:
    recipes = [
        f"quantize:8,only={only}+quantize:4" for only in ("embedding/.*", "embedding/.+", "x" * 300)
    ]
    jobs = expand(configs.resolve(study_settings(world, recipes=["prune:0.5", *recipes])), tmp_path)
    names = [job.name for job in jobs if job.command == "compress"]
    assert len(set(names)) == len(names)
    assert all("/" not in name and len(name) < 200 for name in names)
    assert any(name.endswith("-prune0.5") for name in names)


def test_a_study_from_listing_to_results(world, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(latency, "_LEAST_SECONDS", 0.0)
    settings = study_settings(world, analyses=["quantize:4"])
    settings["eval"]["latency"] = [2]
    config = write_config(tmp_path / "study.py", settings)
    run = tmp_path / "run"
    before = states(config, run, capsys)
    assert before["pretrain-1x64-p0"] == "ready"
    assert set(before.values()) == {"ready", "waiting"}
    assert not run.exists()

    # One job, and what it needs, as an array job would.
    wanted = "finetune-1x64-p0-words-s0"
    assert tlc("study", config, f"--workdir={run}", f"--job={list(before).index(wanted)}") == 0
    now = states(config, run, capsys)
    assert [name for name, state in now.items() if state == "done"] == ["pretrain-1x64-p0", wanted]

    # One job fails; the others are run all the same, and the end says so.
    broken = run / "jobs" / "compress-1x64-p0-words-s0-quantize4"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    capsys.readouterr()
    assert tlc("study", config, f"--workdir={run}") == 1
    assert "1 of 9 jobs failed: compress-1x64-p0-words-s0-quantize4" in capsys.readouterr().err
    after = states(config, run, capsys)
    assert {name for name, state in after.items() if state != "done"} == {broken.name}
    assert after[broken.name] == "failed"
    assert "config.json" in (broken / "error.txt").read_text()
    assert len((run / "results.jsonl").read_text().splitlines()) == 4

    # Mended, the same command does only what is missing.
    (broken / "config.json").unlink()
    times = {path: path.stat().st_mtime_ns for path in run.glob("jobs/*/result.json")}
    assert tlc("study", config, f"--workdir={run}") == 0
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert {(row["init"], row["recipe"]) for row in rows} == {
        ("pretrained", "dense"),
        ("pretrained", "quantize:4"),
        ("pretrained", "prune:0.5"),
        ("pretrained", "prune:0.5+quantize:4"),
        ("scratch", "dense"),
    }
    for row in rows:
        assert row.keys() >= REQUIRED
        assert row["latency_ms_2"] > 0
        assert row["test_accuracy"] == row["accuracy"]  # of the same file, named in another way
        assert (row["latency_length"], row["latency_computes"]) == (32, "float32, dense")
    pruned = {row["recipe"]: row for row in rows if row["init"] == "pretrained"}
    assert pruned["prune:0.5+quantize:4"]["bytes_artifact"] < pruned["prune:0.5"]["bytes_artifact"]
    # Both recipes with pruning shared its one round.
    assert len(list((run / "rounds").iterdir())) == 1

    assert tlc("report", f"--workdir={run}") == 0
    page = (run / "report" / "index.html").read_text()
    assert "Why it compresses" in page and "Sensitivity of each matrix" in page
    assert "Compression error by depth" not in page  # of one layer
    with (run / "report" / "analyses.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["job"], row["size"], row["recipe"]) == (
        "analyze-1x64-p0-quantize4",
        "1x64",
        "quantize:4",
    )
    rise = float(row["valid_loss_compressed"]) - float(row["valid_loss_dense"])
    assert rise != 0 and float(row["loss_rise"]) == rise


@pytest.mark.parametrize("recipe", ["dense", "remove:0.5,of=heads", "finetune"])
def test_what_cannot_be_analyzed_is_refused_before_anything_runs(
    world, tmp_path, recipe, capsys
) -> None:
    config = write_config(tmp_path / "study.py", study_settings(world, analyses=[recipe]))
    assert tlc("study", config, f"--workdir={tmp_path / 'run'}") == 2
    assert recipe in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


REQUIRED = {
    *(
        "layers",
        "hidden",
        "params",
        "seed",
        "budget_seconds",
        "steps",
        "task",
        "recipe",
        "sparsity",
        "bits",
    ),
    *("nonzero", "bytes_ideal", "bytes_artifact", "bytes_checkpoint", "accuracy"),
}


def test_results_are_written_by_one_process_at_a_time(world, tmp_path) -> None:
    jobs = expand(configs.resolve(study_settings(world)), tmp_path)
    writer = threading.Thread(target=rows.write, args=(jobs, tmp_path, {}))
    with (tmp_path / ".write-down.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        writer.start()
        writer.join(timeout=0.5)
        assert writer.is_alive()
        # What ends while the other one waits is in what it writes.
        jobs[0].workdir.mkdir(parents=True)
        (jobs[0].workdir / "result.json").write_text("{}")
    writer.join()
    written = json.loads((tmp_path / "study.json").read_text())["jobs"]
    assert [row["state"] for row in written[:2]] == ["done", "ready"]


def test_a_job_that_does_not_exist(world, tmp_path, capsys) -> None:
    config = write_config(tmp_path / "study.py", study_settings(world))
    assert tlc("study", config, f"--workdir={tmp_path / 'run'}", "--job=99") == 2
    assert "jobs 0 to 7" in capsys.readouterr().err


def test_compressing_before_finetuning_needs_pretraining_alone(world, tmp_path) -> None:
    settings = study_settings(world, scratch=[])
    settings["compress"]["when"] = "before"
    jobs = expand(configs.resolve(settings), tmp_path)
    compress = [job for job in jobs if job.command == "compress"]
    assert all([jobs[n].command for n in job.needs] == ["pretrain"] for job in compress)
    assert all(job.config.init.source.endswith("pretrain-1x64-p0") for job in compress)


def test_a_twin_needs_its_pretrained_counterpart(world) -> None:
    with pytest.raises(InputError, match="study.scratch=.*9x64.* must be among study.sizes"):
        configs.resolve(study_settings(world, scratch=["9x64"]))


def test_analysis_that_finished_under_the_old_name_is_done(world, tmp_path) -> None:
    settings = study_settings(world, analyses=["quantize:4"])

    def analysis():
        jobs = expand(configs.resolve(settings), tmp_path)
        return next(job for job in jobs if job.command == "analyze")

    name = analysis().name
    old = tmp_path / "jobs" / name.replace("analyze", "analyse")
    assert not analysis().done
    old.mkdir(parents=True)
    (old / "result.json").write_text("{}")
    assert analysis().done
    assert analysis().workdir == old
