"""Paths: the numbers of specs by dotted name, `network.0.bandwidth`."""

import functools
from typing import Any

import jax

from genz_jax.base.axes import Axis


def path_of(keys: tuple[Any, ...]) -> str:
    """Dotted path of a leaf, from the keys that `jax.tree_util` gives it."""
    return ".".join(str(getattr(key, "name", getattr(key, "idx", key))) for key in keys)


def leaves(spec: Any) -> dict[str, Any]:
    """All numbers and axes by dotted path, in the order of `jax.tree.leaves`."""
    found, structure = jax.tree.flatten(spec, is_leaf=_is_axis)
    return dict(zip(_paths(structure), found, strict=True))


def _is_axis(value: Any) -> bool:
    return isinstance(value, Axis)


@functools.lru_cache(maxsize=64)
def _paths(structure: Any) -> tuple[str, ...]:
    """Dotted paths of all leaves of a tree."""
    numbered = jax.tree.unflatten(structure, range(structure.num_leaves))
    return tuple(path_of(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(numbered))
