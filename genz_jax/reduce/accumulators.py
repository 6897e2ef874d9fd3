"""Accumulators: what a reduction keeps of the blocks of a grid that have been seen.

What each point must be compared with is carried along element by element and updated inside the compiled function of a
block, which is several times faster than a reduction within the block; the few numbers that are left are reduced at the
end. What needs more than that looks at single points on the host, where few pass a test that is made for all of them.
"""

import abc
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from genz_jax.base import free_memory as room
from genz_jax.grid.feed import Block, Blocks
from genz_jax.grid.shape import Dims
from genz_jax.grid.space import Space
from genz_jax.labelled.labels import plain_dataset
from genz_jax.reduce.chosen import at_places, numbers
from genz_jax.reduce.pareto import front_mask
from genz_jax.reduce.ranked import BlockView, Ranked
from genz_jax.reduce.reductions import name_of
from genz_jax.serving.evaluate import Question

if TYPE_CHECKING:
    import xarray as xr

Metas = tuple[dict[str, Any], ...]
"""Unit and description of each objective."""

BEATERS = {2: 16}
"""Points of a Pareto front that every point is compared with in the compiled function, by the number of objectives."""

MERGED = 2**12
"""Points that wait at least until they are taken into a front."""

MANY_BEATERS = 64
"""Those for more objectives, whose fronts are surfaces."""


class Accumulator(abc.ABC):
    """Base: what is kept of the blocks of a grid.

    Attributes:
        ranked: the objectives.
        metas: what they are.
        carry: arrays that the compiled function updates.
        aid: arrays that it reads.
        kept: dimensions of the grid that the result has.
    """

    carry: Any = None
    aid: Any = None
    kept: Dims = ()

    def __init__(self, blocks: Blocks, ranked: Ranked = (), metas: Metas = ()):
        self.blocks, self.ranked, self.metas = blocks, ranked, metas
        self.floats: Any = jnp.result_type(float)

    @staticmethod
    @abc.abstractmethod
    def update(values: list[jax.Array], carry: Any, aid: Any, view: BlockView) -> tuple[Any, Any]:
        """Fold one block into the carry, inside the compiled function.

        Returns the new carry, and the arrays that `look` reads on the host.

        Args:
            values: the objectives at every point, less is better, ∞ where a point does not count.
            carry: what is kept.
            aid: what it is compared with.
            view: the points.
        """

    def group(self, block: Block) -> tuple[int, ...]:
        """What blocks of one run of the carry have in common: their number along each dimension that is kept."""
        return tuple(i for i, dim in zip(block.corner, self.blocks.order, strict=True) if dim in self.kept)

    def start(self) -> Any:
        """A fresh carry."""
        return None

    def sample(self, places: list[np.ndarray], out: Any) -> None:
        """See points from all over the grid, at those places along each dimension, before any block."""
        del places, out

    def look(self, block: Block, out: Any) -> None:
        """See a block on the host."""
        del block, out

    def close(self, first: Block, carry: Any) -> None:
        """Take in the carry of a run of blocks, of which one is given."""
        del first, carry

    @abc.abstractmethod
    def dataset(self, space: Space, question: Question) -> "xr.Dataset":
        """The result."""

    def full(self, value: Any, dtype: Any) -> jax.Array:
        """An array of a block, spread as blocks are."""
        shape = tuple(self.blocks.shape.values())
        return jnp.full(shape, value, dtype, device=self.blocks.sharding)

    def as_variables(self, values: np.ndarray, dims: Dims) -> dict[str, Any]:
        """Arrays, dimensions and metadata of the objectives, which are last; NaN where there is no point."""
        values = np.where(np.isfinite(values), values, np.nan)
        together = zip(self.ranked, self.metas, strict=True)
        return {
            name_of(one): (np.asarray(sign * values[..., i]), dims, meta)
            for i, ((one, sign), meta) in enumerate(together)
        }

    def row(
        self,
        dim: str,
        long_name: str,
        values: np.ndarray,
        places: np.ndarray,
        space: Space,
        question: Question,
    ) -> "xr.Dataset":
        """Points along a new dimension, of which there may be none."""
        count = max(len(values), 1)
        if not len(values):
            values, places = np.full((1, values.shape[1]), np.inf), np.zeros((1, places.shape[1]), int)
        at = dict(zip(self.blocks.order, places.T, strict=True))
        found, ranked = np.asarray(np.isfinite(values).all(axis=1)), self.as_variables(values, (dim,))
        dims = {dim: numbers(dim, count, long_name)}
        dataset = at_places(space, question, at, found, dims, ranked)
        return dataset.isel({dim: slice(int(found.sum()))})

    def kept_shape(self, width: int) -> tuple[int, ...]:
        """Lengths of the dimensions that are kept, from slow to fast.

        Args:
            width: bytes that are held for each place.

        Raises:
            MemoryError: the result would not fit.
        """
        shape = tuple(self.blocks.sizes[dim] for dim in self.kept)
        room.check(math.prod(shape) * width, f"reduce: {math.prod(shape):,} places", "reduce over more dimensions")
        return shape

    def rows(self, array: Any, first: Block) -> tuple[np.ndarray, tuple[slice, ...]]:
        """An array of a block as (kept…, all reduced), and where the first dimensions lie in the result."""
        order, kept = self.blocks.order, self.kept
        own = tuple(
            slice(0, first.place[dim].stop - first.place[dim].start) if dim in kept else slice(None) for dim in order
        )
        array = np.asarray(array)[own] if order else np.asarray(array)
        places = [order.index(dim) for dim in kept]
        array = np.moveaxis(array, places, range(len(places)))
        return array.reshape(*array.shape[: len(kept)], -1), tuple(first.place[dim] for dim in kept)


