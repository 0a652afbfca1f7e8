"""One language for "which parameters": rules over slash-separated paths, first match wins.

A rule is `(pattern, value)`. The pattern is a regular expression that must match a whole path such
as `blocks/attention/query/kernel`. Sharding, weight decay, freezing, pruning scope, bits and
imports all ask their question in this form.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tlc_jax.core.errors import InputError
from tlc_jax.core.text import table

Rule = tuple[str, Any]
Params = dict[str, Any]
"""Parameters as nested plain dicts of arrays; layers are stacked on the first axis."""


# Not flax.traverse_util.flatten_dict: it keeps insertion order, and the order of artifacts, tables
# and gathered statistics must not depend on how a tree was made.
def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts to `{"a/b/c": leaf}`, in sorted path order; empty dicts vanish."""
    flat: dict[str, Any] = {}
    for name in sorted(tree):
        path = f"{prefix}{name}"
        value = tree[name]
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{path}/"))
        else:
            flat[path] = value
    return flat


def drain(tree: dict[str, Any]) -> dict[str, Any]:
    """`flatten`, and empties the tree: its leaves live only as long as the result holds them."""
    flat = flatten(tree)
    tree.clear()
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    from flax.traverse_util import unflatten_dict  # here, because recipes are read before JAX is

    return unflatten_dict(dict(flat), sep="/")


def select(rules: Sequence[Rule], paths: Iterable[str], default: Any = None) -> dict[str, Any]:
    """The value of the first rule that matches each path, `default` where none does.

    Raises:
      InputError: a pattern is not a regular expression, or it matches none of the paths, most
        likely because it is misspelt.
    """
    paths = list(paths)
    selected: dict[str, Any] = {}
    for pattern, value in rules:
        try:
            matches = list(filter(re.compile(pattern).fullmatch, paths))
        except re.error as error:
            raise InputError(
                f"selector {pattern!r} is not a regular expression: {error}"
            ) from error
        if not matches:
            some = ", ".join(paths[:6])
            raise InputError(f"selector {pattern!r} matches no parameter; paths look like {some}")
        selected = dict.fromkeys(matches, value) | selected  # an earlier rule's value stays
    return {path: selected.get(path, default) for path in paths}


def select_tree(
    rules: Sequence[Rule], tree: Mapping[str, Any], default: Any = None
) -> dict[str, Any]:
    """`select` over the paths of a parameter tree, returned in the tree's own nesting."""
    return unflatten(select(rules, flatten(tree), default))


def describe_parameters(params: Params, **columns: Mapping[str, Any]) -> str:
    """A table of all parameters: path, shape, and further columns, each a value by path."""
    rows: list[list[object]] = [["path", "shape", *columns]]
    for path, leaf in flatten(params).items():
        shape = "x".join(map(str, leaf.shape))
        rows.append([path, shape, *(column.get(path, "") for column in columns.values())])
    return table(rows) + "\n"


def content_hash(params: Any) -> str:
    """A hash of the paths, shapes, types and values of all leaves."""
    import numpy as np  # here: help and error messages do not wait for it

    digest = hashlib.sha256()
    for path, leaf in flatten(params).items():
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path} {array.shape} {array.dtype} ".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
