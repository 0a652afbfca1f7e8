"""TFDS data sets, read from ArrayRecord files without TensorFlow.

A data set that has been built is described by its own files (`features.json`, `dataset_info.json`), so reading needs
none of its building code, and any data set on disk with text features will do. The building code is imported only to
tell a name that TFDS does not know from a data set that has not been built yet.
"""

from __future__ import annotations

import importlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from tlc_jax import config
from tlc_jax.data.records import Examples, choose_columns
from tlc_jax.errors import InputError

_BLOCK = 1024  # records fetched at once
# TFDS lists a data set only after the module that declares it has been imported.
_MODULES = {
    "glue": "tensorflow_datasets.text.glue",
    "lm1b": "tensorflow_datasets.text.lm1b",
    "wiki40b": "tensorflow_datasets.text.wiki40b",
    "wikipedia": "tensorflow_datasets.text.wikipedia",
}
_WIKI40B_MARKS = ("_START_ARTICLE_", "_START_SECTION_", "_START_PARAGRAPH_")


def check(name: str, split: str, data: config.Data) -> None:
    """Refuses a data set or split that is unknown, not built, or in a format that needs TensorFlow."""
    _open(name, split, data)


def fingerprint(name: str, split: str, data: config.Data) -> str:
    """Name, config, version, split and the sizes of its shards: where it lies does not matter."""
    builder = _builder(name, data)
    info = _split_info(builder, split)
    whole = builder.info.splits[split.partition("[")[0].partition("+")[0]]
    return f"tfds:{builder.info.full_name}:{split} {info.num_examples} {whole.num_bytes} {list(whole.shard_lengths)}"


def size_hint(name: str, split: str, data: config.Data) -> int:
    """About how many bytes of text a split has."""
    return int(_split_info(_builder(name, data), split).num_bytes)


def lines(name: str, split: str, data: config.Data) -> Iterator[str]:
    """Text lines, "" after each record (see `sources.lines`)."""
    builder, records = _open(name, split, data)
    columns = choose_columns(list(builder.info.features), data, f"tfds:{name}")
    wiki40b = builder.name == "wiki40b"
    parts = [column for column in (columns.text, columns.pair) if column]
    for record in _records(records):
        for part in parts:
            text = _text(record[part])
            text = _without_marks(text) if wiki40b else text
            yield from (line for line in text.splitlines() if line and not line.isspace())
        yield ""


def examples(name: str, split: str, data: config.Data) -> Examples:
    """All examples, labels by name; label -1 means that there is none."""
    builder, source = _open(name, split, data)
    features = builder.info.features
    columns = choose_columns(list(features), data, f"tfds:{name}")
    records = list(_records(source))
    names = getattr(features[columns.label], "names", None) if columns.label else None
    labels = None
    if columns.label:
        labels = [_label(record[columns.label], names) for record in records]
    return Examples(
        texts=[_text(record[columns.text]) for record in records],
        pairs=[_text(record[columns.pair]) for record in records] if columns.pair else None,
        labels=labels,
        label_names=tuple(names) if names else None,
        ids=[int(record.get("idx", row)) for row, record in enumerate(records)],
    )


def _open(name: str, split: str, data: config.Data) -> tuple[Any, Any]:
    builder = _builder(name, data)
    _split_info(builder, split)
    try:
        return builder, builder.as_data_source(split)
    except (NotImplementedError, ValueError) as error:
        raise InputError(
            f"tfds:{name} in {builder.data_dir} cannot be read at random ({str(error).splitlines()[0]}): "
            "build it with file_format='array_record'"
        ) from None


def _builder(name: str, data: config.Data) -> Any:
    """A reader of a built data set.

    Raises:
      InputError: TFDS does not know the name, or it has not been built in the data directory.
    """
    folder = os.path.expanduser(data.dir) if data.dir else str(tfds.core.constants.DATA_DIR)
    try:
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
    except tfds.core.registered.DatasetNotFoundError:
        pass
    known = _known()
    base = name.partition("/")[0]
    if base not in known:
        from tlc_jax.data.sources import suggest

        hint = suggest(base, known) if len(known) < 20 else suggest(base, known).split("; known")[0]
        raise InputError(f"TFDS knows no data set {base!r}, and {folder} holds none of that name{hint}")
    built = sorted(
        str(path.parent.relative_to(folder)) for path in pathlib.Path(folder).glob(f"{base}/**/features.json")
    )
    has = f"it has {', '.join(built)}" if built else "it has nothing of that name"
    module = _MODULES.get(base, "tensorflow_datasets")
    raise InputError(
        f"TFDS data set {name!r} is not built in {folder} (config.data.dir; {has}); build it: python -c "
        f"\"import {module}, tensorflow_datasets as tfds; tfds.builder('{name}', data_dir='{folder}', "
        "file_format='array_record').download_and_prepare()\""
    )


def _known() -> list[str]:
    for module in _MODULES.values():
        importlib.import_module(module)
    return [known for known in tfds.list_builders(with_community_datasets=False) if "/" not in known]


def _split_info(builder: Any, split: str) -> Any:
    try:
        return builder.info.splits[split]
    except (KeyError, ValueError, AssertionError):
        known = ", ".join(sorted(builder.info.splits))
        raise InputError(f"tfds:{builder.info.full_name} has no split {split!r}; it has {known}") from None


def _records(source: Any) -> Iterator[dict[str, Any]]:
    for start in range(0, len(source), _BLOCK):
        yield from source.__getitems__(range(start, min(start + _BLOCK, len(source))))


def _text(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def _label(value: Any, names: list[str] | None) -> str | None:
    if names is not None:
        return names[int(value)] if int(value) >= 0 else None
    return _text(value) if isinstance(value, (bytes, str)) else str(int(value))


def _without_marks(text: str) -> str:
    """Wiki40B's structure marks stand on lines of their own; `_NEWLINE_` stands for a line end."""
    for mark in _WIKI40B_MARKS:
        text = text.replace(mark, "")
    return text.replace("_NEWLINE_", "\n")
