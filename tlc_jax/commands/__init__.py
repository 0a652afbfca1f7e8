"""One module per command, and the table of what each takes from the command line.

The module of a command has a docstring (its first line is the summary in `tlc --help`, the rest is
the text of `tlc COMMAND --help`) and `run(config, workdir, options) -> dict`, which returns the
command's final numbers. Importing such a module imports JAX. This table does not, so that help and
refusals come at once.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tlc_jax.config import Config, current_name
from tlc_jax.core import plugins
from tlc_jax.core.errors import InputError
from tlc_jax.core.text import did_you_mean

if TYPE_CHECKING:
    from tlc_jax.tasks.base import TaskRun

_MODEL = ("seed", "plugins", "data", "tokenizer", "model")
_TRAINING = (*_MODEL, "budget", "optimizer", "eval", "checkpoint", "impl")
_SAVED = (*_MODEL, "init", "eval", "impl")

SHARED_SECTIONS = (*_MODEL, "optimizer", "budget", "init", "eval", "impl")
"""Settings that every command accepts, read or not, so that one set of flags drives a pipeline."""


@dataclasses.dataclass(frozen=True)
class Option:
    """A flag of one command that is not a setting: it says what to do now, not what the run is."""

    name: str
    kind: type[bool] | type[int] | type[str]
    doc: str


@dataclasses.dataclass(frozen=True)
class CommandSpec:
    """What a command takes from the command line.

    Attributes:
      sections: top-level settings and sections that it reads, in the order of its help.
      options: its flags beside --config and --workdir.
      default_config: source of the config without --config: none, the run that --init names, the
        workdir, or ("optional") the workdir if it has one and the defaults otherwise.
      needs_budget: whether it trains under `budget`.
      needs_workdir: whether it keeps files in a workdir.
      several: whether several processes can do it together.
    """

    sections: tuple[str, ...]
    options: tuple[Option, ...] = ()
    default_config: Literal["none", "init", "workdir", "optional"] = "none"
    needs_budget: bool = False
    needs_workdir: bool = True
    several: bool = False


_INIT = Option(
    "init",
    str,
    "short form of --config.init.from; without --config, that run's config is the default",
)
_PAIRS = Option("pairs", bool, "tokenize sentence pairs for translation instead of packing text")
_LIST = Option(
    "list", bool, "run nothing; print one job a line: number, state, name, jobs that it needs"
)
_JOB = Option("job", int, "run this one job, by its number in --list, and what it needs first")
_PEERS = Option("peers", bool, "time other systems in alternation and print ratios (extra `peers`)")

COMMANDS: dict[str, CommandSpec] = {
    "plan": CommandSpec(
        ("plan", *_MODEL, "budget", "optimizer", "objective", "study", "impl"), several=True
    ),
    "prepare": CommandSpec(("plugins", "data", "tokenizer", "impl"), (_PAIRS,)),
    "pretrain": CommandSpec((*_TRAINING, "init", "objective"), needs_budget=True, several=True),
    "translate": CommandSpec(
        (*_TRAINING, "init", "objective", "decode"), needs_budget=True, several=True
    ),
    "finetune": CommandSpec((*_TRAINING, "init", "task", "seeds"), needs_budget=True, several=True),
    "compress": CommandSpec(
        (*_TRAINING, "init", "task", "recipe", "compress", "objective", "decode"), several=True
    ),
    "evaluate": CommandSpec((*_SAVED, "objective", "decode"), (_INIT,), "init", several=True),
    "analyze": CommandSpec(
        (*_SAVED, "objective", "recipe", "analyze"), (_INIT,), "init", several=True
    ),
    "predict": CommandSpec(
        ("predict", "init", "plugins", "data", "eval", "decode", "impl"),
        (_INIT,),
        "init",
        needs_workdir=False,
    ),
    "export": CommandSpec(("export", "init", "tokenizer"), (_INIT,), "init"),
    "study": CommandSpec(
        ("study", *_TRAINING, "objective", "compress", "decode", "analyze"),
        (_LIST, _JOB),
        several=True,
    ),
    "report": CommandSpec(("study", "compare"), default_config="workdir"),
    "compare": CommandSpec(("seed", "compare"), default_config="optional"),
    "forecast": CommandSpec(("seed", "forecast", "init"), (_INIT,), "init", needs_workdir=False),
    "bench": CommandSpec(("bench", *_TRAINING, "init", "objective", "decode", "recipe"), (_PEERS,)),
}


def find(name: str) -> tuple[str, CommandSpec]:
    """The command called `name`, with the name that it has today.

    Raises:
      InputError: there is none.
    """
    name = current_name(name)
    if name not in COMMANDS:
        raise InputError(f"unknown command {name!r}{did_you_mean(name, COMMANDS)}")
    return name, COMMANDS[name]


def run_command(name: str, config: Config, workdir: Path) -> dict[str, Any]:
    """Runs a command without flags of its own, from Python; returns the content of result.json."""
    plugins.load(config.plugins)
    # By name, because each command imports whole rooms that the others do without.
    return importlib.import_module(f"tlc_jax.commands.{name}").run(config, workdir, {})


def refuse_branches(config: Config) -> None:
    """Refuses budget.branches where the command does not run them."""
    if config.budget.branches:
        raise InputError(
            f"budget.branches={config.budget.branches} is for pretrain and translate: leave it out"
        )


_OF_BRANCHES = ("steps", "tokens", "train_seconds", "valid_loss", "valid_perplexity", "bleu")


def run_branches(
    config: Config, workdir: Path, work: Callable[[Path, Config], dict[str, Any]]
) -> dict[str, Any]:
    """Runs the branches of a training run (budget.branches), each from the state saved for it.

    Args:
      config: config of the run.
      workdir: folder of the run.
      work: (workdir, config) -> the content of result.json; trains a branch.

    Returns:
      {"branches": {share: what its result.json says of amounts and scores}}; empty without any.
    """
    if not config.budget.branches:
        return {}
    from tlc_jax.runs import session
    from tlc_jax.training.branches import config_of, folder_of

    found = {}
    for share in sorted(config.budget.branches):
        folder = folder_of(workdir, share)
        branch = config_of(config, share)
        cache = config.data.cache or str(workdir / "data")
        branch = dataclasses.replace(branch, data=dataclasses.replace(branch.data, cache=cache))
        session.say(f"branch of {share:g} of the budget")
        result = session.run_once(folder, branch, functools.partial(work, folder))
        found[f"{share:g}"] = {name: result[name] for name in _OF_BRANCHES if name in result}
    return {"branches": found}


def fit_to_memory(run: TaskRun, workdir: Path) -> None:
    """Replaces impl.remat=auto and impl.microbatch=auto in a training run; records what was chosen.

    Raises:
      InputError: nothing fits.
    """
    # Imported here: help and refusals do without JAX.
    from tlc_jax.planning import fit
    from tlc_jax.runs import auto

    fit.of_run(run, workdir)
    auto.record(run.config, workdir)


def latency_of_run(config: Config, workdir: Path) -> dict[str, Any]:
    """The forward-pass latency of the model of a finished run; empty without eval.latency."""
    if not config.eval.latency:
        return {}
    # Imported here, because few runs are timed.
    from tlc_jax.runs import saved_model
    from tlc_jax.tasks import latency

    return latency.of_model(config, saved_model.load(str(workdir), config.impl))
