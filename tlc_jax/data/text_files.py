"""Files: `.txt`, `.tsv` (no quoting), `.csv` (quoted) and `.jsonl`, each also gzipped; `.parquet`.

Tables of text start with a row of column names; those of Apache Arrow have a file of their own,
`arrow_tables`. In `.txt` a blank line ends a document; in the other formats every record is one.
Text is UTF-8. Errors name the file and the line.
"""

from __future__ import annotations

import csv
import glob
import gzip
import io
import itertools
import json
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from tlc_jax import config
from tlc_jax.core.errors import InputError
from tlc_jax.data import file_access
from tlc_jax.data.sources import Examples, choose_columns, document

STANDARD_INPUT = "/dev/stdin"
_ARROW = (".parquet", ".arrow")
_TABLES = (".tsv", ".csv", ".jsonl", *_ARROW)
_SUFFIXES = (".txt", ".tsv", ".csv", ".jsonl")
_UNLABELLED = ("", "-")  # an empty cell, and SNLI's mark for "the annotators disagree"
_BLOCK = 1 << 18  # characters of text read at once
_WIDEST_CELL = 1 << 30  # characters; csv's own limit is 131072

_Row = tuple[int, str, str | None, str | None]  # line number, text, second text, label


class TextFiles:
    """The files of a glob, sorted, or two line-aligned files `A+B`; see `sources.Reader`."""

    def __init__(self, pattern: str, data: config.Data, any_ending: bool = False) -> None:
        """Finds the files.

        Args:
          pattern: a path, a glob or `A+B`.
          data: names of columns.
          any_ending: read files with any other ending as text, like `.txt`.

        Raises:
          InputError: nothing matches, or a match is not a readable file of a known format.
        """
        self._pattern, self._data = pattern, data
        where = f"check the path (relative ones start at {os.getcwd()})"
        found = file_access.matching(pattern)
        # A "+" may also belong to a file's name.
        self._aligned = "+" in pattern and not found
        if self._aligned:
            found = [os.path.expanduser(path) for path in pattern.split("+")]
            if len(found) != 2 or any(_suffix(path) in _TABLES for path in found):
                what = "is not two line-aligned text files, such as files:train.en+train.fr"
                raise InputError(f"files:{pattern} {what}")
        elif not found:
            lacks = "matches no file" if glob.has_magic(pattern) else "does not exist"
            raise InputError(f"{pattern} {lacks}: {where}")
        if len(found) == 1 and file_access.is_folder(found[0]):
            from tlc_jax.data import arrow_tables  # pyarrow takes a while to import

            found = arrow_tables.saved_files(found[0])
        # A glob may match folders too.
        self._paths = [p for p in found if len(found) == 1 or not file_access.is_folder(p)]
        for path in self._paths:
            if not file_access.readable(path):
                raise InputError(f"{path} cannot be read: {where}")
            known = (*_SUFFIXES, *_ARROW)
            if _suffix(path) not in known and not (any_ending or self._aligned):
                endings = f"{', '.join(_SUFFIXES)}, these with .gz, or .parquet"
                raise InputError(f"{path} is of unknown format: it must end in {endings}")

    def check(self) -> None:
        for path in self._paths:
            if _suffix(path) in _ARROW:
                from tlc_jax.data import arrow_tables

                arrow_tables.check(path)
                continue
            # What is read here from a pipe, or from a file that the shell opened, would be missing
            # later.
            if path != STANDARD_INPUT and file_access.is_file(path):
                with _opened(path) as stream:
                    if not stream.read(1):
                        raise InputError(f"{path} is empty")

    def fingerprint(self) -> str:
        files = ";".join(map(file_access.version, self._paths))
        return f"files:{files} text={self._data.text} pair={self._data.pair}"

    def size_hint(self) -> int:
        total = 0
        for path in self._paths:
            size = file_access.size(path)
            if path.endswith(".gz"):
                with file_access.open_binary(path) as file:
                    # The last four bytes hold the unpacked size modulo 2^32.
                    file.seek(max(size - 4, 0))
                    size = max(int.from_bytes(file.read(4), "little"), size)
            total += size
        return total

    def lines(self) -> Iterator[str]:
        for path in self._paths:
            if _suffix(path) in _TABLES:
                for _, text, pair, _ in _rows(path, self._data):
                    yield from document(text, pair)
                continue
            with _opened(path) as stream:
                # In blocks: reading line by line takes a tenth of the time of tokenizing.
                while block := stream.readlines(_BLOCK):
                    yield from ("" if line.isspace() else line.rstrip("\r\n") for line in block)
            yield ""

    def pairs(self) -> Iterator[tuple[str, str]]:
        if self._aligned:
            yield from _aligned_lines(*self._paths)
            return
        for path in self._paths:
            if _suffix(path) not in _TABLES:
                instead = "for pairs name two aligned files, files:A+B, or a table"
                raise InputError(f"{path} has one text a line: {instead}")
            for _, text, pair, _ in _rows(path, self._data):
                if pair is None:
                    hint = "name the second one in data.pair"
                    raise InputError(f"{path} has a single column of text: {hint}")
                yield text, pair

    def examples(self) -> Examples:
        return next(self.example_blocks(None, math.inf))

    def example_blocks(self, rows: int | None, characters: float = 1 << 24) -> Iterator[Examples]:
        """`examples` in blocks, so that memory stays bounded for files of any size.

        Args:
          rows: largest number of examples in a block; None: no limit.
          characters: a block ends early once its texts have this many characters.
        """
        records = self._records()
        count = 0
        while block := list(_take(records, rows, characters)):
            columns = (list(column) for column in zip(*block, strict=True))
            paths, numbers, texts, pairs, labels = columns
            ids = list(range(count, count + len(block)))
            seconds = None if pairs[0] is None else pairs
            classes = labels if any(label is not None for label in labels) else None
            yield Examples(texts, seconds, classes, None, ids, (paths, numbers))
            count += len(block)

    def _records(self) -> Iterator[tuple[str, int, str, str | None, str | None]]:
        """The path and the row of each example; all of them are pairs, or none."""
        if self._aligned:
            raise InputError(f"files:{self._pattern} are pairs of translations, without labels")
        paired: bool | None = None
        for path in self._paths:
            empty = True
            for number, text, pair, label in _rows(path, self._data):
                if paired not in (None, pair is not None):
                    what = "some have pairs of texts and some have not: set data.pair"
                    raise InputError(f"of the files {self._pattern} {what}")
                paired, empty = pair is not None, False
                yield path, number, text, pair, None if label in _UNLABELLED else label
            if empty:
                raise InputError(f"{path} has no rows")


