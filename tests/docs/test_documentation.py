"""README and docs: commands parse, marked blocks run, links resolve, and the README stays short."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tlc_jax.cli import flags
from tlc_jax.core.errors import InputError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "launch" / "README.md"]
BLOCK = re.compile(r"(<!-- runnable -->\n)?```(\w*)\n(.*?)```", re.DOTALL)
NEEDS_FILES = ("no config.json in or above", "does not exist", "cannot read config file")


def blocks(page: Path, runnable: bool = False) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for mark, _, text in found if mark or not runnable]


def commands(page: Path) -> list[list[str]]:
    """Arguments of every `tlc` command in the code blocks of a page."""
    lines = "\n".join(blocks(page)).replace("\\\n", " ").splitlines()
    starts = [line.strip() for line in lines if line.strip().startswith("tlc ")]
    return [shlex.split(line, comments=True)[1:] for line in starts]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for arguments in commands(page):
        # DIR, ENCODER and the like stand for the reader's own files.
        try:
            flags.parse(arguments)
        except InputError as error:
            placeholder = any(text in str(error) for text in NEEDS_FILES)
            assert placeholder, f"tlc {shlex.join(arguments)}: {error}"


def test_a_wrong_setting_in_a_command_would_be_found(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match="unknown config field"):
        flags.parse(
            ["pretrain", "--config=configs/mlm.py", "--workdir=x", "--config.modle.layers=1"]
        )


def test_marked_blocks_run(tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "bin").mkdir()
    # The `tlc` of this checkout, whatever is installed.
    tlc = tmp_path / "bin" / "tlc"
    tlc.write_text(f'#!/bin/sh\nexec {sys.executable} -m tlc_jax "$@"\n')
    tlc.chmod(0o755)
    environment = dict(os.environ, PYTHONPATH=str(ROOT), XLA_FLAGS="")
    environment["PATH"] = f"{tmp_path / 'bin'}:{environment['PATH']}"
    ran = 0
    for page in PAGES:
        for text in blocks(page, runnable=True):
            done = subprocess.run(
                ["bash", "-euc", text],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{page.name}:\n{text}\n{done.stderr}"
            ran += 1
    assert ran >= 3
    assert (tmp_path / "labels.tsv").read_text().startswith("label\t")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_readme_is_short():
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") <= 180


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in navigation
