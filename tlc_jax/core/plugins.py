"""Names that other packages add to ours: pruning scores, quantizers, tasks, sources, trackers.

A plug-in is a module that calls `register` while it is imported. A config names it in `plugins`, or
its package declares it in the entry-point group GROUP. Installed ones are imported when a name is
looked up that is not ours: one that is not used costs nothing, and a broken one hurts nobody else.
"""

from __future__ import annotations

import functools
import importlib
import re
import sys
from collections.abc import Iterable
from typing import Any

from tlc_jax.core.errors import InputError
from tlc_jax.core.text import did_you_mean, one_line

GROUP = "tlc_jax.plugins"

OURS = {
    "score": ("magnitude",),
    "scheme": ("aqt", "minmax"),
    "task": ("classifier", "mlm", "encoder", "translator"),
    "source": ("tfds", "files", "toy"),
    "tracker": ("tensorboard", "wandb", "mlflow", "trackio"),
}
"""Kinds of plug-ins, each with the names that the package itself has."""

_registered: dict[tuple[str, str], dict[str, Any]] = {}  # (kind, name) -> module -> value
_used: set[str] = set()  # modules


def register(kind: str, name: str, value: Any) -> None:
    """Adds a name to those of a kind; called by a plug-in while it is imported.

    Args:
      kind: one of OURS.
      name: what recipes and configs say.
      value: what the name stands for; docs/extending.md says what each kind needs.

    Raises:
      InputError: an unknown kind, a name that recipes cannot spell, or one that is ours or that the
        module has registered.
    """
    if kind not in OURS:
        raise InputError(f"unknown kind of plug-in {kind!r}{did_you_mean(kind, OURS)}")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"{kind} {name!r}: write letters, digits, _, - and . in names of plug-ins")
    module = sys._getframe(1).f_globals.get("__name__", "__main__")
    values = _registered.setdefault((kind, name), {})
    if name in OURS[kind] or module in values:
        whose = "tlc_jax" if name in OURS[kind] else "it"
        raise InputError(f"{module} registers the {kind} {name!r}, which {whose} has already")
    values[module] = value


def load(modules: Iterable[str]) -> None:
    """Imports the modules that a config names in `plugins`.

    Raises:
      InputError: one cannot be imported, or two register the same name.
    """
    for module in modules:
        if error := _import(module):
            raise InputError(f"config.plugins={module}: {error}")
        _used.add(module)
    for kind, name in _registered:
        _only(kind, name)


def find(kind: str, name: str, where: str) -> Any:
    """What a plug-in registered under a name; None for a name of ours.

    Args:
      kind: one of OURS.
      name: the name.
      where: begins the message of an error, such as "recipe: ".

    Raises:
      InputError: nobody has the name, or two plug-ins have it.
    """
    if name in OURS[kind]:
        return None
    broken = _load_installed()
    if (kind, name) not in _registered:
        known = (*OURS[kind], *(other for one, other in _registered if one == kind))
        failed = "".join(f"; plug-in {module}: {error}" for module, error in broken.items())
        raise InputError(f"{where}unknown {kind} {name!r}{did_you_mean(name, known)}{failed}")
    module, value = _only(kind, name)
    _used.add(module)
    return value


def used() -> dict[str, str | None]:
    """The packages of plug-ins that this process uses, with their versions.

    A module that no installed package has goes by its own name, without a version.
    """
    if not _used:
        return {}
    from importlib.metadata import packages_distributions, version

    packages = packages_distributions()
    tops = {module.partition(".")[0] for module in _used}
    found = {name: packages.get(name, []) for name in sorted(tops)}
    return {
        one: version(one) if owners else None
        for name, owners in found.items()
        for one in owners or [name]
    }


def _only(kind: str, name: str) -> tuple[str, Any]:
    """The one module that has registered a name, and what it registered."""
    values = _registered[kind, name]
    if len(values) > 1:
        raise InputError(f"plug-ins {' and '.join(values)} both have a {kind} {name!r}: leave one")
    return next(iter(values.items()))


@functools.cache
def _load_installed() -> dict[str, str]:
    """Imports all installed plug-ins; returns those that failed, each with its error."""
    from importlib.metadata import entry_points  # here as above: most commands need no plug-in

    modules = dict.fromkeys(point.module for point in entry_points(group=GROUP))
    return {module: error for module in modules if (error := _import(module))}


def _import(module: str) -> str:
    """Imports a plug-in; returns the error, or "". A plug-in that fails has registered nothing."""
    before = {key: dict(values) for key, values in _registered.items()}
    try:
        importlib.import_module(module)
    except InputError as error:
        what = str(error)
    except Exception as error:  # a plug-in may fail in any way
        what = f"cannot be imported ({type(error).__name__}: {one_line(error)})"
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            what = "no such module: install its package, or put its folder on PYTHONPATH"
    else:
        return ""
    _registered.clear()
    _registered.update(before)
    return what
