"""Compressed attention of DeepSeek-V4: a window of tokens, and one entry for every few of all tokens before."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.specs import CompressedAttention, Compressor, Indexer
from genz_jax.work.layers.attention import rotate_and_cache
from genz_jax.work.layers.context import combine_outputs
from genz_jax.work.layers.kernel import Heads, Visibility, attend, over_positions, windowed
from genz_jax.work.layers.registry import layer
from genz_jax.work.layers.vector import pre_norm, with_parameters
from genz_jax.work.operators.collectives import all_reduce
from genz_jax.work.operators.elementwise import elementwise
from genz_jax.work.operators.operator import Operator
from genz_jax.work.operators.products import attention_scores, gemm, grouped_gemm
from genz_jax.work.step import Deployment, Segment, Step, floor_div, shard


@layer(CompressedAttention, parameters="attention", sharded=("heads",), role="mixer", preference=9)
def compressed_attention_layer(
    name: str, part: CompressedAttention, hidden: Number, step: Step, deployment: Deployment
) -> list[Operator]:
    """Operators of one compressed attention layer (DeepSeek-V4) on one device, in the mean of all such layers.

    Queries come from a latent, one vector per token is key and value of all heads. Query heads and output groups are
    split over T = tp·ep; down projections, compressors and indexers are replicated, and so is the cache: `window`
    vectors, and one for every `rate` tokens in the layers that compress. The output goes from H·d to groups·rank to D.
    """
    precision, ranks = deployment.precision, deployment.ranks
    heads, size = shard(part.heads, ranks), part.head_dim
    on_chip = step.resident(deployment.assumptions)
    linear: dict[str, Any] = {"batch": step.sequences, "m": step.tokens, "precision": precision, "on_chip": on_chip}
    linear["layers"] = "attention"
    key = gemm(f"{name}.kv_proj", "attention_projections", n=size, k=hidden, **linear)
    ops = [
        *pre_norm(name, step, hidden, deployment, part.norms),
        gemm(f"{name}.q_down_proj", "attention_projections", n=part.q_lora_rank, k=hidden, **linear),
        gemm(f"{name}.q_up_proj", "attention_projections", n=heads * size, k=part.q_lora_rank, **linear),
        with_parameters(key, precision, part.biases, part.q_lora_rank + size),
        *rotate_and_cache(name, step, heads * size, size, size, deployment),
    ]
    key_values = Heads(heads, xp.ones_like(heads), size, size, size, size, shared_values=True)
    ops += attend(f"{name}.", key_values, windowed(part.window, deployment.assumptions), step, deployment)
    for kind, compressor in (("sparse", part.sparse), ("heavy", part.heavy)):
        if compressor is not None:
            share = compressor.layers / xp.maximum(part.layers, 1.0)
            added = _compressed(f"{name}.{kind}", compressor, part, key_values, hidden, step, deployment)
            ops += [op.times(share) for op in added]
    ops += combine_outputs(name, step, size, heads, deployment)
    # Ranks beyond the groups share one: each rank has 1/T of the weights whatever T is.
    groups = part.output_groups / ranks
    inner = part.heads * size / part.output_groups
    down: dict[str, Any] = {"groups": groups, "m": step.rows, "n": part.output_rank, "k": inner}
    down |= {"precision": precision, "layers": "attention"}
    ops += [
        grouped_gemm(f"{name}.out_down_proj", "attention_projections", **down),
        gemm(f"{name}.out_up_proj", "attention_projections", n=hidden, k=groups * part.output_rank, **linear),
        all_reduce(
            f"{name}.all_reduce",
            "attention_collectives",
            elements=step.rows * hidden,
            ranks=ranks,
            precision=precision,
        ),
    ]
    return ops


def _compressed(
    name: str,
    part: Compressor,
    attention: CompressedAttention,
    heads: Heads,
    hidden: Number,
    step: Step,
    deployment: Deployment,
) -> list[Operator]:
    """Operators of a layer that compresses: the entries of new tokens, and attention to the entries."""
    index = part.indexer if deployment.assumptions.sparse_attention else None
    ops = _compress(name, part, attention.head_dim, hidden, step, deployment)
    if index is not None:
        share = index.layers / xp.maximum(part.layers, 1.0)
        ops += [op.times(share) for op in _index(f"{name}_index", part, index, attention, hidden, step, deployment)]
    # Context parallel ranks pass entries, one for every `rate` tokens.
    heads = eqx.tree_at(lambda h: h.passed, heads, heads.passed / part.rate)
    ops += attend(f"{name}_", heads, entries(part, index, step, deployment), step, deployment)
    return ops


def _compress(
    name: str, part: Compressor, size: Number, hidden: Number, step: Step, deployment: Deployment
) -> list[Operator]:
    """Project every token to `series` vectors and as many gates; softmax over `rate` (or twice as many) tokens."""
    precision = deployment.precision
    columns = 2.0 * part.series * size
    project = gemm(
        f"{name}_compress_proj",
        "attention_projections",
        batch=step.sequences,
        m=step.tokens,
        n=columns,
        k=hidden,
        precision=precision,
        layers="attention",
    )
    ops = [with_parameters(project, precision, part.rate * part.series * size, size)]
    if deployment.assumptions.vector_operators:
        # 3 FLOPs per projected element: position bias, exponential, product. One vector of `rate` tokens is written.
        pool = elementwise(
            f"{name}_pool",
            elements=step.rows * columns,
            reads=1.0,
            writes=0.0,
            flops_per_element=3.0,
            precision=precision,
        )
        ops.append(pool.replace(output=step.rows / part.rate * size * precision.kv_cache))
    return ops


def _index(
    name: str,
    part: Compressor,
    index: Indexer,
    attention: CompressedAttention,
    hidden: Number,
    step: Step,
    deployment: Deployment,
) -> list[Operator]:
    """The indexer's own entries, its queries and head weights, and their scores against all entries."""
    precision = deployment.precision
    linear: dict[str, Any] = {"batch": step.sequences, "m": step.tokens, "precision": precision}
    linear["layers"] = "attention"
    ops = _compress(name, part, index.head_dim, hidden, step, deployment)
    ops += [
        gemm(
            f"{name}_q_proj", "attention_projections", n=index.heads * index.head_dim, k=attention.q_lora_rank, **linear
        ),
        gemm(f"{name}_weights", "attention_projections", n=index.heads * index.head_weights, k=hidden, **linear),
    ]
    every = entries(part, None, step, deployment)

    def score(segments: Sequence[Segment]) -> list[Operator]:
        found = []
        for segment in segments:
            context, pairs, kept = every.reads(segment)
            found.append(
                attention_scores(
                    f"{name}_{segment.name}scores",
                    batch=segment.batch,
                    heads=index.heads,
                    kv_heads=1.0,
                    queries=segment.own_queries,
                    context=context,
                    pairs=pairs,
                    head_dim=index.head_dim,
                    precision=precision,
                    cached=segment.batch * kept * segment.own_share * index.head_dim * precision.kv_cache,
                )
            )
        return found

    return ops + over_positions(score, step.segments, step, None)


