import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from tlc_jax.core.errors import InputError
from tlc_jax.statistics.budgets import leads
from tlc_jax.statistics.claims import evaluate
from tlc_jax.statistics.kinds import Size
from tlc_jax.statistics.verdicts import (
    CONTRADICTED,
    HOLDS,
    SUGGESTED,
    UNDECIDED,
    UNTESTED,
)
from tlc_jax.study.rows import load


def _verdicts(workdir):
    return {claim.number: claim for claim in evaluate(load(workdir))}


def _edit(workdir, change):
    path = workdir / "results.jsonl"
    rows = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row is not None))


def test_claims_hold_where_large_models_win(study_maker, tmp_path):
    claims = _verdicts(study_maker(tmp_path, pretrain_seeds=4))
    assert {number for number, claim in claims.items() if claim.verdict == HOLDS} == {
        "1b", "2a", "2b", "2c", "control",
    }  # fmt: skip
    assert claims["1a"].verdict == UNDECIDED  # the runs end at different steps
    assert list(claims) == [
        "1a",
        "1b",
        "2a",
        "2b",
        "2c",
        "3",
        "4",
        "5",
        "6a",
        "6b",
        "7",
        "8",
        "9",
        "control",
    ]


def test_one_pretraining_run_suggests_at_most(study_maker, tmp_path):
    claims = _verdicts(study_maker(tmp_path, pretrain_seeds=1, seeds=3))
    found = {number: claim.verdict for number, claim in claims.items()}
    assert {number for number, verdict in found.items() if verdict == SUGGESTED} == {
        "1b", "2a", "2b", "2c", "control",
    }  # fmt: skip
    assert HOLDS not in found.values()
    assert claims["2a"].evidence[0].endswith("one run per model")


def test_claims_are_contradicted_where_small_models_win(study_maker, tmp_path):
    claims = _verdicts(study_maker(tmp_path, large_wins=False))
    assert {number for number, claim in claims.items() if claim.verdict == CONTRADICTED} == {
        "1b",
        "2a",
        "2b",
        "2c",
    }
    assert claims["control"].verdict == HOLDS  # pretraining helps whatever the size


def test_evidence_carries_the_numbers(study_maker, tmp_path):
    study_maker(tmp_path)
    claims = _verdicts(tmp_path)
    drops = load(tmp_path)
    dense = next(
        m for m in drops.models if str(m.size) == "2x64" and m.recipe == "dense" and m.pretrained
    )
    pruned = next(m for m in drops.models if str(m.size) == "2x64" and m.recipe == "prune:0.9")
    lost = 100 * (dense.score.mean - pruned.score.mean)
    (line,) = claims["2b"].evidence
    assert f"2x64 {lost:.1f} ± " in line and f"of {100 * dense.score.mean:.1f}" in line
    assert "; effect +6.15 percentage points, 95 % interval " in line
    assert line.endswith(", 2 runs per model")
    assert any("overtakes" in line or "leads" in line for line in claims["1b"].evidence)


def _keep_answers(workdir, instances=2000):
    """Predictions of every job, and rows with the accuracy that they have."""
    ease_N = np.random.default_rng(0).random(instances)

    def answer(row):
        # All models find the same instances easy, so they differ on few.
        correct_N = ease_N < row["accuracy"]
        folder = workdir / "jobs" / row["job"] / "predictions"
        folder.mkdir(parents=True)
        arrays = {"ids": np.arange(instances), "labels": np.zeros(instances, np.int32)}
        probabilities = np.eye(2, dtype=np.float32)[1 - correct_N.astype(int)]
        np.savez(folder / "matched.npz", probabilities=probabilities, **arrays)
        return row | {"accuracy": float(correct_N.mean())}

    _edit(workdir, answer)


def test_intervals_take_in_the_test_set_where_rows_tell_of_it(study_maker, tmp_path):
    study_maker(tmp_path, pretrain_seeds=3)
    luck = "without the luck of the instances"
    scored = ("2a", "2b", "2c", "control")
    claims = _verdicts(tmp_path)
    assert all(luck in claims[number].evidence[0] for number in scored)
    _keep_answers(tmp_path)
    claims = _verdicts(tmp_path)
    assert not any(luck in claims[number].evidence[0] for number in scored)
    assert all(claims[number].verdict == HOLDS for number in scored)
    assert "same instances" not in claims["2c"].evidence[0]
    # With their number alone, models count as tested on instances of their own.
    shutil.rmtree(tmp_path / "jobs")
    _edit(tmp_path, lambda row: row | {"valid_examples": 200})
    claims = _verdicts(tmp_path)
    assert not any(luck in claims[number].evidence[0] for number in scored)
    assert claims["2a"].verdict == UNDECIDED
    assert "chosen and judged on the same instances" in claims["2c"].evidence[0]


