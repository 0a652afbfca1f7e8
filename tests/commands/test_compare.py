"""`tlc compare` on predictions in the released layout and on a study made by a test."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from tlc_jax.cli.main import main
from tlc_jax.commands import compare
from tlc_jax.config import Config, resolve, to_dict
from tlc_jax.study.predictions import Instances

CLASSES = ("bad", "mixed", "good")
INSTANCES = 400
SEEDS, FINETUNINGS = 4, 2
MODELS = (
    ("1x64", "dense"),
    ("1x64", "quantize:4"),
    ("2x128", "dense"),
    ("2x128", "quantize:4"),
    ("2x128", "prune:0.75"),
)


def probabilities(rng, accuracy_N, labels_N):
    """Class probabilities [N, 3] of a run that is right with these accuracies."""
    right_N = rng.random(len(accuracy_N)) < accuracy_N
    answers_N = np.where(right_N, labels_N, (labels_N + 1) % 3)
    return np.full((len(accuracy_N), 3), 0.1) + 0.7 * np.eye(3)[answers_N]


def accuracies():
    """Accuracies of a small and a large model; a fifth of the instances gets much worse."""
    rng = np.random.default_rng(1)
    small_N = rng.uniform(0.6, 1.0, INSTANCES)
    large_N = np.where(np.arange(INSTANCES) % 5 == 0, 0.1, np.sqrt(small_N))
    return {"1x64": small_N, "2x128": large_N}


@pytest.fixture
def release(tmp_path):
    rng, labels_N = np.random.default_rng(0), np.arange(INSTANCES) % 3
    folder = tmp_path / "release"
    (folder / "results").mkdir(parents=True)
    items = [
        {"guid": f"dev-{i}", "label": CLASSES[i % 3], "text_a": f"text {i}", "text_b": None}
        for i in range(INSTANCES)
    ]
    data = {"train": [], "predict": items, "label_list": CLASSES, "task_name": "sst-2"}
    (folder / "data.json").write_text(json.dumps(data))
    for size, accuracy_N in accuracies().items():
        for p in range(SEEDS):
            for f in range(FINETUNINGS):
                path = folder / "results" / f"s{size}p{p}f{f}epoch12over3.tsv"
                np.savetxt(path, probabilities(rng, accuracy_N, labels_N), delimiter="\t")
    return folder


@pytest.fixture
def study(tmp_path):
    labels_N = np.arange(INSTANCES) % 3
    workdir, texts = tmp_path / "study", tmp_path / "valid.tsv"
    # The last text stands twice.
    lines = [f"text {min(i, INSTANCES - 2)}\t{i % 3}" for i in range(INSTANCES)]
    texts.write_text("text\tlabel\n" + "\n".join(lines) + "\n")
    config = to_dict(Config())
    config["data"] |= {"valid": f"valid=files:{texts}", "text": "text", "label": "label"}
    rows = []
    for size, recipe in MODELS:
        layers, hidden = map(int, size.split("x"))
        for p in range(SEEDS):
            for s in range(FINETUNINGS):
                if recipe == "prune:0.75" and p == s == 1:
                    continue  # a job that is not done
                job = f"compress-{size}-p{p}-s{s}-{recipe.replace(':', '')}"
                # The seeds of a run decide its answers, and compression changes every seventh.
                answers = np.random.default_rng((hidden, p, s))
                predicted = probabilities(answers, accuracies()[size], labels_N)
                if recipe != "dense":
                    predicted[::7] = 0.1 + 0.7 * np.eye(3)[(labels_N[::7] + 1) % 3]
                folder = workdir / "jobs" / job / "predictions"
                folder.mkdir(parents=True)
                (folder.parent / "config.json").write_text(json.dumps(config))
                (folder.parent / "result.json").write_text(json.dumps({"labels": CLASSES}))
                np.savez(
                    folder / "valid.npz",
                    ids=np.arange(INSTANCES),
                    labels=labels_N,
                    probabilities=predicted.astype(np.float32),
                )
                row = {"job": job, "task": "mood", "recipe": recipe, "accuracy": 0.8}
                row |= {"bytes_artifact": 100, "nonzero": 50, "sparsity": 0.0, "bits": 32}
                row |= {"layers": layers, "hidden": hidden, "params": 100 * hidden}
                row |= {"pretrain_seed": p, "seed": s, "accuracy_by_split": {"valid": 0.8}}
                rows.append(row)
    (workdir / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return workdir


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_release_is_compared(release, tmp_path, capsys):
    workdir = tmp_path / "compared"
    flags = [f"--workdir={workdir}", f"--config.compare.release={release}"]
    assert main(["compare", *flags]) == 0
    assert "400 instances; 0 dropped" in capsys.readouterr().out
    worst = table(workdir / "compare" / "decaying.csv")[0]
    assert worst["label"] == CLASSES[int(worst["instance"].removeprefix("dev-")) % 3]
    (pair,) = table(workdir / "compare" / "pairs.csv")
    assert (pair["small"], pair["large"]) == ("1x64", "2x128")
    assert 0.1 < float(pair["decaying"]) <= 0.2
    for variances in table(workdir / "compare" / "variances.csv"):
        for check in ("check_within", "check_across", "check_accuracy"):
            assert abs(float(variances[check])) < 1e-12
    for figure in ("differences", "bounds-by-seeds", "variances", "variance-given-bias"):
        assert (workdir / "compare" / f"{figure}.png").stat().st_size > 5000


def test_study_is_compared_with_the_texts_of_its_decaying_instances(study, capsys):
    assert main(["compare", f"--workdir={study}", "--config.compare.examples=10"]) == 0
    assert "398 instances; 2 dropped because their texts occur twice" in capsys.readouterr().out
    worst = table(study / "compare" / "decaying.csv")
    assert len(worst) == 10
    assert all(row["text1"] == f"text {row['instance']}" for row in worst)
    assert sum(int(row["instance"]) % 5 == 0 for row in worst) >= 8


def test_models_at_other_values_of_an_axis_are_left_out(study):
    path = study / "results.jsonl"
    rows = [json.loads(line) | {"point": ""} for line in path.read_text().splitlines()]
    other = [row | {"point": "batch=64", "job": "without-predictions"} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows + other))
    assert main(["compare", f"--workdir={study}", "--config.compare.draws=1"]) == 0


def test_compressed_models_of_the_largest_size_are_compared_with_their_dense_one(study, capsys):
    assert main(["compare", f"--workdir={study}", "--config.compare.examples=20"]) == 0
    out = capsys.readouterr().out
    assert "dense against compressed: 2x128, the largest size" in out
    assert "2x128 prune:0.75 is left out: 1 of 8 runs are not done" in out
    assert len(table(study / "compare" / "pairs.csv")) == 1
    (row,) = table(study / "compare" / "compressed.csv")
    assert (row["dense"], row["compressed"]) == ("2x128 dense", "2x128 quantize:4")
    # Of the seventh that turns wrong, four fifths were nearly always right and are counted.
    assert 0.05 < float(row["broken_beyond_low"]) < float(row["broken_beyond"]) < 1 / 7
    assert 0.05 < float(row["decaying"]) < 1 / 7
    broken = table(study / "compare" / "broken.csv")
    assert len(broken) == 20 and all(int(one["instance"]) % 7 == 0 for one in broken)
    assert all(one["text1"] == f"text {one['instance']}" for one in broken)
    assert all(one["label"] == CLASSES[int(one["instance"]) % 3] for one in broken)
    assert (study / "compare" / "compressed.png").stat().st_size > 5000


def test_named_models_of_one_size_are_compared_in_pairs_of_seeds(study, capsys):
    flag = "--config.compare.models=('1x64 dense','1x64 quantize:4')"
    assert main(["compare", f"--workdir={study}", flag]) == 0
    (pair,), (row,) = (table(study / "compare" / f"{n}.csv") for n in ("pairs", "compressed"))
    assert row["compressed"] == "1x64 quantize:4"
    assert float(pair["decaying"]) == float(row["decaying"]) > 0.05
    # No answer is mended, which the baseline of independent runs would not see.
    assert float(pair["improving"]) == 0.0 and pair["fisher"] == ""


def test_dense_and_compressed_models_with_other_seeds_are_refused(study, capsys):
    path = study / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["seed"] += row["recipe"] == "quantize:4"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flag = "--config.compare.models=('1x64 dense','1x64 quantize:4')"
    assert main(["compare", f"--workdir={study}", flag]) == 2
    assert "have different seeds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "split"),
    [
        ({"train": "files:FILE"}, "heldout"),
        ({"train": "files:FILE,other=files:FILE"}, "heldout_other"),
        ({"valid": "dev=files:nothing.tsv", "test": "mood=files:FILE"}, "mood"),
    ],
)
def test_texts_of_held_out_and_test_splits_are_found(study, data, split):
    file = str(study.parent / "valid.tsv")
    data = {name: spec.replace("FILE", file) for name, spec in data.items()}
    instances = Instances(np.array([3, 5]), np.array([0, 2]))
    assert compare._texts(resolve({"data": data}), split, instances) == (("text 3",), ("text 5",))


def test_predictions_are_compared_where_the_data_is_not(study, capsys):
    (study.parent / "valid.tsv").unlink()
    assert main(["compare", f"--workdir={study}"]) == 0
    out = capsys.readouterr().out
    assert "400 instances; 0 dropped" in out and "texts are not shown" in out
    assert "text1" not in table(study / "compare" / "decaying.csv")[0]


def test_checkpoints_are_compared_where_finetuning_kept_their_predictions(study, capsys):
    """After 10 steps every ninth instance is wrong, and right at the end."""
    for final in study.glob("jobs/compress-2x128-*-dense"):
        name = final.name.replace("compress", "finetune").removesuffix("-dense")
        (final / "config.json").write_text(json.dumps({"init": {"from": f"elsewhere/jobs/{name}"}}))
        folder = study / "jobs" / name / "predictions" / "step-10"
        folder.mkdir(parents=True)
        arrays = dict(np.load(final / "predictions" / "valid.npz"))
        arrays["probabilities"][::9] = np.eye(3)[(arrays["labels"][::9] + 1) % 3]
        np.savez(folder / "valid.npz", **arrays)
    flag = "--config.compare.models=('2x128 dense','2x128 dense@10')"
    assert main(["compare", f"--workdir={study}", flag]) == 0
    (pair,) = table(study / "compare" / "pairs.csv")
    assert (pair["small"], pair["large"]) == ("2x128 dense", "2x128 dense@10")
    assert 0.05 < float(pair["decaying"]) <= 1 / 9 + 0.01 and float(pair["improving"]) == 0.0
    worst = table(study / "compare" / "decaying.csv")
    assert all(int(row["instance"]) % 9 == 0 for row in worst)
    assert not (study / "compare" / "compressed.csv").exists()
    assert main(["compare", f"--workdir={study}", flag.replace("@10", "@20")]) == 2
    assert "did you mean 2x128 dense@10?" in capsys.readouterr().err


def test_report_has_a_section_with_the_same_tables_and_figures(study, capsys):
    assert main(["compare", f"--workdir={study}"]) == 0
    (study / "config.json").write_text(json.dumps(to_dict(Config())))
    capsys.readouterr()
    assert main(["report", f"--workdir={study}"]) == 0
    assert "It breaks" in " ".join(capsys.readouterr().out.split())
    page = (study / "report" / "index.html").read_text()
    section = page.partition("<h2>Instance by instance</h2>")[2].partition("</section>")[0]
    assert "2x128 prune:0.75 is left out" in section and "text 7" in section
    assert section.count("<img src='data:image/png;base64,") == 5 and "<script" not in section
    for name in ("pairs.csv", "compressed.csv", "broken.csv", "differences.png"):
        ours, reported = (study / "compare" / name), (study / "report" / "compare-mood" / name)
        assert ours.read_bytes() == reported.read_bytes()


def test_report_of_one_seed_says_in_one_line_why_nothing_is_compared(study, capsys):
    path = study / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row["seed"] == 0))
    (study / "config.json").write_text(json.dumps(to_dict(Config())))
    assert main(["report", f"--workdir={study}"]) == 0
    page = (study / "report" / "index.html").read_text()
    section = page.partition("<h2>Instance by instance</h2>")[2].partition("</section>")[0]
    assert section.count("class='note'") == 1 and "1 finetuning seeds" in section
    assert not (study / "report" / "compare-mood").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--config.compare.models=('1x64 dense','2x64 dense')",), "the study has no '2x64 dense'"),
        (("--config.compare.models=('1x64 dense',)",), "needs two models or more"),
        (("--config.compare.task=sst2",), "compare.task=sst2: .* has mood"),
        (("--config.compare.split=test",), "does not exist: the job kept no predictions"),
    ],
)
def test_bad_settings_end_in_one_line(study, flags, message, capsys):
    import re

    assert main(["compare", f"--workdir={study}", *flags]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(message, error)


def test_models_that_answered_other_instances_are_refused(study, capsys):
    for path in study.glob("jobs/compress-2x128-*/predictions/valid.npz"):
        arrays = dict(np.load(path))
        np.savez(path, **{**arrays, "ids": arrays["ids"][::-1]})
    assert main(["compare", f"--workdir={study}"]) == 2
    assert "2x128 dense answers other instances" in capsys.readouterr().err


def test_one_seed_is_refused(study, capsys):
    path = study / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [row for row in rows if row["seed"] == 0]
    path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    assert main(["compare", f"--workdir={study}"]) == 2
    assert "has 4 pretraining and 1 finetuning seeds: compare needs" in capsys.readouterr().err


def test_workdir_without_study_is_refused(tmp_path, capsys):
    assert main(["compare", f"--workdir={tmp_path}"]) == 2
    assert "give the workdir of a study, or name compare.release" in capsys.readouterr().err
