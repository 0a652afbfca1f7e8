"""Whole recipes through `tlc compress`: what training keeps, what the artifact holds, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.commands.conftest import finetune_arguments, result_of, tlc
from tlc_jax.compression.artifact import Compressed, load_artifact
from tlc_jax.core.params import flatten

KERNEL = "blocks/ffn/up/kernel"


def compress(world: Path, workdir: Path, source: Path, recipe: str, *more: str) -> int:
    flags = (f"--config.init.from={source}", f"--config.recipe={recipe}", *more)
    return tlc(*finetune_arguments("compress", world, workdir, *flags))


def artifact(workdir: Path) -> Compressed:
    return load_artifact(workdir / "artifact" / "model.safetensors")


# Of two steps, neither comes after three quarters of the budget.
@pytest.mark.parametrize("steps", [12, 2])
def test_gradual_pruning_while_finetuning_reaches_its_sparsity(
    world, pretrained, tmp_path, steps
) -> None:
    recipe = "prune:0.8,gradual=true+finetune+quantize:4,group=32"
    assert compress(world, tmp_path, pretrained, recipe, f"--config.budget.steps={steps}") == 0
    result = result_of(tmp_path)
    assert (result["recipe"], result["steps"], result["bits"]) == (recipe, steps, 4)
    assert result["sparsity"] == pytest.approx(0.8, abs=1e-3)
    packed = artifact(tmp_path)
    mask = flatten(packed.masks)[KERNEL]
    assert not flatten(packed.params)[KERNEL][~mask].any()
    assert packed.quantized[KERNEL].scale.shape[-2:] == (1, mask.shape[-1])


def test_aware_finetuning_ends_on_the_grid_that_it_trained_on(world, pretrained, tmp_path) -> None:
    assert (
        compress(
            world, tmp_path, pretrained, "quantize:2,aware=true+finetune", "--config.budget.steps=4"
        )
        == 0
    )
    result = result_of(tmp_path)
    assert (
        result["bits"] == 2
        and len(np.unique(flatten(artifact(tmp_path).params)[KERNEL][0, :, 0])) <= 3
    )
    # What the last evaluation in training saw, rounded on the device, is what the artifact holds.
    row = [
        line for line in (tmp_path / "metrics.jsonl").read_text().splitlines() if '"stop"' in line
    ][-1]
    assert f'"accuracy": {result["accuracy"]}' in row


def test_structures_go_first_and_the_smaller_model_recovers(world, finetuned, tmp_path) -> None:
    recipe = "remove:0.5,of=neurons+prune:0.5+quantize:8"
    assert compress(world, tmp_path, finetuned, recipe, "--config.compress.step=1.0") == 0
    result, whole = result_of(tmp_path), result_of(finetuned)
    assert result["params"] < whole["params"]
    assert artifact(tmp_path).metadata["model"]["ffn"] == 128
    assert flatten(artifact(tmp_path).params)[KERNEL].shape == (1, 64, 128)
    assert [round_["sparsity"] for round_ in result["rounds"]] == [0.0, 0.0, 0.5]
    again = tmp_path / "again"
    assert tlc("evaluate", f"--init={tmp_path}", f"--workdir={again}") == 0
    assert result_of(again)["accuracy"] == result["accuracy"]


def test_what_comes_before_finetuning_is_held_and_what_comes_after_follows(
    world, pretrained, tmp_path
) -> None:
    recipe = "prune:2:4,only=blocks/ffn/.*+finetune+prune:0.5,only=embedding/.*+quantize:4"
    assert (
        compress(
            world,
            tmp_path,
            pretrained,
            recipe,
            "--config.budget.steps=4",
            "--config.compress.recover=0.0",
        )
        == 0
    )
    masks = flatten(artifact(tmp_path).masks)
    assert masks.keys() == {
        KERNEL,
        "blocks/ffn/down/kernel",
        "embedding/position",
        "embedding/token",
    }
    blocks = np.moveaxis(masks[KERNEL], -2, -1).reshape(-1, 4)
    assert (blocks.sum(1) == 2).all()
    embeddings = np.concatenate(
        [masks["embedding/token"].ravel(), masks["embedding/position"].ravel()]
    )
    assert embeddings.mean() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("recipe", "more", "words"),
    [
        ("prune:0.5+finetune", ["--config.compress.when=before"], "says itself when to finetune"),
        ("prune:0.5+finetune", ["--config.budget.steps=0"], "budget"),
        ("quantize:4,only=blocks/tails/.*", [], "matches no parameter"),
        ("quantize:4,group=48", [], "which groups of 48 do not divide"),
        ("remove:0.5,of=layers", [], "takes none of 1"),
    ],
)
def test_recipes_that_cannot_be_done_end_in_one_line(
    finetuned, world, tmp_path, capsys, recipe, more, words
) -> None:
    assert compress(world, tmp_path, finetuned, recipe, *more) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert words in errors[-1]
    assert not (tmp_path / "result.json").exists()
