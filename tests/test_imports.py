"""The layout: imports run one way between rooms, and every file is found by one guess."""

from __future__ import annotations

import ast
import collections
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "tlc_jax"

# From top to bottom. A room imports rooms of lower levels alone; rooms of one level know nothing
# of each other.
LEVELS = (
    ("__main__", "configs"),  # configs is a link to the experiments, which no room imports
    ("cli",),
    ("__init__",),
    ("api",),
    ("commands",),
    ("study", "report", "bench", "planning"),
    ("tasks",),
    ("runs",),
    ("interop",),
    ("compression", "decoding", "statistics"),
    ("training",),
    ("models", "data"),
    ("synthetic",),
    ("config",),
    ("core",),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, room) of every import of ours in a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "tlc_jax":
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in LEVEL)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tlc_jax."):
            yield node.lineno, str(node.module).split(".")[1]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("tlc_jax."):
                    yield node.lineno, alias.name.split(".")[1]


def test_imports_run_one_way():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        own = room_of(path)
        for line, other in imported(path):
            if own != other and LEVEL[other] <= LEVEL[own]:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line}: {own} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_every_folder_is_a_room_with_a_level():
    rooms = {path.parent.name for path in PACKAGE.glob("*/*.py")}
    rooms |= {path.stem for path in PACKAGE.glob("*.py")}
    assert rooms <= set(LEVEL)


def test_file_names_are_unique():
    counts = collections.Counter(
        path.name for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"
    )
    assert [name for name, count in counts.items() if count > 1] == []


def test_no_file_is_longer_than_a_sitting():
    lengths = {path: path.read_text("utf-8").count("\n") for path in PACKAGE.rglob("*.py")}
    assert {str(path): lines for path, lines in lengths.items() if lines > 450} == {}


def test_finetune_imports_few_modules_of_ours():
    code = (
        "import sys, tlc_jax.cli.main, tlc_jax.cli.flags, tlc_jax.commands.finetune as _;"
        "print(sum(name.split('.')[0] == 'tlc_jax' for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 52
