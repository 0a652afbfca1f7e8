"""configs/mnli.py on a data directory in TFDS's own form: both validation splits are reported."""

from __future__ import annotations

import random

import numpy as np

from tests.commands.conftest import SMALL, result_of, sentence, tlc
from tests.helpers.made_mnli import build_mnli

NAMES = ["entailment", "neutral", "contradiction"]


def test_both_validation_splits_are_reported_in_the_order_of_tfds(pretrained, tmp_path) -> None:
    rng = random.Random(1)

    def rows(count: int) -> list[tuple[str, str, int]]:
        return [(sentence(rng), sentence(rng), rng.randrange(3)) for _ in range(count)]

    splits = {"train": rows(48), "validation_matched": rows(13), "validation_mismatched": rows(11)}
    build_mnli(tmp_path / "tfds", splits)
    run = tmp_path / "run"
    flags = (
        "--config.optimizer.batch_size=16",
        "--config.budget.epochs=0.0",
        "--config.budget.steps=4",
        *SMALL,
    )
    start = (f"--config.init.from={pretrained}", f"--config.data.dir={tmp_path / 'tfds'}")
    assert tlc("finetune", "--config=configs/mnli.py", f"--workdir={run}", *start, *flags) == 0
    result = result_of(run)
    assert result["labels"] == NAMES
    assert len(result["accuracy_by_split"]) == 2
    for name, accuracy in result["accuracy_by_split"].items():
        split = "validation_mismatched" if "mismatched" in name else "validation_matched"
        saved = np.load(run / "predictions" / f"{name}.npz")
        # TFDS shuffles what it writes; ids say which example is which.
        np.testing.assert_array_equal(
            saved["labels"], [splits[split][idx][2] for idx in saved["ids"]]
        )
        assert accuracy == np.mean(saved["probabilities"].argmax(1) == saved["labels"])
