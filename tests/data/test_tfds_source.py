"""A glue/mnli that TFDS's own builder writes, read back without TensorFlow."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.helpers.made_mnli import build_mnli
from tests.helpers.made_wmt14 import build_wmt14
from tlc_jax import config
from tlc_jax.core.errors import InputError
from tlc_jax.data import sources, tfds_source
from tlc_jax.data.labelled import load_labelled
from tlc_jax.data.tokenizer import Tokenizer

SPLITS: dict[str, list[tuple[str, str, int]]] = {
    "train": [(f"premise {n} née", f"hypothesis\t{n}", n % 3) for n in range(40)],
    "validation_matched": [("a\nb", "c", 0), ("d", "e", 1), ("f", "g", 2)],
    "validation_mismatched": [("h", "i", 2), ("j", "k", 0)],
    "test_matched": [("l", "m", -1)],
}
NAMES = ("entailment", "neutral", "contradiction")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TFDS data directory that holds glue/mnli."""
    folder = tmp_path_factory.mktemp("tfds")
    build_mnli(folder, SPLITS)
    return folder


def examples(spec: str, folder: Path) -> Any:
    data = config.Data(dir=str(folder))
    (source,) = sources.check_sources(spec, "data.train", data)
    return sources.open_source(source, data).examples()


@pytest.mark.parametrize("split", list(SPLITS))
def test_every_split_is_read_as_it_was_written(folder: Path, split: str) -> None:
    found = examples(f"tfds:glue/mnli:{split}", folder)
    rows = {
        idx: (a, b, -1 if label is None else NAMES.index(label))
        for idx, a, b, label in zip(found.ids, found.texts, found.pairs, found.labels, strict=True)
    }
    assert rows == dict(enumerate(SPLITS[split]))
    assert found.label_names == NAMES


def test_our_parsing_agrees_with_tfds_decoding(folder: Path) -> None:
    builder = tfds.core.read_only_builder.builder_from_files("glue/mnli", data_dir=folder)
    theirs = list(builder.as_data_source("train"))
    ours = examples("tfds:glue/mnli", folder)
    assert [record["premise"].decode() for record in theirs] == ours.texts
    assert [NAMES[record["label"]] for record in theirs] == ours.labels
    assert [record["idx"] for record in theirs] == ours.ids


def test_a_part_of_a_split_can_be_named(folder: Path) -> None:
    assert len(examples("tfds:glue/mnli:train[:25%]", folder)) == 10


def test_both_validation_splits_load_in_the_order_of_tfds_labels(
    folder: Path, tokenizer: Tokenizer
) -> None:
    data = config.Data(dir=str(folder), length=32)
    spec = (
        "matched=tfds:glue/mnli:validation_matched,mismatched=tfds:glue/mnli:validation_mismatched"
    )
    matched, mismatched = load_labelled(spec, config.Config(data=data), tokenizer, None)
    assert (matched.name, mismatched.name, matched.label_names) == ("matched", "mismatched", NAMES)
    assert sorted(zip(matched.ids, matched.labels, strict=True)) == [(0, 0), (1, 1), (2, 2)]
    (unlabelled,) = load_labelled(
        "tfds:glue/mnli:test_matched", config.Config(data=data), tokenizer, NAMES
    )
    np.testing.assert_array_equal(unlabelled.labels, [-1])
    other = ("contradiction", "entailment", "neutral")
    (renamed,) = load_labelled(
        "tfds:glue/mnli:validation_matched", config.Config(data=data), tokenizer, other
    )
    assert sorted(zip(renamed.ids, renamed.labels, strict=True)) == [(0, 1), (1, 2), (2, 0)]


