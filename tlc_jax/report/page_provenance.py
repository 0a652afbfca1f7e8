"""Where a report's numbers come from: commands, machines, versions, data, seeds, configs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable
from html import escape
from typing import Any

from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR, Kind
from tlc_jax.statistics.records import Model, Study


def provenance(study: Study) -> str:
    """A list of facts and the configs of the training jobs."""
    packages = ["tlc_jax", "jax", "flax", "optax", "orbax-checkpoint", "aqtp", "numpy"]
    packages += ["sacrebleu", "sacremoses"] if TRANSLATOR in study.kinds else []
    versions = ", ".join(f"{name} {version}" for name in packages if (version := _version(name)))
    sources = sorted(
        {str(c.get("data", {}).get("train")) for c in study.configs.values() if c.get("data")}
    )
    facts = [
        *_recorded(study),
        ("this page was written by", f"tlc report --workdir={study.name}, on {platform.system()} "
         f"{platform.machine()} with {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"),
        ("data sources", ", ".join(sources)),
        ("seeds", "; ".join(sorted({text for model in study.models for text in _seeds(model)}))),
        *((f"{name} signature", ", ".join(study.signatures(name.lower()))) for name in ("BLEU", "chrF")),
        ("rows", f"{len(study.rows)} in results.jsonl; each number above names the jobs it is from, in jobs/NAME/"),
    ]  # fmt: skip
    rows = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts if value)
    return f"<dl>{rows}</dl>" + "".join(_configs(study, kind) for kind in study.kinds)


def _seeds(model: Model) -> Iterable[str]:
    for training, finetuning in model.scores:
        also = f", finetuning {finetuning}" if model.size.kind == ENCODER else ""
        yield f"{model.size.kind.training} {training}{also}"


def _configs(study: Study, kind: Kind) -> str:
    configs = "".join(
        f"<details><summary>{escape(name)}</summary><pre>{escape(_compact(config))}</pre></details>"
        for name, config in study.configs.items()
        if name.startswith(f"{kind.job}-")
    )
    return f"<h3>Configs of the {kind.training} jobs</h3>{configs or '<p>none found</p>'}"


def _recorded(study: Study) -> Iterable[tuple[str, str]]:
    """Command, machine, device and the like, where the study or its jobs wrote them down."""
    for field in ("command", "machine", "device", "devices", "platform", "python", "versions"):
        sources = [study.recorded, *study.results.values()]
        values = {_plain(source[field]) for source in sources if source.get(field)}
        if values:
            yield field, " | ".join(sorted(values))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return value if isinstance(value, str) else json.dumps(value)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _compact(config: Any) -> str:
    return "\n".join(f"{section}: {json.dumps(value)}" for section, value in config.items())
