"""A run's directory: one config, one process at a time, files that are whole or not there."""

from __future__ import annotations

import fcntl
import json
import os
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Self

from tlc_jax import config as configs
from tlc_jax.core.errors import InputError

# Settings that may differ between two runs of one workdir: they change how a run goes, not what it is.
MAY_DIFFER: tuple[str, ...] = ("impl", "checkpoint", "bench", "predict")


class InUse(InputError):
    """Another process works in the workdir."""


class Lock:
    """Sole use of a workdir, until closed or until the process ends, however it ends."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()


def claim(workdir: Path, config: configs.Config, ignore: Iterable[str] = MAY_DIFFER) -> Lock:
    """Takes `workdir` for a run of `config`: makes it, locks it, and writes `config.json`.

    Args:
      workdir: directory, made where it does not exist.
      config: the resolved config of this run.
      ignore: settings or whole sections that may differ from those of an earlier run in the same workdir.

    Raises:
      InputError: another process uses the workdir, or it holds a run of another config; the message names the fields.
    """
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"--workdir={workdir} is a file: name a directory")
    workdir.mkdir(parents=True, exist_ok=True)
    lock = _lock(workdir)
    try:
        _settle_config(workdir / "config.json", config, tuple(ignore))
    except BaseException:
        lock.close()
        raise
    return lock


def _lock(workdir: Path) -> Lock:
    # "a+" neither truncates nor needs the file: the holder's number stays readable to the one who is turned away.
    file = (workdir / ".lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise InUse(
            f"{workdir} is in use by another process ({holder}): wait for it, or choose another --workdir"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return Lock(file)


def _settle_config(path: Path, config: configs.Config, ignore: tuple[str, ...]) -> None:
    new = configs.to_dict(config)
    if path.exists():
        old = configs.to_dict(read_config(path))
        rows = configs.differences(old, new)
        differing = [row for row in rows if not _covered(row.partition(": ")[0], ignore)]
        if differing:
            raise InputError(
                f"{path.parent} holds a run of another config ({'; '.join(differing)}): "
                "choose another --workdir, or give the same settings"
            )
        if not rows:
            return
    write_json(path, new)


def _covered(name: str, prefixes: Iterable[str]) -> bool:
    """Whether a dotted name is one of `prefixes` or lies inside one."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def config_of_run(source: str) -> Path:
    """The config.json of the run that a workdir, one of its checkpoints or its artifact belongs to.

    Raises:
      InputError: there is none.
    """
    if source.startswith("hf:"):
        raise InputError(f"{source} comes without settings of tlc: give some with --config=FILE.py")
    path = Path(source).absolute()
    if not path.exists():
        raise InputError(f"--init={source} does not exist")
    # A checkpoint is WORKDIR/checkpoints/STEP, an artifact WORKDIR/artifact/model.safetensors: never deeper.
    for folder in (path, *path.parents[:2]):
        if (candidate := folder / "config.json").is_file():
            return candidate
    raise InputError(
        f"no config.json in or above {source}: give the settings with --config=FILE.py"
    )


def read_config(path: Path) -> configs.Config:
    """The resolved config stored in a `config.json`.

    Raises:
      InputError: the file is missing, cut short, or no config of this version.
    """
    stored = read_json(path)
    try:
        return configs.resolve(stored)
    except InputError as error:
        raise InputError(f"{path} is not a config of this version of tlc_jax ({error})") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
      InputError: it is missing, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not JSON, perhaps cut short ({error})") from error


def write_json(path: Path, content: Any) -> None:
    """Writes JSON so that a reader finds the old file or the new one, never a part, even after a crash.

    Mappings of any kind, tuples, and NumPy or JAX scalars and arrays are written as plain JSON.
    """
    text = json.dumps(content, indent=2, default=_jsonable) + "\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
