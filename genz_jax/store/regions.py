"""Regions: a sweep cut into parts, each of which any process can compute by itself."""

import dataclasses
import functools
import hashlib
import math
import operator
import pickle
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from genz_jax.base import free_memory as room
from genz_jax.base.fields import near
from genz_jax.grid.feed import Block, Blocks
from genz_jax.grid.shape import Blocking, Dims, block_shape, work_dims
from genz_jax.grid.space import Space
from genz_jax.grid.walk import gather, plan, variables
from genz_jax.labelled import labels
from genz_jax.serving.evaluate import Case, Question, function_of, slim

if TYPE_CHECKING:
    import xarray as xr

POINTS = 2**20
"""Points of a region, of which each figure is one chunk of a file: 4 MB in single precision."""

BYTES = 2**28
"""Bytes of all figures of a region; with many figures for each point, as of operators, it has fewer points."""

MOST = 100_000
"""Regions at most: every one is a file of every figure, and a task."""


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A sweep as plain data, which another process can be sent.

    Attributes:
        case: the case, whose axes have dimensions.
        names: what its parts are called.
        question: what is asked.
        chunks: lengths of a region by dimension; those that are not named are chosen.
        double: numbers are float64, else float32.
    """

    case: Case
    names: dict[str, str]
    question: Question
    chunks: dict[str, int]
    double: bool

    @classmethod
    def of(cls, space: Space, question: Question, chunks: Mapping[str, Any] | None) -> "Job":
        """The job of a sweep in the precision that JAX has now.

        Raises:
            ValueError: a chunk of a dimension that the sweep has not, or of no length.
        """
        plain = jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, space.case)
        lengths = read_chunks(chunks, space.sizes)
        return cls(plain, space.names, question, lengths, jax.dtypes.canonicalize_dtype(float) == np.float64)

    @functools.cached_property
    def token(self) -> str:
        """Key of all that the job holds, which goes with it to other processes."""
        content = (self.case, self.names, self.question, self.chunks, self.double)
        return hashlib.sha256(pickle.dumps(content)).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.token == self.token

    def __hash__(self) -> int:
        return hash(self.token)

    def __dask_tokenize__(self) -> str:
        return self.token


class Regions:
    """The parts of a sweep.

    Attributes:
        job: what is computed.
        grid: dimensions and coordinates of the sweep.
        order: its dimensions from slow to fast.
        shape: lengths of a region by dimension; those at the ends may be shorter.
        frame: the Dataset of the whole sweep, but with zeros that take no memory.
        kinds: dimensions and type of every figure by name.
    """

    def __init__(self, job: Job):
        """Cut a sweep.

        Raises:
            ValueError: too many regions, or one that is too large for a file.
            MemoryError: a region would not fit in memory.
        """
        case, space = job.case, Space(job.case, job.names)
        self.grid, self.order = space.grid, space.order
        sizes, work = self.grid.sizes, work_dims(case)
        with jax.enable_x64(job.double):
            shape = block_shape(sizes, self.order, work, Blocking(POINTS))
            self._plan = plan(function_of(job.question), case, sizes, self.order, shape)
            # One point with every dimension says what the figures are, however large the grid.
            point = jax.tree.map(lambda leaf: np.zeros((1,) * len(self.order), leaf.dtype), self._plan.shapes)
            self._figures = variables(point, self._plan.dims, self.order)
        widths = [array.dtype.itemsize * array.size for array, _, _ in self._figures.values()]
        self.shape = region_shape(job.chunks, sizes, self.order, sum(widths))
        self.job = dataclasses.replace(job, chunks=self.shape)
        with jax.enable_x64(job.double):
            self._blocks = Blocks(labels.to_arrays(slim(case), self.order), sizes, self.order, self.shape, spread=False)
        self._inner = block_shape(self.shape, self.order, work)
        self._check(max(widths, default=0), sum(widths))
        self.frame = self.template(lambda shape, dtype, chunks: np.broadcast_to(np.zeros((), dtype), shape))
        self.kinds = {str(name): (tuple(map(str, v.dims)), v.dtype) for name, v in self.frame.data_vars.items()}

    def _check(self, widest: int, width: int) -> None:
        points, chunks = math.prod(self.shape.values()), f"chunks = {self.shape}"
        if len(self) > MOST:
            raise ValueError(
                f"{chunks}: {len(self):,} regions of {points:,} points; at most {MOST:,}, give longer chunks"
            )
        if points * widest >= 2**31:
            raise ValueError(
                f"{chunks}: {points * widest:,} bytes of one figure; a chunk of a file must be below 2 GiB, give "
                "shorter chunks"
            )
        advice = "give shorter chunks, or ask for fewer figures with figures=[…]"
        room.check(2 * points * width, f"{chunks}: two regions", advice)

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, number: int) -> Block:
        return self._blocks[number]

    @property
    def counts(self) -> dict[str, int]:
        """Number of regions along each dimension, from slow to fast."""
        return dict(zip(self.order, self._blocks.counts, strict=True))

    def template(self, make: Callable[[tuple[int, ...], np.dtype, tuple[int, ...]], Any]) -> "xr.Dataset":
        """The Dataset of the whole sweep, with coordinates and attributes, and with other arrays.

        Args:
            make: from the shape of a figure, its type and the lengths of its chunks to an array.
        """
        found = {}
        for name, (array, dims, meta) in self._figures.items():
            inner = dict(zip(dims, array.shape, strict=True))  # those of components and operators too
            shape, chunks = ({**inner, **lengths} for lengths in (self.grid.sizes, self.shape))
            array = make(tuple(shape[dim] for dim in dims), array.dtype, tuple(chunks[dim] for dim in dims))
            found[name] = (array, dims, meta)
        return labels.to_dataset(found, self.grid, self.job.case, self.job.names, self.job.question)

    def owned(self, region: Block, dims: Dims) -> bool:
        """Whether a region has a figure of these dimensions to itself: it is the first along those that it lacks."""
        return not any(at for at, dim in zip(region.corner, self.order, strict=True) if dim not in dims)

    def compute(self, region: Block) -> dict[str, np.ndarray]:
        """Figures of a region by name, each with the dimensions that `kinds` tells."""
        length = {dim: place.stop - place.start for dim, place in region.place.items()}
        with jax.enable_x64(self.job.double):
            inner = Blocks(self._blocks.part(region).tree, self.shape, self.order, self._inner)
            chosen = [b for b in inner if all(place.start < length[dim] for dim, place in b.place.items())]
            found, depends = gather(dataclasses.replace(self._plan, blocks=inner), False, chosen)
        named = variables(found, depends, self.order)
        values = {}
        for name, (wanted, _) in self.kinds.items():
            array, dims, _ = named[name]
            inside = np.asarray(array[tuple(slice(length.get(dim)) for dim in dims)])
            values[name] = np.transpose(inside, [dims.index(dim) for dim in wanted])
        return values


_LOCK = threading.Lock()


def regions_of(job: Job) -> Regions:
    """The regions of a job, made once in a process, in which several threads may want them."""
    with _LOCK:
        return _regions(job)


@functools.lru_cache(maxsize=4)
def _regions(job: Job) -> Regions:
    return Regions(job)


def read_chunks(given: Any, sizes: Mapping[str, int]) -> dict[str, int]:
    """Lengths of chunks as they were given, at most those of the axes; −1 stands for all of an axis.

    Raises:
        ValueError: no such dimension, or no positive whole number.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"chunks = {given!r}: must be a mapping of dimensions to lengths, such as {{'mem_bw': 256}}")
    found = {}
    for dim, length in (given or {}).items():
        if dim not in sizes:
            raise ValueError(f"chunks: the sweep has no dimension {dim!r}{near(str(dim), sizes)}")
        try:
            whole = operator.index(length)
        except TypeError:
            whole = 0
        if isinstance(length, bool) or (whole < 1 and whole != -1):
            raise ValueError(
                f"chunks[{dim!r}] = {length!r}: must be a whole number of 1 or more, or -1 for all of the axis"
            )
        found[str(dim)] = sizes[dim] if whole == -1 else min(whole, sizes[dim])
    return found


def region_shape(given: Mapping[str, int], sizes: Mapping[str, int], order: Dims, width: int) -> dict[str, int]:
    """Lengths of a region: those that are given, the others cut slow ones first to `POINTS` points of `BYTES` bytes.

    Args:
        given: lengths by dimension.
        sizes: lengths of the grid.
        order: dimensions from slow to fast.
        width: bytes of a point.
    """
    points = max(min(POINTS, BYTES // max(width, 1)) // math.prod(given.values()), 1)
    free = tuple(dim for dim in order if dim not in given)
    found = {**block_shape({dim: sizes[dim] for dim in free}, free, set(), Blocking(points), least=1), **given}
    return {dim: found[dim] for dim in order}
