"""Pareto: the points that no other point beats, exactly, for any number of objectives."""

import bisect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from genz_jax.base.fields import near

if TYPE_CHECKING:
    import xarray as xr

BLOCK = 2**9
"""Points that are compared with each other at once."""

SIGNS: dict[Any, float] = {"min": 1.0, "max": -1.0, min: 1.0, max: -1.0}
"""What smaller is better for, by the sense of an objective."""


def pareto(dataset: "xr.Dataset", objectives: Mapping[str, str | Callable[..., Any]]) -> "xr.Dataset":
    """Points of a Dataset that no other point beats.

    A point beats another if it is at least as good in every objective and better in one. Equal points do not beat each
    other, so all of them stay. Points where an objective is NaN, as where nothing runs, are left out. Two and three
    objectives take O(n log n) time, more take O(n · size of the front).

    Args:
        dataset: result of `gz.sweep` or the dataset of `gz.search`. Several dimensions become one, `point`.
        objectives: "min" or "max" (or the functions) by name of the variable, two or more.

    Returns:
        The points of the front along one dimension, sorted by the first objective, best last if it is maximised.

    Raises:
        ValueError: fewer than two objectives, one that the dataset has not, or a sense that is neither.

    Example:
        >>> import genz_jax as gz
        >>> ds = gz.sweep("llama-3.1-8b", "H100-SXM", gz.Workload(batch=gz.axis([1, 8, 64])))
        >>> front = gz.pareto(ds, {"tpot": "min", "throughput": "max"})
        >>> front.batch.values
        array([ 1.,  8., 64.])
    """
    if len(objectives) < 2:
        raise ValueError(f"pareto: objectives = {list(objectives)}; name two or more, each with 'min' or 'max'")
    for name, sense in objectives.items():
        if name not in dataset:
            raise ValueError(f"pareto: {name!r} is not in the dataset{near(str(name), dataset.data_vars)}")
        if sense not in SIGNS:
            raise ValueError(f"pareto: {name!r} has the sense {sense!r}; must be 'min' or 'max'")
    dims = [dim for dim in dataset.dims if any(dim in dataset[name].dims for name in objectives)]
    flat = dataset.stack(point=dims) if len(dims) != 1 else dataset
    dim = "point" if len(dims) != 1 else dims[0]
    columns = [flat[name].broadcast_like(flat[dim]).transpose(dim).values for name in objectives]
    signed = np.stack([SIGNS[sense] * c for c, sense in zip(columns, objectives.values(), strict=True)], axis=1)
    kept = np.flatnonzero(front_mask(signed))
    return flat.isel({dim: kept[np.argsort(columns[0][kept], kind="stable")]})


def front_mask(values: np.ndarray) -> np.ndarray:
    """Mask of the rows of an (n, k) array that no other row beats, where smaller is better in every column.

    Args:
        values: the objectives; rows with a NaN are never on the front.
    """
    values = np.asarray(values, dtype=float)
    mask = np.zeros(len(values), dtype=bool)
    known = np.flatnonzero(~np.isnan(values).any(axis=1))
    # In lexicographic order whatever beats a row comes before it.
    order = known[np.lexsort(values[known].T[::-1])]
    rows = values[order]
    if len(rows):
        front = {2: _front_of_two, 3: _front_of_three}.get(rows.shape[1], _front_of_many)
        mask[order[front(rows)]] = True
    return mask


def _front_of_two(rows: np.ndarray) -> np.ndarray:
    """Places of sorted rows on the front: second column least of its first column's value, and of all before that."""
    first, second = rows.T
    starts = np.flatnonzero(np.r_[True, first[1:] != first[:-1]])
    group = np.cumsum(np.r_[True, first[1:] != first[:-1]]) - 1
    least = second[starts]
    before = np.r_[np.inf, np.minimum.accumulate(least)[:-1]]
    # Where nothing comes before, even an infinite value is the best.
    good = (least < before) | (np.arange(len(least)) == 0)
    return np.flatnonzero(good[group] & (second == least[group]))


def _front_of_three(rows: np.ndarray) -> np.ndarray:
    """Places of sorted rows on the front: none before has both the second and the third column as small.

    The least third column so far for every second column is a staircase, in which each row is looked up (Kung, Luccio
    and Preparata 1975).
    """
    second: list[float] = []  # rises
    third: list[float] = []  # falls
    kept, last = [], None
    for place, row in enumerate(rows.tolist()):
        if row == last:
            kept.append(place)
            continue
        _, b, c = row
        at = bisect.bisect_right(second, b)
        if at and third[at - 1] <= c:
            continue
        kept.append(place)
        last = row
        start = at - 1 if at and second[at - 1] == b else at
        end = start
        while end < len(third) and third[end] >= c:
            end += 1
        second[start:end], third[start:end] = [b], [c]
    return np.array(kept, dtype=int)


def _front_of_many(rows: np.ndarray) -> np.ndarray:
    """Places of sorted rows on the front, block by block against the front so far and within the block."""
    kept: list[int] = []
    for start in range(0, len(rows), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(rows)))
        for at in range(0, len(kept), BLOCK):
            block = block[~_beaten(rows[block], rows[kept[at : at + BLOCK]])]
        kept += block[~_beaten(rows[block], rows[block])].tolist()
    return np.array(kept, dtype=int)


def _beaten(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mask of rows that any of the others beats."""
    no_worse = np.ones((len(rows), len(others)), dtype=bool)
    better = np.zeros_like(no_worse)
    for mine, theirs in zip(rows.T, others.T, strict=True):
        no_worse &= theirs[None, :] <= mine[:, None]
        better |= theirs[None, :] < mine[:, None]
    return np.asarray((no_worse & better).any(axis=1))
