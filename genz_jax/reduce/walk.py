"""Reduce: walk a grid of any size block by block and keep what reductions ask for, in bounded memory."""

import collections
import dataclasses
import functools
import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from genz_jax.base.caches import QUESTIONS, Compiled
from genz_jax.base.units import ONE
from genz_jax.grid.feed import Block, progress_bar
from genz_jax.grid.space import Space
from genz_jax.grid.walk import Plan, plan
from genz_jax.labelled import labels
from genz_jax.labelled.labels import Coordinate, Grid
from genz_jax.reduce.accumulators import Accumulator, BestPoint, BestPoints, Front, Share
from genz_jax.reduce.interrupts import StopRequest, stop_on_interrupt
from genz_jax.reduce.quantiles import Ranking
from genz_jax.reduce.ranked import BlockView, Ranked, described, ranked_points
from genz_jax.reduce.reductions import (
    Best,
    Fraction,
    Objective,
    ParetoFront,
    Quantiles,
    Reduction,
    TopK,
    check,
    meta_of,
    name_of,
    reduced_dims,
    sense_of,
)
from genz_jax.serving.evaluate import Question, slim

if TYPE_CHECKING:
    import xarray as xr

AHEAD = 2
"""Blocks that are handed to the devices before the first of them is looked at."""


def read_reductions(given: Any) -> dict[str, Reduction]:
    """Reductions by name; a single one has the name "".

    Raises:
        ValueError: not a reduction, none at all, or one that asks for what cannot be.
    """
    named = dict(given) if isinstance(given, Mapping) else {"": given}
    if not named:
        raise ValueError("reduce = {}: an empty mapping; name at least one reduction")
    for reduction in named.values():
        check(reduction)
    return named


def reduce_space(
    space: Space, question: Question, reductions: Mapping[str, Reduction], progress: bool
) -> dict[str, "xr.Dataset"]:
    """Reduce a space to its best points, fronts, fractions or quantiles.

    Best points, fronts and fractions are found in one walk; quantiles have one or more of their own.

    Args:
        space: the case, with axes, and what is promised of it.
        question: the stage, the physics and the figures of the points that are found.
        reductions: what is asked, by name.
        progress: show a progress bar when it takes long.

    Returns:
        A Dataset for each reduction. After an interrupt it is that of the blocks up to then, with a warning. The
        attributes `points`, `points_done` and `complete` say how much that is.

    Raises:
        ValueError: a figure or dimension that is not there.
    """
    grid, names = space.grid, space.names
    shapes = described(dataclasses.replace(question, figures=None), jax.tree.structure(slim(space.case)))
    rankings = {n: _ranking(r, space, question, shapes) for n, r in reductions.items() if isinstance(r, Quantiles)}
    walked = {n: r for n, r in reductions.items() if n not in rankings}
    objectives = {n: _objectives(r, shapes) for n, r in walked.items()}
    planned = _plan(space, question, tuple(one for ranked in objectives.values() for one in ranked))
    kept = {n: _accumulator(r, planned, objectives[n], shapes) for n, r in walked.items()}
    seen: dict[str, int] = {}
    with stop_on_interrupt() as interrupt, jax.ensure_compile_time_eval():
        if kept:
            seen |= dict.fromkeys(kept, _walk(planned, list(kept.values()), progress, interrupt))
        for name, ranking in rankings.items():
            ranking.run(progress, interrupt)
            seen[name] = ranking.seen
    if interrupt.stop:
        least = min(seen.values())
        message = f"interrupted after {least:,} of {grid.points:,} points: the result is of these alone"
        warnings.warn(message, stacklevel=3)
    found: dict[str, xr.Dataset] = {}
    for name, reduction in reductions.items():
        if isinstance(reduction, Quantiles):
            one = _labelled(rankings[name], reduction.figure, grid, names, shapes)
        else:
            one = kept[name].dataset(space, question)
        complete = not interrupt.stop or (seen[name] == grid.points and not isinstance(reduction, Quantiles))
        found[name] = one.assign_attrs(points=grid.points, points_done=seen[name], complete=int(complete))
    return found


def _objectives(reduction: Reduction, shapes: Any) -> Ranked:
    """What a reduction ranks points by."""
    given: list[tuple[Objective, Any]] = []
    if isinstance(reduction, ParetoFront):
        given = list(reduction.objectives.items())
    elif isinstance(reduction, Best | TopK):
        given = [(reduction.objective, reduction.sense)]
    return tuple((one, sense_of(one, sense, meta_of(one, shapes))) for one, sense in given)


def _plan(space: Space, question: Question, ranked: Ranked) -> Plan:
    asked = dataclasses.replace(question, figures=None, breakdown=False, operators=False)
    return plan(ranked_points(asked, ranked), space.case, space.sizes, space.order)


def _accumulator(reduction: Reduction, planned: Plan, ranked: Ranked, shapes: Any) -> Accumulator:
    blocks = planned.blocks
    metas = tuple(meta_of(objective, shapes) for objective, _ in ranked)
    if isinstance(reduction, Fraction):
        return Share(blocks, reduced_dims(reduction.over, blocks.sizes))
    if isinstance(reduction, Best):
        return BestPoint(blocks, ranked, metas, reduced_dims(reduction.over, blocks.sizes))
    if isinstance(reduction, TopK):
        return BestPoints(blocks, ranked, metas, int(reduction.k))
    return Front(blocks, ranked, metas)


