"""Settings: declared once, resolved once, wrong ones refused with a hint."""

import dataclasses
import json
import typing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlc_jax import config as configs
from tlc_jax.config.resolve import (
    load_file,
    require_budget,
    require_own_architecture,
    require_translator,
)
from tlc_jax.core.errors import InputError
from tlc_jax.core.text import note_once

FOLDER = Path(__file__).parents[2] / "configs"
# Every file with its default argument, and the sizes or parts that take another path through it.
CASES = [
    *sorted(path.name for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "common")),
    "mlm.py:12x1536",
    "study_mnli.py:depths",
]


@pytest.mark.parametrize("case", CASES)
def test_golden_configs(case, golden, monkeypatch):
    """Shows a change of an experiment's settings in review: `pytest --update-golden` accepts it."""
    monkeypatch.chdir(FOLDER.parent)
    resolved = json.loads(
        json.dumps(configs.to_dict(configs.resolve(load_file(f"configs/{case}"))))
    )
    stored = golden(f"configs/{case.replace('.py', '').replace(':', '-')}.json", resolved)
    assert configs.differences(stored, resolved) == []


def test_experiments_are_found_away_from_the_checkout(monkeypatch, tmp_path):
    expected = load_file(f"{FOLDER}/study_instances.py")  # it imports its neighbors
    monkeypatch.chdir(tmp_path)
    assert load_file("configs/study_instances.py") == expected
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/tiny.py").write_text("def get_config(): return 3")
    with pytest.raises(InputError, match="get_config of configs/tiny.py must return a ConfigDict"):
        load_file("configs/tiny.py")  # the user's own comes first


def test_every_setting_is_documented():
    names = [setting.name for setting in configs.describe()]
    assert all(setting.doc for setting in configs.describe())
    assert len(set(names)) == len(names)
    assert {"seed", "init.from", "model.layers", "study.tasks", "budget.seconds"} <= set(names)


def test_a_resolved_config_survives_json():
    settings = configs.default_config()
    settings.study.tasks = {"mnli": {"data": {"train": "toy:pairs"}}}
    settings.study.sizes = ("2x64",)
    config = configs.resolve(settings)
    assert configs.resolve(json.loads(json.dumps(configs.to_dict(config)))) == config


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        configs.Config().model.layers = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modle": {}}, r"unknown config field modle; did you mean model\?"),
        ({"model": {"layrs": 3}}, r"unknown config field model.layrs; did you mean model.layers\?"),
        ({"init": {"source": "x"}}, r"unknown config field init.source; did you mean init.from"),
        ({"model": 3}, "config.model is a section"),
        ({"model": {"layers": "3"}}, "config.model.layers='3' must be of type int"),
        ({"model": {"layers": 3.0}}, "config.model.layers=3.0 must be of type int"),
        ({"model": {"layers": True}}, "config.model.layers=True must be of type int"),
        ({"budget": {"seconds": True}}, "config.budget.seconds=True must be of type float"),
        ({"impl": {"remat": 1}}, "config.impl.remat=1 must be of type bool"),
        ({"study": {"sizes": "2x64"}}, "config.study.sizes='2x64' must be a tuple"),
        ({"study": {"seeds": ["0"]}}, "config.study.seeds='0' must be of type int"),
        ({"study": {"sizes": ["2by64"]}}, "size '2by64' is not LAYERSxHIDDEN"),
        (
            {"model": {"share": "some"}},
            "config.model.share='some' must be one of none, attention, all",
        ),
        ({"model": {"hidden": 100}}, "not a multiple of the head size 64"),
        ({"model": {"hidden": 100, "heads": 3}}, "not divisible by model.heads=3"),
        ({"model": {"hidden": 128, "head_size": 48}}, "not a multiple of the head size 48"),
        ({"model": {"head_size": -1}}, "model.head_size=-1 must be >= 0"),
        ({"model": {"norm": "mid"}}, "must be one of pre, post"),
        ({"model": {"token_types": 3}}, "model.token_types=3 must be one of 0, 1, 2"),
        ({"model": {"norm": "post"}, "study": {"translators": ["2x64"]}}, "leave model.norm=pre"),
        ({"model": {"layers": 0}}, "model.layers=0 must be >= 1"),
        ({"data": {"length": 256}}, "beyond the model's positions"),
        ({"impl": {"microbatch": "some"}}, "write a number or auto"),
        ({"impl": {"microbatch": -1}}, "impl.microbatch=-1 must be >= 0"),
        ({"eval": {"latency": [1, 0]}}, "eval.latency=.1, 0. must be >= 1"),
        ({"analyze": {"parts": ["eror"]}}, "must be one of error, sensitivity, convergence"),
        ({"eval": {"keep_predictions": True}}, "set eval.every_steps"),
        ({"decode": {"nbest": 5}}, "decode.nbest=5 is more than decode.beams=4"),
        ({"seeds": (3, 1, 3)}, r"seeds=\(3, 1, 3\) names a seed twice"),
        ({"model": {"dropout": float("nan")}}, "must be >= 0 and < 1"),
        ({"budget": {"steps": -1}}, "budget.steps=-1 must be >= 0"),
        ({"optimizer": {"warmup": 1.5}}, "optimizer.warmup=1.5 must be >= 0 and <= 1"),
        ({"data": {"subsample": 0.0}}, "data.subsample"),
        ({"objective": {"mask_token": 0.95, "random_token": 0.1}}, "at most 1"),
        ({"compress": {"step": 0.0}}, "compress.step"),
        ({"checkpoint": {"keep": 0}}, "checkpoint.keep"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message) as refused:
        configs.resolve(settings)
    assert "\n" not in str(refused.value)


