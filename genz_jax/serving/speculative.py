"""Speculative decoding: a draft model and a full model take turns on the same devices."""

from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax.base.fields import Number
from genz_jax.machine.capacity import capacity_check, excess, usable_memory
from genz_jax.machine.execute import all_of, computed_once, forward_pass, run
from genz_jax.machine.roofline import Speeds, native_format
from genz_jax.serving.request import served
from genz_jax.serving.results import RequestResult, SpeculativeDecodeResult, SpeculativePrefillResult
from genz_jax.serving.stages import (
    as_arrays,
    batch_energy,
    bound_where,
    fill_and_drain,
    known_where,
    prepare,
    reason_code,
    replica_devices,
    steady_time,
    through,
)
from genz_jax.specs import Engine, Model, Parallelism, Platform, Precision, Speculation, Workload
from genz_jax.specs.assumptions import Assumptions, default as default_assumptions
from genz_jax.specs.prediction_module import prediction_module
from genz_jax.specs.reasons import Reason
from genz_jax.work.footprint import Footprint, activations, footprint
from genz_jax.work.operators.operator import Operator
from genz_jax.work.passes import Passes, once, prefill_passes
from genz_jax.work.pipeline import slowest
from genz_jax.work.sharding import mapping_reason
from genz_jax.work.step import Deployment
from genz_jax.work.steps import decode_step, forward, replica_batch, verify_step


class Turn(eqx.Module):
    """One model's part of a step.

    Attributes:
        model: the model.
        passes: its passes and how often each runs; the first has most tokens.
        count: times that they all run.
        holders: the operators whose data it holds; by default those of the pass.
        shares_embedding: embedding and head are the other model's.
        copies: models of that kind that are held.
    """

    model: Model
    passes: Passes
    count: Number = 1.0
    holders: tuple[Operator, ...] | None = None
    shares_embedding: bool = eqx.field(static=True, default=False)
    copies: Number = 1.0


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


def speculative_decode(
    model: Model,
    platform: Platform,
    workload: Workload,
    speculation: Speculation,
    parallelism: Parallelism | None = None,
    precision: Precision | None = None,
    assumptions: Assumptions = default_assumptions,
    engine: Engine | None = None,
) -> SpeculativeDecodeResult:
    """Figures of a step of speculative decoding (arXiv 2211.17192): n draft steps, then one verification pass.

    latency = n · t_draft + t_verify, where the full model verifies the n tokens of every sequence in one pass after
    input and output; both models share the device. Throughput = batch · expected tokens / time of the batch.

    Args:
        model: the full model.
        platform: the device and its network.
        workload: the requests.
        speculation: the draft model, tokens per step and acceptance.
        parallelism: how both models are spread; by default on one device.
        precision: number formats; by default bf16.
        assumptions: which physics counts.
        engine: what bounds a pass; by default nothing does.
    """
    model, platform, workload, deployment = prepare(
        model, platform, workload, parallelism, precision, assumptions, engine
    )
    speculation = as_arrays(speculation)
    tokens = expected_tokens(speculation.tokens, speculation.acceptance, assumptions.bonus_token)
    full_held = forward(model, decode_step(workload, deployment), deployment)
    draft, shares, copies = drafting(model, speculation)
    return take_turns(
        SpeculativeDecodeResult,
        Turn(model, once(verify_step(workload, speculation.tokens, deployment)), 1.0, full_held),
        Turn(draft, once(decode_step(workload, deployment)), speculation.tokens, None, shares, copies),
        platform,
        workload,
        deployment,
        tokens,
    )


def speculative_request(
    model: Model,
    platform: Platform,
    workload: Workload,
    speculation: Speculation,
    parallelism: Parallelism | None = None,
    precision: Precision | None = None,
    assumptions: Assumptions = default_assumptions,
    engine: Engine | None = None,
) -> RequestResult:
    """Figures of serving a batch of requests whose decoding is speculative.

    TTFT is the time of the prefill of both models. A step gives t tokens in the mean, so that TPOT = step time/t, and
    the end-to-end latency is TTFT + n·TPOT as in `stages.request`. Arguments as for `speculative_decode`.
    """
    options = (model, platform, workload, speculation, parallelism, precision, assumptions, engine)
    first, rest = speculative_prefill(*options), speculative_decode(*options)
    _, platform, workload, deployment = prepare(model, platform, workload, parallelism, precision, assumptions, engine)
    return served(
        first,
        rest,
        rest.batch_time / rest.expected_tokens,
        rest.energy / rest.expected_tokens,
        native_format(platform, deployment.precision.compute)[0],
        platform,
        workload,
        deployment,
    )


