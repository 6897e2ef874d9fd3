"""Stages: the work of a forward pass on a machine, from operators to latency, memory, energy and what bounds it.

Every function here is pure: specs of arrays in, a result of arrays out, for `jax.jit`, `jax.grad` and `jax.vmap`. All
numbers broadcast together. Labels, checks of values and messages to people are a layer above.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax.base.fields import Number
from genz_jax.machine.capacity import capacity_check, excess, usable_memory
from genz_jax.machine.energy import energy
from genz_jax.machine.execute import Totals, all_of, computed_once, forward_pass, run, weighted
from genz_jax.machine.network import too_small
from genz_jax.machine.roofline import OperatorTime, Speeds, native_format
from genz_jax.serving.results import (
    ChunkedResult,
    DecodeResult,
    EncodeResult,
    OperatorResult,
    PrefillResult,
    StageResult,
)
from genz_jax.specs import Engine, Model, Parallelism, Platform, Precision, Workload
from genz_jax.specs.assumptions import Assumptions, default as default_assumptions
from genz_jax.specs.figures import Bound
from genz_jax.specs.reasons import Reason, first_reason
from genz_jax.work.footprint import footprint
from genz_jax.work.operators.operator import COLLECTIVES, Operator
from genz_jax.work.passes import Passes, encode_passes, once, prefill_passes
from genz_jax.work.pipeline import slowest
from genz_jax.work.sharding import mapping_reason
from genz_jax.work.step import Deployment
from genz_jax.work.steps import chunked_step, decode_step, micro_batches

Tree = TypeVar("Tree")


def as_arrays(tree: Tree) -> Tree:
    """All numbers of specs as arrays of JAX's default float type."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype=jnp.result_type(float)), tree)


Inputs = tuple[Model, Platform, Workload, Deployment]


def prepare(
    model: Model,
    platform: Platform,
    workload: Workload,
    parallelism: Parallelism | None,
    precision: Precision | None,
    assumptions: Assumptions,
    engine: Engine | None = None,
) -> Inputs:
    """The arguments of a stage as arrays, with the deployment that they make; by default one device and bf16."""
    spread = Parallelism() if parallelism is None else parallelism
    formats = Precision() if precision is None else precision
    model, platform, workload, spread, formats = as_arrays((model, platform, workload, spread, formats))
    return model, platform, workload, Deployment(spread, formats, assumptions, as_arrays(engine))


def replica_devices(deployment: Deployment) -> Number:
    """Devices of one data parallel replica; replicas send each other nothing."""
    return deployment.ranks * deployment.cp * deployment.parallelism.pp


def device_count(deployment: Deployment) -> Number:
    """All devices."""
    return replica_devices(deployment) * deployment.parallelism.dp


def reason_code(mapping: Number, devices: Number, platform: Platform, fits: Number) -> jax.Array:
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


def batch_energy(totals: Totals, platform: Platform, workload: Workload, deployment: Deployment) -> Number:
    one = energy(totals.latency, totals.peak_compute, totals.peak_memory, totals.network, platform)
    if deployment.assumptions.energy_of == "one device":
        return one
    spread = deployment.ranks * deployment.cp * deployment.parallelism.dp
    return one * spread * micro_batches(workload, deployment)


StageT = TypeVar("StageT", bound=StageResult)


