"""Time and work of a run, its budget, the benchmark clock, and how processes agree on all of it.

docs/budget.md states the rules. Time is read from an injectable clock, so tests never sleep.

All processes use process 0's clock. Each training step carries one message per process, and every
process acts on it at the same step, after dispatching the next one, so nothing waits outside the
step. A run of one process sends no messages.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from tlc_jax.config.durations import Amounts, used
from tlc_jax.core import distributed as processes
from tlc_jax.core.mesh import Placement
from tlc_jax.training.checkpoint import Checkpointer

Clock = Callable[[], float]

_PRODUCT = Path("/sys/class/dmi/id/product_name")

CAUSES = ("train", "compile", "input", "eval", "checkpoint", "profile", "lost")
"""What wall-clock seconds are spent on.

The rest of `total` is start-up and bookkeeping. `lost` is not part of `total`: those seconds came
after the checkpoint from which a killed run resumed, so their work was done a second time.
"""


class Accounting:
    """Wall-clock seconds by cause and the amounts of training of all sessions of a run.

    `spent` counts the steps whose results have been read; the loop adds the steps in flight.
    """

    def __init__(self, clock: Clock = time.monotonic, saved: dict[str, Any] | None = None):
        saved = saved or {"spent": {}, "seconds": {}}
        self.clock = clock
        self.spent = Amounts(**saved["spent"])
        self.seconds = {cause: float(saved["seconds"].get(cause, 0.0)) for cause in CAUSES}
        self._total_before = float(saved["seconds"].get("total", 0.0))
        self._started = clock()

    @property
    def total(self) -> float:
        """Wall-clock seconds of all sessions, including this one."""
        return self._total_before + self.clock() - self._started

    @contextmanager
    def measure(self, cause: str) -> Iterator[None]:
        """Adds the seconds of a with-block to a cause."""
        started = self.clock()
        try:
            yield
        finally:
            self.seconds[cause] += self.clock() - started

    def add_training(self, amounts: Amounts, seconds: float, charged: float | None = None) -> None:
        """Adds finished training.

        Args:
          amounts: the work done, without its seconds.
          seconds: what it took on the clock.
          charged: what the budget is charged for it instead; None charges `seconds`.
        """
        self.seconds["train"] += seconds
        charged = seconds if charged is None else charged
        self.spent += amounts + Amounts(seconds=charged)

    def goodput(self) -> dict[str, float]:
        """Shares of all wall-clock time by cause; the share of `train` is the goodput.

        `other` is the time of no cause. `outside_compile_and_eval` is the share of training in the
        time that is neither compilation nor evaluation.
        """
        whole = self.total + self.seconds["lost"]
        seconds = {**self.seconds, "other": max(0.0, whole - sum(self.seconds.values()))}
        rest = whole - self.seconds["compile"] - self.seconds["eval"]
        shares = {cause: value / whole if whole > 0 else 0.0 for cause, value in seconds.items()}
        outside = self.seconds["train"] / rest if rest > 0 else 0.0
        return {**shares, "outside_compile_and_eval": outside}

    def save(self) -> dict[str, Any]:
        """The part of a checkpoint's metadata that the `saved` argument takes."""
        return {
            "spent": dataclasses.asdict(self.spent),
            "seconds": {**self.seconds, "total": self.total},
        }


@dataclasses.dataclass(frozen=True)
class Budget:
    """The limits of a run, and whether they count training seconds or all seconds."""

    limits: Amounts
    charge: str = "training"

    def in_steps(self, steps: int) -> Budget:
        """This budget with its seconds converted into steps, which paper 1 does once per run."""
        steps = min(steps, self.limits.steps or steps)
        return Budget(dataclasses.replace(self.limits, seconds=0.0, steps=steps))

    def used(self, spent: Amounts, total_seconds: float) -> tuple[float, str]:
        """The fraction used of the limit that is nearest its end, and the unit of that limit.

        Args:
          spent: amounts of training.
          total_seconds: wall-clock seconds of the run, which `charge="total"` counts instead.
        """
        if self.charge == "total":
            spent = dataclasses.replace(spent, seconds=total_seconds)
        return used(self.limits, spent)


class Interrupted(Exception):
    """A stop was requested where nothing has to be finished first."""


class StopRequest:
    """Within its with-block, the first SIGINT, SIGTERM or notice only sets `received`.

    The loop then finishes the step, saves and leaves. A second SIGINT interrupts as usual.

    Args:
      notices: `impl.notices`: `auto` listens to the metadata server of Compute Engine.
    """

    def __init__(self, notices: str = "off") -> None:
        self.received: str | None = None
        self._interrupts = False
        self._previous: dict[signal.Signals, Any] = {}
        self._notices = None
        if notices == "auto" and on_gce():
            from tlc_jax.training.notices import Notices  # most machines are elsewhere

            self._notices = Notices(self.request)

    def __enter__(self) -> Self:
        # Python forbids signal handlers outside the main thread.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        if self._notices:
            self._notices.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._notices:
            self._notices.close()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def request(self, reason: str) -> None:
        """Asks to stop, from any thread, as SIGTERM does."""
        self.received = self.received or reason
        main = threading.main_thread().ident
        if self._previous and main is not None:
            # The handler runs in the main thread, where an evaluation may have to be interrupted.
            signal.pthread_kill(main, signal.SIGTERM)

    def _receive(self, number: int, frame: types.FrameType | None) -> None:
        del frame
        self.received = self.received or signal.Signals(number).name
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


def on_gce() -> bool:
    """Whether this is a machine of Compute Engine, found without asking the network."""
    # The variable by which Google's own libraries find another server.
    if os.environ.get("GCE_METADATA_HOST"):
        return True
    with suppress(OSError):
        return _PRODUCT.read_text().startswith("Google")
    return False


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
      checkpointer: knows the step at which JAX's preemption service wants all to stop.
    """

    def __init__(
        self,
        placement: Placement,
        stop: StopRequest,
        own: Callable[[], Message],
        checkpointer: Checkpointer,
    ) -> None:
        mesh = placement.mesh
        self._stop, self._own, self._messages = stop, own, [own()]
        self._checkpointer = checkpointer
        self._sharding = NamedSharding(mesh, P(mesh.axis_names))
        owners = [device.process_index for device in mesh.devices.flat]
        self._first_rows = [owners.index(process) for process in range(processes.count())]

    @property
    def agreed(self) -> Message:
        """What decisions are based on: process 0's message, or the present in a run of one."""
        return self._messages[0] if processes.several() else self._own()

    def stopping(self, step: int) -> bool:
        """Whether any process was asked to stop. All must ask at every step, before it begins."""
        if not processes.several():
            return self._stop.received is not None
        if self._checkpointer.reached_preemption(step):
            self._stop.received = self._stop.received or "a preemption notice"
            return True
        return any(message.stop for message in self._messages)

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
