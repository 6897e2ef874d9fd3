"""Speculative decoding: a draft model and a full model run in turn on the same devices."""

from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax.base.fields import Number
from genz_jax.machine.capacity import capacity_check, excess, usable_memory
from genz_jax.machine.execute import Totals, all_of, run
from genz_jax.machine.roofline import Speeds
from genz_jax.serving.pipeline import fill_and_drain, steady_time, through
from genz_jax.serving.results import SpeculativeDecodeResult, SpeculativePrefillResult
from genz_jax.serving.stage import (
    Inputs,
    as_arrays,
    batch_energy,
    bound_where,
    known_where,
    reason_code,
    replica_devices,
)
from genz_jax.specs import Model, Platform, Speculation, Workload
from genz_jax.specs.reasons import Reason
from genz_jax.work.demand import Pass, computed_once, forward_passes
from genz_jax.work.footprint import Footprint, activations, footprint
from genz_jax.work.operators.operator import Operator
from genz_jax.work.passes import Passes, once, prefill_passes
from genz_jax.work.pipeline import slowest
from genz_jax.work.prediction_module import prediction_module
from genz_jax.work.sharding import mapping_reason
from genz_jax.work.step import Deployment
from genz_jax.work.steps import decode_step, forward, replica_batch, verify_step


class ModelPass(eqx.Module):
    """One model's part of a step.

    Attributes:
        model: the model.
        passes: its passes and how often each runs; the first has most tokens.
        count: times that they all run; None for once.
        holders: the operators whose data it holds; by default those of the pass.
        shares_embedding: embedding and head are the other model's.
        copies: models of that kind that are held.
    """

    model: Model
    passes: Passes
    count: Number | None = None
    holders: tuple[Operator, ...] | None = None
    shares_embedding: bool = eqx.field(static=True, default=False)
    copies: Number = 1.0


class Turns(eqx.Module):
    """The work of a step of two models in turn.

    Attributes:
        passes: the passes of the full model and of the draft model.
        layers: layers of each.
        held: bytes that a device holds of both.
        reason: code of why one of them cannot be spread so, 0 if both can.
        tokens: expected tokens of the step.
        sequences: sequences of a micro-batch.
        once: each micro-batch passes once, as in prefill; else it comes back for another step.
        workload: the requests.
        deployment: how both are spread and stored.
    """

    passes: tuple[tuple[Pass, ...], tuple[Pass, ...]]
    layers: tuple[Number, Number]
    held: Footprint
    reason: Number
    tokens: Number
    sequences: Number
    once: bool = eqx.field(static=True)
    workload: Workload
    deployment: Deployment


def expected_tokens(tokens: Number, acceptance: Number, bonus: bool = False) -> Number:
    """Expected tokens of a speculative step with n draft tokens, each accepted with probability x after the last.

    The accepted ones are Σ_{k=1…n} x^k = x(1 − x^n)/(1 − x) in the mean (arXiv 2211.17192), and one more token comes
    from the full model. Without a position to sample that one from when all are accepted, the published analyser takes
    min(n, 1 + Σ).

    Args:
        tokens: draft tokens n.
        acceptance: probability x.
        bonus: the verification has a position for one token more.
    """
    inside = acceptance < 1
    log = jnp.log(jnp.clip(jnp.where(inside, acceptance, 0.5), 1e-30, None))
    accepted = jnp.where(inside, acceptance * jnp.expm1(tokens * log) / jnp.expm1(log), tokens)
    return 1.0 + accepted if bonus else jnp.minimum(tokens, 1.0 + accepted)


def speculative_decode_work(inputs: Inputs) -> Turns:
    """A step of speculative decoding (arXiv 2211.17192): n draft steps, then one verification pass.

    The full model verifies the n tokens of every sequence in one pass after input and output.
    """
    model, workload, deployment, speculation = _of(inputs)
    tokens = expected_tokens(speculation.tokens, speculation.acceptance, deployment.assumptions.bonus_token)
    full_held = forward(model, decode_step(workload, deployment), deployment)
    draft, shares, copies = drafting(model, speculation)
    return run_both(
        ModelPass(model, once(verify_step(workload, speculation.tokens, deployment)), holders=full_held),
        ModelPass(draft, once(decode_step(workload, deployment)), speculation.tokens, None, shares, copies),
        workload,
        deployment,
        tokens,
    )


def speculative_prefill_work(inputs: Inputs) -> Turns:
    """The prefill of speculative decoding: both models process the prompts, one after the other."""
    model, workload, deployment, speculation = _of(inputs)
    passes = prefill_passes(workload, deployment)
    draft, shares, copies = drafting(model, speculation)
    return run_both(
        ModelPass(model, passes), ModelPass(draft, passes, None, None, shares, copies), workload, deployment, 1.0
    )


def _of(inputs: Inputs) -> tuple[Model, Workload, Deployment, Speculation]:
    assert inputs.speculation is not None
    return inputs.model, inputs.workload, inputs.deployment, inputs.speculation


def drafting(model: Model, speculation: Speculation) -> tuple[Model, bool, Number]:
    """The draft model, whether it shares the full model's embedding, and how many of its kind are held."""
    if speculation.draft is not None:
        return speculation.draft, False, 1.0
    return as_arrays(prediction_module(model)), True, model.mtp_layers


