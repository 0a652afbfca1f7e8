"""What asks a run to stop: signals, the metadata server, and JAX's preemption service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from tests.helpers.metadata_server import MetadataServer
from tests.helpers.processes import ONE_DEVICE, ends, free_port
from tlc_jax.training import clock
from tlc_jax.training.checkpoint import complete_steps
from tlc_jax.training.clock import Interrupted, StopRequest


@pytest.fixture
def server(monkeypatch):
    with MetadataServer().running() as server:
        monkeypatch.setenv("GCE_METADATA_HOST", server.host)
        yield server


def wait_until(there) -> None:
    deadline = time.monotonic() + 30
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("name", "value"),
    [("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE"), ("preempted", "TRUE")],
)
def test_notice_asks_to_stop_and_interrupts_an_evaluation(server, name, value) -> None:
    with StopRequest("auto") as request:
        server.wait_for_listeners()
        server.set("maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE")  # which a run survives
        wait_until(lambda: server.requests.count("maintenance-event") == 3)
        assert request.received is None
        with pytest.raises(Interrupted), request.interrupting():
            server.set(name, value)
            for _ in range(3000):  # a signal just before a long sleep would wait for its end
                time.sleep(0.01)
        assert request.received == f"the notice {name} = {value}"


def test_notice_given_before_the_start_does_not_stop_again(server) -> None:
    server.set("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")
    server.set("preempted", "TRUE")
    with StopRequest("auto") as request:
        server.wait_for_listeners()
        assert request.received is None
        server.set("maintenance-event", "NONE")
        wait_until(lambda: server.requests.count("maintenance-event") == 3)
        server.set("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")
        wait_until(lambda: request.received)


def listening() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "_listen" in thread.name]


def test_listeners_end_with_the_run_and_where_the_server_has_no_notices(server) -> None:
    with StopRequest("auto"):
        server.wait_for_listeners()
        assert len(listening()) == 2
    assert not listening()
    server.values.clear()
    with StopRequest("auto") as request:
        wait_until(lambda: server.requests[-2:].count("maintenance-event") == 1)
        wait_until(lambda: not listening())
        assert request.received is None


def test_nothing_is_asked_elsewhere_or_when_told_not_to(server, tmp_path, monkeypatch) -> None:
    product = tmp_path / "product_name"
    monkeypatch.setattr(clock, "_PRODUCT", product)
    assert clock.on_gce()  # by the variable
    with StopRequest("off"):
        assert not listening()
    monkeypatch.delenv("GCE_METADATA_HOST")
    assert not clock.on_gce()
    product.write_text("Standard PC\n")
    assert not clock.on_gce()
    with StopRequest("auto"):
        assert not listening()
    product.write_text("Google Compute Engine\n")
    assert clock.on_gce()


def test_notice_to_one_of_two_processes_saves_the_same_step_on_both(tmp_path) -> None:
    """Stopped by the metadata server, then by JAX's preemption service, then to its end."""

    command = [sys.executable, "-m", "tests.helpers.one_with_notice"]

    def session(kind: str) -> list[tuple[int, str]]:
        port = free_port()
        return ends(
            [
                subprocess.Popen(
                    [*command, str(tmp_path / "run"), f"127.0.0.1:{port},2,{index}", kind],
                    env={**os.environ, **ONE_DEVICE},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
                for index in (0, 1)
            ],
            120.0,
        )

    reasons = {"metadata": "the notice preempted = TRUE", "service": "a preemption notice"}
    before = 0
    for kind, reason in reasons.items():
        found = session(kind)
        assert [status for status, _ in found] == [75, 75], found
        saved = complete_steps(tmp_path / "run" / "checkpoints")[0]
        assert saved > before
        before = saved
        for index, (_, errors) in enumerate(found):
            others = kind == "metadata" and index == 0
            said = "another process was told to stop" if others else reason
            assert f"{said} at step {saved}; all is saved" in errors
    # Where the service is off, its notice changes nothing and the run goes on.
    ended = session("off")
    assert [status for status, _ in ended] == [0, 0], ended
    for index in (0, 1):
        resumed, whole = json.loads((tmp_path / f"weights{index}.json").read_text())
        assert resumed == whole
