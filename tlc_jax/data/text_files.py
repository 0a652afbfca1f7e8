"""Plain files: `.txt` (a line each), `.tsv` (no quoting), `.csv` (quoted), `.jsonl`, each also gzipped.

Tables start with a row of column names. In `.txt` a blank line ends a document; in the other formats every record is
one. Text is UTF-8; wherever it is not, or a file is cut short or a row is too short, the error says where.
"""

from __future__ import annotations

import csv
import glob
import gzip
import itertools
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from tlc_jax import config
from tlc_jax.core.errors import InputError
from tlc_jax.data.examples import UNLABELLED, Columns, Examples, choose_columns

SUFFIXES = (".txt", ".tsv", ".csv", ".jsonl")
STANDARD_INPUT = "/dev/stdin"
_TABLES = SUFFIXES[1:]
_BLOCK = 1 << 18  # characters of text read at once
_WIDEST_CELL = 1 << 30  # characters; csv's own limit is 131072


def matches(pattern: str, any_ending: bool = False) -> list[str]:
    """The files of a glob, sorted; of two line-aligned files `A+B`, both.

    Args:
      pattern: a path, a glob or `A+B`.
      any_ending: read a file of any other ending as text, a line each, like `.txt`.

    Raises:
      InputError: nothing matches, or a match is not a readable file of a known format.
    """
    pattern = os.path.expanduser(pattern)
    if sides := aligned(pattern):
        for path in sides:
            if not os.access(path, os.R_OK) or os.path.isdir(path):
                raise InputError(
                    f"there is no readable file {path} (relative paths start at {os.getcwd()})"
                )
        return list(sides)
    found = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
    found = [path for path in found if len(found) == 1 or not os.path.isdir(path)]
    if not found:
        what = "no file matches" if glob.has_magic(pattern) else "there is no file"
        raise InputError(f"{what} {pattern}: check the path (relative ones start at {os.getcwd()})")
    for path in found:
        if os.path.isdir(path):
            raise InputError(
                f"{path} is a folder: name its files, such as files:{path.rstrip('/')}/*.txt"
            )
        if not any_ending and _suffix(path) not in SUFFIXES:
            raise InputError(
                f"{path} is of unknown format: it must end in {', '.join(SUFFIXES)}, or these with .gz"
            )
        if not os.access(path, os.R_OK):
            raise InputError(f"{path} cannot be read: check its permissions")
    return found


def aligned(pattern: str) -> tuple[str, str] | None:
    """The two files of `A+B`, whose lines are translations of each other; None for anything else.

    Raises:
      InputError: more than two files are joined, or one of the two is a table.
    """
    pattern = os.path.expanduser(pattern)
    if "+" not in pattern or os.path.exists(pattern) or glob.glob(pattern, recursive=True):
        return None
    sides = pattern.split("+")
    if len(sides) != 2 or any(_suffix(path) in _TABLES for path in sides):
        raise InputError(
            f"files:{pattern} is not two line-aligned text files, such as files:train.en+train.fr"
        )
    return sides[0], os.path.expanduser(sides[1])


def check(pattern: str, any_ending: bool = False) -> None:
    """Refuses a glob that matches nothing and files that are empty, without reading on."""
    for path in matches(pattern, any_ending):
        # What is read here from a pipe, or from a file that the shell opened, would be missing later.
        if path == STANDARD_INPUT or not os.path.isfile(path):
            continue
        with _opened(path) as stream:
            if not stream.read(1):
                raise InputError(f"{path} is empty")


def fingerprint(pattern: str) -> str:
    """Path, size and modification time of every file."""
    rows = []
    for path in matches(pattern):
        status = os.stat(path)
        rows.append(f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}")
    return "files:" + ";".join(rows)


def size_hint(pattern: str, any_ending: bool = False) -> int:
    """About how many bytes the files have when unpacked; pipes count as 0."""
    total = 0
    for path in matches(pattern, any_ending):
        size = os.path.getsize(path)
        if path.endswith(".gz"):
            with open(
                path, "rb"
            ) as file:  # the last four bytes hold the unpacked size modulo 2**32
                file.seek(max(size - 4, 0))
                size = max(int.from_bytes(file.read(4), "little"), size)
        total += size
    return total


