"""Blocks: a grid of points cut into blocks of one shape, for one compiled function and bounded memory."""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from genz_jax.base import free_memory as room
from genz_jax.base.caches import QUESTIONS, Compiled
from genz_jax.grid.factored import program_of, region_of
from genz_jax.labelled import labels
from genz_jax.serving.evaluate import Case, slim
from genz_jax.specs.figures import Result

BLOCK = 2**19
"""Points of a block: large enough to hide the cost of a call, small enough to reuse memory.

Measured on 2 cores, 10^7 points of one float32 figure: 41 ms at 2^15, 23 at 2^17, 22 at 2^19, 24 at 2^21."""

WORK_BLOCK = 2**12
"""Points of a block along the axes that the operators' counts depend on, which are held for every operator."""

SHARDED = 2**16
"""Points of a block from which it is spread over all local devices; fewer are done sooner by one."""

SMALL = 2**12
"""Points up to which the lengths of a grid of one block are rounded up to powers of two, above to four binary digits:
such a call takes milliseconds whatever it computes, and to compile for other lengths takes seconds."""

FACTORED = 2**16
"""Points of a grid from which a function is split into terms and what joins them."""

HELD = 2**24
"""Numbers that the terms of a region may have."""

Dims = tuple[str, ...]


def axis_order(case: Case, sizes: Mapping[str, int]) -> Dims:
    """Dimensions from slow to fast: the platform's last, so that counts are reused, and of these the longest last."""
    others = work_dims(case)
    work = [dim for dim in sizes if dim in others]
    machine = sorted((dim for dim in sizes if dim not in others), key=lambda dim: sizes[dim])
    return (*work, *machine)


def work_dims(case: Case) -> set[str]:
    """Dimensions that the operators' counts depend on: those that not only the platform or an objective has."""
    axes = labels.axes_of(case).items()
    return {dim for path, axis in axes if not path.startswith(("platform.", "slo.")) for dim in axis.dims or ()}


def block_shape(
    sizes: Mapping[str, int], order: Dims, work: set[str], points: int | None = None, least: int = 2
) -> dict[str, int]:
    """Lengths of a block along each dimension: the slow ones are cut first.

    Args:
        sizes: lengths of the dimensions.
        order: dimensions from slow to fast.
        work: dimensions that the operators' counts depend on.
        points: points of a block; by default `BLOCK`.
        least: length that none is cut below, 1 or 2; at 2 an output's shape still shows what it depends on.
    """
    shape = {dim: sizes[dim] for dim in order}
    _cut(shape, [dim for dim in order if dim in work], WORK_BLOCK, least)
    _cut(shape, list(order), BLOCK if points is None else points, least)
    return shape


