"""A metadata server like that of Compute Engine, on a free port of this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class MetadataServer:
    """Answers `instance/NAME`, and waits for changes when asked to."""

    def __init__(self, **values: str) -> None:
        self.changed = threading.Condition()
        self.values = {"maintenance-event": "NONE", "preempted": "FALSE", **values}
        self.versions = dict.fromkeys(self.values, 1)
        self.waiting: set[str] = set()
        self.requests: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that left while it waited is not worth a traceback."""

        self._http = Server(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.host = f"127.0.0.1:{self._http.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        url = urlsplit(request.path)
        name, query = url.path.removeprefix("/computeMetadata/v1/instance/"), parse_qs(url.query)
        with self.changed:
            self.requests.append(name)
            known = name in self.values and request.headers["Metadata-Flavor"] == "Google"
            if known and query.get("wait_for_change") == ["true"]:
                before = int(query["last_etag"][0])
                self.waiting.add(name)
                self.changed.notify_all()
                self.changed.wait_for(lambda: self.versions[name] != before, timeout=60)
                self.waiting.discard(name)
            text = self.values.get(name, "").encode()
            request.send_response(200 if known else 404)
            request.send_header("ETag", str(self.versions.get(name, 0)))
            request.send_header("Content-Length", str(len(text)))
            request.end_headers()
            request.wfile.write(text)

    def wait_for_listeners(self) -> None:
        """Returns once a client waits for a change of each value."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.waiting == set(self.values), timeout=30)

    def set(self, name: str, value: str) -> None:
        with self.changed:
            self.values[name] = value
            self.versions[name] += 1
            self.changed.notify_all()

    @contextmanager
    def running(self) -> Iterator[MetadataServer]:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield self
        finally:
            self._http.shutdown()
            for name in self.values:
                self.set(name, "")
            self._http.server_close()
