"""Candidates: every way to spread a model over a number of devices, as columns of whole numbers."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from genz_jax.base.caches import Compiled
from genz_jax.serving.stage import as_arrays
from genz_jax.specs import Model, Parallelism, Precision, Workload
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.reasons import Reason
from genz_jax.work.sharding import mapping_reason
from genz_jax.work.step import Deployment

SIZES: tuple[str, ...] = ("tp", "ep", "cp", "pp", "dp")
"""Parallel sizes, innermost first; their product is the number of devices."""

LARGEST = 4096
"""Devices of a candidate at most; more replicas of it add up."""

REQUESTS_PER_DEVICE = 1024
"""Largest batch per device that is tried where none is given."""

MOST = 10**6
"""Values of one number that are tried at most."""

Columns = dict[str, np.ndarray]
"""Whole numbers of candidates by name, all of one length."""

_BLOCK = 2**12  # rows that are checked at once, so that the check is compiled once


def whole_numbers(what: str, given: Any, largest: float = np.inf) -> np.ndarray:
    """Sorted distinct whole numbers from a number or a list of them.

    Raises:
        ValueError: none, or one that is not a whole number from 1 to `largest`.
    """
    if np.size(given) > MOST:
        raise ValueError(f"{what}: {np.size(given):,} values; at most {MOST:,} can be tried")
    try:
        values = np.unique(np.atleast_1d(np.asarray(list(given) if np.iterable(given) else given, dtype=float)))
    except (TypeError, ValueError):
        raise ValueError(f"{what} = {given!r}: must be a whole number or a list of them") from None
    if not values.size:
        raise ValueError(f"{what} = []: an empty list; at least one whole number is needed")
    bad = values[~((values >= 1) & (values <= largest) & (values == np.round(values)))]
    if bad.size:
        top = f" to {largest:,.0f}" if np.isfinite(largest) else " up"
        raise ValueError(f"{what} = {bad[0]:g}: must be a whole number from 1{top}")
    return values.astype(int)


@functools.lru_cache(maxsize=4)
def _divisors(largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Divisors of 1 to `largest`, one number's after another's, and where each number's begin."""
    numbers = np.arange(1, largest + 1)
    multiples = largest // numbers
    divisor = np.repeat(numbers, multiples)
    first = np.repeat(np.cumsum(multiples) - multiples, multiples)
    multiple = divisor * (np.arange(divisor.size) - first + 1)
    order = np.argsort(multiple, kind="stable")
    counts = np.bincount(multiple, minlength=largest + 2)
    return divisor[order], np.cumsum(counts) - counts


def factorizations(chips: np.ndarray, allowed: Mapping[str, np.ndarray | None]) -> Columns:
    """Every product tp·ep·cp·pp·dp of each number of devices.

    Args:
        chips: numbers of devices.
        allowed: values that a size may take; None for any.

    Returns:
        Columns of the five sizes, and `devices`.
    """
    divisors, starts = _divisors(int(chips.max()))
    columns: Columns = {"devices": chips}
    left = chips
    for name in SIZES[:-1]:
        counts = starts[left + 1] - starts[left]
        rows = np.repeat(np.arange(left.size), counts)
        within = np.arange(rows.size) - np.repeat(np.cumsum(counts) - counts, counts)
        size = divisors[starts[left][rows] + within]
        if (choice := allowed.get(name)) is not None:
            good = np.isin(size, choice)
            rows, size = rows[good], size[good]
        columns = {other: column[rows] for other, column in columns.items()} | {name: size}
        left = left[rows] // size
    columns["dp"] = left
    if (choice := allowed.get("dp")) is not None:
        columns = take(columns, np.isin(left, choice))
    return columns


def take(columns: Columns, rows: np.ndarray) -> Columns:
    """Some rows of all columns."""
    return {name: column[rows] for name, column in columns.items()}


def length(columns: Columns) -> int:
    """Rows of the columns."""
    return len(columns["devices"])


@functools.partial(Compiled, static_argnums=(3, 4))
def _reasons(
    model: Model, workload: Workload, parallelism: Parallelism, assumptions: Assumptions, encodes: bool
) -> jax.Array:
    model, workload, parallelism, precision = as_arrays((model, workload, parallelism, Precision()))
    return mapping_reason(model, Deployment(parallelism, precision, assumptions), workload, encodes)


