"""Sweep: a stage over every combination of its axes, in blocks that fit the cache, as one labelled Dataset."""

import collections
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from tqdm import tqdm

from genz_jax import assumptions as physics, labels
from genz_jax.assumptions import Assumptions
from genz_jax.evaluate import DETAILED, STAGES, Case, Question, compiled, slim
from genz_jax.fields import near
from genz_jax.inputs import (
    ModelLike,
    ParallelismLike,
    PlatformLike,
    PrecisionLike,
    WorkloadLike,
    read_case,
)
from genz_jax.results import Result
from genz_jax.specs import Speculation

if TYPE_CHECKING:
    import xarray as xr

BLOCK = 2**19
"""Points of a block: large enough to hide the cost of a call, small enough to reuse memory.

Measured on 2 cores, 10^7 points of one float32 figure: 753 ms at 2^15, 56 at 2^18, 47 at 2^19, 48 at 2^20."""

WORK_BLOCK = 2**12
"""Points of a block along the axes that the operators' counts depend on, which are held for every operator."""

Dims = tuple[str, ...]


def sweep(
    model: ModelLike,
    platform: PlatformLike,
    workload: WorkloadLike | None = None,
    parallelism: ParallelismLike | None = None,
    precision: PrecisionLike | None = None,
    *,
    speculation: Speculation | None = None,
    stage: str = "request",
    assumptions: str | Assumptions = "default",
    figures: Sequence[str] | None = None,
    breakdown: bool = False,
    operators: bool = False,
    progress: bool = True,
) -> "xr.Dataset":
    """Evaluate a stage for every combination of its axes.

    Any number of any spec may be an axis (`gz.axis`, `gz.linspace`, `gz.geomspace`, or an `xarray.DataArray`); lists of
    names or specs are axes too. Axes of the same dimension are zipped, others crossed.

    Args:
        model: a catalogue name, a `gz.Model`, or a list or mapping of these, which makes the dimension `model`.
        platform: likewise, dimension `platform`.
        workload: likewise, dimension `workload`; by default one request of 1,024 + 128 tokens.
        parallelism: a `gz.Parallelism` or a list of them, dimension `parallelism`; by default one device.
        precision: a format such as "fp8" or "int4-bf16", a `gz.Precision`, or a list, dimension `precision`.
        speculation: the draft model and its use, for the speculative stages and for requests.
        stage: request (TTFT, TPOT, end to end), prefill, decode, chunked, memory (what is needed, and the largest batch
            and the longest context that fit), speculative_prefill, speculative_decode.
        assumptions: "default", "genz", or a `gz.Assumptions`.
        figures: names of the figures wanted, by default all that the stage itself has. Fewer are faster. Those of the
            two stages of a request can be asked for as `prefill_…` and `decode_…`.
        breakdown: latency by component too (dimension `component`).
        operators: figures of every operator too (dimension `operator`).
        progress: show a progress bar when it takes more than two seconds.

    Returns:
        An `xarray.Dataset` whose variables have the dimensions they depend on. Where `feasible` is false, times, rates
        and energies are NaN and `reason` says why. `dataset.attrs` holds all that went in.

    Raises:
        ValueError: an input that no machine or model could have; the message names field, value, rule and fix.
        MemoryError: the result would not fit in memory; the message names the bytes.

    Example:
        >>> import genz_jax as gz
        >>> chip = gz.platform("H100-SXM").replace(mem_bw=gz.geomspace("1 TB/s", "20 TB/s", 5))
        >>> ds = gz.sweep(["llama-3.1-8b", "mixtral-8x7b"], chip, gz.Workload(batch=gz.axis([1, 8])), precision="fp8")
        >>> dict(ds.tpot.sizes)
        {'model': 2, 'mem_bw': 5, 'batch': 2}
    """
    case, names = read_case(model, platform, workload, parallelism, precision, speculation)
    labels.refuse_bare_arrays(case)
    case = labels.name_axes(case)
    return evaluate_axes(case, names, ask(stage, assumptions, figures, breakdown, operators), progress)


