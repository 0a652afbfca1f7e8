"""The Python door, on the files that tests/test_old_files.py reads and on tiny runs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import tlc_jax
from tests.test_old_files import old_files  # noqa: F401  a fixture
from tlc_jax.config import default_config
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten

TEXTS = ["red cat runs the a dog", "blue bird sleeps the a small"]


@pytest.fixture
def model(old_files):  # noqa: F811
    return tlc_jax.load(old_files / "finetuned")


def test_importing_the_package_loads_no_jax():
    code = "import sys, tlc_jax; print('jax' in sys.modules, tlc_jax.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False ")
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        tlc_jax.lod  # noqa: B018


def test_a_classifier_predicts_labels_with_probabilities(model):
    table = model.predict(TEXTS)
    assert list(table.columns) == ["label", "animal", "other"]
    assert list(table.label) == ["animal", "other"]
    assert table[["animal", "other"]].sum(axis=1).to_numpy() == pytest.approx(1.0, abs=1e-5)
    assert len(model.predict([])) == 0


def test_predict_refuses_what_is_not_a_list_of_texts(model):
    with pytest.raises(InputError, match="write \\[text\\]"):
        model.predict("red cat")
    with pytest.raises(InputError, match="2 texts but 1 pairs"):
        model.predict(TEXTS, ["one"])


def test_compression_gives_the_model_that_the_artifact_holds(model, old_files):  # noqa: F811
    small = model.compress("prune:0.5+quantize:4", save_to=old_files / "small/model.safetensors")
    assert small.sizes["nonzero"] < 0.6 * small.sizes["params"]
    assert small.sizes["bytes_artifact"] == (old_files / "small/model.safetensors").stat().st_size
    table = small.parameters().set_index("path")
    kernel = table.loc["blocks/ffn/up/kernel"]
    # Pruning is global, and rounding to four bits adds a few zeros.
    assert kernel.bits == 4 and 0.2 < kernel.zeros < 0.8
    assert table.params.sum() == model.parameters().params.sum() == small.sizes["params"]
    again = tlc_jax.load(old_files / "small/model.safetensors")
    for path, leaf in flatten(small.params).items():
        np.testing.assert_array_equal(leaf, flatten(again.params)[path], err_msg=path)
    # Away from its run, the device decides how the model computes: up to rounding.
    np.testing.assert_allclose(
        small.predict(TEXTS).animal.to_numpy(), again.predict(TEXTS).animal.to_numpy(), rtol=1e-5
    )
    with pytest.raises(InputError, match="compressed already"):
        small.compress("quantize:8")


def test_evaluation_takes_another_source(model):
    whole = model.evaluate("files:labelled.tsv")
    few = model.evaluate("files:texts.tsv")
    assert whole["accuracy"] > 0.95 and few["accuracy"] > 0.95
    assert whole["valid_loss"] != few["valid_loss"]


def test_a_saved_model_is_loaded_again(model, tmp_path):
    folder = model.save(tmp_path / "saved")
    again = tlc_jax.load(folder)
    assert model.predict(TEXTS).equals(again.predict(TEXTS))


def test_a_study_gives_rows_and_curves(old_files):  # noqa: F811
    study = tlc_jax.load_study(old_files / "study")
    rows, curves = study.rows(), study.curves()
    assert {"recipe", "bytes_ideal", "accuracy", "bleu"} <= set(rows.columns)
    assert set(curves.layers) == {1, 2} and (curves.loss > 0).all()
    with pytest.raises(InputError, match="holds no study.json"):
        tlc_jax.load_study(old_files / "finetuned")


def test_training_from_a_config_object(old_files):  # noqa: F811
    config = default_config()
    config.data.train, config.data.holdout = "files:labelled.tsv", 0.2
    config.data.length = config.model.max_length = 16
    config.model.layers, config.model.hidden, config.model.heads = 1, 16, 2
    config.tokenizer.vocab_size, config.budget.steps = 290, 3
    config.optimizer.batch_size = 16
    result = tlc_jax.train("finetune", config, old_files / "trained")
    assert result["steps"] == 3
    assert tlc_jax.load(old_files / "trained").kind == "classifier"
    with pytest.raises(InputError, match="does not train"):
        tlc_jax.train("predict", config, old_files / "other")
