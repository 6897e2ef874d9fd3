"""Attention kernels: from stretches of context to operators, one fused or two, averaged over decode positions."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp

from genz_jax.fields import Number
from genz_jax.work.operators import Operator, Stretch, attention_scores, attention_values
from genz_jax.work.step import Deployment, Segment, Step

Build = Callable[[Sequence[Segment]], list[Operator]]


class Shape(eqx.Module):
    """Heads of an attention kernel on one device.

    Attributes:
        heads: query heads.
        kv_heads: key-value heads.
        head_dim: size of a head of queries and keys.
        v_head_dim: size of a head of values.
        window: tokens that a query sees at most, the newest; None for all.
        selected: a query's window is chosen from all tokens, so that the queries of a prompt together see all.
        shared_values: values are a part of the keys that have been read, as in absorbed latent attention.
    """

    heads: Number
    kv_heads: Number
    head_dim: Number
    v_head_dim: Number
    window: Number | None = None
    selected: bool = eqx.field(static=True, default=False)
    shared_values: bool = eqx.field(static=True, default=False)


def attend(
    name: str,
    shape: Shape,
    step: Step,
    deployment: Deployment,
    segments: Sequence[Segment] | None = None,
    cached: Number | None = None,
) -> list[Operator]:
    """Operators of attention to the context of a step.

    One kernel computes scores, softmax and values and keeps the scores on chip (FlashAttention, arXiv 2205.14135); all
    stretches of context of a sequence are in it. Else (`Assumptions.fused_attention`) scores and values of each stretch
    are operators of their own, as published.

    Args:
        name: name of the layer.
        shape: the heads.
        step: the forward pass.
        deployment: spread, formats and physics.
        segments: the stretches of context; by default all of the step.
        cached: elements that the cache holds per token; by default keys and values of all heads.
    """
    ops = []
    segments = step.segments if segments is None else segments
    for kernel in dict.fromkeys(segment.kernel for segment in segments):
        together = [segment for segment in segments if segment.kernel == kernel]

        def build(segments: Sequence[Segment], kernel: str = kernel) -> list[Operator]:
            apart = [_scores_and_values(name, shape, part, step, deployment, cached) for part in segments]
            if not deployment.assumptions.fused_attention:
                return [op for pair in apart for op in pair]
            return [_fused(f"{name}.{kernel}attention", apart, step.resident(deployment.assumptions, segments))]

        ops += over_positions(build, together, step, shape.window)
    return ops


def _scores_and_values(
    name: str, shape: Shape, segment: Segment, step: Step, deployment: Deployment, cached: Number | None
) -> tuple[Operator, Operator]:
    """Scores and values of one stretch of context; the scores never leave the chip."""
    assumptions, precision = deployment.assumptions, deployment.precision
    context, pairs = segment.seen(shape.window, assumptions)
    if shape.selected and segment.prefill:
        context = segment.context
    resident = step.resident(assumptions, [segment])
    kept = context
    if cached is not None:
        kept = segment.context
    elif shape.window is not None and assumptions.causal:
        kept = jnp.minimum(context, shape.window)
    held = segment.batch * kept * precision.kv_element(kept, shape.head_dim)
    keys, values = held * shape.kv_heads * shape.head_dim, held * shape.kv_heads * shape.v_head_dim
    if cached is not None:
        keys, values = held * cached, 0.0 * held
    sizes = {
        "batch": segment.batch,
        "heads": shape.heads,
        "kv_heads": shape.kv_heads,
        "queries": segment.queries,
        "context": context,
        "pairs": pairs,
        "precision": precision,
    }
    prefix = f"{name}.{segment.name}"
    scores = attention_scores(f"{prefix}scores", head_dim=shape.head_dim, on_chip=resident or "o", cached=keys, **sizes)
    weighted = attention_values(
        f"{prefix}values", head_dim=shape.v_head_dim, on_chip=resident or "i", cached=values, **sizes
    )
    if shape.shared_values:
        weighted = eqx.tree_at(lambda op: op.weight, weighted, 0.0 * weighted.weight)
    return scores, weighted


def _fused(name: str, apart: Sequence[tuple[Operator, Operator]], on_chip: str) -> Operator:
    """One kernel for pairs of scores and values: it reads queries, keys and values and writes the output."""

    def total(take: Callable[[Operator, Operator], Number]) -> Number:
        found: Number = 0.0
        for scores, values in apart:
            found = found + take(scores, values)
        return found

    return Operator(
        name,
        "attention",
        "attention_core",
        on_chip,
        "kv_cache",
        flops=total(lambda scores, values: scores.flops + values.flops),
        input=total(lambda scores, values: scores.input),
        weight=total(lambda scores, values: scores.weight + values.weight),
        output=total(lambda scores, values: values.output),
        cached=total(lambda scores, values: scores.cached + values.cached),
        sizes=apart[-1][0].sizes,
    )


def over_positions(build: Build, segments: Sequence[Segment], step: Step, window: Number | None) -> list[Operator]:
    """Operators of attention, as the mean over all positions of a decode step.

    Between the positions at which a window is full (of all tokens, or of generated ones alone) work grows evenly with
    the position, so the first and the last position of each such stretch tell the sum over all of them.

    Args:
        build: operators for segments at one position.
        segments: the stretches of context.
        step: the forward pass, with the positions that it stands for.
        window: tokens that a query sees at most; None for all.
    """
    if step.positions is None or not any(segment.grows for segment in segments):
        return build(segments)
    first, last = step.positions
    count = last - first + 1.0
    bounds = [(first, last)]
    if window is not None:
        prompt = next((segment.context for segment in segments if segment.grows == "newer"), 0.0)
        # The window holds all of the prompt, then less and less, then generated tokens alone.
        full, none = window - prompt, window
        bounds = [(first, full), (full + 1.0, none - 1.0), (none, last)]
    stretches = []
    for start, end in bounds:
        start, end = jnp.maximum(start, first), jnp.minimum(end, last)
        inside = jnp.maximum(end - start + 1.0, 0.0)
        ends = [build([part.at(jnp.clip(g, first, last)) for part in segments]) for g in (start, end)]
        stretches.append((inside, *ends))
    return [
        _mean(tuple(Stretch(inside / count, inside, low[i], high[i]) for inside, low, high in stretches))
        for i in range(len(stretches[0][1]))
    ]


_GROWING = ("flops", "input", "weight", "output", "cached")


def _mean(parts: tuple[Stretch, ...]) -> Operator:
    """The operator whose work is the mean over all positions."""
    means = []
    for field in _GROWING:
        total: Number = 0.0
        for part in parts:
            total = total + part.share * (getattr(part.first, field) + getattr(part.last, field)) / 2.0
        means.append(total)
    return eqx.tree_at(
        lambda op: (*(getattr(op, field) for field in _GROWING), op.stretches), parts[-1].last, (*means, parts)
    )
