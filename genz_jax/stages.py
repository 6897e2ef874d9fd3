"""Stages: the work of a forward pass on a machine, from operators to latency, memory, energy and what bounds it.

Every function here is pure: specs of arrays in, a result of arrays out, for `jax.jit`, `jax.grad` and `jax.vmap`. All
numbers broadcast together. Labels, checks of values and messages to people are a layer above.
"""

from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax.assumptions import Assumptions, default as default_assumptions
from genz_jax.fields import Number
from genz_jax.machine.energy import energy
from genz_jax.machine.memory import capacity_check, excess, usable_memory
from genz_jax.machine.network import too_small
from genz_jax.machine.roofline import Load, OperatorTime, Speeds, load, native_format, operator_time
from genz_jax.results import (
    Bound,
    ChunkedResult,
    DecodeResult,
    OperatorResult,
    PrefillResult,
    RequestResult,
    SpeculativeResult,
    StageResult,
)
from genz_jax.specs import Model, Parallelism, Platform, Precision, Workload
from genz_jax.work.footprint import footprint, sum_over
from genz_jax.work.mapping import Reason, first_reason, mapping_reason
from genz_jax.work.operators import COLLECTIVES, COMPONENTS, Operator
from genz_jax.work.stages import (
    chunked_step,
    decode_step,
    forward,
    micro_batches,
    prefill_step,
)
from genz_jax.work.step import Deployment, Step

Tree = TypeVar("Tree")


