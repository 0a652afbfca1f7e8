"""Paths, logs and leases in object storage, on a server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tlc_jax.core import files, json_lines, object_storage
from tlc_jax.core.errors import InputError, StoppedEarly
from tlc_jax.core.files import Lock, LockedError, path_of


@pytest.fixture
def place(storage) -> Path:
    return storage.folder("place")


def test_a_path_is_used_like_one_on_a_disk(place) -> None:
    assert not place.exists() and not place.is_dir()
    files.write_json(place / "jobs" / "a" / "config.json", {"path": place})
    assert files.read_json(place / "jobs" / "a" / "config.json") == {"path": str(place)}
    assert place.is_dir() and not place.is_file() and (place / "jobs/a/config.json").is_file()
    assert [str(path) for path in place.glob("jobs/*/config.json")] == [
        f"{place}/jobs/a/config.json"
    ]
    assert [path.name for path in (place / "jobs").iterdir()] == ["a"]
    assert place.absolute() == place and str(place).startswith("gs://tests/")
    files.remove_folder(place)
    assert not place.exists()
    files.remove_folder(place)


def test_a_file_appears_whole_or_not_at_all(place) -> None:
    with files.atomic(place / "a.bin") as temporary:
        temporary.write_bytes(b"1")
        assert not (place / "a.bin").exists()
    with pytest.raises(RuntimeError), files.atomic(place / "a.bin") as temporary:
        temporary.write_bytes(b"2")
        raise RuntimeError
    assert (place / "a.bin").read_bytes() == b"1"
    with files.local_copy(place / "a.bin") as local:
        assert local.read_bytes() == b"1"
    assert not local.exists()


def test_a_folder_takes_the_place_of_another(place) -> None:
    for name in ("first", "second"):
        with files.atomic_folder(place) as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / name).write_text(name)
    assert [path.name for path in (place / "inner").iterdir()] == ["second"]
    assert files.folder_bytes(place) == len("second")


def test_rows_of_a_log_are_stored_in_segments(place, monkeypatch) -> None:
    monkeypatch.setattr(json_lines, "_FULL", 40)
    log, everything = place / "metrics.jsonl", lambda row: True
    assert json_lines.read(log) == []
    with json_lines.JsonLines(log, everything) as rows:
        for step in range(5):
            rows.add({"step": step, "event": "train"})
            rows.flush()
    assert [row["step"] for row in json_lines.read(log)] == list(range(5))
    names = sorted(path.name for path in place.iterdir())
    assert names == ["metrics-00000.jsonl", "metrics-00001.jsonl", "metrics-00002.jsonl"]
    # A session that resumes from step 2 drops what came after it, and adds a segment of its own.
    with json_lines.JsonLines(log, lambda row: row["step"] <= 2) as rows:
        rows.add({"step": 3, "event": "again"})
    assert [(row["step"], row["event"]) for row in json_lines.read(log)][2:] == [
        (2, "train"),
        (3, "again"),
    ]


def test_rows_wait_while_storage_is_away(storage, place, monkeypatch, capsys) -> None:
    monkeypatch.setattr(json_lines, "SECONDS", 0.1)
    with json_lines.JsonLines(place / "metrics.jsonl", lambda row: True) as rows:
        storage.stop()
        started = time.monotonic()
        rows.add({"step": 1})
        assert time.monotonic() - started < 0.1
        time.sleep(1.0)
        storage.start()
    assert json_lines.read(place / "metrics.jsonl") == [{"step": 1}]


def test_a_lease_is_held_by_one_and_ends_with_close(place, monkeypatch) -> None:
    monkeypatch.setattr(object_storage, "LEASE_SECONDS", 2.0)
    monkeypatch.setattr(object_storage, "_POLL_SECONDS", 0.05)
    assert not files.is_locked(place / ".lock")
    with Lock(place / ".lock"):
        assert files.is_locked(place / ".lock")
        # Renewed four times in two seconds: not taken over.
        with pytest.raises(LockedError, match=r"process \d+ on "):
            Lock(place / ".lock", wait=False)
        waited: list[str] = []
        other = threading.Thread(
            target=lambda: Lock(place / ".lock", on_wait=lambda: waited.append("")).close()
        )
        other.start()
        time.sleep(3.0)
        assert other.is_alive() and waited == [""]
    other.join(10)
    assert not other.is_alive() and not files.is_locked(place / ".lock")


def test_two_at_once_do_not_both_get_a_lease(place, monkeypatch) -> None:
    monkeypatch.setattr(object_storage, "_POLL_SECONDS", 0.01)
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(5):
            with Lock(place / ".lock"):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.01)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1]


HOLD = """
import os, sys, time
from tlc_jax.core import object_storage
from tlc_jax.core.files import Lock, path_of
object_storage.LEASE_SECONDS = float(sys.argv[2])
lock = Lock(path_of(sys.argv[1]))
print("held", flush=True)
time.sleep(100)
"""


def held_by_another(place: Path, seconds: float = 60.0) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLD, str(place / ".lock"), str(seconds)]
    pipe = subprocess.PIPE
    holder = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    return holder


def test_the_lease_of_a_killed_process_of_this_machine_is_free_at_once(place) -> None:
    holder = held_by_another(place)
    assert files.is_locked(place / ".lock")
    holder.kill()
    holder.communicate()
    assert not files.is_locked(place / ".lock")
    started = time.monotonic()
    Lock(place / ".lock", wait=False).close()
    assert time.monotonic() - started < 5.0


def test_the_lease_of_a_machine_that_is_gone_ends_by_itself(place, monkeypatch) -> None:
    monkeypatch.setattr(object_storage, "LEASE_SECONDS", 2.0)
    gone = {"id": "0", "holder": "7 on elsewhere", "process": ["elsewhere", "", "", 7, "0"]}
    files.write_text(place / ".lock", json.dumps(gone | {"renewed": time.time() - 600}))
    assert not files.is_locked(place / ".lock")
    files.write_text(place / ".lock", json.dumps(gone | {"renewed": time.time()}))
    assert files.is_locked(place / ".lock")
    started = time.monotonic()
    Lock(place / ".lock", wait=False).close()
    assert 2.0 <= time.monotonic() - started < 10.0


def test_a_lease_outlasts_a_server_that_is_away(storage, place, monkeypatch) -> None:
    monkeypatch.setattr(object_storage, "LEASE_SECONDS", 4.0)
    monkeypatch.setattr(object_storage.os, "_exit", lambda status: pytest.fail("lease lost"))
    with Lock(place / ".lock"):
        storage.stop()
        time.sleep(2.0)
        storage.start()
        time.sleep(3.0)
        assert files.is_locked(place / ".lock")


def test_a_process_whose_lease_was_taken_over_ends(place) -> None:
    holder = held_by_another(place, seconds=1.0)
    files.write_text(
        place / ".lock", json.dumps({"id": "1", "holder": "7 on elsewhere", "renewed": time.time()})
    )
    _, errors = holder.communicate(timeout=30)
    assert holder.returncode == StoppedEarly.status
    assert f"tlc: stopped: 7 on elsewhere took over {place}" in errors
    assert files.is_locked(place / ".lock")  # the other one's is not removed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gs://", "names no bucket: write gs://BUCKET/FOLDER"),
        ("ftp://host/a", "ftp:// is not known; known: gs://, s3://, and local paths"),
        ("s3://bucket/a", r"needs s3fs: pip install 'tlc_jax\[s3\]'"),
    ],
)
def test_a_path_that_cannot_be_used_says_why(text, says, monkeypatch) -> None:
    monkeypatch.setattr(object_storage, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=says):
        path_of(text)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("gs://no-such-bucket/run/.lock", "no such object .*bucket is missing"),
        ("gs://forbidden/run/.lock", "access to object storage is denied .*Storage Object Admin"),
    ],
)
def test_a_bucket_that_refuses_is_named(storage, path, says) -> None:
    with pytest.raises(Exception) as caught:
        Lock(path_of(path))
    ending = object_storage.explain(caught.value)
    assert isinstance(ending, InputError)
    assert re.search(says, str(ending))
    with pytest.raises(Exception) as caught:
        files.write_text(path_of(path), "a")
    assert isinstance(object_storage.explain(caught.value), InputError)
