"""`tlc plan`, and impl.microbatch=auto, which searches in the same way."""

from __future__ import annotations

import hashlib
import importlib.util
import json

import jax
import pytest

from tests.commands.conftest import (
    SMALL,
    finetune_arguments,
    pairs_arguments,
    pretrain_arguments,
    result_of,
    tlc,
)
from tlc_jax.planning import fit
from tlc_jax.planning.compile import Compiler
from tlc_jax.planning.gpu import GPUS, KINDS, SLOWDOWN
from tlc_jax.planning.tpu import CHIPS

ARGUMENTS = (
    "plan",
    "--config=configs/mlm.py:1x64",
    *(flag for flag in SMALL if "eval." not in flag),
    "--config.tokenizer.vocab_size=296",  # as in `pretrained`, whose programs are compiled already
    "--config.optimizer.batch_size=64",
    "--config.budget.seconds=0.0",
    "--config.budget.clock=measured",
    "--config.budget.tokens=204800",
)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("planned")
    assert tlc(*ARGUMENTS, f"--workdir={workdir}") == 0
    return workdir, result_of(workdir)


def only_plan(result: dict) -> dict:
    (one,) = result["plans"]
    return one


def test_a_small_model_fits_whole_and_its_step_is_timed(planned, capsys) -> None:
    result = planned[1]
    one = only_plan(result)
    assert result["devices"] == jax.device_count()
    assert (one["microbatch"], one["params"]) == (64, 75816)
    # Token weights alone are 296 x 64 of 4 bytes, and the state has three of each.
    assert 3 * 4 * 75816 < one["compiled"]["64"]["arguments"] < 3.2 * 4 * 75816
    assert one["step"]["how"] == "measured, 3 steps"
    assert one["tokens_per_second"] == pytest.approx(64 * 32 / one["step"]["seconds"])
    assert one["flops_per_step"] == 64 * 32 * (
        6 * 12 * 64**2 + 12 * 32 * 64 + 6 * 5 / 32 * (64**2 + 64 * 296)
    )
    assert one["mfu"] is None  # no peak is known of a CPU


def test_the_budget_is_converted(planned) -> None:
    one = only_plan(planned[1])
    budget = one["budget"]
    assert (budget["steps"], budget["tokens"], budget["stopped_by"]) == (100, 204800, "tokens")
    assert budget["seconds"] == pytest.approx(100 * one["step"]["seconds"])
    assert budget["chip_hours"] == pytest.approx(jax.device_count() * budget["seconds"] / 3600)
    assert budget["epochs"] is None


def test_what_was_compiled_is_remembered(planned, monkeypatch, capsys) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(Compiler, "_compile", refuse)
    workdir, first = planned
    assert tlc(*ARGUMENTS, "--config.plan.seconds=0.0", f"--workdir={workdir}") == 0
    again = only_plan(result_of(workdir))
    assert again["compiled"] == only_plan(first)["compiled"]
    assert again["step"]["seconds"] is None
    assert "step              unknown: plan.seconds=0" in capsys.readouterr().out
    with pytest.raises(AssertionError):  # another program is not taken for it
        tlc(*ARGUMENTS, "--config.model.dropout=0.0", f"--workdir={workdir}")


@pytest.mark.slow
def test_a_study_is_planned_as_a_table(tmp_path, capsys) -> None:
    sizes = ("--config.study.sizes=('1x64', '2x64')", "--config.study.translators=('1x64',)")
    assert (
        tlc(*ARGUMENTS, *sizes, "--config.optimizer.batch_size=2048", f"--workdir={tmp_path}") == 0
    )
    plans = result_of(tmp_path)["plans"]
    assert [(one["kind"], one["layers"], one["batch_size"]) for one in plans] == [
        ("encoder", 1, 2048),
        ("encoder", 2, 2048),
        ("translator", 1, 2048),
    ]
    assert plans[2]["tokens_per_step"] == 2048  # as many target tokens, in 64 rows of 32
    assert plans[0]["compiled"]["2048"]["temporaries"] < plans[1]["compiled"]["2048"]["temporaries"]
    lines = capsys.readouterr().out.splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("size"))
    assert [line.split()[0] for line in lines[header + 1 : header + 4]] == ["1x64", "2x64", "1x64"]


def small_memory(monkeypatch, share: float, planned) -> None:
    """Makes every device as small as this share of what the whole batch needs."""
    whole = only_plan(planned[1])["compiled"]["64"]["need"]
    limit = fit.MemoryLimit(int(share * whole), "faked")
    monkeypatch.setattr(fit, "memory_at_hand", lambda: limit)


def test_the_largest_microbatch_that_fits_is_found(planned, monkeypatch, tmp_path, capsys) -> None:
    small_memory(monkeypatch, 0.8, planned)
    assert tlc(*ARGUMENTS, f"--workdir={tmp_path}") == 0
    one = only_plan(result_of(tmp_path))
    found = {int(size): each for size, each in one["compiled"].items()}
    assert jax.device_count() <= one["microbatch"] < 64
    assert found[one["microbatch"]]["fits"]
    assert not found[2 * one["microbatch"]]["fits"]
    assert f"--config.impl.microbatch={one['microbatch']}" in capsys.readouterr().out


