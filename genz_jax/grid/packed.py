"""Packed: a tree of numbers and arrays in few arrays, since a call of a compiled function costs by the argument."""

import dataclasses
import functools
import math
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
        shapes: shapes of its leaves.
    """

    structure: Any
    shapes: tuple[tuple[int, ...], ...]

    @functools.cached_property
    def single(self) -> tuple[bool, ...]:
        """Whether each leaf is one number."""
        return tuple(math.prod(shape) == 1 for shape in self.shapes)


@functools.lru_cache(maxsize=QUESTIONS)
def _layout(structure: Any, shapes: tuple[tuple[int, ...], ...]) -> Layout:
    """The layout, the same object for the same tree, so that calls need not compare its parts."""
    return Layout(structure, shapes)


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
        layout = _layout(structure, tuple(np.shape(leaf) for leaf in leaves))
        dtype = jax.dtypes.canonicalize_dtype(float)
        together = list(zip(leaves, layout.single, strict=True))
        numbers = [np.asarray(leaf, dtype).reshape(()) for leaf, single in together if single]
        arrays = tuple(leaf for leaf, single in together if not single)
        return cls(np.array(numbers, dtype), tuple(_floats(leaf, dtype) for leaf in arrays), layout)

    @property
    def tree(self) -> Any:
        """The tree, inside and outside compiled functions."""
        if isinstance(self.numbers, Tracer):
            singles: Any = jax.lax.split(self.numbers, [1] * len(self.numbers))
        else:
            singles = np.asarray(self.numbers)
        numbers, arrays = iter(singles), iter(self.arrays)
        leaves = [
            next(numbers).reshape(shape) if single else next(arrays)
            for single, shape in zip(self.layout.single, self.layout.shapes, strict=True)
        ]
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