def test_budget_is_required_where_asked_for(capsys):
    with pytest.raises(
        InputError, match="no budget: set at least one of budget.seconds, budget.steps"
    ):
        require_budget(configs.Config())
    require_budget(configs.resolve({"budget": {"epochs": 1}}))
    note_once.cache_clear()
    require_budget(configs.resolve({"budget": {"steps": 5, "clock": "benchmark"}}))
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(InputError, match="leave budget.charge=training"):
        require_budget(
            configs.resolve({"budget": {"seconds": 5.0, "clock": "benchmark", "charge": "total"}})
        )


def test_translators_and_peers_refuse_what_is_not_written_for_them():
    for settings in ({"norm": "post"}, {"token_types": 2}, {"padding": 1}):
        with pytest.raises(InputError, match="translator"):
            require_translator(configs.resolve({"model": settings}))
    for settings in ({"activation": "relu"}, {"head_size": 32}):
        require_translator(configs.resolve({"model": settings}))
        with pytest.raises(InputError, match="--peers compares"):
            require_own_architecture(configs.resolve({"model": settings}))


def test_widths_that_are_left_open_follow_from_the_others():
    def widths(**settings):
        model = configs.Model(hidden=384, **settings).filled()
        return model.heads, model.head_size, model.ffn

    assert widths() == (6, 64, 1536)
    assert widths(heads=12, ffn=100) == (12, 32, 100)
    assert widths(head_size=32) == (12, 32, 1536)
    assert widths(heads=5, head_size=32) == (5, 32, 1536)


def test_a_misspelt_name_in_a_config_file_is_refused_by_the_lock():
    with pytest.raises(AttributeError):
        configs.default_config().model.layrs = 3


SETTINGS = st.recursive(
    st.integers(0, 3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
).filter(lambda tree: isinstance(tree, dict))


@given(SETTINGS, SETTINGS)
def test_merge_lays_later_settings_over_earlier_ones(base, partial):
    merged = configs.merge(base, partial)
    assert configs.merge(merged, partial) == merged
    assert set(merged) == {*base, *partial}
    for name, value in partial.items():
        if not isinstance(value, dict) or not isinstance(base.get(name), dict):
            assert merged[name] == value


@given(SETTINGS, SETTINGS)
def test_differences_are_none_only_for_equals(old, new):
    assert (configs.differences(old, new) == []) == (old == new)


def test_differences_name_the_field_and_both_values():
    old = configs.to_dict(configs.Config())
    new = configs.merge(old, {"model": {"layers": 6}, "study": {"seeds": [0]}})
    assert configs.differences(old, new) == ["model.layers: 12 -> 6"]


def test_hints_are_types_that_resolve_knows():
    """A setting of another type needs a conversion in `resolve._convert` first."""
    allowed = {int, float, str, bool}

    def visit(cls: type) -> None:
        for name, hint in typing.get_type_hints(cls).items():
            if dataclasses.is_dataclass(hint):
                visit(hint)
            elif typing.get_origin(hint) is tuple:
                assert typing.get_args(hint)[0] in allowed, name
            else:
                assert hint in allowed or typing.get_origin(hint) is not None, name

    visit(configs.Config)


@pytest.mark.parametrize(
    ("microbatch", "used"), [(0, 24), (256, 24), (24, 24), (10, 8), (7, 6), (1, 1)]
)
def test_microbatch_is_the_largest_divisor_up_to_the_setting(microbatch, used):
    settings = {"optimizer": {"batch_size": 24}, "impl": {"microbatch": microbatch}}
    config = configs.resolve(settings)
    assert (config.microbatch, config.microbatches) == (used, 24 // used)


def test_old_name_of_a_section_is_read_with_one_line(capsys):
    note_once.cache_clear()
    settings = configs.default_config()
    settings.analyse.parts = ("error",)
    assert configs.resolve(settings).analyze.parts == ("error",)
    assert configs.resolve({"analyse": {"parts": ["error"]}}).analyze.parts == ("error",)
    assert capsys.readouterr().err == "tlc: note: analyse is now called analyze; use that name\n"
