"""The loop on a task so small that only the loop is tested: fit w to 3 by gradient descent."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import signal
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tlc_jax import config as configs
from tlc_jax.compression.during_training import DuringTraining
from tlc_jax.compression.recipe import Prune
from tlc_jax.config.durations import Amounts
from tlc_jax.core.errors import StoppedEarly, TrainingFailed
from tlc_jax.core.mesh import Placement
from tlc_jax.training.checkpoint import RETRY_SECONDS, Checkpointer, complete_steps
from tlc_jax.training.loop import Outcome, Task, train
from tlc_jax.training.step import StepMetrics, TrainState

ROWS = 8
REAL_SLEEP = time.sleep
PLACEMENT = Placement.parse("data=-1")


class StepClock:
    """Time that passes only where a test says so: `per_read` seconds at each reading."""

    def __init__(self, per_read: float = 0.0) -> None:
        self.now, self.per_read = 0.0, per_read

    def __call__(self) -> float:
        self.now += self.per_read
        return self.now


def some_rows(index: int) -> np.ndarray:
    return np.random.default_rng(index).normal(3.0, 0.1, ROWS).astype(np.float32)


def make_task(**overrides) -> Task:
    optimizer = optax.adam(0.1)

    def step(state, batch, key, fraction):
        def loss_of(params):
            noise = 0.01 * jax.random.normal(key)
            return jnp.mean((params["final_norm"]["scale"] - batch["x"][:, None] + noise) ** 2)

        loss, gradient = jax.value_and_grad(loss_of)(state.params)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(
            state.params, jax.tree.map(lambda u: u * (1 - fraction), updates)
        )
        return TrainState(params, optimizer_state), StepMetrics(
            loss, loss, optax.tree.norm(gradient)
        )

    defaults = {
        "init": lambda: {"final_norm": {"scale": jnp.zeros(4)}},
        "optimizer": optimizer,
        "step": step,
        "batch": lambda index: PLACEMENT.put_batch({"x": some_rows(index)}),
        "cost": lambda batch: Amounts(
            steps=1, examples=ROWS, tokens=10 * ROWS, epochs=0.1, flops=1e6
        ),
        "evaluate": lambda params, final: {"w": float(params["final_norm"]["scale"][0])},
        "meta": {"kind": "mlm"},
    }
    return Task(**{**defaults, **overrides})


def settings(**sections) -> configs.Config:
    plain = configs.merge(
        configs.to_dict(configs.Config()), {"impl": {"log_seconds": 0.0}}, sections
    )
    return configs.resolve(plain)


@pytest.fixture(scope="module")
def placement():
    return PLACEMENT


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_step_budget_runs_exactly_that_many_steps(tmp_path, placement) -> None:
    outcome = train(make_task(), settings(budget={"steps": 7}), tmp_path, placement)
    assert outcome.numbers["steps"] == 7
    assert outcome.numbers["tokens"] == 7 * 80
    assert outcome.numbers["stopped_by"] == "steps"
    rows = rows_of(tmp_path)
    assert [row["event"] for row in rows][-2:] == ["checkpoint", "stop"]
    for row in rows:
        assert {"step", "event", "train_seconds", "total_seconds", "tokens"} <= row.keys()
    assert {"loss", "learning_rate", "tokens_per_second", "mfu"} <= next(
        r for r in rows if r["event"] == "train"
    ).keys()


def test_the_step_places_host_batches_as_it_would_get_them_placed(tmp_path, placement) -> None:
    tasks = {"placed": make_task()}
    tasks["host"] = make_task(batch=lambda index: placement.for_step({"x": some_rows(index)}))
    assert isinstance(tasks["host"].batch(0)["x"], np.ndarray)
    scales = []
    for name, task in tasks.items():
        outcome = train(task, settings(budget={"steps": 5}), tmp_path / name, placement)
        scales.append(outcome.params["final_norm"]["scale"])
    np.testing.assert_array_equal(*scales)


@pytest.mark.parametrize(
    ("unit", "limit", "steps"),
    [("examples", 5 * ROWS, 5), ("tokens", 1, 1), ("epochs", 0.35, 4), ("flops", 6e6, 6)],
)
def test_every_unit_can_be_the_budget(tmp_path, placement, unit, limit, steps) -> None:
    outcome = train(make_task(), settings(budget={unit: limit}), tmp_path, placement)
    assert outcome.numbers["steps"] == steps
    assert outcome.numbers["stopped_by"] == unit


def test_seconds_overshoot_by_one_step_at_most(tmp_path, placement) -> None:
    clock = StepClock(per_read=0.25)
    outcome = train(make_task(), settings(budget={"seconds": 20.0}), tmp_path, placement, clock)
    seconds = outcome.numbers["seconds"]["train"]
    longest_step = max(
        after["train_seconds"] - before["train_seconds"]
        for before, after in zip(rows_of(tmp_path), rows_of(tmp_path)[1:], strict=False)
    )
    assert outcome.numbers["stopped_by"] == "seconds"
    assert 20.0 <= seconds <= 20.0 + longest_step


def test_compilation_evaluation_and_saving_are_not_charged(tmp_path, placement) -> None:
    clock = StepClock()
    pauses = {"evaluate": 1000.0}

    def evaluate(params, final):
        clock.now += pauses["evaluate"]
        return {}

    def batch(index):
        clock.per_read = 0.01
        return make_task().batch(index)

    configured = settings(budget={"steps": 10}, eval={"every_steps": 5}, impl={"prefetch": 0})
    outcome = train(
        make_task(evaluate=evaluate, batch=batch), configured, tmp_path, placement, clock
    )
    assert outcome.numbers["seconds"]["eval"] >= 3000.0
    assert outcome.numbers["seconds"]["train"] < 10.0


class Crash(BaseException):
    """Simulates kill -9: nothing may be saved on the way out."""


def crashed_and_resumed(
    make: Callable[..., Task], configured, tmp_path, placement, crash_at
) -> tuple[Outcome, Outcome]:
    """Outcomes of a run that crashed before a batch and was resumed, and of an undisturbed run."""
    whole = train(make(), configured, _made(tmp_path / "whole"), placement)

    def failing_batch(index):
        if index == crash_at:
            raise Crash
        return make().batch(index)

    broken = _made(tmp_path / "broken")
    with pytest.raises(Crash):
        train(make(batch=failing_batch), settings_without_prefetch(configured), broken, placement)
    return train(make(), configured, broken, placement), whole


@pytest.mark.parametrize("crash_at", [1, 4, 5, 9])
def test_crashed_run_ends_with_the_same_bits(tmp_path, placement, crash_at) -> None:
    configured = settings(
        budget={"steps": 12}, checkpoint={"every_steps": 4}, eval={"every_steps": 3}
    )
    again, whole = crashed_and_resumed(make_task, configured, tmp_path, placement, crash_at)
    np.testing.assert_array_equal(
        again.params["final_norm"]["scale"], whole.params["final_norm"]["scale"]
    )
    assert again.numbers["steps"] == whole.numbers["steps"] == 12
    assert again.numbers["tokens"] == whole.numbers["tokens"]
    steps = [row["step"] for row in rows_of(tmp_path / "broken") if row["event"] == "eval"]
    assert steps == [3, 6, 9, 12]


def test_resumed_run_ends_with_the_same_noise_scale(tmp_path, placement) -> None:
    plain = make_task().step

    def step(*arguments):
        state, metrics = plain(*arguments)
        share = metrics.loss / (1.0 + metrics.loss)
        return state, metrics._replace(gradient_variance=share * metrics.gradient_norm**2)

    configured = settings(
        budget={"steps": 12}, checkpoint={"every_steps": 4}, eval={"noise_scale": True}
    )
    make = functools.partial(make_task, step=step)
    again, whole = crashed_and_resumed(make, configured, tmp_path, placement, 10)
    values = [row["noise_scale"] for row in rows_of(tmp_path / "broken") if row["event"] == "train"]
    assert again.numbers["noise_scale"] == whole.numbers["noise_scale"] == values[-1]
    assert len(set(values)) == len(values) > 5


def make_gradual_task(**overrides) -> Task:
    """A task whose matrix is gradually pruned to three quarters."""
    params = {"blocks": {"ffn": {"up": {"kernel": jnp.zeros((1, 8, 8))}}}}
    during_training = DuringTraining(gradual=(Prune(0.75, gradual=True),))
    optimizer = optax.chain(optax.adam(0.1), during_training.mask_transform(params))

    def step(state, batch, key, fraction):
        def loss_of(params):
            wanted = jax.random.normal(jax.random.key(0), (1, 8, 8)) + batch["x"][:, None, None]
            return jnp.mean((params["blocks"]["ffn"]["up"]["kernel"] - wanted) ** 2)

        loss, gradient = jax.value_and_grad(loss_of)(state.params)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, optimizer_state), StepMetrics(
            loss, loss, optax.tree.norm(gradient)
        )

    return make_task(
        init=lambda: params,
        optimizer=optimizer,
        step=step,
        evaluate=lambda params, final: {},
        pruning_level=during_training.pruning_level,
        prune_to=lambda state, level: TrainState(
            *during_training.prune_to(state.params, state.optimizer, level)
        ),
        **overrides,
    )


@pytest.mark.parametrize("crash_at", [3, 6, 15, 19])
def test_crashed_run_with_gradual_pruning_ends_with_the_same_bits(
    tmp_path, placement, crash_at
) -> None:
    configured = settings(budget={"steps": 20}, checkpoint={"every_steps": 2})
    again, whole = crashed_and_resumed(make_gradual_task, configured, tmp_path, placement, crash_at)
    kernel, expected = (
        np.asarray(run.params["blocks"]["ffn"]["up"]["kernel"]) for run in (again, whole)
    )
    np.testing.assert_array_equal(kernel, expected)
    assert np.count_nonzero(expected) == 16


def settings_without_prefetch(configured: configs.Config) -> configs.Config:
    return dataclasses.replace(configured, impl=dataclasses.replace(configured.impl, prefetch=0))


def _made(path):
    path.mkdir()
    return path


def test_run_resumed_after_sigterm_ends_with_the_same_bits(tmp_path, placement) -> None:
    configured = settings(budget={"steps": 30})
    whole = train(make_task(), configured, _made(tmp_path / "whole"), placement)

    def batch(index):
        if index == 10:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
        return make_task().batch(index)

    broken = _made(tmp_path / "broken")
    with pytest.raises(StoppedEarly, match="SIGTERM at step .*run the same command again"):
        train(make_task(batch=batch), configured, broken, placement)
    assert rows_of(broken)[-1]["stopped_by"] == "preemption"
    again = train(make_task(), configured, broken, placement)
    np.testing.assert_array_equal(
        again.params["final_norm"]["scale"], whole.params["final_norm"]["scale"]
    )
    assert again.numbers["steps"] == 30


def test_non_finite_loss_stops_and_keeps_last_checkpoint(tmp_path, placement) -> None:
    def batch(index):
        x = make_task().batch(index)
        return {"x": x["x"] * np.nan} if index >= 6 else x

    with pytest.raises(TrainingFailed, match="step 7: loss nan.*checkpoint of step 4 is kept"):
        long = settings(budget={"steps": 20}, checkpoint={"every_steps": 4})
        train(make_task(batch=batch), long, tmp_path, placement)
    outcome = train(make_task(), settings(budget={"steps": 8}), tmp_path, placement)
    assert np.isfinite(outcome.params["final_norm"]["scale"]).all()


def test_seeds_together_train_like_each_alone_and_a_failure_names_its_seed(tmp_path) -> None:
    together = dataclasses.replace(PLACEMENT, over_seeds=True)

    def batch(index, broken_from=99):
        x = np.stack([some_rows(index), some_rows(index)])
        x[1] *= np.nan if index >= broken_from else 1
        return together.put_batch({"x": x})

    def init():
        return {"final_norm": {"scale": jnp.zeros((2, 4))}}

    task = make_task(init=init, batch=batch, seeds=(5, 7), evaluate=lambda params, final: {})
    limits = settings(budget={"steps": 6})
    outcome = train(task, limits, tmp_path / "together", together)
    for index, seed in enumerate(task.seeds):
        alone = settings(budget={"steps": 6}, seed=seed)
        expected = train(make_task(), alone, tmp_path / str(seed), PLACEMENT).params
        scale = outcome.params["final_norm"]["scale"][index]
        np.testing.assert_allclose(scale, expected["final_norm"]["scale"], rtol=1e-6)
        rows = [
            [row for row in rows_of(folder) if row["event"] == "train"][-1]
            for folder in (tmp_path / "together", tmp_path / str(seed))
        ]
        assert rows[0]["seeds"][index]["loss"] == pytest.approx(rows[1]["loss"])
    broken = dataclasses.replace(task, batch=lambda index: batch(index, broken_from=3))
    with pytest.raises(TrainingFailed, match="step 4: seed 7: loss nan"):
        train(broken, limits, tmp_path / "broken", together)


def test_training_ends_when_an_evaluation_reaches_the_target(tmp_path, placement) -> None:
    task = make_task(reached_target=lambda metrics: metrics["w"] > 1.0)
    outcome = train(
        task, settings(budget={"steps": 1000}, eval={"every_steps": 2}), tmp_path, placement
    )
    assert outcome.numbers["stopped_by"] == "target"
    assert outcome.numbers["steps"] < 100
    again = train(
        task, settings(budget={"steps": 1000}, eval={"every_steps": 2}), tmp_path, placement
    )
    assert again.numbers["steps"] == outcome.numbers["steps"]


def test_benchmark_clock_counts_steps_and_is_repeatable(tmp_path, placement) -> None:
    configured = settings(budget={"seconds": 3.0, "clock": "benchmark"})
    (tmp_path / "benchmark.json").write_text('{"seconds_per_step": 0.25}')
    outcome = train(make_task(), configured, tmp_path, placement)
    assert outcome.numbers["steps"] == 12
    # Steps are charged what the benchmark says, whatever the clock says.
    assert outcome.numbers["train_seconds"] == 3.0 and outcome.numbers["seconds"]["train"] != 3.0
    stop = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert stop["event"] == "stop" and stop["train_seconds"] == 3.0
    fresh = _made(tmp_path / "fresh")
    outcome = train(make_task(), configured, fresh, placement, StepClock(per_read=0.05))
    assert outcome.numbers["benchmark"]["measured_by"] == "fresh"
    assert json.loads((fresh / "benchmark.json").read_text())["seconds_per_step"] == pytest.approx(
        0.05
    )


@pytest.mark.parametrize("examples", [0, 4])
def test_the_curve_ends_on_the_rows_of_its_other_points(tmp_path, placement, examples) -> None:
    def evaluate(params, final):
        return {"valid_loss": 1.0 if final or examples == 0 else 2.0}

    evals = {"every_steps": 4, "examples": examples}
    configured = settings(budget={"steps": 6}, eval=evals)
    outcome = train(make_task(evaluate=evaluate), configured, tmp_path, placement)
    points = [(r["step"], r["valid_loss"]) for r in rows_of(tmp_path) if r["event"] == "eval"]
    assert points == [(4, 2.0 if examples else 1.0)]
    assert outcome.numbers["valid_loss"] == 1.0
    # Without a limit the final evaluation is the last point itself.
    assert outcome.numbers.get("curve_end") == ({"valid_loss": 2.0} if examples else None)
    evals["every_steps"] = 3
    again = train(
        make_task(evaluate=evaluate),
        settings(budget={"steps": 6}, eval=evals),
        _made(tmp_path / "again"),
        placement,
    )
    assert "curve_end" not in again.numbers  # the last step has a row already


def test_waiting_for_batches_counts_as_input(tmp_path, placement) -> None:
    def batch(index):
        time.sleep(0.05)
        return make_task().batch(index)

    outcome = train(
        make_task(batch=batch),
        settings(budget={"steps": 12}, impl={"prefetch": 0}),
        tmp_path,
        placement,
    )
    seconds = outcome.numbers["seconds"]
    assert seconds["input"] > 10 * 0.05 * 0.8
    assert seconds["train"] < seconds["input"]


def test_stop_interrupts_an_evaluation_and_the_next_session_repeats_it(tmp_path, placement) -> None:
    configured = settings(budget={"steps": 8}, eval={"every_steps": 4})
    went_on = []

    def evaluate(params, final):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        went_on.append(final)
        return {}

    with pytest.raises(StoppedEarly, match="SIGTERM at step 4"):
        train(make_task(evaluate=evaluate), configured, tmp_path, placement)
    assert went_on == []
    assert not [row for row in rows_of(tmp_path) if row["event"] == "eval"]
    resumed = train(make_task(), configured, tmp_path, placement)
    assert [row["step"] for row in rows_of(tmp_path) if row["event"] == "eval"] == [4, 8]
    whole = train(make_task(), configured, tmp_path / "whole", placement)
    np.testing.assert_array_equal(
        resumed.params["final_norm"]["scale"], whole.params["final_norm"]["scale"]
    )


def test_stop_during_the_last_save_is_not_lost(tmp_path, placement, monkeypatch) -> None:
    configured = settings(budget={"steps": 8})
    whole = train(make_task(), configured, _made(tmp_path / "whole"), placement)
    evaluated = []
    save = Checkpointer.save_and_wait

    def save_and_stop(self, *arguments, **options):
        save(self, *arguments, **options)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

    def evaluate(params, final):
        evaluated.append(final)
        return {}

    broken = _made(tmp_path / "broken")
    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "save_and_wait", save_and_stop)
        with pytest.raises(StoppedEarly, match="SIGTERM at step 8; all is saved"):
            train(make_task(evaluate=evaluate), configured, broken, placement)
    assert evaluated == []
    again = train(make_task(evaluate=evaluate), configured, broken, placement)
    assert evaluated == [True] and again.numbers["stopped_by"] == "steps"
    assert [row["event"] for row in rows_of(broken)].count("stop") == 1
    np.testing.assert_array_equal(
        again.params["final_norm"]["scale"], whole.params["final_norm"]["scale"]
    )


class Mount:
    """The checkpoints folder of a run, which can be replaced by a file and come back."""

    def __init__(self, workdir) -> None:
        self.folder, self.aside = workdir / "checkpoints", workdir / "aside"

    def lose(self) -> None:
        while any(self.folder.glob("*tmp*")):  # a checkpoint is being written
            REAL_SLEEP(0.01)
        self.folder.rename(self.aside)
        self.folder.write_text("")

    def come_back(self) -> None:
        self.folder.unlink()
        self.aside.rename(self.folder)


def test_temporary_storage_failure_costs_a_checkpoint_and_not_the_run(
    tmp_path, placement, caplog
) -> None:
    mount = Mount(tmp_path)

    def batch(index):
        if index == 5:
            mount.lose()
        if index == 9:
            mount.come_back()
        return make_task().batch(index)

    configured = settings(
        budget={"steps": 14}, checkpoint={"every_steps": 2, "keep": 9}, impl={"prefetch": 0}
    )
    outcome = train(make_task(batch=batch), configured, tmp_path, placement)
    assert outcome.steps == 14
    assert "a checkpoint was not written" in caplog.text
    saved = complete_steps(tmp_path / "checkpoints")
    assert {2, 4, 12, 14} <= {*saved} and not {6, 8} & {*saved}
    whole = train(make_task(), settings(budget={"steps": 14}), tmp_path / "whole", placement)
    np.testing.assert_array_equal(
        outcome.params["final_norm"]["scale"], whole.params["final_norm"]["scale"]
    )


def test_the_last_checkpoint_waits_for_storage(tmp_path, placement, monkeypatch, caplog) -> None:
    mount = Mount(tmp_path)
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            mount.come_back()

    monkeypatch.setattr("tlc_jax.training.checkpoint.time.sleep", sleep)

    def batch(index):
        if index == 3:
            mount.lose()
        return make_task().batch(index)

    configured = settings(budget={"steps": 4}, checkpoint={"every_steps": 2}, impl={"prefetch": 0})
    train(make_task(batch=batch), configured, tmp_path, placement)
    assert pauses == [*RETRY_SECONDS[:2]]
    assert "step 4 is not saved" in caplog.text
    assert complete_steps(tmp_path / "checkpoints")[0] == 4


def test_permanent_storage_failure_stops_early_and_keeps_earlier_checkpoints(
    tmp_path, placement, monkeypatch
) -> None:
    mount = Mount(tmp_path)
    monkeypatch.setattr("tlc_jax.training.checkpoint.time.sleep", lambda seconds: None)

    def batch(index):
        if index == 3:
            mount.lose()
        return make_task().batch(index)

    configured = settings(budget={"steps": 4}, checkpoint={"every_steps": 2}, impl={"prefetch": 0})
    with pytest.raises(
        StoppedEarly, match="step 4 could not be saved in .*; what was saved before is whole"
    ):
        train(make_task(batch=batch), configured, tmp_path, placement)
    mount.come_back()
    assert train(make_task(), configured, tmp_path, placement).steps == 4


def traced_steps(workdir) -> list[set[int]]:
    """The numbers of the steps in each trace of a run."""
    found = []
    for path in sorted(workdir.glob("profile/plugins/profile/*/*.xplane.pb")):
        profile = jax.profiler.ProfileData.from_file(str(path))
        lines = [line for plane in profile.planes for line in plane.lines]
        steps = [
            dict(event.stats) for line in lines for event in line.events if event.name == "train"
        ]
        found.append({int(step["step_num"]) for step in steps})
    return found


def test_the_steps_of_impl_profile_are_traced(tmp_path, placement) -> None:
    configured = settings(
        budget={"steps": 7}, checkpoint={"every_steps": 3}, impl={"profile": "2:3"}
    )

    def failing_batch(index):
        if index == 5:
            raise Crash
        return make_task().batch(index)

    with pytest.raises(Crash):
        train(
            make_task(batch=failing_batch),
            settings_without_prefetch(configured),
            tmp_path,
            placement,
        )
    assert traced_steps(tmp_path) == [{2, 3, 4}]
    time.sleep(1.0)  # the profiler names its folders by the second
    outcome = train(make_task(), configured, tmp_path, placement)
    # From the checkpoint of step 3 on; tracing begins between two steps.
    assert traced_steps(tmp_path) == [{2, 3, 4}, {4}]
    assert outcome.numbers["steps"] == 7
    assert outcome.numbers["seconds"]["profile"] > 0


def test_a_run_that_ends_while_it_is_traced_writes_its_trace(tmp_path, placement) -> None:
    configured = settings(budget={"steps": 4}, impl={"profile": "2:100"})
    train(make_task(), configured, tmp_path, placement)
    assert traced_steps(tmp_path) == [{2, 3}]
