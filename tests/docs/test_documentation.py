"""The pages: code blocks marked runnable run, every command parses, every link resolves.

A block is runnable if the line before it is `<!-- runnable -->`; `<!-- runnable: slow -->` leaves
it to `pytest -m slow`. The blocks run in the order of PAGES in one temporary folder, in which
configs/ is the repository's, so later pages use the models that the README trains.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.helpers import plugins
from tlc_jax.cli.flags import parse
from tlc_jax.cli.main import main
from tlc_jax.core.errors import InputError

ROOT = Path(__file__).parents[2]
OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "launch/README.md")
PAGES = [*(ROOT / name for name in OUTSIDE), *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(
    r"^(?:<!-- (?P<marker>runnable(?:: slow)?) -->\n)?(?P<fence>```+)(?P<language>\w*)[^\n]*\n"
    r"(?P<code>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
_INLINE = re.compile(r"`(tlc [^`\n]*)`")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
      marker: "", "runnable" or "runnable: slow".
      language: the word after the fence.
      code: the lines between the fences.
    """

    marker: str
    language: str
    code: str

    @property
    def lines(self) -> list[str]:
        """Lines of the shell, continued ones joined, without comments and empty ones."""
        joined = self.code.replace("\\\n", " ")
        return [line for line in joined.splitlines() if shlex.split(line, comments=True)]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(found["marker"] or "", found["language"], found["code"])
        for found in _BLOCK.finditer(text)
    ]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(page: Path) -> list[str]:
    """Every `tlc` command of a page that is written out, in blocks and in inline code."""
    text = page.read_text(encoding="utf-8")
    in_blocks = [
        line
        for block in blocks(page)
        if block.language in ("", "bash", "sh")
        if "tlc " in block.code
        for line in block.lines
        if line.startswith("tlc ")
    ]
    inline = _INLINE.findall(_BLOCK.sub("", text))
    # In running text `tlc plan` names a command without calling it; "..." leaves out a part.
    called = [line for line in inline if "--" in line and "..." not in line]
    return [line for line in in_blocks + called if "--help" not in line]


def run_pages(markers: set[str], folder: Path) -> int:
    """Runs the marked blocks of all pages in a folder; returns how many there were."""
    ran = 0
    (folder / "configs").symlink_to(ROOT / "configs")
    for page in PAGES:
        names: dict[str, object] = {}
        for block in blocks(page):
            if block.marker not in markers:
                continue
            ran += 1
            if block.language == "python":
                exec(compile(block.code, name_of(page), "exec"), names)
                continue
            for line in block.lines:
                words = shlex.split(line, comments=True)
                if words[0] == "tlc":
                    # In this process: JAX is imported once, and compiled programs are shared.
                    assert main(words[1:]) == 0, f"{name_of(page)}: {line}"
                else:
                    subprocess.run(["bash", "-ec", line], check=True, cwd=folder)
    return ran


def test_runnable_blocks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_pages({"runnable"}, tmp_path) >= 5
    assert (tmp_path / "labels.tsv").read_text().startswith("label\t")


@pytest.mark.slow
def test_slow_runnable_blocks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_pages({"runnable: slow"}, tmp_path) >= 1


@pytest.fixture
def lamp(tmp_path, monkeypatch):
    """As after the `pip install` of docs/extending.md."""
    monkeypatch.syspath_prepend(plugins.EXAMPLES / "tlc_lamp")
    monkeypatch.syspath_prepend(tmp_path)
    plugins.install(tmp_path, "tlc-lamp", "tlc_lamp")
    with plugins.isolated():
        yield


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_parse(page, lamp, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("configs", "examples"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for line in commands(page):
        words = shlex.split(line, comments=True)[1:]
        if not any(word.startswith("--config=") for word in words):
            # The command would read the config of a run that does not exist here.
            words.append("--config=configs/mnli.py")
        try:
            parsed = parse(words)
        except InputError as error:
            pytest.fail(f"{line}\n{error}")
        assert parsed.name == words[0], line


def test_studies_that_are_compared_have_two_seeds_of_each_training(lamp, monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = [shlex.split(line, comments=True)[1:] for page in PAGES for line in commands(page)]
    studies = {}
    for words in lines:
        if words[0] == "study":
            found = parse(words)
            studies.setdefault(found.workdir, []).append(found.config.study)
    compared = [words for words in lines if words[0] == "compare" and "release" not in str(words)]
    assert len(compared) >= 4
    for words in compared:
        for study in studies[parse([*words, "--config=configs/mnli.py"]).workdir]:
            assert min(len(study.pretrain_seeds), len(study.seeds)) >= 2, words


def test_wrong_setting_would_be_found(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match="unknown config field"):
        parse(["pretrain", "--config=configs/mlm.py", "--workdir=x", "--config.modle.layers=1"])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_resolve(page):
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    for link in _LINK.findall(text):
        target, _, _ = link.partition("#")
        if target and "://" not in target:
            assert (page.parent / target).exists(), f"{name_of(page)}: {link}"


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 180


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in navigation


def test_commands_are_found_in_pages():
    """Guards the search itself: an expression that matches nothing would pass every test above."""
    assert len(commands(ROOT / "README.md")) >= 12
    assert sum(block.marker == "runnable" for page in PAGES for block in blocks(page)) >= 8
