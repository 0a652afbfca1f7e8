"""`tlc STAGE ...`: dispatch and exit codes, nothing else."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import signal
import sys
import threading
import traceback
import types
from collections.abc import Iterator, Sequence
from typing import NoReturn

from tlc_jax import __version__
from tlc_jax.core import distributed as processes
from tlc_jax.core.errors import Ending, InputError, StoppedEarly, TrainingFailed

DONE, FAILED, WRONG_INPUT, STOPPED_EARLY, INTERRUPTED = 0, 1, 2, 75, 130

_HELP = {"-h", "-help", "--help"}
_DISK_ERRORS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EROFS: "choose a place that can be written",
    errno.EACCES: "choose a place that you may use, or change its permissions",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    Args:
      arguments: what follows the program's name; by default the process's own.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    with _sigterm_as_exception():
        try:
            status, by_all = _status_of(arguments), False
        except Ending as ending:
            status, by_all = _say_ending(ending), ending.by_all
    if processes.several():
        clean = by_all or status == DONE
        processes.disconnect(clean)
        if not clean:
            # The others may be gone already, and JAX would wait for them.
            sys.stdout.flush()
            os._exit(status)
    return status


def _status_of(arguments: Sequence[str]) -> int:
    """Runs a command, says what went wrong with it, and returns its exit status.

    Raises:
      Ending: what the command itself has to say.
    """
    try:
        _run(arguments)
        sys.stdout.flush()
    except Ending:
        raise
    except KeyboardInterrupt:
        return _say("interrupted", "run the same command again to go on", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output left (`tlc ... | head`): nothing to tell, and no second error on the way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if line := _disk_error(error):
            return _say("error", line, WRONG_INPUT)
        processes.await_news()
        if processes.several():
            traceback.print_exc()
            return FAILED
        raise
    return DONE


@contextlib.contextmanager
def _sigterm_as_exception() -> Iterator[None]:
    """Outside of training, which has something to save first, SIGTERM ends the command at once, with status 75."""

    def stop(number: int, frame: types.FrameType | None) -> NoReturn:
        raise StoppedEarly("SIGTERM; what is finished is kept: run the same command again")

    if threading.current_thread() is not threading.main_thread():  # where Python forbids handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def _run(arguments: Sequence[str]) -> None:
    # Each import waits for its turn: help must not wait for absl, nor a refusal for JAX.
    if "--version" in arguments[:1]:
        print(f"tlc_jax {__version__}")
        return
    if not arguments or arguments[0] in _HELP:
        from tlc_jax.cli import help as help_text

        print(help_text.overview())
        return
    if _HELP.intersection(arguments[1:]):
        from tlc_jax.cli import help as help_text

        print(help_text.of_stage(arguments[0]))
        return
    from tlc_jax.cli import flags as command_line

    command = command_line.parse(arguments)
    stage = importlib.import_module(f"tlc_jax.commands.{command.stage}")
    stage.run(command.config, command.workdir, command.options)


def _say_ending(ending: Ending) -> int:
    if isinstance(ending, InputError):
        return _say("error", str(ending), WRONG_INPUT)
    if isinstance(ending, TrainingFailed):
        return _say("failed", str(ending), FAILED)
    if line := _disk_error(ending):
        return _say("error", line, WRONG_INPUT)
    return _say("stopped", str(ending), STOPPED_EARLY)


def _say(kind: str, message: str, status: int) -> int:
    print(f"tlc: {kind}: {' '.join(message.split())}", file=sys.stderr)
    return status


def _disk_error(error: BaseException) -> str | None:
    """One line on a full, read-only or forbidden disk, also where a library wrapped the operating system's error."""
    for link in _chain(error):
        if isinstance(link, OSError) and link.errno in _DISK_ERRORS:
            where = f" {link.filename}" if link.filename else ""
            return _disk_line(link.errno, where)
        # TensorStore, below Orbax, reports "... [OS error 28: ENOSPC No space left on device]" as a ValueError.
        if wrapped := re.search(r"\[OS error (\d+): ", str(link)):
            path = re.search(r'"([^"]+)"', str(link))
            if (number := int(wrapped[1])) in _DISK_ERRORS:
                return _disk_line(number, f" {path[1]}" if path else "")
    return None


def _disk_line(number: int, where: str) -> str:
    remedy = _DISK_ERRORS[number]
    return f"cannot use{where or ' a file'}: {os.strerror(number)}; {remedy} and run the same command again"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
