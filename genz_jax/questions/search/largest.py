"""Largest batches: of every spread the most requests that run and meet limits, found for all spreads at once."""

from collections.abc import Callable

import numpy as np

from genz_jax.questions.search import candidates as c

MOST = 2**20
"""Requests of a replica that are tried at most."""

_EXACT = 2**23  # requests of a batch at most: whole numbers beyond are not exact in float32
_ROWS = (2**9, 2**12)  # candidates that are evaluated in one go
_TRIED = 64  # batches of a spread at most that are evaluated in one go


def largest_batches(columns: c.Columns, good: np.ndarray, evaluate: Callable[[c.Columns], np.ndarray]) -> c.Columns:
    """Candidates with the largest good batch of each spread, where that is larger than all of its good ones so far.

    The interval of each spread between a good batch and one that is not is cut in many parts at once, so that few
    rounds are needed. A batch is a multiple of the replicas, and good only where all smaller ones are.

    Args:
        columns: candidates whose batches are whole on each replica.
        good: whether each of them is good.
        evaluate: whether other candidates are.

    Returns:
        New candidates, in columns of the same names.
    """
    names = [name for name in columns if name not in ("batch", "devices")]
    keys, first, group = np.unique(
        np.stack([columns[name] for name in names]), axis=1, return_index=True, return_inverse=True
    )
    spreads = c.take(columns, first)
    group, count = group.ravel(), keys.shape[1]
    requests = columns["batch"] // columns["dp"]
    low, most = np.zeros(count, dtype=int), np.minimum(MOST, _EXACT // spreads["dp"])
    np.maximum.at(low, group[good], requests[good])
    high = most + 1
    bad = ~good & (requests > low[group])
    np.minimum.at(high, group[bad], requests[bad])
    start = low.copy()

    def met(rows: np.ndarray, tried: np.ndarray) -> np.ndarray:
        wide = np.repeat(rows, tried.shape[1])
        batch = np.minimum(tried.ravel(), most[wide]) * spreads["dp"][wide]
        return evaluate(c.take(spreads, wide) | {"batch": batch}).reshape(tried.shape)

    rows = np.flatnonzero(low > 0)
    low[rows] = _close(low[rows], high[rows], lambda at, tried: met(rows[at], tried))
    new = np.flatnonzero(low > start)
    added = c.take(spreads, new) | {"batch": low[new] * spreads["dp"][new]}
    return {name: added[name] for name in columns}


def _close(low: np.ndarray, high: np.ndarray, met: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """The largest whole number below `high` of which it and all from `low` are met, of several intervals at once.

    Args:
        low: numbers that are met, 1 or more.
        high: numbers that are not.
        met: whether rows of numbers of some of the intervals are.
    """
    low, high = low.copy(), high.copy()
    while (rows := np.flatnonzero(high - low > 1)).size:
        tried = _between(low[rows], high[rows])
        found = np.logical_and.accumulate(met(rows, tried), axis=1)
        low[rows] = np.maximum(low[rows], np.where(found, tried, 0).max(axis=1))
        high[rows] = np.minimum(high[rows], np.where(found, high[rows, None], tried).min(axis=1))
    return low


def _between(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whole numbers strictly between each pair, rising along the second axis, as many as an evaluation has room for."""
    small, large = _ROWS
    room = small if low.size <= small else -(-low.size // large) * large
    parts = int(np.clip(room // low.size, 1, min(_TRIED, int((high - low).max()) - 1)))
    share = np.arange(1, parts + 1) / (parts + 1)
    # Even steps of the logarithm, since an interval may reach from one request to the most that are tried.
    steps = low[:, None] * (high / low)[:, None] ** share
    near = (high - low <= parts + 1)[:, None]
    steps = np.where(near, low[:, None] + np.arange(1, parts + 1), np.round(steps))
    return np.clip(steps.astype(int), low[:, None] + 1, high[:, None] - 1)