def _ranking(reduction: Quantiles, space: Space, question: Question, shapes: Any) -> Ranking:
    meta_of(reduction.figure, shapes)
    over = reduced_dims(reduction.over, space.sizes)
    return Ranking(space, question, reduction.figure, np.asarray(reduction.q, float), over)


@functools.lru_cache(maxsize=QUESTIONS)
def _step(function: Any, kinds: tuple[tuple[type[Accumulator], int], ...], padded: bool, quick: bool) -> Any:
    """The function that takes a block into all accumulators, compiled once per structure and shapes."""

    @functools.partial(Compiled, quick=quick, donate_argnums=0, static_argnums=5)
    def step(
        carries: list[Any], aids: list[Any], part: Any, number: Any, lengths: Any, shape: tuple[int, ...]
    ) -> tuple[list[Any], list[Any], jax.Array]:
        points = function(part)
        view = BlockView(points.good, _inside(lengths, shape) if padded else None, number, shape)
        values = iter(points.values)
        kept, outs = [], []
        for (kind, count), carry, aid in zip(kinds, carries, aids, strict=True):
            own = [jnp.broadcast_to(next(values), shape) for _ in range(count)]
            carry, out = kind.update(own, carry, aid, view)
            kept.append(carry)
            outs.append(out)
        return kept, outs, number + jnp.ones_like(number)

    return step


def _inside(lengths: Any, shape: tuple[int, ...]) -> jax.Array:
    """True for the places of a block that are in the grid."""
    rank = len(shape)
    along = [
        jnp.arange(n, dtype=jnp.int32).reshape([-1 if i == k else 1 for i in range(rank)]) for k, n in enumerate(shape)
    ]
    return functools.reduce(jnp.logical_and, [at < lengths[k] for k, at in enumerate(along)])


def _size(block: Block) -> int:
    return math.prod(part.stop - part.start for part in block.place.values())


def _walk(planned: Plan, kept: list[Accumulator], progress: bool, interrupt: StopRequest) -> int:
    """Take blocks into the accumulators until the last or an interrupt; the number of points that have been taken."""
    blocks = planned.blocks
    shape = tuple(blocks.shape.values())
    padded = any(n % blocks.shape[dim] for dim, n in blocks.sizes.items())
    step = _step(planned.function, tuple((type(one), len(one.ranked)) for one in kept), padded, planned.quick)
    # Blocks that share a carry follow each other.
    main = max(kept, key=lambda one: len(one.kept))
    todo = sorted(blocks, key=main.group) if main.kept else blocks
    carries: list[Any] = [one.start() for one in kept]
    if len(blocks) > 1 and any(type(one).sample is not Accumulator.sample for one in kept):
        places, sample = blocks.sample()
        lengths = np.array(shape, np.int32)
        _, outs, _ = step([one.start() for one in kept], [one.aid for one in kept], sample, np.int32(0), lengths, shape)
        for one, out in zip(kept, outs, strict=True):
            one.sample(places, out)
    first: list[Block | None] = [None] * len(kept)
    waiting: collections.deque[tuple[Block, list[Any], jax.Array]] = collections.deque()
    done = 0

    def look() -> None:
        nonlocal done
        block, outs, token = waiting.popleft()
        jax.block_until_ready(token)
        for one, out in zip(kept, outs, strict=True):
            one.look(block, out)
        done += _size(block)

    for block in progress_bar(todo, progress):
        full = []
        for i, one in enumerate(kept):
            last = first[i]
            if last is not None and one.group(last) != one.group(block):
                full.append((one, last, carries[i]))
                carries[i] = one.start()
                last = None
            first[i] = last or block
        lengths = np.array([part.stop - part.start for part in block.place.values()], np.int32)
        part, aids = blocks.part(block), [one.aid for one in kept]
        carries, outs, token = step(carries, aids, part, np.int32(block.number), lengths, shape)
        waiting.append((block, outs, token))
        for one, last, carry in full:
            one.close(last, carry)
        if len(waiting) > AHEAD:
            look()
        if interrupt.stop:
            break
    while waiting:
        look()
    for one, last, carry in zip(kept, first, carries, strict=True):
        if last is not None:
            one.close(last, carry)
    return done


def _labelled(ranking: Ranking, objective: Objective, grid: Grid, names: dict[str, str], shapes: Any) -> "xr.Dataset":
    meta = meta_of(objective, shapes)
    coords = {name: at for name, at in grid.coords.items() if set(at.dims) <= set(ranking.kept)}
    coords["quantile"] = Coordinate(("quantile",), ranking.q, {"units": ONE, "long_name": "share of points below"})
    count = {"units": ONE, "long_name": "points that run and meet the objective"}
    values = {
        name_of(objective): (ranking.values, (*ranking.kept, "quantile"), meta),
        "count": (ranking.counts, ranking.kept, count),
    }
    title = f"genz_jax: quantiles of {name_of(objective)}, {names['model']} on {names['platform']}"[:200]
    found = labels.plain_dataset(values, coords, {"title": title})
    return found.transpose(*(dim for dim in grid.sizes if dim in ranking.kept), "quantile")