def speculative_prefill(
    model: Model,
    platform: Platform,
    workload: Workload,
    speculation: Speculation,
    parallelism: Parallelism | None = None,
    precision: Precision | None = None,
    assumptions: Assumptions = default_assumptions,
    engine: Engine | None = None,
) -> SpeculativePrefillResult:
    """Figures of the prefill of speculative decoding: both models process the prompts, one after the other.

    Arguments as for `speculative_decode`.
    """
    model, platform, workload, deployment = prepare(
        model, platform, workload, parallelism, precision, assumptions, engine
    )
    speculation = as_arrays(speculation)
    passes = prefill_passes(workload, deployment)
    draft, shares, copies = drafting(model, speculation)
    return take_turns(
        SpeculativePrefillResult,
        Turn(model, passes),
        Turn(draft, passes, 1.0, None, shares, copies),
        platform,
        workload,
        deployment,
        1.0,
    )


def drafting(model: Model, speculation: Speculation) -> tuple[Model, bool, Number]:
    """The draft model, whether it shares the full model's embedding, and how many of its kind are held."""
    if speculation.draft is not None:
        return speculation.draft, False, 1.0
    return as_arrays(prediction_module(model)), True, model.mtp_layers


def _held(turn: Turn, workload: Workload, deployment: Deployment, ops: tuple[Operator, ...]) -> Footprint:
    """What one of the models holds; working memory is that of its pass."""
    holders = ops if turn.holders is None else turn.holders
    if turn.shares_embedding:
        norms = turn.model.final_norms * turn.model.hidden_size * deployment.precision.weight_bytes("head")
        own = {"embedding": 0.0 * norms, "head": norms}
        holders = tuple(eqx.tree_at(lambda o: o.stored, op, own[op.name]) if op.name in own else op for op in holders)
    widest = turn.passes[0][0]
    held = footprint(turn.model, workload, widest, deployment, holders)
    working = activations(turn.model, widest, deployment, ops)
    copied = (held.weights * turn.copies, held.kv_cache * turn.copies, *working)
    return eqx.tree_at(lambda f: (f.weights, f.kv_cache, f.activations, f.buffers), held, copied)


SpeculativeT = TypeVar("SpeculativeT", SpeculativeDecodeResult, SpeculativePrefillResult)


def take_turns(
    result: type[SpeculativeT],
    full: Turn,
    draft: Turn,
    platform: Platform,
    workload: Workload,
    deployment: Deployment,
    tokens: Number,
) -> SpeculativeT:
    """Two models in turn on one device, the full and the draft one."""
    assumptions, parallelism = deployment.assumptions, deployment.parallelism
    passes, held = [], []
    mapping: Number = jnp.int8(Reason.feasible)
    for turn in (full, draft):
        works = [forward_pass(turn.model, step, deployment) for step, _ in turn.passes]
        passes.append(([work for work, _ in works], [count * turn.count for _, count in turn.passes]))
        held.append(_held(turn, workload, deployment, works[0][1]))
        one = mapping_reason(turn.model, deployment, workload)
        mapping = jnp.where(mapping > 0, mapping, one)
    held, mapping = computed_once((held, mapping))
    both = jax.tree.map(jnp.add, *held)
    # The two take turns, so that the larger working memory is enough.
    working = tuple(jnp.maximum(getattr(held[0], name), getattr(held[1], name)) for name in ("activations", "buffers"))
    both = eqx.tree_at(lambda f: (f.activations, f.buffers), both, working)
    usable = usable_memory(platform, assumptions)
    need, limit = both.total, usable
    if assumptions.pipeline == "published":
        # The published speculative stages pool the memory of all pipeline stages.
        need, limit = need * parallelism.pp, limit * parallelism.pp
    fits, offloads, bandwidth = capacity_check(need, limit, platform, usable)
    speeds = Speeds.of(platform, deployment.precision, bandwidth)
    times = [[run(work, speeds, platform, assumptions) for work in works] for works, _ in passes]
    parts = [all_of(one, counts) for one, (_, counts) in zip(times, passes, strict=True)]
    totals = parts[0].plus(parts[1])
    latency, turns = totals.latency, (full, draft)
    pace = sum(slowest(part.ends, turn.model, deployment) for part, turn in zip(parts, turns, strict=True))
    reason = reason_code(mapping, replica_devices(deployment), platform, fits)
    feasible = reason == Reason.feasible.value
    known = known_where(feasible, assumptions)
    if assumptions.pipeline == "published":
        micro = jnp.floor(replica_batch(workload, deployment) / full.passes[0][0].sequences)
        batch_time = totals.latency * ((micro - 1.0) / parallelism.pp + 1.0)
    elif full.passes[0][0].mode == "prefill":
        fills = [
            sum(
                part.latency - slowest(part.ends, turn.model, deployment)
                for part, turn in zip(pair, turns, strict=True)
            )
            for pair in zip(*times, strict=True)
        ]
        latency = through(totals.latency, pace, fills, deployment)
        batch_time = fill_and_drain(latency, pace, workload, deployment)
    else:
        batch_time = steady_time(totals.latency, pace, workload, deployment)
    return result(
        latency=known(latency),
        batch_time=known(batch_time),
        throughput=known(workload.batch * tokens / batch_time),
        expected_tokens=jnp.asarray(tokens),
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
