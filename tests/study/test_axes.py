"""Axes of a study: which jobs they make, and what is refused."""

from __future__ import annotations

import pytest

from tlc_jax import config as configs
from tlc_jax.core.errors import InputError
from tlc_jax.study.jobs import expand

BATCH = {
    "stage": "pretrain",
    "16": {},
    "64": {"optimizer": {"batch_size": 64, "learning_rate": 2e-3}},
}
AGE = {
    "stage": "checkpoint",
    "end": {},
    "10": {"init": {"from": "checkpoints/10"}},
}
RATE = {"stage": "finetune", "usual": {}, "low": {"optimizer": {"learning_rate": 1e-6}}}
STEP = {"stage": "compress", "usual": {}, "half": {"compress": {"step": 0.5}}}


def _jobs(folder, keep=5, **study):
    settings = {
        "budget": {"steps": 20},
        "checkpoint": {"keep_every_steps": keep},
        "optimizer": {"batch_size": 16},
        "study": {
            "sizes": ["1x64"],
            "scratch": ["1x64"],
            "recipes": ["dense", "prune:0.5", "prune:0.5+finetune"],
            "analyses": ["quantize:4"],
            "finetune": {"budget": {"steps": 3}},
            "tasks": {"words": {"data": {"train": "toy:nli:train"}}},
            **study,
        },
    }
    return expand(configs.resolve(settings), folder)


def _done_at(jobs, point, command):
    return [job.name for job in jobs if job.command == command and point in job.points]


def test_the_base_keeps_names_numbers_and_settings(tmp_path):
    before = _jobs(tmp_path)
    after = _jobs(tmp_path, vary={"batch": BATCH, "age": AGE, "rate": RATE, "step": STEP})
    assert len(after) > len(before)
    for old, new in zip(before, after, strict=False):
        assert (old.number, old.name, old.config) == (new.number, new.name, new.config)
        assert "" in new.points
    assert not any("" in job.points for job in after[len(before) :])
    names = [job.name for job in after]
    assert len(set(names)) == len(names)
    assert [job.number for job in after] == list(range(len(after)))


def test_axes_are_crossed_and_jobs_that_are_the_same_run_once(tmp_path):
    jobs = _jobs(tmp_path, vary={"batch": BATCH, "age": AGE}, recipes=["dense"])
    by_name = {job.name: job for job in jobs}
    assert [job.name for job in jobs if job.command == "pretrain"] == [
        "pretrain-1x64-p0",
        "pretrain-1x64-p0-batch=64",
    ]
    assert [job.name for job in jobs if job.command == "finetune"] == [
        "finetune-1x64-p0-words-s0",
        "finetune-1x64-scratch-words-s0",
        "finetune-1x64-p0-words-s0-age=10",
        "finetune-1x64-p0-batch=64-words-s0",
        "finetune-1x64-p0-batch=64-words-s0-age=10",
    ]
    assert [job.name for job in jobs if job.command == "analyze"] == ["analyze-1x64-p0-quantize4"]
    both = by_name["finetune-1x64-p0-batch=64-words-s0-age=10"]
    large = by_name["pretrain-1x64-p0-batch=64"]
    assert both.needs == (large.number,)
    assert both.config.init.source == f"{large.workdir}/checkpoints/10"
    assert both.points == {"batch=64,age=10": {"batch": "64", "age": "10"}}
    assert (large.config.optimizer.batch_size, large.config.optimizer.learning_rate) == (64, 2e-3)
    # Finetuning has settings of its own, and the batch size of pretraining is none of them.
    assert both.config.optimizer == by_name["finetune-1x64-p0-words-s0"].config.optimizer
    last = by_name["compress-1x64-p0-batch=64-words-s0-age=10-dense"]
    assert last.needs == (both.number,) and last.config.init.source == str(both.workdir)
    # From random weights nothing is pretrained, so neither axis concerns it.
    assert by_name["compress-1x64-scratch-words-s0-dense"].points.keys() == {""}