def evaluate_axes(case: Case, names: dict[str, str], question: Question, progress: bool) -> "xr.Dataset":
    """Evaluate a case whose axes all have dimensions, block by block.

    Args:
        case: the case.
        names: what its parts are called.
        question: what is asked.
        progress: show a progress bar when it takes long.
    """
    grid = labels.read_grid(case)
    order = axis_order(case, grid.sizes)
    result, dims = run(case, grid.sizes, order, question, progress)
    return labels.to_dataset(variables(result, dims, order), grid, case, names, question)


def ask(
    stage: str, assumptions: str | Assumptions, figures: Sequence[str] | None, breakdown: bool, operators: bool
) -> Question:
    """The question that a call asks.

    Raises:
        ValueError: an unknown stage or preset, or details that a stage has not.
    """
    if stage not in STAGES:
        raise ValueError(f"stage = {stage!r}: must be one of {', '.join(STAGES)}{near(str(stage), STAGES)}")
    if (breakdown or operators) and stage not in DETAILED:
        raise ValueError(
            f"stage = {stage!r}: has no breakdown or operators; ask {', '.join(map(repr, DETAILED))} instead"
        )
    if isinstance(figures, str):
        figures = [figures]
    wanted = None if figures is None else tuple(figures)
    if wanted == ():
        raise ValueError("figures = []: an empty list; name at least one, or leave it out for all")
    return Question(stage, physics.preset(assumptions), wanted, breakdown, operators)


def axis_order(case: Case, sizes: dict[str, int]) -> Dims:
    """Dimensions from slow to fast: the platform's last, so that counts are reused, and of these the longest last."""
    others = _work_dims(case)
    work = [dim for dim in sizes if dim in others]
    machine = sorted((dim for dim in sizes if dim not in others), key=lambda dim: sizes[dim])
    return (*work, *machine)


def _work_dims(case: Case) -> set[str]:
    """Dimensions that the operators' counts depend on: those that not only the platform or an objective has."""
    axes = labels.axes_of(case).items()
    return {dim for path, axis in axes if not path.startswith(("platform.", "slo.")) for dim in axis.dims or ()}


def block_sizes(case: Case, sizes: dict[str, int], order: Dims, points: int | None = None) -> dict[str, int]:
    """Lengths of a block along each dimension: the slow ones are cut first, none below 2.

    Args:
        case: the case, with axes.
        sizes: lengths of its dimensions.
        order: dimensions from slow to fast.
        points: points of a block; by default `BLOCK`.
    """
    block = {dim: sizes[dim] for dim in order}
    others = _work_dims(case)
    _cut(block, [dim for dim in order if dim in others], WORK_BLOCK)
    _cut(block, list(order), BLOCK if points is None else points)
    return block


def _cut(block: dict[str, int], dims: list[str], limit: int) -> None:
    """Shorten dimensions, slow ones first, until their product is at most `limit`."""
    for dim in dims:
        excess = math.ceil(math.prod(block[d] for d in dims) / limit)
        if excess <= 1:
            return
        # Blocks of equal length waste least on the last one.
        parts = min(excess, max(block[dim] - 1, 1))
        block[dim] = math.ceil(block[dim] / parts)


def _blocks(sizes: dict[str, int], block: dict[str, int], order: Dims) -> Iterator[dict[str, slice]]:
    """Places of the blocks. The last along a dimension is moved back to end with it, so that all have one shape."""
    starts = [[min(i, sizes[dim] - block[dim]) for i in range(0, sizes[dim], block[dim])] for dim in order]
    for corner in itertools.product(*starts):
        yield {dim: slice(start, start + block[dim]) for dim, start in zip(order, corner, strict=True)}


def _part(tree: Any, place: dict[str, slice], order: Dims) -> Any:
    """The part of each array that lies in a block."""

    def cut(leaf: Any) -> Any:
        if np.ndim(leaf) != len(order) or not order:
            return leaf
        return leaf[tuple(place[dim] if n > 1 else slice(None) for dim, n in zip(order, leaf.shape, strict=True))]

    return jax.tree.map(cut, tree)


