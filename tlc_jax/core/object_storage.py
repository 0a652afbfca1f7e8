"""Paths in object storage, `gs://bucket/...` and `s3://bucket/...`, and leases on objects there.

A bucket holds whole objects: one is written or replaced at once, but neither appended to nor
renamed, and a folder is only what names have in common. Credentials are the libraries' own to find.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from tlc_jax.core.errors import Ending, InputError, StoppedEarly
from tlc_jax.core.files import scheme_of

LEASE_SECONDS = 60.0
"""A lease that was not renewed for so long is free."""
_POLL_SECONDS = 1.0
_CLOCKS_DIFFER = 300.0
_REQUEST_SECONDS = 20.0
_PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}
_EXTRAS = {"gs": "gcs", "s3": "s3"}
_DRIVERS = {"gs": "gcs", "s3": "s3"}


def open_path(text: str) -> Path:
    """A path in object storage, which is used like one of `pathlib`.

    Raises:
      InputError: the scheme is unknown, its package is not installed, or the bucket is not named.
    """
    scheme = scheme_of(text)
    if scheme not in _PACKAGES:
        raise InputError(f"{text}: {scheme}:// is not known; known: gs://, s3://, and local paths")
    if not text.partition("://")[2].strip("/"):
        raise InputError(f"{text} names no bucket: write {scheme}://BUCKET/FOLDER")
    if find_spec(_PACKAGES[scheme]) is None:
        raise InputError(
            f"{text} needs {_PACKAGES[scheme]}: pip install 'tlc_jax[{_EXTRAS[scheme]}]'"
        )
    return cast(Path, _path_class()(text))


@functools.cache
def _path_class() -> Any:
    import fsspec
    from upath import UPath, registry
    from upath.implementations.cloud import GCSPath, S3Path

    for name in ("gs", "gcs", "s3"):
        # Other processes and hosts write too, so what a folder held before says nothing. Orbax and
        # JAX open their own file systems: this is the setting for all of them.
        settings = fsspec.config.conf.setdefault(name, {})
        settings.setdefault("use_listings_cache", False)

    class Folders:
        """Answers as a disk does, but says nothing about a path that cannot be asked for."""

        fs: Any
        path: str

        def is_dir(self, *, follow_symlinks: bool = True) -> bool:
            return self._type() == "directory"

        def is_file(self, *, follow_symlinks: bool = True) -> bool:
            return self._type() == "file"

        def _type(self) -> str | None:
            # The libraries' own answers are False for every error, so that a run whose storage is
            # down for a moment would look like a new one.
            try:
                return str(self.fs.info(self.path)["type"])
            except FileNotFoundError:
                return None

        def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
            """Does nothing: a folder comes with its first object. The library makes buckets."""

        def expanduser(self) -> Any:
            return self

    for scheme, base in (("gs", GCSPath), ("s3", S3Path)):
        path_class = type(base.__name__, (Folders, base), {})
        registry.register_implementation(scheme, path_class, clobber=True)
    return UPath


def explain(error: BaseException) -> Ending | None:
    """How a command ends that object storage refused something; None for other errors."""
    text = " ".join(str(error).split())[:300]
    package = type(error).__module__.partition(".")[0]
    known = package in ("gcsfs", "s3fs", "aiohttp", "google", "botocore", "aiobotocore")
    # TensorStore, below Orbax, reports all by ValueErrors that begin with a status.
    status = text.partition(":")[0] if isinstance(error, ValueError) else ""
    if status == "PERMISSION_DENIED" or text.startswith("Forbidden: "):
        return InputError(f"access to object storage is denied ({text}): {_CREDENTIALS}")
    if (known or status == "UNAUTHENTICATED") and "credentials" in text.lower():
        return InputError(f"object storage wants credentials ({text}): {_CREDENTIALS}")
    if status == "NOT_FOUND" or (isinstance(error, FileNotFoundError) and error.errno is None):
        return InputError(
            f"object storage has no such object ({text}): it was removed, or the bucket is missing"
        )
    late = isinstance(error, TimeoutError) or status in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    if known or late:
        return StoppedEarly(f"object storage fails ({text}): run the same command again")
    return None


_CREDENTIALS = (
    "`gcloud auth application-default login` gives a person's; a machine's account needs the role "
    "Storage Object Admin on the bucket"
)


class _Objects:
    """The objects beside a path, with writes that depend on what is there: TensorStore's."""

    def __init__(self, path: Any) -> None:
        import tensorstore

        bucket, _, key = path.path.partition("/")
        folder, _, self.name = key.rpartition("/")
        spec = {
            "driver": _DRIVERS[path.protocol],
            "bucket": bucket,
            "path": f"{folder}/".lstrip("/"),
        }
        self._store = tensorstore.KvStore.open(spec).result(_REQUEST_SECONDS)

    def read(self) -> tuple[bytes | None, Any]:
        """The object's content, or None, and its generation."""
        found = self._store.read(self.name).result(_REQUEST_SECONDS)
        return (found.value if found.state == "value" else None), found.stamp.generation

    def write(self, content: bytes | None, generation: Any) -> Any:
        """Writes or, with None, deletes the object if it still has this generation.

        Returns:
          The new generation; empty if the object has another one.
        """
        done = self._store.write(self.name, content, if_equal=generation)
        return done.result(_REQUEST_SECONDS).generation