def _cut(shape: dict[str, int], dims: list[str], limit: int, least: int) -> None:
    """Shorten dimensions, slow ones first, until their product is at most `limit`."""
    for dim in dims:
        others = math.prod(shape[d] for d in dims if d != dim)
        longest = max(limit // others, least)
        # Blocks of equal length waste least on the last one.
        shape[dim] = math.ceil(shape[dim] / math.ceil(shape[dim] / longest)) if shape[dim] > longest else shape[dim]


@dataclasses.dataclass(frozen=True)
class Block:
    """One block of a grid.

    Attributes:
        number: its place among the blocks, along the dimensions from slow to fast.
        corner: its number along each dimension.
        place: where it lies in the grid, by dimension. The last one along a dimension may be shorter than what is
            computed for it.
    """

    number: int
    corner: tuple[int, ...]
    place: dict[str, slice]

    def inside(self, order: Dims) -> tuple[slice, ...]:
        """The part of what is computed that lies in the grid."""
        return tuple(slice(0, self.place[dim].stop - self.place[dim].start) for dim in order)


class Blocks(Collection[Block]):
    """Arrays of a grid, cut into blocks of one shape, which are computed by all local devices at once.

    The ends of axes that do not fill their last block are repeated there, so that one compiled function does for all.

    Attributes:
        order: dimensions from slow to fast.
        sizes: lengths of the grid, by dimension.
        shape: lengths of a block, by dimension.
        counts: number of blocks along each dimension.
        sharding: how an array with all dimensions of a block is spread over the devices; None for one device.
    """

    def __init__(
        self,
        arrays: Any,
        sizes: Mapping[str, int],
        order: Dims,
        shape: Mapping[str, int],
        terms: Callable[[Any], Any] | None = None,
        region: Sequence[int] | None = None,
        spread: bool = True,
    ):
        """Cut arrays into blocks.

        Args:
            arrays: a tree of arrays of one rank, or single numbers.
            sizes: lengths of the grid, by dimension.
            order: dimensions from slow to fast.
            shape: lengths of a block, by dimension.
            terms: what blocks are cut from instead: a function of the arrays of a region, of the same rank.
            region: lengths of a region, multiples of a block's.
            spread: let all local devices compute a block, for which it may be lengthened.
        """
        self.order, self.sizes = order, {dim: sizes[dim] for dim in order}
        self.shape = {dim: shape[dim] for dim in order}
        self._along, self.sharding = _spread(self.shape) if spread else (0, None)
        lengths = self.shape.values()
        self.counts = tuple(math.ceil(n / b) for n, b in zip(self.sizes.values(), lengths, strict=True))
        # Sharding may have lengthened the block.
        own = tuple(count * b for count, b in zip(self.counts, lengths, strict=True))
        self._region = (
            own if region is None else tuple(math.ceil(r / b) * b for r, b in zip(region, lengths, strict=True))
        )
        self._terms, self._padded = terms, jax.tree.map(self._pad, arrays)
        self._read = functools.lru_cache(maxsize=4)(self._read_region)
        self._last: dict[int, tuple[Any, Any]] = {}

    def _pad(self, leaf: Any) -> Any:
        if not self.order or np.ndim(leaf) != len(self.order):
            return leaf
        filled = [math.ceil(n / r) * r for n, r in zip(self.sizes.values(), self._region, strict=True)]
        missing = [(0, full - n if n > 1 else 0) for full, n in zip(filled, leaf.shape, strict=True)]
        return np.pad(leaf, missing, mode="edge") if any(more for _, more in missing) else np.asarray(leaf)

    def _read_region(self, place: tuple[int, ...]) -> "_Region":
        arrays = self._padded
        if self._terms is not None:
            arrays = self._terms(
                _at(arrays, [slice(i * n, (i + 1) * n) for i, n in zip(place, self._region, strict=True)])
            )
        leaves, structure = jax.tree.flatten(arrays)
        fixed, moving = [], []
        for i, leaf in enumerate(leaves):
            rank = np.ndim(leaf) == len(self.order)
            lengths = tuple(self.shape.values())
            cut = tuple(k for k, n in enumerate(np.shape(leaf)) if n > max(lengths[k], 1)) if rank else ()
            fixed.append(None if cut else self._placed(leaf))
            if cut:
                moving.append((i, np.asarray(leaf), cut))
        return _Region(place, structure, fixed, moving)

    def _placed(self, leaf: Any) -> Any:
        if self.sharding is None and isinstance(leaf, jax.Array):
            return leaf
        leaf = np.asarray(leaf)
        leaf = leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype), copy=False)
        spread = self.sharding is not None and leaf.ndim == len(self.order) and leaf.shape[self._along] > 1
        if self.sharding is None:
            # What is used once is put there with the call, which costs less.
            return leaf if len(self) == 1 else jax.device_put(leaf)
        return jax.device_put(leaf, self.sharding) if spread else leaf

    def __len__(self) -> int:
        return math.prod(self.counts)

    def __contains__(self, block: object) -> bool:
        return isinstance(block, Block) and 0 <= block.number < len(self)

    def __iter__(self) -> Iterator[Block]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Block:
        if not 0 <= number < len(self):
            raise IndexError(f"block {number} of {len(self)}")
        corner = tuple(int(i) for i in np.unravel_index(number, self.counts)) if self.order else ()
        place = {
            dim: slice(i * self.shape[dim], min((i + 1) * self.shape[dim], self.sizes[dim]))
            for dim, i in zip(self.order, corner, strict=True)
        }
        return Block(number, corner, place)

    def part(self, block: Block) -> Any:
        """The arrays of a block, on the devices that compute it."""
        starts = [i * n for i, n in zip(block.corner, self.shape.values(), strict=True)]
        region = self._read(tuple(start // n for start, n in zip(starts, self._region, strict=True)))
        leaves = list(region.fixed)
        lengths = tuple(self.shape.values())
        for i, array, cut in region.moving:
            key = (region.place, *(starts[k] for k in cut))
            # What does not move between two blocks stays on the devices.
            known, value = self._last.get(i, (None, None))
            if known != key:
                place: list[slice] = [slice(None)] * array.ndim
                for k in cut:
                    first = starts[k] - region.place[k] * self._region[k]
                    place[k] = slice(first, first + lengths[k])
                part = array[tuple(place)]
                value = part if self.sharding is None else self._placed(part)
                self._last[i] = (key, value)
            leaves[i] = value
        return jax.tree.unflatten(region.structure, leaves)

    def sample(self) -> tuple[list[np.ndarray], Any]:
        """Places along each dimension, evenly from end to end, as many as a block has, and the arrays there."""
        places = [np.linspace(0, self.sizes[dim] - 1, self.shape[dim]).round().astype(int) for dim in self.order]
        arrays = _at(self._padded, places)
        return places, jax.tree.map(self._placed, arrays if self._terms is None else self._terms(arrays))

    def run(self, function: Callable[[Any], Any], chosen: Collection[Block], progress: bool) -> Iterator[Any]:
        """Blocks, each with the function's result, one of which is computed while another is used.

        Args:
            function: from the arrays of a block to a tree of arrays.
            chosen: the blocks, in the order in which they are computed.
            progress: show a progress bar when it takes more than two seconds.
        """
        waiting: collections.deque[tuple[Block, Any]] = collections.deque()
        for block in progress_bar(chosen, progress):
            waiting.append((block, function(self.part(block))))
            if len(waiting) > 1:
                yield waiting.popleft()
        yield from waiting


@dataclasses.dataclass(frozen=True)
class _Region:
    """The arrays of a region: those that all of its blocks share, and those that each has a part of."""

    place: tuple[int, ...]
    structure: Any
    fixed: list[Any]
    moving: list[tuple[int, np.ndarray, tuple[int, ...]]]


def _at(arrays: Any, places: Sequence[slice | np.ndarray]) -> Any:
    """The arrays at places along each dimension that they have."""

    def cut(leaf: Any) -> Any:
        if np.ndim(leaf) != len(places):
            return leaf
        for axis, place in enumerate(places):
            if leaf.shape[axis] > 1:
                leaf = leaf[(slice(None),) * axis + (place,)]
        return leaf

    return jax.tree.map(cut, arrays)


def progress_bar(blocks: Collection[Block], progress: bool) -> Any:
    """Blocks, with a progress bar when they take more than two seconds, unless told not to."""
    return tqdm(blocks, total=len(blocks), unit="block", delay=2, leave=False, disable=not progress)


@functools.cache
def _mesh() -> Mesh:
    return Mesh(np.array(jax.local_devices()), ("points",))


def _spread(shape: dict[str, int]) -> tuple[int, NamedSharding | None]:
    """The place of the dimension that is spread over the devices, and how; the fastest that is long enough.

    The block is lengthened there to a multiple of the devices.
    """
    devices = jax.local_device_count()
    if devices == 1 or math.prod(shape.values()) < SHARDED:
        return 0, None
    for place, dim in reversed(list(enumerate(shape))):
        if shape[dim] >= 8 * devices:
            shape[dim] = math.ceil(shape[dim] / devices) * devices
            spec = PartitionSpec(*("points" if other == dim else None for other in shape))
            return place, NamedSharding(_mesh(), spec)
    return 0, None


def cut(case: Case, sizes: Mapping[str, int], order: Dims, points: int | None = None) -> Blocks:
    """A case with axes, cut into blocks of at most so many points, by default `BLOCK`."""
    return Blocks(labels.to_arrays(slim(case), order), sizes, order, _shape_for(case, sizes, order, points))


def _shape_for(case: Case, sizes: Mapping[str, int], order: Dims, points: int | None = None) -> dict[str, int]:
    """Lengths of a block; those of a grid of one block are round, so that most such grids share what is compiled."""
    shape = block_shape(sizes, order, work_dims(case), points)
    if any(shape[dim] < sizes[dim] for dim in order):
        return shape
    rounded = {dim: _round_up(n, 1) for dim, n in shape.items()}
    if math.prod(rounded.values()) > SMALL:
        rounded = {dim: _round_up(n, 4) for dim, n in shape.items()}
    return rounded


def _round_up(number: int, digits: int) -> int:
    """The next number that has so many binary digits and zeros after them."""
    step = 1 << max((number - 1).bit_length() - digits, 0)
    return math.ceil(number / step) * step


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a function of a case is computed.

    Attributes:
        blocks: the grid, or the terms of the function on it.
        function: from what a block has to the function's result, for compiled functions.
        compiled: the same, compiled.
        shapes: the results' shapes, which show what they depend on, and types, as a tree.
        terms: what blocks are cut from: the function of the arrays of a region; None for the arrays themselves.
    """

    blocks: Blocks
    function: Callable[[Any], Any]
    compiled: Callable[[Any], Any]
    shapes: Any
    terms: Callable[[Any], Any] | None = None

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
) -> Plan:
    """Plan a function of a case, element by element: on many points from terms, on few as it is.

    Args:
        function: from a case of arrays to a tree of arrays; the same object for the same function.
        case: the case, with axes.
        sizes: lengths of its dimensions.
        order: dimensions from slow to fast.
        shape: lengths of a block, by dimension; by default of `BLOCK` points.
    """
    shape = _shape_for(case, sizes, order) if shape is None else shape
    arrays = labels.to_arrays(slim(case), order)
    if math.prod(sizes.values()) >= FACTORED:
        # With length 2, also where an axis has but one value.
        leaves, structure = jax.tree.flatten(labels.probe(slim(case), order))
        axes = tuple(np.shape(leaf) for leaf in leaves)
        program = program_of(function, structure, axes, str(jax.numpy.result_type(float)))
        if program is not None:
            lengths = [shape[dim] for dim in order]
            split, region = region_of(program, [sizes[dim] for dim in order], lengths, HELD)
            blocks = Blocks(arrays, sizes, order, shape, split.terms, region)
            return Plan(blocks, split.join, split.joined, program.shapes, split.terms)
    blocks, whole = Blocks(arrays, sizes, order, shape), compiled(function)
    return Plan(blocks, function, whole, shapes_of(whole, case, blocks))


@functools.lru_cache(maxsize=QUESTIONS)
def compiled(function: Callable[[Any], Any]) -> Compiled:
    """A function, compiled once per structure and shapes of its argument."""
    return Compiled(function)


def shapes_of(function: Callable[[Any], Any], case: Case, blocks: Blocks) -> Any:
    """Shapes and types of what a function makes of a case; shapes show what it depends on."""
    # An output's shape shows what it depends on unless an axis has length 1.
    alone = 1 in blocks.shape.values()
    leaves, structure = jax.tree.flatten(labels.probe(slim(case), blocks.order) if alone else blocks.part(blocks[0]))
    return _shapes(function, structure, tuple(np.shape(leaf) for leaf in leaves), str(jax.numpy.result_type(float)))


@functools.lru_cache(maxsize=QUESTIONS)
def _shapes(function: Callable[[Any], Any], structure: Any, shapes: tuple[tuple[int, ...], ...], dtype: str) -> Any:
    leaves = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    case = jax.tree.unflatten(structure, leaves)
    return function.eval_shape(case) if isinstance(function, Compiled) else jax.eval_shape(function, case)


def _depends(leaf: Any, order: Dims) -> Dims:
    """Dimensions along which an output is longer than 1."""
    if len(leaf.shape) != len(order):
        return ()
    return tuple(dim for dim, n in zip(order, leaf.shape, strict=True) if n > 1)


def walk(
    function: Callable[[Any], Any],
    case: Case,
    sizes: Mapping[str, int],
    order: Dims,
    progress: bool,
    points: int | None = None,
) -> tuple[Any, dict[int, Dims]]:
    """Apply a function to a case block by block.

    Args:
        function: a compiled function from a case of arrays to a tree of arrays, point by point.
        case: the case, with axes.
        sizes: lengths of its dimensions.
        order: dimensions from slow to fast.
        progress: show a progress bar when it takes long.
        points: points of a block; by default `BLOCK`, less for what holds much for each point.

    Returns:
        A tree of NumPy arrays, each with all dimensions in `order`, of length 1 where it does not depend on one; and
        the dimensions that each array depends on, by its place among the leaves.

    Raises:
        MemoryError: the arrays would not fit.
    """
    blocks = cut(case, sizes, order, points)
    return gather(Plan(blocks, function, function, shapes_of(function, case, blocks)), progress)


def gather(planned: Plan, progress: bool, chosen: Collection[Block] | None = None) -> tuple[Any, dict[int, Dims]]:
    """The results over the whole grid.

    Args:
        planned: the function and the grid.
        progress: show a progress bar when it takes long.
        chosen: the blocks that are computed, by default all; the rest of the arrays holds nothing.

    Returns:
        As for `walk`.

    Raises:
        MemoryError: the arrays would not fit.
    """
    blocks, dims = planned.blocks, planned.dims
    leaves, structure = jax.tree.flatten(planned.shapes)
    order, sizes = blocks.order, blocks.sizes
    full = [tuple(sizes[dim] if dim in dims[i] else 1 for dim in order) for i in range(len(leaves))]
    _check_memory(leaves, full, sizes)
    outputs = _outputs(planned.shapes, full)
    for block, result in blocks.run(planned.compiled, blocks if chosen is None else chosen, progress):
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
