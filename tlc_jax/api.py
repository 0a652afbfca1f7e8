"""The Python interface: load, predict, evaluate and compress models, read studies, and train.

    import tlc_jax

    model = tlc_jax.load("runs/small")
    model.predict(["A fine film.", "A dull one."])
    small = model.compress("prune:0.6+quantize:4", save_to="small.safetensors")
    print(small.sizes, small.parameters())

Every error that a user can mend is an `InputError` whose message says how.
"""

from __future__ import annotations

import dataclasses
import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from tlc_jax.commands import COMMANDS, run_command
from tlc_jax.compression.apply import compress_params
from tlc_jax.compression.artifact import Compressed, load_artifact, measure, save_artifact
from tlc_jax.compression.recipe import FLOAT_BITS, parse_one_shot
from tlc_jax.config import Config, Impl, merge, resolve, to_dict
from tlc_jax.core import plugins
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import path_of, write_json
from tlc_jax.core.params import flatten
from tlc_jax.data.sources import Examples
from tlc_jax.runs import saved_model, session
from tlc_jax.runs.saved_model import SavedModel
from tlc_jax.runs.workdir import config_of_run, read_config
from tlc_jax.study import rows
from tlc_jax.tasks.base import open_saved, task_of
from tlc_jax.training.checkpoint import save_params


def load(source: str | Path, settings: Mapping[str, Any] | None = None) -> Model:
    """Reads a saved model.

    Args:
      source: a run's workdir, a checkpoint, an artifact, or "hf:FOLDER".
      settings: settings to lay over those of the run, as nested dicts, for example
        {"decode": {"beams": 1}}; a model without a run of ours starts from the defaults.

    Raises:
      InputError: nothing readable is there, or a setting is wrong.
    """
    start = saved_model.load(str(source), Impl())
    try:
        stored = to_dict(read_config(config_of_run(str(source))))
    except InputError:
        # An imported model, or an artifact that was moved away from its run.
        length = {"length": min(start.model.max_length, start.meta["length"])}
        stored = {"data": length, "model": start.meta["model"]}
    config = resolve(merge(stored, settings or {}))
    plugins.load(config.plugins)
    return Model(session.adopt_model(config, start.model, start.path), start)


