"""`tlc COMMAND ...`: dispatch and exit statuses, nothing else."""

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

from tlc_jax import __version__
from tlc_jax.core import distributed as processes
from tlc_jax.core.errors import Ending, InputError, StoppedEarly, TrainingFailed
from tlc_jax.core.text import one_line

DONE, FAILED, INTERRUPTED = 0, 1, 130  # beside those of `Ending`

_AGAIN_SECONDS = 1.0
_HELP = {"-h", "-help", "--help"}
_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EROFS: "choose a place that can be written",
    errno.EACCES: "choose a place that you may use, or change its permissions",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    Args:
      arguments: arguments after the program's name; by default those of this process.
    """
    status, clean = DONE, True
    with _sigterm_as_exception():
        try:
            _run(sys.argv[1:] if arguments is None else list(arguments))
            sys.stdout.flush()
        except (Exception, KeyboardInterrupt) as error:
            status, clean = _report(error), isinstance(error, Ending) and error.by_all
    if processes.several():
        processes.disconnect(clean)
        if not clean:
            # The other processes may be gone already, and JAX would wait for them.
            sys.stdout.flush()
            os._exit(status)
    if arguments is None and status == StoppedEarly.status:
        # What was stopped may have left threads of libraries at work, and Python would crash where
        # they call it while it ends.
        sys.stdout.flush()
        os._exit(status)
    return status


@contextlib.contextmanager
def _sigterm_as_exception() -> Iterator[None]:
    """Makes SIGTERM end the command at once, except in training, which saves first."""

    def stop(number: int, frame: types.FrameType | None) -> None:
        if isinstance(sys.exception(), StoppedEarly):
            return  # on its way out
        # Python drops what is raised while it clears an object away: then it is raised again.
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
        raise StoppedEarly("SIGTERM; what is finished is kept: run the same command again")

    if threading.current_thread() is not threading.main_thread():  # where Python forbids handlers
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGALRM)}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _run(arguments: Sequence[str]) -> None:
    # Each branch imports what it needs: help must not wait for absl, nor a refusal for JAX.
    if "--version" in arguments[:1]:
        print(f"tlc_jax {__version__}")
    elif not arguments or _HELP.intersection(arguments):
        from tlc_jax.cli import help as help_text

        overview = not arguments or arguments[0] in _HELP
        print(help_text.overview() if overview else help_text.of_command(arguments[0]))
    else:
        from tlc_jax.cli import flags

        command = flags.parse(arguments)
        module = importlib.import_module(f"tlc_jax.commands.{command.name}")
        module.run(command.config, command.workdir, command.options)


def _report(error: BaseException) -> int:
    """Explains an error in one line unless it is a bug of ours, and returns the exit status.

    Raises:
      BaseException: the error itself, if it is a bug.
    """
    if isinstance(error, BrokenPipeError):
        # The reader of our output left (`tlc ... | head`). Python would fail to flush it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    if isinstance(error, KeyboardInterrupt):
        print("tlc: interrupted: run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    if not isinstance(error, (InputError, TrainingFailed)) and (line := _disk_error(error)):
        error = InputError(line)
    if not isinstance(error, Ending):
        error = _storage_error(error) or error
    if isinstance(error, Ending):
        print(f"tlc: {error.label}: {one_line(error)}", file=sys.stderr)
        return error.status
    try:
        processes.await_news()  # the loss of another process may be the cause, and ends this one
    except StoppedEarly as stop:  # SIGTERM came while it waited
        return _report(stop)
    if not processes.several():
        raise error
    traceback.print_exc()
    return FAILED


def _storage_error(error: BaseException | None) -> Ending | None:
    """What object storage refused, also where a library wrapped the error."""
    from tlc_jax.core import object_storage

    while error is not None:
        if ending := object_storage.explain(error):
            return ending
        error = error.__cause__ or error.__context__
    return None


def _disk_error(error: BaseException | None) -> str | None:
    """A line on a full, read-only or forbidden disk, also where a library wrapped the error."""
    while error is not None:
        number, path = getattr(error, "errno", None), getattr(error, "filename", None)
        # TensorStore, below Orbax, reports "... [OS error 28: ENOSPC No space left on device]" as a
        # ValueError.
        if wrapped := re.search(r"\[OS error (\d+): ", str(error)):
            quoted = re.search(r'"([^"]+)"', str(error))
            number, path = int(wrapped[1]), quoted and quoted[1]
        if number in _REMEDIES:
            return (
                f"cannot use {path or 'a file'}: {os.strerror(number)}; {_REMEDIES[number]} "
                "and run the same command again"
            )
        error = error.__cause__ or error.__context__
    return None
