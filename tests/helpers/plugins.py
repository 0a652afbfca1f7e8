"""Plug-ins of a test, which no other test sees."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tlc_jax.core import plugins

EXAMPLES = Path(__file__).parents[2] / "examples"


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Forgets all plug-ins, and afterwards those that were loaded in the with-block."""
    plugins._load_installed.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "_registered", {})
        patch.setattr(plugins, "_used", set())
        for name in _modules():  # imported again, they register again
            patch.delitem(sys.modules, name)
        yield
        for name in _modules():
            del sys.modules[name]
    plugins._load_installed.cache_clear()


def _modules() -> list[str]:
    return [name for name in sys.modules if name == "tlc_lamp" or name.startswith("plug_")]


def install(folder: Path, name: str, module: str, code: str | None = None) -> None:
    """Makes a folder look like site-packages with a package of a plug-in.

    Args:
      folder: the folder, which the caller puts on sys.path.
      name: name of the package.
      module: module that its entry point names.
      code: text of that module; None: it lies elsewhere.
    """
    info = folder / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[tlc_jax.plugins]\n{name} = {module}\n")
    (info / "top_level.txt").write_text(f"{module}\n")
    if code is not None:
        (folder / f"{module}.py").write_text(code)
