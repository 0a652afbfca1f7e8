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
      InputError: the command is unknown.
    """
    name, spec = find(name)
    config = _CONFIG if spec.default_config == "none" else f"[{_CONFIG}]"
    workdir = _WORKDIR if spec.needs_workdir else f"[{_WORKDIR}]"
    options = [
        (f"--{o.name}" if o.kind is bool else f"--{o.name}=...", o.doc) for o in spec.options
    ]
    usage = [config, workdir, *(f"[{option}]" for option, _ in options)]
    lines = [
        f"usage: tlc {name} {' '.join(usage)} [--config.NAME=VALUE ...]",
        f"\n{_docstring(name)}\n",
        "Flags",
        _entry(_CONFIG, "file whose get_config(ARG) returns the settings"),
        _entry(_WORKDIR, "directory of the run"),
        *(_entry(*option) for option in options),
        "\nSettings that this command reads, with their defaults: --config.NAME=VALUE, or in the "
        "config file",
    ]
    for section in spec.sections:
        for setting in configs.describe():
            if setting.name.partition(".")[0] == section:
                default = str(setting.default) or "''"
                lines.append(_entry(f"{setting.name}={default}", setting.doc))
    return "\n".join(lines)


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
