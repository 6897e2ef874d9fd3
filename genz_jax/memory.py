"""Memory: what a device sets aside to serve a batch, and the largest batch and the longest context that fit."""

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax.assumptions import Assumptions, default as default_assumptions
from genz_jax.fields import Number
from genz_jax.machine.memory import capacity_check, excess, usable_memory
from genz_jax.results import MemoryResult
from genz_jax.specs import Model, Parallelism, Platform, Precision, Workload
from genz_jax.stages import computed_once, prepare, reason_code, replica_devices
from genz_jax.work.footprint import Footprint, activations, cache_holders, footprint, sum_over
from genz_jax.work.mapping import Reason, mapping_reason
from genz_jax.work.stages import decode_step, forward, prefill_step
from genz_jax.work.step import Deployment, floor_div

FAR = 2.0**22
"""Tokens beyond which memory grows evenly with the prompt: longer than any window."""


def memory(
    model: Model,
    platform: Platform,
    workload: Workload,
    parallelism: Parallelism | None = None,
    precision: Precision | None = None,
    assumptions: Assumptions = default_assumptions,
) -> MemoryResult:
    """Memory of one device that serves a batch of requests, in B.

    need = weights + cache of the whole batch at full length + peak of activations and buffers over prefill and decode;
    it fits where need ≤ capacity · (1 − reserve). All terms but the weights grow evenly with the requests, and with the
    prompt evenly between a few lengths (where a window is full, or where the prompt's activations outgrow those of the
    head), so that the largest batch and the longest context follow in closed form:

    - requests of a replica: ⌊(usable − weights)/(cache of one + working memory of one/m)⌋ with m micro-batches at once,
    - prompt: the solution of usable = need between the two of these lengths where it lies, in whole blocks.

    Args:
        model: the model.
        platform: the device.
        workload: the requests.
        parallelism: how the model is spread; by default on one device.
        precision: number formats; by default bf16.
        assumptions: which physics counts.
    """
    model, platform, workload, deployment = prepare(model, platform, workload, parallelism, precision, assumptions)
    # The peak is that of prompts of which nothing is cached.
    workload = eqx.tree_at(lambda w: w.cached_tokens, workload, None, is_leaf=lambda leaf: leaf is None)
    held = _held(model, workload, deployment)
    per_token = _per_token(model, workload, deployment)
    lengths, needs = _by_length(model, workload, deployment)
    one = _held(model, eqx.tree_at(lambda w: w.batch, workload, _requests(deployment)), deployment)
    held, per_token, lengths, needs, one, mapping = computed_once(
        (held, per_token, lengths, needs, one, mapping_reason(model, deployment, workload))
    )
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
        largest_batch=_largest_batch(one, usable, deployment),
        longest_context=_longest_context(lengths, needs, usable, workload, assumptions),
        feasible=reason == Reason.feasible.value,
        reason_code=reason,
    )


def _held(model: Model, workload: Workload, deployment: Deployment) -> Footprint:
    """What a device holds while it serves: the cache of decode, and the larger working memory of the two passes."""
    rest_step = decode_step(workload, deployment)
    rest = footprint(model, workload, rest_step, deployment, forward(model, rest_step, deployment))
    first_step = prefill_step(workload, deployment)
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
    return (sizes[1] - sizes[0]) / deployment.parallelism.pp


def _requests(deployment: Deployment) -> Number:
    """Requests with which each micro-batch of each replica has one for every expert parallel rank."""
    return deployment.parallelism.dp * _at_once(deployment) * deployment.parallelism.ep


def _at_once(deployment: Deployment) -> Number:
    """Micro-batches of a replica whose batch is large."""
    parallelism = deployment.parallelism
    return parallelism.pp if parallelism.micro_batches is None else parallelism.micro_batches


def _largest_batch(held: Footprint, usable: Number, deployment: Deployment) -> jax.Array:
    """Requests that fit, from what the requests of `_requests` take; 0 where not even one does."""
    ranks, parts = deployment.parallelism.ep, _at_once(deployment)
    cache = held.kv_cache / (ranks * parts)
    working = (held.activations + held.buffers) / ranks
    left = jnp.maximum(usable - held.weights, 0.0)
    many = floor_div(left, cache + working / parts)
    # Fewer requests than micro-batches run one by one.
    few = floor_div(jnp.maximum(left - working, 0.0), jnp.where(cache > 0, cache, 1.0))
    few = jnp.where(left >= working, jnp.where(cache > 0, jnp.minimum(few, parts - 1.0), parts - 1.0), 0.0)
    return deployment.parallelism.dp * jnp.where(many >= parts, many, few)