def reasons(
    columns: Columns, model: Model, workload: Workload, assumptions: Assumptions, encodes: bool = False
) -> np.ndarray:
    """Code of the rule on the model and its prompts that each candidate breaks, 0 if none."""
    different, place = np.unique(np.stack([columns[name] for name in SIZES[:-1]]), axis=1, return_inverse=True)
    # Any number of replicas has requests here: that rule depends on the batch.
    sizes = dict(zip(SIZES, [*different.astype(float), np.ones(different.shape[1])], strict=True))
    codes = np.empty(different.shape[1], dtype=int)
    for start in range(0, codes.size, _BLOCK):
        rows = np.minimum(np.arange(start, start + _BLOCK), codes.size - 1)
        spread = Parallelism(**{name: size[rows] for name, size in sizes.items()})
        found = np.asarray(_reasons(model, workload, spread, assumptions, encodes))
        codes[start : start + _BLOCK] = np.broadcast_to(found, (_BLOCK,))[: codes.size - start]
    return codes[place.ravel()]


def batches_of(columns: Columns, batches: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Batches that go with each row: those given, or powers of two of each replica, up to 1,024 requests per device.

    Args:
        columns: the candidates.
        batches: batches that are asked for; None for powers of two times `dp`.

    Returns:
        Place of the row and batch, for every pair of the two.
    """
    dp = columns["dp"]
    if batches is not None:
        return np.repeat(np.arange(dp.size), batches.size), np.tile(batches, dp.size)
    counts = np.floor(np.log2(columns["devices"] // dp * REQUESTS_PER_DEVICE)).astype(int) + 1
    rows = np.repeat(np.arange(dp.size), counts)
    return rows, dp[rows] * 2 ** (np.arange(rows.size) - np.repeat(np.cumsum(counts) - counts, counts))


def cross(columns: Columns, micro_batches: np.ndarray | None, precisions: int) -> Columns:
    """Candidates with each number of micro-batches, where there is a pipeline, and each precision.

    Args:
        columns: the candidates.
        micro_batches: numbers of micro-batches; None for as many as stages. One stage takes one.
        precisions: how many precisions there are.

    Returns:
        The columns with `micro_batches` and `precision`, the place of the precision.
    """
    if micro_batches is None:
        columns = columns | {"micro_batches": columns["pp"]}
    else:
        pp = columns["pp"]
        counts = np.where(pp > 1, micro_batches.size, 1)
        rows = np.repeat(np.arange(pp.size), counts)
        within = np.arange(rows.size) - np.repeat(np.cumsum(counts) - counts, counts)
        columns = take(columns, rows)
        columns["micro_batches"] = np.where(pp[rows] > 1, micro_batches[within], 1)
    rows = np.repeat(np.arange(length(columns)), precisions)
    return take(columns, rows) | {"precision": np.tile(np.arange(precisions), length(columns))}


def count_reasons(codes: np.ndarray, weights: np.ndarray | None = None) -> dict[str, int]:
    """How many candidates each rule excludes, by its name."""
    counts = np.bincount(codes, weights, minlength=len(Reason))
    return {reason.name: int(counts[reason]) for reason in Reason if reason and counts[reason]}


def reference_spreads(nodes: int, heads: int, layers: int) -> Columns:
    """Candidates of the published analyser: tp over divisors of the heads, pp over those of the layers.

    They fill at least half of the nodes, rounded down, but never all of them: ⌊n/2⌋ ≤ tp·pp < n; one node is (1, 1).

    Args:
        nodes: number n of devices.
        heads: query heads.
        layers: layers.
    """
    if nodes == 1:
        pairs = np.ones((2, 1), dtype=int)
    else:
        tp, pp = (np.flatnonzero(n % np.arange(1, n + 1) == 0) + 1 for n in (heads, layers))
        grid = np.stack(np.meshgrid(tp, pp, indexing="ij")).reshape(2, -1)
        used = grid.prod(axis=0)
        pairs = grid[:, (used < nodes) & (used >= nodes // 2)]
    one = np.ones(pairs.shape[1], dtype=int)
    return {"devices": pairs.prod(axis=0), "tp": pairs[0], "ep": one, "cp": one, "pp": pairs[1], "dp": one}


def join(parts: Sequence[Columns]) -> Columns:
    """Rows of several sets of columns, one after another."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
