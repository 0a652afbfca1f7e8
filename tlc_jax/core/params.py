"""One language for "which parameters": rules over slash-separated paths, first match wins.

A rule is `(pattern, value)`. The pattern is a regular expression that must match a whole path such as
`blocks/attention/query/kernel`. Sharding, weight decay, freezing, pruning scope, bits and imports all ask their
question in this form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tlc_jax.core.errors import InputError

Rule = tuple[str, Any]
Params = dict[str, Any]
"""Parameters as nested plain dicts of arrays; layers are stacked on the first axis."""


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
    """`flatten`, leaving the tree empty: its leaves live as long as the result holds them."""
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
      InputError: a pattern is not a regular expression, or matches none of the paths (then it is most likely misspelt).
    """
    compiled = []
    for text, value in rules:
        try:
            compiled.append((re.compile(text), value))
        except re.error as error:
            raise InputError(f"selector {text!r} is not a regular expression: {error}") from error
    matched_anything = [False] * len(compiled)
    selected: dict[str, Any] = {}
    for path in (paths := list(paths)):
        selected[path] = default
        found = False
        for index, (pattern, value) in enumerate(compiled):
            if pattern.fullmatch(path):
                matched_anything[index] = True
                if not found:
                    selected[path] = value
                    found = True
    for (pattern, _), used in zip(compiled, matched_anything, strict=True):
        if not used:
            some = ", ".join(paths[:6])
            raise InputError(
                f"selector {pattern.pattern!r} matches no parameter; paths look like {some}"
            )
    return selected


def select_tree(
    rules: Sequence[Rule], tree: Mapping[str, Any], default: Any = None
) -> dict[str, Any]:
    """`select` over the paths of a parameter tree, returned in the tree's own nesting."""
    return unflatten(select(rules, flatten(tree), default))
