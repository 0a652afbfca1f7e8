"""The figures of the axes of a study, and what the page says beside figures of the paper."""

import dataclasses
import json
import re

import pytest

from tests.helpers.made_study import add_axes
from tlc_jax.commands import report
from tlc_jax.config import resolve
from tlc_jax.report import axis_figures, figures, style
from tlc_jax.report.labels import size_label
from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR
from tlc_jax.study.rows import load

AXES = {
    "batch": {
        "stage": "pretrain",
        "32": {},
        "8": {"optimizer": {"batch_size": 8, "learning_rate": 1e-3}},
        "128": {"optimizer": {"batch_size": 128}},
    },
    "masked": {"stage": "pretrain", "some": {}, "most": {"objective": {"mask_rate": 0.8}}},
    "age": {
        "stage": "checkpoint",
        "end": {},
        "50": {"init": {"from": "checkpoints/50"}},
        "25": {"init": {"from": "checkpoints/25"}},
    },
    "rate": {"stage": "finetune", "usual": {}, "low": {"optimizer": {"learning_rate": 1e-6}}},
    "dropout": {"stage": "translate", "some": {}, "none": {"model": {"dropout": 0.0}}},
}


@pytest.fixture
def workdir(study_maker, tmp_path):
    made = study_maker(tmp_path, seeds=1, kinds=("encoder", "translator"))
    return add_axes(made, AXES)


def _drawn(study, axis):
    return {what: figure for what, _, figure in axis_figures.draw(study, axis)}


def _lines(axes):
    return {line.get_label(): line for line in axes.lines if line.get_label()[0] != "_"}


def test_each_axis_has_the_figures_of_its_stage(workdir, tmp_path, monkeypatch):
    monkeypatch.setattr(style, "save", lambda figure, path: path)
    drawn = [one for one in figures.draw_all(load(workdir), tmp_path) if one.axis]
    assert [(one.kind, one.path.stem) for one in drawn] == [
        (ENCODER, "axis_curves-batch"), (ENCODER, "axis_end-batch"),
        (ENCODER, "axis_curves-masked"), (ENCODER, "axis_end-masked"),
        (ENCODER, "age-age-nli"), (ENCODER, "axis_scores-rate-nli"),
        (TRANSLATOR, "translation_axis_curves-dropout"),
        (TRANSLATOR, "translation_axis_end-dropout"),
    ]  # fmt: skip
    assert drawn[0].settings == ("optimizer.batch_size", "optimizer.learning_rate")
    assert [one.what for one in drawn if not one.wide] == ["axis_end"] * 3


def test_learning_curves_have_a_panel_per_size_and_a_line_per_value(workdir):
    study = load(workdir).of(ENCODER)
    panels = _drawn(study, "batch")["axis_curves"].axes
    assert [axes.get_title() for axes in panels] == [
        "2x64 (600 k)", "3x128 (1.7 M)", "4x256 (5.4 M)",
    ]  # fmt: skip
    for axes in panels:
        lines = _lines(axes)
        assert list(lines) == ["8", "32 (base)", "128"]
        # Two seeds: each line has a band.
        assert len(axes.collections) == 3
        ends = [line.get_ydata()[-1] for line in lines.values()]
        assert ends[0] - ends[1] == pytest.approx(2 * 0.15)
        assert ends[2] - ends[1] == pytest.approx(3 * 0.15)


def test_losses_at_the_end_are_those_of_the_shared_budget(workdir):
    study = load(workdir).of(ENCODER)
    (axes,) = _drawn(study, "batch")["axis_end"].axes
    base = _lines(axes)["32 (base)"]
    assert list(base.get_xdata()) == [size.params + 5000 for size in study.sizes]
    last = [curve.losses[-1] for curve in study.curves if str(curve.size) == "2x64"]
    assert base.get_ydata()[0] == pytest.approx(sum(last) / 2)
    assert axes.get_ylabel().endswith("at 60 seconds")
    longer = [
        dataclasses.replace(curve, seconds=tuple(9 * second for second in curve.seconds))
        for curve in study.curves
    ]
    other = dataclasses.replace(study, curves=tuple(longer))
    (axes,) = _drawn(other, "batch")["axis_end"].axes
    assert axes.get_ylabel().endswith("at the end of each run")
    assert _lines(axes)["32 (base)"].get_ydata()[0] == pytest.approx(sum(last) / 2)


def test_points_that_only_train_have_their_curves_drawn(workdir):
    path = workdir / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [row for row in rows if "batch" not in row["point"]]
    path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    study = load(workdir).of(ENCODER)
    assert sum(not part.models for part in study.varied) == 2
    drawn = _drawn(study, "batch")
    assert list(drawn) == ["axis_curves", "axis_end"]
    panels = drawn["axis_curves"].axes
    assert [axes.get_title() for axes in panels] == list(map(size_label, study.sizes))
    assert all(list(_lines(axes)) == ["8", "32 (base)", "128"] for axes in panels)
    lines = _lines(drawn["axis_end"].axes[0]).values()
    assert len({tuple(line.get_xdata()) for line in lines}) == 1


