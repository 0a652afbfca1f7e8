"""Every setting with its default, bounds and help text.

Sections from `data` to `eval` are science: they change results. `impl` does not, beyond rounding.
The rest drives one command; most of that is in `command_settings`.
"""

# Annotations are evaluated here, unlike elsewhere: `resolve` reads types of fields from them.
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from tlc_jax.config.command_settings import (
    Analyze,
    Bench,
    Compare,
    Export,
    Forecast,
    Plan,
    Predict,
    setting,
)
from tlc_jax.config.durations import UNITS, Amounts
from tlc_jax.core.plugins import OURS
from tlc_jax.core.text import note_once

# Old names of commands and settings, which keep working for one release.
_RENAMED = {"analyse": "analyze"}


def current_name(name: str) -> str:
    """The name of a command or top-level setting today, with one line on stderr if it changed."""
    new = _RENAMED.get(name, name)
    if new != name:
        note_once(f"{name} is now called {new}; use that name")
    return new


@dataclasses.dataclass(frozen=True)
class Data:
    train: str = setting(
        "", "sources to train on, joined by commas; NAME=SOURCE names one, SOURCE@0.3 weighs one"
    )
    valid: str = setting("", "sources to evaluate on; if empty, a part of data.train is held out")
    test: str = setting(
        "", "sources to measure the finished model on, once; nothing else reads them"
    )
    dir: str = setting("", "directory of TFDS data; if empty, TFDS's own default")
    cache: str = setting("", "directory of tokenizers and packed tokens; if empty, WORKDIR/data")
    text: str = setting("", "column of the (first) text; if empty, the usual names are tried")
    pair: str = setting("", "column of the second text, - for none; if empty, the usual names")
    label: str = setting("", "column of the label; if empty, the column named label")
    length: int = setting(128, "tokens per packed row, or at most per finetuning example", ">= 8")
    holdout: float = setting(0.005, "share of rows held out if data.valid is empty", "> 0 and < 1")
    subsample: float = setting(1.0, "share of the training data, drawn at random", "> 0 and <= 1")
    # Not the run's seed: runs of several seeds are to differ in nothing but that seed.
    subsample_seed: int = setting(0, "seed of data.subsample", ">= 0")
    max_ratio: float = setting(
        4.0,
        "translation: pairs whose lengths differ by a larger factor are dropped; 0: none",
        ">= 0",
    )
    buckets: int = setting(8, "translation: number of batch widths; each is compiled once", ">= 1")


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    path: str = setting(
        "", "SentencePiece model or tokenizer.json; if empty, one is trained and kept in data.cache"
    )
    vocab_size: int = setting(32768, "pieces, special and byte pieces included", ">= 1")
    train_bytes: int = setting(20_000_000, "bytes of text that train the tokenizer at most", ">= 1")


@dataclasses.dataclass(frozen=True)
class Model:
    HEAD_SIZE: ClassVar[int] = 64  # where the settings leave it open

    layers: int = setting(12, "number of Transformer layers", ">= 1")
    hidden: int = setting(768, "width of the residual stream", ">= 1")
    heads: int = setting(0, "number of attention heads; 0 for hidden / head_size", ">= 0")
    head_size: int = setting(0, "width of a head; 0 for hidden / heads, or 64 without both", ">= 0")
    ffn: int = setting(0, "width of the feed-forward layer; 0 for 4 x hidden", ">= 0")
    max_length: int = setting(128, "number of learned positions", ">= 1")
    # Never inside attention: fused kernels do not offer it.
    dropout: float = setting(
        0.1, "dropout rate after embeddings and sub-layers and in output heads", ">= 0 and < 1"
    )
    share: str = setting("none", "parameters that layers share", ("none", "attention", "all"))
    init: str = setting(
        "normal",
        "deviation of random weights: 0.02 (normal), or 1/sqrt(fan in) and sinusoidal positions",
        ("normal", "fan_in"),
    )
    norm: str = setting(
        "pre", "normalize inputs of layers (pre), or sums as in BERT (post)", ("pre", "post")
    )
    norm_epsilon: float = setting(1e-5, "number added to variances in layer normalization", "> 0")
    activation: str = setting(
        "gelu", "activation of feed-forward layers and the MLM head", ("gelu", "gelu_tanh", "relu")
    )
    token_types: int = setting(0, "segment embeddings, as in BERT; 0 for none", (0, 1, 2))
    separator: int = setting(0, "token id that ends the first segment, with token types", ">= 0")
    padding: int = setting(0, "token id of padding, which the tokenizer decides", ">= 0")

    def filled(self) -> Self:
        """The same model with the widths that follow from others written out."""
        heads = self.heads or self.hidden // (self.head_size or self.HEAD_SIZE)
        head_size = self.head_size or self.hidden // heads
        ffn = self.ffn or 4 * self.hidden
        return dataclasses.replace(self, heads=heads, head_size=head_size, ffn=ffn)