def test_answers_to_other_instances_are_not_paired(study_maker, tmp_path):
    study_maker(tmp_path)
    _keep_answers(tmp_path)
    (path, *_) = sorted(tmp_path.glob("jobs/compress-4x256-*-dense/predictions/matched.npz"))
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | {"ids": arrays["ids"] + 1})
    claims = _verdicts(tmp_path)
    assert "without the luck of the instances" in claims["2a"].evidence[0]


def test_damaged_answers_are_named(study_maker, tmp_path):
    study_maker(tmp_path)
    _keep_answers(tmp_path)
    path = next(tmp_path.glob("jobs/*/predictions/matched.npz"))
    path.write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"matched\.npz is not a file of predictions"):
        _verdicts(tmp_path)


def test_quantization_is_judged_at_four_bits_and_every_recipe_counts(study_maker, tmp_path):
    claims = _verdicts(study_maker(tmp_path))
    assert [line.split(":", 1)[0] for line in claims["2a"].evidence] == [
        "nli, quantize",
        "nli, quantize",
    ]
    # One of the two 4-bit recipes now ruins the largest size: the claim falls.
    spoilt = {"hidden": 256, "recipe": "quantize:4,per=tensor"}
    _edit(tmp_path, lambda row: row | ({"accuracy": 0.3} if spoilt.items() <= row.items() else {}))
    assert _verdicts(tmp_path)["2a"].verdict == CONTRADICTED


def test_a_model_near_the_majority_class_has_little_left_to_lose(study_maker, tmp_path):
    study_maker(tmp_path)
    assert _verdicts(tmp_path)["2b"].evidence[0].startswith("nli, prune:0.9: ")
    # 2x64 keeps 89 % of its accuracy at 90 % sparsity, and 61 % of what it has above 0.45.
    _edit(tmp_path, lambda row: row | {"accuracy_majority": 0.45})
    assert _verdicts(tmp_path)["2b"].evidence[0].startswith("nli, prune:0.6: ")
    _edit(tmp_path, lambda row: row | {"accuracy_majority": 0.64})
    (line,) = _verdicts(tmp_path)["2b"].evidence
    assert line.startswith("nli: at every sparsity some size is at the floor")


def test_budgets_below_every_dense_model_compare_small_and_large(study_maker, tmp_path):
    models = [m for m in load(study_maker(tmp_path)).models if m.pretrained]
    smallest = min(model.megabytes for model in models if model.recipe == "dense")
    assert leads(models, "megabytes").low < smallest / 2
    # There the smallest size is the rival: without its compressed models nothing is compared.
    rest = [m for m in models if m.size != models[0].size or m.recipe == "dense"]
    assert leads(rest, "megabytes").low >= smallest


def test_only_recipes_of_quantization_alone_count(study_maker, tmp_path):
    study_maker(tmp_path)
    finetuned = "quantize:4,aware=true+finetune"
    changed = {"quantize:4,per=tensor": finetuned, "quantize:4,per=channel": finetuned}
    _edit(tmp_path, lambda row: row | {"recipe": changed.get(row["recipe"], row["recipe"])})
    lines = _verdicts(tmp_path)["2a"].evidence
    assert [line.split(":")[0] for line in lines if "points lost" in line] == ["nli, quantize"]
    assert lines[0].startswith("nli, quantize:8,per=channel: ")


def test_a_difference_within_the_pretraining_runs_is_undecided(study_maker, tmp_path):
    study_maker(tmp_path)

    def blur(row):
        noise = {0: -0.04, 1: 0.04}[row["pretrain_seed"]] if row["recipe"] == "prune:0.9" else 0.0
        return row | {"accuracy": row["accuracy"] + noise}

    _edit(tmp_path, blur)
    claim = _verdicts(tmp_path)["2b"]
    assert claim.verdict == UNDECIDED
    assert re.search(r"2 runs per model; about \d+ would decide$", claim.evidence[0])


def test_differences_between_finetunings_are_averaged_away(study_maker, tmp_path):
    study_maker(tmp_path)

    def blur(row):
        noise = {0: -0.04, 1: 0.04}[row["seed"]] if row["recipe"] == "prune:0.9" else 0.0
        return row | {"accuracy": row["accuracy"] + noise}

    _edit(tmp_path, blur)
    assert _verdicts(tmp_path)["2b"].verdict == HOLDS


