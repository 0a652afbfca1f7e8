"""Pairs: what is read, left out and counted; splits in which every sentence counts."""

import dataclasses
import gzip
import json

import numpy as np
import pytest

from tlc_jax import config as configs
from tlc_jax.core.errors import InputError
from tlc_jax.data import sources
from tlc_jax.data.pairs import encode_split, prepare_pairs
from tlc_jax.data.sentencepiece_tokenizer import train_tokenizer
from tlc_jax.data.tokenizer import EOS

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
RNG = np.random.default_rng(0)
LEFT = [" ".join(RNG.choice(WORDS, size)) for size in RNG.integers(2, 9, 200)]
RIGHT = [line.upper() for line in LEFT]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([*LEFT, *RIGHT], 300, 1_000_000)


@pytest.fixture
def files(tmp_path):
    def write(left, right, name="train"):
        for side, lines in (("en", left), ("fr", right)):
            with gzip.open(tmp_path / f"{name}.{side}.gz", "wt", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
        return f"files:{tmp_path}/{name}.en.gz+{tmp_path}/{name}.fr.gz"

    return write


@pytest.fixture
def config(tmp_path, tokenizer, files):
    tokenizer.save(tmp_path / "tokenizer.model")
    settings = {
        "data": {"train": files(LEFT, RIGHT), "length": 64, "holdout": 0.1},
        "tokenizer": {"path": str(tmp_path / "tokenizer.model")},
        "model": {"layers": 1, "hidden": 64, "max_length": 64},
    }
    return configs.resolve(configs.merge(configs.to_dict(configs.Config()), settings))


def with_data(config, **data):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **data))


def prepare(config, tmp_path):
    return prepare_pairs(config, tmp_path / "cache", progress=False)


def test_pairs_decode_to_their_texts(config, files, tmp_path) -> None:
    config = with_data(config, valid=files(LEFT[:7], RIGHT[:7], "valid"))
    data = prepare(config, tmp_path)
    (pairs,) = data.train
    decode = data.tokenizer.decode
    assert [decode(pairs.side(row, 0)) for row in range(len(pairs))] == LEFT
    assert [decode(pairs.side(row, 1)) for row in range(len(pairs))] == RIGHT
    source, target = pairs.padded(np.array([9, 5]), 40)
    assert decode(source[1]) == LEFT[5] and decode(target[0]) == RIGHT[9]
    assert source[1, pairs.lengths[5, 0] - 1] == EOS and not source[1, pairs.lengths[5, 0] :].any()


def test_left_out_pairs_are_counted(config, files, tmp_path) -> None:
    left = [*LEFT, "", "alpha", "beta", " ".join(WORDS * 9)]
    right = [*RIGHT, "ALPHA", "  ", " ".join(WORDS), "BETA"]
    config = with_data(
        config, train=files(left, right), valid=files(LEFT, RIGHT, "valid"), max_ratio=3.0
    )
    data = prepare(config, tmp_path)
    (facts,) = data.facts.values()
    counted = {
        name: facts[name] for name in ("pairs", "kept", "empty", "too_long", "unequal", "cached")
    }
    assert counted == {
        "pairs": 204,
        "kept": 200,
        "empty": 2,
        "too_long": 1,
        "unequal": 1,
        "cached": False,
    }
    assert len(data.train[0]) == 200
    assert facts["source_tokens"] + facts["target_tokens"] == len(data.train[0].tokens)
    again = prepare(config, tmp_path)
    assert next(iter(again.facts.values()))["cached"]
    np.testing.assert_array_equal(again.train[0].tokens, data.train[0].tokens)
    np.testing.assert_array_equal(again.train[0].lengths, data.train[0].lengths)
    without = prepare(with_data(config, max_ratio=0.0), tmp_path)
    assert len(without.train[0]) == 201


def test_a_held_out_part_keeps_its_texts(config, tmp_path) -> None:
    data = prepare(config, tmp_path)
    (train,), (split,) = data.train, data.valid
    assert len(split.texts) == 20 and len(train) == 180
    assert set(zip(split.texts, split.references, strict=True)) <= set(
        zip(LEFT, RIGHT, strict=True)
    )
    kept = {data.tokenizer.decode(train.side(row, 0)) for row in range(len(train))}
    assert kept | set(split.texts) == set(LEFT)
    other = prepare(dataclasses.replace(config, seed=9), tmp_path)
    assert other.valid[0].texts == split.texts


def test_validation_keeps_every_sentence(tokenizer) -> None:
    config = configs.Config(data=configs.Data(length=10))
    texts = ["alpha beta", "", " ".join(WORDS * 9)]
    split = encode_split("valid", texts, ["ALPHA", "BETA", "GAMMA"], config, tokenizer)
    assert len(split.pairs) == 3 and split.cut == 1
    assert split.pairs.lengths[:, 0].tolist()[1:] == [1, 10]
    assert split.texts == texts and split.references == ["ALPHA", "BETA", "GAMMA"]
    assert texts[2].startswith(tokenizer.decode(split.pairs.side(2, 0)))


@pytest.mark.parametrize(("left", "right"), [(3, 5), (5, 3), (1, 0)])
def test_files_with_different_numbers_of_lines_are_refused_with_both(
    config, files, tmp_path, left, right
) -> None:
    config = with_data(config, train=files(LEFT[:left], RIGHT[:right]))
    with pytest.raises(InputError, match=f"has {left} lines and .* has {right}|is empty"):
        prepare(config, tmp_path)


def test_tables_have_two_columns(config, tmp_path) -> None:
    table = tmp_path / "pairs.tsv"
    table.write_text(
        "en\tfr\tnote\n" + "".join(f"{a}\t{b}\tx\n" for a, b in zip(LEFT, RIGHT, strict=True))
    )
    (source,) = sources.parse_sources(f"files:{table}")
    assert list(sources.open_source(source, config.data).pairs()) == list(
        zip(LEFT, RIGHT, strict=True)
    )
    records = tmp_path / "pairs.jsonl"
    records.write_text(
        "".join(json.dumps({"src": a, "tgt": b}) + "\n" for a, b in zip(LEFT, RIGHT, strict=True))
    )
    (source,) = sources.parse_sources(f"files:{records}")
    named = dataclasses.replace(config.data, text="tgt", pair="src")
    assert next(sources.open_source(source, named).pairs()) == (RIGHT[0], LEFT[0])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("one.tsv", "text\tlabel\na\tb\n", "single column of text"),
        ("lines.txt", "a\nb\n", "one text a line"),
    ],
)
def test_files_without_pairs_are_refused(config, tmp_path, name, content, message) -> None:
    (tmp_path / name).write_text(content)
    (source,) = sources.parse_sources(f"files:{tmp_path}/{name}")
    with pytest.raises(InputError, match=message):
        list(sources.open_source(source, config.data).pairs())


@pytest.mark.parametrize("spec", ["A.en+A.fr+A.de", "A.tsv+A.fr", "missing.en+missing.fr"])
def test_joined_files_that_are_not_two_texts_are_refused(config, tmp_path, spec) -> None:
    with pytest.raises(InputError, match="line-aligned|cannot be read"):
        sources.check_sources(f"files:{tmp_path}/{spec}", "data.train", config.data)


def test_a_source_without_usable_pairs_is_refused_with_the_reasons(config, files, tmp_path) -> None:
    with pytest.raises(InputError, match="none of its 2 pairs can be used .1 empty, 1 longer"):
        prepare(with_data(config, train=files(["", " ".join(WORDS * 20)], ["X", "Y"])), tmp_path)
