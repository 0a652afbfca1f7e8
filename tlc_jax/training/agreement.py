"""What the processes of a run agree on: whether to stop, and what has been spent.

Each training step carries a note of every process to all others. What process 0 says of time is taken as everyone's, so
hosts' clocks may differ; and what is said with a step is acted on by all at the same place, after the next one was
dispatched, so that nobody waits for anybody but in the steps themselves. A run of one process needs no notes.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from tlc_jax.config.durations import Amounts
from tlc_jax.core import distributed as processes
from tlc_jax.core.mesh import Placement


@dataclasses.dataclass(frozen=True)
class Note:
    """What a process says of itself.

    Attributes:
      stop: it was asked to stop.
      waited: seconds that its devices stood still for want of a batch.
      pace: seconds of the last training step.
      total: wall-clock seconds of the run.
      spent: amounts of training whose results it has seen.
    """

    stop: bool
    waited: float
    pace: float
    total: float
    spent: Amounts

    def encode(self) -> np.ndarray:
        values = [self.stop, self.waited, self.pace, self.total, *dataclasses.astuple(self.spent)]
        return np.array(values, np.float64)

    @staticmethod
    def decode(values: np.ndarray) -> Note:
        stop, waited, pace, total, *spent = values.tolist()
        return Note(bool(stop), waited, pace, total, Amounts(*spent))


class Messenger:
    """Carries notes as arrays that a compiled step takes in split and gives back whole."""

    def __init__(self, placement: Placement) -> None:
        mesh = placement.mesh
        self._sharding = NamedSharding(mesh, P(mesh.axis_names))
        owners = [device.process_index for device in mesh.devices.flat]
        self._first_rows = [owners.index(process) for process in range(processes.count())]

    def send(self, note: Note) -> jax.Array | None:
        """The argument of a step: uint32 [devices, 2 x fields], a device's row being its process's note."""
        if not processes.several():
            return None
        row = note.encode().view(np.uint32)  # JAX would round float64 to float32
        shape = (len(self._sharding.mesh.devices.flat), len(row))
        return jax.make_array_from_callback(
            shape, self._sharding, lambda part: np.broadcast_to(row, shape)[part]
        )

    def read(self, carried: np.ndarray) -> list[Note]:
        """Everyone's notes, by process, from what the step gave back."""
        rows = np.ascontiguousarray(carried[self._first_rows]).view(np.float64)
        return [Note.decode(row) for row in rows]

    def exchange(self, note: Note) -> list[Note]:
        """Everyone's notes at this moment; all must call this, with no step in flight."""
        return [Note.decode(row) for row in processes.gather(note.encode())]