def _by_length(model: Model, workload: Workload, deployment: Deployment) -> tuple[list[Number], list[Number]]:
    """Prompt lengths between which memory grows evenly, and what is needed at each, without paging.

    The cache bends where a window is full; activations, r·P + max(a, b·P) in prefill and c in decode, and buffers
    where the part that grows with the prompt overtakes the part that does not.
    """
    unpaged = Deployment(deployment.parallelism, deployment.precision, deployment.assumptions.replace(cache_block=1))

    def working(length: Number) -> tuple[Number, Number, Number, Number, Number]:
        changed = eqx.tree_at(lambda w: w.input_tokens, workload, length)
        first, rest = prefill_step(changed, unpaged), decode_step(changed, unpaged)
        mine, sent = activations(model, first, unpaged, forward(model, first, unpaged))
        theirs, received = activations(model, rest, unpaged, forward(model, rest, unpaged))
        residual = first.rows * model.hidden_size * unpaged.precision.activations
        return residual, mine - residual, theirs, sent, received

    def total(length: Number) -> Number:
        return _held(model, eqx.tree_at(lambda w: w.input_tokens, workload, length), unpaged).total

    none = 0.0 * workload.input_tokens
    ends = jax.lax.map(working, jnp.stack([none, none + FAR]))
    (_, fixed, decode, sent, received), (residual, grown, _, sends, _) = ([x[i] for x in ends] for i in (0, 1))
    r, b = residual / FAR, grown / FAR
    knots = [_ratio(fixed, b), _ratio(decode - fixed, r), _ratio(decode, r + b)]
    knots += [_ratio(jnp.maximum(sent, received), sends / FAR)]
    windows = [part.window for part in (model.local_attention, model.compressed_attention) if part is not None]
    knots += [window - workload.output_tokens for window in windows]
    lengths = jnp.broadcast_arrays(none, *_sorted([jnp.clip(knot, 0.0, FAR) for knot in knots]), none + FAR)
    needs = jax.lax.map(total, jnp.stack(lengths))
    return list(lengths), [needs[i] for i in range(len(lengths))]


def _ratio(a: Number, b: Number) -> jax.Array:
    """a/b, or 0 where b is."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), 0.0)


def _sorted(values: list[Number]) -> list[Number]:
    """Values in order, by exchanging neighbours."""
    values = list(values)
    for end in range(len(values) - 1, 0, -1):
        for i in range(end):
            low, high = jnp.minimum(values[i], values[i + 1]), jnp.maximum(values[i], values[i + 1])
            values[i], values[i + 1] = low, high
    return values


def _longest_context(
    lengths: list[Number], needs: list[Number], usable: Number, workload: Workload, assumptions: Assumptions
) -> jax.Array:
    """Prompt and output tokens that fit, in whole blocks; 0 where no prompt does; infinite where nothing grows."""
    longest: Number = 0.0 * usable
    for i, (start, need) in enumerate(zip(lengths[:-1], needs[:-1], strict=True)):
        grows, beyond = needs[i + 1] - need, 1.0 if i < len(lengths) - 2 else jnp.inf
        share = jnp.where(grows > 0, jnp.minimum((usable - need) / jnp.where(grows > 0, grows, 1.0), beyond), beyond)
        span = lengths[i + 1] - start
        reached = start + jnp.where(span > 0, share * jnp.where(span > 0, span, 1.0), 0.0)
        longest = jnp.where(usable >= need, jnp.maximum(longest, reached), longest)
    block = float(assumptions.cache_block)
    total = longest + workload.output_tokens
    whole = jnp.where(jnp.isfinite(total), floor_div(jnp.where(jnp.isfinite(total), total, 0.0), block) * block, total)
    return jnp.where((usable >= needs[0]) & (whole >= workload.output_tokens + 1.0), whole, 0.0)
