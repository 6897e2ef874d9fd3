"""Attention kernels: from segments of the context to operators, one fused or two, averaged over decode positions."""

import dataclasses
from collections.abc import Callable, Sequence

import equinox as eqx

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.specs.assumptions import Assumptions
from genz_jax.work.layers.context import pass_keys
from genz_jax.work.operators.operator import Operator, PositionRange
from genz_jax.work.operators.products import attention_scores, attention_values
from genz_jax.work.step import Deployment, Segment, Step

Build = Callable[[Sequence[Segment]], list[Operator]]


class Heads(eqx.Module):
    """Heads of an attention kernel on one device.

    Attributes:
        queries: query heads.
        keys: key-value heads.
        size: size of a head of queries and keys.
        value_size: size of a head of values.
        cached: elements that the cache holds per token.
        passed: elements per token that context parallel ranks pass to each other.
        shared_values: values are a part of the keys that have been read, as in absorbed latent attention.
    """

    queries: Number
    keys: Number
    size: Number
    value_size: Number
    cached: Number
    passed: Number
    shared_values: bool = eqx.field(static=True, default=False)


@dataclasses.dataclass(frozen=True)
class Visibility:
    """Which part of the context each query attends to: all of it, a window, or the indexer's top-k.

    Attributes:
        window: tokens that a query sees at most; None for all.
        reads: tokens of a segment that any query reads, (query, key) pairs of a sequence and head, and tokens that the
            cache holds.
        newest: the window holds the newest tokens, so that the rest need not reach a rank.
    """

    window: Number | None
    reads: Callable[[Segment], tuple[Number, Number, Number]]
    newest: bool = False


def windowed(window: Number | None, assumptions: Assumptions) -> Visibility:
    """Attention to the newest tokens, at most a window; the cache drops what no query can see any more."""

    def reads(segment: Segment) -> tuple[Number, Number, Number]:
        context, pairs = segment.seen(window, assumptions)
        kept = context if window is None or not assumptions.causal else xp.minimum(context, window)
        return context + segment.reread(window), pairs, kept

    return Visibility(window, reads, newest=True)


def attend(
    prefix: str,
    heads: Heads,
    visibility: Visibility,
    step: Step,
    deployment: Deployment,
    segments: Sequence[Segment] = (),
) -> list[Operator]:
    """Operators of attention to the context of a step.

    One kernel computes scores, softmax and values and keeps the scores on chip (FlashAttention, arXiv 2205.14135); all
    segments of a sequence are in it. Else (`Assumptions.fused_attention`) scores and values of each segment are
    operators of their own, as published.

    Args:
        prefix: what the operators' names begin with.
        heads: the heads.
        visibility: what each query attends to.
        step: the forward pass.
        deployment: spread, formats and physics.
        segments: the parts of the context; by default all of the step.
    """
    ops = []
    segments = segments or step.segments
    for kernel in dict.fromkeys(segment.kernel for segment in segments):
        together = [segment for segment in segments if segment.kernel == kernel]

        def build(parts: Sequence[Segment], kernel: str = kernel) -> list[Operator]:
            apart = [_scores_and_values(prefix, heads, visibility, part, step, deployment) for part in parts]
            if not deployment.assumptions.fused_attention:
                return [op for pair in apart for op in pair]
            decodes = "latent_decode" if heads.shared_values else "decode_attention"
            runs = "prefill_attention" if parts[0].prompt else decodes
            return [_fused(f"{prefix}{kernel}attention", runs, apart, step.resident(deployment.assumptions, parts))]

        made = over_positions(build, together, step, visibility.window)
        prompts = [segment for segment in together if segment.prompt]
        overlaps_with, window = tuple(op.name for op in made), visibility.window if visibility.newest else None
        ops += made
        ops += pass_keys(
            f"{prefix}{kernel}pass_keys",
            prompts,
            heads.passed,
            window,
            overlaps_with,
            deployment,
        )
    return ops


