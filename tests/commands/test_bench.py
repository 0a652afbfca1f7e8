"""`tlc bench` on a tiny model."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import subprocess
from pathlib import Path

import pytest

from tests.commands.conftest import SMALL, result_of, tlc
from tlc_jax.bench import finetuning_seeds, pretraining

ARGUMENTS = (
    "bench",
    "--config=configs/mlm.py:1x64",
    *SMALL,
    "--config.tokenizer.vocab_size=296",  # as in `pretrained`, whose programs are compiled already
    "--config.optimizer.batch_size=16",
    "--config.bench.rounds=2",
    "--config.bench.steps=2",
    "--config.bench.seconds=0.5",
)


def test_every_number_is_measured(tmp_path, capsys, monkeypatch) -> None:
    # The run for goodput has a clock of its own, which a busy machine does not hurry.
    ticks = itertools.count()
    train = functools.partial(pretraining.train, clock=lambda: 0.005 * next(ticks))
    monkeypatch.setattr(pretraining, "train", train)
    assert tlc(*ARGUMENTS, "--config.bench.profile=True", f"--workdir={tmp_path}") == 0
    result = result_of(tmp_path)
    kinds = result["kernels"]["kinds"]
    assert sum(row["share"] for row in kinds.values()) == pytest.approx(1.0)
    assert kinds["products"]["ms"] > 0 < kinds["element_wise"]["ms"]
    assert kinds["products"]["kernels"] >= 3 * 7  # forward and backward pass of one layer and head
    assert len(result["kernels"]["longest"]) == 10
    training = result["training"]
    slowest, fastest = training["tokens_per_second_spread"]
    assert 0 < slowest <= training["tokens_per_second"] <= fastest
    # 6 operations a weight and token in matrix products, plus attention; logits at 5 of 32
    # positions.
    per_token = 6 * (12 * 64**2) + 12 * 32 * 64 + 6 * 5 / 32 * (64**2 + 64 * 296)
    assert training["flops_per_second"] == pytest.approx(
        training["tokens_per_second"] * per_token, rel=1e-6
    )
    assert result["input_tokens_per_second"] > 1e5
    assert 0 < result["compile"]["warm_cache_seconds"] < result["compile"]["cold_seconds"]
    assert (
        0 < result["goodput"]["share"] <= 1.0
    )  # small: half a second of training against one checkpoint
    assert result["goodput"]["seconds"]["train"] == pytest.approx(0.5, abs=0.4)
    assert "peers" not in result
    assert "tokens/s" in capsys.readouterr().out


DECODE = (
    *ARGUMENTS,
    "--config.bench.task=decode",
    "--config.bench.source=6",
    "--config.bench.generated=9",
    "--config.decode.batch_size=8",
    "--config.decode.beams=2",
)


def test_decoding_is_measured(tmp_path, capsys) -> None:
    assert tlc(*DECODE, f"--workdir={tmp_path}") == 0
    found = result_of(tmp_path)["decoding"]
    slowest, fastest = found["tokens_per_second_spread"]
    assert 0 < slowest <= found["tokens_per_second"] <= fastest
    assert (found["sentences"], found["beams"]) == (8, 2)
    assert "8 sentences at once, 2 beams" in capsys.readouterr().out


def test_sentences_longer_than_the_model_are_refused(tmp_path, capsys) -> None:
    assert tlc(*DECODE, "--config.bench.generated=5000", f"--workdir={tmp_path}") == 2
    assert "bench.generated=5000" in capsys.readouterr().err
    assert not (tmp_path / "result.json").exists()


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is installed")
@pytest.mark.parametrize("arguments", [ARGUMENTS, DECODE], ids=["pretrain", "decode"])
def test_peers_without_pytorch_name_the_extra(tmp_path, capsys, arguments) -> None:
    assert tlc(*arguments, "--peers", f"--workdir={tmp_path}") == 2
    assert "tlc_jax[peers]" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["compress", "compare", "seeds", "loop"])
def test_tasks_without_peers_refuse_them(tmp_path, capsys, task) -> None:
    arguments = ("--config.recipe=quantize:4", f"--config.bench.task={task}", "--peers")
    assert tlc(*ARGUMENTS, *arguments, f"--workdir={tmp_path}") == 2
    assert f"bench.task={task} has no peers" in capsys.readouterr().err


BOTH = '--config.bench.peers=("float32","bfloat16")'


@pytest.mark.peers
def test_peers_are_timed_against_the_yardstick(tmp_path, capsys) -> None:
    assert tlc(*ARGUMENTS, "--peers", f"--workdir={tmp_path}") == 0
    rows, references = (result_of(tmp_path)[name] for name in ("peers", "references"))
    assert references.pop("") == "Hugging Face, all logits, float32"
    assert list(rows) == [
        "Hugging Face, all logits, float32",
        "Hugging Face, masked positions, float32",
        "plain JAX, all logits, float32",
        "tlc, masked positions, float32 (as configured)",
        "tlc, masked positions, mix",
    ]
    check_rows(rows, {"": "Hugging Face, all logits, float32", **references})
    assert "times Hugging Face, all logits, float32" in capsys.readouterr().out


def check_rows(rows, references) -> None:
    for row in rows.values():
        assert row["per_second"] > 0
        for suffix in references:
            least, ratio, most = (row[f"ratio{part}{suffix}"] for part in ("_least", "", "_most"))
            assert least <= ratio <= most
    for suffix, name in references.items():
        assert rows[name][f"ratio{suffix}"] == 1.0
    theirs = {name: row["per_second"] for name, row in rows.items() if "tlc" not in name}
    assert [*references.values()][-1] == max(theirs, key=theirs.__getitem__)


@pytest.mark.peers
def test_peers_in_bfloat16_and_compiled_are_asked_for(tmp_path) -> None:
    more = ('--config.bench.peers=("bfloat16",)', "--config.impl.matmul=bfloat16")
    assert tlc(*ARGUMENTS, *more, "--peers", f"--workdir={tmp_path}") == 0
    result = result_of(tmp_path)
    assert list(result["peers"]) == [
        "Hugging Face, masked positions, bfloat16",
        "Hugging Face, masked positions, bfloat16, torch.compile",
        "tlc, masked positions, bfloat16 (as configured)",
    ]
    measured = {name: row for name, row in result["peers"].items() if "failed" not in row}
    # torch.compile needs a compiler.
    assert len(measured) >= 2
    check_rows(measured, result["references"])


@pytest.mark.peers
def test_decoding_peers_are_timed_against_ctranslate2(tmp_path) -> None:
    assert tlc(*DECODE, BOTH, "--peers", f"--workdir={tmp_path}") == 0
    found = result_of(tmp_path)["decoding"]
    assert found["references"][""] == "CTranslate2, float32"
    assert list(found["peers"]) == [
        "CTranslate2, float32",
        "CTranslate2, int8",
        "Hugging Face generate, float32",
        "Hugging Face generate, bfloat16",
        "tlc, float32 (as configured)",
        "tlc, mix",
        "tlc, bfloat16",
    ]
    check_rows(found["peers"], found["references"])


def test_compression_is_timed_by_operation(tmp_path, capsys) -> None:
    arguments = (
        "bench",
        "--config=configs/mlm.py:1x64",
        f"--workdir={tmp_path}",
        "--config.bench.task=compress",
    )
    small = ("--config.tokenizer.vocab_size=300", "--config.impl.compilation_cache=")
    assert tlc(*arguments, *small, "--config.recipe=prune:0.5+quantize:4,group=16") == 0
    found = result_of(tmp_path)["compression"]
    assert list(found["operations"]) == ["prune:0.5", "quantize:4,group=16"]
    assert found["seconds"] == pytest.approx(sum(found["path"].values()))
    assert "x the parameters" in capsys.readouterr().out
    for more in ("--config.recipe=dense", "--config.recipe=remove:0.5,of=neurons"):
        assert tlc(*arguments, *small, more) == 2
        assert "bench times prune and quantize" in capsys.readouterr().err
    assert tlc(*arguments, *small, "--config.recipe=quantize:4", "--peers") == 2


def test_statistics_of_instances_are_timed(tmp_path, capsys) -> None:
    arguments = (
        "bench",
        "--config=configs/mlm.py:1x64",
        f"--workdir={tmp_path}",
        "--config.bench.task=compare",
        "--config.bench.instances=2000",
    )
    assert tlc(*arguments) == 0
    found = result_of(tmp_path)["comparison"]
    assert (found["instances"], found["runs"]) == (2000, 50)
    assert found["seconds"] == pytest.approx(sum(found["statistics"].values()))
    assert all(seconds > 0 for seconds in found["statistics"].values())
    assert "2,000 instances x 50 runs" in capsys.readouterr().out
    assert tlc(*arguments, "--peers") == 2


def test_the_cost_of_the_loop_is_divided_among_its_parts(tmp_path, capsys) -> None:
    assert tlc(*ARGUMENTS, "--config.bench.task=loop", f"--workdir={tmp_path}") == 0
    found = result_of(tmp_path)["loop"]
    assert found["steps"] == 200 and found["bare"] > 0
    assert all(0 < part < found["loop"] for part in found["parts"].values())
    least, most = found["own_spread"]
    assert least <= found["own"] <= most
    assert "waiting for batches" in capsys.readouterr().out
    assert tlc(*ARGUMENTS, "--config.bench.task=loop", "--peers", f"--workdir={tmp_path}") == 2


SEEDS = (
    *ARGUMENTS,
    "--config.bench.task=seeds",
    "--config.budget.seconds=0.0",
    "--config.budget.steps=2",
)


def test_seeds_are_timed_from_start_to_results(tmp_path, capsys, monkeypatch) -> None:
    started = []

    def run(command, check):
        settings = json.loads(Path(command[-2]).read_text())
        started.append((settings["seed"], settings["seeds"], settings["impl"]["seeds_together"]))
        folder = Path(command[-1])
        for one in [folder / f"seed-{seed}" for seed in settings["seeds"]] or [folder]:
            one.mkdir(parents=True)
            (one / "result.json").write_text('{"seconds": {"train": 0.5}}')
        return subprocess.CompletedProcess(command, int(started[-1][2] == "mapped"))

    monkeypatch.setattr(finetuning_seeds.subprocess, "run", run)
    assert tlc(*SEEDS, "--config.bench.seeds=3", f"--workdir={tmp_path}") == 0
    together = [(0, [0, 1, 2], way) for way in ("in_turn", "mapped")]
    singles = [(seed, [], "in_turn") for seed in range(3)]
    assert started == [singles[0], *together, *singles[1:]]
    found = result_of(tmp_path)["seeds"]
    assert found["count"] == 3 and found["single"] > 0 < found["in_turn"]
    assert found["training"] == {"single": 1.5, "in_turn": 1.5}
    assert found["mapped"] is None
    assert "cannot be mapped" in capsys.readouterr().out
    started.clear()
    one_way = ("--config.impl.seeds_together=in_turn", "--config.bench.seeds=2")
    assert tlc(*SEEDS, *one_way, f"--workdir={tmp_path}") == 0
    assert [way for _, seeds, way in started if seeds] == ["in_turn"]
    assert "mapped" not in result_of(tmp_path)["seeds"]
    # A part of the single runs counts for all.
    started.clear()
    many = ("--config.impl.seeds_together=in_turn", "--config.bench.seeds=16")
    assert tlc(*SEEDS, *many, f"--workdir={tmp_path}") == 0
    assert [seed for seed, seeds, _ in started if not seeds] == [0, 1, 2, 3]
    assert result_of(tmp_path)["seeds"]["training"] == {"single": 8.0, "in_turn": 8.0}


def test_seeds_have_no_peers(tmp_path, refused) -> None:
    assert "leave out --peers" in refused(*SEEDS, "--peers", f"--workdir={tmp_path}")
