"""The benchmarks of one GPU: failures and limits of parts, repetition, the table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import gpu_benchmarks

MACHINE = {"device": "NVIDIA H200", "devices": 1, "machine": "a processor, 16 cores"}
RATIO = {"ratio": 1.05, "ratio_least": 1.0, "ratio_most": 1.1}
RESULT = {
    **MACHINE,
    "impl": {"matmul": "bfloat16", "layer_loop": "unrolled", "attention": "cudnn"},
    "compile": {"cold_seconds": 25.0, "warm_cache_seconds": 4.0},
    "training": {
        "tokens_per_second": 557_000.0,
        "tokens_per_step": 32768,
        "mfu": 0.309,
        "peak_bytes": 21.7e9,
    },
    "kernels": {
        "step_ms": 59.0,
        "kinds": {
            "products": {"ms": 21.0, "share": 0.36, "kernels": 300},
            "attention": {"ms": 0.0, "share": 0.0, "kernels": 0},
        },
    },
    "references": {"": "Hugging Face"},
    "peers": {
        "Hugging Face": {"per_second": 509_000.0, "ratio": 1, "ratio_least": 1, "ratio_most": 1},
        "torch.compile": {"failed": "InductorError: no compiler"},
        "tlc": {"per_second": 557_000.0, **RATIO},
    },
}
SEEDS = {
    **MACHINE,
    "seeds": {
        "count": 16,
        "single": 190.0,
        "in_turn": 40.0,
        "mapped": None,
        "training": {"single": 16.0, "in_turn": 16.5},
    },
}
LOOP = {**MACHINE, "loop": {"own": 0.1234, "own_spread": [0.1, 0.2]}}
RESULTS = {"seeds-2x64": SEEDS, "loop-12x768": LOOP}


def test_failures_are_lines_of_the_table_and_only_they_are_repeated(
    tmp_path, monkeypatch, capsys
) -> None:
    started = []

    def run(command, log, seconds):
        name = log.stem
        started.append(name)
        if name == "12x768-scan":
            return "status 1: out of | memory"
        workdir = Path(command[-1].removeprefix("--workdir="))
        workdir.mkdir()
        (workdir / "result.json").write_text(json.dumps(RESULTS.get(name, RESULT)))
        return ""

    monkeypatch.setattr(gpu_benchmarks, "run", run)
    arguments = [f"--out={tmp_path}", "--parts=12x768,12x768-scan,loop-12x768,seeds-2x64"]
    assert gpu_benchmarks.main(arguments) == 1
    table = capsys.readouterr().out
    assert "NVIDIA H200 × 1" in table
    for line in (
        "| 12x768 | Hugging Face | 509,000 tokens/s | 1.00 (1.00–1.00) |",
        "| 12x768 | torch.compile | not measured: InductorError: no compiler |  |",
        "| 12x768 | tlc | 557,000 tokens/s | 1.05 (1.00–1.10) |",
        "| 12x768 | tlc, bfloat16, unrolled, cudnn attention | 58.83 ms a step, 17.0 steps/s, "
        "MFU 30.9%, 21.7 GB at most |  |",
        "| 12x768 | tlc, first step | 25.0 s, 4.0 s from a cache |  |",
        "| 12x768 | tlc, kernels of a traced step of 59.00 ms | products 21.00 ms "
        "(36%, 300 kernels) |  |",
        "| 12x768-scan | all | not measured: status 1: out of / memory |  |",
        "| loop-12x768 | tlc | 0.123 ms a step (0.100–0.200) |  |",
        "| seeds-2x64 | tlc, 16 seeds mapped | cannot be mapped, or failed |  |",
    ):
        assert line in table.splitlines()
    assert (tmp_path / "table.md").read_text() == table
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["parts"]["12x768"] == RESULT and "jax" in found["versions"]
    started.clear()
    assert gpu_benchmarks.main(arguments) == 1
    assert started == ["12x768-scan"]
    with pytest.raises(SystemExit):
        gpu_benchmarks.main([*arguments, "--tiny"])
    assert "choose another --out" in capsys.readouterr().err


def test_parts_that_do_not_exist_are_refused(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        gpu_benchmarks.main([f"--out={tmp_path}", "--parts=12x769"])
    assert "12x769" in capsys.readouterr().err


def test_parts_after_the_time_for_all_do_not_start(tmp_path, capsys) -> None:
    assert gpu_benchmarks.main([f"--out={tmp_path}", "--seconds=0", "--parts=2x64"]) == 1
    assert "| 2x64 | all | not measured: not run: the time" in capsys.readouterr().out


def test_a_command_that_fails_or_takes_too_long_says_so(tmp_path) -> None:
    log = tmp_path / "log"
    python = [sys.executable, "-c"]
    assert gpu_benchmarks.run([*python, "print('fine')"], log, 60.0) == ""
    failing = "import sys; print('first'); sys.exit('tlc: error:  wrong')"
    assert gpu_benchmarks.run([*python, failing], log, 60.0) == "status 1: tlc: error: wrong"
    # Its own processes end with it.
    path = tmp_path / "pid"
    child = f"import os, time; open({str(path)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    sleeping = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert "its time limit" in gpu_benchmarks.run([*python, sleeping], log, 3.0)
    pid = int(path.read_text())
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text():
            break
        time.sleep(0.1)
    else:
        pytest.fail("the process of the command is still there")


@pytest.mark.slow
def test_every_part_runs_with_tiny_shapes(tmp_path) -> None:
    script = Path(gpu_benchmarks.__file__)
    command = [sys.executable, str(script), "--tiny", f"--out={tmp_path}", "--seconds=1200"]
    environment = {**os.environ, "PYTHONPATH": str(script.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert [*parts] == [part.name for part in gpu_benchmarks.PARTS]
    assert parts["12x768"]["kernels"]["kinds"]["products"]["ms"] > 0
    assert "not measured" not in done.stdout
