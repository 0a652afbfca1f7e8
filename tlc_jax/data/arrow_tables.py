"""Tables of Apache Arrow: `.parquet` files, and data sets saved to disk by Hugging Face's datasets.

Such a data set is a folder of `.arrow` files, which state.json names. Columns inside a column, such
as the languages of `translation`, are named with a dot: `translation.en`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tlc_jax import config
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import path_of, read_json, scheme_of
from tlc_jax.data import file_access
from tlc_jax.data.sources import choose_columns

_ROWS = 4096  # read at once


def saved_files(folder: str) -> list[str]:
    """The `.arrow` files of a data set saved to disk, in its order.

    Raises:
      InputError: the folder holds several splits, or none.
    """
    splits = path_of(folder) / "dataset_dict.json"
    if splits.exists():
        names = read_json(splits)["splits"]
        raise InputError(f"{folder} holds the splits {', '.join(names)}: name {folder}/{names[0]}")
    state = path_of(folder) / "state.json"
    if not state.exists():
        raise InputError(f"{folder} is a folder: name its files, such as {folder}/*.txt")
    return [f"{folder.rstrip('/')}/{one['filename']}" for one in read_json(state)["_data_files"]]


def check(path: str) -> None:
    """Raises InputError unless the file can be read and has rows."""
    with _schema_and_batches(path) as (_, batches):
        if not any(batch.num_rows for batch in batches):
            raise InputError(f"{path} has no rows")


def rows(path: str, data: config.Data) -> Iterator[tuple[int, str, str | None, str | None]]:
    """Number from 1, text, second text and label of each row.

    Raises:
      InputError: the file cannot be read, a column does not exist or holds no text, or a text is
        missing.
    """
    with _schema_and_batches(path) as (schema, batches):
        columns = choose_columns(schema.names, data, path)
        for name in columns[:2]:
            if name is not None and not _is_text(kind := schema.field(name).type):
                raise InputError(f"{path}: column {name!r} holds {kind}, not text")
        classes = _class_names(schema, columns.label)
        number = 0
        for batch in batches:
            picked = [batch.column(name).to_pylist() if name else None for name in columns]
            texts, pairs, labels = picked
            for index in range(batch.num_rows):
                number += 1
                text, pair, label = (each and each[index] for each in (texts, pairs, labels))
                if text is None or (pairs is not None and pair is None):
                    name = columns.text if text is None else columns.pair
                    raise InputError(f"{path}, row {number}: column {name!r} is empty")
                yield number, text, pair, _label(label, classes)


def _label(value: Any, classes: list[str]) -> str | None:
    if value is None or (classes and value < 0):  # Hugging Face's mark for a hidden label
        return None
    if classes:
        return classes[value]
    return value if isinstance(value, str) else json.dumps(value)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _class_names(schema: pa.Schema, label: str | None) -> list[str]:
    """The names that Hugging Face's datasets keep for the numbers of a column of classes."""
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = about.get("info", {}).get("features", {}).get(label, {})
    return list(feature.get("names", [])) if feature.get("_type") == "ClassLabel" else []


@contextmanager
def _schema_and_batches(path: str) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """The columns of a file, and its rows in batches; failures become InputErrors."""
    try:
        remote = file_access.open_binary(path) if scheme_of(path) else None
        if path.endswith(".parquet"):
            with pq.ParquetFile(remote or path) as file:
                yield _flat(file.schema_arrow), map(_flattened, file.iter_batches(_ROWS))
        else:
            with remote or pa.memory_map(path) as file, pa.ipc.open_stream(file) as stream:
                yield _flat(stream.schema), map(_flattened, stream)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        what = str(error).partition("\n")[0]
        raise InputError(f"{path} cannot be read as {path.rpartition('.')[2]}: {what}") from None


def _flat(schema: pa.Schema) -> pa.Schema:
    return schema.empty_table().flatten().schema.with_metadata(schema.metadata)


def _flattened(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch]).flatten()
