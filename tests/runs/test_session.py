"""Where compiled programs are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from tlc_jax import config as configs
from tlc_jax.runs import session

OPTION = "jax_compilation_cache_dir"


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    before = jax.config.values[OPTION]
    yield
    jax.config.update(OPTION, before)


@pytest.mark.parametrize(
    ("setting", "known", "workdir", "expected"),
    [
        ("auto", None, Path("run"), "run/compilations/programs"),
        ("auto", "of/study", Path("run"), "of/study"),
        ("auto", None, None, None),
        ("", None, Path("run"), None),
        ("own", "of/study", Path("run"), "own"),
    ],
)
def test_programs_are_kept_in_the_workdir_of_the_run_or_its_study(
    setting, known, workdir, expected
) -> None:
    jax.config.update(OPTION, known)
    config = configs.resolve({"impl": {"compilation_cache": setting}})
    session.set_up(config, trains=False, workdir=workdir)
    assert jax.config.values[OPTION] == expected
