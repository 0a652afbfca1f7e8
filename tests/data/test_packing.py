from __future__ import annotations

import errno
import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlc_jax import config
from tlc_jax.core.errors import InputError
from tlc_jax.data import packing
from tlc_jax.data.text_files import TextFiles
from tlc_jax.data.tokenizer import EOS, Tokenizer

LENGTH = 16


def settings(corpus: Path | str, **data: Any) -> config.Config:
    train = corpus if isinstance(corpus, str) else f"files:{corpus}"
    return config.resolve({
        "data": {"train": train, "length": LENGTH, **data},
        "tokenizer": {"vocab_size": 440, "train_bytes": 100_000},
    })  # fmt: skip


def prepare(corpus: Path | str, cache: Path, **data: Any) -> packing.PretrainingData:
    return packing.prepare(settings(corpus, **data), cache, progress=False)


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def test_whole_documents_are_held_out(corpus: Path, tmp_path: Path) -> None:
    made = prepare(corpus, tmp_path / "cache", holdout=0.1)
    (train,), held = made.train, made.valid["heldout"]
    end, start = made.tokenizer.encode([""])[0], made.tokenizer.special.start
    assert end == []
    lines = TextFiles(str(corpus), config.Data()).lines()
    texts = [
        [*itertools.chain(*made.tokenizer.encode(list(text))), EOS]
        for has_text, text in itertools.groupby(lines, bool)
        if has_text
    ]
    found = []
    for part in (train, held):
        rows = part.take(np.arange(len(part)))
        assert rows.dtype == np.int32 and (rows[:, 0] == start).all()
        stream = rows[:, 1:].ravel().tolist()
        # The stream is made of whole documents, in their order; an incomplete last row is left out.
        here = [n for n, text in enumerate(texts) if _contains(stream, text)]
        whole = [token for n in here for token in texts[n]]
        assert stream[: len(whole)] == whole and len(stream) - len(whole) < max(map(len, texts))
        found.append(set(here))
    assert not found[0] & found[1] and len(found[0] | found[1]) >= len(texts) - 2
    assert 0.07 < sum(len(texts[n]) for n in found[1]) / sum(map(len, texts)) < 0.13
    assert max(found[1]) - min(found[1]) > 30  # at random
    facts = made.facts["train/corpus"]["documents"], made.facts["valid/heldout"]["documents"]
    assert sum(facts) == len(texts)


def _contains(stream: list[int], text: list[int]) -> bool:
    return any(stream[at : at + len(text)] == text for at in range(len(stream) - len(text) + 1))


@pytest.mark.parametrize(("documents", "held"), [(2, 1), (3, 2), (50, 2), (2000, 10)])
def test_a_small_text_holds_out_a_document_too(documents: int, held: int) -> None:
    lines = ["bas dus fin mar", "", ""] * documents
    assert packing.held_out_documents(lines, 0.005, 30, "x").sum() == held
    with pytest.raises(InputError, match="x has 1 document, .* set data.valid, or end documents"):
        packing.held_out_documents(["bas", "dus", ""], 0.005, 30, "x")


def test_the_subsample_follows_a_seed_of_its_own(corpus: Path, tmp_path: Path) -> None:
    def sets(seed: int, run: int) -> tuple[np.ndarray, np.ndarray]:
        data = {"holdout": 0.2, "subsample": 0.5, "subsample_seed": seed}
        made = packing.prepare(
            config.resolve({**config.to_dict(settings(corpus, **data)), "seed": run}),
            tmp_path / "cache",
            progress=False,
        )
        train, held = made.train[0].rows, made.valid["heldout"].tokens
        assert train is not None and len(train) == round(0.5 * len(made.train[0].tokens))
        return train, np.array(held)

    (train_a, held_a), (train_b, held_b), (train_c, _) = sets(0, 0), sets(1, 0), sets(0, 1)
    np.testing.assert_array_equal(held_a, held_b)
    np.testing.assert_array_equal(train_a, train_c)
    assert not np.array_equal(train_a, train_b)


def test_named_validation_sources_leave_all_rows_for_training(corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("bas dus fin\n" * 50)
    made = prepare(corpus, tmp_path / "cache", valid=f"files:{other},again=files:{corpus}")
    assert list(made.valid) == ["other", "again"]
    assert len(made.train[0]) == len(made.valid["again"]) == len(made.train[0].tokens)
    assert list(made.facts) == ["train/corpus", "valid/other", "valid/again"]


def test_a_second_run_reuses_everything(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(corpus, tmp_path / "cache")
    assert not first.facts["train/corpus"]["cached"]
    monkeypatch.setattr("tlc_jax.data.sentencepiece_tokenizer.train_tokenizer", None)
    monkeypatch.setattr(packing, "pack", None)
    second = prepare(corpus, tmp_path / "cache")
    assert second.facts["train/corpus"]["cached"] and second.tokenizer.hash == first.tokenizer.hash
    np.testing.assert_array_equal(first.train[0].tokens, second.train[0].tokens)


def spoil_text(cache: Path, corpus: Path) -> None:
    corpus.write_text(
        corpus.read_text().replace("bas", "dus") + "more text at the end of it\n" * 40
    )


def spoil_rows_cut(cache: Path, corpus: Path) -> None:
    path = only(cache, "kept*-rows-*.bin")
    path.write_bytes(path.read_bytes()[:-10])


def spoil_no_manifest(cache: Path, corpus: Path) -> None:
    only(cache, "kept*-rows-*.bin.json").unlink()


def spoil_half_manifest(cache: Path, corpus: Path) -> None:
    path = only(cache, "kept*-rows-*.bin.json")
    path.write_text(path.read_text()[:40])


def spoil_no_rows(cache: Path, corpus: Path) -> None:
    only(cache, "kept*-rows-*.bin").unlink()


def spoil_tokenizer_cut(cache: Path, corpus: Path) -> None:
    path = only(cache, "tokenizer-*.model")
    path.write_bytes(path.read_bytes()[:-100])


def spoil_other_tokenizer(cache: Path, corpus: Path) -> None:
    path = only(cache, "kept*-rows-*.bin.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_hash": "0"}))


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_text,
        spoil_rows_cut,
        spoil_no_manifest,
        spoil_half_manifest,
        spoil_no_rows,
        spoil_tokenizer_cut,
        spoil_other_tokenizer,
    ],
)
def test_a_stale_or_broken_cache_is_rebuilt(corpus: Path, tmp_path: Path, spoil: Any) -> None:
    prepare(corpus, tmp_path / "cache")
    spoil(tmp_path / "cache", corpus)
    again, fresh = prepare(corpus, tmp_path / "cache"), prepare(corpus, tmp_path / "fresh")
    assert again.tokenizer.hash == fresh.tokenizer.hash
    np.testing.assert_array_equal(again.train[0].tokens, fresh.train[0].tokens)


