"""The messages between processes, and that all processes decide alike by them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.helpers.one_of_two import SLOW_SECONDS
from tests.helpers.processes import ONE_DEVICE, free_port
from tests.training.test_loop import rows_of
from tlc_jax.config.durations import Amounts
from tlc_jax.training.clock import Message


def test_a_message_keeps_every_digit() -> None:
    spent = Amounts(
        seconds=1234567.890123,
        steps=2**40 + 1,
        examples=3,
        tokens=10**15 + 7,
        epochs=0.1,
        flops=1e21 / 3,
    )
    message = Message(stop=True, waited=0.1, step_seconds=1e-9, total=2e6 / 3, spent=spent)
    assert Message.decode(message.encode()) == message


def test_hosts_with_different_clocks_decide_as_process_0_does(tmp_path) -> None:
    """Process 1's clock is a million seconds ahead and three times as fast, its batches late."""
    port = free_port()
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.helpers.one_of_two",
                str(tmp_path),
                f"127.0.0.1:{port},2,{index}",
            ],
            env={**os.environ, **ONE_DEVICE},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for index in (0, 1)
    ]
    ended = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], (
        ended[0][1].decode() + ended[1][1].decode()
    )
    first, second = (json.loads(out.decode().splitlines()[-1]) for out, _ in ended)
    for name in ("steps", "stopped_by", "params", "evaluations"):
        assert first[name] == second[name], name
    assert first["stopped_by"] == "seconds"
    stops = [row for row in rows_of(tmp_path) if row["event"] == "stop"]
    assert 2.0 <= stops[0]["train_seconds"] < 3.0  # by process 0's clock
    # The slow host is found, with a lower bound of its cost by its own clock, three times as fast.
    lost = first["straggler"]
    assert lost["process"] == 1
    assert lost["seconds_waited_for"] >= 0.9 * 3 * SLOW_SECONDS * (first["steps"] - 6)
