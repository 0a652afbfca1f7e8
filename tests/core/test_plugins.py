"""The registry of plug-ins: who is found, when a plug-in is imported, and what is refused."""

from __future__ import annotations

import sys

import pytest

from tests.helpers.plugins import install, isolated
from tlc_jax.core import plugins
from tlc_jax.core.errors import InputError

ADDS = "from tlc_jax.core.plugins import register\nregister('score', '{}', {})\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    with isolated():
        yield tmp_path


def test_a_module_is_named_and_found(folder):
    (folder / "plug_a.py").write_text(ADDS.format("a", 1))
    plugins.load(["plug_a"])
    plugins.load(["plug_a"])  # as the next job of a study does
    assert plugins.find("score", "a", "") == 1
    assert plugins.find("score", "magnitude", "") is None
    assert plugins.used() == {"plug_a": None}


def test_an_installed_plug_in_is_imported_when_a_name_is_not_ours(folder):
    install(folder, "plug-b", "plug_b", ADDS.format("b", 2))
    install(folder, "plug-c", "plug_c", ADDS.format("c", 3))
    plugins.load([])
    assert plugins.find("scheme", "aqt", "") is None
    assert "plug_b" not in sys.modules
    assert plugins.find("score", "b", "") == 2
    assert plugins.used() == {"plug-b": "1.2"}  # and not plug-c, which was imported too


def test_a_broken_plug_in_hurts_nobody_who_does_not_use_it(folder):
    install(folder, "plug-bad", "plug_bad", ADDS.format("half", 0) + "1 / 0\n")
    install(folder, "plug-b", "plug_b", ADDS.format("b", 2))
    assert plugins.find("score", "b", "") == 2
    # What it registered before it failed does not count.
    with pytest.raises(InputError, match="unknown score 'half'.*plug_bad: .*ZeroDivisionError"):
        plugins.find("score", "half", "recipe: ")
    with pytest.raises(InputError, match="^config.plugins=plug_bad: cannot be imported"):
        plugins.load(["plug_bad"])


def test_unknown_names_and_modules(folder):
    (folder / "plug_a.py").write_text(ADDS.format("lamp", 1))
    with pytest.raises(InputError, match="config.plugins=plug_none: no such module: install"):
        plugins.load(["plug_none"])
    plugins.load(["plug_a"])
    with pytest.raises(InputError, match="recipe: unknown score 'lampp'; did you mean lamp?"):
        plugins.find("score", "lampp", "recipe: ")
    with pytest.raises(InputError, match="unknown score 'xy'; known are magnitude, lamp$"):
        plugins.find("score", "xy", "")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (ADDS.format("magnitude", 1), "registers the score 'magnitude', which tlc_jax has already"),
        (ADDS.format("a", 1) + "register('score', 'a', 2)", "'a', which it has already"),
        (ADDS.format("a+b", 1), "write letters"),
        ("from tlc_jax.core.plugins import register\nregister('scroe', 'a', 1)", "mean score"),
    ],
)
def test_a_registration_is_refused(folder, code, says):
    (folder / "plug_a.py").write_text(code)
    with pytest.raises(InputError, match=f"^config.plugins=plug_a: .*{says}"):
        plugins.load(["plug_a"])


def test_two_plug_ins_with_one_name(folder):
    for name in "ab":
        (folder / f"plug_{name}.py").write_text(ADDS.format("same", 1))
    plugins.load(["plug_a"])
    with pytest.raises(InputError, match="plug_a and plug_b both have a score 'same'"):
        plugins.load(["plug_b"])


def test_two_installed_plug_ins_with_one_name(folder):
    for name in "ab":
        install(folder, f"plug-{name}", f"plug_{name}", ADDS.format("same", 1))
    with pytest.raises(InputError, match="both have a score 'same'"):
        plugins.find("score", "same", "")
