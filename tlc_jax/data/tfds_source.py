"""TFDS data sets, read from ArrayRecord files without TensorFlow.

A data set that has been built is described by its own files (`features.json`, `dataset_info.json`), so reading needs
none of its building code, and any data set on disk with text features will do. The building code is imported only to
tell a name that TFDS does not know from a data set that has not been built yet.

Records are parsed here: TFDS's own decoding to arrays takes five times as long, and text needs none of it.
"""

from __future__ import annotations

import importlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from google.protobuf.json_format import ParseError
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from tlc_jax import config
from tlc_jax.core.errors import InputError
from tlc_jax.core.text import did_you_mean
from tlc_jax.data.examples import Columns, Examples, choose_columns

_BLOCK = 1024  # records fetched at once
# TFDS lists a data set only after the module that declares it has been imported.
_MODULES = {
    "glue": "tensorflow_datasets.text.glue",
    "lm1b": "tensorflow_datasets.text.lm1b",
    "wiki40b": "tensorflow_datasets.text.wiki40b",
    "wikipedia": "tensorflow_datasets.text.wikipedia",
    "wmt14_translate": "tensorflow_datasets.translate.wmt14",
}
_WIKI40B_MARKS = ("_START_ARTICLE_", "_START_SECTION_", "_START_PARAGRAPH_")


def check(name: str, split: str, data: config.Data) -> None:
    """Refuses a data set or split that is unknown, not built, incomplete, or in a format that needs TensorFlow."""
    _open(name, split, data)


def fingerprint(name: str, split: str, data: config.Data) -> str:
    """Name, config, version, split and the sizes of its shards: where it lies does not matter."""
    builder = _builder(name, data)
    count = _split_info(builder, split).num_examples
    shards = {
        each: [int(info.num_bytes), *info.shard_lengths]
        for each, info in sorted(builder.info.splits.items())
    }
    return f"tfds:{builder.info.full_name}:{split} {count} {shards}"


def size_hint(name: str, split: str, data: config.Data) -> int:
    """About how many bytes of text a split has."""
    return int(_split_info(_builder(name, data), split).num_bytes)


def lines(name: str, split: str, data: config.Data) -> Iterator[str]:
    """Text lines, "" after each record (see `sources.lines`)."""
    builder, source = _open(name, split, data)
    columns = _columns(builder, data)
    wiki40b = builder.name == "wiki40b"
    parts = [column for column in (columns.text, columns.pair) if column]
    for record in _records(source, builder):
        for part in parts:
            text = _text(record[part])
            text = _without_marks(text) if wiki40b else text
            yield from (line for line in text.split("\n") if line and not line.isspace())
        yield ""


def pairs(name: str, split: str, data: config.Data) -> Iterator[tuple[str, str]]:
    """Pairs of sentences, such as the two languages of a translation data set."""
    builder, source = _open(name, split, data)
    columns = _columns(builder, data)
    if not columns.pair:
        raise InputError(
            f"tfds:{builder.info.full_name} has a single text: name the second one in data.pair"
        )
    for record in _records(source, builder):
        yield _text(record[columns.text]), _text(record[columns.pair])


def examples(name: str, split: str, data: config.Data) -> Examples:
    """All examples, labels by name; label -1 means that there is none."""
    builder, source = _open(name, split, data)
    columns = _columns(builder, data)
    features = builder.info.features
    names = getattr(features[columns.label], "names", None) if columns.label else None
    result = Examples(
        [],
        [] if columns.pair else None,
        [] if columns.label else None,
        tuple(names or ()) or None,
        [],
    )
    for row, record in enumerate(_records(source, builder)):
        result.texts.append(_text(record[columns.text]))
        if columns.pair and result.pairs is not None:
            result.pairs.append(_text(record[columns.pair]))
        if columns.label and result.labels is not None:
            result.labels.append(_label(record[columns.label], names))
        result.ids.append(record["idx"].int64_list.value[0] if "idx" in features else row)
    return result


