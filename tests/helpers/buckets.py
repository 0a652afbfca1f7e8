"""A server of object storage beside the tests, in a process of its own: see `object_server.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tlc_jax.core.files import path_of


class ObjectStorage:
    """Holds the bucket `tests`; `forbidden` refuses everything, and others do not exist.

    While it runs, the libraries of this process and of those that it starts use it: they are told
    by the environment.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._port = 0
        self.start()

    def start(self) -> None:
        """Starts it, with what was stored before and on the same port."""
        script = Path(__file__).with_name("object_server.py")
        command = [sys.executable, script, self._folder.name, str(self._port), "tests", "forbidden"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout
        self._port = json.loads(self._process.stdout.readline())["port"]
        address = f"http://127.0.0.1:{self._port}"
        for _ in range(100):  # the port may have been free for another moment
            try:
                urllib.request.urlopen(address, timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        os.environ |= {
            "STORAGE_EMULATOR_HOST": address,
            "TENSORSTORE_GCS_HTTP_URL": address,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it would ask Google what a bucket is
        }
        for name in ("NO_PROXY", "no_proxy"):
            os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))

    def stop(self) -> None:
        """Ends it at once, as when the network is gone; what is stored stays."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()

    def close(self) -> None:
        self.stop()
        self._folder.cleanup()

    def folder(self, name: str) -> Path:
        """A path in its bucket that nothing has used yet."""
        path = path_of(f"gs://tests/{name}-{os.urandom(4).hex()}")
        assert not path.exists()
        return path
