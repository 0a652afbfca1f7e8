"""Measures everything in the table of accelerators, on one GPU, within minutes.

    python launch/gpu_benchmarks.py --out=runs/gpu [--wheels=FOLDER]

Each part is a `tlc bench` in a process of its own, with a time limit. A part that fails is a line
of the table and does not end the others. Parts that `--out` holds already are not repeated, so the
same command completes what was cut off. At the end `--out` holds results.json, table.md, and the
output of every part. `tlc_jax` need not be installed; `--wheels` installs packages that are missing
from a folder, without a network. See launch/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIBRARIES = ("jax", "jaxlib", "flax", "torch", "transformers", "ctranslate2")

Settings = dict[str, Any]

Row = tuple[str, str, str, str]
"""What is measured, the side, the figures, and how many times as fast as the strongest peer."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A run of `tlc bench`.

    Attributes:
      name: names its folder.
      settings: its settings; `config` is the file.
      tiny: other settings that make it small, with --tiny.
      rows: function from the part's name and its result.json to rows of the table.
      seconds: time limit.
      peers: whether to time other systems, where PyTorch is installed.
    """

    name: str
    settings: Settings
    tiny: Settings
    rows: Callable[[str, dict[str, Any]], Iterator[Row]]
    seconds: float
    peers: bool = False


def training_rows(name: str, result: dict[str, Any]) -> Iterator[Row]:
    """Rows of pretraining: sides, first step, memory, kernels."""
    training, first, impl = result["training"], result["compile"], result["impl"]
    configured = f"tlc, {impl['matmul']}, {impl['layer_loop']}, {impl['attention']} attention"
    speed = training["tokens_per_second"]
    steps = speed / training["tokens_per_step"]
    facts = [f"{1e3 / steps:.2f} ms a step, {steps:,.1f} steps/s"]
    if training["mfu"] is not None:
        facts.append(f"MFU {training['mfu']:.1%}")
    if training["peak_bytes"]:
        facts.append(f"{training['peak_bytes'] / 1e9:.1f} GB at most")
    if "peers" in result:
        yield from side_rows(name, result)
    else:
        facts.insert(0, f"{speed:,.0f} tokens/s")
    yield name, configured, ", ".join(facts), ""
    seconds = f"{first['cold_seconds']:.1f} s, {first['warm_cache_seconds']:.1f} s from a cache"
    yield name, "tlc, first step", seconds, ""
    if "kernels" in result:
        found = result["kernels"]
        kinds = (
            f"{kind} {row['ms']:.2f} ms ({row['share']:.0%}, {row['kernels']:.0f} kernels)"
            for kind, row in found["kinds"].items()
            if row["ms"]
        )
        label = f"tlc, kernels of a traced step of {found['step_ms']:.2f} ms"
        yield name, label, ", ".join(kinds) or "the trace holds none", ""


def decoding_rows(name: str, result: dict[str, Any]) -> Iterator[Row]:
    """Rows of beam search."""
    found = result["decoding"]
    if "peers" in found:
        yield from side_rows(name, found)
    else:
        yield name, "tlc, as configured", f"{found['tokens_per_second']:,.0f} tokens/s", ""


def side_rows(name: str, found: dict[str, Any]) -> Iterator[Row]:
    """A row for each side of a comparison."""
    suffix = [*found["references"]][-1] if found["references"] else None
    for side, row in found["peers"].items():
        if "failed" in row:
            yield name, side, f"not measured: {row['failed']}", ""
            continue
        ratio = ""
        if suffix is not None:
            low, middle, high = (row[f"ratio{p}{suffix}"] for p in ("_least", "", "_most"))
            ratio = f"{middle:.2f} ({low:.2f}–{high:.2f})"
        yield name, side, f"{row['per_second']:,.0f} tokens/s", ratio


def seeds_rows(name: str, result: dict[str, Any]) -> Iterator[Row]:
    """Rows of finetuning several seeds."""
    found = result["seeds"]
    count = found["count"]
    names = {"single": "runs of their own", "in_turn": "in turn", "mapped": "mapped"}
    for way, text in names.items():
        if way not in found:
            continue
        if found[way] is None:
            yield name, f"tlc, {count} seeds {text}", "cannot be mapped, or failed", ""
            continue
        figures = f"{found[way]:.1f} s from start to results"
        if way in found["training"]:
            figures += f", of it training {found['training'][way]:.2f} s"
        yield name, f"tlc, {count} seeds {text}", figures, ""


def loop_rows(name: str, result: dict[str, Any]) -> Iterator[Row]:
    """The row of what the training loop adds to a step that computes almost nothing."""
    found = result["loop"]
    least, most = found["own_spread"]
    yield name, "tlc", f"{found['own']:.3f} ms a step ({least:.3f}–{most:.3f})", ""


def pretraining(size: str) -> Settings:
    """Settings of training on 256 rows of 128 tokens."""
    return {
        "config": f"configs/mlm.py:{size}",
        "optimizer.batch_size": 256,
        "impl.microbatch": 0,
        "impl.remat": False,
        "bench.seconds": 0,  # no goodput, which needs a longer run
    }


TINY: Settings = {
    "optimizer.batch_size": 16,
    "model.layers": 1,
    "model.hidden": 64,
    "tokenizer.vocab_size": 300,
    "data.length": 32,
    "bench.rounds": 2,
    "bench.steps": 2,
}
PROFILE = {"bench.profile": True}
SCAN = {"impl.layer_loop": "scan"}

# The most important come first: the time for all may end before the last ones.
PARTS = (
    Part("12x768", pretraining("12x768") | PROFILE, TINY, training_rows, 200, True),
    Part("24x1024", pretraining("24x1024") | PROFILE, TINY, training_rows, 270, True),
    Part("12x768-scan", pretraining("12x768") | SCAN, TINY, training_rows, 80),
    Part(
        "beam-search-6+6x512",
        {
            "config": "configs/wmt14_enfr.py:6x512",
            "bench.task": "decode",
            "tokenizer.vocab_size": 16384,
            "decode.batch_size": 64,
        },
        {**TINY, "bench.source": 6, "bench.generated": 9, "decode.batch_size": 4},
        decoding_rows,
        140,
        True,
    ),
    Part(
        "2x64",
        pretraining("2x64") | PROFILE | {"optimizer.batch_size": 64, "bench.steps": 100},
        TINY,
        training_rows,
        60,
    ),
    Part(
        "loop-12x768",
        pretraining("12x768") | {"bench.task": "loop"},
        TINY,
        loop_rows,
        60,
    ),
    Part(
        "seeds-2x64",
        {
            "config": "configs/tiny.py:nli",
            "bench.task": "seeds",
            "bench.seeds": 16,
            "impl.seeds_together": "mapped",
            "model.layers": 2,
            "model.dropout": 0.1,
            "budget.steps": 1000,
        },
        {"bench.seeds": 2, "budget.steps": 3, "model.layers": 1},
        seeds_rows,
        160,
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the parts and prints the table; 1 if a part failed, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--wheels", type=Path, help="folder of wheels of missing packages")
    parser.add_argument("--seconds", type=float, default=480.0, help="time limit of all parts")
    parser.add_argument("--parts", default="", help="names of parts, joined by commas")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to try the script")
    options = parser.parse_args(arguments)
    known = {part.name: part for part in PARTS}
    names = options.parts.split(",") if options.parts else [*known]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown parts {', '.join(unknown)}; known are {', '.join(known)}")
    deadline, out = time.monotonic() + options.seconds, options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if options.wheels:
        install(options.wheels)
    # So that the part that runs is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    path, results = out / "results.json", dict[str, Any]()
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        results = before["parts"]
        if before["tiny"] != options.tiny:
            parser.error(f"{out} holds results with other shapes: choose another --out")
    for name in names:
        if "failed" in results.get(name, {"failed": ""}):
            results[name] = measure(known[name], out, options.tiny, deadline)
        found = {"tiny": options.tiny, "versions": versions(), "parts": results}
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        text = table(results, options.tiny)
        (out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text, flush=True)
    return int(any("failed" in result for result in results.values()))


def measure(part: Part, out: Path, tiny: bool, deadline: float) -> dict[str, Any]:
    """The result.json of a part, or {"failed": reason}."""
    seconds = min(part.seconds, deadline - time.monotonic())
    if seconds <= 0:
        return {"failed": "not run: the time for all parts was over"}
    workdir, log = out / part.name, out / f"{part.name}.log"
    say(f"{part.name}: at most {seconds:.0f} s; its output goes to {log}")
    config, *settings = (part.settings | (part.tiny if tiny else {})).items()
    command = [sys.executable, "-m", "tlc_jax", "bench", f"--config={config[1]}"]
    command += [f"--config.{name}={value}" for name, value in settings]
    if part.peers and importlib.util.find_spec("torch"):
        command.append("--peers")
    started = time.monotonic()
    failure = run([*command, f"--workdir={workdir}"], log, seconds)
    say(f"{part.name}: {failure or 'done'} after {time.monotonic() - started:.0f} s")
    if failure:
        return {"failed": failure}
    return dict(json.loads((workdir / "result.json").read_text()))


def run(command: Sequence[str], log: Path, seconds: float) -> str:
    """Runs a command, with its output in a file; returns why it failed, or an empty text."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"stopped after {seconds:.0f} s, its time limit"
        finally:
            # Its own processes too: they would keep memory of the device.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status == 0:
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"status {status}: {' '.join(lines[-1].split())[:200] if lines else 'no output'}"


