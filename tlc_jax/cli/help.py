"""What `tlc --help` and `tlc COMMAND --help` print."""

from __future__ import annotations

import ast
import shutil
import textwrap
from pathlib import Path

from tlc_jax import config as configs
from tlc_jax.commands import COMMANDS, find

_COMMANDS_FOLDER = Path(__file__).parents[1] / "commands"
_NAME_WIDTH = 34
_CONFIG, _WORKDIR = "--config=FILE.py[:ARG]", "--workdir=DIR"
_OVERVIEW = """\
usage: tlc COMMAND --config=FILE.py[:ARG] --workdir=DIR [--config.SECTION.NAME=VALUE ...]

Train large, then compress: which Transformer to train, for how long, and how hard to compress it.

{commands}

`tlc COMMAND --help` explains a command and lists its settings.
Exit status: 0 done; 2 wrong input, explained in one line; 75 stopped early with everything saved:
run the same command again; 130 interrupted; 1 anything else."""


def overview() -> str:
    """The help of `tlc` itself, with one line per command."""
    rows = [f"  {name:<10} {_docstring(name).splitlines()[0]}" for name in COMMANDS]
    return _OVERVIEW.format(commands="\n".join(rows))


def of_command(name: str) -> str:
    """The help of one command: usage, its docstring, its flags, and every setting that it reads.

    Raises:
      InputError: there is no such command.
    """
    name, spec = find(name)
    options = [
        (f"--{o.name}" if o.kind is bool else f"--{o.name}=...", o.doc) for o in spec.options
    ]
    usage = [
        f"usage: tlc {name}",
        _CONFIG if spec.default_config == "none" else f"[{_CONFIG}]",
        _WORKDIR if spec.needs_workdir else f"[{_WORKDIR}]",
        *(f"[{option}]" for option, _ in options),
        "[--config.NAME=VALUE ...]",
    ]
    flags = [
        (_CONFIG, "file whose get_config(ARG) returns the settings"),
        (_WORKDIR, "directory of the run"),
        *options,
    ]
    settings = [
        (f"{setting.name}={str(setting.default) or repr('')}", setting.doc)
        for section in spec.sections
        for setting in configs.describe()
        if setting.name.partition(".")[0] == section
    ]
    return "\n".join(
        [
            " ".join(usage),
            "",
            _docstring(name),
            "",
            "Flags",
            *(_entry(*flag) for flag in flags),
            "",
            "Settings that this command reads, with their defaults: --config.NAME=VALUE, or in the "
            "config file",
            *(_entry(*setting) for setting in settings),
        ]
    )


def _entry(name: str, doc: str) -> str:
    """A name and its explanation in two columns."""
    indent = " " * (_NAME_WIDTH + 2)
    width = min(120, max(80, shutil.get_terminal_size((100, 24)).columns))
    text = textwrap.fill(doc, width, initial_indent=indent, subsequent_indent=indent)
    # A long name has a line of its own.
    if len(name) >= _NAME_WIDTH:
        return f"  {name}\n{text}"
    return f"  {name:<{_NAME_WIDTH}}{text.lstrip()}"


def _docstring(name: str) -> str:
    """A command's docstring, from its source: to import the command would import JAX."""
    source = (_COMMANDS_FOLDER / f"{name}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""
