"""Walk: a function at every point of a grid, as whole arrays."""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import numpy as np

from genz_jax.base import free_memory as room
from genz_jax.base.caches import QUESTIONS, Compiled
from genz_jax.grid.feed import Block, Blocks
from genz_jax.grid.packed import of_packed
from genz_jax.grid.shape import SMALL, Blocking, Dims, rounded_shape
from genz_jax.labelled import labels
from genz_jax.serving.evaluate import Case, slim
from genz_jax.specs.figures import Result


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a function of a case is computed.

    Attributes:
        blocks: the grid.
        function: from the packed arrays of a block to the function's result, for compiled functions.
        case: the case, with axes.
        plain: the function of a case of arrays.
        quick: whether there are so few points that a quick compilation is best.
    """

    blocks: Blocks
    function: Callable[[Any], Any]
    case: Case
    plain: Callable[[Any], Any]
    quick: bool

    @property
    def compiled(self) -> Compiled:
        """The function, compiled."""
        return compiled(self.function, self.quick)

    @functools.cached_property
    def shapes(self) -> Any:
        """The results' shapes, which show what they depend on, and types, as a tree."""
        # An output's shape shows what it depends on unless an axis has length 1.
        if 1 in self.blocks.shape.values():
            return _shapes(compiled(self.plain), labels.probe(slim(self.case), self.blocks.order))
        return _shapes(self.compiled, self.blocks.part(self.blocks[0]))

    @property
    def dims(self) -> dict[int, Dims]:
        """The dimensions that each leaf of the result depends on."""
        return {i: _depends(leaf, self.blocks.order) for i, leaf in enumerate(jax.tree.leaves(self.shapes))}


def plan(
    function: Callable[[Any], Any],
    case: Case,
    sizes: Mapping[str, int],
    order: Dims,
    shape: Mapping[str, int] | None = None,
    limits: Blocking | None = None,
    quick: bool | None = None,
) -> Plan:
    """Plan a function of a case, point by point.

    Args:
        function: from a case of arrays to a tree of arrays; the same object for the same function, or one that is
            compiled.
        case: the case, with axes.
        sizes: lengths of its dimensions.
        order: dimensions from slow to fast.
        shape: lengths of a block, by dimension; by default as `limits` has it.
        limits: how large blocks are; by default as the device asks for.
        quick: whether to compile quickly; by default where there are few points.
    """
    shape = rounded_shape(case, sizes, order, limits) if shape is None else shape
    blocks = Blocks(labels.to_arrays(slim(case), order), sizes, order, shape)
    few = len(blocks) == 1 and math.prod(blocks.shape.values()) <= SMALL
    return Plan(blocks, of_packed(function), case, function, few if quick is None else quick)


@functools.lru_cache(maxsize=QUESTIONS)
def compiled(function: Callable[[Any], Any], quick: bool = False) -> Compiled:
    """A function, compiled once per structure and shapes of its argument."""
    return function if isinstance(function, Compiled) else Compiled(function, quick)


def _shapes(function: Compiled, given: Any) -> Any:
    """Shapes and types of what a function makes of arrays."""
    leaves, structure = jax.tree.flatten(given)
    dtype = str(jax.numpy.result_type(float))
    return _shapes_of(function, structure, tuple(np.shape(leaf) for leaf in leaves), dtype)


@functools.lru_cache(maxsize=QUESTIONS)
def _shapes_of(function: Compiled, structure: Any, shapes: tuple[tuple[int, ...], ...], dtype: str) -> Any:
    leaves = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    return function.eval_shape(jax.tree.unflatten(structure, leaves))


def _depends(leaf: Any, order: Dims) -> Dims:
    """Dimensions along which an output is longer than 1."""
    if len(leaf.shape) != len(order):
        return ()
    return tuple(dim for dim, n in zip(order, leaf.shape, strict=True) if n > 1)


