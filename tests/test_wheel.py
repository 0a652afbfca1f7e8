"""What a user gets who installs a wheel and has no checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytest.importorskip("setuptools", minversion="77")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, because setuptools leaves its files beside the sources."""
    copy, dist = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    unwanted = shutil.ignore_patterns("__pycache__")
    for folder in ("tlc_jax", "configs"):
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=unwanted)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(dist)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True)
    (path,) = dist.glob("tlc_jax-*-py3-none-any.whl")
    return path


def test_a_wheel_has_code_templates_types_and_experiments(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "tlc_jax").rglob("*.py")}
    templates = {f"tlc_jax/report/templates/{name}" for name in ("page.html", "explore.js")}
    experiments = {f"tlc_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    assert code | templates | experiments | {"tlc_jax/py.typed"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"tlc_jax"}


@pytest.mark.slow
def test_an_installed_wheel_trains_away_from_the_checkout(wheel, tmp_path):
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv/bin/python"
    # What we depend on is taken from this environment. Its link to the checkout is not followed.
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps"]
    subprocess.run([*pip, wheel], check=True)

    def tlc(*arguments):
        environment = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
        command = [tmp_path / "venv/bin/tlc", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert "pretrain" in tlc("--help")
    assert "2x64" in tlc("study", "--config=configs/study_instances.py", "--list", "--workdir=runs")
    tlc("pretrain", "--config=configs/tiny.py", "--workdir=run", "--config.budget.steps=2")
    assert (tmp_path / "run/result.json").exists()