def test_the_copy_of_the_benchmark_clock_needs_room(planned, monkeypatch, tmp_path) -> None:
    clock = (
        "--config.budget.clock=benchmark",
        "--config.budget.seconds=10.0",
        "--config.plan.seconds=0.0",
    )
    small_memory(monkeypatch, 1.01, planned)
    assert tlc(*ARGUMENTS, f"--workdir={tmp_path / 'one'}", "--config.plan.seconds=0.0") == 0
    assert only_plan(result_of(tmp_path / "one"))["microbatch"] == 64
    assert tlc(*ARGUMENTS, f"--workdir={tmp_path / 'two'}", *clock) == 0
    assert only_plan(result_of(tmp_path / "two"))["microbatch"] < 64


def test_what_does_not_fit_at_all_is_said(planned, monkeypatch, tmp_path, capsys) -> None:
    small_memory(monkeypatch, 0.01, planned)
    assert tlc(*ARGUMENTS, f"--workdir={tmp_path}") == 0
    one = only_plan(result_of(tmp_path))
    assert (one["fits"], one["microbatch"], one["tokens_per_second"]) == (False, None, None)
    assert f"nothing fits; {jax.device_count()} needs" in capsys.readouterr().out


def test_epochs_are_known_once_the_data_are_packed(world, pretrained, tmp_path) -> None:
    arguments = ["plan", *pretrain_arguments(world, tmp_path)[1:], "--config.plan.seconds=0.0"]
    assert tlc(*(flag for flag in arguments if "eval." not in flag)) == 0
    tokenizer = hashlib.sha256((pretrained / "tokenizer.model").read_bytes()).hexdigest()
    manifests = [
        json.loads(path.read_text()) for path in (world / "cache").glob("rows-train-*.json")
    ]
    (rows,) = [
        manifest["rows"] for manifest in manifests if manifest["tokenizer_hash"] == tokenizer
    ]
    assert only_plan(result_of(tmp_path))["budget"]["epochs"] == pytest.approx(6 * 16 / rows)


def test_auto_trains_like_the_number_that_it_stands_for(
    world, planned, monkeypatch, tmp_path, capsys
) -> None:
    small_memory(monkeypatch, 0.8, planned)
    batch = "--config.optimizer.batch_size=64"
    auto = ("--config.impl.microbatch=auto", batch)
    assert tlc(*pretrain_arguments(world, tmp_path / "auto", *auto)) == 0
    chosen = result_of(tmp_path / "auto")["microbatch"]
    assert chosen < 64
    assert f"impl.microbatch=auto: {chosen} of 64 sequences" in capsys.readouterr().err
    explicit = (f"--config.impl.microbatch={chosen}", batch)
    assert tlc(*pretrain_arguments(world, tmp_path / "explicit", *explicit)) == 0
    both = [result_of(tmp_path / name) for name in ("auto", "explicit")]
    assert both[0]["valid_loss"] == both[1]["valid_loss"]
    assert both[0]["microbatch"] == both[1]["microbatch"]


def test_auto_finetunes_and_translates(world, pretrained, pairs, tmp_path, capsys) -> None:
    auto = "--config.impl.microbatch=auto"
    arguments = finetune_arguments(
        "finetune", world, tmp_path / "tuned", f"--config.init.from={pretrained}", auto
    )
    assert tlc(*arguments) == 0
    assert result_of(tmp_path / "tuned")["microbatch"] == 16
    assert "impl.microbatch=auto: 16 of 16 examples" in capsys.readouterr().err
    assert tlc(*pairs_arguments("translate", pairs, tmp_path / "translated", auto)) == 0
    assert result_of(tmp_path / "translated")["microbatch"] == 512
    assert "impl.microbatch=auto: 512 of 512 target tokens" in capsys.readouterr().err


def test_auto_where_nothing_fits_says_what_to_do(
    world, planned, monkeypatch, tmp_path, capsys
) -> None:
    small_memory(monkeypatch, 0.01, planned)
    auto = ("--config.impl.microbatch=auto", "--config.optimizer.batch_size=64")
    assert tlc(*pretrain_arguments(world, tmp_path, *auto)) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"not even {jax.device_count()} of 64 sequences fit" in line
    assert "impl.remat=True" in line


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v9:2x2", "known chips are v4, v5e, v5p, v6e, h200, h100, a100, l40s, l4, a10;"),
        ("h100", "write how many GPUs of one host, 1 to 8, such as h100:8"),
        ("h100:0", "write how many GPUs of one host"),
        ("h100:16", "several hosts cannot be planned"),
        ("h100:2x8", "several hosts cannot be planned"),
        ("v5e", "a slice of v5e has 2 sides, such as v5e:4x4"),
        ("v5e:2x2x2", "a slice of v5e has 2 sides"),
        ("v5e:4xfour", "a slice of v5e has 2 sides"),
        ("v4:4x4", "a slice of v4 has 3 sides, such as v4:4x4x4"),
    ],
)
def test_a_slice_that_cannot_be_is_refused(tmp_path, capsys, topology, message) -> None:
    assert (
        tlc(*ARGUMENTS, f"--config.plan.topology={topology}", f"--workdir={tmp_path / 'plan'}") == 2
    )
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "plan").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is not None, reason="the TPU compiler is installed"
)
def test_without_the_tpu_compiler_the_extra_is_named(tmp_path, capsys) -> None:
    assert tlc(*ARGUMENTS, "--config.plan.topology=v5e:2x2", f"--workdir={tmp_path}") == 2
    assert "pip install 'tlc_jax[tpu]'" in capsys.readouterr().err