def test_text_for_pretraining_is_one_document_a_record(folder: Path) -> None:
    data = config.Data(dir=str(folder))
    (source,) = sources.parse_sources("tfds:glue/mnli:validation_matched")
    documents = [
        list(lines)
        for blank, lines in itertools.groupby(sources.open_source(source, data).lines(), "".__eq__)
        if not blank
    ]
    assert sorted(documents) == [["a", "b", "c"], ["d", "e"], ["f", "g"]]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("tfds:gleu/mnli", "did you mean glue"),
        ("tfds:no_such_set", "TFDS knows no data set 'no_such_set'"),
        ("tfds:glue/mnlii", "no config 'mnlii'; did you mean mnli"),
        (
            "tfds:glue/sst2",
            "'glue/sst2' is not built in .* which has glue/mnli/2.0.0: .*download_and_prepare",
        ),
        ("tfds:wiki40b/en", "is not built in .* which has nothing of wiki40b: .*text.wiki40b"),
        (
            "tfds:glue/mnli:validation",
            "no split 'validation'; it has test_matched, train, validation_matched",
        ),
    ],
)
def test_unknown_and_unbuilt_data_sets_are_refused_with_the_remedy(
    folder: Path, spec: str, words: str
) -> None:
    with pytest.raises(InputError, match=words) as raised:
        examples(spec, folder)
    assert str(raised.value).startswith("config.data.train: ")
    assert "\n" not in str(raised.value)


def test_the_data_sets_of_the_papers_are_known_to_tfds(tmp_path: Path) -> None:
    for name in (
        "glue/qqp",
        "wikipedia/20230601.en",
        "wiki40b/en",
        "lm1b",
        "wmt14_translate/fr-en",
    ):
        with pytest.raises(InputError, match="is not built"):
            tfds_source.TfdsSplit(name, "train", config.Data(dir=str(tmp_path)))


def damaged(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy" / "glue" / "mnli" / "2.0.0"


def test_damaged_data_sets_are_refused(folder: Path, tmp_path: Path) -> None:
    home = damaged(folder, tmp_path)
    records = home / "glue-train.array_record-00000-of-00001"
    whole = records.read_bytes()
    for content in (whole[: len(whole) // 2], b""):
        records.write_bytes(content)
        with pytest.raises(InputError, match="are damaged"):
            examples("tfds:glue/mnli", tmp_path / "copy")
    records.unlink()
    with pytest.raises(InputError, match="are damaged"):
        examples("tfds:glue/mnli", tmp_path / "copy")
    info = home / "dataset_info.json"
    content = json.loads(info.read_text())
    info.write_text(json.dumps({**content, "fileFormat": "tfrecord"}))
    with pytest.raises(InputError, match="stored as tfrecord, which needs TensorFlow"):
        examples("tfds:glue/mnli", tmp_path / "copy")
    info.write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        examples("tfds:glue/mnli", tmp_path / "copy")


def test_the_fingerprint_follows_content_and_not_the_folder(folder: Path, tmp_path: Path) -> None:
    def fingerprint(where: Path, split: str = "train") -> str:
        return tfds_source.TfdsSplit("glue/mnli", split, config.Data(dir=str(where))).fingerprint()

    home = damaged(folder, tmp_path)
    assert (
        fingerprint(folder)
        == fingerprint(tmp_path / "copy")
        != fingerprint(folder, "validation_matched")
    )
    assert fingerprint(folder, "train[:10]") != fingerprint(folder, "train[:11]")
    info = home / "dataset_info.json"
    info.write_text(info.read_text().replace('"40"', '"39"'))
    assert fingerprint(folder) != fingerprint(tmp_path / "copy")


def test_marks_of_wiki40b_become_lines() -> None:
    text = "\n_START_ARTICLE_\nTitle\n_START_SECTION_\nPart\n_START_PARAGRAPH_\nOne._NEWLINE_Two."
    lines = [line for line in tfds_source._without_marks(text).split("\n") if line]
    assert lines == ["Title", "Part", "One.", "Two."]


def test_pairs_of_languages_are_read_in_either_direction(tmp_path: Path) -> None:
    pairs = [(f"the cat number {n}", f"le chat numéro {n}") for n in range(40)]
    build_wmt14(tmp_path, {"train": pairs, "validation": pairs[:5]})
    data = config.Data(dir=str(tmp_path))
    (source,) = sources.check_sources("tfds:wmt14_translate/fr-en:train", "data.train", data)
    assert sorted(sources.open_source(source, data).pairs()) == sorted(pairs)
    (valid,) = sources.parse_sources("tfds:wmt14_translate/fr-en:validation")
    backwards = config.Data(dir=str(tmp_path), text="fr", pair="en")
    assert sorted(sources.open_source(valid, backwards).pairs()) == sorted(
        (b, a) for a, b in pairs[:5]
    )
