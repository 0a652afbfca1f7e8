"""A workdir holds one config and serves one process at a time."""

import json
import subprocess
import sys

import pytest

from tlc_jax import config
from tlc_jax.core.errors import InputError
from tlc_jax.runs.workdir import claim, read_config

CONFIG = config.resolve({"model": {"layers": 2}})


def changed(**sections):
    return config.resolve(config.merge(config.to_dict(CONFIG), sections))


def test_a_claim_writes_a_config_that_resolves_to_itself(tmp_path):
    workdir = tmp_path / "a" / "b"
    with claim(workdir, CONFIG):
        assert config.resolve(json.loads((workdir / "config.json").read_text())) == CONFIG
        assert read_config(workdir / "config.json") == CONFIG


def test_the_same_config_may_come_again(tmp_path):
    claim(tmp_path, CONFIG).close()
    before = (tmp_path / "config.json").stat()
    claim(tmp_path, CONFIG).close()
    assert (tmp_path / "config.json").stat().st_ino == before.st_ino


def test_another_config_is_refused_with_the_fields_that_differ(tmp_path):
    claim(tmp_path, CONFIG).close()
    other = changed(model={"layers": 3}, optimizer={"learning_rate": 1.0}, impl={"prefetch": 9})
    with pytest.raises(
        InputError, match=r"model.layers: 2 -> 3; optimizer.learning_rate: 0.0005 -> 1.0\)"
    ) as refused:
        claim(tmp_path, other)
    assert "impl" not in str(refused.value)
    assert read_config(tmp_path / "config.json") == CONFIG
    claim(tmp_path, CONFIG).close()  # the refusal let go of the lock


def test_implementation_may_change_and_is_recorded(tmp_path):
    claim(tmp_path, CONFIG).close()
    # A study that an older version began has no folder of step times.
    budget = {"benchmarks": "runs/study/benchmarks"}
    other = changed(impl={"prefetch": 9}, checkpoint={"keep": 5}, budget=budget)
    claim(tmp_path, other).close()
    assert read_config(tmp_path / "config.json") == other


def test_ignore_takes_single_settings(tmp_path):
    claim(tmp_path, CONFIG).close()
    other = changed(study={"megabytes": [1.0], "sizes": ["2x64"]})
    with pytest.raises(InputError, match="study.sizes") as refused:
        claim(tmp_path, other, ignore=("study.megabytes",))
    assert "megabytes" not in str(refused.value)


def test_two_processes_never_share_a_workdir(tmp_path):
    with claim(tmp_path, CONFIG), pytest.raises(InputError, match="in use by another process"):
        claim(tmp_path, CONFIG)
    claim(tmp_path, CONFIG).close()


def test_the_lock_goes_with_its_process(tmp_path):
    code = (
        "import pathlib, sys; from tlc_jax.runs.workdir import claim; "
        "from tlc_jax.config import Config; lock = claim(pathlib.Path(sys.argv[1]), Config()); "
        "print('claimed', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout.readline() == "claimed\n"
        with pytest.raises(InputError, match=rf"in use by another process \({holder.pid}\)"):
            claim(tmp_path, config.Config())
        holder.kill()
    claim(tmp_path, config.Config()).close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model": {"lay', "is not JSON, perhaps cut short"),
        ('{"modle": {}}', "is not a config of this version of tlc_jax"),
        ("[]", "is not a config"),
    ],
)
def test_a_foreign_config_json_is_refused(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=message):
        claim(tmp_path, CONFIG)


def test_file_is_refused_as_workdir(tmp_path):
    (tmp_path / "w").write_text("")
    with pytest.raises(InputError, match="is a file"):
        claim(tmp_path / "w", CONFIG)