def _stage(
    result: type[StageT],
    inputs: Inputs,
    passes: Passes,
    *,
    steady: bool,
    completions: Number,
    details: bool,
) -> StageT:
    """Figures of the forward passes of one micro-batch.

    Args:
        result: class of the result.
        inputs: model, platform, workload and deployment.
        passes: the passes and how often each runs; the first has most tokens and decides the memory.
        steady: micro-batches come back for another pass at once, as in decode; else each passes once.
        completions: what the whole batch completes in a pass.
        details: add the times of every operator.
    """
    model, platform, workload, deployment = inputs
    assumptions = deployment.assumptions
    works = [forward_pass(model, step, deployment) for step, _ in passes]
    encodes = passes[0][0].mode == "encode"
    held = footprint(model, workload, passes[0][0], deployment, works[0][1])
    held, mapping = computed_once((held, mapping_reason(model, deployment, workload, encodes)))
    need = held.total
    usable = usable_memory(platform, assumptions)
    fits, offloads, bandwidth = capacity_check(need, usable, platform)
    speeds = Speeds.of(platform, deployment.precision, bandwidth)
    parts = [run(work, speeds, platform, assumptions) for work, _ in works]
    counts = [count for _, count in passes]
    totals = all_of(parts, counts)
    reason = reason_code(mapping, replica_devices(deployment), platform, fits)
    feasible = reason == Reason.feasible.value
    known = known_where(feasible, assumptions)
    pace = slowest(totals.ends, model, deployment)
    if steady:
        latency, batch_time = totals.latency, steady_time(totals.latency, pace, workload, deployment)
    else:
        fills = [part.latency - slowest(part.ends, model, deployment) for part in parts]
        latency = through(totals.latency, pace, fills, deployment)
        batch_time = fill_and_drain(latency, pace, workload, deployment)
    return result(
        latency=known(latency),
        batch_time=known(batch_time),
        throughput=known(completions / batch_time),
        compute_time=known(totals.compute),
        memory_time=known(totals.memory),
        network_time=known(totals.network),
        flop_count=weighted((work.flops for work, _ in works), counts),
        traffic=weighted((work.traffic for work, _ in works), counts),
        weights=held.weights,
        idle_weights=held.idle_weights,
        kv_cache=held.kv_cache,
        activations=held.activations,
        buffers=held.buffers,
        memory=need,
        memory_excess=excess(need, usable),
        energy=known(batch_energy(totals, platform, workload, deployment)),
        bound_code=bound_where(feasible, assumptions)(totals.bound_code),
        compute_format_code=native_format(platform, deployment.precision.compute)[0],
        offloads=offloads,
        feasible=feasible,
        reason_code=reason,
        breakdown={name: known(value) for name, value in totals.breakdown.items()},
        operators=_operator_results([ops for _, ops in works], parts, counts, known) if details else None,
    )


