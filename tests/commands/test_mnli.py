"""configs/mnli.py on a data directory in TFDS's own form: validation and test are reported."""

from __future__ import annotations

import random

import numpy as np

from tests.commands.conftest import SMALL, result_of, sentence, tlc
from tests.helpers.made_mnli import build_mnli

NAMES = ["entailment", "neutral", "contradiction"]


def test_validation_and_test_are_reported_in_the_order_of_tfds(pretrained, tmp_path) -> None:
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
    accuracies = {**result["accuracy_by_split"], **result["test_accuracy_by_split"]}
    assert list(accuracies) == ["matched", "mismatched"]
    assert list(accuracies.values()) == [result["accuracy"], result["test_accuracy"]]
    for name, accuracy in accuracies.items():
        split = f"validation_{name}"
        saved = np.load(run / "predictions" / f"{name}.npz")
        # TFDS shuffles what it writes; ids say which example is which.
        np.testing.assert_array_equal(
            saved["labels"], [splits[split][idx][2] for idx in saved["ids"]]
        )
        assert accuracy == np.mean(saved["probabilities"].argmax(1) == saved["labels"])
