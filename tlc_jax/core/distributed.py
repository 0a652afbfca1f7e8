"""One run in several processes: they connect, exchange values, and end together when one is lost.

Process 0 writes the files that a run has once (metrics, results, config), and all use its clock.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import signal
import socket
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tlc_jax.core.errors import InputError, StoppedEarly

# NumPy and JAX are imported where they are used: help and refusals import this file.
if TYPE_CHECKING:
    import numpy as np

_MAX_TEXT_BYTES = 4096

_connected = False
_watch: _Watch | None = None  # None in a run of one process


def several() -> bool:
    """Whether this process is one of several."""
    return _watch is not None


def first() -> bool:
    """Whether this process writes the run's files."""
    return _watch is None or _watch.index == 0


def count() -> int:
    """Number of processes of the run."""
    return 1 if _watch is None else _watch.count


def parse(text: str) -> tuple[str, int, int] | None:
    """The address, count and index of `HOST:PORT,COUNT,INDEX`; None for `auto` and `one`.

    Raises:
      InputError: the text has another form, or the index is not below the count.
    """
    if text in ("auto", "one"):
        return None
    match = re.fullmatch(r"([^,]+:\d+), *(\d+) *, *(\d+) *", text)
    if match and int(match[3]) < int(match[2]):
        return match[1], int(match[2]), int(match[3])
    raise InputError(
        f"impl.processes={text!r}: write auto, one, or HOST:PORT,COUNT,INDEX with process 0's "
        "address and INDEX < COUNT"
    )


def launched_as_one_of_several() -> bool:
    """Whether the environment has JAX's own variables, several SLURM or MPI tasks, or a TPU."""
    environment = os.environ
    tasks = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
    if environment.get("JAX_COORDINATOR_ADDRESS"):
        return True
    if any(int(environment.get(name) or 1) > 1 for name in tasks):
        return True
    # A TPU host may be one of a slice; JAX learns how many there are when it connects.
    if environment.get("JAX_PLATFORMS", "tpu") != "tpu" or find_spec("libtpu") is None:
        return False
    return Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists()


def connect(text: str, seconds: int = 300) -> None:
    """Connects to the other processes of the run, once; does nothing in a run of one process.

    Args:
      text: `impl.processes`: `auto` (from the environment), `one` or HOST:PORT,COUNT,INDEX.
      seconds: seconds to wait for the other processes at most.

    Raises:
      InputError: bad syntax.
      StoppedEarly: another process does not connect, or it is lost at once.
    """
    global _watch, _connected
    explicit = parse(text)
    alone = text == "one" or (explicit[1] == 1 if explicit else not launched_as_one_of_several())
    if _connected or alone:
        return
    _connected = True
    import jax

    if os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    address, total, index = explicit or (None, None, None)  # None: from the environment
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        jax.distributed.initialize(
            address,
            total,
            index,
            initialization_timeout=seconds,
            # JAX ends all processes when one is silent for so long: it hangs or lost its network.
            heartbeat_timeout_seconds=60,
            shutdown_timeout_seconds=60,
        )
        for number, handler in handlers.items():
            # JAX has installed its own handlers; our processes agree on stopping by themselves.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if jax.process_count() > 1:
            _watch = _Watch(jax.process_index(), jax.process_count())
    except (RuntimeError, ValueError, OSError) as error:
        line = str(error).strip().splitlines()[0]
        raise StoppedEarly(
            f"the other processes of impl.processes={text} were not found, or lost ({line})"
        ) from error


def disconnect(clean: bool) -> None:
    """Closes the connections. Unless the end is `clean`, the other processes end at once too."""
    global _watch
    if _watch is not None:
        watch, _watch = _watch, None
        watch.close(clean)


def await_news() -> None:
    """Ends this process if another one was lost; call it on an error that such a loss may cause."""
    if _watch is not None:
        time.sleep(10.0)  # the thread that listens ends the process when the news arrives


def gather(values: np.ndarray) -> np.ndarray:
    """The `values` of all processes, [processes, ...]. All must call it; waits for the devices."""
    import numpy as np

    if _watch is None:
        return np.asarray(values)[None]
    from jax.experimental import multihost_utils

    # As bytes: JAX would round float64 to float32.
    values = np.ascontiguousarray(values)
    raw = multihost_utils.process_allgather(np.frombuffer(values.tobytes(), np.uint8))
    received = np.frombuffer(np.asarray(raw, np.uint8).tobytes(), values.dtype)
    return received.reshape(_watch.count, *values.shape)


