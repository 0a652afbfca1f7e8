"""Parquet files and data sets saved to disk give the examples of the same table as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tlc_jax import config
from tlc_jax.core.errors import InputError
from tlc_jax.data.text_files import TextFiles

DATA = config.Data()
COLUMNS = {"sentence": ["a film", "two\nlines", "é"], "label": [1, 0, -1]}


def huggingface(table: pa.Table, names: list[str]) -> pa.Table:
    """The table with the note on its classes that Hugging Face's datasets write."""
    features = {"label": {"names": names, "_type": "ClassLabel"}, "sentence": {"dtype": "string"}}
    note = json.dumps({"info": {"features": features}})
    return table.replace_schema_metadata({"huggingface": note})


def save_to_disk(folder: Path, *tables: pa.Table) -> None:
    folder.mkdir(parents=True)
    files = [f"data-{index:05d}-of-{len(tables):05d}.arrow" for index in range(len(tables))]
    for name, table in zip(files, tables, strict=True):
        with (
            pa.OSFile(str(folder / name), "wb") as file,
            pa.ipc.new_stream(file, table.schema) as to,
        ):
            to.write_table(table)
    state = {"_data_files": [{"filename": name} for name in files]}
    (folder / "state.json").write_text(json.dumps(state))


def examples(source: Path | str, data: config.Data = DATA) -> Any:
    reader = TextFiles(str(source), data)
    reader.check()
    return reader.examples()


def refused(source: Path | str, data: config.Data = DATA) -> str:
    with pytest.raises(InputError) as raised:
        examples(source, data)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_parquet_and_saved_data_sets_name_the_classes(tmp_path: Path) -> None:
    table = huggingface(pa.table(COLUMNS), ["neg", "pos"])
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    save_to_disk(tmp_path / "saved", table.slice(0, 2), table.slice(2))
    for source in ("a.parquet", "*.parquet", "saved"):
        found = examples(tmp_path / source)
        assert found.texts == COLUMNS["sentence"]
        assert found.labels == ["pos", "neg", None]
    assert found.ids == [0, 1, 2]


def test_labels_are_text_numbers_or_truth_values(tmp_path: Path) -> None:
    for labels, expected in (
        ([1, 0], ["1", "0"]),
        ([True, None], ["true", None]),
        (["x"] * 2,) * 2,
    ):
        pq.write_table(pa.table({"text": ["a", "b"], "label": labels}), tmp_path / "a.parquet")
        assert examples(tmp_path / "a.parquet").labels == expected


def test_columns_inside_a_column_are_pairs_of_translations(tmp_path: Path) -> None:
    rows = [{"en": "a film", "fr": "un film"}, {"en": "yes", "fr": "oui"}]
    pq.write_table(pa.table({"translation": rows}), tmp_path / "a.parquet")
    data = config.Data(text="translation.en", pair="translation.fr")
    reader = TextFiles(str(tmp_path / "a.parquet"), data)
    assert list(reader.pairs()) == [("a film", "un film"), ("yes", "oui")]


def test_every_row_is_a_document(tmp_path: Path) -> None:
    pq.write_table(pa.table(COLUMNS), tmp_path / "a.parquet")
    lines = list(TextFiles(str(tmp_path / "a.parquet"), DATA).lines())
    assert lines == ["a film", "", "two", "lines", "", "é", ""]


def test_files_that_cannot_be_used_are_refused_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_text("no table")
    assert "broken.parquet cannot be read as parquet" in refused(tmp_path / "broken.parquet")
    for name, columns, message in (
        ("none", {"text": pa.array([], pa.string())}, "none.parquet has no rows"),
        ("null", {"text": ["a", None]}, "null.parquet, row 2: column 'text' is empty"),
        ("numbers", {"text": [1, 2]}, "column 'text' holds int64, not text"),
        ("other", {"words": ["a"]}, "set data.text to one of words"),
    ):
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        assert message in refused(tmp_path / f"{name}.parquet")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert f"holds the splits train, test: name {tmp_path}/train" in refused(tmp_path)
