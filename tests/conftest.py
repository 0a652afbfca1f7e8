"""Eight fake CPU devices unless XLA_FLAGS says, one compilation cache, and golden files."""

from __future__ import annotations

import gc
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Before anything imports JAX. Subprocesses and parallel workers inherit all of it.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Code that is compiled with little effort is the same program. Most tests run a step a few times,
# and compiling it is most of their time. The last flag halves it up to JAX 0.11; later ones have
# no other emitters, and ignore it.
for flag in (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters",
):
    if flag.partition("=")[0] not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()

# Lines of source in compiled programs are of use to profilers alone, and take time to find.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
# Traces make many objects that live for long: to look through them all is a twentieth of the time.
gc.set_threshold(50_000, 50, 100)

_CACHE = "JAX_COMPILATION_CACHE_DIR"
_OWN_CACHE = _CACHE not in os.environ
if _OWN_CACHE:
    os.environ[_CACHE] = tempfile.mkdtemp(prefix="tlc-jax-test-cache-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# No deadline, since the machine may be busy; fewer examples than Hypothesis's hundred save time.
settings.register_profile("tlc", deadline=None, max_examples=50)
settings.load_profile("tlc")

_GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite tests/golden/ instead of comparing"
    )


def pytest_unconfigure() -> None:
    if _OWN_CACHE:
        shutil.rmtree(os.environ[_CACHE], ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def plain_cpu() -> Iterator[None]:
    """Makes `auto` the same on every CPU: float32 products."""
    from tlc_jax.runs import auto

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "multiplies_bfloat16", lambda: False)
        yield


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server of object storage; see `helpers.buckets`."""
    from tests.helpers.buckets import ObjectStorage

    server = ObjectStorage()
    # Copies of what is in the bucket would otherwise lie in the user's own cache.
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield server
    server.close()


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, Any], Any]:
    """Returns golden("name.json", content) -> what tests/golden/ holds.

    With --update-golden the content is written there first.
    """

    def load(name: str, content: Any) -> Any:
        path = _GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        if not path.exists():
            pytest.fail(f"{path} is missing: run `pytest --update-golden` and read the new file")
        return json.loads(path.read_text(encoding="utf-8"))

    return load