def _held(part: ModelPass, workload: Workload, deployment: Deployment, ops: tuple[Operator, ...]) -> Footprint:
    """What one of the models holds; working memory is that of its pass."""
    holders = ops if part.holders is None else part.holders
    if part.shares_embedding:
        norms = part.model.final_norms * part.model.hidden_size * deployment.precision.weight_bytes("head")
        own = {"embedding": 0.0 * norms, "head": norms}
        holders = tuple(eqx.tree_at(lambda o: o.stored, op, own[op.name]) if op.name in own else op for op in holders)
    widest = part.passes[0][0]
    held = footprint(part.model, workload, widest, deployment, holders)
    working = activations(part.model, widest, deployment, ops)
    copied = (held.weights * part.copies, held.kv_cache * part.copies, *working)
    return eqx.tree_at(lambda f: (f.weights, f.kv_cache, f.activations, f.buffers), held, copied)


def run_both(full: ModelPass, draft: ModelPass, workload: Workload, deployment: Deployment, tokens: Number) -> Turns:
    """The work of two models in turn on one device, the full and the draft one, for so many expected tokens."""
    passes, held = [], []
    reason: Number = jnp.int8(Reason.feasible)
    for part in (full, draft):
        made, ops = forward_passes(part.model, part.passes, deployment, part.count)
        passes.append(made)
        held.append(_held(part, workload, deployment, ops))
        reason = jnp.where(reason > 0, reason, mapping_reason(part.model, deployment, workload))
    held, reason = computed_once((held, reason))
    both = jax.tree.map(jnp.add, *held)
    # The two take turns, so that the larger working memory is enough.
    working = tuple(jnp.maximum(getattr(held[0], name), getattr(held[1], name)) for name in ("activations", "buffers"))
    both = eqx.tree_at(lambda f: (f.activations, f.buffers), both, working)
    first = full.passes[0][0]
    return Turns(
        (passes[0], passes[1]),
        (full.model.layers, draft.model.layers),
        both,
        reason,
        jnp.asarray(tokens, jnp.result_type(float)),
        first.sequences,
        first.mode == "prefill",
        workload,
        deployment,
    )


def speculative_decode_figures(work: Turns, platform: Platform, details: bool = False) -> SpeculativeDecodeResult:
    """Figures of a step of speculative decoding.

    latency = n · t_draft + t_verify, and throughput = batch · expected tokens / time of the batch.
    """
    del details
    return both_figures(SpeculativeDecodeResult, work, platform)


def speculative_prefill_figures(work: Turns, platform: Platform, details: bool = False) -> SpeculativePrefillResult:
    """Figures of the prefill of both models."""
    del details
    return both_figures(SpeculativePrefillResult, work, platform)


SpeculativeT = TypeVar("SpeculativeT", SpeculativeDecodeResult, SpeculativePrefillResult)


def both_figures(result: type[SpeculativeT], work: Turns, platform: Platform) -> SpeculativeT:
    """Figures of two models in turn on a platform."""
    workload, deployment, both = work.workload, work.deployment, work.held
    assumptions, parallelism = deployment.assumptions, deployment.parallelism
    usable = usable_memory(platform, assumptions)
    need, limit = both.total, usable
    if assumptions.pipeline == "published":
        # The published speculative stages pool the memory of all pipeline stages.
        need, limit = need * parallelism.pp, limit * parallelism.pp
    fits, offloads, bandwidth = capacity_check(need, limit, platform, usable)
    speeds = Speeds.of(platform, deployment.precision, bandwidth, assumptions.measured_kernels)
    times = [[run(one, speeds, platform, assumptions) for one in passes] for passes in work.passes]
    parts = [all_of(t, [one.count for one in passes]) for t, passes in zip(times, work.passes, strict=True)]
    totals = all_of(parts, [None, None])
    latency, batch_time = _times(work, times, parts, totals)
    reason = reason_code(work.reason, replica_devices(deployment), platform, fits)
    feasible = reason == Reason.feasible.value
    known = known_where(feasible, assumptions)
    return result(
        latency=known(latency),
        batch_time=known(batch_time),
        throughput=known(workload.batch * work.tokens / batch_time),
        expected_tokens=work.tokens,
        draft_time=known(parts[1].latency),
        full_time=known(parts[0].latency),
        weights=both.weights,
        kv_cache=both.kv_cache,
        activations=both.activations,
        buffers=both.buffers,
        memory=both.total,
        memory_excess=excess(need, limit),
        energy=known(batch_energy(totals, platform, workload, deployment)),
        bound_code=bound_where(feasible, assumptions)(totals.bound_code),
        offloads=offloads,
        feasible=feasible,
        reason_code=reason,
    )


def _times(work: Turns, times: list[list[Totals]], parts: list[Totals], totals: Totals) -> tuple[Number, Number]:
    """Latency of a micro-batch and time of the whole batch, from the totals of every pass and of each model."""
    workload, deployment = work.workload, work.deployment
    pace = sum(slowest(part.ends, layers, deployment) for part, layers in zip(parts, work.layers, strict=True))
    if deployment.assumptions.pipeline == "published":
        micro = jnp.floor(replica_batch(workload, deployment) / work.sequences)
        return totals.latency, totals.latency * ((micro - 1.0) / deployment.parallelism.pp + 1.0)
    if not work.once:
        return totals.latency, steady_time(totals.latency, pace, workload, deployment)
    fills = [
        sum(t.latency - slowest(t.ends, layers, deployment) for t, layers in zip(pair, work.layers, strict=True))
        for pair in zip(*times, strict=True)
    ]
    latency = through(totals.latency, pace, fills, deployment)
    return latency, fill_and_drain(latency, pace, workload, deployment)
