"""Work: what a stage asks of a machine, whichever it is. A value of small arrays, made without a platform."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax.base.fields import Number
from genz_jax.specs import Model, Workload
from genz_jax.work.footprint import Footprint, footprint, sum_over
from genz_jax.work.loads import Load, load
from genz_jax.work.operators.operator import Operator
from genz_jax.work.passes import Passes
from genz_jax.work.sharding import mapping_reason
from genz_jax.work.step import Deployment, Step
from genz_jax.work.steps import forward

Tree = TypeVar("Tree")


class Pass(eqx.Module):
    """A forward pass and how often it runs.

    Attributes:
        ops: its operators, with their sizes.
        loads: what each asks for.
        flops: floating point operations on one rank of every layer.
        traffic: bytes of all operands and results.
        count: how often it runs; None for once.
    """

    ops: tuple[Operator, ...]
    loads: tuple[Load, ...]
    flops: Number
    traffic: Number
    count: Number | None = None


class Work(eqx.Module):
    """What one stage of one model asks for.

    Attributes:
        passes: the forward passes of one micro-batch; the first has most tokens.
        held: bytes that a device holds.
        reason: code of why the model cannot be spread so, 0 if it can.
        layers: layers of the model.
        workload: the requests.
        deployment: how the model is spread and stored.
    """

    passes: tuple[Pass, ...]
    held: Footprint
    reason: Number
    layers: Number
    workload: Workload
    deployment: Deployment


def computed_once(tree: Tree) -> Tree:
    """Keep the compiler from fusing small arrays into the large ones, where it would compute them for every point."""
    return jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, tree))


def forward_passes(
    model: Model, passes: Passes, deployment: Deployment, times: Number | None = None
) -> tuple[tuple[Pass, ...], tuple[Operator, ...]]:
    """Forward passes, and the operators of the first with what they hold in memory.

    Args:
        model: the model.
        passes: the steps and how often each runs; None for once.
        deployment: how they are spread.
        times: how often all of them run; None for once.
    """
    made, ops = [], ()
    for step, count in reversed(passes):
        one, ops = _forward_pass(model, step, deployment)
        counts = [n for n in (count, times) if n is not None]
        made.append(dataclasses.replace(one, count=math.prod(counts) if counts else None))
    return tuple(reversed(made)), ops


def _forward_pass(model: Model, step: Step, deployment: Deployment) -> tuple[Pass, tuple[Operator, ...]]:
    ops = forward(model, step, deployment)
    loads = tuple(load(op, deployment.assumptions) for op in ops)
    traffic = sum_over(ops, "input") + sum_over(ops, "weight") + sum_over(ops, "output")
    sized = tuple(dataclasses.replace(op, position_ranges=(), stored=0.0, cached=0.0) for op in ops)
    return computed_once(Pass(sized, loads, sum_over(ops, "flops"), traffic)), ops


def work_of(model: Model, workload: Workload, deployment: Deployment, passes: Passes) -> Work:
    """The work of one micro-batch of a stage.

    Args:
        model: the model.
        workload: the requests.
        deployment: how they are spread.
        passes: the steps of one micro-batch and how often each runs; the first has most tokens and decides the memory.
    """
    first = passes[0][0]
    made, ops = forward_passes(model, passes, deployment)
    held = footprint(model, workload, first, deployment, ops)
    reason = mapping_reason(model, deployment, workload, encodes=first.mode == "encode")
    held, reason = computed_once((held, reason))
    return Work(made, held, reason, model.layers, workload, deployment)


def total_of(passes: Sequence[Pass], field: str) -> Number:
    """Σ count · field."""
    total: Number = 0.0
    for one in passes:
        value = getattr(one, field)
        total = total + (value if one.count is None else value * one.count)
    return total
