"""Settings that the device decides, in whole runs."""

from __future__ import annotations

import json

import pytest

from tests.commands.conftest import finetune_arguments, pretrain_arguments, result_of, tlc
from tlc_jax.planning import fit
from tlc_jax.planning.compile import Compiler
from tlc_jax.runs import auto

AUTO = tuple(f"--config.impl.{name}=auto" for name in auto.SETTINGS)


def resolved_of(workdir) -> dict:
    return json.loads((workdir / "config.json").read_text())["resolved"]["impl"]


def test_a_run_records_what_was_chosen_and_goes_on_with_it(world, packed, tmp_path, monkeypatch):
    arguments = pretrain_arguments(world, tmp_path, *AUTO)
    assert tlc(*arguments) == 0
    chosen = result_of(tmp_path)["impl"]
    assert chosen == {
        "matmul": "float32",
        "layer_loop": "unrolled",
        "attention": "xla",
        "remat": False,
    }
    assert resolved_of(tmp_path) == chosen
    assert json.loads((tmp_path / "config.json").read_text())["impl"]["matmul"] == "auto"

    # As if it had been stopped here, and moved to a machine that would choose otherwise.
    monkeypatch.setattr(auto, "multiplies_bfloat16", lambda: True)
    (tmp_path / "result.json").unlink()
    assert tlc(*arguments) == 0
    assert result_of(tmp_path)["impl"] == chosen
    (tmp_path / "result.json").unlink()
    assert tlc(*arguments, "--config.impl.matmul=mix") == 0
    assert result_of(tmp_path)["impl"]["matmul"] == resolved_of(tmp_path)["matmul"] == "mix"

    evaluated = tmp_path / "evaluated"
    assert tlc("evaluate", f"--init={tmp_path}", f"--workdir={evaluated}", *AUTO) == 0
    assert result_of(evaluated)["impl"]["matmul"] == "mix"


def test_seeds_of_a_sweep_go_on_as_the_first_began(world, pretrained, tmp_path, monkeypatch):
    more = (f"--config.init.from={pretrained}", "--config.seeds=(3, 0)", *AUTO)
    more += ("--config.impl.seeds_together=in_turn",)
    arguments = finetune_arguments("finetune", world, tmp_path, *more, "--config.budget.steps=2")
    assert tlc(*arguments) == 0
    for name in ("result.json", "seed-0/result.json", "seed-0/config.json"):
        (tmp_path / name).unlink()
    monkeypatch.setattr(auto, "multiplies_bfloat16", lambda: True)
    assert tlc(*arguments) == 0
    for seed in (3, 0):
        assert result_of(tmp_path / f"seed-{seed}")["impl"]["matmul"] == "float32"
        assert resolved_of(tmp_path / f"seed-{seed}")["matmul"] == "float32"


@pytest.mark.parametrize(
    ("attention", "why"), [("cudnn", "cpu is not an NVIDIA GPU"), ("pallas", "cpu is not a TPU")]
)
def test_fused_attention_is_refused_on_a_cpu(world, packed, tmp_path, refused, attention, why):
    fused = (f"--config.impl.attention={attention}", "--config.impl.matmul=bfloat16")
    line = refused(*pretrain_arguments(world, tmp_path, *fused))
    assert f"impl.attention={attention}: {why}" in line
    line = refused(*pretrain_arguments(world, tmp_path / "other", *fused[:1]))
    assert f"impl.attention={attention} computes in bfloat16, and impl.matmul=float32" in line
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("share", "remat", "compiles"), [(4.0, False, False), (1.01, False, True), (0.9, True, True)]
)
def test_activations_are_recomputed_where_memory_is_too_small(
    world, packed, tmp_path, monkeypatch, capsys, share, remat, compiles
):
    """With memory of a share of what the step needs, as the compiler says."""
    compiled, needs = [], fit._needs_remat
    footprint = Compiler.footprint

    def count(self, microbatch):
        compiled.append(microbatch)
        return footprint(self, microbatch)

    def small(run, workdir):
        whole = footprint(Compiler(run, workdir), run.config.microbatch)
        bytes_ = int(share * fit.MemoryLimit(None, "").need(whole))
        if share > 2:  # far from the limit by any estimate
            bytes_ = 2 * (20 * run.network.parameter_counts()[0] + fit.saved_bytes(run))
            assert bytes_ > fit.MemoryLimit(None, "").need(whole)
        monkeypatch.setattr(fit, "memory_at_hand", lambda: fit.MemoryLimit(bytes_, "faked"))
        return needs(run, workdir)

    monkeypatch.setattr(Compiler, "footprint", count)
    monkeypatch.setattr(fit, "_needs_remat", small)
    assert tlc(*pretrain_arguments(world, tmp_path, *AUTO, "--config.budget.steps=1")) == 0
    assert result_of(tmp_path)["impl"]["remat"] == resolved_of(tmp_path)["remat"] == remat
    assert bool(compiled) == compiles
    assert ("activations are recomputed" in capsys.readouterr().err) == remat