def _take(records: Iterator[Any], rows: int | None, characters: float) -> Iterator[Any]:
    """The next records: at most `rows`, ending after one that brings them to `characters`."""
    for record in itertools.islice(records, rows):
        yield record
        characters -= len(record[2]) + len(record[3] or "")
        if characters <= 0:
            return


def _suffix(path: str) -> str:
    return os.path.splitext(path.removesuffix(".gz"))[1]


@contextmanager
def _opened(path: str) -> Iterator[IO[str]]:
    """A text stream with "\\n" line ends only; its failures become InputErrors."""
    try:
        # utf-8-sig skips a byte order mark without seeking, which pipes refuse.
        with _unpacked(path) as file:
            yield io.TextIOWrapper(file, encoding="utf-8-sig", newline="\n")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8: {_where_not_utf8(path)}convert it") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        what = f"is not a sound gzip file, or is cut short ({error})"
        raise InputError(f"{path} {what}: copy or download it again") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


@contextmanager
def _unpacked(path: str) -> Iterator[Any]:
    """The bytes of a file, unpacked."""
    # Descriptor 0, because /dev/stdin cannot be opened where standard input is a socket.
    with file_access.open_binary(os.dup(0) if path == STANDARD_INPUT else path) as file:
        if path.endswith(".gz"):
            with gzip.open(file) as unpacked:
                yield unpacked
        else:
            yield file