def lines(pattern: str, data: config.Data) -> Iterator[str]:
    """Text lines of all files, "" after each document (see `sources.lines`)."""
    for path in matches(pattern):
        if _suffix(path) not in _TABLES:
            with _opened(path) as stream:
                while block := stream.readlines(
                    _BLOCK
                ):  # a line at a time costs a tenth of tokenising it
                    yield from ("" if line.isspace() else line.rstrip("\r\n") for line in block)
            yield ""
        else:
            for _, text, pair, _ in _rows(path, data):
                for part in (text, pair or ""):
                    yield from (line for line in part.split("\n") if line and not line.isspace())
                yield ""


def pairs(pattern: str, data: config.Data) -> Iterator[tuple[str, str]]:
    """Pairs of sentences: line by line of two aligned files, or two columns of tables.

    Raises:
      InputError: a file cannot be read, aligned files differ in their number of lines, or a table has no second column.
    """
    if sides := aligned(pattern):
        yield from _aligned_lines(*sides)
        return
    for path in matches(pattern):
        if _suffix(path) not in _TABLES:
            raise InputError(
                f"{path} has one text a line: for pairs name two aligned files, files:A+B, or a table"
            )
        for _, text, pair, _ in _rows(path, data):
            if pair is None:
                raise InputError(
                    f"{path} has a single column of text: name the second one in data.pair"
                )
            yield text, pair


def _aligned_lines(first: str, second: str) -> Iterator[tuple[str, str]]:
    lines = itertools.zip_longest(_text_lines(first), _text_lines(second))
    for number, (a, b) in enumerate(lines):
        if a is None or b is None:
            counts = [
                number + (1 + sum(1 for _ in lines) if side is not None else 0) for side in (a, b)
            ]
            raise InputError(
                f"{first} has {counts[0]} lines and {second} has {counts[1]}: line-aligned files must have as many"
            )
        yield a[1], b[1]


def examples(pattern: str, data: config.Data) -> Examples:
    """Examples of all files, in order; ids count rows from 0 over all of them."""
    return _gathered(_records(pattern, data), 0)


def example_blocks(
    pattern: str,
    data: config.Data,
    rows: int,
    characters: int = 1 << 24,
    any_ending: bool = False,
) -> Iterator[Examples]:
    """`examples` in blocks, so that memory stays bounded whatever the size of the files.

    Args:
      pattern: the files.
      data: columns.
      rows: of a block at most.
      characters: after this many, of both texts, a block ends early.
      any_ending: see `matches`.
    """
    records = _records(pattern, data, any_ending)
    first = 0
    while block := list(_taken(records, rows, characters)):
        yield _gathered(block, first)
        first += len(block)


_Record = tuple[
    str, int, str, str | None, str | None
]  # path, line number, text, second text, label


def _records(pattern: str, data: config.Data, any_ending: bool = False) -> Iterator[_Record]:
    """The examples of all files one by one; either all of them are pairs or none is."""
    if aligned(pattern):
        raise InputError(f"files:{pattern} are pairs of translations, without labels")
    pairs: bool | None = None
    for path in matches(pattern, any_ending):
        empty = True
        rows = (
            ((n, line, None, None) for n, line in _text_lines(path))
            if _suffix(path) not in _TABLES
            else _rows(path, data)
        )
        for number, text, pair, label in rows:
            if pairs is not None and pairs != (pair is not None):
                raise InputError(
                    f"of the files {pattern} some have pairs of texts and some have not: set data.pair"
                )
            pairs, empty = pair is not None, False
            yield path, number, text, pair, label
        if empty:
            raise InputError(f"{path} has no rows")


def _taken(records: Iterator[_Record], rows: int, characters: int) -> Iterator[_Record]:
    """The next records: at most `rows`, and none after one that brings their texts to `characters`."""
    for record in itertools.islice(records, rows):
        yield record
        characters -= len(record[2]) + len(record[3] or "")
        if characters <= 0:
            return


def _gathered(records: Iterable[_Record], first: int) -> Examples:
    """Records as examples, the first of which is number `first` in its source."""
    texts, pairs, labels = list[str](), list[str](), list[str | None]()
    starts, numbers = list[tuple[int, str]](), list[int]()
    paired = False
    for path, number, text, pair, label in records:
        if not starts or starts[-1][1] != path:
            starts.append((len(texts), path))
        texts.append(text)
        pairs.append(pair or "")
        labels.append(label)
        numbers.append(number)
        paired = pair is not None
    return Examples(
        texts=texts,
        pairs=pairs if paired else None,
        labels=labels if any(label is not None for label in labels) else None,
        label_names=None,
        ids=list(range(first, first + len(texts))),
        places=(starts, numbers),
    )


def _suffix(path: str) -> str:
    return os.path.splitext(path.removesuffix(".gz"))[1]


