import json
import shutil

import pytest

from tlc_jax.core.errors import InputError
from tlc_jax.statistics.claims import evaluate
from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR
from tlc_jax.study.rows import load


def _append(path, text):
    with path.open("a") as file:
        file.write(text)


def test_rows_of_all_seeds_become_one_model(study_maker, tmp_path):
    study = load(study_maker(tmp_path))
    model = next(m for m in study.models if str(m.size) == "3x128" and m.recipe == "prune:0.9")
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["hidden"] == 128 and row["recipe"] == "prune:0.9"]
    assert model.score.n == len(rows) == 4
    assert model.score.mean == pytest.approx(sum(row["accuracy"] for row in rows) / 4)
    assert model.megabytes == max(row["bytes_artifact"] for row in rows) / 1e6
    assert set(model.jobs) == {row["job"] for row in rows}


def test_from_scratch_twins_are_models_of_their_own(study_maker, tmp_path):
    study = load(study_maker(tmp_path))
    dense = [m for m in study.models if str(m.size) == "2x64" and m.recipe == "dense"]
    assert [model.pretrained for model in dense] == [True, False]
    assert dense[0].score.mean > dense[1].score.mean


def test_sizes_are_ordered_by_parameters(study_maker, tmp_path):
    assert [str(size) for size in load(study_maker(tmp_path)).sizes] == ["2x64", "3x128", "4x256"]


def test_what_recipes_remove_does_not_make_a_size_smaller(study_maker, tmp_path):
    path = study_maker(tmp_path) / "results.jsonl"
    dense = load(tmp_path).sizes
    row = json.loads(path.read_text().splitlines()[0])
    _append(
        path,
        json.dumps(row | {"recipe": "remove:0.5,of=layers", "job": "smaller", "params": 1000})
        + "\n",
    )
    assert load(tmp_path).sizes == dense


def test_a_job_that_ran_again_replaces_its_row(study_maker, tmp_path):
    study_maker(tmp_path)
    path = tmp_path / "results.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    _append(path, json.dumps(row | {"accuracy": 0.123}) + "\n")
    study = load(tmp_path)
    assert len(study.rows) == len(path.read_text().splitlines()) - 1
    assert any(0.123 in model.scores.values() for model in study.models)


def test_a_resumed_run_that_evaluated_again_has_one_curve(study_maker, tmp_path):
    before = load(study_maker(tmp_path)).curves[0]
    path = tmp_path / "jobs" / before.job / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    again = [
        row | {"valid_loss": row["valid_loss"] + 1} for row in rows[-6:] if row["event"] == "eval"
    ]
    _append(path, "".join(json.dumps(row) + "\n" for row in again) + '{"step": 12, "ev')
    after = load(tmp_path).curves[0]
    assert after.steps == before.steps
    assert after.losses[:-3] == before.losses[:-3]
    assert after.losses[-2] == pytest.approx(before.losses[-2] + 1)


def test_a_curve_ends_on_the_rows_of_its_other_points(study_maker, tmp_path):
    curve = load(study_maker(tmp_path)).curves[0]
    result = tmp_path / "jobs" / curve.job / "result.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"valid_loss": 9.9}))
    again = load(tmp_path).curves[0]
    assert again.losses == curve.losses and again.result["valid_loss"] == 9.9
    metrics = tmp_path / "jobs" / curve.job / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    rows = [row for row in rows if row["event"] != "eval" or row["step"] < curve.steps[-1]]
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    end = {"curve_end": {"valid_loss": curve.losses[-1]}}
    result.write_text(json.dumps(json.loads(result.read_text()) | end))
    assert load(tmp_path).curves[0].losses == curve.losses


def test_a_curve_of_an_older_run_ends_with_the_final_evaluation(study_maker, tmp_path):
    before = load(study_maker(tmp_path)).curves[0]
    metrics = tmp_path / "jobs" / before.job / "metrics.jsonl"
    metrics.write_text("".join(line + "\n" for line in metrics.read_text().splitlines()[:-2]))
    after = load(tmp_path).curves[0]
    assert (after.steps, after.seconds, after.losses) == (
        before.steps,
        before.seconds,
        before.losses,
    )
    result = tmp_path / "jobs" / before.job / "result.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"valid_loss": 1.5}))
    assert load(tmp_path).curves[0].losses == (*before.losses[:-1], 1.5)
    metrics.unlink()
    assert load(tmp_path).curves[0].losses == (1.5,)


