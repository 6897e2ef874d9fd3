"""Network: the time of each kind of collective on a hierarchy of network levels."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from genz_jax.base.fields import Number
from genz_jax.specs import Platform
from genz_jax.specs.assumptions import Assumptions, default as DEFAULT
from genz_jax.work.operators.operator import COLLECTIVES, Operator
from genz_jax.work.step import ceil_div

TimeOf = Callable[[Operator, Platform, Assumptions], Number]
"""Time of one run of a collective, in s, where it sends something."""

_TIMES: dict[str, TimeOf] = {}


def collective(*kinds: str) -> Callable[[TimeOf], TimeOf]:
    """Register the decorated function as the time of operators of some kinds, which then are collectives.

    Args:
        *kinds: values of `Operator.kind`; a kind that was known gets the new function.

    Example:
        `@collective("broadcast")`
    """

    def decorate(time: TimeOf) -> TimeOf:
        _TIMES.update(dict.fromkeys(kinds, time))
        COLLECTIVES.update(kinds)
        return time

    return decorate


def network_time(op: Operator, platform: Platform, assumptions: Assumptions = DEFAULT) -> Number:
    """Time of one run of a collective, in s, by the function of its kind; 0 where it sends nothing."""
    return jnp.where((op.message > 0) & (op.ranks > 1), _TIMES[op.kind](op, platform, assumptions), 0.0)


@collective("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
def level_by_level(op: Operator, platform: Platform, assumptions: Assumptions) -> Number:
    """Collectives that work level by level.

    A group of n ranks, `stride` devices apart, fills the levels from the inside: nᵢ parts at level i, whose links have
    bandwidth Bᵢ per device and latency λᵢ. Each level works on what the levels below have left, dᵢ = d / (n₁…nᵢ₋₁).
    With the fixed overhead t₀ of a collective:

    - all-reduce: t₀ + Σᵢ 2hᵢ·λᵢ + 2(nᵢ − 1)/nᵢ · dᵢ/Bᵢ (reduce-scatter inwards, all-gather outwards)
    - all-gather, reduce-scatter: t₀ + Σᵢ hᵢ·λᵢ + (nᵢ − 1)/nᵢ · dᵢ/Bᵢ
    - all-to-all: t₀ + Σᵢ hᵢ·λᵢ + (n₁…nᵢ − n₁…nᵢ₋₁)/n · d/Bᵢ (what goes to ranks first reached at level i)

    with hᵢ = nᵢ − 1 hops around a ring, and 1 where all ranks meet at a switch. With one level that is a ring these are
    the formulas of arXiv 2406.01698, which knows no other (`Assumptions.collectives`). The size of a level decides
    which links a group crosses; nothing has a derivative in it.
    """
    time: Number = platform.collective_overhead
    steps = 2.0 if op.kind == "all_reduce" else 1.0
    for reached, below, level in levels(op.ranks, op.stride, platform):
        parts = ceil_div(reached, below)
        if op.kind == "all_to_all":
            share = (reached - below) / op.ranks
        else:
            share = (parts - 1.0) / parts / below
        bandwidth = level.bandwidth * platform.link_efficiency
        hops = parts - 1.0
        if assumptions.collectives == "topology":
            hops = hops + level.topology * (jnp.minimum(hops, 1.0) - hops)
        time = time + steps * (hops * level.latency + share * op.message / bandwidth)
    return time


def levels(ranks: Number, stride: Number, platform: Platform):
    """Ranks reached within each level, those reached below it, and the level."""
    below: Number = 1.0
    for level in platform.network:
        inside = jnp.maximum(jnp.floor(level.size / stride), below)
        reached = jnp.where(inside < ranks, inside, ranks)
        yield reached, below, level
        below = reached


@collective("point_to_point")
def mean_hop(op: Operator, platform: Platform, assumptions: Assumptions) -> Number:
    """Mean time of the ranks − 1 hops of a chain of ranks, `stride` devices apart: λ + d/B of the level of each.

    A domain of s devices is left ⌈ranks·stride/s⌉ − 1 times; those hops go over the next wider level.
    """
    del assumptions
    hops = jnp.maximum(op.ranks - 1.0, 1.0)
    time: Number = 0.0
    left: Number = hops
    for i, level in enumerate(platform.network):
        leaves = jnp.clip(ceil_div(op.ranks * op.stride, jax.lax.stop_gradient(level.size)) - 1.0, 0.0, left)
        inside = left if i == len(platform.network) - 1 else left - leaves
        time = time + inside * (level.latency + op.message / (level.bandwidth * platform.link_efficiency))
        left = leaves
    return time / hops


@collective("ring")
def slowest_hop(op: Operator, platform: Platform, assumptions: Assumptions) -> Number:
    """Time of one pass of a ring, in which all ranks send at once: maxᵢ (λᵢ + d/Bᵢ) over the levels that it crosses."""
    del assumptions
    time: Number = 0.0
    for reached, below, level in levels(op.ranks, op.stride, platform):
        hop = level.latency + op.message / (level.bandwidth * platform.link_efficiency)
        time = jnp.maximum(time, jnp.where(reached > below, hop, 0.0))
    return time


def too_small(devices: Number, platform: Platform) -> Bool[Array, "..."]:
    """True where more devices are asked for than the network joins."""
    joined: jax.Array | float = 1.0
    for level in platform.network:
        joined = jnp.maximum(joined, level.size)
    return devices > joined
