"""Estimate: one point, with an error where it could not be run as asked."""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from genz_jax.labelled import labels
from genz_jax.labelled.inputs import read_case, refuse_to_generate
from genz_jax.questions.sweep import ask
from genz_jax.serving.evaluate import DETAILED, Case, compiled, evaluate, slim
from genz_jax.serving.stage import as_arrays
from genz_jax.specs import Engine, Model, Parallelism, Platform, Precision, Speculation, Workload
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.figures import Result
from genz_jax.specs.reasons import REASONS, Reason
from genz_jax.work.sharding import mapping_reason
from genz_jax.work.step import Deployment


def estimate(
    model: str | Model,
    platform: str | Platform,
    workload: str | Workload | None = None,
    parallelism: Parallelism | None = None,
    precision: str | Precision | None = None,
    *,
    speculation: Speculation | None = None,
    engine: Engine | None = None,
    stage: str = "request",
    assumptions: str | Assumptions = "default",
    operators: bool = False,
) -> Any:
    """Evaluate one point.

    Args:
        model: a catalogue name or a `gz.Model`.
        platform: a catalogue name or a `gz.Platform`.
        workload: a `gz.Workload` or the name of one; by default one request of 1,024 + 128 tokens.
        parallelism: how the model is spread; by default on one device.
        precision: a format such as "fp8" or "int4-bf16", or a `gz.Precision`; by default that of the model's
            checkpoint, else bf16.
        speculation: the draft model and its use, for the speculative stages and for requests.
        engine: what bounds a forward pass; by default `gz.Engine()`.
        stage: request, prefill, decode, encode (embeddings of whole sequences), chunked, memory, speculative_prefill or
            speculative_decode.
        assumptions: "default", "genz", or a `gz.Assumptions`.
        operators: figures of every operator too.

    Returns:
        The stage's result (`RequestResult`, `PrefillResult`, …); print it for a table. If the model does not fit, times
        are NaN, `feasible` is false and `reason` says why. Under `jax.grad`, `jit` and `vmap` its figures are tracers.

    Raises:
        ValueError: an input that no machine or model could have, or a parallelism that does not divide the model; the
            message names field, value, rule and fix.

    Example:
        >>> import genz_jax as gz
        >>> r = gz.estimate("llama-3.1-70b", "H100-SXM", gz.Workload(batch=32), gz.Parallelism(tp=8), "fp8")
        >>> r.bound
        'memory'
    """
    case, names = read_case(model, platform, workload, parallelism, precision, speculation, engine, stage)
    if axes := labels.axes_of(case):
        raise ValueError(f"{next(iter(axes))} is an axis: estimate takes one point; use gz.sweep for axes and lists")
    labels.refuse_bare_arrays(case)
    question = ask(stage, assumptions, None, stage in DETAILED, operators)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(case)):
        return evaluate(case, question)
    result: Result = jax.tree.map(np.asarray, compiled(question)(slim(case)))
    refuse(case, names, Reason(int(np.max(result.reason_code))), question.assumptions)  # type: ignore[attr-defined]
    return result


_HEADS = ("heads", "kv_heads")


def refuse(case: Case, names: dict[str, str], reason: Reason, assumptions: Assumptions) -> None:
    """Raise ValueError where the parallelism asked for cannot be; what merely does not fit is a result."""
    if reason in (Reason.feasible, Reason.does_not_fit) or assumptions.infeasible == "finite":
        return
    spread, model = case.parallelism, case.model
    if case.speculation is not None:
        for at, named in ((case.model, names["model"]), (case.speculation.draft, names["draft"])):
            if at is None:
                continue
            deployment = Deployment(*as_arrays((spread, case.precision)), assumptions)
            if Reason(int(mapping_reason(as_arrays(at), deployment, case.workload))) is reason:
                model, names = at, names | {"model": named}
                break
    tp, ep, pp, dp = (float(np.max(x)) for x in (spread.tp, spread.ep, spread.pp, spread.dp))
    cp = 1.0 if spread.cp is None else float(np.max(spread.cp))
    name = names["model"] or "the model"
    if reason is Reason.no_head:
        refuse_to_generate(model, name)
    if reason is Reason.kv_heads_not_divisible:
        there = {kind: getattr(model, kind) for kind in ("attention", "local_attention", "sparse_attention")}
        sizes = [
            f"{kind}.kv_heads = {float(part.kv_heads):g}: must divide heads = {float(part.heads):g}"
            for kind, part in there.items()
            if part is not None
        ]
        message = f"Model.{'; '.join(sizes)} of {name}"
    elif reason is Reason.top_k_beyond_experts and model.moe is not None:
        experts = float(model.moe.experts)
        message = f"Model.moe.top_k = {float(model.moe.top_k):g}: at most the {experts:g} experts of {name}"
    elif reason is Reason.heads_not_divisible:
        parts = [
            *((kind, size) for kind in ("attention", "local_attention", "sparse_attention") for size in _HEADS),
            *((kind, "heads") for kind in ("latent_attention", "compressed_attention", "ssd", "linear_attention")),
            ("ssm", "d_inner"),
            ("delta_net", "value_heads"),
            ("short_convolution", "channels"),
        ]
        sizes = [
            f"{part}.{size} = {float(getattr(getattr(model, part), size)):g}"
            for part, size in parts
            if getattr(model, part)
        ]
        message = f"Parallelism.tp·ep = {tp * ep:g}: must divide {', '.join(sizes)} of {name}; choose a divisor"
    elif reason is Reason.experts_not_divisible and model.moe is not None:
        message = f"Parallelism.ep = {ep:g}: must divide the {float(model.moe.experts):g} experts of {name}"
    elif reason is Reason.no_experts_for_ep:
        message = f"Parallelism.ep = {ep:g}: {name} has no experts to spread; use ep=1, and tp or pp instead"
    elif reason is Reason.pp_beyond_layers:
        message = f"Parallelism.pp = {pp:g}: at most the {float(model.layers):g} layers of {name}"
    elif reason is Reason.dp_beyond_batch:
        message = (
            f"Parallelism.dp = {dp:g}: at most the batch of {float(case.workload.batch):g}; each replica needs one"
        )
    elif reason is Reason.cp_beyond_tokens:
        message = f"Parallelism.cp = {cp:g}: at most the {float(case.workload.input_tokens):g} prompt tokens"
    elif reason is Reason.cached_beyond_prompt:
        cached, prompt = (float(np.max(getattr(case.workload, name))) for name in ("cached_tokens", "input_tokens"))
        message = f"Workload.cached_tokens = {cached:g}: at most {prompt - 1:g} of the {prompt:g} prompt tokens"
    elif reason is Reason.chunks_do_not_agree:
        message = "Workload.prefill_chunks and decode_chunks do not agree"
    else:
        joined = max(float(level.size) for level in case.platform.network)
        sizes = "tp·ep·pp" if cp == 1 else "tp·ep·cp·pp"
        message = (
            f"Parallelism: {sizes} = {tp * ep * cp * pp:g} devices, but the network of "
            f"{names['platform'] or 'the platform'} joins {joined:g}; use fewer, or replace(network=…)"
        )
    raise ValueError(f"{message} ({REASONS[reason]})")