def test_steps_are_compared_where_all_runs_have_decayed(study_maker, tmp_path):
    study = load(study_maker(tmp_path))
    reason = _verdicts(tmp_path)["1a"].evidence[-1]
    assert reason.startswith("runs end at different steps (2x64 3,000, 3x128 1,200, 4x256 400), so")
    steps = next(curve.steps for curve in study.curves)
    curves = tuple(dataclasses.replace(curve, steps=steps) for curve in study.curves)
    claims = evaluate(dataclasses.replace(study, curves=curves))
    claim = next(claim for claim in claims if claim.number == "1a")
    assert claim.verdict == HOLDS and "at 3,000 steps" in claim.evidence[0]


def _with_parts(curve, parts=25, apart=0.0):
    """Final losses by part: hard parts are hard for all, and `apart` is of this size alone."""
    common, own = np.random.default_rng(0), np.random.default_rng(curve.size.params)
    weights = common.integers(90, 110, parts).astype(float)
    losses = curve.losses[-1] + common.normal(0, 1, parts) + own.normal(0, apart, parts)
    table = np.stack([losses, weights], axis=1).tolist()
    return dataclasses.replace(curve, result={**curve.result, "valid_loss_parts": table})


def test_losses_by_part_of_the_text_widen_their_intervals(study_maker, tmp_path):
    study = load(study_maker(tmp_path, pretrain_seeds=3))

    def claims(**options):
        curves = tuple(_with_parts(curve, **options) for curve in study.curves)
        found = evaluate(dataclasses.replace(study, curves=curves))
        return next(claim for claim in found if claim.number == "1b")

    assert "without the luck" in claims(parts=19).evidence[0]
    paired = claims()
    assert "without the luck" not in paired.evidence[0] and paired.verdict == HOLDS
    assert claims(apart=5.0).verdict == UNDECIDED


def test_without_data_nothing_is_claimed(study_maker, tmp_path):
    study_maker(tmp_path, scratch=False)
    _edit(tmp_path, lambda row: row if row["hidden"] == 64 and row["recipe"] == "dense" else None)
    for folder in (tmp_path / "jobs").iterdir():
        (folder / "result.json").unlink()
    claims = _verdicts(tmp_path)
    assert {claim.verdict for claim in claims.values()} == {UNTESTED}


def _with_twin(study_maker, workdir, loss_shift):
    """A study in which 3x128 got a twin of another shape and the same parameters."""
    study = load(study_maker(workdir))
    twin = Size(1_700_001, 6, 96)
    curves = [
        dataclasses.replace(
            curve, size=twin, losses=tuple(loss + loss_shift for loss in curve.losses)
        )
        for curve in study.curves
        if curve.size.hidden == 128
    ]
    study = dataclasses.replace(study, curves=(*study.curves, *curves))
    return {claim.number: claim for claim in evaluate(study)}["3"]


@pytest.mark.parametrize(("shift", "verdict"), [(0.05, HOLDS), (1.5, CONTRADICTED)])
def test_shape_is_judged_by_sizes_of_equal_parameters(study_maker, tmp_path, shift, verdict):
    claim = _with_twin(study_maker, tmp_path, shift)
    assert claim.verdict == verdict
    first, second = claim.evidence
    assert first.startswith("3x128 (1.7 M) against 6x96 (1.7 M) at 60 seconds: doubling brings 0.")
    assert f"its lead is {shift:+.3f}" in first and f"its lead is {-shift:+.3f}" in second


def test_no_shape_is_judged_by_runs_that_end_apart(study_maker, tmp_path):
    study = load(study_maker(tmp_path))
    twin = Size(1_700_001, 6, 96)
    curves = [c for c in study.curves if c.size.hidden == 128]
    shorter = [
        dataclasses.replace(c, size=twin, steps=c.steps[:12], seconds=c.seconds[:12],
                            losses=c.losses[:12])
        for c in curves
    ]  # fmt: skip
    study = dataclasses.replace(study, curves=(*study.curves, *shorter))
    claims = {claim.number: claim for claim in evaluate(study)}
    assert {claims[number].verdict for number in ("1a", "1b", "3")} == {UNDECIDED}
    assert claims["1b"].evidence[-1].startswith("runs end at different seconds (2x64 60, ")


