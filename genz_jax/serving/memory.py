"""Memory: what a device sets aside to serve a batch, and the largest batch and the longest context that fit."""

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax.base.fields import Number
from genz_jax.machine.capacity import capacity_check, excess, usable_memory
from genz_jax.machine.execute import computed_once
from genz_jax.serving.inverse import largest_that_fits
from genz_jax.serving.results import MemoryResult
from genz_jax.serving.stages import prepare, reason_code, replica_devices
from genz_jax.specs import Engine, Model, Parallelism, Platform, Precision, Workload
from genz_jax.specs.assumptions import Assumptions, default as default_assumptions
from genz_jax.specs.reasons import Reason
from genz_jax.work.footprint import Footprint, activations, cache_holders, footprint, sum_over
from genz_jax.work.passes import prefill_passes
from genz_jax.work.pipeline import Ends, slowest
from genz_jax.work.sharding import mapping_reason
from genz_jax.work.step import Deployment
from genz_jax.work.steps import decode_step, forward

MOST = 2.0**23
"""Requests of a replica, or blocks of a context, at most; whole numbers beyond are not exact in float32."""

Specs = tuple[Model, Workload, Deployment]


def memory(
    model: Model,
    platform: Platform,
    workload: Workload,
    parallelism: Parallelism | None = None,
    precision: Precision | None = None,
    assumptions: Assumptions = default_assumptions,
    engine: Engine | None = None,
) -> MemoryResult:
    """Memory of one device that serves a batch of requests, in B.

    need = weights + cache of the whole batch at full length + peak of activations and buffers over prefill and decode;
    it fits where need ≤ capacity · (1 − reserve). A prefill takes bounded passes (`work.passes`), so that its working
    memory stops growing with the prompts. The largest batch and the longest context are whole numbers between which
    need is found by interpolation and halving: what is answered fits, and one more does not.

    Args:
        model: the model.
        platform: the device.
        workload: the requests.
        parallelism: how the model is spread; by default on one device.
        precision: number formats; by default bf16.
        assumptions: which physics counts.
        engine: what bounds a pass; by default nothing does.
    """
    if engine is not None:
        engine = engine.replace(single_pass=False)  # larger batches and longer prompts are tried than are given
    inputs = prepare(model, platform, workload, parallelism, precision, assumptions, engine)
    model, platform, workload, deployment = inputs
    # The peak is that of prompts of which nothing is cached.
    workload = eqx.tree_at(lambda w: w.cached_tokens, workload, None, is_leaf=lambda leaf: leaf is None)
    held = _held(model, workload, deployment)
    per_token = _per_token(model, workload, deployment)
    held, per_token, mapping = computed_once((held, per_token, mapping_reason(model, deployment, workload)))
    usable = usable_memory(platform, assumptions)
    fits, _, _ = capacity_check(held.total, usable, platform)
    reason = reason_code(mapping, replica_devices(deployment), platform, fits)
    return MemoryResult(
        weights=held.weights,
        kv_cache=held.kv_cache,
        kv_cache_per_token=per_token,
        activations=held.activations,
        buffers=held.buffers,
        memory=held.total,
        memory_excess=excess(held.total, usable),
        reserve=platform.mem_capacity - usable,
        free=usable - held.total,
        largest_batch=_largest_batch(model, workload, deployment, usable),
        longest_context=_longest_context(model, workload, deployment, usable),
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
    return slowest(Ends(sizes[1] - sizes[0], none, none), model, deployment)


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