def _scores_and_values(
    prefix: str, heads: Heads, visibility: Visibility, segment: Segment, step: Step, deployment: Deployment
) -> tuple[Operator, Operator]:
    """Scores and values of one segment; the scores never leave the chip."""
    precision, resident = deployment.precision, step.resident(deployment.assumptions, [segment])
    context, pairs, kept = visibility.reads(segment)
    cached = segment.batch * kept * segment.own_share * heads.cached * precision.kv_element(kept, heads.size)
    sizes = {
        "batch": segment.batch,
        "heads": heads.queries,
        "kv_heads": heads.keys,
        "queries": segment.own_queries,
        "context": context,
        "pairs": pairs,
        "precision": precision,
    }
    name = f"{prefix}{segment.name}"
    scores = attention_scores(f"{name}scores", head_dim=heads.size, on_chip=resident or "o", cached=cached, **sizes)
    values = attention_values(
        f"{name}values", head_dim=heads.value_size, on_chip=resident or "i", cached=0.0 * cached, **sizes
    )
    if heads.shared_values:
        values = values.replace(weight=0.0 * values.weight)
    return scores, values


def _fused(name: str, kernel: str, apart: Sequence[tuple[Operator, Operator]], on_chip: str) -> Operator:
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
        kernel,
        flops=total(lambda scores, values: scores.flops + values.flops),
        input=total(lambda scores, values: scores.input),
        weight=total(lambda scores, values: scores.weight + values.weight),
        output=total(lambda scores, values: values.output),
        cached=total(lambda scores, values: scores.cached + values.cached),
        sizes=_sizes([scores.sizes for scores, _ in apart], prompt=kernel == "prefill_attention"),
    )


def _sizes(parts: Sequence[dict[str, Number]], prompt: bool) -> dict[str, Number]:
    """Sizes of one kernel for several segments: parts of the same sequences, or of prompts other prompts."""
    if len(parts) == 1:
        return parts[0]
    batch: Number = 0.0
    for part in parts:
        batch = batch + part["batch"] if prompt else xp.maximum(batch, part["batch"])
    each = xp.where(batch > 0, batch, 1.0)
    mean = {name: xp.total(part["batch"] * part[name] for part in parts) / each for name in ("queries", "context")}
    return parts[-1] | mean | {"batch": batch}


def over_positions(build: Build, segments: Sequence[Segment], step: Step, window: Number | None) -> list[Operator]:
    """Operators of attention, as the mean over all positions of a decode step.

    Between the positions at which a window is full (of all tokens, or of generated ones alone) work is linear in the
    position, so the first and the last position of each such range give the sum over all of them.

    Args:
        build: operators for segments at one position.
        segments: the parts of the context.
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
        full, none = xp.floor(window - prompt), xp.ceil(window)
        bounds = [(first, full), (full + 1.0, none - 1.0), (none, last)]
    ranges = []
    for start, end in bounds:
        start, end = xp.maximum(start, first), xp.minimum(end, last)
        inside = xp.maximum(end - start + 1.0, 0.0)
        ends = [build([part.at(xp.clip(g, first, last)) for part in segments]) for g in (start, end)]
        ranges.append((inside, *ends))
    return [
        _mean(tuple(PositionRange(inside / count, inside, low[i], high[i]) for inside, low, high in ranges))
        for i in range(len(ranges[0][1]))
    ]


_GROWING = ("flops", "input", "weight", "output", "cached")


def _mean(parts: tuple[PositionRange, ...]) -> Operator:
    """The operator whose work is the mean over all positions."""
    means: dict[str, Number] = {}
    for field in _GROWING:
        total: Number = 0.0
        for part in parts:
            total = total + part.share * (getattr(part.first, field) + getattr(part.last, field)) / 2.0
        means[field] = total
    return parts[-1].last.replace(**means, position_ranges=parts)
