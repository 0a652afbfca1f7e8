"""The search for the largest microbatch, on made-up programs."""

from __future__ import annotations

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlc_jax.core.errors import InputError
from tlc_jax.planning import fit as fitting
from tlc_jax.planning.compile import Footprint, _bytes_asked_for
from tlc_jax.planning.fit import MemoryLimit, largest, memory_at_hand
from tlc_jax.tasks.base import microbatches

SIZES = [8 * 2**i for i in range(11)]  # 8 to 8192


@given(
    st.integers(0, 10_000),
    st.integers(1, 100),
    st.integers(1, 200_000),
    st.booleans(),
    st.booleans(),
)
def test_the_largest_that_fits_is_found(fixed, each, room, refuses, tells) -> None:
    def footprint(size: int) -> Footprint:
        need = fixed + each * size
        if refuses and need > room:
            return Footprint(temporaries=need if tells else 0, refusal="too large")
        return Footprint(fixed, each * size)

    microbatch, footprints = largest(SIZES, footprint, MemoryLimit(room, "made up"))
    assert microbatch == max((size for size in SIZES if fixed + each * size <= room), default=None)
    # Each size at most once, and of those that fit only what was needed to be sure.
    if microbatch not in (None, SIZES[-1]):
        assert footprints[microbatch * 2]
    if fixed == 0 and tells:
        assert len(footprints) <= 3


def test_without_a_known_limit_the_compiler_decides() -> None:
    microbatch, _ = largest(
        SIZES,
        lambda size: Footprint(refusal="no" if size > 100 else ""),
        MemoryLimit(None, "unknown"),
    )
    assert microbatch == 64


def test_a_copy_of_the_state_needs_room() -> None:
    assert MemoryLimit(100, "made up").holds(Footprint(40, 50))
    assert not MemoryLimit(100, "made up", state_copies=1).holds(Footprint(40, 50))


def test_microbatches_divide_the_batch_and_among_devices() -> None:
    assert microbatches(48, [48], 4) == [4, 8, 12, 16, 24, 48]
    with pytest.raises(InputError, match="a batch of 48 rows does not divide among 5 devices"):
        microbatches(48, [48], 5)


@pytest.mark.parametrize(
    ("refusal", "gib"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (106.12G) exceeds available HBM (15.75G).",
            106.12,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.25G of 15.75G hbm.",
            17.25,
        ),
        ("RESOURCE_EXHAUSTED: no number", 0.0),
    ],
)
def test_the_compilers_refusals_are_read(refusal, gib) -> None:
    assert _bytes_asked_for(refusal) == int(gib * 2**30)


def test_the_devices_here_share_the_hosts_memory(monkeypatch) -> None:
    monkeypatch.setattr(
        fitting.os, "sysconf", lambda name: {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}[name]
    )
    assert memory_at_hand().bytes == int(0.8 * 4096000 / jax.device_count())
