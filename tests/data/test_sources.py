from __future__ import annotations

from pathlib import Path

import pytest

from tlc_jax import config
from tlc_jax.core.errors import InputError
from tlc_jax.core.text import note_once
from tlc_jax.data import sources
from tlc_jax.data.sources import parse_sources

DATA = config.Data()


def test_the_grammar_splits_name_kind_location_split_and_weight() -> None:
    a, b, c = parse_sources(
        "x=tfds:glue/mnli:validation_matched@0.5, files:books/*.txt@2,toy:text:valid@1e-1"
    )
    assert (a.kind, a.location, a.split, a.name, a.weight) == (
        "tfds",
        "glue/mnli",
        "validation_matched",
        "x",
        0.5,
    )
    assert (b.kind, b.location, b.split, b.weight) == ("files", "books/*.txt", "", 2.0)
    assert (c.kind, c.location, c.split, c.weight) == ("toy", "text", "valid", 0.1)
    assert b.spec == "files:books/*.txt@2"


def test_the_default_split_is_train() -> None:
    assert [source.split for source in parse_sources("tfds:lm1b,toy:text")] == ["train", "train"]
    assert parse_sources("tfds:glue/mnli:train[:50%]")[0].split == "train[:50%]"


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("tfds:glue/mnli:validation_matched,tfds:glue/mnli:validation_mismatched",
         ["validation_matched", "validation_mismatched"]),
        ("files:a/dev.tsv.gz", ["dev"]),
        ("files:books/*.txt", ["books"]),
        ("files:*.txt", ["files"]),
        ("tfds:lm1b,tfds:wiki40b/en", ["lm1b_train", "wiki40b_en_train"]),
        ("files:a/x.txt,files:b/x.txt", ["a_x.txt", "b_x.txt"]),
        ("toy:text,toy:text", ["text_train", "text_train_2"]),
        ("dev=toy:text,files:dev.txt", ["dev", "dev_2"]),
    ],
)  # fmt: skip
def test_default_names_are_readable_and_unique(spec: str, names: list[str]) -> None:
    assert [source.name for source in parse_sources(spec)] == names


def test_file_names_may_contain_at_and_equals_signs() -> None:
    (source,) = parse_sources("files:me@home/a=b.txt")
    assert (source.location, source.weight) == ("me@home/a=b.txt", 0.0)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("corpus.txt", "not KIND:LOCATION"),
        ("files:", "not KIND:LOCATION"),
        ("files:a.txt,", "not KIND:LOCATION"),
        ("file:a.txt", "did you mean files"),
        ("toy:text@much", "not a number"),
        ("toy:text@0", "above 0"),
        ("toy:text@-1", "above 0"),
        ("toy:text@nan", "above 0"),
        ("toy:text@inf", "above 0"),
        ("a=toy:text,a=toy:nli", "named 'a'"),
        ("toy:text@0.5,toy:nli", "weigh all of them or none"),
    ],
)
def test_bad_syntax_is_refused(spec: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_sources(spec)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("  ", "is empty"),
        ("toy:txt", "did you mean text"),
        ("toy:text:dev", "no split 'dev'"),
        ("files:nowhere/at/all.txt", "nowhere/at/all.txt does not exist"),
        ("files:nowhere/*.txt", "matches no file"),
    ],
)
def test_a_source_that_cannot_be_opened_is_refused_with_its_setting(spec: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        sources.check_sources(spec, "data.valid", DATA)
    assert str(raised.value).startswith("config.data.valid")
    assert "\n" not in str(raised.value)


def test_the_toy_world_is_a_source_like_any_other() -> None:
    text, pairs = parse_sources("toy:text:valid,toy:nli:valid")
    lines = list(sources.open_source(text, DATA).lines())
    assert "" in lines and any(lines)
    examples = sources.open_source(pairs, DATA).examples()
    assert examples.pairs is not None and examples.labels is not None
    assert len(examples.pairs) == len(examples.labels) == len(examples.ids) == len(examples)
    assert examples.label_names is not None and set(examples.labels) == set(examples.label_names)
    assert (
        sources.open_source(text, DATA).fingerprint()
        != sources.open_source(pairs, DATA).fingerprint()
    )


def test_a_fingerprint_changes_with_the_file_and_with_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("text\tother\nx\ty\n")
    (source,) = parse_sources(f"files:{path}")
    first = sources.open_source(source, DATA).fingerprint()
    assert sources.open_source(source, DATA).fingerprint() == first
    assert sources.open_source(source, config.Data(text="other")).fingerprint() != first
    path.write_text("text\tother\nz\tyy\n")
    assert sources.open_source(source, DATA).fingerprint() != first


def test_the_toy_world_has_translations() -> None:
    (source,) = sources.check_sources("toy:translation:valid", "data.valid", DATA)
    english, other = next(sources.open_source(source, DATA).pairs())
    assert english and other and english != other
    assert next(iter(sources.open_source(source, DATA).lines())) == english
    assert (
        sources.open_source(source, DATA).fingerprint()
        != sources.open_source(sources.parse_sources("toy:nli:valid")[0], DATA).fingerprint()
    )
    with pytest.raises(InputError, match="toy:translation has"):
        next(sources.open_source(sources.parse_sources("toy:nli")[0], DATA).pairs())
    with pytest.raises(InputError, match="no labels"):
        sources.open_source(source, DATA).examples()


def test_the_old_name_of_the_toy_translations_is_understood_with_one_warning(capsys) -> None:
    note_once.cache_clear()
    (old,) = parse_sources("toy:enfr:valid")
    (new,) = parse_sources("toy:translation:valid")
    parse_sources("toy:enfr:train")
    assert (old.location, old.split, old.name) == (new.location, new.split, new.name)
    old_reader, new_reader = sources.open_source(old, DATA), sources.open_source(new, DATA)
    assert old_reader.fingerprint() == new_reader.fingerprint()
    assert next(old_reader.pairs()) == next(new_reader.pairs())
    (warning,) = capsys.readouterr().err.splitlines()
    assert "toy:enfr is now toy:translation" in warning