def run(
    case: Case, sizes: dict[str, int], order: Dims, question: Question, progress: bool
) -> tuple[Result, dict[int, Dims]]:
    """Evaluate a case block by block; arguments and results as for `walk`."""
    return walk(compiled(question), case, sizes, order, progress)


def walk(
    function: Callable[[Any], Any],
    case: Case,
    sizes: dict[str, int],
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
    case = slim(case)
    arrays = labels.to_arrays(case, order)
    block = block_sizes(case, sizes, order, points)
    corner = {dim: slice(0, block[dim]) for dim in order}
    # An output's shape shows what it depends on unless an axis has length 1.
    sample = labels.probe(case, order) if 1 in sizes.values() else _part(arrays, corner, order)
    shapes = jax.eval_shape(function, sample)
    leaves, structure = jax.tree.flatten(shapes)
    dims = {i: _depends(leaf, order) for i, leaf in enumerate(leaves)}
    full = [tuple(sizes[dim] if dim in dims[i] else 1 for dim in order) for i in range(len(leaves))]
    _check_memory(leaves, full, sizes)
    outputs = [np.empty(shape, leaf.dtype) for shape, leaf in zip(full, leaves, strict=True)]

    def store(place: dict[str, slice], result: Any) -> None:
        for i, (output, leaf) in enumerate(zip(outputs, jax.tree.leaves(result), strict=True)):
            at = tuple(place[dim] if dim in dims[i] else slice(None) for dim in order)
            output[at] = np.asarray(leaf)

    count = math.prod(math.ceil(sizes[dim] / block[dim]) for dim in order)
    bar = tqdm(_blocks(sizes, block, order), total=count, unit="block", delay=2, leave=False, disable=not progress)
    # One block is copied out while the next is computed.
    waiting: collections.deque[tuple[dict[str, slice], Any]] = collections.deque()
    for place in bar:
        waiting.append((place, function(_part(arrays, place, order))))
        if len(waiting) > 1:
            store(*waiting.popleft())
    while waiting:
        store(*waiting.popleft())
    return jax.tree.unflatten(structure, outputs), dims


def _depends(leaf: Any, order: Dims) -> Dims:
    """Dimensions along which an output is longer than 1."""
    if len(leaf.shape) != len(order):
        return ()
    return tuple(dim for dim, n in zip(order, leaf.shape, strict=True) if n > 1)


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


def _check_memory(leaves: list[Any], full: list[tuple[int, ...]], sizes: dict[str, int]) -> None:
    needed = sum(math.prod(shape) * leaf.dtype.itemsize for shape, leaf in zip(full, leaves, strict=True))
    there = available_memory()
    if needed > 0.8 * there:
        points = math.prod(sizes.values())
        raise MemoryError(
            f"sweep: {points:,} points of {len(leaves)} figures need {needed / 1e9:,.1f} GB ({needed:,} bytes), but "
            f"{there / 1e9:,.1f} GB are free; ask for fewer figures with figures=[…], or shorten the axes"
        )


def variables(result: Result, dims: dict[int, Dims], order: Dims) -> dict[str, tuple[np.ndarray, Dims, dict[str, Any]]]:
    """Arrays with just the dimensions they depend on, by variable name; components and operators stacked last."""
    leaves, structure = jax.tree.flatten(result)
    places = jax.tree.unflatten(structure, list(dims.values()))
    arrays = labels.flat_figures(jax.tree.unflatten(structure, leaves))
    found = {}
    for name, (depends, meta) in labels.flat_figures(places).items():
        value = arrays[name][0]
        if isinstance(value, dict):
            union = tuple(dim for dim in order if any(dim in part for part in depends.values()))
            stacked = np.stack(np.broadcast_arrays(*(_only(part, union, order) for part in value.values())), axis=-1)
            found[name] = (stacked, (*union, meta["dim"]), meta | {"labels": list(value)})
        else:
            found[name] = (_only(value, depends, order), depends, meta)
    return found


def _only(array: np.ndarray, dims: Dims, order: Dims) -> np.ndarray:
    """An array without the dimensions that are not in `dims`, along which its length is 1."""
    if np.ndim(array) != len(order):
        return array
    return np.asarray(array[tuple(slice(None) if dim in dims else 0 for dim in order)])
