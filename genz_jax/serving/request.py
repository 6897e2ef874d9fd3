"""Requests: prefill, then decode until all output tokens are there."""

import equinox as eqx
import jax.numpy as jnp

from genz_jax.base.fields import Number
from genz_jax.machine.capacity import capacity_check, excess, usable_memory
from genz_jax.serving.results import RequestResult, SpeculativeResult, StageResult
from genz_jax.serving.stages import bound_where, decode, device_count, known_where, prefill, prepare
from genz_jax.specs import Engine, Model, Parallelism, Platform, Precision, Workload
from genz_jax.specs.assumptions import Assumptions, default as default_assumptions
from genz_jax.specs.reasons import Reason
from genz_jax.work.step import Deployment


def request(
    model: Model,
    platform: Platform,
    workload: Workload,
    parallelism: Parallelism | None = None,
    precision: Precision | None = None,
    assumptions: Assumptions = default_assumptions,
    details: bool = False,
    engine: Engine | None = None,
) -> RequestResult:
    """Figures of serving a batch of requests: prefill, then decode until all output tokens are there.

    TTFT is the time of prefill; TPOT that of a decode step of the whole batch; the end-to-end latency is
    TTFT + n·TPOT with n = output tokens − 1, since prefill gives the first (n = output tokens in the `genz` preset).
    Throughput is batch · output tokens / latency. Arguments as for `prefill`.
    """
    inputs = prepare(model, platform, workload, parallelism, precision, assumptions, engine)
    model, platform, workload, deployment = inputs
    options = (model, platform, workload, deployment.parallelism, deployment.precision, assumptions, details, engine)
    first, rest = prefill(*options), decode(*options)
    result = served(first, rest, rest.batch_time, rest.energy, rest.compute_format_code, platform, workload, deployment)
    return eqx.tree_at(lambda r: (r.prefill, r.decode), result, (first, rest), is_leaf=lambda leaf: leaf is None)


def served(
    first: StageResult | SpeculativeResult,
    rest: StageResult | SpeculativeResult,
    tpot: Number,
    energy_per_token: Number,
    compute_format: Number,
    platform: Platform,
    workload: Workload,
    deployment: Deployment,
) -> RequestResult:
    """Figures of a batch of requests from those of its two stages.

    Args:
        first: the prefill.
        rest: a step of decoding.
        tpot: time per output token.
        energy_per_token: energy of one output token of every request.
        compute_format: code of the number format of linear layers.
        platform: the device and its network.
        workload: the requests.
        deployment: spread, formats and physics.
    """
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
        compute_format_code=compute_format,
        feasible=feasible,
        reason_code=reason,
    )