# The defaults are those of the Transformer paper (smoothing) and of BERT (15 %, 80/10/10).
@dataclasses.dataclass(frozen=True)
class Objective:
    label_smoothing: float = setting(
        0.1, "translation: share of the target's weight spread over all tokens", ">= 0 and < 1"
    )
    mask_rate: float = setting(0.15, "share of positions to predict in pretraining", "> 0 and < 1")
    mask_token: float = setting(0.8, "share of them replaced by <mask>", ">= 0 and <= 1")
    random_token: float = setting(0.1, "share of them replaced at random", ">= 0 and <= 1")


# The first limit that is used up ends the run.
@dataclasses.dataclass(frozen=True)
class Budget:
    seconds: float = setting(0.0, "training seconds; 0 for no limit", ">= 0")
    steps: int = setting(0, "optimizer steps; 0 for no limit", ">= 0")
    examples: int = setting(0, "training rows or examples, repeats included; 0: no limit", ">= 0")
    tokens: int = setting(0, "training tokens, padding included; 0 for no limit", ">= 0")
    epochs: float = setting(0.0, "passes over the training data; 0 for no limit", ">= 0")
    flops: float = setting(0.0, "floating-point operations by formula; 0 for no limit", ">= 0")
    clock: str = setting(
        "measured", "seconds are measured, or become steps after timing", ("measured", "benchmark")
    )
    benchmarks: str = setting(
        "", "directory of step times that runs on the benchmark clock share; if empty, none"
    )
    charge: str = setting("training", "seconds charged: of training, or all", ("training", "total"))
    branches: tuple[float, ...] = setting((), "wsd: shares of shorter budgets", "> 0 and < 1")

    @property
    def converts_seconds(self) -> bool:
        """Whether seconds are converted to steps before training."""
        return self.clock == "benchmark" and self.seconds > 0

    def limits(self) -> Amounts:
        """The limit in each unit."""
        return Amounts(**{unit: getattr(self, unit) for unit in UNITS})


@dataclasses.dataclass(frozen=True)
class Optimizer:
    batch_size: int = setting(256, "sequences, examples or target tokens per step", ">= 1")
    learning_rate: float = setting(5e-4, "peak learning rate", ">= 0")
    # By the square root, as tensor2tensor does.
    reference_width: int = setting(
        0, "hidden width of learning_rate; others scale it by sqrt(this / hidden); 0: none", ">= 0"
    )
    warmup: float = setting(0.06, "share of the budget over which the rate rises", ">= 0 and <= 1")
    schedule: str = setting(
        "linear", "learning rate after warm-up", ("linear", "cosine", "constant", "rsqrt", "wsd")
    )
    cooldown: float = setting(0.2, "wsd: share of the budget of the fall", "> 0 and <= 1")
    # Adam's defaults and the weight decay are those of RoBERTa.
    beta1: float = setting(0.9, "Adam's decay of the first moment per step")
    beta2: float = setting(0.98, "Adam's decay of the second moment per step")
    epsilon: float = setting(1e-6, "Adam's epsilon")
    weight_decay: float = setting(0.01, "decoupled weight decay per step, times the learning rate")
    clip_norm: float = setting(0.0, "largest global gradient norm; 0 for no clipping", ">= 0")
    # Vectors (biases and scales of normalization) do not decay.
    decay: tuple[str, ...] = setting(
        (r".*/(kernel|token|position)",), "regular expressions of parameter paths that decay"
    )
    freeze: tuple[str, ...] = setting((), "regular expressions of parameter paths that stay fixed")


@dataclasses.dataclass(frozen=True)
class Eval:
    every_seconds: float = setting(0.0, "training seconds between evaluations; 0: no rule", ">= 0")
    every_steps: int = setting(0, "steps between evaluations; 0 for no such rule", ">= 0")
    # Drawn by the name of the split, so that all points of all curves are of the same rows.
    examples: int = setting(
        0, "random rows per split until the final evaluation, the same in all runs; 0: all", ">= 0"
    )
    keep_predictions: bool = setting(
        False, "finetune: each evaluation while training takes all rows and keeps its predictions"
    )
    batch_size: int = setting(0, "rows per evaluation step; 0 for optimizer.batch_size", ">= 0")
    latency: tuple[int, ...] = setting((), "batch sizes to time the finished model with", ">= 1")
    noise_scale: bool = setting(False, "measure the gradient noise scale while training")