class BestPoint(Accumulator):
    """The least value at every place of the kept dimensions, and where it is."""

    def __init__(self, blocks: Blocks, ranked: Ranked, metas: Metas, over: Dims):
        super().__init__(blocks, ranked, metas)
        self.kept = tuple(dim for dim in blocks.order if dim not in over)
        self.over = tuple(dim for dim in blocks.order if dim in over)
        shape = self.kept_shape(self.floats.itemsize + 4 * len(self.over))
        self.values = np.full(shape, np.inf, self.floats)
        self.places = {dim: np.zeros(shape, np.int32) for dim in self.over}

    @staticmethod
    def update(values: list[jax.Array], carry: Any, aid: Any, view: BlockView) -> tuple[Any, Any]:
        least, number = carry
        (value,) = values
        better = value < least
        return (jnp.where(better, value, least), jnp.where(better, view.number, number)), None

    def start(self) -> Any:
        return self.full(jnp.inf, self.floats), self.full(0, jnp.int32)

    def close(self, first: Block, carry: Any) -> None:
        values, at = self.rows(carry[0], first)
        numbers, _ = self.rows(carry[1], first)
        place = np.argmin(values, axis=-1)
        values = np.take_along_axis(values, place[..., None], -1)[..., 0]
        numbers = np.take_along_axis(numbers, place[..., None], -1)[..., 0]
        lengths = [self.blocks.shape[dim] for dim in self.over]
        inner = np.unravel_index(place, lengths) if lengths else ()
        corners = np.unravel_index(numbers, self.blocks.counts) if self.blocks.order else ()
        better = values < self.values[at]
        for dim, within in zip(self.over, inner, strict=True):
            start = corners[self.blocks.order.index(dim)] * self.blocks.shape[dim]
            # Past the end of an axis its last value is repeated.
            index = np.minimum(start + within, self.blocks.sizes[dim] - 1)
            self.places[dim][at] = np.where(better, index, self.places[dim][at])
        self.values[at] = np.where(better, values, self.values[at])

    def dataset(self, space: Space, question: Question) -> "xr.Dataset":
        dims = dict.fromkeys(self.kept)
        ranked = self.as_variables(self.values[..., None], self.kept)
        found = np.asarray(np.isfinite(self.values))
        return at_places(space, question, self.places, found, dims, ranked)


class BestPoints(Accumulator):
    """The k least values, and where they are."""

    def __init__(self, blocks: Blocks, ranked: Ranked, metas: Metas, k: int):
        super().__init__(blocks, ranked, metas)
        self.k = k
        self.values = np.empty(0, self.floats)
        self.places = np.empty((0, len(blocks.order)), np.int64)

    @staticmethod
    def update(values: list[jax.Array], carry: Any, aid: Any, view: BlockView) -> tuple[Any, Any]:
        return None, values[0]

    def look(self, block: Block, out: Any) -> None:
        values = np.asarray(out)[block.inside(self.blocks.order)]
        worst = self.values[-1] if len(self.values) == self.k else np.inf
        if not values.min() < worst:
            return
        flat = values.ravel()
        rows = np.flatnonzero(flat < worst)
        if len(rows) > self.k:
            rows = rows[np.argpartition(flat[rows], self.k - 1)[: self.k]]
        along = [np.arange(block.place[dim].start, block.place[dim].stop) for dim in self.blocks.order]
        places = places_of(rows, values.shape, along)
        values, places = np.concatenate([self.values, flat[rows]]), np.concatenate([self.places, places])
        best = np.argsort(values, kind="stable")[: self.k]
        self.values, self.places = values[best], places[best]

    def dataset(self, space: Space, question: Question) -> "xr.Dataset":
        return self.row("rank", "place by the objective", self.values[:, None], self.places, space, question)