def test_a_changed_text_replaces_its_old_rows(
    corpus: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    tokenizer.save(tmp_path / "given.model")
    given = config.merge(
        config.to_dict(settings(corpus)), {"tokenizer": {"path": str(tmp_path / "given.model")}}
    )
    first = packing.prepare(config.resolve(given), tmp_path / "cache", progress=False)
    old = np.array(first.train[0].tokens)
    spoil_text(tmp_path / "cache", corpus)
    again = packing.prepare(config.resolve(given), tmp_path / "cache", progress=False)
    assert not again.facts["train/corpus"]["cached"]
    assert len(again.train[0].tokens) > len(old)
    np.testing.assert_array_equal(
        first.train[0].tokens, old
    )  # a run that still reads the old rows keeps them
    only(tmp_path / "cache", "kept*-rows-*.bin")


def test_an_interrupted_packing_leaves_no_valid_file(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(*args: Any) -> Any:
        args[3].write(b"half a row")
        raise KeyboardInterrupt
        yield

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packing, "pack", dying)
        prepare(corpus, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.part")) and not list(
        (tmp_path / "cache").glob("kept*-rows-*.bin")
    )
    (tmp_path / "cache" / "rows-x.bin.part").write_bytes(b"left by a kill")
    assert len(prepare(corpus, tmp_path / "cache").train[0]) > 0


def test_a_source_that_changes_while_it_is_read_is_refused(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = packing.pack

    def growing(*args: Any) -> Any:
        with corpus.open("a") as file:
            file.write("more\n")
        return real(*args)

    monkeypatch.setattr(packing, "pack", growing)
    with pytest.raises(InputError, match="changed while it was read"):
        prepare(corpus, tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_an_input_error(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write .*set data.cache elsewhere"):
        prepare(corpus, tmp_path / "file")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tlc_jax.data.cache.os.fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        prepare(corpus, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.part"))


def test_a_complete_cache_is_used_even_on_a_read_only_disk(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(corpus, tmp_path / "cache")

    def read_only(*args: Any, **named: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tlc_jax.data.cache.Lock", read_only)
    assert prepare(corpus, tmp_path / "cache").facts["train/corpus"]["cached"]


def test_text_that_does_not_fill_a_row_is_refused(corpus: Path, tmp_path: Path) -> None:
    short, blank = tmp_path / "short.txt", tmp_path / "blank.txt"
    short.write_text("bas\n")
    blank.write_text("\n \n")
    with pytest.raises(InputError, match="too few for one row of data.length=16"):
        prepare(corpus, tmp_path / "cache", valid=f"files:{short}")
    with pytest.raises(InputError, match="all its lines are blank"):
        prepare(corpus, tmp_path / "cache", valid=f"files:{blank}")


def test_a_given_tokenizer_is_used_unchanged(
    corpus: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    tokenizer.save(tmp_path / "given.model")
    base = config.to_dict(settings(corpus))
    given = config.resolve(
        config.merge(base, {"tokenizer": {"path": str(tmp_path / "given.model")}})
    )
    made = packing.prepare(given, tmp_path / "cache", progress=False)
    assert made.tokenizer.hash == tokenizer.hash and made.tokenizer_path == tmp_path / "given.model"
    assert not list((tmp_path / "cache").glob("tokenizer*"))
    missing = config.resolve(
        config.merge(base, {"tokenizer": {"path": str(tmp_path / "no.model")}})
    )
    with pytest.raises(InputError, match=r"no\.model cannot be read"):
        packing.prepare(missing, tmp_path / "cache", progress=False)


def test_weights_reach_the_mixture_and_the_tokenizer(corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("zizi zuzu zaza\n\n" * 100)
    spec = "files:{}@{},files:{}@{}"
    made = prepare(spec.format(corpus, 3, other, 1), tmp_path / "cache")
    assert [part.weight for part in made.train] == [3.0, 1.0]
    assert list(made.valid) == ["heldout_corpus", "heldout_other"]
    swapped = prepare(spec.format(corpus, 1, other, 3), tmp_path / "cache")
    assert swapped.tokenizer_path != made.tokenizer_path


def test_progress_is_shown_on_stderr(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packing.prepare(settings(corpus), tmp_path / "cache")
    told = capsys.readouterr()
    assert (
        told.out == "" and "training a tokenizer" in told.err and "packing corpus [####" in told.err
    )