def test_unfinished_pretraining_has_no_curve(study_maker, tmp_path):
    study_maker(tmp_path)
    (tmp_path / "jobs/pretrain-2x64-p0/result.json").unlink()
    assert "pretrain-2x64-p0" not in {curve.job for curve in load(tmp_path).curves}


def test_torn_last_line_is_skipped_and_said(study_maker, tmp_path):
    study_maker(tmp_path)
    _append(tmp_path / "results.jsonl", '{"layers": 2, "hid')
    study = load(tmp_path)
    assert any("cut short" in note for note in study.notes)


def test_rows_without_accuracy_are_left_out_and_said(study_maker, tmp_path):
    study_maker(tmp_path)
    row = json.loads((tmp_path / "results.jsonl").read_text().splitlines()[0])
    _append(
        tmp_path / "results.jsonl",
        json.dumps(row | {"job": "other", "accuracy": float("nan")}) + "\n",
    )
    study = load(tmp_path)
    assert "other" not in {job for model in study.models for job in model.jobs}
    assert any("no finite accuracy" in note for note in study.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("", "no evaluated model"),
        ("nonsense\n{}\n", "line 1 is not JSON"),
        ('{"layers": 2}\n', "line 1 lacks hidden"),
        ("[1, 2]\n", "line 1 lacks layers"),
    ],
)
def test_bad_results_end_in_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "results.jsonl").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_damaged_job_file_is_named(study_maker, tmp_path):
    study_maker(tmp_path)
    (tmp_path / "jobs/pretrain-2x64-p0/result.json").write_text("{")
    with pytest.raises(InputError, match=r"pretrain-2x64-p0/result\.json is not JSON"):
        load(tmp_path)


def test_jobs_with_the_same_seeds_are_counted_once_and_said(study_maker, tmp_path):
    study_maker(tmp_path)
    row = json.loads((tmp_path / "results.jsonl").read_text().splitlines()[0])
    _append(
        tmp_path / "results.jsonl",
        json.dumps(row | {"job": "other-budget", "accuracy": 0.1}) + "\n",
    )
    study = load(tmp_path)
    (model,) = [model for model in study.models if "other-budget" in model.jobs]
    assert row["job"] not in model.jobs and model.score.n == 4
    assert any("same seeds" in note for note in study.notes)


BOTH = ("encoder", "translator")


def _edit(workdir, change):
    path = workdir / "results.jsonl"
    rows = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_sizes_of_the_same_shape_know_their_kind(study_maker, tmp_path):
    study = load(study_maker(tmp_path, kinds=BOTH))
    assert study.kinds == [ENCODER, TRANSLATOR]
    shared = [size for size in study.sizes if str(size) == "2x64"]
    assert [(size.kind, size.params) for size in shared] == [
        (ENCODER, 600_000),
        (TRANSLATOR, 900_000),
    ]
    assert [str(size) for size in study.of(TRANSLATOR).sizes] == ["2x64", "6x64", "2x128"]
    for kind, models, rows in ((ENCODER, 3 * 9, 3 * 9 * 4), (TRANSLATOR, 3 * 8, 3 * 8 * 2)):
        part = study.of(kind)
        assert part.kind == kind
        assert (len(part.models), len(part.rows), len(part.curves)) == (models, rows, 6)
        assert {curve.job.split("-")[0] for curve in part.curves} == {kind.job}
    with pytest.raises(ValueError):
        _ = study.kind  # it has two: whoever asks would mix them up


def test_translators_are_scored_by_bleu_as_a_fraction(study_maker, tmp_path):
    study = load(study_maker(tmp_path, kinds=("translator",)))
    model = next(m for m in study.models if str(m.size) == "6x64" and m.recipe == "prune:0.9")
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    bleus = [row["bleu"] for row in rows if row["layers"] == 6 and row["recipe"] == "prune:0.9"]
    assert model.pretrained and model.score.n == len(bleus) == 2
    assert model.score.mean == pytest.approx(sum(bleus) / 200)
    curve = study.curves[0]
    assert len(curve.approx_bleus) == len(curve.losses) == 24
    assert all(0 < bleu < 1 for bleu in curve.approx_bleus)


def test_rows_that_name_no_kind_are_of_encoders(study_maker, tmp_path):
    before = load(study_maker(tmp_path))
    _edit(tmp_path, lambda row: {name: value for name, value in row.items() if name != "kind"})
    after = load(tmp_path)
    assert after.kinds == [ENCODER]
    assert [(m.size, m.recipe, m.scores) for m in after.models] == [
        (m.size, m.recipe, m.scores) for m in before.models
    ]