def _open(name: str, split: str, data: config.Data) -> tuple[Any, Any]:
    """A builder and its records as serialised bytes, readable at random."""
    builder = _builder(name, data)
    _split_info(builder, split)
    try:
        source = builder.as_data_source(
            split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
    except (NotImplementedError, ValueError):
        form = builder.info.file_format.value
        raise InputError(
            f"tfds:{name} in {builder.data_dir} is stored as {form}, which needs TensorFlow to be read: "
            "build it with file_format='array_record'"
        ) from None
    next(_records(source, builder), None)  # opens the files, so that a missing one is told now
    return builder, source


def _builder(name: str, data: config.Data) -> Any:
    """A reader of a built data set.

    Raises:
      InputError: TFDS does not know the name, or it has not been built in the data directory.
    """
    folder = os.path.expanduser(data.dir) if data.dir else str(tfds.core.constants.DATA_DIR)
    try:
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
    except tfds.core.registered.DatasetNotFoundError:
        raise InputError(_why_not_found(name, folder)) from None
    except (ValueError, ParseError) as error:  # JSON's errors are ValueErrors
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"TFDS data set {name!r} in {folder} is damaged ({reason}): build it again"
        ) from None


def _why_not_found(name: str, folder: str) -> str:
    base, _, setting = name.partition("/")
    for module in _MODULES.values():
        importlib.import_module(module)
    known = [each for each in tfds.list_builders(with_community_datasets=False) if "/" not in each]
    if base not in known:
        close = did_you_mean(base, known).partition("; known")[0]
        return f"TFDS knows no data set {base!r}, and {folder} holds none of that name{close}"
    configs = list(tfds.builder_cls(base).builder_configs)
    if setting and configs and setting.partition("/")[0] not in configs:
        return f"TFDS data set {base!r} has no config {setting!r}{did_you_mean(setting, configs)}"
    found = pathlib.Path(folder).glob(f"{base}/**/features.json")
    built = (
        ", ".join(sorted(str(path.parent.relative_to(folder)) for path in found))
        or f"nothing of {base}"
    )
    module = _MODULES.get(base, "tensorflow_datasets")
    return (
        f"TFDS data set {name!r} is not built in {folder}, which has {built}: set config.data.dir, or build it with "
        f'python -c "import {module}, tensorflow_datasets as tfds; '
        f"tfds.builder('{name}', data_dir='{folder}', file_format='array_record').download_and_prepare()\""
    )


def _split_info(builder: Any, split: str) -> Any:
    try:
        return builder.info.splits[split]
    except (KeyError, ValueError, AssertionError):
        known = ", ".join(sorted(builder.info.splits))
        raise InputError(
            f"tfds:{builder.info.full_name} has no split {split!r}; it has {known}"
        ) from None


def _columns(builder: Any, data: config.Data) -> Columns:
    return choose_columns(list(builder.info.features), data, f"tfds:{builder.info.full_name}")


def _records(source: Any, builder: Any) -> Iterator[Any]:
    """Each record as a mapping from feature name to protobuf feature."""
    for start in range(0, len(source), _BLOCK):
        try:
            block = source.__getitems__(range(start, min(start + _BLOCK, len(source))))
            records = [
                tf_example_pb2.Example.FromString(record).features.feature for record in block
            ]
        except (RuntimeError, ValueError, TypeError, IndexError, OSError, DecodeError) as error:
            raise InputError(_damaged(builder, str(error).strip().splitlines()[0])) from None
        if not all(records):  # the reader answers b"" for what is no longer there
            raise InputError(_damaged(builder, "a file is cut short"))
        yield from records


def _damaged(builder: Any, reason: str) -> str:
    return f"the records in {builder.data_dir} are damaged ({reason}): build the data set again"


def _text(feature: Any) -> str:
    return b"".join(feature.bytes_list.value).decode("utf-8", errors="replace")


def _label(feature: Any, names: list[str] | None) -> str | None:
    if feature.bytes_list.value:
        return _text(feature)
    number = feature.int64_list.value[0]
    if names is None:
        return str(number)
    return names[number] if number >= 0 else None


def _without_marks(text: str) -> str:
    """Wiki40B's structure marks stand on lines of their own; `_NEWLINE_` stands for a line end."""
    for mark in _WIKI40B_MARKS:
        text = text.replace(mark, "")
    return text.replace("_NEWLINE_", "\n")
