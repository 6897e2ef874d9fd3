"""Collectives on a hierarchy of network levels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from genz_jax.base.fields import Number
from genz_jax.specs import Platform
from genz_jax.specs.assumptions import Assumptions, default as DEFAULT
from genz_jax.work.operators.operator import Operator
from genz_jax.work.step import ceil_div


def network_time(op: Operator, platform: Platform, assumptions: Assumptions = DEFAULT) -> Number:
    """Time of one run of a collective, in s; 0 where it sends nothing.

    A group of n ranks, `stride` devices apart, fills the levels from the inside: nᵢ parts at level i, whose links have
    bandwidth Bᵢ per device and latency λᵢ. Each level works on what the levels below have left, dᵢ = d / (n₁…nᵢ₋₁).
    With the fixed overhead t₀ of a collective:

    - all-reduce: t₀ + Σᵢ 2hᵢ·λᵢ + 2(nᵢ − 1)/nᵢ · dᵢ/Bᵢ (reduce-scatter inwards, all-gather outwards)
    - all-gather, reduce-scatter: t₀ + Σᵢ hᵢ·λᵢ + (nᵢ − 1)/nᵢ · dᵢ/Bᵢ
    - all-to-all: t₀ + Σᵢ hᵢ·λᵢ + (n₁…nᵢ − n₁…nᵢ₋₁)/n · d/Bᵢ (what goes to ranks first reached at level i)
    - point to point: λ + d/B of the level that joins the two, averaged over a chain of ranks
    - one pass of a ring: maxᵢ (λᵢ + d/Bᵢ) over the levels that it crosses, since all ranks send at once

    with hᵢ = nᵢ − 1 hops around a ring, and 1 where all ranks meet at a switch. With one level that is a ring these are
    the formulas of arXiv 2406.01698, which knows no other (`Assumptions.collectives`). The size of a level decides
    which links a group crosses; nothing has a derivative in it.
    """
    if op.kind == "point_to_point":
        return _hop_time(op, platform)
    if op.kind == "ring":
        return _pass_time(op, platform)
    time: Number = platform.collective_overhead
    steps = 2.0 if op.kind == "all_reduce" else 1.0
    for reached, below, level in _levels(op.ranks, op.stride, platform):
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
    return jnp.where((op.message > 0) & (op.ranks > 1), time, 0.0)


def _levels(ranks: Number, stride: Number, platform: Platform):
    """Ranks reached within each level, those reached below it, and the level."""
    below: Number = 1.0
    for level in platform.network:
        inside = jnp.maximum(jnp.floor(level.size / stride), below)
        reached = jnp.where(inside < ranks, inside, ranks)
        yield reached, below, level
        below = reached


def _hop_time(op: Operator, platform: Platform) -> Number:
    """Mean time of the ranks − 1 hops of a chain of ranks, `stride` devices apart.

    A domain of s devices is left ⌈ranks·stride/s⌉ − 1 times; those hops go over the next wider level.
    """
    hops = jnp.maximum(op.ranks - 1.0, 1.0)
    time: Number = 0.0
    left: Number = hops
    for i, level in enumerate(platform.network):
        leaves = jnp.clip(ceil_div(op.ranks * op.stride, jax.lax.stop_gradient(level.size)) - 1.0, 0.0, left)
        inside = left if i == len(platform.network) - 1 else left - leaves
        time = time + inside * (level.latency + op.message / (level.bandwidth * platform.link_efficiency))
        left = leaves
    return jnp.where((op.message > 0) & (op.ranks > 1), time / hops, 0.0)


def _pass_time(op: Operator, platform: Platform) -> Number:
    """Time of one pass of a ring: that of its slowest hop."""
    time: Number = 0.0
    for reached, below, level in _levels(op.ranks, op.stride, platform):
        hop = level.latency + op.message / (level.bandwidth * platform.link_efficiency)
        time = jnp.maximum(time, jnp.where(reached > below, hop, 0.0))
    return jnp.where((op.message > 0) & (op.ranks > 1), time, 0.0)


def too_small(devices: Number, platform: Platform) -> Bool[Array, "..."]:
    """True where more devices are asked for than the network joins."""
    joined: jax.Array | float = 1.0
    for level in platform.network:
        joined = jnp.maximum(joined, level.size)
    return devices > joined