def test_axes_of_finetuning_and_compression(tmp_path):
    jobs = _jobs(tmp_path, vary={"rate": RATE, "step": STEP})
    by_name = {job.name: job for job in jobs}
    assert _done_at(jobs, "rate=low", "finetune") == [
        "finetune-1x64-p0-words-s0-rate=low",
        "finetune-1x64-scratch-words-s0-rate=low",
    ]
    assert _done_at(jobs, "step=half", "finetune") == []
    both = by_name["compress-1x64-p0-words-s0-rate=low-prune0.5-step=half"]
    assert both.config.compress.step == 0.5 and both.config.optimizer.learning_rate == 1e-6
    assert [jobs[needed].name for needed in both.needs] == ["finetune-1x64-p0-words-s0-rate=low"]
    assert by_name["compress-1x64-scratch-words-s0-dense"].points.keys() == {""}
    own = by_name["compress-1x64-p0-words-s0-rate=low-prune0.5+finetune"]
    assert [jobs[needed].name for needed in own.needs] == ["pretrain-1x64-p0"]
    assert own.config.optimizer.learning_rate == 1e-6


def test_a_grid_narrows_what_the_other_values_of_an_axis_run(tmp_path):
    study = {"sizes": ["1x64", "2x64"], "pretrain_seeds": [0, 1], "recipes": ["dense"]}
    trains = {**BATCH, "grid": {"sizes": ["2x64"], "pretrain_seeds": [1], "tasks": []}}
    narrow = {**RATE, "grid": {"pretrain_seeds": [0, 1], "sizes": ["1x64"]}}
    base = [job.name for job in _jobs(tmp_path, **study)]
    names = [job.name for job in _jobs(tmp_path, vary={"batch": trains}, **study)]
    assert names == [*base, "pretrain-2x64-p1-batch=64"]
    jobs = _jobs(tmp_path, vary={"batch": trains, "rate": narrow}, **study)
    # Two axes together run what both grids have: here nothing.
    assert not [job.name for job in jobs if "batch=64" in job.name and "rate=low" in job.name]
    low = [job.name for job in jobs if job.name.startswith("finetune") and "rate=low" in job.name]
    assert low == [
        "finetune-1x64-p0-words-s0-rate=low",
        "finetune-1x64-p1-words-s0-rate=low",
        "finetune-1x64-scratch-words-s0-rate=low",
    ]


def test_an_earlier_checkpoint_is_where_recipes_that_finetune_start(tmp_path):
    jobs = _jobs(tmp_path, vary={"age": AGE})
    (own,) = [job for job in jobs if job.name.endswith("-age=10-prune0.5+finetune")]
    assert own.config.init.source == str(tmp_path / "jobs/pretrain-1x64-p0/checkpoints/10")


def test_two_values_of_one_config_are_one_job_with_both_points(tmp_path):
    same = {**BATCH, "again": {"optimizer": {"batch_size": 16}}}
    jobs = _jobs(tmp_path, vary={"batch": same})
    assert len(jobs) == len(_jobs(tmp_path, vary={"batch": BATCH}))
    (dense,) = [job for job in jobs if job.name == "compress-1x64-p0-words-s0-dense"]
    assert dense.points == {"": {"batch": "16"}, "batch=again": {"batch": "again"}}
    later = _jobs(
        tmp_path, vary={"batch": same, "rate": RATE}, vary_points=["batch=again,rate=low"]
    )
    assert "finetune-1x64-p0-words-s0-rate=low" in {job.name for job in later}


def test_listed_points_replace_the_crossing(tmp_path):
    study = {"vary": {"batch": BATCH, "age": AGE}, "vary_points": ["age=10", "batch=64,age=end"]}
    points = {point for job in _jobs(tmp_path, **study) for point in job.points}
    assert points == {"", "age=10", "batch=64"}


