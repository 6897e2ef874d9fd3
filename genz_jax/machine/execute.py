"""Execution: how long the work of a forward pass takes on a machine, as sums over its operators."""

import functools
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax.base.fields import Number
from genz_jax.machine.roofline import OperatorTime, Speeds, operator_time
from genz_jax.specs import Platform
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.figures import Bound
from genz_jax.work.demand import Pass, computed_once
from genz_jax.work.operators.operator import COLLECTIVES, COMPONENTS
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

    def times(self, factor: Number) -> "Totals":
        """The sums of `factor` such passes."""
        return jax.tree.map(lambda x: x * factor, self)

    def plus(self, other: "Totals") -> "Totals":
        """The sums of this pass and another, without the single operators."""
        mine, theirs = (eqx.tree_at(lambda t: t.operators, t, ()) for t in (self, other))
        return jax.tree.map(jnp.add, mine, theirs)

    @property
    def bound_code(self) -> jax.Array:
        """Code of the resource with the largest share."""
        compute, memory, network = self.bound
        code = jnp.where(memory > compute, jnp.int8(Bound.memory), jnp.int8(Bound.compute))
        return jnp.where(network > jnp.maximum(compute, memory), jnp.int8(Bound.network), code)


def run(work: Pass, speeds: Speeds, platform: Platform, assumptions: Assumptions) -> Totals:
    times: dict[str, OperatorTime] = {}
    # By kind of operator, since each of these sums depends on fewer axes than all together.
    kinds = ("roofline", "vector", "network")
    apart: dict[str, dict[str, Number]] = {name: dict.fromkeys(kinds, 0.0) for name in ("latency", "compute", "memory")}
    network: Number = 0.0
    peak_compute: Number = 0.0
    moved: Number = 0.0
    bound: list[Number] = [0.0, 0.0]
    breakdown: dict[str, Number] = dict.fromkeys(COMPONENTS, 0.0)
    for op, asked in zip(work.ops, work.loads, strict=True):
        time = operator_time(op, asked, speeds, platform, assumptions)
        if op.overlaps_with:
            time = _beside(time, [times[name].latency for name in op.overlaps_with], op.ranks)
        times[op.name] = time
        kind = "network" if op.kind in COLLECTIVES else "vector" if op.kind == "vector" else "roofline"
        for name, sums in apart.items():
            sums[kind] = sums[kind] + getattr(time, name)
        network = network + time.network
        peak_compute = peak_compute + asked.flops * speeds.flop[op.operand]
        moved = moved + asked.bytes + asked.onchip_bytes
        breakdown[op.component] = breakdown[op.component] + time.latency
        if kind == "roofline":
            by_memory = time.memory >= time.compute
            bound[Bound.compute] = bound[Bound.compute] + jnp.where(by_memory, 0.0, time.latency)
            bound[Bound.memory] = bound[Bound.memory] + jnp.where(by_memory, time.latency, 0.0)
    latency, compute, memory = (sums["roofline"] + (sums["vector"] + sums["network"]) for sums in apart.values())
    waits = (bound[Bound.compute], bound[Bound.memory] + apart["latency"]["vector"], apart["latency"]["network"])
    # One by one, so that what is not asked for is dropped; each would else be computed anew for every figure of it.
    latency, compute, memory, network, *bound = [
        computed_once(total) for total in (latency, compute, memory, network, *waits)
    ]
    return Totals(
        latency,
        compute,
        memory,
        network,
        peak_compute,
        moved * speeds.byte,
        (bound[0], bound[1], bound[2]),
        breakdown,
        ends_of(work.ops, [times[op.name].latency for op in work.ops], latency),
        tuple(times.values()),
    )


def _beside(time: OperatorTime, others: list[Number], ranks: Number) -> OperatorTime:
    """A ring that runs beside other operators: only what is longer than (n − 1)/n of their time adds to the latency."""
    busy: Number = 0.0
    for other in others:
        busy = busy + other
    exposed = jnp.maximum(time.network - busy * (ranks - 1.0) / ranks, 0.0)
    return OperatorTime(time.compute, time.memory, time.network, exposed)


def all_of(parts: Sequence[Totals], counts: Sequence[Number | None]) -> Totals:
    """Sums of all passes, of which each runs so often (None for once); of a single one, with its operators."""
    totals = [part if count is None else part.times(count) for part, count in zip(parts, counts, strict=True)]
    return functools.reduce(Totals.plus, totals)
