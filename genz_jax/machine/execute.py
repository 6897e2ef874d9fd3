"""Execution: the operators of a forward pass on a machine, as sums of their times."""

import functools
from collections.abc import Iterable, Sequence
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax.base.fields import Number
from genz_jax.machine.roofline import Load, OperatorTime, Speeds, load, operator_time
from genz_jax.specs import Model, Platform
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.figures import Bound
from genz_jax.work.footprint import sum_over
from genz_jax.work.operators.operator import COLLECTIVES, COMPONENTS, Operator
from genz_jax.work.pipeline import Ends, ends_of
from genz_jax.work.step import Deployment, Step
from genz_jax.work.steps import forward

Tree = TypeVar("Tree")


class Pass(eqx.Module):
    """The work of one forward pass, as the machine sees it: small arrays that do not depend on a platform."""

    ops: tuple[Operator, ...]
    loads: tuple[Load, ...]
    flops: Number
    traffic: Number


def forward_pass(model: Model, step: Step, deployment: Deployment) -> tuple[Pass, tuple[Operator, ...]]:
    ops = forward(model, step, deployment)
    slim = tuple(
        Operator(
            op.name,
            op.kind,
            op.component,
            op.on_chip,
            op.operand,
            repeats=op.repeats,
            message=op.message,
            ranks=op.ranks,
            stride=op.stride,
            hides=op.hides,
        )
        for op in ops
    )
    loads = tuple(load(op, deployment.assumptions) for op in ops)
    traffic = sum_over(ops, "input") + sum_over(ops, "weight") + sum_over(ops, "output")
    return computed_once(Pass(slim, loads, sum_over(ops, "flops"), traffic)), ops


def computed_once(tree: Tree) -> Tree:
    """Keep the compiler from fusing small arrays into the large ones, where it would compute them for every point."""
    return jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, tree))


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
        if op.hides:
            time = _beside(time, [times[name].latency for name in op.hides], op.ranks)
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


def weighted(values: Iterable[Number], counts: Sequence[Number]) -> Number:
    """Σ count · value."""
    total: Number = 0.0
    for value, count in zip(values, counts, strict=True):
        total = total + value * count
    return total


def all_of(parts: Sequence[Totals], counts: Sequence[Number]) -> Totals:
    """Sums of all passes; of a single one, with its operators."""
    if len(parts) == 1 and isinstance(counts[0], float) and counts[0] == 1.0:
        return parts[0]
    totals = [part.times(count) for part, count in zip(parts, counts, strict=True)]
    return functools.reduce(Totals.plus, totals)
