"""Attention layers: MHA, GQA and MQA, of all tokens, of a window, or of those that an indexer selects."""

from typing import Any

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.specs import Attention, Indexer, LocalAttention, SparseAttention
from genz_jax.work.layers.context import combine_outputs
from genz_jax.work.layers.indexer import indexer, selected
from genz_jax.work.layers.kernel import Heads, attend, windowed
from genz_jax.work.layers.registry import layer
from genz_jax.work.layers.vector import pre_norm, with_parameters
from genz_jax.work.operators.collectives import all_reduce
from genz_jax.work.operators.elementwise import elementwise
from genz_jax.work.operators.operator import Operator
from genz_jax.work.operators.products import gemm
from genz_jax.work.step import Deployment, Step, ceil_div, shard


@layer(Attention, parameters="attention", sharded=("heads", "kv_heads"), role="mixer", preference=7)
def attention_layer(name: str, part: Attention, hidden: Number, step: Step, deployment: Deployment) -> list[Operator]:
    """Operators of one layer of attention to all tokens on one device."""
    return _attention(name, part, hidden, step, deployment)


@layer(LocalAttention, parameters="attention", sharded=("heads", "kv_heads"), role="mixer", preference=6)
def local_attention_layer(
    name: str, part: LocalAttention, hidden: Number, step: Step, deployment: Deployment
) -> list[Operator]:
    """Operators of one layer of attention to a window on one device."""
    return _attention(name, part, hidden, step, deployment, window=part.window)


@layer(SparseAttention, parameters="attention", sharded=("heads", "kv_heads"), role="mixer", preference=8)
def sparse_attention_layer(
    name: str, part: SparseAttention, hidden: Number, step: Step, deployment: Deployment
) -> list[Operator]:
    """Operators of one layer of attention to what an indexer selects on one device."""
    index = part.indexer if deployment.assumptions.sparse_attention else None
    return _attention(name, part, hidden, step, deployment, index=index)


def _attention(
    name: str,
    part: Attention,
    hidden: Number,
    step: Step,
    deployment: Deployment,
    window: Number | None = None,
    index: Indexer | None = None,
) -> list[Operator]:
    """Operators of one attention layer on one device.

    Heads are split over T = tp·ep ranks, ⌈H/T⌉ query and max(⌈Hkv/T⌉, 1) key-value heads each: past their number
    key-value heads are replicated. The output projection's partial sums are all-reduced over T.
    """
    precision, ranks, assumptions = deployment.precision, deployment.ranks, deployment.assumptions
    heads, kv_heads, size = shard(part.heads, ranks), shard(part.kv_heads, ranks), part.head_dim
    v_size = xp.where(part.v_head_dim > 0, part.v_head_dim, size)
    width = xp.where(part.input_size > 0, part.input_size, hidden)
    # Layers that read another's keys and values project and cache none; the mean of the layers counts.
    own = 1.0 - part.shared_kv_layers / xp.maximum(part.layers, 1.0)
    # Without a projection of their own, values are keys, and the cache still holds both (keys are rotated).
    projected = heads * size + own * kv_heads * (size + v_size * part.value_projection)
    gate = ceil_div(part.output_gate, ranks)
    on_chip = step.resident(assumptions)
    linear: dict[str, Any] = {"batch": step.sequences, "m": step.tokens, "precision": precision, "on_chip": on_chip}
    linear["layers"] = "attention"
    ops = pre_norm(name, step, width, deployment, part.norms)
    into = gemm(f"{name}.qkv_proj", "attention_projections", n=projected + gate, k=width, **linear)
    ops += [with_parameters(into, precision, part.biases, part.qk_norms)]
    cached = own * kv_heads * (size + v_size)
    vectors = heads + 2.0 * kv_heads
    ops += rotate_and_cache(name, step, heads * size, cached, cached, deployment, vectors)
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


def rotate_and_cache(
    name: str,
    step: Step,
    query: Number,
    rotated: Number,
    cached: Number,
    deployment: Deployment,
    vectors: Number = 0.0,
) -> list[Operator]:
    """Rotate queries and keys and write the new cache entries, as one kernel.

    Args:
        name: name of the layer.
        step: the forward pass.
        query: query elements per token.
        rotated: key (and value) elements per token that are read.
        cached: elements per token that go to the cache.
        deployment: spread, formats and physics.
        vectors: heads of queries, keys and values together.
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
    sizes = op.sizes | {"vectors": step.rows * vectors}
    return [op.replace(flops=flops, input=reads, output=writes, kernel="rotation", sizes=sizes)]
