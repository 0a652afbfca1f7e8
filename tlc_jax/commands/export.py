"""Write a model, dense or compressed, for other systems: as a Hugging Face folder, or as ONNX.

--init names a workdir, a checkpoint or an artifact; without --config the settings of the run it
belongs to are used. --workdir gets one folder, whole or not at all:

huggingface/ (export.format=hf; encoders): config.json, model.safetensors and the tokenizer, for
`from_pretrained`. Weights are float32; those of a compressed model are the values that its artifact
stands for, with zeros where it is pruned.
onnx/ (export.format=onnx, extra `onnx`): model.onnx with the inputs tokens and mask (1 at real
tokens), both int64 [batch, length], and the output logits; and the tokenizer. Weights of a packed
artifact stay integers of 8 or 4 bits in the file, and stand for the artifact's values to the bit.
Of a translator: encoder.onnx and decoder.onnx, which decodes one token at a time with a cache.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from tlc_jax.compression.artifact import load_artifact
from tlc_jax.config import Config
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import atomic_folder, read_json, write_json
from tlc_jax.interop import huggingface_export, onnx_export
from tlc_jax.interop.tokenizer_json import tokenizer_files
from tlc_jax.models.network import Network
from tlc_jax.runs import saved_model, session
from tlc_jax.runs.saved_model import SavedModel
from tlc_jax.tasks.masked_lm import require_head

_FOLDERS = {"hf": "huggingface", "onnx": "onnx"}


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Exports into `workdir`; returns the content of result.json."""
    saved_model.find(config.init.source)
    # Before the workdir is claimed, so that a refusal leaves nothing behind.
    if config.export.format == "onnx":
        onnx_export.require_packages()
    _refuse_other_content(workdir)
    result = session.run_once(workdir, config, lambda config: _export(config, workdir))
    print(json.dumps(result, indent=2))
    return result


def _refuse_other_content(workdir: Path) -> None:
    """Raises `InputError` if the workdir holds another command's run, or something else."""
    # Hidden files do not count: a run that was refused or killed leaves its lock.
    if not workdir.is_dir() or all(path.name.startswith(".") for path in workdir.iterdir()):
        return
    result, holds = workdir / "result.json", ""
    if not (workdir / "config.json").exists():
        holds = "something else"
    elif result.exists() and read_json(result).get("stage") != "export":
        holds = "the run of another command"
    if holds:
        raise InputError(f"--workdir={workdir} holds {holds}: name an empty directory or a new one")


def _export(config: Config, workdir: Path) -> dict[str, Any]:
    start = saved_model.load(config.init.source, config.impl, config.tokenizer.path)
    translates = start.kind == "translator"
    if start.kind not in ("mlm", "encoder", "classifier", "translator"):
        raise InputError(f"{start.path} is a {start.kind}, which cannot be exported")
    if translates and config.export.format == "hf":
        raise InputError(
            f"{start.path} is a translator, and the Hugging Face folder is for encoders: "
            "set --config.export.format=onnx"
        )
    require_head(start)
    network = start.network(config.impl)
    write = _write_huggingface if config.export.format == "hf" else _write_onnx
    folder = workdir / _FOLDERS[config.export.format]
    with atomic_folder(folder) as part:
        facts = write(part, start, network)
        tokenizer = tokenizer_files(
            start.tokenizer, start.model.max_length, start.model.token_types, start=not translates
        )
        for name, content in tokenizer.items():
            (part / name).write_bytes(content)
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir(), key=str)}
    session.say(f"{folder}: {sum(sizes.values()):,} bytes")
    return {
        "stage": "export",
        "init": str(start.path),
        "kind": start.kind,
        "recipe": start.recipe,
        **session.size_numbers(network),
        "format": config.export.format,
        "folder": folder.name,
        **facts,
        "files": sizes,
        "bytes": sum(sizes.values()),
    }


def _write_huggingface(folder: Path, start: SavedModel, network: Network) -> dict[str, Any]:
    weights = huggingface_export.tensors(network, start.params)
    # transformers refuses a file that does not name its framework in `format`.
    (folder / "model.safetensors").write_bytes(save(weights, {"format": "pt"}))
    content = huggingface_export.config_json(network, start.labels, start.tokenizer.special)
    write_json(folder / "config.json", content)
    return {"architecture": content["architectures"][0], "types": {"float32": len(weights)}}


def _write_onnx(folder: Path, start: SavedModel, network: Network) -> dict[str, Any]:
    quantized = load_artifact(start.path).quantized if start.path.is_file() else {}
    metadata = {**start.meta, "recipe": start.recipe}
    model = network, start.params, quantized, metadata
    if start.kind == "translator":
        types = onnx_export.write_translator(folder, *model)
    else:
        types = onnx_export.write(folder / "model.onnx", *model)
    if floats := [path for path, q in quantized.items() if not onnx_export.stays_integer(q)]:
        session.say(
            f"as float32, since ONNX cannot express how they are quantized: {', '.join(floats)}"
        )
    return {"opset": onnx_export.OPSET, "types": types}