# The defaults are those of the Transformer paper: 4 beams, 0.6, and 50 more tokens than the source.
@dataclasses.dataclass(frozen=True)
class Decode:
    beams: int = setting(4, "hypotheses of the beam search; 1 is greedy", ">= 1")
    alpha: float = setting(0.6, "exponent of the length penalty ((5 + length) / 6)**alpha", ">= 0")
    extra: int = setting(50, "tokens of a translation beyond those of its source, at most", ">= 0")
    nbest: int = setting(1, "predict: translations per sentence; several come with scores", ">= 1")
    batch_size: int = setting(32, "sentences decoded at once", ">= 1")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    every_seconds: float = setting(300.0, "training seconds between checkpoints; 0: none", ">= 0")
    every_steps: int = setting(0, "steps between checkpoints; 0 for no such rule", ">= 0")
    keep: int = setting(2, "number of last checkpoints kept", ">= 1")
    keep_every_steps: int = setting(0, "steps between checkpoints kept forever; 0: none", ">= 0")
    average: int = setting(0, "translate: last checkpoints averaged in the result; 0: none", ">= 0")


@dataclasses.dataclass(frozen=True)
class Init:
    source: str = setting("", "run, checkpoint, artifact or hf:FOLDER; empty: none", alias="from")


@dataclasses.dataclass(frozen=True)
class Compress:
    when: str = setting("after", "compression after finetuning or before it", ("after", "before"))
    step: float = setting(0.15, "sparsity added per round of pruning; 1: in one", "> 0 and <= 1")
    # The paper recovers to 99.5 % of the dense accuracy, for one epoch at most.
    recover: float = setting(
        0.995, "share of the dense accuracy that ends a recovery; 0: no recovery", ">= 0 and <= 1"
    )
    recover_epochs: float = setting(1.0, "epochs of recovery after each round of pruning, at most")
    cache: str = setting("", "directory of pruning rounds that recipes share; if empty, none")
    recover_evals: int = setting(10, "evaluations of accuracy in an epoch of recovery")


# Tests check that these leave results as they are, up to rounding. `runs.auto` says what `auto`
# stands for where it depends on the device.
@dataclasses.dataclass(frozen=True)
class Impl:
    mesh: str = setting("data=-1", "devices per axis: data=2,fsdp=4,tensor=1; -1 for all others")
    processes: str = setting("auto", "auto (from the environment), one, or HOST:PORT,COUNT,INDEX")
    sharding: tuple[str, ...] = setting(
        (), "rules PATTERN=AXES with, for each dimension, an axis, several joined by +, or -"
    )
    microbatch: int | str = setting(
        0, "batch per gradient accumulation step at most; 0: all of it; auto: what fits", ">= 0"
    )
    layer_loop: str = setting(
        "auto",
        "how layers are compiled: one program that runs for each, or all one after another; auto: "
        "by the device",
        ("auto", "scan", "unrolled"),
    )
    remat: bool | str = setting(
        "auto",
        "recompute a layer's activations in the backward pass; auto: if memory is too small",
        ("auto", True, False),
    )
    matmul: str = setting(
        "auto",
        "matrix products; mix: bfloat16 in and float32 out; bfloat16: activations too; auto: by "
        "the device",
        ("auto", "float32", "mix", "bfloat16"),
    )
    attention: str = setting(
        "auto",
        "program of attention; cudnn, pallas: fused ones for NVIDIA GPUs and for TPUs, with "
        "impl.matmul=bfloat16; auto: by the device",
        ("auto", "xla", "cudnn", "pallas"),
    )
    seeds_together: str = setting(
        "auto",
        "finetune with several seeds: mapped in one program, or one after another in_turn; auto: "
        "what is faster",
        ("auto", "mapped", "in_turn"),
    )
    dropout_keys: str = setting("rbg", "random bits of masks and dropout", ("rbg", "threefry2x32"))
    prefetch: int = setting(8, "batches prepared ahead by a background thread", ">= 0")
    threads: int = setting(0, "threads for tokenizing; 0 for one per core")
    log_seconds: float = setting(2.0, "seconds between lines of metrics, at least")
    notices: str = setting(
        "auto", "stop at notices of Compute Engine's metadata server, where it is", ("auto", "off")
    )
    compilation_cache: str = setting(
        "auto",
        "directory of JAX's compilation cache; auto: in the workdir of the run or the study; if "
        "empty, none",
    )
    profile: str = setting(
        "", "START:STEPS: trace that many training steps after step START; if empty, none"
    )
    trackers: tuple[str, ...] = setting(
        (),
        f"experiment trackers that get the metrics too: {', '.join(OURS['tracker'])}, each an "
        "extra of its name, or those of plug-ins",
    )


