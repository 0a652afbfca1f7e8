"""A fourth task is one class and its registration: everything below `rating` is the whole of it.

The example predicts a rating, a number, from a text; its labels are the names "0" to "4".
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.commands.conftest import result_of, tlc
from tlc_jax.config import Config, default_config, resolve
from tlc_jax.core.errors import InputError
from tlc_jax.core.mesh import Placement
from tlc_jax.data.labelled import load_labelled
from tlc_jax.data.sentencepiece_tokenizer import train_tokenizer
from tlc_jax.models.encoder import Classifier
from tlc_jax.models.network import Network, register_module
from tlc_jax.runs import session
from tlc_jax.tasks import base
from tlc_jax.tasks.classification import ClassifierRun, LabelledData
from tlc_jax.training.step import Batch, Objective, Sums

# --- the task: what would be tlc_jax/tasks/rating.py -------------------------------------------


class RatingRun(ClassifierRun):
    """Regression of a rating: data and batches of classification, with squared error as loss."""

    goal = "negative_squared_error"

    def objective(self) -> Objective:
        def corrupt(key: jax.Array, batch: Batch) -> Batch:
            del key  # nothing about the batch is random
            return batch

        def sums(params, batch: Batch, key: jax.Array | None) -> tuple[Sums, jax.Array]:
            tokens_BxL, labels_B = batch["tokens"], batch["labels"]
            rating_B = self.network.apply(params, tokens_BxL, tokens_BxL != 0, key=key)[:, 0]
            error_B = (rating_B - labels_B) ** 2
            right_B = jnp.abs(rating_B - labels_B) < 0.5
            return Sums(error_B.sum(), jnp.float32(len(labels_B)), right_B.sum()), rating_B

        return Objective(corrupt, sums)

    def evaluate(self, params, final: bool) -> dict[str, float]:
        split, objective = self.data.valid[0], self.objective()
        tokens_NxL = split.padded(np.arange(len(split)), split.length)
        batch = {"tokens": tokens_NxL, "labels": split.labels}
        sums, _ = objective.sums(self.placement.put_params(params), batch, None)
        return {"negative_squared_error": -float(sums.loss / sums.weight)}


# One output, whatever the number of label names.
register_module("rating", lambda vocab_size, classes, *rest: Classifier(vocab_size, 1, *rest))

# --- its use ------------------------------------------------------------------------------------


@pytest.fixture
def registered() -> Iterator[None]:
    base.register("rating", RatingRun)
    yield
    del base._TASKS["rating"]


@pytest.fixture
def config(tmp_path) -> Config:
    rng = np.random.default_rng(0)
    for name, count in (("train", 400), ("dev", 60)):
        rows = ["text\tlabel"]
        for stars in (i % 5 for i in range(count)):
            words = ["good"] * stars + ["bad"] * (4 - stars)
            rows.append(f"{' '.join(rng.permutation(words))}\t{stars}")
        (tmp_path / f"{name}.tsv").write_text("\n".join(rows) + "\n")
    settings = default_config()
    settings.data.train = f"files:{tmp_path}/train.tsv"
    settings.data.valid = f"files:{tmp_path}/dev.tsv"
    settings.data.length = settings.model.max_length = 32
    settings.model.layers, settings.model.hidden, settings.model.dropout = 1, 64, 0.0
    settings.optimizer.batch_size, settings.optimizer.learning_rate = 32, 3e-3
    settings.budget.steps = 60
    return resolve(settings)


def test_a_fourth_task_trains_and_is_evaluated_by_the_command(registered, config, tmp_path):
    tokenizer = train_tokenizer(["good bad"] * 50, 268, 10_000)
    train_data, valid_data = (
        load_labelled(source, config, tokenizer, None)
        for source in (config.data.train, config.data.valid)
    )
    placement = Placement.parse("data=-1")
    labels = train_data[0].label_names
    network = Network("rating", config.model, tokenizer.vocab_size, len(labels), config.impl)
    meta = session.model_meta(network.kind, config, tokenizer, labels)
    data = LabelledData(train_data, valid_data)
    run = RatingRun(config, network, placement, meta, tokenizer=tokenizer, data=data)
    fresh = network.init(jax.random.key(0))
    before = run.evaluate(fresh, True)["negative_squared_error"]

    def work(config) -> dict:
        session.keep_tokenizer(tokenizer, tmp_path / "run")
        return run.train(tmp_path / "run", None).numbers

    after = session.run_once(tmp_path / "run", config, work)["negative_squared_error"]
    assert before < -1.0 and after > -0.5

    # `tlc evaluate` finds the task by the kind that the checkpoint carries.
    arguments = (f"--init={tmp_path / 'run'}", f"--workdir={tmp_path / 'evaluated'}")
    assert tlc("evaluate", *arguments) == 0
    result = result_of(tmp_path / "evaluated")
    assert result["kind"] == "rating"
    assert result["negative_squared_error"] == pytest.approx(after, abs=1e-3)


def test_a_kind_without_a_task_is_refused():
    with pytest.raises(InputError, match="no task is registered for models of kind 'rating'"):
        base.task_of("rating")
