"""Stages of one model: prefill, decode, encode and chunked prefill, as work and figures.

Every function here is pure: specs of arrays in, a result of arrays out, for `jax.jit`, `jax.grad` and `jax.vmap`. All
numbers broadcast together. Labels, checks of values and messages to people are a layer above.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp

from genz_jax.base.fields import Number
from genz_jax.machine.capacity import capacity_check, excess, usable_memory
from genz_jax.machine.execute import Totals, all_of, run
from genz_jax.machine.roofline import NativeFormats, OperatorTime, Speeds
from genz_jax.serving.pipeline import fill_and_drain, steady_time, through
from genz_jax.serving.results import (
    ChunkedResult,
    DecodeResult,
    EncodeResult,
    OperatorResult,
    PrefillResult,
    StageResult,
)
from genz_jax.serving.stage import Inputs, batch_energy, bound_where, known_where, reason_code, replica_devices
from genz_jax.specs import Platform
from genz_jax.specs.figures import Bound
from genz_jax.specs.reasons import Reason
from genz_jax.work.demand import Pass, Work, computed_once, total_of, work_of
from genz_jax.work.operators.operator import COLLECTIVES
from genz_jax.work.passes import encode_passes, once, prefill_passes
from genz_jax.work.pipeline import slowest
from genz_jax.work.steps import chunked_step, decode_step


def prefill_work(inputs: Inputs) -> Work:
    """All prompt tokens of a batch, in passes of at most `Engine.tokens_per_step`."""
    return work_of(*_of(inputs), prefill_passes(inputs.workload, inputs.deployment))


def decode_work(inputs: Inputs) -> Work:
    """One token of every beam of every request, after the prompt and part of the output.

    The step stands for all steps as `Assumptions.decode_position` says.
    """
    return work_of(*_of(inputs), once(decode_step(inputs.workload, inputs.deployment)))


def encode_work(inputs: Inputs) -> Work:
    """The sequences of a batch, of which nothing is sampled and nothing cached, as embedding models do.

    Whole sequences share passes of at most `Engine.tokens_per_step` tokens, one at least. The language model head of a
    model that has one is not loaded; output tokens count for nothing.
    """
    return work_of(*_of(inputs), encode_passes(*_of(inputs)))


def chunked_work(inputs: Inputs) -> Work:
    """One iteration of chunked prefill (arXiv 2308.16369).

    `Workload.prefill_chunks` and `decode_chunks` say what shares the pass: their linear layers run together, attention
    runs for each. Each data parallel replica runs such an iteration.

    Raises:
        ValueError: the workload has no chunks.
    """
    workload = inputs.workload
    if not (workload.prefill_chunks or workload.decode_chunks):
        raise ValueError(
            "Workload.prefill_chunks and decode_chunks are empty: a chunked stage needs at least one chunk, such as "
            "prefill_chunks=(PrefillChunk(past_tokens=0, new_tokens=512),)"
        )
    return work_of(*_of(inputs), once(chunked_step(workload, inputs.deployment)))


def _of(inputs: Inputs) -> tuple[Any, Any, Any]:
    return inputs.model, inputs.workload, inputs.deployment


def prefill_figures(work: Work, platform: Platform, details: bool = False) -> PrefillResult:
    """Figures of prefill; every micro-batch passes the pipeline once."""
    return pass_figures(PrefillResult, work, platform, work.workload.batch, details)


def decode_figures(work: Work, platform: Platform, details: bool = False) -> DecodeResult:
    """Figures of a decode step; micro-batches come back for another at once."""
    return pass_figures(DecodeResult, work, platform, work.workload.batch, details, steady=True)


def encode_figures(work: Work, platform: Platform, details: bool = False) -> EncodeResult:
    """Figures of encoding."""
    result = pass_figures(EncodeResult, work, platform, work.workload.batch, details)
    tokens = result.throughput * work.workload.input_tokens
    return eqx.tree_at(lambda r: r.token_throughput, result, tokens, is_leaf=lambda leaf: leaf is None)


def chunked_figures(work: Work, platform: Platform, details: bool = False) -> ChunkedResult:
    """Figures of an iteration of chunked prefill.

    Throughput counts prompt tokens and decoding requests (as published, entries of the decode list).
    """
    workload, parallelism = work.workload, work.deployment.parallelism
    published = work.deployment.assumptions.pipeline == "published"
    completions: Number = 0.0
    for part in workload.prefill_chunks:
        completions = completions + part.new_tokens
    for part in workload.decode_chunks:
        completions = completions + (jnp.where(part.sequences > 0, 1.0, 0.0) if published else part.prompts)
    return pass_figures(ChunkedResult, work, platform, completions * parallelism.dp, details, steady=True)


StageT = TypeVar("StageT", bound=StageResult)


def pass_figures(
    result: Callable[..., StageT],
    work: Work,
    platform: Platform,
    completions: Number,
    details: bool,
    steady: bool = False,
) -> StageT:
    """Figures of the forward passes of one micro-batch on a platform.

    Args:
        result: class of the result.
        work: what is asked for.
        platform: the device and its network.
        completions: what the whole batch completes in a pass.
        details: add the times of every operator.
        steady: micro-batches come back for another pass at once, as in decode; else each passes once.

    Returns:
        The figures; every field broadcasts over the shapes of the arguments' numbers.
    """
    workload, deployment, held = work.workload, work.deployment, work.held
    assumptions = deployment.assumptions
    need, usable = held.total, usable_memory(platform, assumptions)
    fits, offloads, bandwidth = capacity_check(need, usable, platform)
    speeds = Speeds.of(platform, deployment.precision, bandwidth, assumptions.measured_kernels)
    parts = [run(one, speeds, platform, assumptions) for one in work.passes]
    totals = all_of(parts, [one.count for one in work.passes])
    reason = reason_code(work.reason, replica_devices(deployment), platform, fits)
    feasible = reason == Reason.feasible.value
    known = known_where(feasible, assumptions)
    pace = slowest(totals.ends, work.layers, deployment)
    if steady:
        latency, batch_time = totals.latency, steady_time(totals.latency, pace, workload, deployment)
    else:
        fills = [part.latency - slowest(part.ends, work.layers, deployment) for part in parts]
        latency = through(totals.latency, pace, fills, deployment)
        batch_time = fill_and_drain(latency, pace, workload, deployment)
    return result(
        latency=known(latency),
        batch_time=known(batch_time),
        throughput=known(completions / batch_time),
        compute_time=known(totals.compute),
        memory_time=known(totals.memory),
        network_time=known(totals.network),
        flop_count=total_of(work.passes, "flops"),
        traffic=total_of(work.passes, "traffic"),
        weights=held.weights,
        idle_weights=held.idle_weights,
        kv_cache=held.kv_cache,
        activations=held.activations,
        buffers=held.buffers,
        memory=need,
        memory_excess=excess(need, usable),
        energy=known(batch_energy(totals, platform, workload, deployment)),
        bound_code=bound_where(feasible, assumptions)(totals.bound_code),
        compute_format_code=NativeFormats.of(platform).code(deployment.precision.compute),
        offloads=offloads,
        feasible=feasible,
        reason_code=reason,
        breakdown={name: known(value) for name, value in totals.breakdown.items()},
        operators=_operator_results(work.passes, parts, known) if details else None,
    )


def _operator_results(passes: Sequence[Pass], parts: Sequence[Totals], known: Any) -> dict[str, OperatorResult]:
    """Figures of every operator, all passes together."""
    found = {}
    for i, op in enumerate(passes[0].ops):
        repeats = [one.ops[i].repeats * (1.0 if one.count is None else one.count) for one in passes]
        runs = [computed_once(part.operators[i]) for part in parts]

        def sent(field: str, i: int = i, repeats: Sequence[Number] = repeats) -> Number:
            return _sum([getattr(one.ops[i], field) * n for one, n in zip(passes, repeats, strict=True)])

        def spent(field: str, runs: Sequence[OperatorTime] = runs) -> Number:
            values = [getattr(one, field) for one in runs]
            return _sum([v if p.count is None else v * p.count for v, p in zip(values, passes, strict=True)])

        compute, memory = spent("compute"), spent("memory")
        by_memory = jnp.where(memory >= compute, jnp.int8(Bound.memory), jnp.int8(Bound.compute))
        found[op.name] = OperatorResult(
            repeats=_sum(repeats),
            flops=sent("flops"),
            input_bytes=sent("input"),
            weight_bytes=sent("weight"),
            output_bytes=sent("output"),
            message_bytes=sent("message"),
            compute_time=known(compute),
            memory_time=known(memory),
            network_time=known(spent("network")),
            latency=known(spent("latency")),
            bound_code=jnp.int8(Bound.network) if op.kind in COLLECTIVES else by_memory,
        )
    return found


def _sum(values: Sequence[Number]) -> Number:
    total: Number = 0.0
    for value in values:
        total = total + value
    return total
