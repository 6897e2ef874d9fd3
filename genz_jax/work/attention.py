"""Attention layers: MHA, GQA and MQA with or without a window, and multi-head latent attention."""

import equinox as eqx
import jax.numpy as jnp

from genz_jax.fields import Number
from genz_jax.specs import Attention, LatentAttention, LocalAttention, SparseAttention
from genz_jax.work.indexer import indexer, selected
from genz_jax.work.operators import (
    Operator,
    all_reduce,
    attention_scores,
    attention_values,
    elementwise,
    gemm,
    grouped_gemm,
)
from genz_jax.work.step import Deployment, Segment, Step, shard
from genz_jax.work.vector import holding, pre_norm


def attention_layer(name: str, part: Attention, hidden: Number, step: Step, deployment: Deployment) -> list[Operator]:
    """Operators of one attention layer on one device.

    Heads are split over T = tp·ep ranks, ⌈H/T⌉ query and max(⌈Hkv/T⌉, 1) key-value heads each: past their number
    key-value heads are replicated. The output projection's partial sums are all-reduced over T.
    """
    precision, ranks, assumptions = deployment.precision, deployment.ranks, deployment.assumptions
    heads, kv_heads, size = shard(part.heads, ranks), shard(part.kv_heads, ranks), part.head_dim
    v_size = jnp.where(part.v_head_dim > 0, part.v_head_dim, size)
    width = jnp.where(part.input_size > 0, part.input_size, hidden)
    # Layers that read another's keys and values project and cache none; the mean of the layers counts.
    own = 1.0 - part.shared_kv_layers / jnp.maximum(part.layers, 1.0)
    # Without a projection of their own, values are keys, and the cache still holds both (keys are rotated).
    projected = heads * size + own * kv_heads * (size + v_size * part.value_projection)
    gate = jnp.where(part.output_gate > 0, shard(part.output_gate, ranks), 0.0)
    vectors = part.qk_norms + part.biases
    on_chip = "" if step.mode == "prefill" else step.resident(assumptions)
    window = part.window if isinstance(part, LocalAttention) else None
    index = part.indexer if isinstance(part, SparseAttention) and assumptions.sparse_attention else None
    linear = {"batch": step.sequences, "m": step.tokens, "precision": precision, "on_chip": on_chip}
    ops = pre_norm(name, step, width, deployment, part.norms)
    into = gemm(f"{name}.qkv_proj", "attention_projections", n=projected + gate, k=width, **linear)
    ops += [holding(into, vectors, precision)]
    cached = own * kv_heads * (size + v_size)
    ops += rotate_and_cache(name, step, heads * size, cached, cached, deployment)
    if index is not None:
        ops += indexer(name, index, part.layers, hidden, width, step, deployment)
    for segment in step.segments:
        whole, pairs = segment.seen(window, assumptions)
        context = whole
        if index is not None:
            context, pairs = selected(index, segment, deployment)
        sizes = {
            "batch": segment.batch,
            "heads": heads,
            "kv_heads": kv_heads,
            "queries": segment.queries,
            "context": context,
            "pairs": pairs,
            "precision": precision,
        }
        kept = whole if window is None or not assumptions.causal else jnp.minimum(whole, window)
        held = segment.batch * own * kv_heads * kept * precision.kv_cache
        scores_on_chip, values_on_chip = residency(segment, step, deployment)
        ops += [
            attention_scores(
                f"{name}.{segment.name}scores", on_chip=scores_on_chip, head_dim=size, cached=held * size, **sizes
            ),
            attention_values(
                f"{name}.{segment.name}values", on_chip=values_on_chip, head_dim=v_size, cached=held * v_size, **sizes
            ),
        ]
    ops += [
        gemm(f"{name}.out_proj", "attention_projections", n=hidden, k=heads * v_size, **linear),
        all_reduce(
            f"{name}.all_reduce",
            "attention_collectives",
            elements=step.rows * hidden,
            ranks=ranks,
            precision=precision,
        ),
    ]
    return ops


