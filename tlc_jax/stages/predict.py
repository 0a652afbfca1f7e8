"""Label or translate the texts of a file with a trained model, from a checkpoint or an artifact.

Reads predict.input (.txt, a text a line; .tsv, .csv or .jsonl with the usual or configured columns; each also .gz) and
writes to predict.output, or to standard output, in the order of the file. A classifier writes a TSV: a header, then a
row for each text with the label and the probability of each class. A translator writes a translation a line; with
decode.nbest above 1 a TSV of the text's number, the translation's rank, its score and the translation.
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
from tlc_jax.data.translation import encode_split
from tlc_jax.errors import InputError
from tlc_jax.evaluation.classification import ClassificationEvaluator
from tlc_jax.evaluation.translation import Decoder
from tlc_jax.stages import session, starting_point
from tlc_jax.stages.starting_point import StartingPoint
from tlc_jax.stages.translating import one_line


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
    if start.kind in ("mlm", "encoder"):
        raise InputError(f"{start.path} is a pretrained encoder: predict needs a finetuned one")
    config = session.adopt_model(config, start.model, start.path)
    if start.kind == "translator":
        return _translate(config, start, [text for text in examples(source, config.data).texts])
    # Labels in the file, whatever they are called, are none of our business here.
    read = dataclasses.replace(examples(source, config.data), labels=None)
    texts = encode_examples(source, read, config.data.length, start.tokenizer, start.labels, config.impl.threads)
    batch_size = config.eval.batch_size or config.optimizer.batch_size
    evaluator = ClassificationEvaluator(start.network(config.impl), [texts], batch_size, session.open_devices(config))
    _write(config.predict.output, _table(start.labels, evaluator.predict(start.params, texts).probabilities))
    return {"examples": len(texts)}


def _translate(config: Config, start: StartingPoint, texts: list[str]) -> dict[str, Any]:
    split = encode_split("input", texts, [""] * len(texts), config.data.length, start.tokenizer, config.impl.threads)
    decoder = Decoder(
        start.network(config.impl), config.decode, config.data.buckets, start.tokenizer, session.open_devices(config)
    )
    found = decoder(start.params, split)
    if split.cut:
        session.say(f"{split.cut} of {len(texts)} texts were cut to data.length={config.data.length} tokens")
    if config.decode.nbest == 1:
        rows = [one_line(text) for text in found.best]
    else:
        rows = [
            f"{number}\t{rank}\t{score:.4f}\t{one_line(text)}"
            for number, (texts_of_it, scores) in enumerate(zip(found.texts, found.scores, strict=True), start=1)
            for rank, (text, score) in enumerate(zip(texts_of_it, scores, strict=True), start=1)
        ]
    _write(config.predict.output, rows)
    return {"examples": len(texts), "cut": split.cut}


def _table(labels: tuple[str, ...], probabilities_NxC: np.ndarray) -> list[str]:
    rows = ["\t".join(["label", *labels])]
    rows += [
        "\t".join([labels[int(row.argmax())], *(f"{probability:.6f}" for probability in row)])
        for row in probabilities_NxC
    ]
    return rows


def _write(output: str, rows: list[str]) -> None:
    text = "".join(f"{row}\n" for row in rows)
    if output:
        Path(output).expanduser().write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
