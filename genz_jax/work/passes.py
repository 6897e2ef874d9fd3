"""Prefill and encoding in bounded passes: an engine's forward pass takes a limited number of tokens."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp

from genz_jax.base.fields import Number
from genz_jax.specs import Model, Workload
from genz_jax.work.step import Deployment, Step, ceil_div, floor_div
from genz_jax.work.steps import encode_step, prefill_step

Passes = tuple[tuple[Step, Number | None], ...]
"""Steps and how often each runs, None for once; the one with most tokens first."""


def once(step: Step) -> Passes:
    """A single pass."""
    return ((step, None),)


def prefill_passes(workload: Workload, deployment: Deployment) -> Passes:
    """The passes in which the prompts of one micro-batch are processed.

    R new tokens take n = ⌈R/T⌉ passes with T = `Engine.tokens_per_step`: n − 1 of T tokens and one of the rest. Passes
    are filled with whole prompts and parts of prompts, in order. A pass is a share of the micro-batch: its linear
    layers see that share of the tokens and its attention that share of the (query, key) pairs, so that all passes
    together do all of the work. What is done once per pass (reading weights, starting a collective) is done n times;
    what later passes of a prompt read again is `Segment.reread`.
    """
    step = prefill_step(workload, deployment)
    if not deployment.bounded:
        return once(step)
    assert deployment.engine is not None
    limit, rows = deployment.engine.tokens_per_step, step.rows * deployment.cp
    count = jnp.maximum(ceil_div(rows, limit), 1.0)
    full = jnp.minimum(limit / rows, 1.0)
    # Rounding must not leave the last pass without a token.
    rest = jnp.maximum(1.0 - (count - 1.0) * full, jnp.minimum(1.0 / rows, 1.0))
    return (_part(step, full, deployment), count - 1.0), (_part(step, rest, deployment), None)


def encode_passes(model: Model, workload: Workload, deployment: Deployment) -> Passes:
    """The passes in which the sequences of one micro-batch are encoded, each whole in one pass.

    A pass takes n = max(⌊T/tokens⌋, 1) sequences with T = `Engine.tokens_per_step`: ⌈batch/n⌉ passes, the last with the
    rest. A token may see those after it, so that no sequence is cut.
    """
    step = encode_step(model, workload, deployment)
    if not deployment.bounded:
        return once(step)
    assert deployment.engine is not None
    tokens = step.tokens * deployment.cp
    most = jnp.minimum(jnp.maximum(floor_div(deployment.engine.tokens_per_step, tokens), 1.0), step.sequences)
    count = ceil_div(step.sequences, most)
    rest = step.sequences - (count - 1.0) * most
    return (_with_sequences(step, most), count - 1.0), (_with_sequences(step, rest), None)


def _with_sequences(step: Step, sequences: Number) -> Step:
    """The pass with that many sequences."""
    segments = tuple(dataclasses.replace(segment, batch=sequences) for segment in step.segments)
    return dataclasses.replace(step, sequences=sequences, states=sequences, segments=segments)


def _part(step: Step, share: Number, deployment: Deployment) -> Step:
    """A pass with that share of the tokens; it has at least one sequence, of which it samples a token."""
    assert deployment.engine is not None
    limit, sequences = deployment.engine.tokens_per_step, step.sequences * share
    sampled = step.sampled * jnp.maximum(jnp.minimum(step.sequences, 1.0) / sequences, 1.0)
    parts = jnp.maximum(ceil_div(step.tokens * deployment.cp, limit), 1.0)
    segments = tuple(
        dataclasses.replace(segment, batch=segment.batch * share, limit=limit) for segment in step.segments
    )
    return eqx.tree_at(
        lambda s: (s.sequences, s.sampled, s.states, s.resumed, s.segments),
        step,
        (
            sequences,
            sampled,
            sequences * sampled,
            step.resumed + (1.0 - step.resumed) * (1.0 - 1.0 / parts),
            segments,
        ),
    )
