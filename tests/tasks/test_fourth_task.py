"""A fourth task is one class that a plug-in registers: `RatingRun` is the whole of it.

The example predicts a rating, a number, from a text; its labels are the names "0" to "4".
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.commands.conftest import result_of, tlc
from tests.helpers.plugins import isolated
from tlc_jax.config import Config, default_config, resolve, to_dict
from tlc_jax.core import plugins
from tlc_jax.core.errors import InputError
from tlc_jax.models.encoder import Classifier
from tlc_jax.tasks import base
from tlc_jax.tasks.classification import ClassifierRun
from tlc_jax.tasks.masked_lm import MaskedLanguageRun
from tlc_jax.training.step import Batch, Objective, Sums

# --- the task: what would be the module of a plug-in --------------------------------------------


class RatingRun(ClassifierRun):
    """Regression of a rating: data and batches of classification, with squared error as loss."""

    goal = "explained"

    @staticmethod
    def module(vocab_size, classes, shape, rngs) -> Classifier:
        return Classifier(vocab_size, 1, shape, rngs)  # one output, whatever the number of labels

    @functools.cached_property
    def jitted(self) -> Callable[..., jax.Array]:
        return self.placement.jit(lambda params, tokens_BxL: self.ratings(params, tokens_BxL, None))

    def ratings(self, params, tokens_BxL: jax.Array, key: jax.Array | None) -> jax.Array:
        return self.network.apply(params, tokens_BxL, tokens_BxL != 0, key=key)[:, 0]

    def objective(self) -> Objective:
        def sums(params, batch: Batch, key: jax.Array | None) -> tuple[Sums, jax.Array]:
            rating_B, labels_B = self.ratings(params, batch["tokens"], key), batch["labels"]
            right_B = jnp.abs(rating_B - labels_B) < 0.5
            loss = ((rating_B - labels_B) ** 2).sum()
            return Sums(loss, jnp.float32(len(labels_B)), right_B.sum()), rating_B

        return Objective(lambda key, batch: batch, sums)  # nothing about the batch is random

    def evaluate(self, params, final: bool) -> dict:
        params, found = self.placement.put_params(params), {}
        for split in self.data.valid:
            tokens_NxL = split.padded(np.arange(len(split)), split.length)
            off_N = np.asarray(self.jitted(params, tokens_NxL)) - split.labels
            found[split.name] = float(np.mean(np.abs(off_N) < 0.5))
        explained = 1 - np.mean(off_N**2) / np.var(split.labels)
        accuracy = {"accuracy": next(iter(found.values())), "accuracy_by_split": found}
        return {"explained": float(explained), **accuracy}


# --- its use ------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    with isolated():
        plugins.register("task", "rating", RatingRun)
        yield


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
    settings.budget.steps = 40
    settings.task, settings.tokenizer.vocab_size = "rating", 268
    return resolve(settings)


@pytest.fixture
def flag(config, tmp_path) -> str:
    text = json.dumps(to_dict(config))
    file = tmp_path / "rating.py"
    file.write_text(
        "import json\nfrom ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict(json.loads({text!r}))\n"
    )
    return f"--config={file}"


def test_a_fourth_task_is_trained_evaluated_and_compressed_by_the_commands(flag, tmp_path):
    run = tmp_path / "run"
    assert tlc("finetune", flag, f"--workdir={run}") == 0
    trained = result_of(run)
    assert trained["explained"] > 0.7

    # The others find the task by the kind that the checkpoint carries.
    assert tlc("evaluate", f"--init={run}", f"--workdir={tmp_path / 'evaluated'}") == 0
    result = result_of(tmp_path / "evaluated")
    assert result["kind"] == "rating"
    assert result["explained"] == pytest.approx(trained["explained"], abs=1e-3)

    flags = (f"--config.init.from={run}", "--config.recipe=prune:0.5+quantize:8")
    more = ("--config.compress.recover=0", f"--workdir={tmp_path / 'small'}")
    assert tlc("compress", flag, *flags, *more) == 0
    small = result_of(tmp_path / "small")
    assert small["rounds"][0]["explained"] == pytest.approx(trained["explained"], abs=1e-3)
    assert small["explained"] == pytest.approx(small["rounds"][-1]["explained"], abs=0.1)


def test_several_seeds_of_a_fourth_task_train_in_turn(flag, tmp_path, capsys):
    arguments = (flag, "--config.seeds=(0,1)", "--config.budget.steps=3")
    assert tlc("finetune", *arguments, f"--workdir={tmp_path / 'sweep'}") == 0
    assert len(result_of(tmp_path / "sweep")["accuracy_over_seeds"]["values"]) == 2
    mapped = (*arguments, "--config.impl.seeds_together=mapped", f"--workdir={tmp_path / 'other'}")
    assert tlc("finetune", *mapped) == 2
    assert "task=rating evaluates one seed at a time" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("ratings", "config.task: unknown task 'ratings'; did you mean rating?"),
        ("mlm", "config.task=mlm: name classifier, or the task of a plug-in"),
        ("unlabelled", "config.task=unlabelled does not learn from labels"),
    ],
)
def test_a_task_that_finetune_cannot_train_is_refused(task, says, flag, tmp_path, capsys):
    plugins.register("task", "unlabelled", MaskedLanguageRun)
    assert tlc("finetune", flag, f"--workdir={tmp_path / 'run'}", f"--config.task={task}") == 2
    assert says in capsys.readouterr().err


def test_a_kind_without_a_task_is_refused():
    with pytest.raises(InputError, match="unknown task 'judge'; known are classifier, mlm"):
        base.task_of("judge")
