"""Files that are made once and trusted only with a manifest that vouches for them.

A product is a data file and, beside it, a JSON manifest that is written last. The manifest repeats the identity of
what the product was made from and the size of the data file, so that a stale, half-written or cut file is never used.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tlc_jax.core.errors import InputError
from tlc_jax.core.files import Lock, write_json

Facts = dict[str, Any]


class NotMade(Exception):
    """What was asked for is not in the cache, and was not to be made."""


def cached(
    target: Path, identity: Mapping[str, Any], build: Callable[[Path], Facts] | None
) -> tuple[Facts, bool]:
    """Makes sure that `target` is there, made from what `identity` says. Processes may do so at the same time.

    Args:
      target: the data file.
      identity: plain JSON values that decide its content.
      build: writes the data to the path that it is given and returns facts to be kept in the manifest; None: nothing
        is to be made.

    Returns:
      the manifest (identity, facts, "bytes"), and whether it was there already.

    Raises:
      InputError: the file cannot be written.
      NotMade: it is not there, and `build` is None.
    """
    if manifest := _valid(target, identity):
        return manifest, True
    if build is None:
        raise NotMade(target)
    part = target.with_name(f"{target.name}.part")
    try:
        with _locked(target):
            if manifest := _valid(
                target, identity
            ):  # another process made it while this one waited
                return manifest, True
            try:
                facts = build(part)
                return _settle(part, target, {**identity, **facts}), False
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"cannot write {target}: {reason}; make room there, or set data.cache elsewhere"
        ) from error


def manifest_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _valid(target: Path, identity: Mapping[str, Any]) -> Facts | None:
    """The manifest, if it vouches for the data file as it is and for this identity."""
    try:
        manifest = json.loads(manifest_path(target).read_text(encoding="utf-8"))
        size = target.stat().st_size
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or manifest.get("bytes") != size:
        return None
    return (
        manifest if all(manifest.get(name) == value for name, value in identity.items()) else None
    )


def _settle(part: Path, target: Path, manifest: Facts) -> Facts:
    """Puts the finished data in place; at no moment does a manifest stand beside data it does not describe."""
    _flush_to_disk(part)
    manifest = {**manifest, "bytes": part.stat().st_size}
    path = manifest_path(target)
    path.unlink(missing_ok=True)
    part.replace(target)
    write_json(path, manifest)
    return manifest


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _locked(target: Path) -> Lock:
    """Sole right to make `target`."""
    notice = f"waiting for another process that is making {target}"
    return Lock(
        target.with_name(f"{target.name}.lock"),
        on_wait=lambda: print(notice, file=sys.stderr, flush=True),
    )
