"""Packed: a tree of numbers and arrays in few arrays, since a call of a compiled function costs by the argument."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from genz_jax.base.caches import QUESTIONS, Compiled


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Where the leaves of a tree are.

    Attributes:
        structure: the tree.
        single: for each leaf that is one number its shape, which has no length but 1; None for the others, which may be
            parts of arrays of any length.
    """

    structure: Any
    single: tuple[tuple[int, ...] | None, ...]


@functools.lru_cache(maxsize=QUESTIONS)
def _layout(structure: Any, single: tuple[tuple[int, ...] | None, ...]) -> Layout:
    """The layout, the same object for the same tree, so that calls need not compare its parts."""
    return Layout(structure, single)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["numbers", "arrays"], meta_fields=["layout"])
@dataclasses.dataclass(frozen=True)
class Packed:
    """A tree of arrays.

    Attributes:
        numbers: all leaves of one number, as a vector.
        arrays: the other leaves.
        layout: where they are in the tree.
    """

    numbers: Any
    arrays: tuple[Any, ...]
    layout: Layout

    @classmethod
    def of(cls, tree: Any) -> "Packed":
        """Pack a tree of numbers and of arrays of the default float type."""
        leaves, structure = jax.tree.flatten(tree)
        layout = _layout(structure, tuple(np.shape(leaf) if np.size(leaf) == 1 else None for leaf in leaves))
        dtype = jax.dtypes.canonicalize_dtype(float)
        together = list(zip(leaves, layout.single, strict=True))
        numbers = [np.asarray(leaf, dtype).reshape(()) for leaf, single in together if single is not None]
        arrays = tuple(leaf for leaf, single in together if single is None)
        return cls(np.array(numbers, dtype), tuple(_floats(leaf, dtype) for leaf in arrays), layout)

    @property
    def tree(self) -> Any:
        """The tree, inside and outside compiled functions."""
        if isinstance(self.numbers, Tracer):
            singles: Any = jax.lax.split(self.numbers, [1] * len(self.numbers))
        else:
            singles = np.asarray(self.numbers)
        numbers, arrays = iter(singles), iter(self.arrays)
        leaves = [next(arrays) if single is None else next(numbers).reshape(single) for single in self.layout.single]
        return jax.tree.unflatten(self.layout.structure, leaves)


def _floats(leaf: Any, dtype: Any) -> Any:
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf, dtype)


@functools.lru_cache(maxsize=QUESTIONS)
def of_packed(function: Callable[[Any], Any]) -> Callable[[Packed], Any]:
    """A function of a tree as one of a packed tree; compiled, if it is, and the same object for the same function."""
    if isinstance(function, Compiled):
        return function.after(_tree)
    return lambda packed: function(packed.tree)


def _tree(packed: Packed) -> Any:
    return packed.tree
