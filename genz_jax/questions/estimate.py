"""Estimate: one point, with an error where it could not be run as asked."""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from genz_jax.labelled import labels
from genz_jax.labelled.inputs import read_case
from genz_jax.questions.sweep import ask
from genz_jax.serving.evaluate import Case, compiled, detailed, evaluate, slim
from genz_jax.specs import Engine, Model, Parallelism, Platform, Precision, Speculation, Workload
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.figures import Result
from genz_jax.specs.reasons import REASONS, Reason
from genz_jax.work.sharding import RULES
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
    question = ask(stage, assumptions, None, stage in detailed(), operators)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(case)):
        return evaluate(case, question)
    result: Result = jax.tree.map(np.asarray, compiled(question, quick=True)(slim(case)))
    refuse(case, names, Reason(int(np.max(result.reason_code))), question.assumptions)  # type: ignore[attr-defined]
    return result


def refuse(case: Case, names: dict[str, str], reason: Reason, assumptions: Assumptions) -> None:
    """Raise ValueError where the parallelism asked for cannot be; what merely does not fit is a result."""
    if reason in (Reason.feasible, Reason.does_not_fit) or assumptions.infeasible == "finite":
        return
    if reason is Reason.network_too_small:
        message = _beyond_the_network(case, names["platform"] or "the platform")
    else:
        rule, deployment = RULES[reason], Deployment(case.parallelism, case.precision, assumptions)
        model, name = case.model, names["model"]
        draft = None if case.speculation is None else case.speculation.draft
        if draft is not None and not np.any(rule.broken(model, deployment, case.workload)):
            model, name = draft, names["draft"]
        message = rule.message(model, deployment, case.workload, name or "the model")
    raise ValueError(f"{message} ({REASONS[reason]})")


def _beyond_the_network(case: Case, name: str) -> str:
    spread = case.parallelism
    sizes = {"tp": spread.tp, "ep": spread.ep, "cp": 1.0 if spread.cp is None else spread.cp, "pp": spread.pp}
    shown = "·".join(axis for axis, size in sizes.items() if axis != "cp" or np.max(size) > 1)
    devices = float(np.prod([np.max(size) for size in sizes.values()]))
    joined = max(float(level.size) for level in case.platform.network)
    return (
        f"Parallelism: {shown} = {devices:g} devices, but the network of {name} joins {joined:g}; "
        "use fewer, or replace(network=…)"
    )