def _operator_results(
    ops: Sequence[tuple[Operator, ...]], parts: Sequence[Totals], counts: Sequence[Number], known: Any
) -> dict[str, OperatorResult]:
    """Figures of every operator, all passes together."""
    found = {}
    for i, op in enumerate(ops[0]):
        same = [each[i].times(count) for each, count in zip(ops, counts, strict=True)]
        runs = [computed_once(part.operators[i]) for part in parts]

        def sent(field: str, same: Sequence[Operator] = same) -> Number:
            return weighted((getattr(one, field) for one in same), [one.repeats for one in same])

        def spent(field: str, runs: Sequence[OperatorTime] = runs) -> Number:
            return weighted((getattr(one, field) for one in runs), counts)

        compute, memory = spent("compute"), spent("memory")
        by_memory = jnp.where(memory >= compute, jnp.int8(Bound.memory), jnp.int8(Bound.compute))
        found[op.name] = OperatorResult(
            repeats=weighted((one.repeats for one in same), [1.0] * len(same)),
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


def prefill(
    model: Model,
    platform: Platform,
    workload: Workload,
    parallelism: Parallelism | None = None,
    precision: Precision | None = None,
    assumptions: Assumptions = default_assumptions,
    details: bool = False,
    engine: Engine | None = None,
) -> PrefillResult:
    """Figures of the prefill stage: all prompt tokens of a batch, in passes of at most `Engine.tokens_per_step`.

    Args:
        model: the model.
        platform: the device and its network.
        workload: batch and prompt length.
        parallelism: how the model is spread; by default on one device.
        precision: number formats; by default bf16.
        assumptions: which physics counts.
        details: add the times of every operator.
        engine: what bounds a pass; by default nothing does.

    Returns:
        The figures; every field broadcasts over the shapes of the arguments' numbers.
    """
    inputs = prepare(model, platform, workload, parallelism, precision, assumptions, engine)
    _, _, workload, deployment = inputs
    return _stage(
        PrefillResult,
        inputs,
        prefill_passes(workload, deployment),
        steady=False,
        completions=workload.batch,
        details=details,
    )


def decode(
    model: Model,
    platform: Platform,
    workload: Workload,
    parallelism: Parallelism | None = None,
    precision: Precision | None = None,
    assumptions: Assumptions = default_assumptions,
    details: bool = False,
    engine: Engine | None = None,
) -> DecodeResult:
    """Figures of a decode step: one token of every beam of every request, after the prompt and part of the output.

    Arguments and result as for `prefill`. The step stands for all steps as `Assumptions.decode_position` says.
    """
    inputs = prepare(model, platform, workload, parallelism, precision, assumptions, engine)
    _, _, workload, deployment = inputs
    return _stage(
        DecodeResult,
        inputs,
        once(decode_step(workload, deployment)),
        steady=True,
        completions=workload.batch,
        details=details,
    )


def chunked(
    model: Model,
    platform: Platform,
    workload: Workload,
    parallelism: Parallelism | None = None,
    precision: Precision | None = None,
    assumptions: Assumptions = default_assumptions,
    details: bool = False,
    engine: Engine | None = None,
) -> ChunkedResult:
    """Figures of one iteration of chunked prefill (arXiv 2308.16369).

    `workload.prefill_chunks` and `workload.decode_chunks` say what shares the pass: their linear layers run together,
    attention runs for each. Arguments and result as for `prefill`; throughput counts prompt tokens and decoding
    requests (as published, entries of the decode list). Each data parallel replica runs such an iteration.

    Raises:
        ValueError: the workload has no chunks.
    """
    if not (workload.prefill_chunks or workload.decode_chunks):
        raise ValueError(
            "Workload.prefill_chunks and decode_chunks are empty: a chunked stage needs at least one chunk"
        )
    inputs = prepare(model, platform, workload, parallelism, precision, assumptions, engine)
    _, _, workload, deployment = inputs
    completions: Number = 0.0
    for part in workload.prefill_chunks:
        completions = completions + part.new_tokens
    for part in workload.decode_chunks:
        published = jnp.where(part.sequences > 0, 1.0, 0.0)
        completions = completions + (published if assumptions.pipeline == "published" else part.prompts)
    completions = completions * deployment.parallelism.dp
    return _stage(
        ChunkedResult,
        inputs,
        once(chunked_step(workload, deployment)),
        steady=True,
        completions=completions,
        details=details,
    )


def encode(
    model: Model,
    platform: Platform,
    workload: Workload,
    parallelism: Parallelism | None = None,
    precision: Precision | None = None,
    assumptions: Assumptions = default_assumptions,
    details: bool = False,
    engine: Engine | None = None,
) -> EncodeResult:
    """Figures of encoding the sequences of a batch, as embedding models do: nothing is sampled, nothing cached.

    Whole sequences share passes of at most `Engine.tokens_per_step` tokens, one at least. The language model head of a
    model that has one is not loaded. Arguments and result as for `prefill`; output tokens count for nothing.
    """
    inputs = prepare(model, platform, workload, parallelism, precision, assumptions, engine)
    model, _, workload, deployment = inputs
    result = _stage(
        EncodeResult,
        inputs,
        encode_passes(model, workload, deployment),
        steady=False,
        completions=workload.batch,
        details=details,
    )
    tokens = result.throughput * workload.input_tokens
    return eqx.tree_at(lambda r: r.token_throughput, result, tokens, is_leaf=lambda leaf: leaf is None)
