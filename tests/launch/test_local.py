"""The local launcher: exit statuses, retries, signals, and one real run of two processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from launch.local import Launcher, main, verdict
from tests.commands.conftest import pretrain_arguments, result_of, write_world
from tests.helpers.processes import ONE_DEVICE


@pytest.fixture(autouse=True)
def own_signal_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def launcher(code: str, count: int = 2, retries: int = 3, patience: float = 20.0) -> Launcher:
    """Of processes that run `code`, in which `count` and `index` are known."""

    def command(where: str) -> Sequence[str]:
        _, total, index = where.split(",")
        return [
            sys.executable,
            "-c",
            f"import os, signal, sys, time\ncount, index = {total}, {index}\n{code}",
        ]

    return Launcher(command, count, retries, patience, pause=0.01)


def attempts(folder: Path) -> str:
    """Code that notes this attempt of process 0 and sets `attempt`, from 1."""
    return (
        f"path = {str(folder / 'attempts')!r}\n"
        "if index == 0: open(path, 'a').write('x')\n"
        "attempt = os.path.getsize(path) if index == 0 else 0\n"
    )


def count_attempts(folder: Path) -> int:
    return len((folder / "attempts").read_text())


@pytest.mark.parametrize(
    ("statuses", "whole"),
    [
        ((0, 0), 0),
        ((0, 75), 75),
        ((-9, 75), 75),
        ((-9, 0), 75),
        ((75, 2), 2),
        ((-15, 1, 75), 1),
        ((2, 1), 2),
    ],
)
def test_the_status_of_all(statuses, whole) -> None:
    assert verdict(statuses) == whole


def test_each_line_starts_with_the_number_of_its_process(capfd) -> None:
    code = "assert count == 3\nprint('out of', index)\nprint('error of', index, file=sys.stderr)"
    assert launcher(code, count=3).run() == 0
    lines = capfd.readouterr().out.splitlines()
    assert sorted(lines) == sorted(
        f"[{i}] {kind} of {i}" for i in range(3) for kind in ("out", "error")
    )


@pytest.mark.parametrize("end", ["sys.exit(75)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_stopped_early_or_killed_is_tried_again(tmp_path, end) -> None:
    code = attempts(tmp_path) + f"if index == 0 and attempt < 3: {end}"
    assert launcher(code).run() == 0
    assert count_attempts(tmp_path) == 3


def test_retries_are_bounded(tmp_path, capfd) -> None:
    assert launcher(attempts(tmp_path) + "sys.exit(75)", retries=2).run() == 75
    assert count_attempts(tmp_path) == 3
    assert "launch: stopped early 3 times" in capfd.readouterr().err


@pytest.mark.parametrize("status", [1, 2])
def test_what_no_retry_mends_is_not_tried_again(tmp_path, status) -> None:
    assert (
        launcher(attempts(tmp_path) + f"sys.exit({status} if index == 0 else 75)").run() == status
    )
    assert count_attempts(tmp_path) == 1


def test_those_who_do_not_leave_are_killed(tmp_path) -> None:
    started = time.monotonic()
    code = attempts(tmp_path) + "sys.exit(75) if index == 0 else time.sleep(90)"
    assert launcher(code, retries=0, patience=0.5).run() == 75
    assert time.monotonic() - started < 60


def noting_signals(folder: Path, number: signal.Signals, status: int) -> str:
    """Code that marks when it is ready, records each signal, and ends with `status` after one."""
    return attempts(folder) + (
        f"folder, ended = {str(folder)!r}, []\n"
        "def note(*_): open(f'{folder}/got-{index}', 'a').write('x'); ended.append(1)\n"
        f"signal.signal({int(number)}, note)\n"
        "open(f'{folder}/ready-{index}', 'w').close()\n"
        "deadline = time.monotonic() + 60\n"
        "while not ended and time.monotonic() < deadline: time.sleep(0.05)\n"
        f"time.sleep(0.5); sys.exit({status})"
    )


def wait_until_ready(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while len(list(folder.glob("ready-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 0)])
def test_a_signal_reaches_all_and_ends_the_retries(tmp_path, number, status, capfd) -> None:
    def send_when_ready() -> None:
        wait_until_ready(tmp_path)
        os.kill(os.getpid(), number)

    threading.Thread(target=send_when_ready, daemon=True).start()
    assert launcher(noting_signals(tmp_path, number, status)).run() == status
    assert [(tmp_path / f"got-{index}").read_text() for index in range(2)] == ["x", "x"]
    assert count_attempts(tmp_path) == 1
    assert not capfd.readouterr().err


def test_a_signal_while_processes_start_reaches_each_once(tmp_path) -> None:
    code = noting_signals(tmp_path, signal.SIGINT, 0)
    started = launcher(code.replace("signal.signal(", "signal.signal(15, note); signal.signal(", 1))
    command = started.command

    def command_and_signal(where: str) -> Sequence[str]:
        if where.endswith(",1"):  # the first process runs, the second one does not exist yet
            deadline = time.monotonic() + 60
            while not (tmp_path / "ready-0").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
        return command(where)

    started.command = command_and_signal
    assert started.run() in (0, 75)  # the second one may be too young to note its signal
    assert (tmp_path / "got-0").read_text() == "x"
    assert count_attempts(tmp_path) == 1


def test_ctrl_c_at_the_terminal_does_not_reach_processes_twice() -> None:
    # A second SIGINT ends a run without saving. A terminal sends it to a whole group, so each
    # process has a group of its own.
    assert launcher("assert os.getpgrp() == os.getpid()").run() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["2"], "the command to run is missing"),
        (["two", "--", "pretrain"], "invalid int value: 'two'"),
        (["0", "--", "pretrain"], "N=0 must be 1 or more"),
        (["2", "--", "pretrain", "--config.impl.processes=one"], "leave it out"),
    ],
)
def test_a_wrong_command_gets_one_line(arguments, message, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path) -> None:
    write_world(tmp_path)
    workdir = tmp_path / "run"
    run = subprocess.run(
        [sys.executable, "launch/local.py", "2", "--", *pretrain_arguments(tmp_path, workdir)],
        env={**os.environ, **ONE_DEVICE},  # one device each
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    result = result_of(workdir)
    assert (result["processes"], result["devices"], result["steps"]) == (2, 2, 6)
