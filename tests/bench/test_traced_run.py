"""bench.task=trace sums up the newest trace of a run."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from tlc_jax import config as configs
from tlc_jax.bench import traced_run
from tlc_jax.core.errors import InputError
from tlc_jax.core.mesh import Placement


def config_of(source: str) -> configs.Config:
    return dataclasses.replace(configs.Config(), init=configs.Init(source=source))


def test_a_trace_is_divided_among_its_steps(tmp_path) -> None:
    step = jax.jit(lambda x: jnp.sin(x) @ x)
    x = step(jnp.ones((64, 64))).block_until_ready()
    with jax.profiler.trace(tmp_path / "profile"):
        for index in range(10, 13):
            with jax.profiler.StepTraceAnnotation("train", step_num=index):
                step(x).block_until_ready()
    config = config_of(str(tmp_path))
    traced_run.check(config)
    found = traced_run.measure(config, Placement.parse("data=-1"), with_peers=False)
    assert found["steps"] == 3
    kernels = sum(kind["kernels"] for kind in found["kernels"]["kinds"].values())
    assert kernels == int(kernels) > 0
    assert "3 steps" in traced_run.describe(found)[0]


@pytest.mark.parametrize(
    ("source", "message"), [("", "init.from"), ("missing", "train it with --config.impl.profile")]
)
def test_a_run_without_a_trace_is_refused(source, message) -> None:
    with pytest.raises(InputError, match=message):
        traced_run.check(config_of(source))