def latent_attention_layer(
    name: str, part: LatentAttention, hidden: Number, step: Step, deployment: Deployment
) -> list[Operator]:
    """Operators of one multi-head latent attention layer (MLA, arXiv 2405.04434) on one device.

    Down projections are replicated, heads are split over T = tp·ep. The cache holds kv_lora_rank + qk_rope_head_dim
    elements per token, on every rank. Prefill expands keys and values (the naive form): heads of size nope + rope and
    v. Decode multiplies queries and outputs with the up projections instead (the absorbed form), so that attention is
    MQA over the latent, which is read once for scores and values.
    """
    precision, ranks, assumptions = deployment.precision, deployment.ranks, deployment.assumptions
    heads = shard(part.heads, ranks)
    latent, rope, nope, value = part.kv_lora_rank, part.qk_rope_head_dim, part.qk_nope_head_dim, part.v_head_dim
    on_chip = "" if step.mode == "prefill" else step.resident(assumptions)
    linear = {"batch": step.sequences, "m": step.tokens, "precision": precision, "on_chip": on_chip}
    query_in = jnp.where(part.q_lora_rank > 0, part.q_lora_rank, hidden)

    ops = pre_norm(name, step, hidden, deployment, part.norms)
    small = part.q_lora_rank + latent + part.biases
    ops += [
        gemm(f"{name}.q_down_proj", "attention_projections", n=part.q_lora_rank, k=hidden, **linear),
        gemm(f"{name}.q_up_proj", "attention_projections", n=heads * (nope + rope), k=query_in, **linear),
        holding(
            gemm(f"{name}.kv_down_proj", "attention_projections", n=latent + rope, k=hidden, **linear), small, precision
        ),
    ]
    ops += rotate_and_cache(name, step, heads * rope, rope, latent + rope, deployment)
    absorbed = step.mode != "prefill"
    up = {"groups": heads, "m": step.rows, "precision": precision}
    if absorbed:
        ops += [grouped_gemm(f"{name}.q_absorb", "attention_projections", n=latent, k=nope, **up)]
    else:
        ops += [gemm(f"{name}.kv_up_proj", "attention_projections", n=heads * (nope + value), k=latent, **linear)]
    if part.output_gate is not None:
        gate = gemm(
            f"{name}.output_gate", "attention_projections", n=shard(part.output_gate, ranks), k=hidden, **linear
        )
        ops += [gate.times(jnp.where(part.output_gate > 0, 1.0, 0.0))]
    index = part.indexer if assumptions.sparse_attention else None
    if index is not None:
        ops += indexer(name, index, part.layers, hidden, query_in, step, deployment)
    for segment in step.segments:
        whole, pairs = segment.seen(None, assumptions)
        context = whole
        if index is not None:
            context, pairs = selected(index, segment, deployment)
        sizes = {
            "batch": segment.batch,
            "heads": heads,
            "kv_heads": 1.0 if absorbed else heads,
            "queries": segment.queries,
            "context": context,
            "pairs": pairs,
            "precision": precision,
        }
        scores_on_chip, values_on_chip = residency(segment, step, deployment)
        cached = segment.batch * whole * (latent + rope) * precision.kv_cache
        scores = attention_scores(
            f"{name}.{segment.name}scores",
            head_dim=latent + rope if absorbed else nope + rope,
            on_chip=scores_on_chip,
            cached=cached,
            **sizes,
        )
        values = attention_values(
            f"{name}.{segment.name}values",
            head_dim=latent if absorbed else value,
            on_chip=values_on_chip,
            cached=0.0,
            **sizes,
        )
        # The absorbed kernel takes its values from the latent that it has just read as keys.
        ops += [scores, eqx.tree_at(lambda op: op.weight, values, 0.0 * values.weight) if absorbed else values]
    if absorbed:
        ops += [grouped_gemm(f"{name}.v_absorb", "attention_projections", n=value, k=latent, **up)]
    ops += [
        gemm(f"{name}.out_proj", "attention_projections", n=hidden, k=heads * value, **linear),
        all_reduce(
            f"{name}.all_reduce",
            "attention_collectives",
            elements=step.rows * hidden,
            ranks=ranks,
            precision=precision,
        ),
    ]
    return ops


def residency(segment: Segment, step: Step, deployment: Deployment) -> tuple[str, str]:
    """Tensors of scores and values on chip: the scores always, decode's queries and outputs where assumed."""
    resident = "" if segment.prefill else step.resident(deployment.assumptions)
    return (resident, resident) if resident else ("o", "i")


def rotate_and_cache(
    name: str, step: Step, query: Number, rotated: Number, cached: Number, deployment: Deployment
) -> list[Operator]:
    """Rotate queries and keys and write the new cache entries, as one kernel.

    Args:
        name: name of the layer.
        step: the forward pass.
        query: query elements per token.
        rotated: key (and value) elements per token that are read.
        cached: elements per token that go to the cache.
        deployment: spread, formats and physics.
    """
    assumptions, precision = deployment.assumptions, deployment.precision
    if not (assumptions.vector_operators or assumptions.kv_cache_writes):
        return []
    op = elementwise(
        f"{name}.rope_and_cache", elements=step.rows, reads=0.0, writes=0.0, flops_per_element=0.0, precision=precision
    )
    reads = step.rows * (query + rotated) * precision.activations * float(assumptions.vector_operators)
    writes = step.rows * query * precision.activations * float(assumptions.vector_operators)
    writes = writes + step.rows * cached * precision.kv_cache * float(assumptions.kv_cache_writes)
    flops = 3.0 * step.rows * (query + rotated) * float(assumptions.vector_operators)
    return [eqx.tree_at(lambda o: (o.flops, o.input, o.output), op, (flops, reads, writes))]
