"""The devices that are planned for: those at hand, or a slice of TPUs that need not be there."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from tlc_jax.config import Config
from tlc_jax.core.devices import peak_flops
from tlc_jax.core.mesh import Placement
from tlc_jax.planning import fit
from tlc_jax.planning.compile import compiler_versions
from tlc_jax.planning.tpu import Chip, open_slice
from tlc_jax.runs import session


@dataclasses.dataclass(frozen=True)
class Target:
    """The devices that are planned for.

    Attributes:
      place: mesh of the devices, and shardings.
      limit: memory of each device.
      chip: chip of a slice; None for devices at hand.
    """

    place: Placement
    limit: fit.MemoryLimit
    chip: Chip | None = None

    @staticmethod
    def of(config: Config) -> Target:
        """The slice that plan.topology names, or the devices at hand.

        Raises:
          InputError: there is no such slice, the TPU compiler is missing, or the mesh does not fit.
        """
        topology, impl = config.plan.topology, config.impl
        if not topology:
            return Target(session.open_devices(config), fit.memory_at_hand())
        # A slice is planned by this process alone, even if it was launched as one of several.
        alone = dataclasses.replace(impl, processes="one")
        session.set_up(dataclasses.replace(config, impl=alone))
        chip, devices = open_slice(topology)
        limit = fit.MemoryLimit(chip.memory, "what the TPU compiler gives to a program")
        return Target(Placement.parse(impl.mesh, impl.sharding, devices), limit, chip)

    @property
    def device(self) -> jax.Device:
        """The first device; all are of one kind."""
        return self.place.mesh.devices.flat[0]

    @property
    def devices(self) -> int:
        """The number of devices."""
        return self.place.mesh.devices.size

    def peak_flops(self, config: Config) -> float | None:
        """FLOP/s that all devices together could reach; None if their kind is unknown."""
        one = peak_flops(self.device.device_kind, config.impl.matmul)
        return one and one * self.devices

    def facts(self) -> dict[str, Any]:
        """The fields of result.json about the devices."""
        here = session.provenance()
        return here | {
            "device": self.device.device_kind,
            "devices": self.devices,
            "platform": self.device.platform,
            "at_hand": self.chip is None,
            "mesh": {axis: size for axis, size in self.place.mesh.shape.items() if size > 1},
            "memory": self.limit.bytes,
            "memory_source": self.limit.source,
            "versions": here["versions"] | compiler_versions(),
        }