def install(wheels: Path) -> None:
    """Installs the packages of a folder of wheels that are missing, without their dependencies."""
    missing = []
    for name in sorted({path.name.split("-")[0] for path in wheels.glob("*.whl")}):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    # One by one: a wheel for another Python would keep all others out.
    for name in missing:
        subprocess.run([*pip, "--find-links", str(wheels), name], check=False)


def versions() -> dict[str, str]:
    """The versions of the libraries that are compared, as far as they are installed."""
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def table(results: dict[str, Any], tiny: bool) -> str:
    """A line on the machine and a Markdown table of all parts."""
    done = [result for result in results.values() if "failed" not in result]
    device = f"{done[0]['device']} × {done[0]['devices']}, {done[0]['machine']}" if done else "?"
    lines = [
        f"{device}; " + ", ".join(f"{name} {version}" for name, version in versions().items()),
        *(["The shapes are tiny, so the numbers mean nothing."] if tiny else []),
        "",
        "| what | side | measured | times the strongest peer |",
        "|---|---|---|---|",
    ]
    for part in PARTS:
        if part.name not in results:
            continue
        result = results[part.name]
        if "failed" in result:
            rows: Iterable[Row] = [(part.name, "all", f"not measured: {result['failed']}", "")]
        else:
            rows = part.rows(part.name, result)
        lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def say(text: str) -> None:
    """Prints a line to stderr."""
    print(f"gpu_benchmarks: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