@dataclasses.dataclass(frozen=True)
class Model:
    """A model with its tokenizer and the settings of the run that it comes from.

    Attributes:
      config: settings for data, evaluation and decoding.
      start: parameters (float32), masks, tokenizer and what the run saved about the model.
      packed: the compressed form, for a model that `compress` made.
      artifact_bytes: size of its artifact in bytes, for a model that `compress` made.
    """

    config: Config
    start: SavedModel
    packed: Compressed | None = None
    artifact_bytes: int | None = None

    @property
    def kind(self) -> str:
        """Kind of model: mlm, encoder, classifier, translator, or that of a registered task."""
        return self.start.kind

    @property
    def params(self) -> dict[str, Any]:
        """Parameters as nested dicts of float32 arrays; layers are stacked on the first axis."""
        return self.start.params

    def predict(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> pd.DataFrame | list[str]:
        """Predicts.

        Args:
          texts: [N] texts, or first texts of pairs, or sentences to translate.
          pairs: [N] second texts, for a classifier of pairs.

        Returns:
          For a classifier a data frame of N rows with the column `label` and the probability of
          each class; for a translator N translations.

        Raises:
          InputError: the model is a pretrained encoder, or the lengths of texts and pairs differ.
        """
        # A string is a sequence too: each of its letters would be taken for a text.
        if isinstance(texts, str) or isinstance(pairs, str):
            raise InputError("predict takes a list of texts: write [text] for a single one")
        if pairs is not None and len(pairs) != len(texts):
            raise InputError(f"{len(texts)} texts but {len(pairs)} pairs: give one for each")
        config, placement = session.open_devices(self.config)
        predictor = task_of(self.kind).predictor(config, self.start, placement)
        second = None if pairs is None else list(pairs)
        block = Examples(list(texts), second, None, None, list(range(len(texts))))
        params = placement.put_params(self.start.params)
        # A batch is as wide as its longest text, which an empty list lacks.
        found = list(predictor(params, block)) if texts else []
        if predictor.columns == ("translation",):
            return [translation for (translation,) in found]
        return pd.DataFrame(found, columns=list(predictor.columns))

    def evaluate(self, source: str = "") -> dict[str, Any]:
        """Measures the model on a validation source.

        Args:
          source: a source such as "files:dev.tsv"; empty: data.valid of the run.

        Returns:
          The metrics of `tlc evaluate`: accuracy, loss in nats, perplexity or BLEU.

        Raises:
          InputError: the source is wrong.
        """
        config = self.config.without_test()
        if source:
            config = resolve(merge(to_dict(config), {"data": {"valid": source}}))
        # Of a translator without data.cache, the tokenized pairs go there.
        with tempfile.TemporaryDirectory() as folder:
            config, placement = session.open_devices(config)
            run = open_saved(config, self.start, Path(folder), placement)
            return run.evaluate(self.start.params, True)

    def compress(self, recipe: str, save_to: str | Path | None = None) -> Model:
        """Compresses in one shot, without training.

        Args:
          recipe: prune and quantize operations, for example "prune:0.6+quantize:4". Recovery
            between rounds of pruning needs training: use `train("compress", ...)` for it.
          save_to: path of an artifact to write; the tokenizer is written beside it.

        Returns:
          The model that the artifact holds, to the bit.

        Raises:
          InputError: a wrong recipe, one that needs training, or a model that is compressed
            already.
        """
        saved_model.require_dense(self.start)
        operations = parse_one_shot(recipe)
        packed = compress_params(self.start.params, operations)
        meta = {**self.start.meta, "recipe": recipe}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(save_to) if save_to else Path(folder) / "model.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_artifact(path, packed, meta)
            if save_to:
                self.start.tokenizer.save(path.parent / self.start.tokenizer.file_name)
            # What is evaluated is what was packed, so the file is read back.
            params = jax.tree.map(jnp.asarray, load_artifact(path).params)
            size = path.stat().st_size
        start = dataclasses.replace(self.start, params=params, masks=packed.masks, meta=meta)
        return dataclasses.replace(self, start=start, packed=packed, artifact_bytes=size)

    @property
    def sizes(self) -> dict[str, int | None]:
        """Parameters, nonzero parameters, and bytes by each definition of `tlc compress`."""
        packed = self.packed or Compressed(self.start.params, {}, dict(self.start.masks))
        return {**measure(packed), "bytes_artifact": self.artifact_bytes}

    def parameters(self) -> pd.DataFrame:
        """A row for each parameter: `path`, `shape`, `params`, `zeros` (a share) and `bits`."""
        quantized = self.packed.quantized if self.packed else {}
        found = []
        for path, leaf in flatten(self.start.params).items():
            bits = quantized[path].bits if path in quantized else FLOAT_BITS
            zeros = float(np.mean(np.asarray(leaf) == 0))
            found.append((path, leaf.shape, leaf.size, zeros, bits))
        return pd.DataFrame(found, columns=["path", "shape", "params", "zeros", "bits"])

    def save(self, folder: str | Path) -> Path:
        """Writes a checkpoint with its tokenizer and config that `load` and `--init` read.

        Returns:
          The folder.
        """
        folder = path_of(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", to_dict(self.config))
        self.start.tokenizer.save(folder / self.start.tokenizer.file_name)
        save_params(folder / "checkpoints", 0, self.start.params, self.start.meta)
        return folder


@dataclasses.dataclass(frozen=True)
class Study:
    """The results of a study.

    Attributes:
      workdir: the study's folder.
    """

    workdir: Path

    def rows(self) -> pd.DataFrame:
        """results.jsonl: a row for each evaluated model."""
        path = self.workdir / "results.jsonl"
        if not path.exists():
            raise InputError(f"{path} does not exist: run `tlc study --workdir={self.workdir}`")
        return pd.read_json(io.StringIO(path.read_text(encoding="utf-8")), lines=True)

    def curves(self) -> pd.DataFrame:
        """Learning curves: job, layers, hidden, seed, step, seconds and loss of each evaluation.

        Those of points of study.vary have a job of their own.
        """
        columns = ["job", "layers", "hidden", "seed", "step", "seconds", "loss"]
        study = rows.load(self.workdir)
        evaluations = [
            (curve.job, curve.size.layers, curve.size.hidden, curve.seed, *evaluation)
            for one in (study, *study.varied)
            for curve in one.curves
            for evaluation in zip(curve.steps, curve.seconds, curve.losses, strict=True)
        ]
        return pd.DataFrame(evaluations, columns=columns)


def load_study(workdir: str | Path) -> Study:
    """Opens a study that `tlc study` ran.

    Raises:
      InputError: the folder holds no study.
    """
    workdir = path_of(workdir)
    if not (workdir / "study.json").exists():
        raise InputError(f"{workdir} holds no study.json: name the workdir of `tlc study`")
    return Study(workdir)


def train(command: str, config: Config | ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Runs a command that trains, exactly as `tlc COMMAND` does.

    Args:
      command: pretrain, translate, finetune, compress or study.
      config: settings, as a ConfigDict (`default_config()`) or resolved.
      workdir: folder of the run; a run that is there already goes on, or is returned if done.

    Returns:
      The content of result.json.

    Raises:
      InputError: wrong settings. StoppedEarly, TrainingFailed: as the command.
    """
    # Compression trains where its recipe needs it, and a study where its jobs do.
    trains = [name for name, entry in COMMANDS.items() if entry.needs_budget] + [
        "compress",
        "study",
    ]
    if command not in trains:
        raise InputError(f"command {command!r} does not train: use one of {', '.join(trains)}")
    resolved = config if isinstance(config, Config) else resolve(config)
    return run_command(command, resolved, path_of(workdir))
