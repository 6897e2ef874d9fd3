"""Exhaustive grids over the variables of a tuning problem: blocks through one kernel, and the best is kept."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from genz_jax.base.caches import Compiled
from genz_jax.questions.tune.problem import Data, Form, outcome

BLOCK = 2**17
"""Points of a block."""


@dataclasses.dataclass(frozen=True)
class GridBest:
    """The best feasible point of a grid: its goal as it is minimised (NaN if none), place, sizes, and the points."""

    goal: float
    logs: np.ndarray
    spread: tuple[float, ...]
    points: int
    feasible: int


@functools.partial(Compiled, static_argnames=("form", "block"))
def _best_of_block(form: Form, data: Data, axes: tuple[Any, ...], spread: Any, start: Any, block: int) -> Any:
    """Least goal of the feasible points of a block, its place in the grid, and how many are feasible."""
    index = start + jnp.arange(block, dtype=jnp.int32)
    rest, logs = index, []
    for axis in reversed(axes):
        logs.append(axis[rest % axis.shape[0]])
        rest = rest // axis.shape[0]
    found = outcome(form, data, jnp.stack(logs[::-1]), spread)
    good = (jnp.max(found.excess, axis=0) <= 0.0) & (rest == 0) & jnp.isfinite(found.goal)
    goal = jnp.where(good, found.goal, jnp.inf)
    at = jnp.argmin(goal)
    return goal[at], index[at], jnp.sum(good)


def best_of_grid(
    form: Form,
    data: Data,
    axes: Sequence[np.ndarray],
    spreads: Sequence[tuple[float, ...]],
    progress: bool = True,
) -> GridBest:
    """The best feasible point of the product of axes, for every choice of parallel sizes.

    Args:
        form: structure of the problem.
        data: its numbers.
        axes: logarithms of the values of each continuous variable.
        spreads: parallel sizes to try.
        progress: show a progress bar when it takes long.

    Raises:
        ValueError: more points than a 32-bit index counts.
    """
    size = math.prod(axis.size for axis in axes)
    if size >= 2**31 - BLOCK:
        raise ValueError(f"grid of {size:,} points per choice of parallel sizes: at most 2^31 are counted")
    block = min(BLOCK, max(size, 1))
    arrays = tuple(jnp.asarray(axis) for axis in axes)
    best, place, chosen, feasible = math.inf, -1, spreads[0], 0
    blocks = list(itertools.product(spreads, range(0, size, block)))
    waiting: list[Any] = []

    def take(entry: Any) -> None:
        nonlocal best, place, chosen, feasible
        spread, (goal, at, good) = entry
        feasible += int(good)
        if float(goal) < best:
            best, place, chosen = float(goal), int(at), spread

    for spread, start in tqdm(blocks, unit="block", delay=2, leave=False, disable=not progress):
        sizes = tuple(jnp.asarray(float(n)) for n in spread)
        waiting.append((spread, _best_of_block(form, data, arrays, sizes, jnp.int32(start), block)))
        if len(waiting) > 1:
            take(waiting.pop(0))
    for entry in waiting:
        take(entry)
    logs = np.full(len(axes), np.nan)
    if place >= 0:
        for k in reversed(range(len(axes))):
            logs[k] = axes[k][place % axes[k].size]
            place //= axes[k].size
    return GridBest(best if math.isfinite(best) else math.nan, logs, tuple(chosen), size * len(spreads), feasible)
