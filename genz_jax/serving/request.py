"""Requests: prefill, then decode until all output tokens are there."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from genz_jax.base.fields import Number
from genz_jax.machine.capacity import capacity_check, excess, usable_memory
from genz_jax.machine.roofline import NativeFormats
from genz_jax.serving.results import RequestResult, SpeculativeResult, StageResult
from genz_jax.serving.speculative import (
    Turns,
    speculative_decode_figures,
    speculative_decode_work,
    speculative_prefill_figures,
    speculative_prefill_work,
)
from genz_jax.serving.stage import Inputs, bound_where, device_count, known_where
from genz_jax.serving.stages import decode_figures, decode_work, prefill_figures, prefill_work
from genz_jax.specs import Platform
from genz_jax.specs.reasons import Reason
from genz_jax.work.demand import Work


def request_work(inputs: Inputs) -> tuple[Any, Any]:
    """Prefill of a batch of requests, and a step of their decoding, which may be speculative."""
    if inputs.speculation is not None:
        return speculative_prefill_work(inputs), speculative_decode_work(inputs)
    return prefill_work(inputs), decode_work(inputs)


def request_figures(work: tuple[Any, Any], platform: Platform, details: bool = False) -> RequestResult:
    """Figures of serving a batch of requests: prefill, then decode until all output tokens are there.

    TTFT is the time of prefill; TPOT that of a decode step of the whole batch; the end-to-end latency is
    TTFT + n·TPOT with n = output tokens − 1, since prefill gives the first (n = output tokens in the `genz` preset).
    Throughput is batch · output tokens / latency. With speculation a step gives t tokens in the mean, so that
    TPOT = time of a step/t.
    """
    first_work, rest_work = work
    if isinstance(rest_work, Turns):
        first = speculative_prefill_figures(first_work, platform)
        rest = speculative_decode_figures(rest_work, platform)
        tokens = rest.expected_tokens
        return served(first, rest, rest.batch_time / tokens, rest.energy / tokens, platform, rest_work)
    first = prefill_figures(first_work, platform, details)
    rest = decode_figures(rest_work, platform, details)
    result = served(first, rest, rest.batch_time, rest.energy, platform, rest_work)
    return eqx.tree_at(lambda r: (r.prefill, r.decode), result, (first, rest), is_leaf=lambda leaf: leaf is None)


def served(
    first: StageResult | SpeculativeResult,
    rest: StageResult | SpeculativeResult,
    tpot: Number,
    energy_per_token: Number,
    platform: Platform,
    work: Work | Turns,
) -> RequestResult:
    """Figures of a batch of requests from those of its two stages.

    Args:
        first: the prefill.
        rest: a step of decoding.
        tpot: time per output token.
        energy_per_token: energy of one output token of every request.
        platform: the device and its network.
        work: what decoding asks for.
    """
    workload, deployment = work.workload, work.deployment
    assumptions, devices = deployment.assumptions, device_count(deployment)
    steps = workload.output_tokens
    if assumptions.first_token_from_prefill:
        steps = jnp.maximum(steps - 1.0, 0.0)
    latency = first.batch_time + steps * tpot
    tokens = workload.batch * workload.output_tokens
    throughput = tokens / latency
    spent = first.energy + steps * energy_per_token
    activations = jnp.maximum(first.activations, rest.activations)
    buffers = jnp.maximum(first.buffers, rest.buffers)
    memory = jnp.maximum(first.memory, rest.memory)
    reason = jnp.where(first.reason_code > 0, first.reason_code, rest.reason_code)
    if assumptions.memory_of == "engine":
        # Memory for the larger pass is set aside for good, beside the cache at full length.
        memory = rest.weights + rest.kv_cache + activations + buffers
        fits, _, _ = capacity_check(memory, usable_memory(platform, assumptions), platform)
        reason = jnp.where((reason == 0) & jnp.logical_not(fits), jnp.int8(Reason.does_not_fit), reason)
    feasible = reason == Reason.feasible.value
    decode_weighs_more = steps * tpot > first.batch_time
    known, waits_for = known_where(feasible, assumptions), bound_where(feasible, assumptions)
    return RequestResult(
        ttft=known(first.batch_time),
        tpot=known(tpot),
        latency=known(latency),
        throughput=known(throughput),
        throughput_per_device=known(throughput / devices),
        interactivity=known(1.0 / tpot),
        weights=rest.weights,
        kv_cache=rest.kv_cache,
        activations=activations,
        buffers=buffers,
        memory=memory,
        memory_excess=excess(memory, usable_memory(platform, assumptions)),
        devices=devices,
        energy=known(spent),
        energy_per_token=known(jnp.where(tokens > 0, spent / jnp.maximum(tokens, 1.0), jnp.nan)),
        bound_code=waits_for(jnp.where(decode_weighs_more, rest.bound_code, first.bound_code)),
        prefill_bound_code=waits_for(first.bound_code),
        decode_bound_code=waits_for(rest.bound_code),
        compute_format_code=NativeFormats.of(platform).code(deployment.precision.compute),
        feasible=feasible,
        reason_code=reason,
    )
