"""`tlc`: one-line refusals before JAX is imported, what a command gets, and exit statuses."""

import errno
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from tlc_jax import config
from tlc_jax.cli import flags as command_line
from tlc_jax.cli import help as help_text
from tlc_jax.cli import main as cli
from tlc_jax.commands import COMMANDS, SHARED_SECTIONS
from tlc_jax.core.errors import InputError, StoppedEarly, TrainingFailed
from tlc_jax.core.files import write_json
from tlc_jax.core.text import note_once

FILE = """
from tlc_jax.config import default_config
def get_config(layers="2"):
    config = default_config()
    config.model.layers = int(layers)
    config.budget.steps = 10
    return config
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.py").write_text(FILE)
    return tmp_path


@pytest.fixture
def command(monkeypatch):
    """Replaces all commands by one that records its calls, and raises `command.error` if set."""
    fake = types.SimpleNamespace(calls=[], error=None)

    def run(config, workdir, options):
        fake.calls.append((config, workdir, dict(options)))
        if fake.error:
            raise fake.error
        return {}

    fake.run = run
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: fake)
    return fake


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("pretrian", "unknown command 'pretrian'; did you mean pretrain?"),
        ("pretrian --help", "unknown command 'pretrian'; did you mean pretrain?"),
        ("pretrain --config=c.py", "--workdir=DIR is missing"),
        ("pretrain --workdir=w", "--config=FILE.py[:ARG] is missing"),
        (
            "pretrain --wrkdir=w --config=c.py",
            "unknown flag '--wrkdir' of `tlc pretrain`; did you mean --workdir?",
        ),
        ("pretrain --workdir=w --config=c.py extra", "unknown argument 'extra'"),
        ("pretrain --workdir=w --config=c.py --list", "unknown flag '--list'"),
        ("study --workdir=w --config=c.py --job=two", "--job=two"),
        (
            "pretrain --workdir=w --config=missing.py",
            "cannot read config file missing.py: No such file",
        ),
        (
            "pretrain --workdir=w --config=c.py:two",
            "config file c.py, line 5: ValueError: invalid literal",
        ),
        ("pretrain --workdir=w --config=c.py --config.model.layrs=3", "did you mean model.layers?"),
        (
            "pretrain --workdir=w --config=c.py --config.modle.layers=3",
            "did you mean model.layers?",
        ),
        (
            "pretrain --workdir=w --config=c.py --config.model.seconds=3",
            "did you mean budget.seconds?",
        ),
        (
            "pretrain --workdir=w --config=c.py --config.model=3",
            "config.model is a section: set one of model.layers",
        ),
        (
            "pretrain --workdir=w --config=c.py --config.model.layers=six",
            "--config.model.layers=six: invalid literal",
        ),
        ("pretrain --workdir=w --config=c.py --config.model.layers", "Missing value"),
        (
            "pretrain --workdir=w --config=c.py --noconfig.impl.remat=1",
            "--noconfig.impl.remat=1 does not take an argument",
        ),
        (
            "study --workdir=w --config=c.py --config.study.finetune.budget.epochs=x",
            "could not convert string to float: 'x'",
        ),
        (
            "study --workdir=w --config=c.py --config.study.finetune.bugdet.epochs=1",
            "unknown config field bugdet.epochs; did you mean budget.epochs? (in config.study.",
        ),
        (
            "study --workdir=w --config=c.py --config.study.tasks.sst2.budget.epochs=1",
            "unknown config field sst2",
        ),
        (
            "study --workdir=w --config=c.py --config.study.finetune=3",
            "config.study.finetune is a section of settings, not 3",
        ),
        (
            "pretrain --workdir=w --config=c.py --config.model.hidden=100",
            "not a multiple of the head size 64",
        ),
        (
            "pretrain --workdir=w --config=c.py --config.impl.matmul=fp8",
            "must be one of auto, float32, mix, bfloat16",
        ),
        ("pretrain --workdir=w --config=c.py --config.budget.steps=0", "no budget"),
        (
            "pretrain --workdir=w --config=c.py --config.recipe=prune:0.5",
            "does not read config.recipe",
        ),
        ("compress --workdir=w --config=c.py --config.recipe=prune:1.5", "recipe: sparsity 1.5"),
        ("compress --workdir=w --config=c.py --config.recipe=quantize:9", "recipe: bits 9"),
        ("predict --workdir=w", "needs --init=DIR"),
        ("predict --workdir=w --init=nowhere", "--init=nowhere does not exist"),
        ("predict --workdir=w --init=.", "no config.json in or above ."),
        ("evaluate --workdir=w --config=c.py --init=a --config.init.from=b", "disagree"),
        ("report --workdir=w", "w/config.json does not exist"),
    ],
)
def test_wrong_input_ends_in_one_line(arguments, message, folder, command, capsys):
    assert cli.main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert err.startswith("tlc: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert command.calls == []
    assert not Path("w").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def get_config(:", "line 1: invalid syntax"),
        ("x = 1", "no function get_config"),
        ("def get_config():\n  return {}", "must return a ConfigDict"),
        ("def get_config():\n  return undefined", "line 2: NameError"),
        ("import tlc_nonsense", "line 1: ModuleNotFoundError"),
        (
            FILE.replace("model.layers", "model.layrs"),
            "line 5: unknown config field layrs; did you mean layers?",
        ),
        (
            FILE.replace("model.layers", "modle.layers"),
            "line 5: unknown config field modle; did you mean model?",
        ),
        (FILE.replace("int(layers)", "'two'"), "line 5: TypeError"),
        ("\xff", "not UTF-8"),
    ],
)
def test_a_wrong_config_file_is_named_with_its_line(content, message, folder, capsys):
    Path("bad.py").write_bytes(content.encode("latin-1"))
    assert cli.main(["pretrain", "--workdir=w", "--config=bad.py"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "bad.py" in err
    assert err.count("\n") == 1


def test_a_command_gets_config_workdir_and_options(folder, command):
    arguments = (
        "study --config.model.layers 4 --config=c.py:3 --workdir=w --job=2 --noconfig.impl.remat"
    )
    assert (
        cli.main([*arguments.split(), "--config.study.sizes=2x64", "--config.study.sizes=3x64"])
        == 0
    )
    ((resolved, workdir, options),) = command.calls
    assert (resolved.model.layers, resolved.budget.steps, resolved.study.sizes) == (
        4,
        10,
        ("2x64", "3x64"),
    )
    assert workdir == Path("w")
    assert options == {"list": False, "job": 2}


def test_settings_below_a_partial_config_have_the_types_of_the_schema(folder, command):
    partial = """
    config.study.finetune = {"budget": {"epochs": 1}, "impl": {"remat": True}}
    config.study.tasks = {"toy": {"data": {"length": 32, "valid": "toy:nli"}}}
    return config
