"""Execution: how long the work of a forward pass takes on a machine, as sums over its operators."""

import dataclasses
import functools
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.machine.efficiency import Efficiency
from genz_jax.machine.roofline import OperatorTime, Speeds, operator_time
from genz_jax.specs import Platform
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.figures import Bound
from genz_jax.work.demand import Pass, computed_once
from genz_jax.work.operators.operator import COLLECTIVES, COMPONENTS, Operator
from genz_jax.work.pipeline import Ends, ends_of


class Totals(eqx.Module):
    """Sums over the operators of a pass; `bound` has the latency of the operators that wait for each resource.

    `ends` has the latency of the layers, of the embedding and of the head, for the stages of a pipeline.
    """

    latency: Number
    compute: Number
    memory: Number
    network: Number
    peak_compute: Number
    peak_memory: Number
    bound: tuple[Number, Number, Number]
    breakdown: dict[str, Number]
    ends: Ends
    operators: tuple[OperatorTime, ...]

    def times(self, factor: Number | None) -> "Totals":
        """The sums of `factor` such passes (None for one), without the single operators."""
        alone = dataclasses.replace(self, operators=())
        return alone if factor is None else jax.tree.map(lambda x: x * factor, alone)

    @property
    def bound_code(self) -> jax.Array:
        """Code of the resource with the largest share."""
        compute, memory, network = self.bound
        code = jnp.where(memory > compute, jnp.int8(Bound.memory), jnp.int8(Bound.compute))
        return jnp.where(network > jnp.maximum(compute, memory), jnp.int8(Bound.network), code)


def run(work: Pass, speeds: Speeds, platform: Platform, assumptions: Assumptions) -> Totals:
    """Sums over the operators of a pass.

    Args:
        work: the pass.
        speeds: those of the device.
        platform: the device and its network.
        assumptions: which physics counts.
    """
    times: dict[str, OperatorTime] = {}
    for op, asked in zip(work.ops, work.loads, strict=True):
        time = operator_time(op, asked, speeds, platform, assumptions)
        if op.overlaps_with:
            time = _beside(time, [times[name].latency for name in op.overlaps_with], op.ranks)
        times[op.name] = time
    if speeds.efficiency is not None:
        times = _slowed(times, speeds.efficiency, work.ops)
    # By kind of operator, since each of these sums depends on fewer axes than all together.
    kinds = ("roofline", "vector", "network")
    of_kind = {kind: [times[op.name] for op in work.ops if _kind(op) == kind] for kind in kinds}
    latency, compute, memory = (
        {kind: xp.total(getattr(time, name) for time in found) for kind, found in of_kind.items()}
        for name in ("latency", "compute", "memory")
    )
    by_memory = [(time.latency, time.memory >= time.compute) for time in of_kind["roofline"]]
    sums = (
        *(parts["roofline"] + (parts["vector"] + parts["network"]) for parts in (latency, compute, memory)),
        xp.total(time.network for time in times.values()),
        xp.total(jnp.where(waits, 0.0, time) for time, waits in by_memory),
        xp.total(jnp.where(waits, time, 0.0) for time, waits in by_memory) + latency["vector"],
        latency["network"],
    )
    # One by one, so that what is not asked for is dropped; each would else be computed anew for every figure of it.
    whole, compute_time, memory_time, network, *bound = map(computed_once, sums)
    return Totals(
        whole,
        compute_time,
        memory_time,
        network,
        xp.total(asked.flops * speeds.flop[op.operand] for op, asked in zip(work.ops, work.loads, strict=True)),
        xp.total(each for asked in work.loads for each in (asked.bytes, asked.onchip_bytes)) * speeds.byte,
        (bound[Bound.compute], bound[Bound.memory], bound[Bound.network]),
        {name: xp.total(times[op.name].latency for op in work.ops if op.component == name) for name in COMPONENTS},
        ends_of(work.ops, [times[op.name].latency for op in work.ops], whole),
        tuple(times.values()),
    )


def _slowed(times: dict[str, OperatorTime], efficiency: Efficiency, ops: Sequence[Operator]) -> dict[str, OperatorTime]:
    """Times of a pass at the pace that the power limit allows."""
    products = [times[op.name] for op in ops if _kind(op) == "roofline"]
    bound = xp.total(jnp.where(time.memory >= time.compute, 0.0, time.latency) for time in products)
    factor = efficiency.slowdown(xp.total(time.latency for time in times.values()), bound)
    return {name: dataclasses.replace(time, latency=time.latency * factor) for name, time in times.items()}


def _kind(op: Operator) -> str:
    """What an operator waits for: the roofline's two resources, memory alone, or the network."""
    return "network" if op.kind in COLLECTIVES else "vector" if op.kind == "vector" else "roofline"


def _beside(time: OperatorTime, others: list[Number], ranks: Number) -> OperatorTime:
    """A ring that runs beside other operators: only what is longer than (n − 1)/n of their time adds to the latency."""
    exposed = jnp.maximum(time.network - xp.total(others) * (ranks - 1.0) / ranks, 0.0)
    return OperatorTime(time.compute, time.memory, time.network, exposed)


def all_of(parts: Sequence[Totals], counts: Sequence[Number | None]) -> Totals:
    """Sums of all passes, of which each runs so often (None for once); of a single one, with its operators."""
    if len(parts) == 1 and counts[0] is None:
        return parts[0]
    return functools.reduce(
        lambda a, b: jax.tree.map(jnp.add, a, b), [part.times(n) for part, n in zip(parts, counts, strict=True)]
    )