@pytest.mark.tpu_compile
def test_a_slice_that_is_not_there_is_planned_for(tmp_path, capsys) -> None:
    arguments = (*ARGUMENTS, "--config.impl.matmul=bfloat16", "--config.plan.topology=v5e:2x2")
    assert tlc(*arguments, f"--workdir={tmp_path}") == 0
    result = result_of(tmp_path)
    one = only_plan(result)
    assert (result["device"], result["devices"], result["at_hand"]) == ("TPU v5 lite", 4, False)
    assert result["memory"] == CHIPS["v5e"].memory
    assert one["microbatch"] == 64
    step = one["step"]
    assert step["how"] == "compiler cycles"
    assert step["seconds"] == pytest.approx(sum(step["parts"].values()))
    assert step["seconds"] > step["least"] == pytest.approx(one["flops_per_step"] / (4 * 197e12))
    mfu = one["flops_per_step"] / step["seconds"] / (4 * 197e12)
    assert one["mfu"] == pytest.approx(mfu)
    assert "4 x TPU v5 lite, not at hand" in capsys.readouterr().out
    assert tlc(*arguments, f"--workdir={tmp_path}") == 0
    assert only_plan(result_of(tmp_path))["programs_compiled"] == 0


@pytest.mark.gpu_compile
@pytest.mark.parametrize("count", [1, 2])
def test_a_host_of_gpus_that_is_not_there_is_planned_for(tmp_path, capsys, count) -> None:
    arguments = (
        *ARGUMENTS,
        "--config.impl.matmul=bfloat16",
        f"--config.plan.topology=h100:{count}",
    )
    assert tlc(*arguments, f"--workdir={tmp_path}") == 0
    result = result_of(tmp_path)
    one = only_plan(result)
    assert (result["device"], result["devices"]) == ("NVIDIA H100 80GB HBM3", count)
    assert (result["platform"], result["at_hand"]) == ("gpu", False)
    assert result["memory"] == int(0.95 * 0.75 * GPUS["h100"].memory)
    assert one["microbatch"] == 64
    assert one["impl"]["attention"] == "cudnn"
    step = one["step"]
    assert tuple(step["parts"]) == KINDS
    assert step["parts"]["products"] > 0
    assert step["parts"]["attention"] > 0
    assert step["parts"]["element_wise"] > 0
    assert (step["parts"]["collectives"] > 0) == (count > 1)
    assert step["slowdown"] == SLOWDOWN
    assert step["seconds"] == pytest.approx(SLOWDOWN * sum(step["parts"].values()))
    assert step["least"] == pytest.approx(one["flops_per_step"] / (count * 989e12))
    assert one["mfu"] == pytest.approx(step["least"] / step["seconds"])
    assert f"{count} x NVIDIA H100 80GB HBM3, not at hand" in capsys.readouterr().out
    assert tlc(*arguments, f"--workdir={tmp_path}") == 0
    assert only_plan(result_of(tmp_path))["programs_compiled"] == 0


@pytest.mark.tpu_compile
def test_a_slice_of_odd_sides_is_refused(tmp_path, capsys) -> None:
    assert tlc(*ARGUMENTS, "--config.plan.topology=v5e:3x5", f"--workdir={tmp_path}") == 2
    assert "plan.topology=v5e:3x5" in capsys.readouterr().err


@pytest.mark.tpu_compile
def test_a_chip_draws_the_random_bits_of_its_own_rows(tmp_path) -> None:
    """With the generator rbg left to the compiler, each chip would draw the bits of all rows."""
    needs = {}
    for keys in ("rbg", "threefry2x32"):
        more = (f"--config.impl.dropout_keys={keys}", "--config.optimizer.batch_size=4096")
        slice_ = "--config.plan.topology=v5e:4x4"
        assert tlc(*ARGUMENTS, *more, slice_, f"--workdir={tmp_path / keys}") == 0
        needs[keys] = only_plan(result_of(tmp_path / keys))["compiled"]["4096"]["temporaries"]
    assert needs["rbg"] < 1.3 * needs["threefry2x32"]
