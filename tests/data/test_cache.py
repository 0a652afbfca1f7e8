from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tlc_jax.data.cache import cached, manifest_path

IDENTITY = {"made from": "x", "length": 3}


def build(part: Path) -> dict[str, Any]:
    time.sleep(0.2)
    part.write_bytes(b"abc")
    return {"rows": 1}


def build_and_count(target: Path) -> None:
    def counting(part: Path) -> dict[str, Any]:
        with target.with_name("builds").open("a") as file:
            file.write("x")
        return build(part)

    cached(target, IDENTITY, counting)


def test_the_manifest_holds_identity_and_facts(tmp_path: Path) -> None:
    _, manifest, was_there = cached(tmp_path / "a.bin", IDENTITY, build)
    assert manifest == {**IDENTITY, "rows": 1, "bytes": 3} and not was_there
    assert json.loads(manifest_path(tmp_path / "a.bin").read_text()) == manifest
    assert cached(tmp_path / "a.bin", IDENTITY, build) == (tmp_path / "a.bin", manifest, True)
    assert cached(tmp_path / "a.bin", {**IDENTITY, "length": 4}, build)[2] is False


def test_concurrent_callers_build_once(tmp_path: Path) -> None:
    """Threads do as well as processes: the lock belongs to an open file."""
    target = tmp_path / "a.bin"
    threads = [threading.Thread(target=build_and_count, args=(target,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.with_name("builds").read_text() == "x"


HANGING_MAKER = """
import sys, time
from pathlib import Path
from tlc_jax.data.cache import cached

def hang(part):
    part.write_bytes(b"ab")
    print("half written", flush=True)
    time.sleep(60)

cached(Path(sys.argv[1]), {"made from": "x", "length": 3}, hang)
"""


def test_a_killed_build_leaves_no_lock_and_no_valid_file(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    with subprocess.Popen(
        [sys.executable, "-c", HANGING_MAKER, str(target)], stdout=subprocess.PIPE
    ) as maker:
        assert maker.stdout is not None and maker.stdout.readline() == b"half written\n"
        maker.kill()
    assert not target.exists() and target.with_name("a.bin.part").exists()
    assert cached(target, IDENTITY, build)[2] is False
    assert target.read_bytes() == b"abc" and not list(tmp_path.glob("*.part"))


def test_no_manifest_exists_while_the_data_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.bin"
    cached(target, IDENTITY, build)
    real = Path.replace

    def dies_after_the_data(self: Path, to: Path) -> Path:
        result = real(self, to)
        if to == target:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", dies_after_the_data)
        cached(target, {**IDENTITY, "length": 4}, build)
    assert target.exists() and not manifest_path(target).exists()
    assert cached(target, IDENTITY, build)[2] is False
