"""Train large, then compress: which Transformer to train, how long, and how hard to compress it.

`tlc` is the command line. `load`, `load_study` and `train` do the same from Python; see
`tlc_jax.api`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlc_jax.api import Model, load, load_study, train

__version__ = "0.1.0"
__all__ = ["Model", "load", "load_study", "train"]


def __getattr__(name: str) -> Any:
    # Importing the package must stay instant for the command line: JAX is loaded at first use.
    if name in __all__:
        from tlc_jax import api

        return getattr(api, name)
    raise AttributeError(f"module 'tlc_jax' has no attribute {name!r}")