def test_a_size_without_another_value_is_left_out(workdir):
    for job in workdir.glob("jobs/pretrain-[34]*-batch=*/result.json"):
        job.unlink()
    drawn = _drawn(load(workdir).of(ENCODER), "batch")
    assert list(drawn) == ["axis_curves"]
    assert [axes.get_title() for axes in drawn["axis_curves"].axes] == ["2x64 (600 k)"]


def test_points_that_change_two_axes_are_not_drawn(workdir):
    path = workdir / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["point"] == "rate=low":
            row |= {"point": "age=25,rate=low", "vary.age": "25"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = load(workdir).of(ENCODER)
    assert len(study.varied) == 6
    assert _drawn(study, "rate") == {}
    assert list(axis_figures.alone(study, "age")) == ["25", "50", "end"]


def test_scores_lost_are_drawn_against_the_step_of_the_checkpoint(workdir):
    study = load(workdir).of(ENCODER)
    panels = {axes.get_title(): axes for axes in _drawn(study, "age")["age"].axes}
    assert len(panels) == 8
    dense, pruned = panels["dense: accuracy"], panels["pruned 90 %: accuracy lost"]
    (size, *_), recipe = study.sizes, "prune:0.9"
    lines = [axes.lines[0] for axes in (dense, pruned)]
    assert [list(line.get_xdata()) for line in lines] == [[25, 50, 100]] * 2
    parts = axis_figures.alone(study, "age").values()
    assert list(lines[0].get_ydata()) == pytest.approx(
        [part.by_size("nli")[size].points.mean for part in parts]
    )
    lost = [part.drops("nli", recipe)[size].values() for part in parts]
    assert list(lines[1].get_ydata()) == pytest.approx([50 * sum(drops) for drops in lost])


def test_a_recipe_without_dense_models_of_that_age_has_no_panel(workdir):
    path = workdir / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row for row in rows if not (row["point"][:3] == "age" and row["recipe"] == "dense")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert _drawn(load(workdir).of(ENCODER), "age") == {}


def test_the_settings_of_an_axis_are_those_of_its_values():
    vary = {**AXES["batch"], "grid": {"sizes": ["2x64"]}}
    assert axis_figures.settings_of(vary) == ("optimizer.batch_size", "optimizer.learning_rate")


def test_scores_of_other_finetuning_stand_below_those_of_the_base(workdir):
    study = load(workdir).of(ENCODER)
    panels = _drawn(study, "rate")["axis_scores"].axes
    assert len(panels) == 8
    labels = [label.get_text() for label in panels[0].get_yticklabels()]
    assert labels == ["usual (base)", "low"]
    (usual, low), (size, *_) = axis_figures.alone(study, "rate").values(), study.sizes
    scores = [part.by_size("nli")[size].points.mean for part in (usual, low)]
    assert list(panels[0].lines[0].get_xdata()) == pytest.approx(scores)
    # Nothing lies outside of the axis, which all panels share.
    left, right = panels[0].get_xlim()
    drawn = [x for axes in panels for line in axes.lines for x in line.get_xdata()]
    assert left <= min(drawn) and max(drawn) <= right == panels[-1].get_xlim()[1]


def test_the_page_says_what_the_paper_showed_beside_its_figures(workdir, monkeypatch):
    def save(figure, path):
        path.write_bytes(b"")
        return path

    monkeypatch.setattr(style, "save", save)
    report.run(resolve({}), workdir, {})
    text = (workdir / "report/index.html").read_text()
    captions = re.findall(
        r"<figcaption><strong>(.*?)\.</strong>(.*?)</figcaption>", text, re.DOTALL
    )
    found = {title: "<em>The paper:</em>" in body for title, body in captions}
    assert found == {
        "Loss against training seconds (figures 2 and 4 of the paper)": True,
        "Loss against steps (figures 3 and 4 of the paper)": True,
        "nli: accuracy against size (figures 6 and 7 of the paper)": True,
        "nli: accuracy against non-zero parameters (figures 2 and 6 of the paper)": True,
        "nli: accuracy lost to compression (figure 6 of the paper)": True,
        "nli: pretrained and from scratch": False,
        "Translation: loss against training seconds": False,
        "Translation: loss against steps": False,
        "Translation: approx_bleu against training seconds (figure 5 of the paper)": True,
        "Translation: approx_bleu against steps (figure 5 of the paper)": True,
        "Translation: depth and width: loss against steps": False,
        "translation: BLEU against size": False,
        "translation: BLEU against non-zero parameters": False,
        "translation: BLEU lost to compression": False,
        "Axis “batch”: loss against training seconds (most likely figure 13 of the paper)": True,
        "Axis “batch”: loss at the end of training": False,
        "Axis “masked”: loss against training seconds": False,
        "Axis “masked”: loss at the end of training": False,
        "nli: compression at earlier checkpoints of pretraining (figure 8 of the paper)": True,
        "nli, axis “rate”: accuracy": False,
        "Translation: axis “dropout”: loss against training seconds": False,
        "Translation: axis “dropout”: loss at the end of training": False,
    }
    # A loss under other masks is another quantity.
    unlike = [title for title, body in captions if "compare the shapes of its curves" in body]
    assert unlike == [title for title in found if "masked" in title]