@contextmanager
def _opened(path: str) -> Iterator[IO[str]]:
    """A text stream with "\\n" line ends only, whose failures are told as the user's."""
    opener: Any = gzip.open if path.endswith(".gz") else open
    try:
        # Descriptor 0, because /dev/stdin cannot be opened where standard input is a socket.
        # utf-8-sig skips a byte order mark without seeking, which pipes refuse.
        file: Any = os.dup(0) if path == STANDARD_INPUT else path
        with opener(file, "rt", encoding="utf-8-sig", newline="\n") as stream:
            yield stream
    except UnicodeDecodeError:
        raise InputError(_where_not_utf8(path)) from None
    except EOFError:
        raise InputError(
            f"{path} is cut short: its gzip stream has no end; copy or download it again"
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{path} is not a sound gzip file ({error}): copy or download it again"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def _where_not_utf8(path: str) -> str:
    if not os.path.isfile(path):  # a pipe cannot be read again
        return f"{path} is not UTF-8: convert it"
    opener: Any = gzip.open if path.endswith(".gz") else open
    with opener(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return f"{path} is not UTF-8: line {number}, byte {error.start + 1} of the line; convert it to UTF-8"
    return f"{path} is not UTF-8: convert it"


def _text_lines(path: str) -> Iterator[tuple[int, str]]:
    with _opened(path) as stream:
        for number, line in enumerate(stream, 1):
            yield number, line.rstrip("\r\n")


def _rows(path: str, data: config.Data) -> Iterator[tuple[int, str, str | None, str | None]]:
    """(line number, text, second text, label) of each record."""
    if _suffix(path) == ".jsonl":
        return _json_rows(path, data)
    return _table_rows(path, data)


def _table_rows(path: str, data: config.Data) -> Iterator[tuple[int, str, str | None, str | None]]:
    cells_of = _tsv_cells(path) if _suffix(path) == ".tsv" else _csv_cells(path)
    _, header = next(cells_of, (0, []))
    if not header:
        raise InputError(f"{path} is empty: its first line must name the columns")
    columns = choose_columns(header, data, path)
    text, pair, label = (None if name is None else header.index(name) for name in _names(columns))
    assert text is not None
    for number, cells in cells_of:
        if len(cells) != len(header):
            raise InputError(_wrong_width(path, number, cells, header))
        name = None if label is None or cells[label] in UNLABELLED else cells[label]
        yield number, cells[text], None if pair is None else cells[pair], name


def _names(columns: Columns) -> tuple[str, str | None, str | None]:
    return columns.text, columns.pair, columns.label


def _wrong_width(path: str, number: int, cells: list[str], header: list[str]) -> str:
    if len(cells) < len(header):
        missing = ", ".join(map(repr, header[len(cells) :]))
        return f"{path}, line {number}: {len(cells)} of {len(header)} columns; {missing} missing"
    return f"{path}, line {number}: {len(cells)} columns where the first line names {len(header)}; a stray separator?"


def _tsv_cells(path: str) -> Iterator[tuple[int, list[str]]]:
    return ((number, line.split("\t")) for number, line in _text_lines(path) if line)


def _csv_cells(path: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(_WIDEST_CELL)
    with _opened(path) as stream:
        reader = csv.reader(stream, strict=True)
        try:
            for cells in reader:
                if cells:
                    yield reader.line_num, cells
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _json_rows(path: str, data: config.Data) -> Iterator[tuple[int, str, str | None, str | None]]:
    columns = None
    for number, line in _text_lines(path):
        if not line or line.isspace():
            continue
        where = f"{path}, line {number}"
        record = _json_object(line, where)
        columns = columns or choose_columns(list(record), data, where)
        text = _json_text(record, columns.text, where)
        pair = None if columns.pair is None else _json_text(record, columns.pair, where)
        label = None if columns.label is None else record.get(columns.label)
        name = label if isinstance(label, str) or label is None else json.dumps(label)
        yield number, text, pair, None if name in UNLABELLED else name
    if columns is None:
        raise InputError(f"{path} is empty")


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error})") from None
    if not isinstance(record, dict):
        raise InputError(f"{where}: not a JSON object with named fields")
    return record


def _json_text(record: dict[str, Any], name: str, where: str) -> str:
    if name not in record:
        raise InputError(
            f"{where}: field {name!r} is missing; it has {', '.join(map(repr, record)) or 'none'}"
        )
    value = record[name]
    if not isinstance(value, str):
        raise InputError(f"{where}: field {name!r} is not text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            f"{where}: field {name!r} holds half of a surrogate pair, which is no text"
        ) from None
    return value
