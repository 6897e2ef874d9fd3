"""Attention layers: MHA, GQA and MQA with or without a window, and multi-head latent attention."""

import equinox as eqx
import jax.numpy as jnp

from genz_jax.fields import Number
from genz_jax.specs import Attention, LatentAttention, LocalAttention
from genz_jax.work.context import combine_outputs, pass_keys
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
    # Without a projection of their own, values are keys, and the cache still holds both (keys are rotated).
    projected = heads * size + kv_heads * (size + v_size * part.value_projection)
    gate = jnp.where(part.output_gate > 0, shard(part.output_gate, ranks), 0.0)
    vectors = part.qk_norms + part.biases
    on_chip = "" if step.mode == "prefill" else step.resident(assumptions)
    window = part.window if isinstance(part, LocalAttention) else None
    linear = {"batch": step.sequences, "m": step.tokens, "precision": precision, "on_chip": on_chip}
    ops = pre_norm(name, step, width, deployment, part.norms)
    into = gemm(f"{name}.qkv_proj", "attention_projections", n=projected + gate, k=width, **linear)
    ops += [holding(into, vectors, precision)]
    cached = kv_heads * (size + v_size)
    ops += _rotate_and_cache(name, step, heads * size, cached, cached, deployment)
    for segment in step.segments:
        context, pairs = segment.seen(window, assumptions)
        sizes = {
            "batch": segment.batch,
            "heads": heads,
            "kv_heads": kv_heads,
            "queries": segment.own_queries,
            "context": context,
            "pairs": pairs,
            "precision": precision,
        }
        kept = context if window is None or not assumptions.causal else jnp.minimum(context, window)
        held = segment.batch * kv_heads * kept * segment.own_share * precision.kv_cache
        scores_on_chip, values_on_chip = _residency(segment, step, deployment)
        ops += [
            attention_scores(
                f"{name}.{segment.name}scores", on_chip=scores_on_chip, head_dim=size, cached=held * size, **sizes
            ),
            attention_values(
                f"{name}.{segment.name}values", on_chip=values_on_chip, head_dim=v_size, cached=held * v_size, **sizes
            ),
        ]
        ops += pass_keys(name, segment, cached, window, (ops[-2].name, ops[-1].name), deployment)
    ops += combine_outputs(name, step, v_size, heads, deployment)
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
    MQA over the latent, which is read once for scores and values. Context parallel ranks pass expanded keys and values
    in prefill, so that each token's are expanded once, and latents where the absorbed form reads them.
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
    ops += _rotate_and_cache(name, step, heads * rope, rope, latent + rope, deployment)
    absorbed = step.mode != "prefill"
    up = {"groups": heads, "m": step.rows, "precision": precision}
    if absorbed:
        ops += [grouped_gemm(f"{name}.q_absorb", "attention_projections", n=latent, k=nope, **up)]
    else:
        ops += [gemm(f"{name}.kv_up_proj", "attention_projections", n=heads * (nope + value), k=latent, **linear)]
    if assumptions.sparse_attention:
        ops += _indexer(name, part, hidden, query_in, step, deployment)
    for segment in step.segments:
        whole, pairs = segment.seen(None, assumptions)
        context = whole
        if assumptions.sparse_attention:
            # A query sees as many tokens as in a window of that length; together the queries of a prompt see them all.
            selected = jnp.where(part.index_top_k > 0, part.index_top_k, segment.context + segment.newer)
            seen, pairs = segment.seen(selected, assumptions)
            context = whole if segment.prefill else seen
        sizes = {
            "batch": segment.batch,
            "heads": heads,
            "kv_heads": 1.0 if absorbed else heads,
            "queries": segment.own_queries,
            "context": context,
            "pairs": pairs,
            "precision": precision,
        }
        scores_on_chip, values_on_chip = _residency(segment, step, deployment)
        cached = segment.batch * whole * segment.own_share * (latent + rope) * precision.kv_cache
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
        sent = latent + rope if absorbed else heads * (nope + rope + value)
        if assumptions.sparse_attention:
            sent = sent + part.index_head_dim * part.index_layers / jnp.maximum(part.layers, 1.0)
        ops += pass_keys(name, segment, sent, None, (scores.name, values.name), deployment)
    ops += combine_outputs(name, step, latent if absorbed else value, heads, deployment)
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


def _indexer(
    name: str, part: LatentAttention, hidden: Number, query_in: Number, step: Step, deployment: Deployment
) -> list[Operator]:
    """Operators of the indexer of DeepSeek sparse attention (arXiv 2512.02556), which every rank has whole.

    Queries of `index_heads` heads from the query latent, one key per token and a weight per head, and the scores of
    all pairs; the keys have a cache of their own. Only `index_layers` of the layers have one, the others share it.
    """
    precision, assumptions = deployment.precision, deployment.assumptions
    heads, size = part.index_heads, part.index_head_dim
    linear = {"batch": step.sequences, "m": step.tokens, "precision": precision}
    key = gemm(f"{name}.index_k_proj", "attention_projections", n=size + heads, k=hidden, **linear)
    ops = [
        gemm(f"{name}.index_q_proj", "attention_projections", n=heads * size, k=query_in, **linear),
        holding(key, 2.0 * size, precision),
    ]
    for segment in step.segments:
        context, pairs = segment.seen(None, assumptions)
        ops.append(
            attention_scores(
                f"{name}.{segment.name}index_scores",
                batch=segment.batch,
                heads=heads,
                kv_heads=1.0,
                queries=segment.own_queries,
                context=context,
                pairs=pairs,
                head_dim=size,
                precision=precision,
                cached=segment.batch * context * segment.own_share * size * precision.kv_cache,
            )
        )
    share = part.index_layers / jnp.maximum(part.layers, 1.0)
    return [op.times(share) for op in ops]


def _residency(segment: Segment, step: Step, deployment: Deployment) -> tuple[str, str]:
    """Tensors of scores and values on chip: the scores always, decode's queries and outputs where assumed."""
    resident = "" if segment.prefill else step.resident(deployment.assumptions)
    return (resident, resident) if resident else ("o", "i")


def _rotate_and_cache(
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
