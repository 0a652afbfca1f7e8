"""`tlc analyze` on a masked-language model and a classifier, and the checkpoints that it needs."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.commands.conftest import pretrain_arguments, result_of, tlc
from tlc_jax.commands import analyze
from tlc_jax.compression.recipe import parse_recipe
from tlc_jax.models.network import Network
from tlc_jax.training.checkpoint import complete_steps

KEEP = ("--config.checkpoint.keep_every_steps=2", "--config.checkpoint.keep=1")
FIGURES = {"error_modules", "error_depth", "sensitivity", "convergence"}


@pytest.fixture(scope="module")
def kept(world) -> Path:
    run = world / "kept"
    assert (
        tlc(
            *pretrain_arguments(
                world, run, *KEEP, "--config.budget.steps=5", "--config.model.layers=2"
            )
        )
        == 0
    )
    return run


def test_checkpoints_are_kept_along_the_run(kept) -> None:
    assert complete_steps(kept / "checkpoints") == [5, 4, 2]


def test_a_masked_language_model_is_analyzed_and_compiled_once(
    kept, tmp_path, monkeypatch, capsys
) -> None:
    traced, apply = [], Network.apply

    def traced_apply(self, *given, **named):
        traced.append(self.kind)
        return apply(self, *given, **named)

    monkeypatch.setattr(Network, "apply", traced_apply)
    assert (
        tlc(
            "analyze",
            f"--init={kept}",
            f"--workdir={tmp_path}",
            "--config.recipe=prune:0.5+quantize:2",
        )
        == 0
    )
    assert traced == ["mlm"]
    result = result_of(tmp_path)
    assert {path.stem for path in tmp_path.glob("report/*.png")} == FIGURES
    for part in ("error", "sensitivity", "convergence"):
        with (tmp_path / "report" / f"{part}.csv").open() as file:
            assert len(list(csv.DictReader(file))) == len(result[part])
    assert len(result["error"]) == len(result["sensitivity"]) == 2 + 2 * 6 + 1
    assert all(row["loss_rise"] == pytest.approx(row["lost"]) for row in result["sensitivity"])
    assert all(
        row["valid_loss"] == pytest.approx(result["valid_loss_dense"] + row["lost"])
        for row in result["sensitivity"]
    )
    assert [row["step"] for row in result["convergence"]] == [2, 4, 5]
    last = result["convergence"][-1]
    assert last["valid_loss_dense"] == pytest.approx(result["valid_loss_dense"])
    assert last["valid_loss_compressed"] == pytest.approx(result["valid_loss_compressed"])
    assert last["lost"] == pytest.approx(last["valid_loss_compressed"] - last["valid_loss_dense"])


def test_a_classifier_loses_accuracy_and_its_parts_can_be_chosen(
    finetuned, tmp_path, capsys
) -> None:
    more = ("--config.recipe=quantize:2", "--config.eval.examples=20")
    run = ("analyze", f"--init={finetuned}", f"--workdir={tmp_path}", *more)
    assert tlc(*run, "--config.analyze.parts=('sensitivity', 'convergence')") == 0
    result = result_of(tmp_path)
    assert "error" not in result
    assert result["convergence"] == []
    assert "checkpoint.keep_every_steps keeps them" in capsys.readouterr().err
    assert len(result["sensitivity"]) == 2 + 6 + 2
    for row in result["sensitivity"]:
        assert row["lost"] == pytest.approx(result["accuracy_dense"] - row["accuracy"])
        assert (20 * row["accuracy"]) == pytest.approx(round(20 * row["accuracy"]))


@pytest.mark.parametrize(
    ("which", "more", "says"),
    [
        ("finetuned", (), "recipe=dense changes nothing"),
        ("compressed", ("--config.recipe=quantize:4",), "is compressed already"),
        ("translated", ("--config.recipe=quantize:4",), "is a translator"),
        (
            "finetuned",
            ("--config.recipe=quantize:4", "--config.analyze.parts=('eror',)"),
            "'eror',) must be one of error",
        ),
    ],
)
def test_what_cannot_be_analyzed_is_refused(which, more, says, request, tmp_path, capsys) -> None:
    run = request.getfixturevalue(which)
    assert (
        tlc("analyze", f"--init={run}", f"--workdir={tmp_path}", "--config.recipe=dense", *more)
        == 2
    )
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_each_matrix_alone_has_a_threshold_of_its_own() -> None:
    recipe = parse_recipe("prune:0.5,embeddings=false+quantize:4,per=tensor")
    expected = parse_recipe("prune:0.5,scope=tensor,embeddings=false+quantize:4,per=tensor")
    assert analyze._own_thresholds(recipe) == expected
