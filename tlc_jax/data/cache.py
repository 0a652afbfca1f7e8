"""Files that are made once and used only with a manifest that fits them.

Beside each data file lies a JSON manifest, which is written last. It repeats what the file was made
from and how large it is, so that an outdated, half-written or truncated file is never used.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from tlc_jax.config import Config
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import Lock, download, is_remote, upload, write_json
from tlc_jax.data.sources import Reader, Source, open_source
from tlc_jax.data.tokenizer import Tokenizer, dtype_for

Facts = dict[str, Any]

FORMAT = 1
"""To be raised when the same sources would be tokenized, packed or filtered differently."""


class NotMade(Exception):
    """The cache lacks a file, and the caller wanted nothing to be made."""


def cached(
    target: Path, identity: Mapping[str, Any], build: Callable[[Path], Facts] | None
) -> tuple[Path, Facts, bool]:
    """Makes sure that `target` exists, made from `identity`. Several processes may do so at once.

    A target in object storage is made once for all machines, and each gets a copy on its disk.

    Args:
      target: path of the data file.
      identity: plain JSON values that determine its content.
      build: writes the data to the path it is given and returns facts for the manifest; None: the
        file must be there already.

    Returns:
      A local path of the file, the manifest (identity, facts, "bytes"), and whether the file was
      there already.

    Raises:
      InputError: the file cannot be written.
      NotMade: the file is not there, and `build` is None.
    """
    if is_remote(target):
        return _cached_remotely(target, identity, build)
    if manifest := _valid(target, identity):
        return target, manifest, True
    if build is None:
        raise NotMade(target)
    notice = f"waiting for another process that is making {target}"
    part, lock = (target.with_name(f"{target.name}.{end}") for end in ("part", "lock"))
    try:
        with Lock(lock, on_wait=lambda: print(notice, file=sys.stderr, flush=True)):
            # Another process may have made it while this one waited.
            if manifest := _valid(target, identity):
                return target, manifest, True
            try:
                facts = build(part)
                # To disk first: some file systems would rename at once and write later.
                with part.open("rb") as file:
                    os.fsync(file.fileno())
                manifest = {**identity, **facts, "bytes": part.stat().st_size}
                # The old manifest goes first and the new one comes last, so that a manifest never
                # lies beside data that it does not describe.
                manifest_path(target).unlink(missing_ok=True)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
            write_json(manifest_path(target), manifest)
            return target, manifest, False
    except OSError as error:
        reason = f"{error.strerror or error}; make room there, or set data.cache elsewhere"
        raise InputError(f"cannot write {target}: {reason}") from error


def _cached_remotely(
    target: Path, identity: Mapping[str, Any], build: Callable[[Path], Facts] | None
) -> tuple[Path, Facts, bool]:
    """`cached` for a target in object storage; the local copy is a cached file of its own."""
    there = True

    def fetch(part: Path) -> Facts:
        nonlocal there
        if not (manifest := _valid(target, identity)):
            if build is None:
                raise NotMade(target)
            notice = f"waiting for another machine that is making {target}"
            lock = target.with_name(f"{target.name}.lock")
            with Lock(lock, on_wait=lambda: print(notice, file=sys.stderr, flush=True)):
                if not (manifest := _valid(target, identity)):
                    there = False
                    manifest = {**identity, **build(part), "bytes": part.stat().st_size}
                    manifest_path(target).unlink(missing_ok=True)
                    upload(part, target)
                    write_json(manifest_path(target), manifest)
                    return manifest
        download(target, part)
        return manifest

    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "tlc_jax" / "data" / digest(str(target.parent))
    folder.mkdir(parents=True, exist_ok=True)
    path, manifest, _ = cached(folder / target.name, identity, fetch)
    return path, manifest, there


def cached_tokens(
    prefix: str,
    source: Source,
    config: Config,
    tokenizer: Tokenizer,
    cache: Path,
    write: Callable[[Reader, IO[bytes]], Mapping[str, Any]],
    make: bool = True,
    **options: Any,
) -> tuple[Path, Facts]:
    """The tokens of one source, from the cache or made now.

    Args:
      prefix: beginning of the file's name.
      source: the source.
      config: `data` matters.
      tokenizer: gives the ids.
      cache: folder of the cache.
      write: writes tokens of type `dtype_for(vocab_size)` and returns facts for the manifest.
      make: write the file where the cache lacks it.
      **options: further settings that determine the content.

    Returns:
      A local path of the file, and its manifest with "cached": whether it was there already.
    """
    data = config.data
    # A changed text goes to the place of the old one; another tokenizer or length has its own.
    place = [source.kind, source.location, source.split, data.text, data.pair, data.length]
    target = cache / f"{prefix}-{source.name}-{digest([*place, tokenizer.hash])}.bin"
    identity = {
        "format": FORMAT,
        "fingerprint": open_source(source, data).fingerprint(),
        "tokenizer_hash": tokenizer.hash,
        "length": data.length,
        **options,
        "dtype": dtype_for(tokenizer.vocab_size).name,
    }

    def build(part: Path) -> Facts:
        start = time.monotonic()
        with part.open("wb") as out:
            facts = write(open_source(source, data), out)
        # A new reader, because a file may have come or gone as well.
        if open_source(source, data).fingerprint() != identity["fingerprint"]:
            raise InputError(f"{source.spec} changed while it was read: wait until it is complete")
        return {"spec": source.spec, **facts, "seconds": time.monotonic() - start}

    path, manifest, was_there = cached(target, identity, build if make else None)
    return path, {**manifest, "cached": was_there}


def digest(value: Any) -> str:
    """A short hash of plain JSON values, for the names of files in the cache."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def manifest_path(target: Path) -> Path:
    """The manifest of a data file."""
    return target.with_name(f"{target.name}.json")


def _valid(target: Path, identity: Mapping[str, Any]) -> Facts | None:
    """The manifest, if it fits this identity and the size of the data file."""
    try:
        manifest = json.loads(manifest_path(target).read_text(encoding="utf-8"))
        expected = {**manifest, **identity, "bytes": target.stat().st_size}
    except (OSError, ValueError, TypeError):  # missing, not JSON, or not an object
        return None
    return manifest if manifest == expected else None