def entries(part: Compressor, index: Indexer | None, step: Step, deployment: Deployment) -> Visibility:
    """Attention to compressed entries instead of tokens.

    A token at place j sees the ⌊j/m⌋ entries that are complete, at most top_k of them. A prompt's pairs are the sum of
    that over its places. A decode step counts context/m entries, the mean over its positions but for half an entry.
    """
    rate, causal = part.rate, deployment.assumptions.causal
    every: Number = 0.0
    for segment in step.segments:
        every = every + segment.context + segment.newer
    top_k = every if index is None else xp.where(index.top_k > 0, index.top_k, every)

    def reads(segment: Segment) -> tuple[Number, Number, Number]:
        split = 1.0 if segment.prompt else segment.parts
        if not segment.prefill:
            whole = segment.context / rate
            seen = xp.clip(top_k - segment.newer / rate, 0.0, whole) if causal else whole
            return seen / split, segment.queries * seen / split, whole / split
        whole = floor_div(segment.context, rate)
        pairs = segment.queries * whole
        if causal:
            past = segment.context - segment.queries
            pairs = _complete(segment.context, rate, top_k) - _complete(past, rate, top_k)
        return (whole + segment.reread(None) / rate) / split, pairs / segment.parts, whole / split

    return Visibility(None if index is None else top_k * rate, reads)


def _complete(tokens: Number, rate: Number, top_k: Number) -> Number:
    """Σ over places j = 1 … tokens of min(⌊j/m⌋, K), in closed form.

    With k = ⌊n/m⌋ the sum of ⌊j/m⌋ up to n is m·k(k − 1)/2 + k(n − m·k + 1); beyond place (K + 1)m − 1 each adds K.
    """
    short = xp.minimum(tokens, (top_k + 1.0) * rate - 1.0)
    full = floor_div(short, rate)
    return rate * full * (full - 1.0) / 2.0 + full * (short - rate * full + 1.0) + top_k * (tokens - short)
