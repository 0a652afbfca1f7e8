"""A run's directory, which holds one config and serves one process at a time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tlc_jax.config import Config, differences, resolve, to_dict
from tlc_jax.config.resolve import RESOLVED
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import Lock, LockedError, path_of, read_json, write_json

# Settings that may differ between two runs of one workdir: they change how a run goes, not what it
# computes. A run keeps the step time that it began with.
MAY_DIFFER: tuple[str, ...] = ("impl", "checkpoint", "bench", "predict", "budget.benchmarks")


class InUse(InputError):
    """Another process is using the workdir."""


def claim(workdir: Path, config: Config, ignore: Iterable[str] = MAY_DIFFER) -> Lock:
    """Makes and locks the workdir of a run, and writes its `config.json`.

    Args:
      workdir: folder of the run, made where it does not exist.
      config: the resolved config of the run.
      ignore: settings or whole sections that may differ from those of an earlier run in the same
        workdir.

    Raises:
      InputError: another process uses the workdir, or it holds a run of another config; the message
        names the fields.
    """
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"--workdir={workdir} is a file: name a directory")
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        lock = Lock(workdir / ".lock", wait=False)
    except LockedError as error:
        raise InUse(
            f"{workdir} is in use by another process ({error.holder}): "
            "wait for it, or choose another --workdir"
        ) from None
    try:
        _write_config(workdir / "config.json", config, ignore)
    except BaseException:
        # Without the lock, the next command would be told that this process still works here.
        lock.close()
        raise
    return lock


def _write_config(path: Path, config: Config, ignore: Iterable[str]) -> None:
    """Writes the config, unless the workdir holds a run of another one."""
    new = to_dict(config)
    if path.exists():
        rows = differences(to_dict(read_config(path)), new)
        # A row is "SECTION.SETTING: old -> new".
        ignored = tuple(f"{name}{end}" for name in ignore for end in ".:")
        if refused := [row for row in rows if not row.startswith(ignored)]:
            raise InputError(
                f"{path.parent} holds a run of another config ({'; '.join(refused)}): "
                "choose another --workdir, or give the same settings"
            )
        # An unchanged file stays as it is, for whoever reads it while a second command comes.
        if not rows:
            return
        # What the run chose for `auto` stays with it. Older versions had a value for each setting.
        stored = read_json(path)
        new[RESOLVED] = stored.get(RESOLVED, {"impl": stored.get("impl", {})})
    write_json(path, new)


def data_cache(config: Config, workdir: Path) -> Path:
    """The folder for packed and tokenized data: data.cache, or data/ in the workdir."""
    return path_of(config.data.cache) if config.data.cache else workdir / "data"


def config_of_run(source: str) -> Path:
    """The config.json of the run that a workdir, a checkpoint or an artifact belongs to.

    Raises:
      InputError: there is none.
    """
    if source.startswith("hf:"):
        raise InputError(f"{source} comes without settings of tlc: give some with --config=FILE.py")
    path = path_of(source).absolute()
    if not path.exists():
        raise InputError(f"--init={source} does not exist")
    # A checkpoint is WORKDIR/checkpoints/STEP, an artifact WORKDIR/artifact/model.safetensors:
    # never deeper.
    for folder in (path, *path.parents[:2]):
        if (candidate := folder / "config.json").is_file():
            return candidate
    raise InputError(
        f"no config.json in or above {source}: give the settings with --config=FILE.py"
    )


def read_config(path: Path) -> Config:
    """The resolved config stored in a `config.json`.

    Raises:
      InputError: the file is missing, cut short, or not a config of this version.
    """
    stored = read_json(path)
    try:
        return resolve(stored)
    except InputError as error:
        raise InputError(f"{path} is not a config of this version of tlc_jax ({error})") from error
