"""Training steps compiled ahead of time, for shapes alone and for devices that need not be there."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tlc_jax.config import Config
from tlc_jax.core.files import read_json, write_json
from tlc_jax.core.mesh import Placement
from tlc_jax.core.text import one_line
from tlc_jax.models.network import Network, Params
from tlc_jax.tasks.base import Workload
from tlc_jax.training.optimizer import adamw
from tlc_jax.training.step import TrainStep, abstract_state, jit_step, make_train_step

_FORMAT = 1  # raise it when `Footprint` or what it is read from changes


@dataclasses.dataclass(frozen=True)
class Program:
    """A training step and the shapes that it works on.

    Attributes:
      init: () -> parameters; only their shapes matter.
      optimizer: its `init` makes the optimizer state.
      step: pure.
      batch: shape of each int32 array of a batch, rows first.
      seed: of all that is random.
    """

    init: Callable[[], Params]
    optimizer: optax.GradientTransformation
    step: TrainStep
    batch: Mapping[str, tuple[int, ...]]
    seed: int

    def lower(self, place: Placement) -> jax.stages.Lowered:
        """The program before it is compiled, for devices that need not be there."""
        state = abstract_state(self.init, self.optimizer, place)
        batch = {
            name: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=place.by_rows)
            for name, shape in self.batch.items()
        }
        index, fraction = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)
        with jax.set_mesh(place.mesh):
            return jit_step(self.step, self.seed, state, place).lower(
                state, batch, index, fraction, None
            )


@dataclasses.dataclass(frozen=True)
class Footprint:
    """What a compiled program needs of each device, in bytes.

    Attributes:
      arguments: state and batch.
      temporaries: what it needs while it runs.
      outputs: results that are not written over arguments.
      refusal: what the compiler said where it refused the program for want of memory. `temporaries` is then what it
        said is needed, if it did, and all else 0.
      compile_seconds: what compiling took.
      facts: what `describe` read from the program's text.
    """

    arguments: int = 0
    temporaries: int = 0
    outputs: int = 0
    refusal: str = ""
    compile_seconds: float = 0.0
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def total(self) -> int:
        return self.arguments + self.temporaries + self.outputs


class Compiler:
    """Compiles programs ahead of time and remembers what each needs.

    Attributes:
      compiled: how many programs were compiled, and not found in the folder.
    """

    def __init__(
        self,
        place: Placement,
        folder: Path,
        describe: Callable[[str], Mapping[str, Any]] = lambda text: {},
    ):
        """Args:
        place: the devices; they need not be there.
        folder: keeps a small JSON file for each program.
        describe: the compiled text -> plain JSON values to keep with it.
        """
        self._place, self._folder, self._describe = place, folder, describe
        self.compiled = 0

    def footprint(self, program: Program) -> Footprint:
        """What `program` needs, from the folder where it was compiled before with these versions."""
        lowered = program.lower(self._place)
        path = self._folder / f"{self._key(lowered.as_text())}.json"
        if path.exists():
            return Footprint(**read_json(path))
        found = self._compile(lowered)
        self.compiled += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, dataclasses.asdict(found))  # several processes may share the folder
        return found

    def _key(self, text: str) -> str:
        """A hash of all that decides what the compiler makes of a program."""
        device = self._place.mesh.devices.flat[0]
        shape = dict(self._place.mesh.shape)
        order = [getattr(one, "coords", one.id) for one in self._place.mesh.devices.flat]
        flags = [os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")]
        about = [_FORMAT, device.device_kind, device.platform, shape, order, versions(), flags]
        return hashlib.sha256(f"{json.dumps(about)}\n{text}".encode()).hexdigest()[:32]

    def _compile(self, lowered: jax.stages.Lowered) -> Footprint:
        started = time.perf_counter()
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            line = one_line(error)
            seconds = time.perf_counter() - started
            return Footprint(
                temporaries=_bytes_asked_for(line), refusal=line[:400], compile_seconds=seconds
            )
        seconds = time.perf_counter() - started
        memory: Any = compiled.memory_analysis()
        return Footprint(
            memory.argument_size_in_bytes,
            memory.temp_size_in_bytes,
            memory.output_size_in_bytes - memory.alias_size_in_bytes,
            "",
            seconds,
            self._describe(compiled.as_text() or ""),
        )


def versions() -> dict[str, str]:
    """The versions of what compiles."""
    found = {}
    for name in ("jax", "jaxlib", "libtpu"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _bytes_asked_for(refusal: str) -> int:
    """The memory that a refused program would have needed, where the compiler says so; else 0."""
    unit = {"B": 0, "K": 1, "M": 2, "G": 3, "T": 4}
    found = re.search(
        r"\(([\d.]+)([BKMGT])\) exceeds available|[Uu]sed ([\d.]+)([BKMGT]) of", refusal
    )
    if not found:
        return 0
    size, letter = [part for part in found.groups() if part]
    return int(float(size) * 1024 ** unit[letter])


def program_of(config: Config, network: Network, workload: Workload, microbatch: int) -> Program:
    """The training step of a network without pruned weights, in parts of `microbatch`."""
    optimizer = adamw(config.optimizer, network.abstract(), config.model.hidden)
    parts = config.with_microbatch(microbatch).microbatches
    step = make_train_step(workload.objective, optimizer, parts, config.impl.dropout_keys)
    return Program(
        lambda: network.init(jax.random.key(config.seed)),
        optimizer,
        step,
        workload.batch,
        config.seed,
    )
