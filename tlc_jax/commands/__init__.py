"""One module per command, and the table of what each takes from the command line.

A stage module has a docstring (its first line is the summary in `tlc --help`, the rest is the text of
`tlc STAGE --help`) and `run(config, workdir, options) -> dict`, the stage's final numbers. Importing one imports JAX;
this table does not, so that help and refusals come at once.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from tlc_jax.config import current_name
from tlc_jax.core.errors import InputError
from tlc_jax.core.text import did_you_mean

# Settings that a stage accepts even where it does not read them, so that one set of flags can drive a whole pipeline.
SHARED_SECTIONS: tuple[str, ...] = (
    "seed",
    "data",
    "tokenizer",
    "model",
    "optimizer",
    "budget",
    "init",
    "eval",
    "impl",
)


@dataclasses.dataclass(frozen=True)
class Option:
    """A flag of one command that is not a setting: it says what to do now, not what the run is."""

    name: str
    kind: type[bool] | type[int] | type[str]
    default: bool | int | str | None
    doc: str


@dataclasses.dataclass(frozen=True)
class Stage:
    """What a stage takes from the command line.

    Attributes:
      sections: the top-level settings and sections that it reads.
      options: its flags beside --config and --workdir.
      default_config: where the config comes from without --config: nowhere, the run named by --init, or the workdir.
      needs_budget: whether it trains under `budget`.
      needs_workdir: whether it keeps files in a workdir.
      several: whether several processes can do it together.
    """

    sections: tuple[str, ...]
    options: tuple[Option, ...] = ()
    default_config: Literal["none", "init", "workdir"] = "none"
    needs_budget: bool = False
    needs_workdir: bool = True
    several: bool = False


_INIT = Option(
    "init",
    str,
    None,
    "short form of --config.init.from; without --config, that run's config is the default",
)
_LABELLED = ("seed", "data", "tokenizer", "model", "init", "eval", "impl")
_TRAINING = (
    "seed",
    "data",
    "tokenizer",
    "model",
    "budget",
    "optimizer",
    "eval",
    "checkpoint",
    "impl",
)

STAGES: dict[str, Stage] = {
    "plan": Stage(
        (
            "plan",
            "seed",
            "data",
            "tokenizer",
            "model",
            "budget",
            "optimizer",
            "objective",
            "study",
            "impl",
        ),
        several=True,
    ),
    "prepare": Stage(
        ("seed", "data", "tokenizer", "impl"),
        (
            Option(
                "pairs",
                bool,
                False,
                "tokenize sentence pairs for translation instead of packing text",
            ),
        ),
    ),
    "pretrain": Stage((*_TRAINING, "init", "objective"), needs_budget=True, several=True),
    "translate": Stage(
        (*_TRAINING, "init", "objective", "decode"), needs_budget=True, several=True
    ),
    "finetune": Stage((*_TRAINING, "init", "seeds"), needs_budget=True, several=True),
    "compress": Stage(
        (*_TRAINING, "init", "recipe", "compress", "objective", "decode"), several=True
    ),
    "evaluate": Stage(
        (*_LABELLED, "objective", "decode"), (_INIT,), default_config="init", several=True
    ),
    "analyze": Stage(
        (*_LABELLED, "objective", "recipe", "analyze"),
        (_INIT,),
        default_config="init",
        several=True,
    ),
    "predict": Stage(
        ("predict", "init", "data", "eval", "decode", "impl"),
        (_INIT,),
        default_config="init",
        needs_workdir=False,
    ),
    "export": Stage(("export", "init", "tokenizer"), (_INIT,), default_config="init"),
    "study": Stage(
        ("study", *_TRAINING, "objective", "compress", "decode", "analyze"),
        (
            Option(
                "list",
                bool,
                False,
                "run nothing; print one job a line: number, state, name, jobs that it needs",
            ),
            Option(
                "job",
                int,
                None,
                "run this one job, by its number in --list, and what it needs first",
            ),
        ),
        several=True,
    ),
    "report": Stage(("study",), default_config="workdir"),
    "bench": Stage(
        ("bench", *_TRAINING, "objective", "decode", "recipe"),
        (
            Option(
                "peers",
                bool,
                False,
                "time other systems in alternation and print ratios (extra `peers`)",
            ),
        ),
    ),
}


def find(name: str) -> tuple[str, Stage]:
    """The stage called `name`, with the name that it has today.

    Raises:
      InputError: there is none.
    """
    name = current_name(name)
    if name not in STAGES:
        raise InputError(f"unknown stage {name!r}{did_you_mean(name, STAGES)}")
    return name, STAGES[name]
