"""Label the texts of a file with a finetuned model, from a checkpoint or an artifact.

Reads predict.input (.txt, a text a line; .tsv, .csv or .jsonl with the usual or configured columns; each also .gz) and
writes a TSV to predict.output, or to standard output: a header, then one row for each text in the order of the file,
with the label and the probability of each class.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tlc_jax.config import Config
from tlc_jax.data.labelled import encode_examples
from tlc_jax.data.sources import check_sources, examples
from tlc_jax.errors import InputError
from tlc_jax.evaluation.classification import ClassificationEvaluator
from tlc_jax.stages import session, starting_point
from tlc_jax.stages.classifying import adopt_model


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Predicts; keeps nothing in the workdir."""
    del workdir, options
    if not config.init.source:
        raise InputError("no model: name a run, a checkpoint or an artifact with --init=DIR")
    if not config.predict.input:
        raise InputError("no input: set --config.predict.input=FILE")
    (source,) = check_sources(f"files:{config.predict.input}", "predict.input", config.data)
    starting_point.find(config.init.source)
    start = starting_point.load(config.init.source, config.impl, config.tokenizer.path)
    if start.kind != "classifier":
        raise InputError(f"{start.path} is a masked-language model: predict needs a finetuned one")
    config = adopt_model(config, start.model, start.path)
    # Labels in the file, whatever they are called, are none of our business here.
    read = dataclasses.replace(examples(source, config.data), labels=None)
    texts = encode_examples(source, read, config.data.length, start.tokenizer, start.labels, config.impl.threads)
    batch_size = config.eval.batch_size or config.optimizer.batch_size
    evaluator = ClassificationEvaluator(start.network(config.impl), [texts], batch_size, session.open_devices(config))
    _write(config.predict.output, start.labels, evaluator.predict(start.params, texts).probabilities)
    return {"examples": len(texts)}


def _write(output: str, labels: tuple[str, ...], probabilities_NxC: np.ndarray) -> None:
    rows = ["\t".join(["label", *labels])]
    rows += [
        "\t".join([labels[int(row.argmax())], *(f"{probability:.6f}" for probability in row)])
        for row in probabilities_NxC
    ]
    text = "\n".join(rows) + "\n"
    if output:
        Path(output).expanduser().write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
