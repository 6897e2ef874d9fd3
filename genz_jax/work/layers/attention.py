"""Attention layers: MHA, GQA and MQA with or without a window, and multi-head latent attention."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from genz_jax.base.fields import Number
from genz_jax.specs import Attention, LatentAttention, LocalAttention, SparseAttention
from genz_jax.specs.assumptions import Assumptions
from genz_jax.work.layers.context import combine_outputs
from genz_jax.work.layers.indexer import indexer, selected
from genz_jax.work.layers.kernel import Heads, attend, over_positions, windowed
from genz_jax.work.layers.vector import holding, pre_norm
from genz_jax.work.operators.collectives import all_reduce
from genz_jax.work.operators.elementwise import elementwise
from genz_jax.work.operators.operator import Operator
from genz_jax.work.operators.products import gemm, grouped_gemm
from genz_jax.work.step import Deployment, Segment, Step, ceil_div, shard


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
    gate = ceil_div(part.output_gate, ranks)
    on_chip = step.resident(assumptions)
    window = part.window if isinstance(part, LocalAttention) else None
    index = part.indexer if isinstance(part, SparseAttention) and assumptions.sparse_attention else None
    linear: dict[str, Any] = {"batch": step.sequences, "m": step.tokens, "precision": precision, "on_chip": on_chip}
    linear["layers"] = "attention"
    ops = pre_norm(name, step, width, deployment, part.norms)
    into = gemm(f"{name}.qkv_proj", "attention_projections", n=projected + gate, k=width, **linear)
    ops += [holding(into, precision, part.biases, part.qk_norms)]
    cached = own * kv_heads * (size + v_size)
    ops += rotate_and_cache(name, step, heads * size, cached, cached, deployment)
    if index is not None:
        ops += indexer(name, index, part.layers, hidden, width, step, deployment)
    seen = windowed(window, assumptions) if index is None else selected(index, step, deployment)
    ops += attend(f"{name}.", Heads(heads, kv_heads, size, v_size, cached, cached), seen, step, deployment)
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
    elements per token, on every rank. Two forms give the same result:

    - naive: keys and values of all that is seen are expanded from the latents, for heads of size nope + rope and v;
    - absorbed: queries and outputs are multiplied with the up projections instead, so that attention is MQA over the
      latent, which is read once for scores and values.

    Context parallel ranks pass expanded keys and values in the naive form, so that each token's are expanded once, and
    latents in the absorbed one. With `Assumptions.latent_form` "by stage" a prompt takes the naive form, which has the
    smaller heads, and decode and verification the absorbed one, which expands nothing, as engines do.
    """
    precision, ranks, assumptions = deployment.precision, deployment.ranks, deployment.assumptions
    heads = shard(part.heads, ranks)
    latent, rope, nope, value = part.kv_lora_rank, part.qk_rope_head_dim, part.qk_nope_head_dim, part.v_head_dim
    linear: dict[str, Any] = {"batch": step.sequences, "m": step.tokens, "precision": precision}
    linear |= {"on_chip": step.resident(assumptions), "layers": "attention"}
    query_in = jnp.where(part.q_lora_rank > 0, part.q_lora_rank, hidden)

    ops = pre_norm(name, step, hidden, deployment, part.norms)
    kv_down = gemm(f"{name}.kv_down_proj", "attention_projections", n=latent + rope, k=hidden, **linear)
    ops += [
        gemm(f"{name}.q_down_proj", "attention_projections", n=part.q_lora_rank, k=hidden, **linear),
        gemm(f"{name}.q_up_proj", "attention_projections", n=heads * (nope + rope), k=query_in, **linear),
        holding(kv_down, precision, part.biases, part.q_lora_rank + latent),
    ]
    ops += rotate_and_cache(name, step, heads * rope, rope, latent + rope, deployment)
    if part.output_gate is not None:
        columns = ceil_div(part.output_gate, ranks)
        gate = gemm(f"{name}.output_gate", "attention_projections", n=columns, k=hidden, **linear)
        ops += [gate.times(jnp.where(part.output_gate > 0, 1.0, 0.0))]
    seen, cached, index_keys = windowed(None, assumptions), latent + rope, 0.0 * latent
    if part.indexer is not None and assumptions.sparse_attention:
        ops += indexer(name, part.indexer, part.layers, hidden, query_in, step, deployment)
        seen = selected(part.indexer, step, deployment)
        index_keys = part.indexer.head_dim * part.indexer.layers / jnp.maximum(part.layers, 1.0)

    forms = [_is_naive(segment, assumptions) for segment in step.segments]
    naive = [segment for segment, expands in zip(step.segments, forms, strict=True) if expands]
    absorbed = [segment for segment, expands in zip(step.segments, forms, strict=True) if not expands]
    if naive:

        def expand(segments: Sequence[Segment]) -> list[Operator]:
            rows: Number = 0.0
            for segment in segments:
                read = segment.seen(None, assumptions)[0] + segment.reread(None)
                rows = rows + segment.batch * read * segment.own_share
            up = linear | {"batch": 1.0, "m": rows}
            return [gemm(f"{name}.kv_up_proj", "attention_projections", n=heads * (nope + value), k=latent, **up)]

        expanded = Heads(heads, heads, nope + rope, value, cached, heads * (nope + rope + value) + index_keys)
        ops += over_positions(expand, naive, step, None)
        ops += attend(f"{name}.", expanded, seen, step, deployment, naive)
        if not absorbed:
            ops += combine_outputs(name, step, value, heads, deployment)
    if absorbed:
        queries: Number = 0.0
        for segment in absorbed:
            if segment.grows != "newer":
                queries = queries + segment.batch * segment.queries
        up: dict[str, Any] = {"groups": heads, "m": queries, "precision": precision, "layers": "attention"}
        if naive:  # the up projection is the same matrix in both forms, held once
            up["stored"] = 0.0 * heads
        shared = Heads(heads, jnp.ones_like(heads), latent + rope, latent, cached, cached + index_keys, True)
        ops += [
            grouped_gemm(f"{name}.q_absorb", "attention_projections", n=latent, k=nope, **up),
            *attend(f"{name}.", shared, seen, step, deployment, absorbed),
            *combine_outputs(name, step, latent, heads, deployment),
            grouped_gemm(f"{name}.v_absorb", "attention_projections", n=value, k=latent, **up),
        ]
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


def _is_naive(segment: Segment, assumptions: Assumptions) -> bool:
    """True if latent attention expands the keys and values of a stretch of context."""
    return segment.prompt if assumptions.latent_form == "by stage" else assumptions.latent_form == "naive"


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
    cached = 0.0 if step.mode == "encode" else cached
    reads = step.rows * (query + rotated) * precision.activations * float(assumptions.vector_operators)
    writes = step.rows * query * precision.activations * float(assumptions.vector_operators)
    writes = writes + step.rows * cached * precision.kv_cache * float(assumptions.kv_cache_writes)
    flops = 3.0 * step.rows * (query + rotated) * float(assumptions.vector_operators)
    return [eqx.tree_at(lambda o: (o.flops, o.input, o.output), op, (flops, reads, writes))]
