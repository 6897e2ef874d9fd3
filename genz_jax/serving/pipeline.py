"""Pipeline: how long passes take through the stages of a pipeline, one after the other and in a steady state."""

import functools
from collections.abc import Sequence

import jax.numpy as jnp

from genz_jax.base.fields import Number
from genz_jax.specs import Workload
from genz_jax.work.step import Deployment
from genz_jax.work.steps import micro_batches


def through(total: Number, pace: Number, fills: Sequence[Number], deployment: Deployment) -> Number:
    """Time of all passes of a micro-batch through the pipeline, which follow each other: pace + max(fills).

    This is the makespan of the passes on stages of one length, where all but the slowest stage are crossed while the
    longest pass fills or drains the pipeline; where stages differ it is an upper bound.

    Args:
        total: sum of the latencies of the passes, which it is on one stage.
        pace: time of all passes on the slowest stage.
        fills: of each kind of pass, its time on the other stages.
        deployment: how the model is spread.
    """
    if deployment.assumptions.pipeline == "published":
        return total
    return jnp.where(deployment.parallelism.pp > 1.0, pace + functools.reduce(jnp.maximum, fills), total)


def fill_and_drain(latency: Number, pace: Number, workload: Workload, deployment: Deployment) -> Number:
    """Time until a replica's last micro-batch has left the pipeline: latency + (m − 1) · time of the slowest stage."""
    if deployment.assumptions.pipeline == "published":
        return latency
    return latency + (micro_batches(workload, deployment) - 1.0) * pace


def steady_time(latency: Number, pace: Number, workload: Workload, deployment: Deployment) -> Number:
    """Time between two visits of a micro-batch to a stage: m · time of the slowest stage, at least the latency."""
    if deployment.assumptions.pipeline == "published":
        return latency
    return jnp.maximum(micro_batches(workload, deployment) * pace, latency)