@dataclasses.dataclass(frozen=True)
class Study:
    sizes: tuple[str, ...] = setting((), "sizes of encoders, LAYERSxHIDDEN")
    encoders: tuple[str, ...] = setting((), "trained encoders, named as in init.from")
    translators: tuple[str, ...] = setting((), "sizes of translators, LAYERSxHIDDEN for each side")
    pretrain_seeds: tuple[int, ...] = setting((0,), "seeds of each encoder and each translator")
    seeds: tuple[int, ...] = setting((0,), "seeds of finetuning each pretrained encoder")
    recipes: tuple[str, ...] = setting(("dense",), "recipes for each finetuned model")
    translator_recipes: tuple[str, ...] = setting((), "recipes for translators; if empty, recipes")
    analyses: tuple[str, ...] = setting((), "recipes to analyze pretrained encoders of sizes under")
    scratch: tuple[str, ...] = setting((), "sizes to finetune from random weights too")
    finetune: Mapping[str, Any] = setting({}, "partial config of every finetuning run")
    tasks: Mapping[str, Any] = setting({}, "partial config of finetuning runs by name of the task")
    translation: Mapping[str, Any] = setting({}, "partial config of translation runs")
    vary: Mapping[str, Any] = setting(
        {}, "axes: by name, the `stage` and `grid` of one, and partial configs by name of the value"
    )
    vary_points: tuple[str, ...] = setting(
        (), "points of the axes to run, AXIS=VALUE,...; if empty, all combinations"
    )
    megabytes: tuple[float, ...] = setting((), "budgets in 10^6 bytes that the report picks for")


@dataclasses.dataclass(frozen=True)
class Config:
    """A resolved configuration."""

    seed: int = setting(0, "with it and the step everything random is fixed")
    seeds: tuple[int, ...] = setting((), "finetune: seeds of runs in seed-K/; if empty, seed alone")
    task: str = setting(
        "classifier", "finetune: what is learned from labels: classifier, or the task of a plug-in"
    )
    plugins: tuple[str, ...] = setting(
        (),
        "modules that add scores, quantizers, tasks, sources or trackers; installed ones need no "
        "name",
    )
    data: Data = Data()
    tokenizer: Tokenizer = Tokenizer()
    model: Model = Model()
    objective: Objective = Objective()
    budget: Budget = Budget()
    optimizer: Optimizer = Optimizer()
    init: Init = Init()
    recipe: str = setting(
        "dense", "prune, remove, quantize, finetune, joined by +: e.g. prune:0.75+quantize:4"
    )
    compress: Compress = Compress()
    eval: Eval = Eval()
    checkpoint: Checkpoint = Checkpoint()
    decode: Decode = Decode()
    impl: Impl = Impl()
    predict: Predict = Predict()
    analyze: Analyze = Analyze()
    compare: Compare = Compare()
    forecast: Forecast = Forecast()
    export: Export = Export()
    study: Study = Study()
    bench: Bench = Bench()
    plan: Plan = Plan()

    @property
    def microbatch(self) -> int:
        """Batch size per gradient accumulation step: the largest divisor up to impl.microbatch.

        Raises:
          ValueError: impl.microbatch=auto, which the command has to replace by a number first.
        """
        if isinstance(self.impl.microbatch, str):
            raise ValueError("impl.microbatch=auto was not settled")
        batch = self.optimizer.batch_size
        most = min(self.impl.microbatch or batch, batch)
        return next(size for size in range(most, 0, -1) if batch % size == 0)

    @property
    def microbatches(self) -> int:
        """Gradient accumulation steps per optimizer step."""
        return self.optimizer.batch_size // self.microbatch

    def without_test(self) -> Self:
        """The same config for what comes before the test, and must not depend on its data."""
        return dataclasses.replace(self, data=dataclasses.replace(self.data, test=""))

    def with_microbatch(self, microbatch: int) -> Self:
        """The same config with another impl.microbatch."""
        return dataclasses.replace(self, impl=dataclasses.replace(self.impl, microbatch=microbatch))
