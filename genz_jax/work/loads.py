"""Loads: what operators ask of each resource of a machine, whichever it is."""

import equinox as eqx
import jax.numpy as jnp

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.specs.assumptions import Assumptions
from genz_jax.work.operators.operator import Operator


class PositionCount(eqx.Module):
    """How many decode positions there are, and the reciprocals of that and of the gaps between them."""

    count: Number
    per_position: Number
    per_gap: Number

    @classmethod
    def of(cls, count: Number) -> "PositionCount":
        """For a count of positions, which may be 0."""
        return cls(count, 1.0 / jnp.maximum(count, 1.0), 1.0 / jnp.maximum(count - 1.0, 1.0))


class LoadRange(eqx.Module):
    """A range of decode positions within which work is linear in the position: loads and sizes at its two ends."""

    share: Number
    count: PositionCount
    first: "Load"
    last: "Load"
    first_sizes: dict[str, Number]
    last_sizes: dict[str, Number]


class Load(eqx.Module):
    """What an operator asks of each resource, all repeats together; the work that the machine sees."""

    flops: Number
    bytes: Number
    onchip_bytes: Number
    ranges: tuple[LoadRange, ...] = ()


def load(op: Operator, assumptions: Assumptions) -> Load:
    """Work of all repeats of an operator. An operator of the matrix units without FLOPs moves nothing.

    Vector operators wait for memory alone, so their FLOPs take no time here.
    """
    if op.position_ranges:
        return _mean_load(op, assumptions)
    tensors = {"i": op.input, "w": op.weight, "o": op.output}
    onchip = xp.total(tensor for initial, tensor in tensors.items() if initial in op.on_chip)
    offchip = xp.total(tensor for initial, tensor in tensors.items() if initial not in op.on_chip)
    if op.kind == "vector":
        return Load(0.0, offchip * op.repeats, onchip * op.repeats)
    runs = jnp.where(op.flops > 0, op.repeats, 0.0)
    onchip = onchip * runs if assumptions.on_chip_traffic else 0.0
    return Load(op.flops * op.repeats, offchip * runs, onchip)


def _mean_load(op: Operator, assumptions: Assumptions) -> Load:
    """Work of an operator that stands for many positions: the mean of what its ranges ask for at their ends."""
    flops: Number = 0.0
    offchip: Number = 0.0
    onchip: Number = 0.0
    ranges = []
    for part in op.position_ranges:
        first, last = (load(end.times(op.repeats), assumptions) for end in (part.first, part.last))
        flops = flops + part.share * (first.flops + last.flops) / 2.0
        offchip = offchip + part.share * (first.bytes + last.bytes) / 2.0
        onchip = onchip + part.share * (first.onchip_bytes + last.onchip_bytes) / 2.0
        sizes = part.first.sizes, part.last.sizes
        ranges.append(LoadRange(part.share, PositionCount.of(part.count), first, last, *sizes))
    return Load(flops, offchip, onchip, tuple(ranges))
