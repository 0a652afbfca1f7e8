"""Finetune a classifier on labelled texts or pairs.

Starts from a pretrained encoder, a public one (hf:FOLDER), or from scratch. With init.from the run
takes parameters and architecture of the earlier run, never its optimizer state; the log says which
parameters it took. A pruned encoder keeps its zeros: the mask is the last transform of the
optimizer. A quantized one is quantized again at the end, by the same recipe. With `seeds` there is
one run per seed in seed-K/, and a summary; impl.seeds_together says whether the seeds train one
after another or mapped in one program. Predictions for every example of every validation split
go to predictions/. `task` names what a plug-in learns from the labels instead of classes.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlc_jax.commands import fit_to_memory, latency_of_run, refuse_branches
from tlc_jax.compression.during_training import DuringTraining
from tlc_jax.compression.recipe import Prune, Quantize, Recipe, parse_recipe
from tlc_jax.config import Config, to_dict
from tlc_jax.core import distributed
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import remove_folder
from tlc_jax.data.sources import open_source, parse_sources
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.models.network import Network
from tlc_jax.runs import auto, saved_model, session
from tlc_jax.runs.saved_model import SavedModel
from tlc_jax.tasks.base import task_of
from tlc_jax.tasks.classification import ClassifierRun, load_data
from tlc_jax.training.loop import Outcome

if TYPE_CHECKING:
    from tlc_jax.tasks.seeds_together import SeedsTogether


@dataclasses.dataclass(frozen=True)
class Opened:
    """A finetuning run that is ready to train.

    Attributes:
      start: model to start from, whose pruned weights stay zero; None: random weights.
      run: the classifier with its data.
      masks: masks of the weights that training keeps at zero.
      programs: the compiled training steps.
    """

    start: SavedModel | None
    run: ClassifierRun
    masks: Mapping[str, Any]
    programs: dict[tuple[Any, ...], Any] = dataclasses.field(default_factory=dict)


class Shared:
    """What finetuning runs share that follow each other and differ in their seed alone.

    The start, the data and the compiled programs of the last run are kept for the next one.
    """

    def __init__(self) -> None:
        self._settings = ""
        self._opened: Opened | None = None

    def open(self, config: Config, workdir: Path) -> Opened:
        """Opens a run; see `open_classifier`."""
        settings = to_dict(config)
        del settings["seed"]
        text = json.dumps(settings, sort_keys=True)
        if self._opened is None or text != self._settings:
            self._opened = None  # before its successor takes memory as well
            start = None
            if config.init.source:
                start = saved_model.load(config.init.source, config.impl, config.tokenizer.path)
            self._settings, self._opened = text, open_classifier(config, workdir, start)
        # Made from the last one, which has compiled its evaluation.
        run = self._opened.run.with_seed(config.seed)
        auto.record(run.config, workdir)
        self._opened = dataclasses.replace(self._opened, run=run)
        return self._opened


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Finetunes in `workdir`; returns the content of result.json."""
    return run_sharing(config, workdir, Shared())


def run_sharing(config: Config, workdir: Path, shared: Shared) -> dict[str, Any]:
    """Like `run`, for one of several runs that share what they can."""
    refuse_branches(config)
    saved_model.check_inputs(config, train=True)
    if config.seeds and config.impl.seeds_together == "mapped":
        from tlc_jax.tasks import seeds_together  # here as below: few runs have several seeds

        seeds_together.check(config)
    work = _sweep if config.seeds else _finetune
    return session.run_once(workdir, config, lambda config: work(config, workdir, shared))


def _sweep(config: Config, workdir: Path, shared: Shared) -> dict[str, Any]:
    """A run for each seed, and mean and sample standard deviation of the accuracies over seeds."""
    folders = [workdir / f"seed-{seed}" for seed in config.seeds]
    config = auto.as_begun(config, *folders)
    ones = {
        folder: dataclasses.replace(config, seed=seed, seeds=())
        for folder, seed in zip(folders, config.seeds, strict=True)
    }
    done = all((folder / "result.json").exists() for folder in ones)
    together = None if done else _together(config, workdir, shared)
    if together:
        results = _train_together(ones, workdir, shared, together)
    else:
        # A run is a workdir of its own, so a sweep that was killed repeats no seed that is done.
        results = [run_sharing(one, folder, shared) for folder, one in ones.items()]
    if distributed.first():
        remove_folder(workdir / "checkpoints")  # those of all seeds together

    def spread(values: list[float]) -> dict[str, Any]:
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return {"mean": statistics.fmean(values), "std": deviation, "values": values}

    over_seeds = spread([result["accuracy"] for result in results])
    splits = [result["accuracy_by_split"] for result in results]
    # None where the examples of a test split have no labels.
    test = [found for one in results if (found := one.get("test_accuracy")) is not None]
    return {
        "stage": "finetune",
        "seeds": list(config.seeds),
        "accuracy": over_seeds["mean"],
        "accuracy_over_seeds": over_seeds,
        "accuracy_by_split": {name: spread([one[name] for one in splits]) for name in splits[0]},
        **({"test_accuracy_over_seeds": spread(test)} if test else {}),
        "runs": {str(seed): f"seed-{seed}" for seed in config.seeds},
    }


def _together(config: Config, workdir: Path, shared: Shared) -> SeedsTogether | None:
    """The seeds of a sweep as one run, or None where they train in turn.

    Raises:
      InputError: they are to be mapped over and cannot be.
    """
    way = config.impl.seeds_together
    if way == "in_turn" or (way == "auto" and len(config.seeds) == 1):
        return None
    from tlc_jax.tasks import seeds_together

    opened = shared.open(dataclasses.replace(config, seed=config.seeds[0], seeds=()), workdir)
    why = seeds_together.obstacle(config) or seeds_together.obstacle_of_run(
        opened.run, opened.start
    )
    if why and way == "mapped":
        raise seeds_together.refusal(why)
    if why:
        return None
    together = seeds_together.SeedsTogether(opened.run, config.seeds, opened.start)
    choice = workdir / "seeds_together.json"
    return together if way == "mapped" or together.worth_mapping(choice) else None