"""
    Path("partial.py").write_text(FILE.replace("    return config\n", partial))
    arguments = (
        "study --config=partial.py --workdir=w --config.study.finetune.budget.epochs=0.5 "
        "--noconfig.study.finetune.impl.remat --config.study.tasks.toy.data.length 16 "
        "--config.study.tasks.toy.data.valid=7 --config.study.finetune.eval.keep_predictions=True "
        "--config.study.tasks.toy.budget.steps=3"
    )
    assert cli.main(arguments.split()) == 0
    study = config.to_dict(command.calls[0][0].study)
    assert study["finetune"] == {
        "budget": {"epochs": 0.5},
        "impl": {"remat": False},
        "eval": {"keep_predictions": True},
    }
    data = {"length": 16, "valid": "7"}
    assert study["tasks"] == {"toy": {"data": data, "budget": {"steps": 3}}}


@pytest.mark.parametrize(
    ("text", "value"), [("8", 8), ("auto", "auto"), ("1,32", (1, 32)), ("()", ()), ("[4]", (4,))]
)
def test_literal_settings(text, value, folder, command):
    name = "impl.microbatch" if isinstance(value, (int, str)) else "eval.latency"
    arguments = ["pretrain", "--config=c.py", "--workdir=w", f"--config.{name}={text}"]
    assert cli.main(arguments) == 0
    section, leaf = name.split(".")
    assert getattr(getattr(command.calls[0][0], section), leaf) == value


@pytest.mark.parametrize("name", COMMANDS)
def test_shared_settings_are_never_refused(name, folder, command):
    """One set of flags can drive a whole pipeline."""
    chosen = [
        "seed=1",
        "data.length=64",
        "tokenizer.vocab_size=999",
        "model.layers=3",
        "optimizer.batch_size=8",
    ]
    chosen += ["budget.steps=5", "init.from=x", "eval.batch_size=4", "impl.prefetch=0"]
    chosen += ["plugins=()"]
    assert {setting.partition("=")[0].partition(".")[0] for setting in chosen} == set(
        SHARED_SECTIONS
    )
    assert (
        cli.main(
            [name, "--config=c.py", "--workdir=w", *(f"--config.{setting}" for setting in chosen)]
        )
        == 0
    )
    resolved = command.calls[0][0]
    assert (resolved.seed, resolved.init.source, resolved.tokenizer.vocab_size) == (1, "x", 999)


@pytest.mark.parametrize("source", ["run", "run/checkpoints/5", "run/artifact/model.safetensors"])
@pytest.mark.parametrize("flag", ["--init=", "--config.init.from=", "--config.init.from "])
def test_without_config_the_named_run_gives_it(source, flag, folder, command):
    stored = config.resolve(
        {"model": {"layers": 7}, "study": {"tasks": {"toy": {"data": {"train": "toy:pairs"}}}}}
    )
    Path(source).mkdir(parents=True)
    write_json(Path("run/config.json"), config.to_dict(stored))
    assert cli.main(f"evaluate --workdir=w {flag}{source} --config.model.hidden=128".split()) == 0
    resolved = command.calls[0][0]
    assert (resolved.model.layers, resolved.model.hidden, resolved.init.source) == (7, 128, source)
    assert resolved.study == stored.study


def test_a_command_that_keeps_no_files_needs_no_workdir(folder, command):
    assert cli.main(["predict", "--config=c.py"]) == 0
    assert command.calls[0][1] == Path(".")


def test_report_reads_the_config_of_its_workdir(folder, command):
    Path("w").mkdir()
    write_json(
        Path("w/config.json"), config.to_dict(config.resolve({"study": {"sizes": ["5x64"]}}))
    )
    assert cli.main(["report", "--workdir=w", "--config.study.megabytes=(1, 2)"]) == 0
    assert command.calls[0][0].study.sizes == ("5x64",)
    assert command.calls[0][0].study.megabytes == (1.0, 2.0)


def _wrapped(inner: OSError) -> RuntimeError:
    outer = RuntimeError("saving failed")
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (None, 0, ""),
        (InputError("no such\nlabel"), 2, "tlc: error: no such label"),
        (StoppedEarly("saved at step 7"), 75, "tlc: stopped: saved at step 7"),
        (TrainingFailed("loss is nan"), 1, "tlc: failed: loss is nan"),
        (KeyboardInterrupt(), 130, "tlc: interrupted: "),
        (
            OSError(errno.ENOSPC, "x", "/full/file"),
            2,
            "tlc: error: cannot use /full/file: No space left on device",
        ),
        (
            PermissionError(errno.EACCES, "x", "/mine"),
            2,
            "tlc: error: cannot use /mine: Permission denied",
        ),
        (
            _wrapped(OSError(errno.EROFS, "x", "/cd")),
            2,
            "tlc: error: cannot use /cd: Read-only file system",
        ),
        (
            ValueError('Error writing "w/d/a": [OS error 28: ENOSPC No space left on device]'),
            2,
            "tlc: error: cannot use w/d/a: No space left on device",
        ),
    ],
)
def test_exit_statuses(error, status, line, folder, command, capsys):
    command.error = error
    assert cli.main(["pretrain", "--config=c.py", "--workdir=w"]) == status
    err = capsys.readouterr().err
    assert err.startswith(line)
    assert err.count("\n") == bool(line)


def test_a_bug_keeps_its_traceback(folder, command):
    command.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        cli.main(["pretrain", "--config=c.py", "--workdir=w"])


def test_the_overview_names_every_command():
    text = help_text.overview()
    for name in COMMANDS:
        assert f"\n  {name} " in text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_names_its_flags_and_every_setting_it_reads(name):
    text = help_text.of_command(name)
    for option in COMMANDS[name].options:
        assert f"--{option.name}" in text
    for setting, *_ in config.describe():
        listed = f"\n  {setting}=" in text
        assert listed == (setting.partition(".")[0] in COMMANDS[name].sections), setting


def test_the_table_of_commands_names_real_sections():
    sections = {setting.partition(".")[0] for setting, *_ in config.describe()}
    for spec in COMMANDS.values():
        assert {*spec.sections, *SHARED_SECTIONS} <= sections
        assert len(set(spec.sections)) == len(spec.sections)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["pretrain", "--help"], ["pretrain", "--workdir=w"]]
)
def test_help_and_refusals_do_not_wait_for_jax(arguments):
    code = (
        "import sys; from tlc_jax.cli.main import main; status = main(sys.argv[1:]); "
        "heavy = {'jax', 'flax', 'numpy', 'tensorflow_datasets', 'matplotlib'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == (0 if "--help" in arguments else 2), done.stderr


def test_python_m_and_a_reader_that_leaves():
    """`tlc --help | head -c 1` is quiet."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "tlc_jax", "--help"],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert done.stderr == b""
    assert done.returncode == 1


def test_a_config_file_may_import_its_neighbors(folder):
    Path("neighbor_of_it.py").write_text("LAYERS = 5\n")
    Path("it.py").write_text(
        "from neighbor_of_it import LAYERS\n" + FILE.replace("int(layers)", "LAYERS")
    )
    before = list(sys.path)
    command = command_line.parse(["pretrain", "--config=it.py", "--workdir=w"])
    assert command.config.model.layers == 5
    assert sys.path == before


def test_old_name_of_a_command_and_its_section_works_with_one_line(folder, command, capsys):
    note_once.cache_clear()
    setting = "--config.analyse.parts=error"
    assert cli.main(["analyse", "--config=c.py", "--workdir=w", setting]) == 0
    assert command.calls[0][0].analyze.parts == ("error",)
    assert capsys.readouterr().err == "tlc: note: analyse is now called analyze; use that name\n"
    assert cli.main(["analyse", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: tlc analyze ")
