"""Commands run as real processes, one or several of them on one run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tlc_jax.config import Impl
from tlc_jax.core import json_lines
from tlc_jax.core.params import flatten
from tlc_jax.runs import saved_model

Process = subprocess.Popen[bytes]
ONE_DEVICE = {
    "XLA_FLAGS": " ".join(
        flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag
    )
}
"""The environment of processes with one CPU device each, compiled as in conftest.py."""

ENDS_WITHIN = 120.0
"""Seconds in which a process must have ended after another one of its run did."""


def start(arguments: Sequence[str], count: int = 1) -> list[Process]:
    """`tlc` as `count` processes of one run, each with one CPU device."""
    environment = {**os.environ, **ONE_DEVICE, "PYTHONFAULTHANDLER": "1"}
    started = []
    port = free_port()
    for index in range(count):
        own = [f"--config.impl.processes=127.0.0.1:{port},{count},{index}"] if count > 1 else []
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "tlc_jax", *arguments, *own],
                env=environment,
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            )
        )
    return started


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def ends(started: Sequence[Process], within: float = 300.0) -> list[tuple[int, str]]:
    """(exit status, stderr) of each. One that is late is killed and fails the test."""
    deadline = time.monotonic() + within
    found = []
    try:
        for process in started:
            try:
                _, errors = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)  # it says where it was
                _, errors = process.communicate()
                raise AssertionError(
                    f"still ran after {within} s: {errors.decode()[-6000:]}"
                ) from None
            found.append((process.returncode, errors.decode()))
    finally:
        for process in started:
            process.kill()
    return found


def finish(started: Sequence[Process], within: float = 300.0) -> None:
    """Waits for all of them, each of which must end well."""
    for status, errors in ends(started, within):
        assert status == 0, errors[-2000:]


def rows_of(workdir: Path) -> list[dict]:
    """The complete rows of a metrics.jsonl that may still be written; none before it exists."""
    return json_lines.read(workdir / "metrics.jsonl")


def wait_for_step(started: Sequence[Process], workdir: Path, step: int, rows_before: int) -> None:
    """Returns once the run has written a row at `step` or later, or one of its processes ended."""
    deadline = time.monotonic() + 120
    while all(process.poll() is None for process in started) and time.monotonic() < deadline:
        rows = rows_of(workdir)
        if len(rows) != rows_before and rows and rows[-1]["step"] >= step:
            return
        time.sleep(0.005)


def bits_of(workdir: Path) -> dict[str, bytes]:
    """The bytes of every parameter of a run."""
    params = saved_model.load(str(workdir), Impl()).params
    return {path: np.asarray(leaf).tobytes() for path, leaf in flatten(params).items()}
