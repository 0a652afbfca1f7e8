from __future__ import annotations

import dataclasses
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from tlc_jax import config
from tlc_jax.core.errors import InputError
from tlc_jax.data.labelled import fitting, load_labelled
from tlc_jax.data.order import hold_out
from tlc_jax.data.tokenizer import BOS, EOS, PAD, Tokenizer


def write(folder: Path, name: str, content: str) -> str:
    (folder / name).write_text(content)
    return f"files:{folder / name}"


def test_singles_and_pairs_are_framed_by_their_special_pieces(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    spec = write(tmp_path, "a.tsv", "premise\thypothesis\tlabel\nbas dus\tfin\tno\nfin\t\tyes\n")
    (pairs,) = load_labelled(spec, config.Config(data=config.Data(length=32)), tokenizer, None)
    a, b = tokenizer.encode(["bas dus", "fin"])
    out = pairs.padded(np.array([1, 0]), 32)
    assert out[1].tolist() == [*[BOS, *a, EOS, *b, EOS], *[PAD] * (29 - len(a) - len(b))]
    assert out[0].tolist() == [*[BOS, *b, EOS, EOS], *[PAD] * (29 - len(b))]
    (single,) = load_labelled(
        spec, config.Config(data=config.Data(length=32, pair="-")), tokenizer, None
    )
    assert single.tokens[: single.lengths[0]].tolist() == [BOS, *a, EOS]
    assert (single.label_names, single.labels.tolist(), single.ids.tolist()) == (
        ("no", "yes"),
        [0, 1],
        [0, 1],
    )
    assert single.tokens.dtype == np.uint16 and single.labels.dtype == np.int32


@given(a=st.integers(0, 40), b=st.integers(0, 40), limit=st.integers(2, 50))
def test_the_longer_text_gives_first(a: int, b: int, limit: int) -> None:
    def one_by_one() -> tuple[int, int]:
        left = [a, b]
        while sum(left) > limit:
            left[0 if left[0] > left[1] else 1] -= 1
        return left[0], left[1]

    assert fitting(a, b, limit) == one_by_one()


def test_long_examples_are_cut_and_counted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    long = "bas dus fin " * 20
    spec = write(
        tmp_path,
        "a.tsv",
        f"premise\thypothesis\tlabel\n{long}\tfin\t0\nbas\tfin\t1\n{long}\t{long}\t1\n",
    )
    (found,) = load_labelled(spec, config.Config(data=config.Data(length=16)), tokenizer, None)
    assert found.truncated == 2
    assert found.lengths.tolist()[::2] == [16, 16]
    fin = tokenizer.encode(["fin"])[0]
    assert found.tokens[: found.lengths[0]].tolist()[-len(fin) - 1 :] == [*fin, EOS]


def test_labels_sort_as_numbers_where_they_are(tmp_path: Path, tokenizer: Tokenizer) -> None:
    spec = write(tmp_path, "a.tsv", "text\tlabel\nx\t10\ny\t9\nz\t-1\n")
    (found,) = load_labelled(spec, config.Config(), tokenizer, None)
    assert found.label_names == ("-1", "9", "10")


def test_an_unknown_label_is_refused_with_its_place_and_the_known_ones(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    one = write(tmp_path, "a.tsv", "text\tlabel\nx\tpos\n")
    two = write(tmp_path, "b.tsv", "text\tlabel\nx\tneg\ny\tposs\n")
    with pytest.raises(InputError, match=r"b\.tsv, line 3: unknown label 'poss'.*did you mean pos"):
        load_labelled(f"{one},{two}", config.Config(), tokenizer, ("neg", "pos"))
    with pytest.raises(
        InputError, match=r"b\.tsv, line 3: unknown label 'poss'.*known are up, down"
    ):
        load_labelled(two, config.Config(), tokenizer, ("up", "down", "neg"))


def test_labels_are_needed_only_if_the_classes_are_unknown(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    spec = write(tmp_path, "a.tsv", "text\nx\n")
    (found,) = load_labelled(spec, config.Config(), tokenizer, ("a", "b"))
    assert found.labels.tolist() == [-1]
    with pytest.raises(InputError, match=r"no labels: name their column in data\.label"):
        load_labelled(spec, config.Config(), tokenizer, None)
    with pytest.raises(InputError, match="the single label 'a'"):
        spec = write(tmp_path, "b.tsv", "text\tlabel\nx\ta\n")
        load_labelled(spec, config.Config(), tokenizer, None)


def test_only_the_training_source_is_subsampled(tmp_path: Path, tokenizer: Tokenizer) -> None:
    spec = write(
        tmp_path, "a.tsv", "text\tlabel\n" + "".join(f"bas {n}\t{n % 2}\n" for n in range(100))
    )
    data = config.Data(train=spec, subsample=0.3)
    (part,), (same,) = (
        load_labelled(spec, config.Config(data=data, seed=seed), tokenizer, None)
        for seed in range(2)
    )
    reseeded = config.Config(data=dataclasses.replace(data, subsample_seed=1))
    (other,) = load_labelled(spec, reseeded, tokenizer, None)
    (whole,) = load_labelled(f"x={spec}", config.Config(data=data), tokenizer, None)
    assert len(part) == 30 and len(whole) == 100
    np.testing.assert_array_equal(part.ids, same.ids)
    assert not np.array_equal(part.ids, other.ids)
    row = 7
    original = int(part.ids[row])
    np.testing.assert_array_equal(
        part.padded(np.array([row]), 64), whole.padded(np.array([original]), 64)
    )
    assert part.labels[row] == original % 2


def test_held_out_examples_leave_training_and_do_not_depend_on_the_seed(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    specs = [
        write(
            tmp_path,
            f"{name}.tsv",
            "text\tlabel\n" + "".join(f"{name} {n}\t{n % 2}\n" for n in range(40)),
        )
        for name in ("bas", "dus")
    ]
    parts = load_labelled(",".join(specs), config.Config(), tokenizer, None)
    train, held = hold_out(parts, 0.2)
    for whole, kept, out in zip(parts, train, held, strict=True):
        assert (len(kept), len(out)) == (32, 8)
        assert sorted([*kept.ids, *out.ids]) == whole.ids.tolist()
        assert (out.labels == out.ids % 2).all() and (kept.labels == kept.ids % 2).all()
    assert [part.name for part in held] == ["heldout_bas", "heldout_dus"]
    assert hold_out(parts[:1], 0.2)[1][0].name == "heldout"
    with pytest.raises(InputError, match="bas is too small to hold out"):
        hold_out([parts[0].take_rows(np.array([3]))], 0.2)
