"""Plug-ins in commands: the package in examples/ in a study, and each kind from the outside."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from tests.commands.conftest import finetune_arguments, pretrain_arguments, result_of, tlc
from tests.commands.test_study import study_settings, write_config
from tests.helpers.plugins import EXAMPLES, install, isolated
from tlc_jax.compression.artifact import ARTIFACT, load_artifact
from tlc_jax.config import resolve
from tlc_jax.core import plugins
from tlc_jax.core.params import flatten
from tlc_jax.study.jobs import expand

OTHERS = '''
import numpy as np

from tlc_jax.compression.artifact import QuantizedTensor
from tlc_jax.core.plugins import register


def power_of_two(path, weights, how, kept):
    """Symmetric, and the scale of each matrix is a power of two."""
    w, half = np.asarray(weights), 2 ** (how.bits - 1) - 1
    largest = np.abs(w).max((-2, -1), keepdims=True)
    scale = np.exp2(np.ceil(np.log2(largest / half))).astype(np.float32)
    return QuantizedTensor(np.rint(w / scale).astype(np.int8), scale, None, how.bits)


class Numbers:
    """A source of sentences that are numbers."""

    def __init__(self, location, data):
        self._count = int(location)

    def check(self):
        pass

    def fingerprint(self):
        return f"numbers {self._count}"

    def size_hint(self):
        return 0

    def lines(self):
        for number in range(self._count):
            yield from ("the number " + " ".join(str(number)), "")


register("scheme", "power_of_two", power_of_two)
register("source", "numbers", Numbers)
register("scheme", "too_wide", lambda path, w, how, kept: QuantizedTensor(
    np.full(w.shape, 100, np.int8), np.ones((1, 1), np.float32), None, how.bits))
register("score", "short", lambda path, w: w[..., :1])
register("score", "nan", lambda path, w: w / w * np.nan)
register("score", "signed", lambda path, w: w)
'''


@pytest.fixture(autouse=True)
def plug_ins(tmp_path, monkeypatch):
    """`tlc_lamp` and `plug_others` can be imported, as after pip install or on PYTHONPATH."""
    monkeypatch.syspath_prepend(EXAMPLES / "tlc_lamp")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "plug_others.py").write_text(OTHERS)
    with isolated():
        yield


def test_lamp_is_its_definition():
    from tlc_lamp import lamp

    weights_LxIxO = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    found = lamp("blocks/kernel", weights_LxIxO)
    for layer, matrix in enumerate(np.square(weights_LxIxO)):
        wanted = [[one / matrix[matrix >= one].sum() for one in row] for row in matrix]
        np.testing.assert_allclose(found[layer], wanted, rtol=1e-5)


def test_a_study_prunes_by_the_score_of_an_installed_package(world, pretrained, tmp_path):
    install(tmp_path, "tlc-lamp", "tlc_lamp")
    recipes = ["prune:0.9", "prune:0.9,score=lamp"]
    grid = {"sizes": [], "scratch": [], "encoders": [str(pretrained)], "recipes": recipes}
    settings = study_settings(world, **grid)
    settings["impl"]["trackers"] = ["csv"]
    settings["compress"] = {"recover": 0.0}
    arguments = (write_config(tmp_path / "study.py", settings), f"--workdir={tmp_path / 'study'}")
    assert tlc("study", *arguments) == 0
    rows = map(json.loads, (tmp_path / "study" / "results.jsonl").read_text().splitlines())
    by_recipe = {row["recipe"]: row for row in rows}
    assert list(by_recipe) == recipes
    jobs = [next((tmp_path / "study").glob(f"jobs/*{end}")) for end in ("prune0.9", "scorelamp")]
    by_magnitude, by_lamp = (flatten(load_artifact(job / ARTIFACT).params) for job in jobs)
    zeros = [sum(np.sum(w == 0) for w in one.values()) for one in (by_magnitude, by_lamp)]
    assert zeros[0] == zeros[1]
    assert any(((by_magnitude[path] == 0) != (w == 0)).any() for path, w in by_lamp.items())
    # A result says by which version of the plug-in; the tracker of the package ran, too.
    assert result_of(jobs[1])["plugins"] == {"tlc-lamp": "1.2"}
    (table,) = (tmp_path / "study").glob("jobs/finetune*/metrics.csv")
    assert "train/loss" in {row[1] for row in csv.reader(table.read_text().splitlines())}


def test_every_job_of_a_study_has_its_plug_ins(world, tmp_path):
    settings = study_settings(world, translators=["1x64"], analyses=["prune:0.5,score=lamp"])
    settings["plugins"] = ["tlc_lamp"]
    plugins.load(["tlc_lamp"])
    jobs = expand(resolve(settings), tmp_path)
    assert {job.command for job in jobs} == {
        "pretrain",
        "finetune",
        "compress",
        "translate",
        "analyze",
    }
    assert {job.config.plugins for job in jobs} == {("tlc_lamp",)}


def test_the_config_of_a_run_carries_its_plug_ins(world, finetuned, tmp_path):
    flags = [
        "--config.plugins=tlc_lamp",
        "--config.plugins=plug_others",
        "--config.compress.recover=0",
    ]
    flags += [f"--config.init.from={finetuned}"]
    recipe = "--config.recipe=prune:0.6,score=lamp+quantize:4,scheme=power_of_two"
    run = tmp_path / "run"
    assert tlc(*finetune_arguments("compress", world, run, recipe, *flags)) == 0
    result = result_of(run)
    assert result["plugins"] == {"plug_others": None, "tlc_lamp": None}
    assert json.loads((run / "config.json").read_text())["plugins"] == ["tlc_lamp", "plug_others"]
    packed = load_artifact(run / ARTIFACT)
    scales = np.concatenate([one.scale.ravel() for one in packed.quantized.values()])
    assert (np.frexp(scales)[0] == 0.5).all()
    with isolated():  # another process, which reads the plug-ins' names in the run's config
        assert tlc("evaluate", f"--init={run}", f"--workdir={tmp_path / 'evaluated'}") == 0
        again = result_of(tmp_path / "evaluated")
    assert again["accuracy"] == result["accuracy"]
    assert again["bytes_artifact"] == result["bytes_artifact"]


def test_a_model_is_read_without_the_plug_in_that_made_it(refused, compressed, tmp_path):
    path = compressed / "config.json"
    before = path.read_text()
    try:
        config = json.loads(before)
        config |= {"recipe": "prune:0.75,score=gone", "plugins": ["plug_gone"]}
        config["impl"]["trackers"] = ["gone"]
        path.write_text(json.dumps(config))
        arguments = ("evaluate", f"--init={compressed}", f"--workdir={tmp_path / 'evaluated'}")
        assert "plug_gone: no such module" in refused(*arguments)
        assert tlc(*arguments, "--config.plugins=()") == 0
    finally:
        path.write_text(before)


def test_a_source_of_a_plug_in(world, tmp_path):
    sources = ["--config.data.train=numbers:300", "--config.data.valid=numbers:40"]
    sources += ["--config.tokenizer.vocab_size=280"]
    flags = ["--config.plugins=plug_others", f"--config.data.cache={tmp_path}/cache", *sources]
    assert tlc(*pretrain_arguments(world, tmp_path / "run", *flags)) == 0
    assert result_of(tmp_path / "run")["plugins"] == {"plug_others": None}


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--config.plugins=tlc_lmap", "config.plugins=tlc_lmap: no such module"),
        ("--config.recipe=prune:0.5,score=lmap", "unknown score 'lmap'; did you mean lamp?"),
        ("--config.recipe=quantize:4,scheme=aqtt", "unknown scheme 'aqtt'; did you mean aqt?"),
        ("--config.recipe=quantize:4,scheme=power_of_two,aware=true+finetune", "aware=true"),
        ("--config.recipe=prune:0.5,score=short", "and its scores (1, 64, 1)"),
        ("--config.recipe=prune:0.5,score=nan", "negative, infinite or NaN"),
        ("--config.recipe=prune:0.5,score=signed", "negative, infinite or NaN"),
        ("--config.recipe=quantize:4,scheme=too_wide", "codes beyond -7 to 7"),
        ("--config.impl.trackers=cvs", "unknown tracker 'cvs'; did you mean csv?"),
        ("--config.data.valid=numers:3", "unknown source 'numers'; did you mean numbers?"),
    ],
)
def test_refusals(refused, world, finetuned, tmp_path, flag, says):
    more = ["--config.plugins=tlc_lamp", "--config.plugins=plug_others"]
    more += [f"--config.init.from={finetuned}", "--config.compress.recover=0", flag]
    assert says in refused(*finetune_arguments("compress", world, tmp_path / "run", *more))
    # Only what a plug-in returns is looked at once it has been called.
    late = says.startswith(("and its scores", "negative", "codes"))
    assert (tmp_path / "run").exists() == late