def _where_not_utf8(path: str) -> str:
    # The decoder tells the place in its last block alone, so the file is read again; a pipe cannot.
    if not file_access.is_file(path):
        return ""
    with _unpacked(path) as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return f"line {number}, byte {error.start + 1} of the line; "
    return ""


def _text_lines(path: str) -> Iterator[tuple[int, str]]:
    with _opened(path) as stream:
        for number, line in enumerate(stream, 1):
            yield number, line.rstrip("\r\n")


def _aligned_lines(first: str, second: str) -> Iterator[tuple[str, str]]:
    lines = itertools.zip_longest(_text_lines(first), _text_lines(second))
    for number, (a, b) in enumerate(lines):
        if a is None or b is None:
            longer = number + 1 + sum(1 for _ in lines)
            counts = [number if side is None else longer for side in (a, b)]
            lengths = f"{first} has {counts[0]} lines and {second} has {counts[1]}"
            raise InputError(f"{lengths}: line-aligned files must have as many")
        yield a[1], b[1]


def _rows(path: str, data: config.Data) -> Iterator[_Row]:
    """The rows of a file of any kind."""
    if _suffix(path) == ".jsonl":
        return _json_rows(path, data)
    if _suffix(path) in _ARROW:
        from tlc_jax.data import arrow_tables

        return arrow_tables.rows(path, data)
    if _suffix(path) in _TABLES:
        return _table_rows(path, data)
    return ((number, line, None, None) for number, line in _text_lines(path))


def _table_rows(path: str, data: config.Data) -> Iterator[_Row]:
    if _suffix(path) == ".csv":
        cells_of = _csv_cells(path)
    else:
        cells_of = ((number, line.split("\t")) for number, line in _text_lines(path) if line)
    _, header = next(cells_of, (0, []))
    if not header:
        raise InputError(f"{path} is empty: its first line must name the columns")
    columns = choose_columns(header, data, path)
    text = header.index(columns.text)
    pair, label = (None if name is None else header.index(name) for name in columns[1:])
    for number, cells in cells_of:
        if len(cells) != len(header):
            missing = ", ".join(map(repr, header[len(cells) :]))
            hint = f"{missing} missing" if missing else "a stray separator?"
            counts = f"{len(cells)} columns where the first line names {len(header)}"
            raise InputError(f"{path}, line {number}: {counts}; {hint}")
        second, name = (None if place is None else cells[place] for place in (pair, label))
        yield number, cells[text], second, name


def _csv_cells(path: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(_WIDEST_CELL)
    with _opened(path) as stream:
        reader = csv.reader(stream, strict=True)
        try:
            yield from ((reader.line_num, cells) for cells in reader if cells)
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _json_rows(path: str, data: config.Data) -> Iterator[_Row]:
    columns = None
    for number, line in _text_lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not JSON ({error})") from None
        if not isinstance(record, dict):
            raise InputError(f"{where}: not a JSON object with named fields")
        columns = columns or choose_columns(list(record), data, where)
        text = _json_text(record, columns.text, where)
        pair = None if columns.pair is None else _json_text(record, columns.pair, where)
        label = None if columns.label is None else record.get(columns.label)
        # Numbers and truth values are classes too, under the names that JSON has for them.
        name = label if isinstance(label, str) or label is None else json.dumps(label)
        yield number, text, pair, name
    if columns is None:
        raise InputError(f"{path} is empty")


def _json_text(record: dict[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        fields = ", ".join(map(repr, record)) or "none"
        what = "is not text" if name in record else f"is missing; it has {fields}"
        raise InputError(f"{where}: field {name!r} {what}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # JSON can escape half of a pair, which UTF-8 cannot hold
        raise InputError(f"{where}: field {name!r} holds half of a surrogate pair") from None
    return value
