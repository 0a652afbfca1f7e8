"""A Google Cloud Storage server for tests: `python object_server.py FOLDER PORT BUCKET...`

It is gcp-storage-emulator, which keeps its objects in FOLDER, with what it lacks and the clients
here rely on: writes and deletions under the condition of a generation, the generation in the
headers of a download, answers of several connections at once, and a bucket named `forbidden`, which
refuses everything. With PORT 0 it finds a free port. It prints its address.
"""

from __future__ import annotations

import json
import sys
import threading
from functools import partial
from http import HTTPStatus, server
from socketserver import ThreadingMixIn
from typing import Any

from gcp_storage_emulator import server as emulator
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import buckets, objects
from gcp_storage_emulator.storage import Storage

_ONE_AT_A_TIME = threading.RLock()


def _generation(storage: Storage, bucket: str, name: str) -> int:
    try:
        return int(storage.get_file_obj(bucket, name)["generation"])
    except NotFound:
        return 0


def _refused(response: Any, status: HTTPStatus, message: str) -> None:
    response.status = status
    response.json({"error": {"code": status.value, "message": message}})


def _guarded(handler: Any) -> Any:
    """A handler that refuses what the bucket or a condition forbids."""

    def guarded(request: Any, response: Any, storage: Storage, *rest: Any, **more: Any) -> None:
        bucket = request.params.get("bucket_name")
        name = request.params.get("object_id") or request.query.get("name", [""])[0]
        data = request.data  # read before the others have to wait for it
        with _ONE_AT_A_TIME:
            if bucket == "forbidden":
                _refused(response, HTTPStatus.FORBIDDEN, "no permission storage.objects.create")
                return
            if not name and isinstance(data, dict) and "meta" in data:
                name = data["meta"].get("name", "")
            wanted = request.query.get("ifGenerationMatch")
            if wanted and int(wanted[0]) != _generation(storage, bucket, name):
                _refused(response, HTTPStatus.PRECONDITION_FAILED, "another generation")
                return
            handler(request, response, storage, *rest, **more)
            reads = handler is objects.download or request.query.get("alt") == ["media"]
            if reads and response.status.value < 300:
                response["x-goog-generation"] = str(_generation(storage, bucket, name))

    return guarded


emulator.HANDLERS = tuple(
    (path, {method: _guarded(handler) for method, handler in handlers.items()})
    for path, handlers in emulator.HANDLERS
)


class _Server(ThreadingMixIn, server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64


class _Connection(emulator.RequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, as with the real one

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        emulator.Router(self).handle("GET")


if __name__ == "__main__":
    folder, port, *names = sys.argv[1:]
    storage = Storage(data_dir=folder)
    for name in names:
        buckets.create_bucket(name, storage)
        # Otherwise it keeps what is deleted, and writes a list of all at each change.
        storage.buckets[name]["softDeletePolicy"] = {"retentionDurationSeconds": "0"}
    httpd = _Server(("127.0.0.1", int(port)), partial(_Connection, storage))
    print(json.dumps({"port": httpd.server_address[1]}), flush=True)
    httpd.serve_forever()
