"""Files are whole or not there; a lock ends with its process."""

import signal
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest

from tlc_jax.core import files
from tlc_jax.core.errors import InputError


def test_json_of_mappings_arrays_and_paths(tmp_path):
    path = tmp_path / "x.json"
    frozen = types.MappingProxyType({"a": 1})
    files.write_json(
        path,
        {"s": np.float32(0.5), "a": np.arange(2), "t": (1, 2), "f": frozen, "p": Path("p")},
    )
    assert files.read_json(path) == {"s": 0.5, "a": [0, 1], "t": [1, 2], "f": {"a": 1}, "p": "p"}


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"good": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"bad": object()})
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        files.write_json(tmp_path / "folder", {"good": 1})
    (tmp_path / "folder").rmdir()
    assert files.read_json(path) == {"good": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_atomic_keeps_the_suffix(tmp_path):
    with files.atomic(tmp_path / "x.npz") as temporary:
        np.savez(temporary, a=np.arange(3))
        assert not (tmp_path / "x.npz").exists()
    assert np.load(tmp_path / "x.npz")["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("content", [b'{"cut": ', b"\xff"])
def test_unreadable_json_is_named(tmp_path, content):
    with pytest.raises(InputError, match="result.json does not exist"):
        files.read_json(tmp_path / "result.json")
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(InputError, match="bad.json is not JSON, perhaps cut short"):
        files.read_json(tmp_path / "bad.json")


def test_lock_is_exclusive_and_names_its_holder(tmp_path):
    path = tmp_path / "made" / ".lock"
    assert not files.is_locked(path)
    with files.Lock(path):
        assert files.is_locked(path) and files.is_locked(path)
        with pytest.raises(files.LockedError, match=r"process \d+"):
            files.Lock(path, wait=False)
    assert not files.is_locked(path)
    files.Lock(path, wait=False).close()


def test_lock_waits(tmp_path):
    waits = threading.Event()
    lock = files.Lock(tmp_path / "lock")

    def take():
        files.Lock(tmp_path / "lock", on_wait=waits.set).close()

    other = threading.Thread(target=take)
    other.start()
    assert waits.wait(10) and other.is_alive()
    lock.close()
    other.join(10)
    assert not other.is_alive()


def test_killed_process_releases_its_lock(tmp_path):
    code = (
        "import pathlib, sys, time; from tlc_jax.core.files import Lock; "
        "lock = Lock(pathlib.Path(sys.argv[1])); print('locked', flush=True); time.sleep(60)"
    )
    path = tmp_path / "lock"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "locked\n"
        assert files.is_locked(path)
        with pytest.raises(files.LockedError) as refused:
            files.Lock(path, wait=False)
        assert refused.value.holder == str(holder.pid)
        holder.send_signal(signal.SIGKILL)
    assert not files.is_locked(path)
