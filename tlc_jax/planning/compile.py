"""Compiles training steps ahead of time, for devices that need not be there."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from tlc_jax.core.files import read_json, write_json
from tlc_jax.core.text import one_line
from tlc_jax.runs.saved_model import initializer
from tlc_jax.tasks.base import TaskRun
from tlc_jax.training.optimizer import adamw
from tlc_jax.training.step import abstract_state, jit_step, make_train_step

COMPILATIONS = "compilations"
"""The folder of a workdir that keeps what programs need."""

Describe = Callable[[str], Mapping[str, Any]]
"""Text of a compiled program -> plain JSON values to keep with its footprint."""

_FORMAT = 1  # raise it when `Footprint` or what it is read from changes


@dataclasses.dataclass(frozen=True)
class Footprint:
    """The memory that a compiled program needs on each device, in bytes.

    Attributes:
      arguments: bytes of the state and the batch.
      temporaries: bytes that the program needs while it runs.
      outputs: bytes of results that are not written over arguments.
      refusal: the compiler's message if it refused the program for want of memory. Then
        `temporaries` is the memory that the message asks for (0 if it names none), and the other
        sizes are 0.
      compile_seconds: seconds that compiling took.
      facts: what the compiler's `describe` read from the program's text.
    """

    arguments: int = 0
    temporaries: int = 0
    outputs: int = 0
    refusal: str = ""
    compile_seconds: float = 0.0
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Compiler:
    """Compiles a training step without pruned weights, and remembers what it needs.

    Attributes:
      place: mesh and shardings; the devices need not be there.
      work: the training step before there is data.
      init: () -> parameters of a new run.
      optimizer: optimizer of the step.
      state: shapes, types and shardings of the training state.
      compiled: number of programs that were compiled because the folder did not know them.
    """

    def __init__(self, run: TaskRun, workdir: Path, describe: Describe = lambda text: {}):
        """Prepares, and compiles nothing yet.

        Args:
          run: the training run; its data is not needed, nor are its devices.
          workdir: folder of the run; compilations/ in it keeps a small JSON file for each program.
          describe: reads facts from the text of a compiled program.
        """
        config, self.place, self.work = run.config, run.placement, run.workload()
        self._config = config
        self.init = initializer(run.network, config.seed, None)
        self.optimizer = adamw(config.optimizer, run.network.abstract(), config.model.hidden)
        self.state = abstract_state(self.init, self.optimizer, self.place)
        self._folder, self._describe = workdir / COMPILATIONS, describe
        self.compiled = 0

    def lower(self, microbatch: int) -> jax.stages.Lowered:
        """The program of a step in parts of `microbatch`, before it is compiled."""
        config = self._config.with_microbatch(microbatch)
        step = make_train_step(
            self.work.objective,
            self.optimizer,
            config.microbatches,
            config.impl.dropout_keys,
            by_groups=config.impl.attention != "cudnn",
            noise_scale=config.eval.noise_scale,
        )
        batch = {
            name: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=self.place.by_rows)
            for name, shape in self.work.batch.items()
        }
        index, fraction = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)
        seed = jax.ShapeDtypeStruct((2,), jnp.uint32)
        with jax.set_mesh(self.place.mesh):
            jitted = jit_step(step, self.state, self.place)
            return jitted.lower(self.state, batch, seed, index, fraction, None)

    def footprint(self, microbatch: int) -> Footprint:
        """What the program needs, from the folder if it was compiled before by these versions."""
        lowered = self.lower(microbatch)
        path = self._folder / f"{self._key(lowered.as_text())}.json"
        if path.exists():
            return Footprint(**read_json(path))
        found = self._compile(lowered)
        self.compiled += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, dataclasses.asdict(found))  # several processes may share the folder
        return found

    def _key(self, text: str) -> str:
        """A hash of everything that decides what the compiler makes of a program."""
        mesh = self.place.mesh
        device = mesh.devices.flat[0]
        # The order of the devices decides which links a collective takes.
        order = [getattr(one, "coords", one.id) for one in mesh.devices.flat]
        flags = [os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")]
        about = [_FORMAT, device.device_kind, device.platform, dict(mesh.shape), order]
        about += [compiler_versions(), flags, self.place.compiler_options]
        # How attention of cuDNN is partitioned is a function of JAX, named by its address here.
        text = re.sub(r'(@CustomSPMDPartitioning\(.*backend_config = )"\d+"', r"\1", text)
        return hashlib.sha256(f"{json.dumps(about)}\n{text}".encode()).hexdigest()[:32]

    def _compile(self, lowered: jax.stages.Lowered) -> Footprint:
        started = time.perf_counter()
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            line, seconds = one_line(error), time.perf_counter() - started
            return Footprint(0, _bytes_asked_for(line), 0, line[:400], seconds)
        seconds = time.perf_counter() - started
        memory: Any = compiled.memory_analysis()
        # The donated state is counted among the arguments and among the outputs.
        outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
        sizes = memory.argument_size_in_bytes, memory.temp_size_in_bytes, outputs
        return Footprint(*sizes, "", seconds, self._describe(compiled.as_text() or ""))


def compiler_versions() -> dict[str, str]:
    """The versions of the packages that compile."""
    names = ("jax", "jaxlib", "libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin")
    return {
        name: importlib.metadata.version(name) for name in names if importlib.util.find_spec(name)
    }


def _bytes_asked_for(refusal: str) -> int:
    """The memory that a refused program needs, if the compiler says so; else 0."""
    size = r"([\d.]+)([BKMGT])"
    found = re.search(rf"\({size}\) exceeds available|[Uu]sed {size} of", refusal)
    if not found:
        return 0
    number, unit = filter(None, found.groups())
    return int(float(number) * 1024 ** "BKMGT".index(unit))
