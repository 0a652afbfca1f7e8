"""Predicting a file block by block: bounded memory, the file's order, and only whole outputs."""

from __future__ import annotations

import gzip
import os
import random
import weakref

import numpy as np
import pytest

from tests.commands.conftest import sentence, tlc
from tlc_jax.commands import predict
from tlc_jax.data.text_files import TextFiles
from tlc_jax.models.network import Network
from tlc_jax.tasks.translation import TranslatorRun


@pytest.fixture
def blocks_of_eight(monkeypatch):
    monkeypatch.setattr(predict, "_ROWS", 8)


def arguments(run, source, output) -> tuple[str, ...]:
    return (
        f"--init={run}",
        f"--config.predict.input={source}",
        f"--config.predict.output={output}",
    )


def test_blocks_give_the_evaluated_probabilities_in_the_files_order(
    compressed, world, tmp_path, blocks_of_eight
):
    assert tlc("predict", *arguments(compressed, world / "dev.tsv", tmp_path / "out.tsv")) == 0
    header, *rows = (tmp_path / "out.tsv").read_text().splitlines()
    assert header == "label\tno\tyes"
    found = np.array([[float(cell) for cell in row.split("\t")[1:]] for row in rows])
    saved = np.load(compressed / "predictions" / "dev.npz")["probabilities"]
    np.testing.assert_allclose(found, saved, atol=2e-6)
    assert [row.split("\t")[0] for row in rows] == [("no", "yes")[best] for best in saved.argmax(1)]


def test_memory_is_that_of_a_few_blocks_and_nothing_is_compiled_twice(
    finetuned, tmp_path, monkeypatch, blocks_of_eight, capsys
):
    rng = random.Random(1)
    with gzip.open(tmp_path / "in.txt.gz", "wt") as file:
        file.writelines(f"{sentence(rng)}\n" for _ in range(400))
    held, most, traced = [0], [0], []
    read, apply = TextFiles.example_blocks, Network.apply

    def release(rows: int) -> None:
        held[0] -= rows

    def counted(*given, **named):
        for block in read(*given, **named):
            held[0] += len(block)
            most[0] = max(most[0], held[0])
            weakref.finalize(block, release, len(block))
            yield block

    def traced_apply(self, params, tokens_BxL, *rest, **named):
        traced.append(tokens_BxL.shape)
        return apply(self, params, tokens_BxL, *rest, **named)

    monkeypatch.setattr(TextFiles, "example_blocks", counted)
    monkeypatch.setattr(Network, "apply", traced_apply)
    assert tlc("predict", *arguments(finetuned, tmp_path / "in.txt.gz", tmp_path / "out.tsv")) == 0
    assert len((tmp_path / "out.tsv").read_text().splitlines()) == 401
    assert most[0] <= 3 * 8
    assert sorted(traced) == sorted(set(traced))
    assert capsys.readouterr().err.strip().startswith("predicting [")


def test_translations_of_blocks_are_compiled_once_a_width(
    translated, tmp_path, monkeypatch, blocks_of_eight
):
    rng = random.Random(2)
    lines = [sentence(rng) for _ in range(24)]
    (tmp_path / "in.txt").write_text(
        "".join(f"{line}\n" for line in [*sorted(lines, key=len), " ".join(lines[:2])])
    )
    widths = []
    translate = TranslatorRun.translate

    def recorded(self, *arguments, **named):
        widths.append(named["widths"])
        return translate(self, *arguments, **named)

    monkeypatch.setattr(TranslatorRun, "translate", recorded)
    run = arguments(translated, tmp_path / "in.txt", tmp_path / "out.txt")
    assert tlc("predict", *run, "--config.data.buckets=2") == 0
    assert len(widths) == 4 and len(set(widths)) == 1 and len(widths[0]) <= 3
    in_blocks = (tmp_path / "out.txt").read_text()
    monkeypatch.undo()
    assert tlc("predict", *run, "--config.data.buckets=2") == 0
    assert (tmp_path / "out.txt").read_text() == in_blocks


@pytest.mark.parametrize("bad", [b"short\n", b"no\tb\xffd\n"], ids=["short", "not UTF-8"])
def test_a_bad_row_is_named_and_leaves_no_output(finetuned, tmp_path, capsys, blocks_of_eight, bad):
    rows = "".join(f"no\tthe {row}\n" for row in range(30)).encode()
    (tmp_path / "in.tsv").write_bytes(b"label\tsentence\n" + rows + bad)
    output = tmp_path / "out.tsv"
    output.write_text("of an earlier run")
    assert tlc("predict", *arguments(finetuned, tmp_path / "in.tsv", output)) == 2
    assert "line 32" in capsys.readouterr().err.splitlines()[-1]
    assert output.read_text() == "of an earlier run"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tsv", "out.tsv"]


def test_a_bad_place_for_the_output_is_refused_before_the_model_is_read(
    finetuned, world, tmp_path, capsys
):
    for output, says in (
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "out.tsv", "does not exist"),
    ):
        assert tlc("predict", *arguments(finetuned, world / "dev.tsv", output)) == 2
        assert says in capsys.readouterr().err


def test_an_output_that_is_a_pipe_is_written_straight(finetuned, world, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert tlc("predict", *arguments(finetuned, world / "dev.tsv", pipe)) == 0
    assert os.read(reader, 1 << 16).count(b"\n") == 38
    os.close(reader)
    assert pipe.is_fifo()


def test_standard_input_and_a_file_of_any_ending_give_the_same_labels(finetuned, tmp_path):
    rng = random.Random(3)
    text = tmp_path / "test.en"
    text.write_text("".join(f"{sentence(rng)}\n" for _ in range(5)))
    assert tlc("predict", *arguments(finetuned, text, tmp_path / "named.tsv")) == 0
    terminal = os.dup(0)
    with text.open() as file:
        os.dup2(file.fileno(), 0)
    try:
        assert tlc("predict", *arguments(finetuned, "-", tmp_path / "piped.tsv")) == 0
    finally:
        os.dup2(terminal, 0)
        os.close(terminal)
    named = (tmp_path / "named.tsv").read_text()
    assert len(named.splitlines()) == 6 and (tmp_path / "piped.tsv").read_text() == named


def test_columns_of_the_training_data_that_predicting_does_not_read_may_be_missing(
    finetuned, translated, tmp_path
):
    rng = random.Random(4)
    lines = [sentence(rng) for _ in range(3)]
    (tmp_path / "in.tsv").write_text("\n".join(["en", *lines]) + "\n")
    text = ("--config.data.text=en", "--config.data.label=gold_label")
    run = arguments(finetuned, tmp_path / "in.tsv", tmp_path / "labels.tsv")
    assert tlc("predict", *run, *text) == 0
    assert len((tmp_path / "labels.tsv").read_text().splitlines()) == 4
    run = arguments(translated, tmp_path / "in.tsv", tmp_path / "out.fr")
    assert tlc("predict", *run, *text, "--config.data.pair=fr") == 0
    assert len((tmp_path / "out.fr").read_text().splitlines()) == 3