class Front(Accumulator):
    """The points that none equals or beats in all objectives."""

    def __init__(self, blocks: Blocks, ranked: Ranked, metas: Metas):
        super().__init__(blocks, ranked, metas)
        self.values = np.empty((0, len(ranked)), self.floats)
        self.places = np.empty((0, len(blocks.order)), np.int64)
        self.waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self.aid = np.full((BEATERS.get(len(ranked), MANY_BEATERS), len(ranked)), np.inf, self.floats)

    @staticmethod
    def update(values: list[jax.Array], carry: Any, aid: Any, view: BlockView) -> tuple[Any, Any]:
        left = view.good
        for row in range(aid.shape[0]):
            beaten: Any = True
            for column, value in enumerate(values):
                beaten = beaten & (aid[row, column] <= value)
            left = left & ~beaten
        for value in values:
            left = left & (value < jnp.inf)
        return None, (jnp.broadcast_to(left, view.shape), tuple(values))

    def sample(self, places: list[np.ndarray], out: Any) -> None:
        # Good points at once: a grid starts in a corner, where each block would beat all before it.
        self._take(places, *out)
        if self.waiting:
            self._merge()

    def look(self, block: Block, out: Any) -> None:
        inside = block.inside(self.blocks.order)
        places = [np.arange(block.place[dim].start, block.place[dim].stop) for dim in self.blocks.order]
        self._take(places, np.asarray(out[0])[inside], [np.asarray(one)[inside] for one in out[1]])

    def _take(self, along: list[np.ndarray], left: Any, objectives: Any) -> None:
        left = np.asarray(left)
        rows = np.flatnonzero(left.ravel())
        if not rows.size:
            return
        values = np.stack([np.asarray(one).ravel()[rows] for one in objectives], axis=1)
        self.waiting.append((values, places_of(rows, left.shape, along)))
        if sum(len(values) for values, _ in self.waiting) > max(len(self.values), MERGED):
            self._merge()

    def _merge(self) -> None:
        """Take what waits into the front: seldom, since that takes as long as the front is large."""
        values, places = (
            np.concatenate(parts) for parts in zip((self.values, self.places), *self.waiting, strict=True)
        )
        mask = distinct_front(values)
        self.values, self.places, self.waiting = values[mask], places[mask], []
        self.aid = self._beaters()

    def _beaters(self) -> np.ndarray:
        """Points of the front that stand for it: evenly along the first objective."""
        order = np.argsort(self.values[:, 0], kind="stable")
        chosen = order[np.linspace(0, len(order) - 1, len(self.aid)).round().astype(int)]
        return self.values[chosen]

    def dataset(self, space: Space, question: Question) -> "xr.Dataset":
        if self.waiting:
            self._merge()
        order = np.lexsort(self.values.T[::-1])
        values, places = self.values[order], self.places[order]
        return self.row("point", "place along the front", values, places, space, question)


def distinct_front(values: np.ndarray) -> np.ndarray:
    """Places of the rows that no other row equals or beats; of equal rows the first."""
    order = np.lexsort(values.T[::-1])
    rows = values[order]
    order = order[np.r_[True, (rows[1:] != rows[:-1]).any(axis=1)][: len(rows)]]
    return order[front_mask(values[order])]


def places_of(rows: np.ndarray, shape: tuple[int, ...], along: list[np.ndarray]) -> np.ndarray:
    """Indices in the grid, one row a point, of flat places in an array whose places along each dimension are given."""
    if not shape:
        return np.empty((len(rows), 0), np.int64)
    inner = np.unravel_index(rows, shape)
    return np.stack([places[at] for places, at in zip(along, inner, strict=True)], axis=1)


class Share(Accumulator):
    """How many points count at every place of the kept dimensions."""

    def __init__(self, blocks: Blocks, over: Dims):
        super().__init__(blocks)
        self.kept = tuple(dim for dim in blocks.order if dim not in over)
        shape = self.kept_shape(16)
        self.counts = np.zeros(shape, np.int64)
        self.of = math.prod(blocks.sizes[dim] for dim in over)
        self.seen = np.zeros(shape, np.int64)

    @staticmethod
    def update(values: list[jax.Array], carry: Any, aid: Any, view: BlockView) -> tuple[Any, Any]:
        good = view.good if view.inside is None else view.good & view.inside
        return carry + jnp.broadcast_to(good, view.shape).astype(jnp.int32), None

    def start(self) -> Any:
        return self.full(0, jnp.int32)

    def look(self, block: Block, out: Any) -> None:
        points = math.prod(s.stop - s.start for dim, s in block.place.items() if dim not in self.kept)
        self.seen[tuple(block.place[dim] for dim in self.kept)] += points

    def close(self, first: Block, carry: Any) -> None:
        counts, at = self.rows(carry, first)
        self.counts[at] += counts.sum(axis=-1, dtype=np.int64)

    def dataset(self, space: Space, question: Question) -> "xr.Dataset":
        del question
        grid, names = space.grid, space.names
        with np.errstate(invalid="ignore"):
            share = self.counts / self.seen
        meta: Mapping[str, Any] = {"units": "1", "long_name": "share of points that run and meet the objective"}
        points = {"units": "1", "long_name": "points"}
        coords = {name: at for name, at in grid.coords.items() if set(at.dims) <= set(self.kept)}
        values = {"fraction": (share, self.kept, meta), "points": (self.seen, self.kept, points)}
        title = f"genz_jax: {names['model']} on {names['platform']}"[:200]
        found = plain_dataset(values, coords, {"title": title})
        return found.transpose(*(dim for dim in grid.sizes if dim in self.kept))