def test_sizes_of_equal_parameters_make_no_trend(study_maker, tmp_path):
    study_maker(tmp_path)
    _edit(tmp_path, lambda row: row | {"params": 1_000_000})
    claims = _verdicts(tmp_path)
    assert {claims[number].verdict for number in ("1a", "1b", "2a", "2b")} == {UNTESTED}


def test_shape_needs_a_loss_that_falls_with_size(study_maker, tmp_path):
    study = load(study_maker(tmp_path, large_wins=False))
    claims = {claim.number: claim for claim in evaluate(study)}
    assert claims["3"].verdict == UNTESTED
    assert claims["3"].evidence == ("the loss at 60 seconds does not fall with the parameters",)


@pytest.mark.parametrize(("large_wins", "verdict"), [(True, HOLDS), (False, CONTRADICTED)])
def test_finetuning_is_judged_at_equal_pretraining_loss(study_maker, tmp_path, large_wins, verdict):
    study_maker(tmp_path, large_wins=large_wins)
    assert _verdicts(tmp_path)["5"].verdict == UNTESTED  # the sizes' losses are far apart
    _edit(tmp_path, lambda row: row | {"pretrain_valid_loss": 3.0})
    assert _verdicts(tmp_path)["5"].verdict == verdict


def test_a_larger_model_may_be_a_little_worse_but_not_a_point(study_maker, tmp_path):
    study_maker(tmp_path)

    def same(by_width):
        def change(row):
            accuracy = 0.7 + by_width.get(row["hidden"], 0.0) + 0.001 * row["pretrain_seed"]
            return row | {"pretrain_valid_loss": 3.0, "accuracy": accuracy}

        _edit(tmp_path, change)
        return _verdicts(tmp_path)["5"].verdict

    assert same({256: -0.003}) == HOLDS
    assert same({256: -0.010}) == UNDECIDED
    assert same({256: -0.030}) == CONTRADICTED


def test_control_is_contradicted_where_scratch_is_better(study_maker, tmp_path):
    study_maker(tmp_path)
    _edit(tmp_path, lambda row: row | ({"accuracy": 0.9} if row["init"] == "scratch" else {}))
    assert _verdicts(tmp_path)["control"].verdict == CONTRADICTED


def _analyze(workdir, study, rises, relative=lambda size: 0.1):
    """Adds an analysis of every encoder: the loss rise at three checkpoints."""
    for curve in study.curves:
        job = workdir / f"jobs/analyze-{curve.size}-p{curve.seed}-quantize4"
        job.mkdir()
        (job / "config.json").write_text(json.dumps({"seed": curve.seed}))
        convergence = [
            # The first is still on the early plateau, and its rise does not count.
            {"step": step, "valid_loss_dense": dense, "valid_loss_compressed": dense + rise}
            for step, dense, rise in zip((1, 2, 3), (7.0, 3.0, 2.5), rises, strict=True)
        ]
        size = {"layers": curve.size.layers, "hidden": curve.size.hidden, "params": 1}
        error = [{"relative": relative(curve.size) + 0.001 * curve.seed}]
        result = {"stage": "analyze", "recipe": "quantize:4", **size, "error": error}
        (job / "result.json").write_text(json.dumps(result | {"convergence": convergence}))


@pytest.mark.parametrize(
    ("rises", "verdict"), [((9.0, 0.5, 0.52), HOLDS), ((9.0, 0.5, 1.5), CONTRADICTED)]
)
def test_age_is_judged_from_checkpoints_past_the_plateau(study_maker, tmp_path, rises, verdict):
    _analyze(tmp_path, load(study_maker(tmp_path)), rises)
    claim = _verdicts(tmp_path)["6b"]
    assert claim.verdict == verdict and len(claim.evidence) == 3
    first, last = rises[1:]
    assert claim.evidence[0].startswith(
        f"quantize:4 costs 2x64 {first:.3f} nats at first and {last:.3f} at last; effect +"
    )


def test_changes_of_weights_are_compared_between_sizes(study_maker, tmp_path):
    study = load(study_maker(tmp_path))
    _analyze(tmp_path, study, (1.0, 1.0, 1.0), lambda size: 0.2 - 0.02 * size.layers)
    claim = _verdicts(tmp_path)["8"]
    assert claim.verdict == HOLDS
    assert claim.evidence[0].startswith("quantize:4: relative error in % 2x64 16.1 ± 0.1, 3x128")
    assert "% of the norm, 95 % interval" in claim.evidence[0]
    assert "luck" not in claim.evidence[0]  # no instance is asked
