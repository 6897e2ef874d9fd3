"""Memory: what a device sets aside to serve a batch, and the largest batch and the longest context that fit."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax.base.fields import Number
from genz_jax.machine.capacity import capacity_check, excess, usable_memory
from genz_jax.serving.inverse import largest_that_fits
from genz_jax.serving.results import MemoryResult
from genz_jax.serving.stage import Inputs, reason_code, replica_devices
from genz_jax.specs import Model, Platform, Workload
from genz_jax.specs.reasons import Reason
from genz_jax.work.demand import computed_once
from genz_jax.work.footprint import Footprint, activations, cache_holders, footprint, sum_over
from genz_jax.work.passes import prefill_passes
from genz_jax.work.pipeline import Ends, slowest
from genz_jax.work.sharding import mapping_reason
from genz_jax.work.step import Deployment
from genz_jax.work.steps import decode_step, forward

MOST = 2.0**23
"""Requests of a replica, or blocks of a context, at most; whole numbers beyond are not exact in float32."""

Specs = tuple[Model, Workload, Deployment]


class MemoryWork(eqx.Module):
    """What a device holds while it serves, and all that decides what more would fit.

    Attributes:
        model: the model.
        workload: the requests, of whose prompts nothing is cached.
        deployment: how they are spread.
        held: bytes that a device holds.
        per_token: bytes of cache that one token more of one request takes.
        reason: code of why the model cannot be spread so, 0 if it can.
    """

    model: Model
    workload: Workload
    deployment: Deployment
    held: Footprint
    per_token: Number
    reason: Number


def memory_work(inputs: Inputs) -> MemoryWork:
    """Memory of one device that serves a batch of requests, in B.

    need = weights + cache of the whole batch at full length + peak of activations and buffers over prefill and decode.
    A prefill takes bounded passes (`work.passes`), so that its working memory stops growing with the prompts.
    """
    model, deployment = inputs.model, inputs.deployment
    if deployment.engine is not None:
        # Larger batches and longer prompts are tried than are given.
        deployment = dataclasses.replace(deployment, engine=deployment.engine.replace(single_pass=False))
    # The peak is that of prompts of which nothing is cached.
    workload = eqx.tree_at(lambda w: w.cached_tokens, inputs.workload, None, is_leaf=lambda leaf: leaf is None)
    known = _held(model, workload, deployment), _per_token(model, workload, deployment)
    held, per_token, reason = computed_once((*known, mapping_reason(model, deployment, workload)))
    return MemoryWork(model, workload, deployment, held, per_token, reason)


def memory_figures(work: MemoryWork, platform: Platform, details: bool = False) -> MemoryResult:
    """What a device sets aside, and the largest batch and the longest context that fit.

    It fits where need ≤ capacity · (1 − reserve). The largest batch and the longest context are whole numbers between
    which need is found by interpolation and halving: what is answered fits, and one more does not.
    """
    del details
    deployment, held = work.deployment, work.held
    usable = usable_memory(platform, deployment.assumptions)
    fits, _, _ = capacity_check(held.total, usable, platform)
    reason = reason_code(work.reason, replica_devices(deployment), platform, fits)
    return MemoryResult(
        weights=held.weights,
        kv_cache=held.kv_cache,
        kv_cache_per_token=work.per_token,
        activations=held.activations,
        buffers=held.buffers,
        memory=held.total,
        memory_excess=excess(held.total, usable),
        reserve=platform.mem_capacity - usable,
        free=usable - held.total,
        largest_batch=_largest_batch(work.model, work.workload, deployment, usable),
        longest_context=_longest_context(work.model, work.workload, deployment, usable),
        feasible=reason == Reason.feasible.value,
        reason_code=reason,
    )


def _held(model: Model, workload: Workload, deployment: Deployment) -> Footprint:
    """What a device holds while it serves: the cache of decode, and the larger working memory of the two passes."""
    rest_step = decode_step(workload, deployment)
    rest = footprint(model, workload, rest_step, deployment, forward(model, rest_step, deployment))
    first_step, _ = prefill_passes(workload, deployment)[0]
    working = activations(model, first_step, deployment, forward(model, first_step, deployment))
    larger = (jnp.maximum(mine, theirs) for mine, theirs in zip((rest.activations, rest.buffers), working, strict=True))
    return eqx.tree_at(lambda f: (f.activations, f.buffers), rest, tuple(larger))


def _per_token(model: Model, workload: Workload, deployment: Deployment) -> Number:
    """Cache that one token more takes, of one request at full length."""
    alone = eqx.tree_at(lambda w: w.batch, workload, jnp.ones_like(workload.batch))
    unpaged = Deployment(
        deployment.parallelism.replace(dp=1.0), deployment.precision, deployment.assumptions.replace(cache_block=1)
    )
    longer = eqx.tree_at(lambda w: w.output_tokens, alone, alone.output_tokens + 1.0)
    sizes = [sum_over(cache_holders(model, w, unpaged, generates=True), "cached") for w in (alone, longer)]
    none = 0.0 * sizes[0]
    return slowest(Ends(sizes[1] - sizes[0], none, none), model.layers, deployment)


def _largest_batch(model: Model, workload: Workload, deployment: Deployment, usable: Number) -> jax.Array:
    """Requests that fit, a whole number on each replica; 0 where not even one does."""

    def need(requests: Number, specs: Specs) -> Number:
        model, workload, deployment = specs
        batch = jnp.maximum(requests, 1.0) * deployment.parallelism.dp
        return _held(model, eqx.tree_at(lambda w: w.batch, workload, batch), deployment).total

    most = jnp.asarray(MOST, usable.dtype)
    return deployment.parallelism.dp * largest_that_fits(need, (model, workload, deployment), usable, 0.0 * most, most)


def _longest_context(model: Model, workload: Workload, deployment: Deployment, usable: Number) -> jax.Array:
    """Prompt and output tokens that fit; 0 where no prompt does; infinite where `MOST` blocks fit."""
    block, output = float(deployment.assumptions.cache_block), workload.output_tokens
    specs = model, workload, deployment

    def need(tokens: Number, specs: Specs) -> Number:
        model, workload, deployment = specs
        prompt = jnp.maximum(tokens - workload.output_tokens, 1.0)
        return _held(model, eqx.tree_at(lambda w: w.input_tokens, workload, prompt), deployment).total

    none = jax.lax.stop_gradient(jnp.floor(output / block))
    blocks = largest_that_fits(lambda n, specs: need(n * block, specs), specs, usable, none, none + MOST)
    whole = jnp.where(blocks > none, blocks * block, output)
    if block > 1.0:
        # A part of the next block, where activations still grow with the prompt.
        start, end = jax.lax.stop_gradient((whole, (jnp.maximum(blocks, none) + 1.0) * block))
        part = jnp.where(end < MOST, jnp.maximum(end - start - 1.0, 0.0), 0.0)
        more = largest_that_fits(
            lambda n, all: need(all[1] + n, all[0]), jax.lax.stop_gradient((specs, start)), usable, 0.0 * part, part
        )
        whole = whole + jax.lax.stop_gradient(more)
    return jnp.where(blocks >= none + MOST, jnp.inf, jnp.where(whole > output, whole, 0.0))
