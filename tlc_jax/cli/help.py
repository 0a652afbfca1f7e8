"""What `tlc --help` and `tlc STAGE --help` print, read from the table of stages, their docstrings and the settings."""

from __future__ import annotations

import ast
import shutil
import textwrap
from pathlib import Path

from tlc_jax import config as configs
from tlc_jax.commands import COMMANDS, find

_COMMANDS_FOLDER = Path(__file__).parents[1] / "commands"
_NAME_WIDTH = 34


def overview() -> str:
    """The help of `tlc` itself: one line per stage."""
    rows = [f"  {name:<10} {_docstring(name).splitlines()[0]}" for name in COMMANDS]
    return "\n".join(
        [
            "usage: tlc STAGE --config=FILE.py[:ARG] --workdir=DIR [--config.SECTION.NAME=VALUE ...]",
            "",
            "Train large, then compress: which Transformer to train, for how long, and how hard to compress it.",
            "",
            *rows,
            "",
            "`tlc STAGE --help` explains a stage and lists its settings.",
            "Exit status: 0 done; 2 wrong input, said in one line; 75 stopped early with everything saved: run the",
            "same command again; 130 interrupted; 1 anything else.",
        ]
    )


def of_stage(name: str) -> str:
    """The help of one stage: usage, its own text, its flags, and every setting that it reads.

    Raises:
      InputError: no such stage.
    """
    name, stage = find(name)
    config = (
        "--config=FILE.py[:ARG]" if stage.default_config == "none" else "[--config=FILE.py[:ARG]]"
    )
    workdir = "--workdir=DIR" if stage.needs_workdir else "[--workdir=DIR]"
    options = "".join(
        f" [--{option.name}{'' if option.kind is bool else '=...'}]" for option in stage.options
    )
    lines = [
        f"usage: tlc {name} {config} {workdir}{options} [--config.NAME=VALUE ...]",
        "",
        _docstring(name),
        "",
        "Flags",
        _entry("--config=FILE.py[:ARG]", "file whose get_config(ARG) returns the settings"),
        _entry("--workdir=DIR", "directory of the run"),
    ]
    for option in stage.options:
        lines.append(
            _entry(
                f"--{option.name}" if option.kind is bool else f"--{option.name}=...", option.doc
            )
        )
    lines += [
        "",
        "Settings that this stage reads, with their defaults: --config.NAME=VALUE, or in the config file",
    ]
    settings = configs.describe()
    for section in stage.sections:
        for setting, default, doc in settings:
            if setting == section or setting.startswith(f"{section}."):
                lines.append(_entry(f"{setting}={_show(default)}", doc))
    return "\n".join(lines)


def _show(default: object) -> str:
    return "{}" if isinstance(default, dict) else str(default) if default != "" else "''"


def _entry(left: str, doc: str) -> str:
    """A name and its explanation in two columns."""
    indent = " " * (_NAME_WIDTH + 2)
    width = min(120, max(80, shutil.get_terminal_size((100, 24)).columns))
    text = textwrap.wrap(doc, width - len(indent)) or [""]
    head = f"  {left:<{_NAME_WIDTH - 1}} " if len(left) < _NAME_WIDTH else f"  {left}\n{indent}"
    return head + f"\n{indent}".join(text)


def _docstring(name: str) -> str:
    """A stage's docstring, read without importing the stage, which would import JAX."""
    source = (_COMMANDS_FOLDER / f"{name}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""
