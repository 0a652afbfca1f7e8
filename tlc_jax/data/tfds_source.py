"""TFDS data sets, read from ArrayRecord files without TensorFlow.

A data set on disk describes itself (`features.json`, `dataset_info.json`), so any one with text
features can be read without the code that built it. That code is imported only to tell a name that
TFDS does not know from a data set that has not been built yet.

Records are parsed here: TFDS's own decoding to arrays takes five times as long.
"""

from __future__ import annotations

import importlib
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from google.protobuf.json_format import ParseError
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from tlc_jax import config
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import scheme_of
from tlc_jax.core.text import did_you_mean
from tlc_jax.data.sources import Columns, Examples, choose_columns, document

_BLOCK = 1024  # records fetched at once
# TFDS lists a data set only after the module that declares it has been imported.
_MODULES = {
    "glue": "tensorflow_datasets.text.glue",
    "lm1b": "tensorflow_datasets.text.lm1b",
    "wiki40b": "tensorflow_datasets.text.wiki40b",
    "wikipedia": "tensorflow_datasets.text.wikipedia",
    "wmt14_translate": "tensorflow_datasets.translate.wmt14",
}


class TfdsSplit:
    """A split of a TFDS data set; see `sources.Reader`."""

    def __init__(self, name: str, split: str, data: config.Data) -> None:
        """Reads what the data set says of itself.

        Args:
          name: name of the data set, with its config where it has several.
          split: name of a split, or a part of one such as "train[:10%]".
          data: names of columns, and the folder of data sets.

        Raises:
          InputError: the data set or the split does not exist.
        """
        self._split, self._data = split, data
        self._builder = _builder(name, data)
        self._title = f"tfds:{self._builder.info.full_name}"
        self._splits = self._builder.info.splits
        try:
            self._info = self._splits[split]
        except (KeyError, ValueError, AssertionError):
            known = ", ".join(sorted(self._splits))
            raise InputError(f"{self._title} has no split {split!r}; it has {known}") from None

    def check(self) -> None:
        next(self._records(), None)

    def fingerprint(self) -> str:
        # The folder is not part of it: a copy of the data set is the same data set.
        splits = sorted(self._splits.items())
        shards = {name: [int(info.num_bytes), *info.shard_lengths] for name, info in splits}
        columns = f"text={self._data.text} pair={self._data.pair}"
        return f"{self._title}:{self._split} {self._info.num_examples} {shards} {columns}"

    def size_hint(self) -> int:
        return int(self._info.num_bytes)

    def lines(self) -> Iterator[str]:
        columns = self._columns()
        names = [name for name in (columns.text, columns.pair) if name]
        clean = _without_marks if self._builder.name == "wiki40b" else str
        for record in self._records():
            yield from document(*(clean(_text(record[name])) for name in names))

    def pairs(self) -> Iterator[tuple[str, str]]:
        columns = self._columns()
        if not columns.pair:
            raise InputError(f"{self._title} has a single text: name the second one in data.pair")
        for record in self._records():
            yield _text(record[columns.text]), _text(record[columns.pair])

    def examples(self) -> Examples:
        text, pair, label = self._columns()
        features = self._builder.info.features
        names = getattr(features[label], "names", None) if label else None
        classes = tuple(names) if names else None
        result = Examples([], [] if pair else None, [] if label else None, classes, [])
        for row, record in enumerate(self._records()):
            result.texts.append(_text(record[text]))
            if result.pairs is not None:
                result.pairs.append(_text(record[pair]))
            if result.labels is not None:
                result.labels.append(_label(record[label], names))
            result.ids.append(record["idx"].int64_list.value[0] if "idx" in features else row)
        return result

    def _columns(self) -> Columns:
        return choose_columns(list(self._builder.info.features), self._data, self._title)

    def _records(self) -> Iterator[Any]:
        """Each record as a mapping from feature names to protobuf features."""
        folder, raw = self._builder.data_dir, tfds.decode.DeserializeMethod.RAW_BYTES
        try:
            source = self._builder.as_data_source(self._split, deserialize_method=raw)
        except (NotImplementedError, ValueError):
            form = f"{self._builder.info.file_format.value}, which needs TensorFlow to be read"
            hint = "build it with file_format='array_record'"
            raise InputError(f"{self._title} in {folder} is stored as {form}: {hint}") from None
        parse = tf_example_pb2.Example.FromString
        for start in range(0, len(source), _BLOCK):
            try:
                block = source.__getitems__(range(start, min(start + _BLOCK, len(source))))
                records = [parse(record).features.feature for record in block]
                if not all(records):  # the reader returns b"" beyond the end of a truncated file
                    raise OSError("a file is cut short")
            except (RuntimeError, ValueError, TypeError, IndexError, OSError, DecodeError) as error:
                reason = f"({str(error).strip().splitlines()[0]}): build the data set again"
                raise InputError(f"the records in {folder} are damaged {reason}") from None
            yield from records


def _builder(name: str, data: config.Data) -> Any:
    """TFDS's description of a built data set."""
    if scheme_of(data.dir):
        raise InputError(
            f"data.dir={data.dir}: ArrayRecord reads disks alone: copy the data set to a disk, or "
            "mount the bucket"
        )
    folder = os.path.expanduser(data.dir) if data.dir else str(tfds.core.constants.DATA_DIR)
    try:
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
    except tfds.core.registered.DatasetNotFoundError:
        raise InputError(_why_not_found(name, folder)) from None
    except (ValueError, ParseError) as error:  # JSON's errors are ValueErrors
        reason = f"({str(error).strip().splitlines()[0]}): build it again"
        raise InputError(f"TFDS data set {name!r} in {folder} is damaged {reason}") from None


def _why_not_found(name: str, folder: str) -> str:
    base, _, setting = name.partition("/")
    for module in _MODULES.values():
        importlib.import_module(module)
    known = [each for each in tfds.list_builders(with_community_datasets=False) if "/" not in each]
    if base not in known:
        # The hint without its list of all known names: there are hundreds of them.
        close = did_you_mean(base, known).partition("; known")[0]
        return f"TFDS knows no data set {base!r}, and {folder} holds none of that name{close}"
    configs = list(tfds.builder_cls(base).builder_configs)
    if setting and configs and setting.partition("/")[0] not in configs:
        return f"TFDS data set {base!r} has no config {setting!r}{did_you_mean(setting, configs)}"
    found = pathlib.Path(folder).glob(f"{base}/**/features.json")
    built = sorted(str(path.parent.relative_to(folder)) for path in found)
    return (
        f"TFDS data set {name!r} is not built in {folder}, which has "
        f"{', '.join(built) or f'nothing of {base}'}: set config.data.dir, or build it with "
        f'python -c "import {_MODULES.get(base, "tensorflow_datasets")}, tensorflow_datasets as '
        f"tfds; tfds.builder('{name}', data_dir='{folder}', file_format='array_record')"
        '.download_and_prepare()"'
    )


def _text(feature: Any) -> str:
    return b"".join(feature.bytes_list.value).decode("utf-8", errors="replace")


def _label(feature: Any, names: list[str] | None) -> str | None:
    if feature.bytes_list.value:
        return _text(feature)
    number = feature.int64_list.value[0]
    if names is None:
        return str(number)
    return names[number] if number >= 0 else None  # test splits have -1


def _without_marks(text: str) -> str:
    """Wiki40B's structure marks stand on lines of their own; `_NEWLINE_` stands for a line end."""
    return re.sub("_START_(ARTICLE|SECTION|PARAGRAPH)_", "", text).replace("_NEWLINE_", "\n")