def as_arrays(tree: Tree) -> Tree:
    """All numbers of specs as arrays of JAX's default float type."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype=jnp.result_type(float)), tree)


class Pass(eqx.Module):
    """The work of one forward pass, as the machine sees it: small arrays that do not depend on a platform."""

    ops: tuple[Operator, ...]
    loads: tuple[Load, ...]
    flops: Number
    traffic: Number


def forward_pass(model: Model, step: Step, deployment: Deployment) -> tuple[Pass, tuple[Operator, ...]]:
    ops = forward(model, step, deployment)
    slim = tuple(
        Operator(
            op.name,
            op.kind,
            op.component,
            op.on_chip,
            op.operand,
            repeats=op.repeats,
            message=op.message,
            ranks=op.ranks,
            stride=op.stride,
            hides=op.hides,
        )
        for op in ops
    )
    loads = tuple(load(op, deployment.assumptions) for op in ops)
    traffic = sum_over(ops, "input") + sum_over(ops, "weight") + sum_over(ops, "output")
    return computed_once(Pass(slim, loads, sum_over(ops, "flops"), traffic)), ops


def computed_once(tree: Tree) -> Tree:
    """Keep the compiler from fusing small arrays into the large ones, where it would compute them for every point."""
    return jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, tree))


class Totals(eqx.Module):
    """Sums over the operators of a pass; `bound` has the latency of the operators that wait for each resource."""

    latency: Number
    compute: Number
    memory: Number
    network: Number
    peak_compute: Number
    peak_memory: Number
    bound: tuple[Number, Number, Number]
    breakdown: dict[str, Number]
    operators: tuple[OperatorTime, ...]

    def times(self, factor: Number) -> "Totals":
        """The sums of `factor` such passes."""
        return jax.tree.map(lambda x: x * factor, self)

    def plus(self, other: "Totals") -> "Totals":
        """The sums of this pass and another, without the single operators."""
        mine, theirs = (eqx.tree_at(lambda t: t.operators, t, ()) for t in (self, other))
        return jax.tree.map(jnp.add, mine, theirs)

    @property
    def bound_code(self) -> jax.Array:
        """Code of the resource with the largest share."""
        compute, memory, network = self.bound
        code = jnp.where(memory > compute, jnp.int8(Bound.memory), jnp.int8(Bound.compute))
        return jnp.where(network > jnp.maximum(compute, memory), jnp.int8(Bound.network), code)


def run(work: Pass, speeds: Speeds, platform: Platform, assumptions: Assumptions) -> Totals:
    times: dict[str, OperatorTime] = {}
    # By kind of operator, since each of these sums depends on fewer axes than all together.
    kinds = ("roofline", "vector", "network")
    apart: dict[str, dict[str, Number]] = {name: dict.fromkeys(kinds, 0.0) for name in ("latency", "compute", "memory")}
    network: Number = 0.0
    peak_compute: Number = 0.0
    moved: Number = 0.0
    bound: list[Number] = [0.0, 0.0]
    breakdown: dict[str, Number] = dict.fromkeys(COMPONENTS, 0.0)
    for op, asked in zip(work.ops, work.loads, strict=True):
        time = operator_time(op, asked, speeds, platform, assumptions)
        if op.hides:
            time = _beside(time, [times[name].latency for name in op.hides], op.ranks)
        times[op.name] = time
        kind = "network" if op.kind in COLLECTIVES else "vector" if op.kind == "vector" else "roofline"
        for name, sums in apart.items():
            sums[kind] = sums[kind] + getattr(time, name)
        network = network + time.network
        peak_compute = peak_compute + asked.flops * speeds.flop[op.operand]
        moved = moved + asked.bytes + asked.onchip_bytes
        breakdown[op.component] = breakdown[op.component] + time.latency
        if kind == "roofline":
            by_memory = time.memory >= time.compute
            bound[Bound.compute] = bound[Bound.compute] + jnp.where(by_memory, 0.0, time.latency)
            bound[Bound.memory] = bound[Bound.memory] + jnp.where(by_memory, time.latency, 0.0)
    latency, compute, memory = (sums["roofline"] + (sums["vector"] + sums["network"]) for sums in apart.values())
    waits = (bound[Bound.compute], bound[Bound.memory] + apart["latency"]["vector"], apart["latency"]["network"])
    # One by one, so that what is not asked for is dropped; each would else be computed anew for every figure of it.
    latency, compute, memory, network, *bound = [
        computed_once(total) for total in (latency, compute, memory, network, *waits)
    ]
    return Totals(
        latency,
        compute,
        memory,
        network,
        peak_compute,
        moved * speeds.byte,
        (bound[0], bound[1], bound[2]),
        breakdown,
        tuple(times.values()),
    )


def _beside(time: OperatorTime, others: list[Number], ranks: Number) -> OperatorTime:
    """A ring that runs beside other operators: only what is longer than (n − 1)/n of their time adds to the latency."""
    busy: Number = 0.0
    for other in others:
        busy = busy + other
    exposed = jnp.maximum(time.network - busy * (ranks - 1.0) / ranks, 0.0)
    return OperatorTime(time.compute, time.memory, time.network, exposed)


Inputs = tuple[Model, Platform, Workload, Deployment]


def prepare(
    model: Model,
    platform: Platform,
    workload: Workload,
    parallelism: Parallelism | None,
    precision: Precision | None,
    assumptions: Assumptions,
) -> Inputs:
    """The arguments of a stage as arrays, with the deployment that they make; by default one device and bf16."""
    spread = Parallelism() if parallelism is None else parallelism
    formats = Precision() if precision is None else precision
    model, platform, workload, spread, formats = as_arrays((model, platform, workload, spread, formats))
    return model, platform, workload, Deployment(spread, formats, assumptions)


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


def fill_and_drain(latency: Number, workload: Workload, deployment: Deployment) -> Number:
    """Time until a replica's last micro-batch has left the pipeline: latency · (1 + (m − 1)/pp)."""
    if deployment.assumptions.pipeline == "published":
        return latency
    return latency * (1.0 + (micro_batches(workload, deployment) - 1.0) / deployment.parallelism.pp)


def steady_time(latency: Number, workload: Workload, deployment: Deployment) -> Number:
    """Time between two visits of a micro-batch to a stage: latency · max(m/pp, 1)."""
    if deployment.assumptions.pipeline == "published":
        return latency
    return latency * jnp.maximum(micro_batches(workload, deployment) / deployment.parallelism.pp, 1.0)


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
    step: Step,
    *,
    steady: bool,
    completions: Number,
    details: bool,
) -> StageT:
    """Figures of one forward pass.

    Args:
        result: class of the result.
        inputs: model, platform, workload and deployment.
        step: the pass.
        steady: micro-batches come back for another pass at once, as in decode; else each passes once.
        completions: what the whole batch completes in a pass.
        details: add the times of every operator.
    """
    model, platform, workload, deployment = inputs
    assumptions = deployment.assumptions
    work, ops = forward_pass(model, step, deployment)
    held = footprint(model, workload, step, deployment, ops)
    held, mapping = computed_once((held, mapping_reason(model, deployment, workload)))
    need = held.total
    usable = usable_memory(platform, assumptions)
    fits, offloads, bandwidth = capacity_check(need, usable, platform)
    speeds = Speeds.of(platform, deployment.precision, bandwidth)
    totals = run(work, speeds, platform, assumptions)
    if details:
        totals = eqx.tree_at(lambda t: t.operators, totals, computed_once(totals.operators))
    reason = reason_code(mapping, replica_devices(deployment), platform, fits)
    feasible = reason == Reason.feasible.value
    known = known_where(feasible, assumptions)
    batch_time = (steady_time if steady else fill_and_drain)(totals.latency, workload, deployment)
    return result(
        latency=known(totals.latency),
        batch_time=known(batch_time),
        throughput=known(completions / batch_time),
        compute_time=known(totals.compute),
        memory_time=known(totals.memory),
        network_time=known(totals.network),
        flop_count=work.flops,
        traffic=work.traffic,
        weights=held.weights,
        idle_weights=held.idle_weights,
        kv_cache=held.kv_cache,
        activations=held.activations,
        buffers=held.buffers,
        memory=need,
        memory_excess=excess(need, usable),
        energy=known(batch_energy(totals, platform, workload, deployment)),
        bound_code=totals.bound_code,
        compute_format_code=native_format(platform, deployment.precision.compute)[0],
        offloads=offloads,
        feasible=feasible,
        reason_code=reason,
        breakdown={name: known(value) for name, value in totals.breakdown.items()},
        operators=_operator_results(ops, totals, known) if details else None,
    )


