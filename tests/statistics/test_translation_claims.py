"""The paper's claims about translation, which are judged apart from those about encoders."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tlc_jax.statistics.claims import evaluate, width_before_depth
from tlc_jax.statistics.curves import Curve
from tlc_jax.statistics.kinds import TRANSLATOR, Size
from tlc_jax.statistics.records import Study
from tlc_jax.statistics.uncertainty import FAILS, HOLDS, UNTESTED
from tlc_jax.study.rows import load

NUMBERS = ["1a-mt", "1b-mt", "2a-mt", "2b-mt", "2c-mt", "3-mt"]


def _claims(workdir):
    return {claim.number: claim for claim in evaluate(load(workdir))}


@pytest.mark.parametrize(("large_wins", "verdict"), [(True, HOLDS), (False, FAILS)])
def test_translators_are_judged_by_the_same_criteria(study_maker, tmp_path, large_wins, verdict):
    claims = _claims(study_maker(tmp_path, large_wins=large_wins, kinds=("translator",)))
    assert {number: claim.verdict for number, claim in claims.items()} == dict.fromkeys(
        NUMBERS, verdict
    )
    assert all(claim.text.startswith("Translation: ") for claim in claims.values())
    assert not any("ccuracy" in claim.text + claim.criterion for claim in claims.values())


def test_the_kinds_do_not_touch_each_other(study_maker, tmp_path):
    folders = {name: tmp_path / name for name in ("encoders", "translators", "both")}
    for folder in folders.values():
        folder.mkdir()
    encoders = _claims(study_maker(folders["encoders"]))
    translators = _claims(study_maker(folders["translators"], kinds=("translator",)))
    study_maker(folders["both"])
    rows = (folders["both"] / "results.jsonl").read_text()
    study_maker(folders["both"], kinds=("translator",))
    with (folders["both"] / "results.jsonl").open("a") as file:
        file.write(rows)
    both = _claims(folders["both"])
    assert not any(number.endswith("-mt") for number in encoders)
    assert both == encoders | translators
    assert list(both)[:6] == ["1a", "1a-mt", "1b", "1b-mt", "2a", "2a-mt"]


def test_loss_decides_and_approx_bleu_is_stated(study_maker, tmp_path):
    study_maker(tmp_path, kinds=("translator",))
    claims = _claims(tmp_path)
    at_the_end, reached = claims["1b-mt"].evidence[-2:]
    study = load(tmp_path)
    finals = [curve.approx_bleus[-1] for curve in study.curves if str(curve.size) == "2x64"]
    assert at_the_end.startswith(f"approx_bleu at 60 s: 2x64 {sum(finals) / 2:.3f} ± ")
    assert "larger clearly better in 3 of 3 pairs" in at_the_end
    assert reached.startswith(f"to reach {min(finals):.3f} approx_bleu, where 2x64 was then: 2x64 ")
    # approx_bleu now falls with size: it is said, and the loss still decides.
    for path in tmp_path.glob("jobs/translate-*/*.json*"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        turned = [
            row | ({"approx_bleu": 1 - row["approx_bleu"]} if "approx_bleu" in row else {})
            for row in rows
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in turned))
    again = _claims(tmp_path)["1b-mt"]
    assert again.verdict == HOLDS and "clearly worse in 3" in again.evidence[-2]


def test_the_evidence_of_compression_is_in_points_of_bleu(study_maker, tmp_path):
    claims = _claims(study_maker(tmp_path, kinds=("translator",)))
    models = {(str(m.size), m.recipe): 100 * m.score.mean for m in load(tmp_path).models}
    dense, pruned = models["2x64", "dense"], models["2x64", "prune:0.9"]
    (line,) = claims["2b-mt"].evidence
    assert line.startswith(f"translation, prune:0.9: points lost 2x64 {dense - pruned:.1f} ± ")
    assert f"of {dense:.1f}" in line


def test_half_a_point_of_bleu_is_not_clear(study_maker, tmp_path):
    study_maker(tmp_path, kinds=("translator",))
    path = tmp_path / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]

    def lose(by_width):
        pruned = {64: 15.0, 128: 15.0 + by_width}
        changed = [row | {"bleu": 20.0 if row["recipe"] == "dense" else pruned[row["hidden"]]}
                   for row in rows if row["recipe"] in ("dense", "prune:0.9")]  # fmt: skip
        path.write_text("".join(json.dumps(row) + "\n" for row in changed))
        return _claims(tmp_path)["2b-mt"].verdict

    assert (lose(0.4), lose(0.6)) == (FAILS, HOLDS)


SECONDS = (10.0, 30.0, 60.0)


def _curve(layers, hidden, params, loss):
    size = Size(params, layers, hidden, TRANSLATOR)
    bleus = tuple(0.5 - (loss + extra) / 20 for extra in (2, 1, 0))
    return Curve(
        size,
        0,
        f"translate-{size}-p0",
        (1, 3, 6),
        SECONDS,
        (loss + 2, loss + 1, loss),
        {},
        0,
        bleus,
    )


BASE = _curve(2, 128, 2_000_000, 3.0)


def _judge(*curves):
    study = Study(Path("made"), pd.DataFrame(), (), curves, (), (), {}, {}, {}, ())
    return width_before_depth(study, TRANSLATOR)


@pytest.mark.parametrize(("wide", "verdict"), [(2.5, HOLDS), (2.695, FAILS), (2.9, FAILS)])
def test_width_is_judged_against_depth_grown_from_the_same_size(wide, verdict):
    claim = _judge(BASE, _curve(2, 256, 5_000_000, wide), _curve(6, 128, 4_000_000, 2.7))
    assert claim.verdict == verdict
    (line,) = claim.evidence
    assert line.startswith("wider 2x256 (5 M), deeper 6x128 (4 M): 2x256 ")
    assert f"approx_bleu 2x256 {0.5 - wide / 20:.3f}, 6x128 0.365" in line


@pytest.mark.parametrize(("wide", "verdict"), [(2.5, HOLDS), (2.9, FAILS)])
def test_the_wider_size_may_be_the_smaller_one(wide, verdict):
    claim = _judge(BASE, _curve(2, 160, 3_000_000, wide), _curve(8, 128, 5_000_000, 2.7))
    assert claim.verdict == verdict


def test_the_deeper_size_nearest_in_parameters_is_the_rival():
    claim = _judge(
        BASE,
        _curve(4, 128, 3_000_000, 2.4),
        _curve(6, 128, 4_000_000, 2.7),
        _curve(2, 256, 5_000_000, 2.5),
    )
    assert claim.verdict == HOLDS
    assert len(claim.evidence) == 1 and "deeper 6x128" in claim.evidence[0]


def test_without_the_size_they_grew_from_parameters_must_match():
    wide = _curve(2, 256, 5_000_000, 2.5)
    assert _judge(wide, _curve(8, 128, 4_500_000, 2.7)).verdict == HOLDS
    claim = _judge(wide, _curve(6, 128, 3_000_000, 2.7))
    assert claim.verdict == UNTESTED and "2x256 and 4x128 beside 2x128" in claim.evidence[0]


@pytest.mark.parametrize(
    "curves", [(), (BASE,), (BASE, _curve(2, 256, 5_000_000, 2.5)), (BASE, _curve(4, 256, 7, 2.0))]
)
def test_width_alone_tells_nothing(curves):
    assert _judge(*curves).verdict == UNTESTED


def test_as_many_defeats_as_victories_do_not_hold():
    claim = _judge(
        BASE, _curve(2, 256, 5_000_000, 2.5), _curve(8, 128, 4_900_000, 2.7),
        _curve(4, 128, 3_000_000, 2.6), _curve(4, 256, 9_000_000, 2.9),
        _curve(16, 128, 8_900_000, 2.2),
    )  # fmt: skip
    assert [line.split(":")[0] for line in claim.evidence] == [
        "wider 2x256 (5 M), deeper 8x128 (4.9 M)", "wider 4x256 (9 M), deeper 16x128 (8.9 M)",
    ]  # fmt: skip
    assert claim.verdict == FAILS
