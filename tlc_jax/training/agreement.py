"""How the processes of a run agree when to stop, evaluate and save.

All processes use process 0's clock. Each training step carries one message per process, and every
process acts on it at the same step, after dispatching the next one, so nothing waits outside the
step. A run of one process sends no messages.
"""

from __future__ import annotations

import dataclasses
import signal
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from tlc_jax.config.durations import Amounts
from tlc_jax.core import distributed as processes
from tlc_jax.core.mesh import Placement


class Interrupted(Exception):
    """A stop was requested where nothing has to be finished first."""


class StopRequest:
    """Within its with-block, the first SIGINT or SIGTERM only sets `received`.

    The loop then finishes the step, saves and leaves. A second SIGINT interrupts as usual.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._interrupts = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # Python forbids signal handlers outside the main thread.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _receive(self, number: int, frame: types.FrameType | None) -> None:
        del frame
        self.received = signal.Signals(number).name
        if number == signal.SIGINT:
            self.__exit__()
        if self._interrupts:
            raise Interrupted

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within this with-block a stop raises `Interrupted` at once, also one received before."""
        self._interrupts = True
        try:
            if self.received:
                raise Interrupted
            yield
        finally:
            self._interrupts = False


@dataclasses.dataclass(frozen=True)
class Message:
    """The state of one process.

    Attributes:
      stop: whether it was asked to stop.
      waited: seconds its devices waited for a batch.
      step_seconds: seconds of its last training step.
      total: wall-clock seconds of the run.
      spent: amounts of training whose results it has read.
    """

    stop: bool
    waited: float
    step_seconds: float
    total: float
    spent: Amounts

    def encode(self) -> np.ndarray:
        """Float64 [fields]."""
        own = [self.stop, self.waited, self.step_seconds, self.total]
        return np.array([*own, *dataclasses.astuple(self.spent)], np.float64)

    @staticmethod
    def decode(values: np.ndarray) -> Message:
        stop, waited, step_seconds, total, *spent = values.tolist()
        return Message(bool(stop), waited, step_seconds, total, Amounts(*spent))


class Agreement:
    """The newest messages of all processes, and the decisions that follow from them.

    Args:
      placement: the mesh of the training step.
      stop: the stop request of this process.
      own: returns the present message of this process.
    """

    def __init__(self, placement: Placement, stop: StopRequest, own: Callable[[], Message]) -> None:
        mesh = placement.mesh
        self._stop, self._own, self._messages = stop, own, [own()]
        self._sharding = NamedSharding(mesh, P(mesh.axis_names))
        owners = [device.process_index for device in mesh.devices.flat]
        self._first_rows = [owners.index(process) for process in range(processes.count())]

    @property
    def agreed(self) -> Message:
        """What decisions are based on: process 0's message, or the present in a run of one."""
        return self._messages[0] if processes.several() else self._own()

    @property
    def stopping(self) -> bool:
        """Whether any process was asked to stop."""
        if processes.several():
            return any(message.stop for message in self._messages)
        return self._stop.received is not None

    def outgoing(self) -> jax.Array | None:
        """This process's message as an argument of the next step.

        Returns:
          uint32 [devices, 2 x fields], split over the devices, each row being its process's
          message; None in a run of one.
        """
        if not processes.several():
            return None
        row = self._own().encode().view(np.uint32)  # JAX would round float64 to float32
        shape = (len(self._sharding.mesh.devices.flat), len(row))
        return jax.make_array_from_callback(
            shape, self._sharding, lambda part: np.broadcast_to(row, shape)[part]
        )

    def receive(self, carried: np.ndarray | None) -> None:
        """Takes in the messages that a step returned, those of all processes."""
        if carried is not None:
            rows = np.ascontiguousarray(carried[self._first_rows]).view(np.float64)
            self._messages = [Message.decode(row) for row in rows]

    def exchange(self) -> None:
        """Exchanges messages outside a step. All processes must call it, with none in flight."""
        if processes.several():
            gathered = processes.gather(self._own().encode())
            self._messages = [Message.decode(row) for row in gathered]

    def straggler(self) -> dict[str, Any]:
        """The process whose input kept the others waiting longest, as an entry of result.json."""
        if not processes.several():
            return {}
        waits = [message.waited for message in self._messages]
        slowest = int(np.argmax(waits))
        lost = waits[slowest] - min(waits)
        return {"straggler": {"process": slowest, "seconds_waited_for": lost}}
