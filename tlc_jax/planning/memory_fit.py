"""The largest microbatch whose step fits a device's memory, found by compiling and not by crashing."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence

import jax

from tlc_jax.training.compilation import Footprint

_DEVICE_SHARE = 0.95
_HOST_SHARE = 0.8


@dataclasses.dataclass(frozen=True)
class Room:
    """The memory that a training step may use on each device.

    Attributes:
      bytes: how much; None where it is not known, and everything that compiles is taken to fit.
      source: where that number is from, for people.
      state_copies: copies of the state that the run keeps beside the step's own at times.
    """

    bytes: int | None
    source: str
    state_copies: int = 0

    def need(self, footprint: Footprint) -> int:
        """Bytes that a program with this footprint takes up."""
        return footprint.total + self.state_copies * footprint.arguments

    def holds(self, footprint: Footprint) -> bool:
        return not footprint.refusal and (self.bytes is None or self.need(footprint) <= self.bytes)


def room_at_hand(state_copies: int = 0) -> Room:
    """That of this process's devices: what they say themselves, or for CPUs an equal share of the host's memory."""
    devices = jax.local_devices()
    stats = [device.memory_stats() for device in devices]
    limits = [one["bytes_limit"] for one in stats if one and "bytes_limit" in one]
    if len(limits) == len(devices):
        return Room(
            int(_DEVICE_SHARE * min(limits)),
            f"{_DEVICE_SHARE:.0%} of the device's memory",
            state_copies,
        )
    if devices[0].platform != "cpu":
        return Room(None, "the device does not say how much memory it has", state_copies)
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    each = f" for each of {len(devices)} devices" if len(devices) > 1 else ""
    return Room(
        int(_HOST_SHARE * host / len(devices)),
        f"{_HOST_SHARE:.0%} of the host's memory{each}",
        state_copies,
    )


@dataclasses.dataclass(frozen=True)
class Fit:
    """What a search found.

    Attributes:
      microbatch: the largest that fits; None where not even the smallest does.
      footprints: of all that were compiled, by microbatch.
    """

    microbatch: int | None
    footprints: dict[int, Footprint]


def largest(candidates: Sequence[int], footprint: Callable[[int], Footprint], room: Room) -> Fit:
    """Finds the largest of `candidates` (ascending) whose program fits, with few compilations.

    More microbatch needs more memory, though less than in proportion. So the whole batch is tried first; where it does
    not fit, what it needs says which candidate surely does; and from there the search climbs until one does not.
    """
    tried: dict[int, Footprint] = {}
    fits, too_large = (
        -1,
        len(candidates),
    )  # places: candidates[fits] is known to fit, candidates[too_large] not to
    place = too_large - 1
    while too_large - fits > 1:
        size = candidates[place]
        tried[size] = found = footprint(size)
        if room.holds(found):
            fits, place = place, place + 1
            continue
        too_large = place
        need = room.need(found)
        if room.bytes and need > room.bytes:
            likely = [
                i for i in range(fits + 1, too_large) if candidates[i] * need <= size * room.bytes
            ]
            place = max(likely, default=fits + 1)
        else:  # refused without a number
            place = (fits + 1 + too_large) // 2
        place = max(fits + 1, min(place, too_large - 1))
    return Fit(candidates[fits] if fits >= 0 else None, tried)


def divisors(batch_size: int, shards: int) -> list[int]:
    """Microbatches that a batch divides into and that divide among the devices that rows are split over, ascending."""
    return [size for size in range(shards, batch_size + 1, shards) if batch_size % size == 0]
