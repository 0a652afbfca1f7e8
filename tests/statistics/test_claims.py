import dataclasses
import json

import pytest

from tlc_jax.statistics.claims import evaluate
from tlc_jax.statistics.kinds import Size
from tlc_jax.statistics.uncertainty import FAILS, HOLDS, UNTESTED
from tlc_jax.study.rows import load


def _verdicts(workdir):
    return {claim.number: claim for claim in evaluate(load(workdir))}


def _edit(workdir, change):
    path = workdir / "results.jsonl"
    rows = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row is not None))


def test_claims_hold_where_large_models_win(study_maker, tmp_path):
    claims = _verdicts(study_maker(tmp_path))
    assert {number for number, claim in claims.items() if claim.verdict == HOLDS} == {
        "1a", "1b", "2a", "2b", "2c", "control",
    }  # fmt: skip
    assert list(claims) == [
        "1a",
        "1b",
        "2a",
        "2b",
        "2c",
        "3",
        "4",
        "5",
        "6",
        "7",
        "8",
        "9",
        "control",
    ]


def test_claims_fail_where_small_models_win(study_maker, tmp_path):
    claims = _verdicts(study_maker(tmp_path, large_wins=False))
    assert {number for number, claim in claims.items() if claim.verdict == FAILS} == {
        "1a",
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
    assert any("overtakes" in line or "leads" in line for line in claims["1b"].evidence)


def test_quantization_is_judged_at_four_bits_and_every_recipe_counts(study_maker, tmp_path):
    claims = _verdicts(study_maker(tmp_path))
    assert [line.split(":", 1)[0] for line in claims["2a"].evidence] == [
        "nli, quantize",
        "nli, quantize",
    ]
    # One of the two 4-bit recipes now ruins the largest size: the claim falls.
    spoilt = {"hidden": 256, "recipe": "quantize:4,per=tensor"}
    _edit(tmp_path, lambda row: row | ({"accuracy": 0.3} if spoilt.items() <= row.items() else {}))
    assert _verdicts(tmp_path)["2a"].verdict == FAILS


def test_a_difference_within_the_seeds_does_not_hold(study_maker, tmp_path):
    study_maker(tmp_path)

    def blur(row):
        noise = {0: -0.2, 1: 0.2}[row["seed"]] if row["recipe"] == "prune:0.9" else 0.0
        return row | {"accuracy": row["accuracy"] + noise}

    _edit(tmp_path, blur)
    assert _verdicts(tmp_path)["2b"].verdict == FAILS


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


@pytest.mark.parametrize(("shift", "verdict"), [(0.05, HOLDS), (1.5, FAILS)])
def test_shape_is_judged_by_sizes_of_equal_parameters(study_maker, tmp_path, shift, verdict):
    claim = _with_twin(study_maker, tmp_path, shift)
    assert claim.verdict == verdict
    assert "3x128 (1.7 M)" in claim.evidence[0] and "6x96 (1.7 M)" in claim.evidence[0]


@pytest.mark.parametrize(("large_wins", "verdict"), [(True, HOLDS), (False, FAILS)])
def test_finetuning_is_judged_at_equal_pretraining_loss(study_maker, tmp_path, large_wins, verdict):
    study_maker(tmp_path, large_wins=large_wins)
    assert _verdicts(tmp_path)["5"].verdict == UNTESTED  # the sizes' losses are far apart
    _edit(tmp_path, lambda row: row | {"pretrain_valid_loss": 3.0})
    assert _verdicts(tmp_path)["5"].verdict == verdict


def test_control_fails_where_scratch_is_as_good(study_maker, tmp_path):
    study_maker(tmp_path)
    _edit(tmp_path, lambda row: row | ({"accuracy": 0.9} if row["init"] == "scratch" else {}))
    assert _verdicts(tmp_path)["control"].verdict == FAILS
