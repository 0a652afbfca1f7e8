"""How a setting is declared, and the sections of settings that drive one command each."""

# Annotations are evaluated here, unlike elsewhere: `resolve` reads types of fields from them.
import dataclasses
from typing import Any


def setting(default: Any, doc: str, allowed: tuple[Any, ...] | str = (), alias: str = "") -> Any:
    """A field that `resolve` checks and `tlc COMMAND --help` explains.

    Args:
      default: value where nothing is set.
      doc: help text, with the unit.
      allowed: values to choose from, or bounds such as ">= 0 and < 1". They hold for each item of a
        tuple. Bounds do not concern words.
      alias: name for users, where Python reserves it.
    """
    metadata = {"doc": doc, "allowed": allowed, "alias": alias}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Predict:
    input: str = setting("", "text, .tsv, .csv or .jsonl file, each also .gz; - is standard input")
    output: str = setting("", "file to write; if empty, standard output")


@dataclasses.dataclass(frozen=True)
class Analyze:
    parts: tuple[str, ...] = setting(
        ("error", "sensitivity", "convergence"),
        "error: distance of each matrix from the original; sensitivity: loss with one compressed "
        "matrix; convergence: how well each checkpoint of the run compresses",
        ("error", "sensitivity", "convergence"),
    )


@dataclasses.dataclass(frozen=True)
class Compare:
    task: str = setting("", "finetuning task of the study; if empty, its first")
    split: str = setting("", "validation or test split; if empty, the first to validate on")
    models: tuple[str, ...] = setting(
        (),
        'models to compare, smallest first, named like "2x128 quantize:4"; if empty, the dense '
        "models of all sizes, and compressed ones of the largest with its dense one",
    )
    release: str = setting(
        "", "folder of predictions in the layout of Zhong et al., instead of a study"
    )
    examples: int = setting(50, "number of decaying instances to list for each pair", ">= 1")
    draws: int = setting(200, "bootstrap samples for the bias of the threshold", ">= 1")


@dataclasses.dataclass(frozen=True)
class Forecast:
    seconds: tuple[float, ...] = setting(
        (),
        "budgets in training seconds; if empty, 1, 3 and 10 times the longest run",
        "> 0",
    )
    kind: str = setting("encoder", "kind of model", ("encoder", "translator"))
    recipe: str = setting(
        "dense", "recipe of the study, for megabytes and the expected loss of accuracy"
    )
    studies: tuple[str, ...] = setting(
        (), "more studies beside that of --init, such as one with another budget"
    )
    speeds: str = setting(
        "", "workdir of `tlc plan`: its tokens/s instead of the study's, and its sizes"
    )
    backtest: float = setting(
        0.5,
        "fit runs of at most this share of the longest run's seconds, predict the rest; 0: none",
        ">= 0 and <= 0.9",
    )


@dataclasses.dataclass(frozen=True)
class Export:
    format: str = setting("hf", "a folder for Hugging Face, or an ONNX model", ("hf", "onnx"))


@dataclasses.dataclass(frozen=True)
class Bench:
    task: str = setting(
        "pretrain",
        "work that is timed: pretraining, decoding translations, compressing by `recipe`, "
        "comparing models instance by instance, finetuning with several seeds, the training loop "
        "around a step that computes almost nothing, or the steps that impl.profile traced",
        ("pretrain", "decode", "compress", "compare", "seeds", "loop", "trace"),
    )
    rounds: int = setting(5, "number of rounds; medians are reported")
    steps: int = setting(10, "training steps per round; of the loop alone, in hundreds", ">= 1")
    seconds: float = setting(
        20.0, "training seconds of the real run that goodput is measured on; 0: none", ">= 0"
    )
    profile: bool = setting(
        False, "pretraining: trace a few steps and print where their time goes, by kind of kernel"
    )
    peers: tuple[str, ...] = setting(
        (),
        "--peers: types of numbers that peers compute in; if empty, float32 on CPUs and bfloat16 "
        "on accelerators",
        ("float32", "bfloat16"),
    )
    seeds: int = setting(4, "finetuning: number of seeds", ">= 1")
    source: int = setting(32, "decoding: tokens of every source sentence")
    generated: int = setting(40, "decoding: tokens generated for every sentence")
    instances: int = setting(1_000_000, "comparing: instances that 50 runs answered", ">= 1000")


@dataclasses.dataclass(frozen=True)
class Plan:
    topology: str = setting("", "TPUs or GPUs: v5e:16x16, h100:8, ...; if empty, the devices here")
    seconds: float = setting(20.0, "seconds to time steps of each size at most; 0: none", ">= 0")
