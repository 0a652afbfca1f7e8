"""A tiny world on disk, and the whole chain of commands run on it once."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tlc_jax.cli.main import main

WORDS = [
    "the",
    "a",
    "red",
    "blue",
    "green",
    "small",
    "large",
    "cat",
    "dog",
    "bird",
    "house",
    "river",
    "sees",
    "likes",
    "is",
    "not",
    "near",
    "under",
    "very",
    "quietly",
]
SMALL = (
    "--config.model.layers=1",
    "--config.model.hidden=64",
    "--config.model.max_length=32",
    "--config.data.length=32",
    "--config.impl.microbatch=0",
    "--config.impl.layer_loop=scan",
    "--config.impl.matmul=float32",
    "--config.impl.remat=False",
    # Its draws do not depend on how rows are split over devices.
    "--config.impl.dropout_keys=threefry2x32",
    "--config.eval.batch_size=16",
    "--config.eval.every_seconds=0.0",
)


def sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(3, 12)))


def write_world(folder: Path) -> None:
    rng = random.Random(0)
    for name, lines in (("train", 600), ("valid", 60)):
        (folder / f"{name}.txt").write_text("\n".join(sentence(rng) for _ in range(lines)) + "\n")
    for name, rows in (("train", 96), ("dev", 37)):
        pairs = [(rng.choice(["yes", "no"]), sentence(rng)) for _ in range(rows)]
        (folder / f"{name}.tsv").write_text(
            "label\tsentence\n"
            + "".join(
                f"{label}\t{'red ' if label == 'yes' else ''}{text}\n" for label, text in pairs
            )
        )


def tlc(*arguments: str) -> int:
    return main([str(argument) for argument in arguments])


def result_of(workdir: Path) -> dict:
    return json.loads((workdir / "result.json").read_text())


def pretrain_arguments(world: Path, workdir: Path, *more: str) -> list[str]:
    return [
        "pretrain",
        "--config=configs/mlm.py:1x64",
        f"--workdir={workdir}",
        f"--config.data.train=files:{world}/train.txt",
        f"--config.data.valid=files:{world}/valid.txt",
        f"--config.data.cache={world}/cache",
        "--config.tokenizer.vocab_size=296",
        "--config.optimizer.batch_size=16",
        "--config.budget.seconds=0.0",
        "--config.budget.clock=measured",
        "--config.budget.steps=6",
        *SMALL,
        *more,
    ]


def finetune_arguments(command: str, world: Path, workdir: Path, *more: str) -> list[str]:
    return [
        command,
        "--config=configs/sst2.py",
        f"--workdir={workdir}",
        f"--config.data.train=files:{world}/train.tsv",
        f"--config.data.valid=dev=files:{world}/dev.tsv",
        "--config.optimizer.batch_size=16",
        "--config.budget.epochs=0.0",
        "--config.budget.steps=8",
        *SMALL,
        *more,
    ]


@pytest.fixture
def refused(capsys):
    """Runs a command that must end with exit 2 and one line; returns the line."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert tlc(*map(str, arguments)) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("tlc: error: ")
        return line

    return run


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.fixture(scope="session")
def packed(world) -> Path:
    """`world` with its tokenizer and its packed rows, which any pretraining then finds."""
    flags = [
        flag
        for flag in pretrain_arguments(world, world / "prepared")
        if flag.startswith(("--config=", "--workdir=", "--config.data.", "--config.tokenizer."))
    ]
    assert tlc("prepare", *flags) == 0
    return world


@pytest.fixture(scope="session")
def pretrained(world) -> Path:
    workdir = world / "pretrained"
    assert tlc(*pretrain_arguments(world, workdir)) == 0
    return workdir


@pytest.fixture(scope="session")
def finetuned(world, pretrained) -> Path:
    workdir = world / "finetuned"
    more = (
        f"--config.init.from={pretrained}",
        "--config.eval.every_steps=3",
        "--config.eval.examples=5",
        "--config.eval.keep_predictions=True",
    )
    assert tlc(*finetune_arguments("finetune", world, workdir, *more)) == 0
    return workdir


@pytest.fixture(scope="session")
def compressed(world, finetuned) -> Path:
    workdir = world / "compressed"
    more = (
        f"--config.init.from={finetuned}",
        "--config.recipe=prune:0.75+quantize:4",
        "--config.compress.step=0.4",
    )
    assert tlc(*finetune_arguments("compress", world, workdir, *more)) == 0
    return workdir


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    rng = random.Random(0)
    for name, count in (("train", 400), ("valid", 21)):
        lines = [sentence(rng) for _ in range(count)]
        (folder / f"{name}.en").write_text("".join(f"{line}\n" for line in lines))
        (folder / f"{name}.fr").write_text(
            "".join(f"{' '.join(reversed(line.split()))}\n" for line in lines)
        )
    return folder


def pairs_arguments(command: str, pairs: Path, workdir: Path, *more: str) -> list[str]:
    return [
        command,
        "--config=configs/wmt14_enfr.py:1x64",
        f"--workdir={workdir}",
        f"--config.data.train=files:{pairs}/train.en+{pairs}/train.fr",
        f"--config.data.valid=dev=files:{pairs}/valid.en+{pairs}/valid.fr",
        "--config.data.test=",
        f"--config.data.cache={pairs}/cache",
        "--config.data.buckets=1",
        "--config.tokenizer.vocab_size=296",
        "--config.optimizer.batch_size=512",
        "--config.optimizer.learning_rate=1e-2",
        "--config.budget.seconds=0.0",
        "--config.budget.steps=12",
        "--config.decode.beams=2",
        "--config.decode.batch_size=8",
        "--config.decode.extra=3",
        *(flag for flag in SMALL if "eval.batch_size" not in flag),
        "--config.eval.batch_size=512",
        "--config.model.max_length=40",
        *more,
    ]


@pytest.fixture(scope="session")
def translated(pairs) -> Path:
    workdir = pairs / "translated"
    assert tlc(*pairs_arguments("translate", pairs, workdir)) == 0
    return workdir
