"""Feed: the arrays of a grid, block by block, on the devices that compute them."""

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

from genz_jax.grid.packed import Packed
from genz_jax.grid.shape import Dims, blocking


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
        spread: bool = True,
    ):
        """Cut arrays into blocks.

        Args:
            arrays: a tree of arrays of one rank, or single numbers.
            sizes: lengths of the grid, by dimension.
            order: dimensions from slow to fast.
            shape: lengths of a block, by dimension.
            spread: let all local devices compute a block, for which it may be lengthened.
        """
        self.order, self.sizes = order, {dim: sizes[dim] for dim in order}
        self.shape = {dim: shape[dim] for dim in order}
        self._along, self.sharding = _spread(self.shape) if spread else (0, None)
        lengths = tuple(self.shape.values())
        self.counts = tuple(math.ceil(n / b) for n, b in zip(self.sizes.values(), lengths, strict=True))
        packed = Packed.of(jax.tree.map(self._pad, arrays))
        self._layout, self._padded = packed.layout, packed.arrays
        self._moving: dict[int, tuple[int, ...]] = {}
        for i, leaf in enumerate(self._padded):
            if np.ndim(leaf) == len(order):
                cut = tuple(k for k, n in enumerate(leaf.shape) if n > max(lengths[k], 1))
                self._moving |= {i: cut} if cut else {}
        fixed = [packed.numbers, *(None if i in self._moving else leaf for i, leaf in enumerate(self._padded))]
        self._numbers, *self._fixed = self._placed(fixed)
        self._last: dict[int, tuple[Any, Any]] = {}

    def _pad(self, leaf: Any) -> Any:
        if not self.order or np.ndim(leaf) != len(self.order):
            return leaf
        filled = [count * n for count, n in zip(self.counts, self.shape.values(), strict=True)]
        missing = [(0, full - n if n > 1 else 0) for full, n in zip(filled, leaf.shape, strict=True)]
        return np.pad(leaf, missing, mode="edge") if any(more for _, more in missing) else np.asarray(leaf)

    def _placed(self, leaves: list[Any]) -> list[Any]:
        """Arrays on the devices; None stays None."""
        if self.sharding is None:
            # What is used once is put there with the call, which costs less.
            return leaves if len(self) == 1 else jax.device_put(leaves)
        return [self._spread_out(leaf) for leaf in leaves]

    def _spread_out(self, leaf: Any) -> Any:
        spread = np.ndim(leaf) == len(self.order) and leaf.shape[self._along] > 1
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

    def part(self, block: Block) -> Packed:
        """The arrays of a block, on the devices that compute it."""
        starts = [i * n for i, n in zip(block.corner, self.shape.values(), strict=True)]
        leaves, lengths = list(self._fixed), tuple(self.shape.values())
        for i, cut in self._moving.items():
            key = tuple(starts[k] for k in cut)
            # What does not move between two blocks stays on the devices.
            known, value = self._last.get(i, (None, None))
            if known != key:
                place: list[slice] = [slice(None)] * len(starts)
                for k in cut:
                    place[k] = slice(starts[k], starts[k] + lengths[k])
                value = self._padded[i][tuple(place)]
                value = value if self.sharding is None else self._spread_out(value)
                self._last[i] = (key, value)
            leaves[i] = value
        return Packed(self._numbers, tuple(leaves), self._layout)

    def sample(self) -> tuple[list[np.ndarray], Packed]:
        """Places along each dimension, evenly from end to end, as many as a block has, and the arrays there."""
        places = [np.linspace(0, self.sizes[dim] - 1, self.shape[dim]).round().astype(int) for dim in self.order]
        arrays = self._placed([_at(leaf, places) for leaf in self._padded])
        return places, Packed(self._numbers, tuple(arrays), self._layout)

    def run(self, function: Callable[[Any], Any], chosen: Collection[Block], progress: bool) -> Iterator[Any]:
        """Blocks, each with the function's result, one of which is computed while another is used.

        Args:
            function: from the arrays of a block to a tree of arrays.
            chosen: the blocks, in the order in which they are computed.
            progress: show a progress bar when it takes more than two seconds.
        """
        waiting: collections.deque[tuple[Block, Any]] = collections.deque()
        for block in progress_bar(chosen, progress):
            with jax.ensure_compile_time_eval():  # also while a function of somebody else is traced
                waiting.append((block, function(self.part(block))))
            if len(waiting) > 1:
                yield waiting.popleft()
        yield from waiting


def _at(leaf: Any, places: Sequence[np.ndarray]) -> Any:
    """An array at places along each dimension that it has."""
    if np.ndim(leaf) == len(places):
        for axis, place in enumerate(places):
            if leaf.shape[axis] > 1:
                leaf = leaf[(slice(None),) * axis + (place,)]
    return leaf


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
    if devices == 1 or math.prod(shape.values()) < blocking().spread:
        return 0, None
    for place, dim in reversed(list(enumerate(shape))):
        if shape[dim] >= 8 * devices:
            shape[dim] = math.ceil(shape[dim] / devices) * devices
            spec = PartitionSpec(*("points" if other == dim else None for other in shape))
            return place, NamedSharding(_mesh(), spec)
    return 0, None