def _operator_results(ops: tuple[Operator, ...], totals: Totals, known) -> dict[str, OperatorResult]:
    found = {}
    for op, time in zip(ops, totals.operators, strict=True):
        by_memory = jnp.where(time.memory >= time.compute, jnp.int8(Bound.memory), jnp.int8(Bound.compute))
        bound = jnp.int8(Bound.network) if op.kind in COLLECTIVES else by_memory
        found[op.name] = OperatorResult(
            repeats=op.repeats,
            flops=op.flops * op.repeats,
            input_bytes=op.input * op.repeats,
            weight_bytes=op.weight * op.repeats,
            output_bytes=op.output * op.repeats,
            message_bytes=op.message * op.repeats,
            compute_time=known(time.compute),
            memory_time=known(time.memory),
            network_time=known(time.network),
            latency=known(time.latency),
            bound_code=bound,
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
) -> PrefillResult:
    """Figures of the prefill stage: all prompt tokens of a batch in one pass.

    Args:
        model: the model.
        platform: the device and its network.
        workload: batch and prompt length.
        parallelism: how the model is spread; by default on one device.
        precision: number formats; by default bf16.
        assumptions: which physics counts.
        details: add the times of every operator.

    Returns:
        The figures; every field broadcasts over the shapes of the arguments' numbers.
    """
    inputs = prepare(model, platform, workload, parallelism, precision, assumptions)
    _, _, workload, deployment = inputs
    step = prefill_step(workload, deployment)
    return _stage(
        PrefillResult,
        inputs,
        step,
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
) -> DecodeResult:
    """Figures of a decode step: one token of every beam of every request, after the prompt and part of the output.

    Arguments and result as for `prefill`. The step stands for all steps as `Assumptions.decode_position` says.
    """
    inputs = prepare(model, platform, workload, parallelism, precision, assumptions)
    _, _, workload, deployment = inputs
    step = decode_step(workload, deployment)
    return _stage(
        DecodeResult,
        inputs,
        step,
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
    inputs = prepare(model, platform, workload, parallelism, precision, assumptions)
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
        chunked_step(workload, deployment),
        steady=True,
        completions=completions,
        details=details,
    )


def request(
    model: Model,
    platform: Platform,
    workload: Workload,
    parallelism: Parallelism | None = None,
    precision: Precision | None = None,
    assumptions: Assumptions = default_assumptions,
    details: bool = False,
) -> RequestResult:
    """Figures of serving a batch of requests: prefill, then decode until all output tokens are there.

    TTFT is the time of prefill; TPOT that of a decode step of the whole batch; the end-to-end latency is
    TTFT + n·TPOT with n = output tokens − 1, since prefill gives the first (n = output tokens in the `genz` preset).
    Throughput is batch · output tokens / latency. Arguments as for `prefill`.
    """
    model, platform, workload, deployment = prepare(model, platform, workload, parallelism, precision, assumptions)
    options = (model, platform, workload, deployment.parallelism, deployment.precision, assumptions, details)
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
    known = known_where(feasible, assumptions)
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
        bound_code=jnp.where(decode_weighs_more, rest.bound_code, first.bound_code),
        prefill_bound_code=first.bound_code,
        decode_bound_code=rest.bound_code,
        compute_format_code=compute_format,
        feasible=feasible,
        reason_code=reason,
    )
