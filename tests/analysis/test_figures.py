import colorsys
import dataclasses

import matplotlib
import pytest

from tlc_jax.analysis import figures, style
from tlc_jax.analysis.recipe_labels import count_label, recipe_labels
from tlc_jax.analysis.records import load
from tlc_jax.analysis.regime import regime


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
        "loss_seconds", "loss_steps", "accuracy_megabytes-n-li", "accuracy_nonzero-n-li", "lost-n-li", "scratch-n-li",
    ]  # fmt: skip
    figures.draw_all(study, second)
    for figure in drawn:
        content = figure.path.read_bytes()
        assert content == (second / figure.path.name).read_bytes()
        assert b"Software" not in content[:2000]


def test_loss_curves_show_every_size_and_the_spread_of_seeds(study):
    axes = figures.loss_curves(study, "seconds").axes[0]
    lines = [line for line in axes.lines if not line.get_label().startswith("_")]
    assert [line.get_label() for line in lines] == ["2x64 (600 k)", "3x128 (1.7 M)", "4x256 (5.4 M)"]
    assert len(axes.collections) == 3
    assert axes.get_xlabel() == "training seconds (log)" and "nats" in axes.get_ylabel()
    colours = style.size_colours(study.sizes)
    assert [line.get_color() for line in lines] == [colours[size] for size in study.sizes]


@pytest.mark.parametrize("axis", ["seconds", "steps"])
def test_a_final_evaluation_alone_can_be_drawn(study, axis, tmp_path):
    curves = [
        dataclasses.replace(c, steps=c.steps[-1:], seconds=c.seconds[-1:], losses=c.losses[-1:]) for c in study.curves
    ]
    figure = figures.loss_curves(dataclasses.replace(study, curves=tuple(curves)), axis)
    assert style.save(figure, tmp_path / "loss.png").stat().st_size > 0
    assert regime(curves).leader == study.sizes[-1]


@pytest.mark.parametrize(("cost", "unit"), [("megabytes", "MB"), ("nonzero", "non-zero parameters")])
def test_accuracy_figure_shows_every_model_and_rings_the_frontier(study, cost, unit):
    axes = figures.accuracy_against(study, "n/li", cost).axes[0]
    models = [model for model in study.models if model.task == "n/li"]
    assert len(axes.containers) == len(models)
    step, rings = axes.lines[-2:]
    costs, values = rings.get_data()
    assert list(values) == sorted(values) and list(costs) == sorted(costs)
    assert max(values) == pytest.approx(100 * max(model.accuracy.mean for model in models))
    assert step.get_xdata()[-1] == axes.get_xlim()[1]
    assert unit in axes.get_xlabel() and "%" in axes.get_ylabel()


def test_lost_accuracy_is_the_difference_to_the_same_seeds_dense_model(study):
    axes = figures.accuracy_lost(study, "n/li").axes[0]
    assert len(axes.containers) == 7 * 3
    labels = [label.get_text() for label in axes.get_yticklabels()]
    pruned = next(m for m in study.models if m.task == "n/li" and m.recipe == "prune:0.9" and str(m.size) == "2x64")
    dense = next(
        m for m in study.models if m.task == "n/li" and m.recipe == "dense" and str(m.size) == "2x64" and m.pretrained
    )
    points = {
        (round(c.lines[0].get_ydata()[0] + 0.2), round(c.lines[0].get_xdata()[0], 6))
        for c in axes.containers
        if c.lines[0].get_color() == style.size_colours(study.sizes)[pruned.size]
    }
    expected = round(100 * (dense.accuracy.mean - pruned.accuracy.mean), 6)
    assert (labels.index("pruned 90 %"), expected) in points


def test_colours_get_lighter_with_parameters(study):
    colours = style.size_colours(study.sizes[::-1])
    lightness = [colorsys.rgb_to_hls(*colours[size][:3])[1] for size in study.sizes]
    assert lightness == sorted(lightness)
    assert lightness[-1] < 0.75  # still seen on white


def test_ticks_are_round_and_enough():
    assert style.round_ticks(0.1, 20.0) == pytest.approx([0.1, 0.3, 1, 3, 10])
    assert style.round_ticks(1.0, 9.0) == pytest.approx([1, 1.5, 2, 3, 4, 5, 6, 8])
    assert [style.plain_number(value) for value in (999.99, 12_000, 0.25, 3e6)] == ["1k", "12k", "0.25", "3M"]


def test_recipe_labels_are_short_and_distinct():
    recipes = ["dense", "prune:0.75,scope=global+quantize:4,per=channel", "quantize:4,per=tensor",
               "quantize:4,per=channel", "prune:0.5"]  # fmt: skip
    assert list(recipe_labels(recipes).values()) == [
        "dense", "pruned 75 % + 4-bit", "4-bit (per=tensor)", "4-bit (per=channel)", "pruned 50 %",
    ]  # fmt: skip
    assert [count_label(count) for count in (17, 999_999, 5_432_100)] == ["17", "1 M", "5.43 M"]
