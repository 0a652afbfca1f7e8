"""Names inside JAX: each is where we take it from, and one file alone takes any."""

import re
import subprocess
import sys
from pathlib import Path

import jax

from tests.helpers.processes import free_port

ROOT = Path(__file__).parents[2]


def test_coordinator_address():
    address = f"localhost:{free_port()}"
    code = (
        f"import jax; jax.distributed.initialize({address!r}, 1, 0);"
        "from tlc_jax.core import jax_internals; print(jax_internals.coordinator_address());"
        "assert jax_internals.coordination_client().key_value_try_get"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == [address], (
        f"JAX {jax.__version__} moved jax._src.distributed.global_state.coordinator_address: runs "
        f"in several processes (impl.processes) cannot connect.\n{done.stderr}"
    )


def test_one_file_alone_uses_names_inside_jax():
    users = {
        str(path.relative_to(ROOT))
        for folder in ("tlc_jax", "tests", "launch", "configs", "examples")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"(from|import) jax\._src", path.read_text("utf-8"))
    }
    assert users == {"tlc_jax/core/jax_internals.py"}