def _train_together(
    ones: Mapping[Path, Config], workdir: Path, shared: Shared, together: SeedsTogether
) -> list[dict[str, Any]]:
    """Trains all seeds in one program; each gets the workdir that a run of its own would leave."""
    session.say(f"impl.seeds_together: {len(ones)} seeds train in one program")
    outcome = together.train(workdir)

    def write(index: int, folder: Path, one: Config) -> dict[str, Any]:
        opened = shared.open(one, folder)
        numbers = together.write(index, outcome, workdir, folder)
        return {**_facts(opened), **numbers, **latency_of_run(opened.run.config, folder)}

    return [
        session.run_once(folder, one, functools.partial(write, index, folder))
        for index, (folder, one) in enumerate(ones.items())
    ]


def _finetune(config: Config, workdir: Path, shared: Shared) -> dict[str, Any]:
    """One finetuning run; a compressed start gives a compressed result."""
    opened = shared.open(config, workdir)
    run, outcome = opened.run, train_classifier(opened, workdir)
    result = outcome.numbers
    recipe = parse_recipe(result["recipe"])
    if recipe.operations:
        from tlc_jax.compression.apply import write_compressed  # here: few starts are compressed

        meta = {**run.meta, "recipe": result["recipe"]}
        # Training moved the weights off their grid, so they are rounded again. Rounding that was
        # aware of training before is plain rounding now.
        plain = [dataclasses.replace(operation, aware=False) for operation in recipe.quantizes]
        again, tokenizer, params = Recipe(tuple(plain)), run.tokenizer, outcome.params
        measure, masks = run.measure, opened.masks
        result |= write_compressed(params, again, masks, meta, tokenizer, workdir, measure)
    else:
        result |= run.evaluate_test(outcome.params)
    run.save_predictions(workdir)
    return result | latency_of_run(run.config, workdir)


def open_classifier(config: Config, workdir: Path, start: SavedModel | None) -> Opened:
    """Reads the data of a finetuning run of `config.task` and opens the devices.

    Args:
      config: resolved config.
      workdir: folder of the run, claimed by the caller.
      start: model to start from; None: random weights.

    Raises:
      InputError: the data or the start do not fit the config.
    """
    task = task_of(config.task)
    if not issubclass(task, ClassifierRun):
        raise InputError(f"config.task={config.task} does not learn from labels: no ClassifierRun")
    if start is not None:
        config = session.adopt_model(config, start.model, start.path)
    tokenizer = start.tokenizer if start else _own_tokenizer(config)
    if start is None:
        session.check_special_ids(config.model, tokenizer)
    # A trained classifier keeps the order of its classes, whatever the order in the data.
    labels = start.labels if start and start.kind == config.task else None
    data = load_data(config, tokenizer, labels)
    config, placement = session.open_devices(config)
    vocab_size, classes = tokenizer.vocab_size, len(data.labels)
    network = Network(config.task, config.model, vocab_size, classes, config.impl)
    meta = session.model_meta(network.kind, config, tokenizer, data.labels)
    run = task(config, network, placement, meta, tokenizer=tokenizer, data=data)
    fit_to_memory(run, workdir)
    masks: Mapping[str, Any] = {}
    if start and start.masks:
        from tlc_jax.compression.prune import restrict_masks  # here, as few starts are pruned

        # The pretraining head may be pruned too; it is left behind, and its masks with it.
        masks = restrict_masks(start.masks, network.abstract())
    return Opened(start, run, masks)


def train_classifier(
    opened: Opened,
    workdir: Path,
    gradual: tuple[Prune, ...] = (),
    aware: tuple[Quantize, ...] = (),
) -> Outcome:
    """Trains a classifier under `budget`.

    Args:
      opened: the run.
      workdir: folder of the run, claimed by the caller.
      gradual: pruning operations during training.
      aware: quantize operations that the forward pass applies.

    Returns:
      The outcome, with parameters whole on every host and all fields of result.json. Weights that
      gradual pruning added are zero in the parameters, and not in `opened.masks`.
    """
    start, run = opened.start, opened.run
    session.keep_tokenizer(run.tokenizer, workdir)
    during_training = DuringTraining(opened.masks, gradual, aware)
    outcome = run.train(workdir, start, during_training, programs=opened.programs)
    params = run.placement.gather(outcome.params)
    return dataclasses.replace(outcome, params=params, numbers=_facts(opened) | outcome.numbers)


def _facts(opened: Opened) -> dict[str, Any]:
    """The fields of result.json about the data and the start."""
    data = opened.run.data
    return {
        "stage": "finetune",
        "labels": list(data.labels),
        "recipe": opened.start.recipe if opened.start else "dense",
        "truncated": {part.name: part.truncated for part in [*data.train, *data.valid, *data.test]},
    }


def _own_tokenizer(config: Config) -> Tokenizer:
    """From scratch: tokenizer.path, or one trained on the training texts themselves."""
    if config.tokenizer.path:
        return Tokenizer.load(config.tokenizer.path)
    from tlc_jax.data.sentencepiece_tokenizer import train_tokenizer  # rarely needed

    data = config.data
    read = [open_source(source, data).examples() for source in parse_sources(data.train)]
    texts = (text for part in read for column in (part.texts, part.pairs or ()) for text in column)
    return train_tokenizer(texts, config.tokenizer.vocab_size, config.tokenizer.train_bytes)
