"""Blocks: a grid of points cut into blocks of one shape, for one compiled function and bounded memory."""

import collections
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from genz_jax import labels
from genz_jax.evaluate import Case, slim

BLOCK = 2**19
"""Points of a block: large enough to hide the cost of a call, small enough to reuse memory.

Measured on 2 cores, 10^7 points of one float32 figure: 753 ms at 2^15, 56 at 2^18, 47 at 2^19, 48 at 2^20."""

WORK_BLOCK = 2**12
"""Points of a block along the axes that the operators' counts depend on, which are held for every operator."""

SHARDED = 2**16
"""Points of a block from which it is spread over all local devices; fewer are done sooner by one."""

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
        excess = math.ceil(math.prod(shape[d] for d in dims) / limit)
        if excess <= 1:
            return
        # Blocks of equal length waste least on the last one.
        parts = min(excess, max(shape[dim] + 1 - least, 1))
        shape[dim] = math.ceil(shape[dim] / parts)


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


class Blocks:
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
        self, arrays: Any, sizes: Mapping[str, int], order: Dims, shape: Mapping[str, int], spread: bool = True
    ):
        """Cut arrays into blocks.

        Args:
            arrays: a tree of arrays with all dimensions, of length 1 where one does not depend on them.
            sizes: lengths of the grid, by dimension.
            order: dimensions from slow to fast.
            shape: lengths of a block, by dimension.
            spread: let all local devices compute a block, for which it may be lengthened.
        """
        self.order, self.sizes = order, {dim: sizes[dim] for dim in order}
        self.shape = {dim: shape[dim] for dim in order}
        self._along, self.sharding = _spread(self.shape) if spread else (0, None)
        self.counts = tuple(math.ceil(self.sizes[dim] / self.shape[dim]) for dim in order)
        self.arrays = jax.tree.map(self._padded, arrays)

    def _padded(self, leaf: Any) -> Any:
        if not self.order or np.ndim(leaf) != len(self.order):
            return leaf
        filled = [count * self.shape[dim] for dim, count in zip(self.order, self.counts, strict=True)]
        missing = [(0, full - n if n > 1 else 0) for full, n in zip(filled, leaf.shape, strict=True)]
        return np.pad(leaf, missing, mode="edge") if any(more for _, more in missing) else np.asarray(leaf)

    def __len__(self) -> int:
        return math.prod(self.counts)

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
        starts = [i * self.shape[dim] for dim, i in zip(self.order, block.corner, strict=True)]

        def cut(leaf: Any) -> Any:
            if not self.order or np.ndim(leaf) != len(self.order):
                return leaf
            ends = zip(self.order, starts, leaf.shape, strict=True)
            part = leaf[tuple(slice(s, s + self.shape[dim]) if n > 1 else slice(None) for dim, s, n in ends)]
            if self.sharding is None or part.shape[self._along] == 1:
                return part
            return jax.device_put(part.astype(jax.dtypes.canonicalize_dtype(part.dtype)), self.sharding)

        return jax.tree.map(cut, self.arrays)

    def run(self, function: Callable[[Any], Any], chosen: Iterable[Block], progress: bool) -> Iterator[Any]:
        """Blocks, each with the leaves of the function's result, one of which is computed while another is used.

        Args:
            function: from the arrays of a block to a tree of arrays.
            chosen: the blocks, in the order in which they are computed.
            progress: show a progress bar when it takes more than two seconds.
        """
        bar = tqdm(chosen, total=len(self), unit="block", delay=2, leave=False, disable=not progress)
        waiting: collections.deque[tuple[Block, Any]] = collections.deque()
        for block in bar:
            waiting.append((block, function(self.part(block))))
            if len(waiting) > 1:
                yield waiting.popleft()
        yield from waiting


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
    return Blocks(labels.to_arrays(slim(case), order), sizes, order, block_shape(sizes, order, work_dims(case), points))


def outputs_of(function: Callable[[Any], Any], case: Case, blocks: Blocks) -> tuple[list[Any], Any, dict[int, Dims]]:
    """What a function makes of a case.

    Returns:
        Shapes and types of its leaves for a block, their tree, and the dimensions that each depends on.
    """
    order = blocks.order
    # An output's shape shows what it depends on unless an axis has length 1.
    alone = 1 in blocks.shape.values()
    leaves, structure = jax.tree.flatten(
        jax.eval_shape(function, labels.probe(slim(case), order) if alone else blocks.part(blocks[0]))
    )
    return leaves, structure, {i: _depends(leaf, order) for i, leaf in enumerate(leaves)}


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
    leaves, structure, dims = outputs_of(function, case, blocks)
    return jax.tree.unflatten(structure, gather(function, blocks, leaves, dims, progress)), dims


def gather(
    function: Callable[[Any], Any],
    blocks: Blocks,
    leaves: list[Any],
    dims: dict[int, Dims],
    progress: bool,
    chosen: Iterable[Block] | None = None,
) -> list[np.ndarray]:
    """The leaves of a function's result over the whole grid.

    Args:
        function: from the arrays of a block to a tree of arrays.
        blocks: the grid.
        leaves: their types.
        dims: the dimensions that each depends on.
        progress: show a progress bar when it takes long.
        chosen: the blocks that are computed, by default all; the rest of the arrays holds nothing.

    Raises:
        MemoryError: they would not fit.
    """
    order, sizes = blocks.order, blocks.sizes
    full = [tuple(sizes[dim] if dim in dims[i] else 1 for dim in order) for i in range(len(leaves))]
    _check_memory(leaves, full, sizes)
    outputs = [np.empty(shape, leaf.dtype) for shape, leaf in zip(full, leaves, strict=True)]
    for block, result in blocks.run(function, blocks if chosen is None else chosen, progress):
        inside = block.inside(order)
        for i, (output, leaf) in enumerate(zip(outputs, jax.tree.leaves(result), strict=True)):
            if any(at for at, dim in zip(block.corner, order, strict=True) if dim not in dims[i]):
                continue  # it has been written by an earlier block
            at = tuple(block.place[dim] if dim in dims[i] else slice(None) for dim in order)
            own = tuple(part if dim in dims[i] else slice(None) for part, dim in zip(inside, order, strict=True))
            value = np.asarray(leaf)
            output[at] = value[own] if value.ndim == len(order) else value
    return outputs


def available_memory() -> float:
    """Bytes of memory that can be had without swapping; infinite where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return float(line.split()[1]) * 1024
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError):
        return math.inf


def _check_memory(leaves: list[Any], full: list[tuple[int, ...]], sizes: Mapping[str, int]) -> None:
    needed = sum(math.prod(shape) * leaf.dtype.itemsize for shape, leaf in zip(full, leaves, strict=True))
    there = available_memory()
    if needed > 0.8 * there:
        points = math.prod(sizes.values())
        raise MemoryError(
            f"sweep: {points:,} points of {len(leaves)} figures need {needed / 1e9:,.1f} GB ({needed:,} bytes), but "
            f"{there / 1e9:,.1f} GB are free; ask for fewer figures with figures=[…], shorten the axes, write to a "
            "store=…, or ask for a reduction with reduce=…"
        )
