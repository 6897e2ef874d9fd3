"""Quantiles of a figure over the points of a grid, exactly and without holding the points.

Few points are sorted. Many are counted by the leading bits of their values, then those that share the bits of a wanted
rank by the next bits, until all bits are known: a radix selection. float32 takes two walks of the grid, float64 four.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genz_jax.base import free_memory as room
from genz_jax.base.caches import QUESTIONS, Compiled
from genz_jax.grid.feed import Block
from genz_jax.grid.shape import Blocking, Dims, block_shape, blocking, work_dims
from genz_jax.grid.space import Space
from genz_jax.grid.walk import Plan, plan
from genz_jax.reduce.interrupts import StopRequest
from genz_jax.reduce.ranked import ranked_points
from genz_jax.reduce.reductions import Objective
from genz_jax.serving.evaluate import Question

SORTED = 2**22
"""Points up to which those of one place are held and sorted."""

BITS = 16
"""Bits that are counted in one walk."""


@functools.lru_cache(maxsize=QUESTIONS)
def _values(function: Any) -> Any:
    """The function from a block to the objective at all of its points, compiled once per structure and shapes."""

    @functools.partial(Compiled, static_argnums=1)
    def values(part: Any, shape: tuple[int, ...]) -> jax.Array:
        return jnp.broadcast_to(function(part).values[0], shape)

    return values


class Ranking:
    """The quantiles of a grid at every place of the dimensions that are kept.

    Attributes:
        kept: dimensions of the result.
        values: the quantiles, of shape (kept…, q); NaN where no point counts.
        counts: points that count, (kept…).
        seen: points of the grid that have been looked at.
    """

    def __init__(self, space: Space, question: Question, objective: Objective, q: np.ndarray, over: Dims):
        self.sizes, self.order, self.case = space.sizes, space.order, space.case
        self.kept = tuple(dim for dim in self.order if dim not in over)
        self.over = tuple(dim for dim in self.order if dim in over)
        self.function, self.q = ranked_points(question, ((objective, 1.0),)), q
        shape = tuple(self.sizes[dim] for dim in self.kept)
        places = math.prod(shape)
        advice = "reduce over more dimensions, or ask for fewer quantiles"
        room.check(8 * places * (len(q) + 1), f"reduce: {len(q):,} quantiles at {places:,} places", advice)
        self.values, self.counts = np.full((*shape, len(q)), np.nan), np.zeros(shape, np.int64)
        self.seen = 0

    def run(self, progress: bool, interrupt: StopRequest) -> None:
        """Look at all points, or at those up to the interrupt."""
        ranked = math.prod(self.sizes[dim] for dim in self.over)
        if ranked <= SORTED:
            self._sort(max(blocking().points // ranked, 1), progress, interrupt)
        else:
            self._select(progress, interrupt)

    def _plan(self, shape: dict[str, int]) -> Plan:
        return plan(self.function, self.case, self.sizes, self.order, shape)

    def _each(
        self, planned: Plan, chosen: list[Block], progress: bool, interrupt: StopRequest
    ) -> Iterator[tuple[Block, Any]]:
        shape, function = tuple(planned.blocks.shape.values()), _values(planned.function)
        for block, out in planned.blocks.run(lambda part: function(part, shape), chosen, progress):
            yield block, np.asarray(out)[block.inside(self.order)]
            if interrupt.stop:
                return

    def _sort(self, places: int, progress: bool, interrupt: StopRequest) -> None:
        """Blocks that hold all points of some places."""
        sizes = {dim: self.sizes[dim] for dim in self.kept}
        shape = block_shape(sizes, self.kept, set(), Blocking(places), least=1) | {
            dim: self.sizes[dim] for dim in self.over
        }
        planned, axes = self._plan(shape), [self.order.index(dim) for dim in self.kept]
        for block, value in self._each(planned, list(planned.blocks), progress, interrupt):
            value = np.moveaxis(value, axes, range(len(axes)))
            value = np.sort(value.reshape(*value.shape[: len(axes)], -1), axis=-1).astype(float)
            count = np.isfinite(value).sum(axis=-1)
            at = tuple(block.place[dim] for dim in self.kept)
            rank = self.q * np.maximum(count - 1, 0)[..., None]
            low, high = (np.take_along_axis(value, f(rank).astype(int), -1) for f in (np.floor, np.ceil))
            self.values[at] = np.where(count[..., None] > 0, _between(low, high, rank), np.nan)
            self.counts[at] = count
            self.seen += value.size

    def _select(self, progress: bool, interrupt: StopRequest) -> None:
        """One place after another, each by radix selection."""
        sizes = {dim: self.sizes[dim] for dim in self.over}
        shape = block_shape(sizes, self.over, work_dims(self.case), least=1) | dict.fromkeys(self.kept, 1)
        planned, axes = self._plan(shape), [self.order.index(dim) for dim in self.kept]
        for place in np.ndindex(*self.counts.shape):
            chosen = [block for block in planned.blocks if tuple(block.corner[i] for i in axes) == place]
            selection = Selection(self.q, np.dtype(jnp.result_type(float)))
            while not selection.complete and not interrupt.stop:
                for _, value in self._each(planned, chosen, progress, interrupt):
                    selection.take(value.ravel())
                    self.seen += value.size if selection.known == 0 else 0
                selection.close()
            self.values[place], self.counts[place] = selection.quantiles(), selection.count
            if interrupt.stop:
                return


class Selection:
    """Radix selection of the values at some ranks, `BITS` more of them known after each walk.

    Attributes:
        known: leading bits that are known.
        count: finite values.
    """

    def __init__(self, q: np.ndarray, dtype: np.dtype):
        self.q, self.dtype, self.width = q, dtype, 8 * dtype.itemsize
        self.unsigned: Any = np.dtype(f"u{dtype.itemsize}")
        self.known, self.count = 0, 0
        self.ranks = np.zeros(2 * len(q), np.int64)
        self.prefixes = np.zeros(2 * len(q), self.unsigned)
        self._open()

    def _open(self) -> None:
        self.counts = {prefix: np.zeros(2**BITS, np.int64) for prefix in np.unique(self.prefixes)}

    @property
    def complete(self) -> bool:
        """All bits are known."""
        return self.known >= self.width

    def take(self, values: np.ndarray) -> None:
        """Count the next bits of values, where ∞ is none."""
        bits = ordered_bits(values[values < np.inf])
        shift = self.unsigned.type(self.width - self.known - BITS)
        for prefix, counts in self.counts.items():
            chosen = bits if self.known == 0 else bits[bits >> self.unsigned.type(self.width - self.known) == prefix]
            digits = (chosen >> shift) & self.unsigned.type(2**BITS - 1)
            counts += np.bincount(digits.astype(np.int64), minlength=2**BITS)

    def close(self) -> None:
        """Go to the next bits of each rank."""
        if self.known == 0:
            self.count = int(sum(counts.sum() for counts in self.counts.values()))
            rank = self.q * max(self.count - 1, 0)
            self.ranks = np.concatenate([np.floor(rank), np.ceil(rank)]).astype(np.int64)
        digits = np.zeros_like(self.prefixes)
        for prefix, counts in self.counts.items():
            mine = self.prefixes == prefix
            before = np.cumsum(counts)
            digit = np.minimum(np.searchsorted(before, self.ranks[mine], side="right"), 2**BITS - 1)
            self.ranks[mine] -= before[digit] - counts[digit]
            digits[mine] = digit
        self.prefixes = (self.prefixes << self.unsigned.type(BITS)) | digits if self.known else digits
        self.known += BITS
        self._open()

    def quantiles(self) -> np.ndarray:
        """The quantiles; where bits are still unknown, the least that they can be."""
        if self.count == 0:
            return np.full(len(self.q), np.nan)
        bits = self.prefixes << self.unsigned.type(self.width - self.known) if not self.complete else self.prefixes
        low, high = np.split(from_ordered_bits(bits, self.dtype).astype(float), 2)
        return _between(low, high, self.q * (self.count - 1))


def ordered_bits(values: np.ndarray) -> np.ndarray:
    """Unsigned integers in the order of floats."""
    bits = values.view(f"u{values.itemsize}")
    top = bits.dtype.type(1 << (8 * values.itemsize - 1))
    return np.where(bits & top, ~bits, bits | top)


def from_ordered_bits(bits: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The floats of `ordered_bits`."""
    top = bits.dtype.type(1 << (8 * dtype.itemsize - 1))
    return np.where(bits & top, bits & ~top, ~bits).view(dtype)


def _between(low: np.ndarray, high: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Linear interpolation between the values below and above a rank."""
    share = rank - np.floor(rank)
    with np.errstate(invalid="ignore"):
        return np.where(share == 0, low, low + (high - low) * share)
