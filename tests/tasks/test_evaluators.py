"""Every row and example counts exactly once, whatever the batch size."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tlc_jax.config import Config, Eval, Impl, Model
from tlc_jax.core.mesh import Placement
from tlc_jax.data.labelled import Labelled
from tlc_jax.data.order import evaluated, in_second_half
from tlc_jax.data.packing import Packed
from tlc_jax.models.network import Network, classifier, masked_language_model
from tlc_jax.tasks.classification import ClassifierRun, Predictions, summarize
from tlc_jax.tasks.masked_lm import MaskedLanguageRun, unigram_loss

V, LENGTH = 50, 16
MODEL = Model(layers=1, hidden=64, max_length=LENGTH)


@pytest.fixture(scope="module")
def placement():
    return Placement.parse("data=-1")


def labelled(name: str = "dev", count: int = 21) -> Labelled:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, LENGTH, count)
    return Labelled(
        name=name,
        tokens=rng.integers(5, V, lengths.sum()).astype(np.uint16),
        starts=np.cumsum(lengths) - lengths,
        lengths=np.array(lengths),
        labels=np.where(np.arange(count) == 4, -1, rng.integers(0, 3, count)).astype(np.int32),
        ids=np.arange(count) + 100,
        label_names=("a", "b", "c"),
        length=LENGTH,
    )


def run_of(network: Network, batch_size: int, placement) -> ClassifierRun:
    config = Config(eval=Eval(batch_size=batch_size))
    return ClassifierRun(config, network, placement, tokenizer=None)


def test_predictions_do_not_depend_on_the_batch_size_and_keep_the_order(
    placement, tmp_path
) -> None:
    network = classifier(MODEL, V, 3, Impl())
    params = network.init(jax.random.key(0))
    split = labelled()
    small, large = (run_of(network, size, placement).classify(params, split) for size in (8, 32))
    np.testing.assert_allclose(small.probabilities, large.probabilities, atol=1e-5)
    np.testing.assert_array_equal(small.ids, split.ids)
    for row in (0, 7, 20):
        tokens = split.padded(np.array([row]), split.lengths[row])
        alone = jax.nn.softmax(network.apply(params, tokens, tokens != 0))[0]
        np.testing.assert_allclose(small.probabilities[row], alone, atol=1e-5)
    known = split.labels >= 0
    assert small.accuracy == np.mean(small.probabilities.argmax(1)[known] == split.labels[known])
    small.save(tmp_path, "dev")
    saved = np.load(tmp_path / "dev.npz")
    assert sorted(saved) == ["ids", "labels", "probabilities"]


def test_counts_are_of_labelled_examples_and_halves_depend_on_ids_alone() -> None:
    right = np.eye(3, dtype=np.float32)
    labels = np.array([0, 1, 1, 2, -1, 1], np.int32)
    answers = np.array([0, 1, 0, 2, 0, 1])
    found = Predictions(np.arange(6), labels, right[answers], 0.0)
    assert found.accuracy == 4 / 5
    assert found.counts["valid_examples"] == 5 and found.counts["accuracy_majority"] == 3 / 5
    second = in_second_half(np.array([0, 1, 2, 3, 5]))
    correct = np.array([1, 1, 0, 1, 1])
    assert found.counts["accuracy_halves"] == [correct[~second].mean(), correct[second].mean()]
    order = np.array([5, 3, 1, 0, 4, 2])
    turned = Predictions(order, labels[order], right[answers[order]], 0.0)
    assert turned.counts == found.counts
    assert abs(in_second_half(np.arange(10_000)).mean() - 0.5) < 0.02
    one = Predictions(np.arange(1), labels[:1], right[:1], 0.0)
    assert None in one.counts["accuracy_halves"]


def test_the_first_labelled_split_decides(placement) -> None:
    network = classifier(MODEL, V, 3, Impl())
    unlabelled = labelled("hidden")
    unlabelled.labels[:] = -1
    run, params = run_of(network, 16, placement), network.init(jax.random.key(0))
    splits = [unlabelled, labelled("x"), labelled("y", 10)]
    numbers = summarize({split.name: run.classify(params, split) for split in splits})
    assert list(numbers["accuracy_by_split"]) == ["x", "y"]
    assert numbers["accuracy"] == numbers["accuracy_by_split"]["x"]
    assert summarize({}) == {"accuracy": None, "valid_loss": None, "accuracy_by_split": {}}


def rows(count: int, seed: int = 0) -> Packed:
    return Packed(
        np.random.default_rng(seed).integers(5, V, (count, LENGTH)).astype(np.uint16), f"set{seed}"
    )


def test_perplexity_weighs_every_row_once(placement) -> None:
    network = masked_language_model(MODEL, V, Impl())
    params = network.init(jax.random.key(0))
    config = Config(eval=Eval(batch_size=16, examples=8))
    sets = {"one": rows(21), "two": rows(8, seed=1)}
    run = MaskedLanguageRun(config, network, placement, valid_text=sets)
    numbers = run.evaluate(params, True)
    weights = {"one": 21, "two": 8}
    mean = sum(numbers[f"valid_loss_{name}"] * n for name, n in weights.items()) / 29
    assert numbers["valid_loss"] == pytest.approx(mean, rel=1e-5)
    parts = np.array(numbers["valid_loss_parts"])
    assert len(parts) == 3  # two batches of the first set and one of the second
    assert numbers["valid_loss"] == pytest.approx(np.average(parts[:, 0], weights=parts[:, 1]))
    assert "valid_loss_parts" not in run.evaluate(params, False)
    assert numbers["valid_perplexity"] == pytest.approx(np.exp(numbers["valid_loss"]))
    assert numbers["valid_loss"] == pytest.approx(np.log(V), abs=0.3)
    again = MaskedLanguageRun(config, network, placement, valid_text=sets)
    assert again.evaluate(params, True) == numbers
    assert again.evaluate(params, False) != numbers


def test_masked_loss_depends_neither_on_the_batch_size_nor_on_the_other_rows(placement) -> None:
    network = masked_language_model(MODEL, V, Impl())
    params = network.init(jax.random.key(0))
    text = rows(24)

    def losses(batch_size: int, examples: int = 0, text: Packed = text) -> tuple[float, float]:
        config = Config(eval=Eval(batch_size=batch_size, examples=examples))
        run = MaskedLanguageRun(config, network, placement, valid_text={"text": text})
        numbers = run.evaluate(params, False)
        return numbers["valid_loss"], numbers["valid_masked_accuracy"]

    assert losses(8) == pytest.approx(losses(24), rel=1e-6)
    assert losses(8, examples=8) == pytest.approx(losses(16, examples=8), rel=1e-6)
    # Rows of the same tokens are masked in different places.
    once, often = (losses(8, text=text.take_rows(np.zeros(n, np.int64))) for n in (1, 8))
    assert once[0] != pytest.approx(often[0], rel=1e-6)


def test_evaluation_on_some_examples_has_the_predictions_of_these(placement) -> None:
    network = classifier(MODEL, V, 3, Impl())
    params, split = network.init(jax.random.key(0)), labelled()
    run = run_of(network, 8, placement)
    some, all_of_them = run.classify(params, split, 10), run.classify(params, split)
    chosen = evaluated(21, 10, "dev")
    np.testing.assert_array_equal(some.ids, all_of_them.ids[chosen])
    np.testing.assert_array_equal(some.labels, all_of_them.labels[chosen])
    np.testing.assert_allclose(some.probabilities, all_of_them.probabilities[chosen], atol=1e-5)


def test_the_unigram_loss_is_the_entropy_of_what_was_counted() -> None:
    tokens = np.array([[2, 10, 10, 11]] * 500, np.uint16)
    packed = Packed(tokens, "x")
    assert unigram_loss([packed], [packed], V) == pytest.approx(
        -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3)), abs=0.05
    )
