import colorsys
import dataclasses

import matplotlib
import pytest
from matplotlib.colors import to_rgb

from tlc_jax.report import figures, style
from tlc_jax.report.labels import count_label, recipe_labels
from tlc_jax.statistics.curves import APPROX_BLEU
from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR
from tlc_jax.statistics.regime import regime
from tlc_jax.study.rows import load


@pytest.fixture
def study(study_maker, tmp_path):
    return load(study_maker(tmp_path, tasks=("n/li",)))


def test_every_figure_is_drawn_and_depends_on_the_study_alone(study, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(), second.mkdir()
    settings = dict(matplotlib.rcParams)
    drawn = figures.draw_all(study, first)
    assert dict(matplotlib.rcParams) == settings
    assert [figure.path.stem for figure in drawn] == [
        "loss_seconds", "loss_steps",
        "accuracy_megabytes-n-li", "accuracy_nonzero-n-li", "lost-n-li", "scratch-n-li",
    ]  # fmt: skip
    figures.draw_all(study, second)
    for figure in drawn:
        content = figure.path.read_bytes()
        assert content == (second / figure.path.name).read_bytes()
        assert b"Software" not in content[:2000]


def test_training_curves_show_every_size_and_the_spread_of_seeds(study):
    axes = figures.training_curves(study, "seconds").axes[0]
    lines = [line for line in axes.lines if not line.get_label().startswith("_")]
    assert [line.get_label() for line in lines] == [
        "2x64 (600 k)",
        "3x128 (1.7 M)",
        "4x256 (5.4 M)",
    ]
    assert len(axes.collections) == 3
    assert axes.get_xlabel() == "training seconds (log)" and "nats" in axes.get_ylabel()
    colors = style.size_colors(study.sizes)
    assert [line.get_color() for line in lines] == [colors[size] for size in study.sizes]


@pytest.mark.parametrize("axis", ["seconds", "steps"])
def test_a_final_evaluation_alone_can_be_drawn(study, axis, tmp_path):
    curves = [
        dataclasses.replace(c, steps=c.steps[-1:], seconds=c.seconds[-1:], losses=c.losses[-1:])
        for c in study.curves
    ]
    figure = figures.training_curves(dataclasses.replace(study, curves=tuple(curves)), axis)
    assert style.save(figure, tmp_path / "loss.png").stat().st_size > 0
    assert regime(curves).leader == study.sizes[-1]


@pytest.mark.parametrize(
    ("cost", "unit"), [("megabytes", "MB"), ("nonzero", "non-zero parameters")]
)
def test_accuracy_figure_shows_every_model_and_rings_the_frontier(study, cost, unit):
    axes = figures.score_against(study, "n/li", cost).axes[0]
    models = [model for model in study.models if model.task == "n/li"]
    assert len(axes.containers) == len(models)
    step, rings = axes.lines[-2:]
    costs, values = rings.get_data()
    assert list(values) == sorted(values) and list(costs) == sorted(costs)
    assert max(values) == pytest.approx(100 * max(model.score.mean for model in models))
    assert step.get_xdata()[-1] == axes.get_xlim()[1]
    assert unit in axes.get_xlabel() and "%" in axes.get_ylabel()


def test_lost_accuracy_is_the_difference_to_the_same_seeds_dense_model(study):
    axes = figures.score_lost(study, "n/li").axes[0]
    assert len(axes.containers) == 7 * 3
    labels = [label.get_text() for label in axes.get_yticklabels()]
    pruned = next(
        m
        for m in study.models
        if m.task == "n/li" and m.recipe == "prune:0.9" and str(m.size) == "2x64"
    )
    dense = next(
        m
        for m in study.models
        if m.task == "n/li" and m.recipe == "dense" and str(m.size) == "2x64" and m.pretrained
    )
    points = {
        (round(c.lines[0].get_ydata()[0] + 0.2), round(c.lines[0].get_xdata()[0], 6))
        for c in axes.containers
        if c.lines[0].get_color() == style.size_colors(study.sizes)[pruned.size]
    }
    expected = round(100 * (dense.score.mean - pruned.score.mean), 6)
    assert (labels.index("pruned 90 %"), expected) in points


def test_colors_get_lighter_with_parameters(study):
    colors = style.size_colors(study.sizes[::-1])
    lightness = [colorsys.rgb_to_hls(*to_rgb(colors[size]))[1] for size in study.sizes]
    assert lightness == sorted(lightness)
    assert lightness[-1] < 0.75  # still seen on white


def test_ticks_are_round_and_enough():
    assert style.round_ticks(0.1, 20.0) == pytest.approx([0.1, 0.3, 1, 3, 10])
    assert style.round_ticks(1.0, 9.0) == pytest.approx([1, 1.5, 2, 3, 4, 5, 6, 8])
    labels = [count_label(value) for value in (999.99, 12_000, 0.25, 3e6, 999.9e9, 2e20)]
    assert labels == ["1 k", "12 k", "0.25", "3 M", "1e12", "2e20"]


def test_recipe_labels_are_short_and_distinct():
    recipes = ["dense", "prune:0.75,scope=global+quantize:4,per=channel", "quantize:4,per=tensor",
               "quantize:4,per=channel", "prune:0.5",
               "remove:0.25,of=heads+prune:2:4+finetune", "of:the+future",
               "prune:0.5,gradual=true+finetune", "quantize:3,group=64,aware=true+finetune",
               "quantize:3,group=32,aware=true+finetune"]  # fmt: skip
    assert list(recipe_labels(recipes).values()) == [
        "dense", "pruned 75 % + 4-bit", "4-bit (per=tensor)", "4-bit", "pruned 50 %",
            "75 % of heads + pruned 2:4 + finetuned", "of:the+future",
            "gradually pruned 50 % + finetuned", "aware 3-bit (group=64) + finetuned",
            "aware 3-bit (group=32) + finetuned",
    ]  # fmt: skip
    assert [count_label(count) for count in (17, 999_999, 5_432_100)] == ["17", "1 M", "5.43 M"]


@pytest.fixture
def both(study_maker, tmp_path):
    return load(study_maker(tmp_path, kinds=("encoder", "translator")))


def test_each_kind_has_figures_of_its_own(both, tmp_path, monkeypatch):
    monkeypatch.setattr(
        style, "save", lambda figure, path: path
    )  # rendering takes most of the time
    drawn = figures.draw_all(both, tmp_path)
    assert [figure.path.stem for figure in drawn] == [
        "loss_seconds", "loss_steps",
        "accuracy_megabytes-nli", "accuracy_nonzero-nli", "lost-nli", "scratch-nli",
        "translation_loss_seconds", "translation_loss_steps",
        "translation_approx_bleu_seconds", "translation_approx_bleu_steps",
        "translation_depth_width",
        "bleu_megabytes-translation", "bleu_nonzero-translation", "lost-translation",
    ]  # fmt: skip
    assert [figure.path.stem for figure in drawn if figure.wide] == [
        "accuracy_megabytes-nli", "accuracy_nonzero-nli", "translation_depth_width",
        "bleu_megabytes-translation", "bleu_nonzero-translation",
    ]  # fmt: skip
    assert [figure.kind for figure in drawn] == [ENCODER] * 6 + [TRANSLATOR] * 8


@pytest.mark.parametrize("axis", ["seconds", "steps"])
def test_curves_of_translators_show_loss_per_target_token_and_approx_bleu(both, axis):
    part = both.of(TRANSLATOR)
    loss, bleu = (figures.training_curves(part, axis, *of).axes[0] for of in ((), (APPROX_BLEU,)))
    assert loss.get_ylabel() == "validation loss (nats per target token)"
    assert [child.get_ylabel() for child in loss.child_axes] == ["perplexity"]
    assert bleu.get_ylabel().startswith("approx_bleu (0 to 1") and bleu.child_axes == []
    assert loss.get_xlabel() == bleu.get_xlabel()
    for axes, sign in ((loss, -1), (bleu, 1)):
        lines = [line for line in axes.lines if not line.get_label().startswith("_")]
        assert [line.get_label() for line in lines] == [
            "2x64 (900 k)",
            "6x64 (1.6 M)",
            "2x128 (2.1 M)",
        ]
        ends = [sign * line.get_ydata()[-1] for line in lines]
        assert ends == sorted(ends) and len(axes.collections) == 3
    last = [max(curve.approx_bleus) for curve in part.curves if str(curve.size) == "2x128"]
    assert bleu.lines[-1].get_ydata()[-1] == pytest.approx(sum(last) / 2, abs=1e-3)


def test_bleu_is_drawn_in_points_with_the_spread_of_seeds(both):
    part = both.of(TRANSLATOR)
    axes = figures.score_against(part, "translation", "megabytes").axes[0]
    assert axes.get_ylabel() == "BLEU" and len(axes.containers) == 3 * 8
    assert all(container.has_yerr for container in axes.containers)
    assert max(axes.lines[-1].get_ydata()) == pytest.approx(
        max(100 * model.score.mean for model in part.models)
    )
    assert figures.score_lost(part, "translation").axes[0].get_xlabel() == "BLEU lost (points)"
    assert (
        figures.score_lost(both.of(ENCODER), "nli").axes[0].get_xlabel()
        == "accuracy lost (percentage points)"
    )


def test_colors_follow_the_size_within_a_kind(both):
    dark = [style.size_colors(both.of(kind).sizes)[both.of(kind).sizes[0]] for kind in both.kinds]
    axes = figures.training_curves(both.of(TRANSLATOR), "seconds").axes[0]
    assert axes.lines[0].get_color() == dark[0] == dark[1]


def test_loss_is_drawn_against_the_flops_of_the_runs_that_report_them(study, tmp_path, monkeypatch):
    monkeypatch.setattr(style, "save", lambda figure, path: path)
    assert "loss_flops" not in {figure.what for figure in figures.draw_all(study, tmp_path)}
    reporting = [
        dataclasses.replace(curve, result=curve.result | {"flops": 100.0 * curve.result["steps"]})
        for curve in study.curves
        if str(curve.size) != "3x128"
    ]
    silent = [curve for curve in study.curves if str(curve.size) == "3x128"]
    some = dataclasses.replace(study, curves=(*reporting, *silent))
    (chart,) = [d.chart for d in figures.draw_all(some, tmp_path) if d.what == "loss_flops"]
    assert chart["x"]["label"] == "training FLOPs (log)"
    assert [series["size"] for series in chart["series"]] == [0, 2]
    steps = figures.training_curves(some, "steps").axes[0].lines
    flops = figures.training_curves(some, "flops").axes[0].lines
    assert list(flops[0].get_xdata()) == [100 * step for step in steps[0].get_xdata()]
    assert flops[-1].get_color() == steps[-1].get_color()


def test_depth_and_width_are_compared_among_sizes_that_share_the_other(both):
    part = both.of(TRANSLATOR)
    figure = figures.depth_and_width(part, figures.same_shape(part))
    found = {
        axes.get_title(): [line.get_label() for line in axes.lines if line.get_label()[0] != "_"]
        for axes in figure.axes
    }
    assert found == {
        "Depth, at width 64": ["2x64 (900 k)", "6x64 (1.6 M)"],
        "Width, at 2 layers": ["2x64 (900 k)", "2x128 (2.1 M)"],
    }
    assert figures.same_shape(both.of(ENCODER)) == {}