def test_each_kind_has_a_score_of_its_own(study_maker, tmp_path):
    study_maker(tmp_path, kinds=BOTH)
    assert "accuracy" not in " ".join(load(tmp_path).notes)  # null for translators
    _edit(
        tmp_path,
        lambda row: (
            row | ({"bleu": None} if row["kind"] == "translator" and row["layers"] == 6 else {})
        ),
    )
    study = load(tmp_path)
    assert any("16 of 48 rows have no finite BLEU" in note for note in study.notes)
    assert {model.size.layers for model in study.of(TRANSLATOR).models} == {2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bleu": ...}, "lacks bleu"),
        ({"kind": "parser"}, "has kind 'parser'; known: encoder, translator"),
    ],
)
def test_bad_rows_of_translators_end_in_one_line(study_maker, tmp_path, change, message):
    study_maker(tmp_path, kinds=("translator",))
    _edit(
        tmp_path,
        lambda row: {name: value for name, value in (row | change).items() if value is not ...},
    )
    with pytest.raises(InputError, match=message):
        load(tmp_path)


def test_bleu_computed_in_two_ways_is_said(study_maker, tmp_path):
    study_maker(tmp_path, kinds=("translator",))
    assert not load(tmp_path).notes
    _edit(
        tmp_path, lambda row: row | ({"bleu_signature": "tok:none"} if row["layers"] == 6 else {})
    )
    assert any(
        "several ways" in note and "tok:none" in note and "tok:13a" in note
        for note in load(tmp_path).notes
    )


def test_a_run_that_did_not_always_measure_approx_bleu_has_losses_alone(study_maker, tmp_path):
    curve = load(study_maker(tmp_path, kinds=("translator",))).curves[0]
    path = tmp_path / "jobs" / curve.job / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1].pop("approx_bleu")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = load(tmp_path).curves[0]
    assert (again.losses, again.approx_bleus) == (curve.losses, ())


def _with_axes(workdir):
    """Gives the made study an axis: each row a second time, at a value that costs 0.2 accuracy."""
    path = workdir / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    base = [row | {"point": "", "vary.batch": "16"} for row in rows]
    other = [
        row | {"point": "batch=64", "vary.batch": "64", "job": f"{row['job']}-batch=64",
               "accuracy": row["accuracy"] - 0.2, "params": row["params"] + 7}
        for row in rows
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in other + base))
    jobs = [{"name": "pretrain-2x64-p0", "points": [""]}]
    for seed in (0, 1):
        job = workdir / f"jobs/pretrain-2x64-p{seed}"
        shutil.copytree(job, f"{job}-batch=64")
        jobs.append({"name": f"{job.name}-batch=64", "points": ["batch=64"]})
    (workdir / "study.json").write_text(json.dumps({"jobs": jobs}))


def test_other_values_of_an_axis_do_not_count_as_seeds_of_the_base(study_maker, tmp_path):
    before = load(study_maker(tmp_path))
    _with_axes(tmp_path)
    after = load(tmp_path)
    assert not after.notes
    assert [(m.size, m.recipe, m.scores) for m in after.models] == [
        (m.size, m.recipe, m.scores) for m in before.models
    ]
    assert [curve.job for curve in after.curves] == [curve.job for curve in before.curves]
    assert [claim.evidence for claim in evaluate(after)] == [
        claim.evidence for claim in evaluate(before)
    ]
    (other,) = after.varied
    assert (after.point, other.point) == ({"batch": "16"}, {"batch": "64"})
    assert after.axes == {"batch": ["16", "64"]}
    assert {curve.job for curve in other.curves} == {
        "pretrain-2x64-p0-batch=64",
        "pretrain-2x64-p1-batch=64",
    }
    for base, model in zip(after.models, other.models, strict=True):
        assert model.size.params == base.size.params + 7
        assert model.score.mean == pytest.approx(base.score.mean - 0.2)
    assert load(tmp_path).of(ENCODER).axes == after.axes


def test_rows_of_another_set_of_axes_end_in_one_line(study_maker, tmp_path):
    study_maker(tmp_path)
    row = json.loads((tmp_path / "results.jsonl").read_text().splitlines()[0])
    _append(tmp_path / "results.jsonl", json.dumps(row | {"vary.batch": "64"}) + "\n")
    with pytest.raises(InputError, match=r"has the axes batch, and line 1 none: run `tlc study`"):
        load(tmp_path)


def test_a_study_without_rows_of_its_base(study_maker, tmp_path):
    study_maker(tmp_path)
    _edit(tmp_path, lambda row: row | {"point": "batch=64", "vary.batch": "64"})
    with pytest.raises(InputError, match="holds no evaluated model of the base yet"):
        load(tmp_path)
