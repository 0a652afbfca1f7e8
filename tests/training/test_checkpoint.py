"""Checkpoints: what comes back, and what happens to damaged ones."""

from __future__ import annotations

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from tlc_jax import config as configs
from tlc_jax.core.errors import InputError, StoppedEarly
from tlc_jax.training.checkpoint import (
    Checkpointer,
    complete_steps,
    read_meta,
    read_params,
    save_params,
)
from tlc_jax.training.step import TrainState, init_state


def state_of(value: float) -> TrainState:
    params = {"final_norm": {"scale": jnp.full(6, value), "bias": jnp.zeros(6)}}
    return init_state(params, optax.adam(0.1))


@pytest.fixture
def checkpointer(tmp_path):
    made = Checkpointer(tmp_path, configs.Checkpoint(keep=3))
    yield made
    made.close()


def save_three(checkpointer) -> None:
    for step in (1, 2, 3):
        checkpointer.save(step, state_of(step), {"kind": "mlm", "step": step})
    checkpointer.wait()


def damage(folder) -> None:
    """Cuts every data file of a checkpoint short, as a full disk or a broken copy does."""
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_state_and_meta_come_back_with_their_types(checkpointer) -> None:
    save_three(checkpointer)
    step, state, meta = checkpointer.restore(jax.eval_shape(lambda: state_of(0.0)))
    assert step == 3
    assert meta == {"kind": "mlm", "step": 3}
    assert jax.tree.structure(state) == jax.tree.structure(state_of(3.0))
    np.testing.assert_array_equal(state.params["final_norm"]["scale"], np.full(6, 3.0))


def test_every_so_many_steps_a_checkpoint_is_kept_for_good(tmp_path) -> None:
    checkpointer = Checkpointer(tmp_path, configs.Checkpoint(keep=2, keep_every_steps=3))
    for step in range(1, 9):
        checkpointer.save(step, state_of(step), {"kind": "mlm"})
    checkpointer.wait()
    checkpointer.close()
    assert complete_steps(checkpointer.directory) == [8, 7, 6, 3]


def test_restore_without_checkpoint_returns_none(checkpointer) -> None:
    assert checkpointer.restore(jax.eval_shape(lambda: state_of(0.0))) is None


@pytest.mark.parametrize("item", ["params", "train", "meta", "."])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(checkpointer, caplog, item) -> None:
    save_three(checkpointer)
    damage(checkpointer.directory / "3" / item)
    step, state, _ = checkpointer.restore(jax.eval_shape(lambda: state_of(0.0)))
    assert step == 2
    np.testing.assert_array_equal(state.params["final_norm"]["scale"], np.full(6, 2.0))
    assert "checkpoint" in caplog.text
    assert "trying the one before" in caplog.text
    checkpointer.save(3, state_of(30.0), {"kind": "mlm"})
    checkpointer.wait()
    assert complete_steps(checkpointer.directory)[0] == 3


def test_where_all_are_damaged_one_line_says_so(checkpointer) -> None:
    save_three(checkpointer)
    for step in (1, 2, 3):
        shutil.rmtree(checkpointer.directory / str(step) / "params")
    with pytest.raises(InputError, match="no checkpoint in .* can be read: delete"):
        checkpointer.restore(jax.eval_shape(lambda: state_of(0.0)))


def test_parameters_alone_are_read_without_the_optimizer(checkpointer) -> None:
    save_three(checkpointer)
    params = read_params(checkpointer.directory, 2, jax.eval_shape(lambda: state_of(0.0).params))
    np.testing.assert_array_equal(params["final_norm"]["scale"], np.full(6, 2.0))
    assert read_meta(checkpointer.directory, 2)["step"] == 2


def test_parameters_of_another_shape_are_refused(tmp_path) -> None:
    save_params(tmp_path, 0, {"final_norm": {"scale": jnp.zeros(6)}}, {})
    with pytest.raises(InputError, match="is not a readable tlc checkpoint"):
        read_params(tmp_path, 0, {"final_norm": {"scale": jax.ShapeDtypeStruct((7,), jnp.float32)}})


def test_a_foreign_folder_is_refused(tmp_path) -> None:
    (tmp_path / "5" / "params").mkdir(parents=True)
    (tmp_path / "5" / "meta").write_text("hello")
    with pytest.raises(InputError, match="is not a readable tlc checkpoint"):
        read_meta(tmp_path, 5)


def test_saved_parameters_replace_those_that_were_there(tmp_path) -> None:
    for value in (1.0, 2.0):
        save_params(tmp_path, 0, {"a": jnp.full(3, value)}, {"value": value})
    assert read_meta(tmp_path, 0) == {"value": 2.0}
    params = read_params(tmp_path, 0, {"a": jax.ShapeDtypeStruct((3,), jnp.float32)})
    np.testing.assert_array_equal(params["a"], np.full(3, 2.0))


def test_a_stop_while_a_checkpoint_is_read_is_not_damage(tmp_path, monkeypatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise StoppedEarly("SIGTERM")

    monkeypatch.setattr(ocp.Checkpointer, "restore", stop)
    with pytest.raises(StoppedEarly):
        read_meta(tmp_path, 3)
