"""Notices that this machine will go, from the metadata server of Google Compute Engine.

It announces that the machine is preempted (30 seconds before) or that its host is about to be
maintained (up to an hour before on machines with GPUs or TPUs). Outside of Kubernetes, no process
gets a signal before the machine shuts down.
"""

from __future__ import annotations

import functools
import http.client
import os
import socket
import threading
from collections.abc import Callable
from contextlib import closing, suppress

NOTICES = {"maintenance-event": "TERMINATE_ON_HOST_MAINTENANCE", "preempted": "TRUE"}
"""Values of the metadata server's `instance/NAME` that ask a run to stop."""

_HANGS_SECONDS = 60  # the server answers after so long, also if nothing changed


class Notices:
    """Listens to the metadata server in the background, a thread for each of `NOTICES`.

    What it says at the start is not a reason to stop: the run that stopped for it has saved, and
    this one may use the machine until it goes.

    Args:
      stop: called with the notice.
    """

    def __init__(self, stop: Callable[[str], None]) -> None:
        self._stop, self._closed = stop, threading.Event()
        host = os.environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
        connection = functools.partial(http.client.HTTPConnection, timeout=2 * _HANGS_SECONDS)
        self._connections = {name: connection(host) for name in NOTICES}

        self._threads = [
            threading.Thread(target=self._listen, args=(name,), daemon=True) for name in NOTICES
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends the threads, which may be waiting for the server."""
        self._closed.set()
        for connection, thread in zip(self._connections.values(), self._threads, strict=True):
            with suppress(OSError, AttributeError):  # not connected now
                connection.sock.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=1.0)

    def _listen(self, name: str) -> None:
        with closing(self._connections[name]) as connection:
            self._listen_on(connection, name)

    def _listen_on(self, connection: http.client.HTTPConnection, name: str) -> None:
        etag, before = "", NOTICES[name]
        while not self._closed.is_set():
            wait = f"?wait_for_change=true&timeout_sec={_HANGS_SECONDS}&last_etag={etag}"
            path = f"/computeMetadata/v1/instance/{name}{wait if etag else ''}"
            try:
                connection.request("GET", path, headers={"Metadata-Flavor": "Google"})
                answer = connection.getresponse()
                value = answer.read().decode().strip()
            except (OSError, http.client.HTTPException):
                connection.close()
                self._closed.wait(5.0)
                continue
            if answer.status in (403, 404):
                return  # GKE's metadata server has no such entries; its pods get signals
            if answer.status == 200:
                if value == NOTICES[name] != before and not self._closed.is_set():
                    self._stop(f"the notice {name} = {value}")
                etag, before = answer.headers.get("ETag", ""), value
            # Servers answer at once during an interruption, or if they do not know how to wait.
            self._closed.wait(1.0)
