"""Say what fits, how fast, and what the budget buys, before anything is trained.

Compiles the real training step ahead of time: for the devices at hand, or with
--config.plan.topology=v5e:16x16 or h100:8 for TPUs or GPUs that need not be there (slices of v4,
v5e, v5p, v6e, extra `tpu`; one host of h200, h100, a100, l40s, l4, a10, extra `cuda`). Plans for
the encoder of `model`, or for each in study.sizes and study.translators (translators on batches as
wide as data.length). Searches for the largest microbatch that fits by compiling, whatever
impl.microbatch says. Reads no data: the vocabulary is tokenizer.vocab_size, and epochs are known
once `tlc prepare` has packed data.train into data.cache. Step times of devices at hand are measured
(plan.seconds). Those of a slice are estimates by the compiler's own cost model, plus the time that
collectives would take if nothing hid them. Those of GPUs are the program's roofline times 1.27, as
measured on an H200. What was compiled is remembered in compilations/ in the workdir.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from tlc_jax.config import Config, merge, parse_size, resolve, to_dict
from tlc_jax.core import distributed
from tlc_jax.core.files import write_json
from tlc_jax.planning import plan_text
from tlc_jax.planning.model_plan import Target, plan_model
from tlc_jax.runs import session


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Plans, prints the plan, and writes result.json again.

    Raises:
      InputError: the slice or the host is unknown, its compiler is missing, or a batch or a mesh
        does not fit the devices.
    """
    del options
    models, target = _models(config), Target.of(config)
    workdir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if not (target.chip or jax.config.values["jax_compilation_cache_dir"]):
            # Programs for devices at hand are kept, so that timing one does not compile it again.
            stack.enter_context(session.compilation_cache(workdir / session.PROGRAMS))
        plans = [plan_model(kind, one, target, workdir) for kind, one in models]
    result = {"stage": "plan", **target.facts(), "plans": plans}
    if distributed.first():
        write_json(workdir / "result.json", result)
        print(plan_text.describe(result))
    return result


def _models(config: Config) -> list[tuple[str, Config]]:
    """The kind of each model to plan for, and its config."""
    study, base = config.study, to_dict(config)
    sizes: list[tuple[str, str, Mapping[str, Any]]] = [("mlm", size, {}) for size in study.sizes]
    sizes += [("translator", size, study.translation) for size in study.translators]
    models = []
    for kind, size, settings in sizes:
        layers, hidden = parse_size(size)
        model = {"model": {"layers": layers, "hidden": hidden}}
        models.append((kind, resolve(merge(base, settings, model))))
    return models or [("mlm", config)]
