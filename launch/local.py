"""Runs one `tlc` command in N processes on this machine, again and again until it is done.

    python launch/local.py 2 -- pretrain --config=configs/mlm.py:12x768 --workdir=runs/mlm

All processes get the same command and find each other on a free port. After an attempt that was
stopped early or killed, another one continues from the last checkpoint. See launch/README.md.
"""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import IO, NoReturn

DONE, WRONG_INPUT, STOPPED_EARLY = 0, 2, 75
SETTING = "--config.impl.processes="

Command = Callable[[str], Sequence[str]]
"""The value of impl.processes -> the command of a process."""


class Launcher:
    """Starts the processes of a run, passes signals on to them, and judges how they ended.

    Args:
      command: function from the value of impl.processes to the command of a process.
      count: number of processes.
      retries: maximal number of attempts after the first.
      patience: seconds that the others have to exit after one has failed. They watch each other and
        exit by themselves, unless they still wait for the lost process to connect.
      pause: seconds before the first retry; doubled before each further one, up to a minute.
    """

    def __init__(
        self, command: Command, count: int, retries: int, patience: float = 60.0, pause: float = 1.0
    ) -> None:
        self.command, self.count, self.retries = command, count, retries
        self.patience, self.pause = patience, pause
        self.stopping = False
        self._processes: list[subprocess.Popen[bytes]] = []
        self._told = 0  # how many of them got the signal to stop

    def run(self) -> int:
        """Returns the exit status of the last attempt: done, hopeless, or 75 if retries ran out."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._forward)
        for attempt in range(self.retries + 1):
            status = verdict(self._attempt())
            if status != STOPPED_EARLY:
                return status
            if attempt < self.retries and not self.stopping:
                _say(f"stopped early: attempt {attempt + 2} of {self.retries + 1}")
                self._wait_after(attempt)
            if self.stopping:
                return STOPPED_EARLY
        _say(f"stopped early {self.retries + 1} times; run the same command again")
        return STOPPED_EARLY

    def _attempt(self) -> list[int]:
        address = f"127.0.0.1:{_free_port()}"
        readers = []
        for index in range(self.count):
            # In a session of its own: otherwise Ctrl-C at the terminal would reach it twice.
            process = subprocess.Popen(
                self.command(f"{address},{self.count},{index}"),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._processes.append(process)
            assert process.stdout is not None
            readers.append(
                threading.Thread(target=_repeat, args=(process.stdout, f"[{index}] "), daemon=True)
            )
            readers[-1].start()
        if self.stopping:  # the signal came while they started: the later ones lack it
            self._send(signal.SIGTERM, self._processes[self._told :])
        statuses = self._wait()
        for reader in readers:
            reader.join(timeout=5.0)  # a grandchild may keep the pipe open
        self._processes, self._told = [], 0
        return statuses

    def _wait(self) -> list[int]:
        """Returns all exit statuses; kills processes that outlast `patience` after a failure."""
        deadline = None
        while any(process.poll() is None for process in self._processes):
            if deadline is None and any(process.returncode for process in self._processes):
                deadline = time.monotonic() + self.patience
            if deadline is not None and time.monotonic() > deadline:
                self._send(signal.SIGKILL, self._processes)
            time.sleep(0.05)
        return [process.returncode for process in self._processes]

    def _wait_after(self, attempt: int) -> None:
        deadline = time.monotonic() + min(self.pause * 2**attempt, 60.0)
        while not self.stopping and time.monotonic() < deadline:
            time.sleep(0.05)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.stopping = True
        self._told = len(self._processes)
        self._send(number, self._processes)

    def _send(self, number: int, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)


def verdict(statuses: Sequence[int]) -> int:
    """One status for all: a hopeless one first, then stopped early or killed, then done."""
    if hopeless := [status for status in statuses if status > 0 and status != STOPPED_EARLY]:
        return hopeless[0]
    return STOPPED_EARLY if any(statuses) else DONE


def _repeat(lines: IO[bytes], prefix: str) -> None:
    with lines:
        for line in lines:
            sys.stdout.buffer.write(prefix.encode() + line)
            sys.stdout.buffer.flush()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _say(text: str) -> None:
    print(f"launch: {text}", file=sys.stderr, flush=True)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_INPUT, f"launch: error: {message}; write {self.format_usage()}")


def main(arguments: Sequence[str]) -> int:
    parser = _Parser(
        prog="launch/local.py",
        usage="local.py N [--retries=R] -- COMMAND --config=FILE.py --workdir=DIR ...",
    )
    parser.add_argument("count", metavar="N", type=int, help="processes")
    parser.add_argument(
        "--retries", metavar="R", type=int, default=10, help="after an early stop (default 10)"
    )
    parser.add_argument("command", nargs="*", help="what follows `tlc`")
    options = parser.parse_args(arguments)
    if options.count < 1 or options.retries < 0:
        parser.error(f"N={options.count} must be 1 or more, R={options.retries} must be 0 or more")
    if not options.command or "--" not in arguments:
        parser.error("the command to run is missing")
    if any(argument.startswith(SETTING) for argument in options.command):
        parser.error(f"{SETTING} is this launcher's to set: leave it out")
    command = [sys.executable, "-m", "tlc_jax", *options.command]
    return Launcher(lambda where: [*command, SETTING + where], options.count, options.retries).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