def gather(planned: Plan, progress: bool, chosen: Collection[Block] | None = None) -> tuple[Any, dict[int, Dims]]:
    """The results over the whole grid.

    Args:
        planned: the function and the grid.
        progress: show a progress bar when it takes long.
        chosen: the blocks that are computed, by default all; the rest of the arrays holds nothing.

    Returns:
        A tree of NumPy arrays, each with all dimensions in order, of length 1 where it does not depend on one; and
        the dimensions that each array depends on, by its place among the leaves.

    Raises:
        MemoryError: the arrays would not fit.
    """
    blocks, dims = planned.blocks, planned.dims
    leaves, structure = jax.tree.flatten(planned.shapes)
    order, sizes = blocks.order, blocks.sizes
    full = [tuple(sizes[dim] if dim in dims[i] else 1 for dim in order) for i in range(len(leaves))]
    _check_memory(leaves, full, sizes)
    outputs = _outputs(planned.shapes, full)
    function = planned.compiled.at(blocks.part(blocks[0]))
    for block, result in blocks.run(function, blocks if chosen is None else chosen, progress):
        inside = block.inside(order)
        for i, (output, leaf) in enumerate(zip(outputs, jax.tree.leaves(result), strict=True)):
            if any(at for at, dim in zip(block.corner, order, strict=True) if dim not in dims[i]):
                continue  # it has been written by an earlier block
            at = tuple(block.place[dim] if dim in dims[i] else slice(None) for dim in order)
            own = tuple(part if dim in dims[i] else slice(None) for part, dim in zip(inside, order, strict=True))
            value = np.asarray(leaf)
            output[at] = value[own] if value.ndim == len(order) else value
    return jax.tree.unflatten(structure, outputs), dims


def _outputs(shapes: Any, full: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Arrays for all leaves, not yet written; those of components of one figure are parts of one array."""
    leaves, structure = jax.tree.flatten(shapes)
    outputs: dict[int, np.ndarray] = {}
    if isinstance(shapes, Result):
        places = jax.tree.unflatten(structure, list(range(len(leaves))))
        for value, _ in labels.flat_figures(places).values():
            members = list(value.values()) if isinstance(value, dict) else []
            union = tuple(max(sizes) for sizes in zip(*(full[i] for i in members), strict=True))
            inside = [k for k, i in enumerate(members) if full[i] == union]
            if inside and len({leaves[i].dtype for i in members}) == 1:
                whole = np.empty((len(members), *union), leaves[members[0]].dtype)
                outputs |= {members[k]: whole[k, ...] for k in inside}
    rest = (i for i in range(len(leaves)) if i not in outputs)
    outputs |= {i: np.empty(full[i], leaves[i].dtype) for i in rest}
    return [outputs[i] for i in range(len(leaves))]


def _check_memory(leaves: list[Any], full: list[tuple[int, ...]], sizes: Mapping[str, int]) -> None:
    points = math.prod(sizes.values())
    room.check(
        sum(math.prod(shape) * leaf.dtype.itemsize for shape, leaf in zip(full, leaves, strict=True)),
        f"sweep: {points:,} points of {len(leaves)} figures",
        "ask for fewer figures with figures=[…], shorten the axes, write to a store=…, or ask for a reduction with "
        "reduce=…",
    )


def variables(result: Result, dims: dict[int, Dims], order: Dims) -> dict[str, tuple[np.ndarray, Dims, dict[str, Any]]]:
    """Arrays with just the dimensions they depend on, by variable name; components and operators stacked first."""
    leaves, structure = jax.tree.flatten(result)
    places = jax.tree.unflatten(structure, list(dims.values()))
    arrays = labels.flat_figures(jax.tree.unflatten(structure, leaves))
    found = {}
    for name, (depends, meta) in labels.flat_figures(places).items():
        value = arrays[name][0]
        if isinstance(value, dict):
            union = tuple(dim for dim in order if any(dim in part for part in depends.values()))
            stacked = _stacked(list(value.values()), union, order)
            found[name] = (stacked, (meta["dim"], *union), meta | {"labels": list(value)})
        else:
            found[name] = (_only(value, depends, order), depends, meta)
    return found


def _stacked(parts: list[np.ndarray], dims: Dims, order: Dims) -> np.ndarray:
    """Parts one after another, for what is last would be interleaved value by value; without a copy if they are."""
    owners = {id(part.base): part.base for part in parts if part.base is not None and part.base.ndim == part.ndim + 1}
    whole = owners.popitem()[1] if len(owners) == 1 else None
    places = [] if whole is None else [whole[k, ...] for k in range(len(whole))]
    if whole is None or len(places) != len(parts) or not all(map(_lies_at, parts, places)):
        return np.stack(np.broadcast_arrays(*(_only(part, dims, order) for part in parts)))
    for place, part in zip(places, parts, strict=True):
        if part.base is not whole:
            place[...] = part
    return whole[(slice(None), *(slice(None) if dim in dims else 0 for dim in order))]


def _lies_at(part: np.ndarray, place: np.ndarray) -> bool:
    """Whether a part is that place of an array, or of another array."""
    return part.base is not place.base or part.ctypes.data == place.ctypes.data


def _only(array: np.ndarray, dims: Dims, order: Dims) -> np.ndarray:
    """An array without the dimensions that are not in `dims`, along which its length is 1."""
    if np.ndim(array) != len(order):
        return array
    return np.asarray(array[tuple(slice(None) if dim in dims else 0 for dim in order)])