class HeldError(Exception):
    """Another process holds a lease; the text names it."""


class Lease:
    """An object that says who works in a place, renewed by a thread until `close`.

    The holder of a lease that is not renewed for LEASE_SECONDS is gone, and the next one takes it.
    Whether it is renewed is watched by the waiting process's own clock, so clocks need not agree.
    A process of this machine that has ended is not waited for.
    """

    def __init__(
        self, path: Path, wait: bool = True, on_wait: Callable[[], None] = lambda: None
    ) -> None:
        """Takes the lease.

        Args:
          path: its object.
          wait: whether to wait for a holder that renews it.
          on_wait: function that is called once before waiting for one.

        Raises:
          HeldError: another process renews it, and `wait` is False.
        """
        self._path, self._objects = path, _Objects(path)
        self._content = {"id": uuid.uuid4().hex, "holder": _describe(), "process": _own()}
        self._generation = self._take(wait, on_wait)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True, name=f"lease of {path}")
        self._thread.start()

    def _take(self, wait: bool, on_wait: Callable[[], None]) -> Any:
        watched: Any = None
        since, renewals, told = 0.0, 0, False
        while True:
            content, generation = self._objects.read()
            holder = _parse(content)
            if generation != watched:
                watched, since, renewals = generation, time.monotonic(), renewals + 1
            free = content is None or _ended(holder.get("process"))
            if free or time.monotonic() - since > LEASE_SECONDS:
                if taken := self._objects.write(self._bytes(), generation):
                    return taken
                continue
            if not wait and renewals > 1:
                raise HeldError(holder.get("holder", "unknown"))
            if wait and not told:
                on_wait()
                told = True
            time.sleep(_POLL_SECONDS)

    def _bytes(self) -> bytes:
        # Each time another content, or storage could keep the generation.
        return json.dumps({**self._content, "renewed": time.time()}).encode()

    def _renew(self) -> None:
        while not self._ending.wait(LEASE_SECONDS / 4):
            try:
                renewed = self._objects.write(self._bytes(), self._generation)
                if not renewed:
                    content, renewed = self._objects.read()
                    # Its own, if the answer to an earlier request was lost.
                    if _parse(content).get("id") != self._content["id"]:
                        self._lost(_parse(content).get("holder", "nobody"))
                self._generation = renewed
            except Exception:  # storage is away: as long as nobody takes it, the lease goes on
                continue

    def _lost(self, holder: str) -> None:
        if self._ending.is_set():
            return
        # At once and without saving: what this process would write is the other one's by now.
        print(
            f"tlc: stopped: {holder} took over {self._path.parent}, because this process could not "
            f"reach it for {LEASE_SECONDS:.0f} s",
            file=sys.stderr,
            flush=True,
        )
        os._exit(StoppedEarly.status)

    def close(self) -> None:
        """Ends the lease."""
        self._ending.set()
        self._thread.join()
        try:
            self._objects.write(None, self._generation)
        except Exception as error:  # it ends by itself
            print(f"tlc: {self._path} was not removed ({error})", file=sys.stderr)


def is_held(path: Path) -> bool:
    """Whether a lease exists whose holder is not known to have ended; never waits.

    It goes by the holder's clock, and allows for minutes of difference.
    """
    content, _ = _Objects(path).read()
    if content is None:
        return False
    holder = _parse(content)
    late = time.time() - holder.get("renewed", 0.0) > LEASE_SECONDS + _CLOCKS_DIFFER
    return not (late or _ended(holder.get("process")))


def _parse(content: bytes | None) -> dict[str, Any]:
    try:
        return dict(json.loads(content or b"{}"))
    except (ValueError, TypeError):
        return {}


def _describe() -> str:
    return f"{os.getpid()} on {socket.gethostname()}"


def _process(pid: int | None = None) -> list[Any]:
    """What tells a process from all others: machine, boot, container, number and start.

    Raises:
      OSError: it has ended, or this system does not say.
    """
    pid = os.getpid() if pid is None else pid
    started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return [platform.node(), boot, os.readlink("/proc/self/ns/pid"), pid, started]


def _ended(process: Any) -> bool:
    """Whether a process of this machine has ended; False for those of others."""
    if not process or process[:3] != _own()[:3]:
        return False
    try:
        return _process(process[3]) != process
    except OSError:
        return True


def _own() -> list[Any]:
    try:
        return _process()
    except OSError:  # not Linux
        return []