def test_axes_of_translators_and_of_given_encoders(tmp_path):
    steps = {"stage": "translate", "few": {}, "many": {"budget": {"steps": 99}}}
    study = {
        "translators": ["2x64"],
        "translation": {"data": {"train": "files:a.en+a.fr"}, "budget": {"steps": 7}},
        "encoders": ["runs/mlm"],
        "recipes": ["dense"],
        "vary": {"steps": steps, "batch": BATCH, "age": AGE},
        "vary_points": ["steps=many", "batch=64", "age=10"],
    }
    jobs = {job.name: job for job in _jobs(tmp_path, **study)}
    assert jobs["translate-2x64-p0-steps=many"].config.budget.steps == 99
    assert jobs["compress-translator-2x64-p0-steps=many-dense"].points.keys() == {"steps=many"}
    assert jobs["finetune-encoder0-words-s0"].points.keys() == {""}
    assert jobs["finetune-encoder0-words-s0-age=10"].config.init.source == "runs/mlm/checkpoints/10"


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({"vary": {"batch": 3}}, r"study\.vary\.batch=3 must hold a stage"),
        (
            {"vary": {"batch": {"16": {}}}},
            "stage=None: name what the axis changes, one of pretrain",
        ),
        ({"vary": {"batch": {**BATCH, "stage": "train"}}}, "stage='train': name what"),
        (
            {"vary": {"batch": {**BATCH, "8": 8}}},
            r"study\.vary\.batch\.8=8 must be a partial config",
        ),
        ({"vary": {"batch": {"stage": "pretrain", "16": {}}}}, "and the others must; without"),
        ({"vary": {"batch": {**BATCH, "32": {}}}}, "without any are: 16, 32"),
        ({"vary": {"batch": {**BATCH, 8: {}}}}, "value 8: names are words"),
        ({"vary": {"batch": {**BATCH, "a/b": {}}}}, "value 'a/b': names are words"),
        (
            {"vary": {"batch": {**BATCH, "8": {"optimiser": {}}}}},
            "sets optimiser, which is not a setting of stage pretrain; did you mean optimizer",
        ),
        (
            {"vary": {"batch": {**BATCH, "8": {"optimizer": {"batch": 8}}}}},
            "settings of job pretrain-1x64-p0-batch=8: unknown config field optimizer.batch",
        ),
        ({"vary": {"seed": {"stage": "pretrain", "0": {}, "1": {"seed": 1}}}}, "sets seed, which"),
        (
            {"vary": {"width": {"stage": "pretrain", "64": {}, "128": {"model": {"hidden": 128}}}}},
            r"undoes width=128 \(model.hidden: 128 -> 64\)",
        ),
        (
            {
                "vary": {
                    "batch": BATCH,
                    "rate": {**BATCH, "64": {"optimizer": {"learning_rate": 1}}},
                }
            },
            r"settings of job pretrain-.*undoes batch=64 \(optimizer.learning_rate: 0.002 -> 1.0\)",
        ),
        ({"vary": {"batch": BATCH}, "vary_points": ["batch=65"]}, "no 'batch=65'; did you mean"),
        ({"vary_points": ["batch=64"]}, "study.vary has no 'batch=64'"),
        ({"vary": {"batch": {**BATCH, "grid": 3}}}, r"batch\.grid=3 must hold settings of study"),
        (
            {"vary": {"batch": {**BATCH, "grid": {"size": ["1x64"]}}}},
            r"batch\.grid\.size: a grid has no such setting; did you mean sizes\?",
        ),
        (
            {"vary": {"batch": {**BATCH, "grid": {"sizes": ["9x64"]}}}},
            r"grid\.sizes=\['9x64'\] must be a tuple of values of study.sizes, which has 1x64",
        ),
        ({"vary": {"t": {**RATE, "stage": "translate"}}}, "no job that stage translate changes"),
        (
            {"vary": {"age": {**AGE, "7": {"init": {"from": "checkpoints/7"}}}}},
            "pretrain-1x64-p0 does not keep the checkpoint of age=7 ",
        ),
        (
            {"vary": {"age": {**AGE, "30": {"init": {"from": "checkpoints/30"}}}}},
            r"does not keep the checkpoint of age=30 \(budget.steps=20",
        ),
        ({"vary": {"age": AGE}, "keep": 0}, r"does not keep .* checkpoint.keep_every_steps=0\)"),
        ({"vary": {"age": {**AGE, "x": {"init": {"from": "runs/x"}}}}}, "age=x needs init.from="),
        (
            {"vary": {"a": {**BATCH, "stage": "pretrain"}}, "tasks": {"t": {}, "a=64-t": {}}},
            "two jobs have the name finetune-1x64-p0-a=64-t-s0: rename",
        ),
    ],
)
def test_bad_axes_end_in_one_line(tmp_path, study, message):
    with pytest.raises(InputError, match=message) as caught:
        _jobs(tmp_path, **study)
    assert "\n" not in str(caught.value)
