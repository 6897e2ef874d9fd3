"""Stage: the work that a question asks for, and the figures that follow from how long it takes on a machine."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax.base.fields import Number
from genz_jax.machine.energy import energy
from genz_jax.machine.execute import Totals
from genz_jax.machine.network import too_small
from genz_jax.specs import Engine, Model, Parallelism, Platform, Precision, Speculation, Workload
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.figures import Bound, Result
from genz_jax.specs.reasons import Reason, first_reason
from genz_jax.work.step import Deployment
from genz_jax.work.steps import micro_batches

Tree = TypeVar("Tree")


class Inputs(eqx.Module):
    """What the work of a stage depends on: all but the platform."""

    model: Model
    workload: Workload
    deployment: Deployment
    speculation: Speculation | None = None


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage in two steps, between which everything that is known without a platform is a value.

    Attributes:
        work: what is asked for, a tree of small arrays.
        figures: the result, from the work, a platform, and whether figures of every operator are wanted.
        details: it has a breakdown and operators.
        speculation: whether it takes a `Speculation`.
    """

    work: Callable[[Inputs], Any]
    figures: Callable[[Any, Platform, bool], Result]
    details: bool = False
    speculation: Literal["never", "may", "must"] = "never"


def as_arrays(tree: Tree) -> Tree:
    """All numbers of specs as arrays of JAX's default float type."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype=jnp.result_type(float)), tree)


def inputs_of(
    model: Model,
    workload: Workload,
    parallelism: Parallelism,
    precision: Precision,
    assumptions: Assumptions,
    engine: Engine | None = None,
    speculation: Speculation | None = None,
) -> Inputs:
    """The inputs of a stage as arrays."""
    numbers = as_arrays((model, workload, parallelism, precision, engine, speculation))
    model, workload, parallelism, precision, engine, speculation = numbers
    return Inputs(model, workload, Deployment(parallelism, precision, assumptions, engine), speculation)


def replica_devices(deployment: Deployment) -> Number:
    """Devices of one data parallel replica; replicas send each other nothing."""
    return deployment.ranks * deployment.cp * deployment.parallelism.pp


def device_count(deployment: Deployment) -> Number:
    """All devices."""
    return replica_devices(deployment) * deployment.parallelism.dp


def reason_code(mapping: Number, devices: Number, platform: Platform, fits: Number) -> jax.Array:
    """Code of why a point does not run: that of the mapping, else of the machine; 0 if it runs."""
    machine = first_reason(
        (too_small(devices, platform), Reason.network_too_small),
        (jnp.logical_not(fits), Reason.does_not_fit),
    )
    return jnp.where(mapping > 0, mapping, machine)


def known_where(feasible: Number, assumptions: Assumptions) -> Callable[[Number], jax.Array]:
    """Times, rates and energies where a point runs, else NaN; everywhere where `Assumptions.infeasible` is finite."""
    if assumptions.infeasible == "finite":
        return jnp.asarray
    return lambda value: jnp.where(feasible, value, jnp.nan)


def bound_where(feasible: Number, assumptions: Assumptions) -> Callable[[Number], jax.Array]:
    """What a point waits for where it runs, else nothing; everywhere where `Assumptions.infeasible` is finite."""
    if assumptions.infeasible == "finite":
        return jnp.asarray
    return lambda code: jnp.where(feasible, code, jnp.int8(Bound.none))


def batch_energy(totals: Totals, platform: Platform, workload: Workload, deployment: Deployment) -> Number:
    """Energy in J of a pass of the whole batch on all devices."""
    one = energy(totals.latency, totals.peak_compute, totals.peak_memory, totals.network, platform)
    if deployment.assumptions.energy_of == "one device":
        return one
    spread = deployment.ranks * deployment.cp * deployment.parallelism.dp
    return one * spread * micro_batches(workload, deployment)