def of_first(value: float) -> float:
    """Process 0's value. All must call it."""
    import numpy as np

    return float(gather(np.array(value, np.float64))[0])


def barrier() -> None:
    """Waits until all processes have called it."""
    share("")


def share(text: str) -> str:
    """The text of process 0, on every process."""
    return gather_texts(text)[0]


def agree_on_error(error: InputError | None) -> None:
    """Raises on all processes the error that any of them found.

    Raises:
      InputError: the error of the first process that has one.
    """
    if _watch is None and error is not None:
        raise error  # itself, because a copy would lose its cause
    for message in gather_texts(str(error or "")):
        if message:
            raise InputError(message, by_all=True)


def gather_texts(text: str) -> list[str]:
    """The texts of all processes, cut to 4096 bytes each. All must call it."""
    if _watch is None:
        return [text]
    import numpy as np

    # Padded to one length, because the arrays of all processes must have one shape.
    raw = text.encode()[:_MAX_TEXT_BYTES].ljust(_MAX_TEXT_BYTES, b"\0")
    rows = gather(np.frombuffer(raw, np.uint8))
    return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in rows]


class _Watch:
    """Idle connections between process 0 and all others, which break when a process ends.

    The operating system closes the connections of a process that dies at once. JAX's heartbeats
    would take a minute to notice, and a collective on an accelerator waits forever.
    """

    _GOODBYE = b"goodbye\n"

    def __init__(self, index: int, total: int) -> None:
        self.index, self.count = index, total
        self._closing = False
        self._ending = threading.Lock()
        self._peers: dict[int, socket.socket] = {}
        if index == 0:
            with socket.create_server(("", 0)) as server:
                self._exchange_port(server.getsockname()[1])
                while len(self._peers) < total - 1:
                    peer, _ = server.accept()
                    self._peers[int.from_bytes(peer.recv(4), "big")] = peer
        else:
            from tlc_jax.core.jax_internals import coordinator_address

            host, _, _ = coordinator_address().rpartition(":")
            address = (host.strip("[]"), self._exchange_port(0))  # IPv6 is written in brackets
            peer = socket.create_connection(address, timeout=60)
            peer.settimeout(None)
            peer.sendall(index.to_bytes(4, "big"))
            self._peers[0] = peer
        for number, peer in self._peers.items():
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            threading.Thread(target=self._listen, args=(number, peer), daemon=True).start()
        # In an attribute, because C keeps no reference to it.
        self._on_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._explain_abort)
        ctypes.CDLL(None).signal(signal.SIGABRT, self._on_abort)

    def _exchange_port(self, port: int) -> int:
        import numpy as np
        from jax.experimental import multihost_utils

        return int(multihost_utils.broadcast_one_to_all(np.int32(port)))

    def _listen(self, number: int, peer: socket.socket) -> None:
        news = b""
        with contextlib.suppress(OSError):
            while part := peer.recv(256):
                news += part
                if news == self._GOODBYE:
                    return
        if not self._closing:
            self._end(int(news) if news.strip().isdigit() else number)

    def _explain_abort(self, number: int) -> None:
        """Explains an abort by JAX, which may notice a lost process 0 before our thread does.

        Registered in C, because Python's signal handlers run too late. Does nothing about an abort
        for another reason.
        """
        gone, _, _ = select.select(list(self._peers.values()), [], [], 0.5)
        for lost, peer in self._peers.items():
            if peer in gone and not self._closing:
                self._end(lost)

    def _end(self, lost: int) -> NoReturn:
        """Ends this process because another one is gone."""
        self._ending.acquire()  # never released: only the first thread reports
        for other in self._peers.values():
            # Processes that are connected to process 0 alone learn from it which one was lost.
            with contextlib.suppress(OSError):
                other.sendall(b"%d\n" % lost)
        line = (
            f"tlc: stopped: process {lost} of {self.count} ended early; this one (process "
            f"{self.index}) ends too. Nothing that was saved is lost: run the same command again\n"
        )
        # One write, so that other threads cannot split it
        os.write(sys.stderr.fileno(), line.encode())
        os._exit(StoppedEarly.status)

    def close(self, clean: bool) -> None:
        """Closes the connections, after a goodbye if the end is `clean`."""
        self._closing = True
        for peer in self._peers.values():
            with contextlib.suppress(OSError):
                if clean:
                    peer.sendall(self._GOODBYE)
                peer.shutdown(socket.SHUT_RDWR)
                peer.close()
