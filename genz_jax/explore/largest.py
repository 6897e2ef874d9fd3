"""Largest batches: of every spread the most requests that run and meet limits, found for all spreads at once."""

import dataclasses
from collections.abc import Callable

import numpy as np

from genz_jax.explore import candidates as c

MOST = 2**20
"""Requests of a replica that are tried at most."""

_EXACT = 2**23  # requests of a batch at most: whole numbers beyond are not exact in float32
_ROWS = (2**9, 2**12)  # candidates that are evaluated in one go
_TRIED = 64  # batches of a spread at most that are evaluated in one go


@dataclasses.dataclass(frozen=True)
class Passes:
    """In how many passes the prompts of a micro-batch are processed, by the requests of a replica.

    With pipeline stages the time to the first token falls where a pass is added, since the last one is then short: it
    rises with the batch only as long as their number is the same.

    Attributes:
        limit: tokens of a pass at most.
        tokens: new tokens of a prompt in the mean.
        micro_batches: micro-batches of each spread.
    """

    limit: float
    tokens: float
    micro_batches: np.ndarray

    def count(self, requests: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Passes of so many requests, for some of the spreads."""
        each = np.maximum(requests / self.micro_batches[rows], 1.0)
        return np.maximum(np.ceil(each * self.tokens / self.limit), 1).astype(int)

    def least(self, count: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Fewest requests that take so many passes."""
        shape = (-1, *(1,) * (count.ndim - 1))
        full = (count - 1) * self.limit * self.micro_batches[rows].reshape(shape) / self.tokens
        return np.floor(full).astype(int) + 1


def largest_batches(
    columns: c.Columns,
    good: np.ndarray,
    evaluate: Callable[[c.Columns], np.ndarray],
    passes: Callable[[c.Columns], Passes] | None = None,
) -> c.Columns:
    """Candidates with the largest good batch of each spread, where that is larger than all of its good ones so far.

    The interval of each spread between a good batch and one that is not is cut in many parts at once, so that few
    rounds are needed. A batch is a multiple of the replicas; it is good where all smaller ones are, or where
    `passes` is given all smaller ones of as many passes, and the smallest ones of fewer.

    Args:
        columns: candidates whose batches are whole on each replica.
        good: whether each of them is good.
        evaluate: whether other candidates are.
        passes: the passes of spreads, where their number is bounded.

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
    if passes is not None and rows.size:
        taken = passes(spreads)
        here = taken.count(low[rows], rows)
        last = taken.count(most[rows], rows)
        most_passes = _close(here, last + 1, lambda at, tried: met(rows[at], taken.least(tried, rows[at])))
        rows, many = rows[most_passes > here], most_passes[most_passes > here]
        least, beyond = (taken.least(number, rows) for number in (many, many + 1))
        beyond = np.minimum(beyond, most[rows] + 1)
        low[rows] = _close(least, beyond, lambda at, tried: met(rows[at], tried))
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
