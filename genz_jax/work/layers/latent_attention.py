"""Multi-head latent attention (MLA, arXiv 2405.04434)."""

from collections.abc import Sequence
from typing import Any

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.specs import LatentAttention
from genz_jax.specs.assumptions import Assumptions
from genz_jax.work.layers.attention import rotate_and_cache
from genz_jax.work.layers.context import combine_outputs
from genz_jax.work.layers.indexer import indexer, selected
from genz_jax.work.layers.kernel import Heads, Visibility, attend, over_positions, windowed
from genz_jax.work.layers.registry import layer
from genz_jax.work.layers.vector import pre_norm, with_parameters
from genz_jax.work.operators.collectives import all_reduce
from genz_jax.work.operators.operator import Operator
from genz_jax.work.operators.products import gemm, grouped_gemm
from genz_jax.work.step import Deployment, Segment, Step, ceil_div, shard


@layer(LatentAttention, parameters="attention", sharded=("heads",), role="mixer", preference=10)
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
    query_in = xp.where(part.q_lora_rank > 0, part.q_lora_rank, hidden)

    ops = pre_norm(name, step, hidden, deployment, part.norms)
    kv_down = gemm(f"{name}.kv_down_proj", "attention_projections", n=latent + rope, k=hidden, **linear)
    ops += [
        gemm(f"{name}.q_down_proj", "attention_projections", n=part.q_lora_rank, k=hidden, **linear),
        gemm(f"{name}.q_up_proj", "attention_projections", n=heads * (nope + rope), k=query_in, **linear),
        with_parameters(kv_down, precision, part.biases, part.q_lora_rank + latent),
    ]
    ops += rotate_and_cache(name, step, heads * rope, rope, latent + rope, deployment)
    if part.output_gate is not None:
        columns = ceil_div(part.output_gate, ranks)
        gate = gemm(f"{name}.output_gate", "attention_projections", n=columns, k=hidden, **linear)
        ops += [gate.times(xp.where(part.output_gate > 0, 1.0, 0.0))]
    seen, index_keys = windowed(None, assumptions), 0.0 * latent
    if part.indexer is not None and assumptions.sparse_attention:
        ops += indexer(name, part.indexer, part.layers, hidden, query_in, step, deployment)
        seen = selected(part.indexer, step, deployment)
        index_keys = part.indexer.head_dim * part.indexer.layers / xp.maximum(part.layers, 1.0)

    forms = [_is_naive(segment, assumptions) for segment in step.segments]
    naive = [segment for segment, expands in zip(step.segments, forms, strict=True) if expands]
    absorbed = [segment for segment, expands in zip(step.segments, forms, strict=True) if not expands]
    if naive:
        ops += _naive(name, part, heads, seen, index_keys, naive, linear, step, deployment)
        if not absorbed:
            ops += combine_outputs(name, step, value, heads, deployment)
    if absorbed:
        # The up projection is the same matrix in both forms, held once.
        stored = 0.0 * heads if naive else None
        ops += _absorbed(name, part, heads, seen, index_keys, absorbed, stored, step, deployment)
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


def _naive(
    name: str,
    part: LatentAttention,
    heads: Number,
    seen: Visibility,
    index_keys: Number,
    segments: Sequence[Segment],
    linear: dict[str, Any],
    step: Step,
    deployment: Deployment,
) -> list[Operator]:
    """Attention with expanded keys and values: the up projection of all latents that are read, then MHA."""
    latent, nope, value = part.kv_lora_rank, part.qk_nope_head_dim, part.v_head_dim
    size, cached = nope + part.qk_rope_head_dim, latent + part.qk_rope_head_dim

    def expand(segments: Sequence[Segment]) -> list[Operator]:
        rows: Number = 0.0
        for segment in segments:
            read = segment.seen(None, deployment.assumptions)[0] + segment.reread(None)
            rows = rows + segment.batch * read * segment.own_share
        up = linear | {"batch": 1.0, "m": rows}
        return [gemm(f"{name}.kv_up_proj", "attention_projections", n=heads * (nope + value), k=latent, **up)]

    expanded = Heads(heads, heads, size, value, cached, heads * (size + value) + index_keys)
    ops = over_positions(expand, segments, step, None)
    return ops + attend(f"{name}.", expanded, seen, step, deployment, segments)


def _absorbed(
    name: str,
    part: LatentAttention,
    heads: Number,
    seen: Visibility,
    index_keys: Number,
    segments: Sequence[Segment],
    stored: Number | None,
    step: Step,
    deployment: Deployment,
) -> list[Operator]:
    """Attention over the latents as MQA, between the products of queries and outputs with the up projections."""
    latent, cached = part.kv_lora_rank, part.kv_lora_rank + part.qk_rope_head_dim
    queries: Number = 0.0
    for segment in segments:
        if segment.grows != "newer":
            queries = queries + segment.batch * segment.queries
    up: dict[str, Any] = {"groups": heads, "m": queries, "precision": deployment.precision, "layers": "attention"}
    up["stored"] = stored
    shared = Heads(heads, xp.ones_like(heads), cached, latent, cached, cached + index_keys, shared_values=True)
    return [
        grouped_gemm(f"{name}.q_absorb", "attention_projections", n=latent, k=part.qk_nope_head_dim, **up),
        *attend(f"{name}.", shared, seen, step, deployment, segments),
        *combine_outputs(name, step, latent, heads, deployment),
        grouped_gemm(f"{name}.v_absorb", "attention_projections", n=part.v_head_dim, k=latent, **up),
    ]


def _is_naive(segment: Segment, assumptions: Assumptions) -> bool:
    """True if latent attention expands the keys and values of a part of the context."""
    return segment.prompt if assumptions.latent_form == "by stage" else assumptions.latent_form == "naive"
