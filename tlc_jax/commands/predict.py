"""Label or translate the texts of a file with a trained model, from a checkpoint or an artifact.

Reads predict.input: .tsv, .csv or .jsonl with the usual or configured columns, or a file of any
other ending with one text a line; each also .gz. `-` reads text from standard input. Writes to
predict.output, or to standard output, in the order of the file. A classifier writes a TSV: a
header, then a row for each text with the label and the probability of each class. A translator
writes a translation a line; with decode.nbest above 1 a TSV of the text's number, the translation's
rank, its score and the translation.

The file is read and answered block by block, so it may be larger than memory. predict.output
appears when it is whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from tlc_jax.config import Config
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import atomic, is_remote, path_of
from tlc_jax.data.progress import Bar
from tlc_jax.data.sources import Examples
from tlc_jax.data.text_files import STANDARD_INPUT, TextFiles
from tlc_jax.runs import saved_model, session
from tlc_jax.tasks.base import task_of

_ROWS = 4096  # texts of a block: enough of them to sort by length, few enough to hold


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Predicts; keeps nothing in the workdir."""
    source, output = config.predict.input, config.predict.output
    source = STANDARD_INPUT if source == "-" else source
    if not source:
        raise InputError("no input: set --config.predict.input=FILE")
    # Checked before the model is read, because reading a large one takes a while.
    TextFiles(source, config.data, any_ending=True).check()
    _check_output(output)
    start, config = saved_model.load_start(config)
    config, placement = session.open_devices(config)
    predictor = task_of(start.kind).predictor(config, start, placement)
    params = placement.put_params(start.params)
    count = 0
    # The data that the model learned from has columns that a file to predict may lack.
    data = dataclasses.replace(config.data, label="")
    if not predictor.reads_pairs:
        data = dataclasses.replace(data, pair="-")
    with _written(output) as out:
        if predictor.header:
            print(*predictor.columns, sep="\t", file=out)
        reader = TextFiles(source, data, any_ending=True)
        for block in _with_progress(reader.example_blocks(_ROWS), reader.size_hint()):
            for row in predictor(params, block):
                cells = (f"{x:.{predictor.digits}f}" if isinstance(x, float) else x for x in row)
                print(*cells, sep="\t", file=out)
            # A reader at the other end of a pipe gets each block as soon as it is answered.
            out.flush()
            count += len(block)
    cut = predictor.cut
    if cut:
        session.say(f"{cut} of {count} texts were cut to data.length={config.data.length} tokens")
    return {"examples": count, "cut": cut}


def _with_progress(blocks: Iterator[Examples], size: int) -> Iterator[Examples]:
    """The blocks, with a progress bar if there are several.

    Args:
      blocks: texts to answer.
      size: estimate of the bytes of all texts; 0: unknown.
    """
    bar = None
    texts = characters = 0
    for block in blocks:
        # A bar for a single block would appear when all is done.
        if texts:
            bar = Bar("predicting", "texts") if bar is None else bar
            bar.reach(texts, characters / size if size else None)
        yield block
        texts += len(block)
        characters += sum(map(len, block.texts)) + sum(map(len, block.pairs or ()))
    if bar is not None:
        bar.finish(texts)


def _check_output(output: str) -> None:
    path = path_of(output)
    if output and path.is_dir():
        raise InputError(f"predict.output={output} is a folder: name a file in it")
    if not is_remote(path) and not path.parent.is_dir():
        raise InputError(f"predict.output={output}: folder {path.parent} does not exist")


@contextlib.contextmanager
def _written(output: str) -> Iterator[TextIO]:
    """Standard output, a pipe or a device, or a file that gets its name when it is whole."""
    if not output:
        yield sys.stdout
        return
    path = path_of(output).resolve()
    # A pipe is written straight: a whole file that takes its name would replace it.
    straight = path.exists() and not path.is_file()
    target = contextlib.nullcontext(path) if straight else atomic(path)
    with target as place, place.open("w", encoding="utf-8") as stream:
        yield stream
