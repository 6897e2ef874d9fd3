"""Parameters: how many a model has, by what they are for, in closed form."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from genz_jax import catalog
from genz_jax.fields import Number
from genz_jax.specs import FFN, SSD, SSM, Attention, DeltaNet, LatentAttention, Model, MoE


@dataclasses.dataclass(frozen=True)
class ParameterCount:
    """Parameters of a model, each field a count or an array of counts.

    Attributes:
        total: all parameters; a head that is tied to the embedding counts once.
        active: parameters that a token meets: the total without the routed experts that it does not take.
        attention: projections, biases, sinks and indexers of attention layers.
        ssm: state space and delta net layers.
        ffn: dense feed-forward layers and shared experts.
        experts: routed experts.
        router: routers and the gates of shared experts.
        embedding: input embedding.
        head: language model head, 0 where it is tied to the embedding.
        norms: all norms, those of queries and keys included.
        other: learned positions and what else has no field of its own.
    """

    total: Number
    active: Number
    attention: Number
    ssm: Number
    ffn: Number
    experts: Number
    router: Number
    embedding: Number
    head: Number
    norms: Number
    other: Number

    def __str__(self) -> str:
        def shown(value: Number) -> str:
            return f"{float(value):>22,.0f}" if np.ndim(value) == 0 else f"array of shape {np.shape(value)}"

        return "\n".join(f"{field.name:<12}{shown(getattr(self, field.name))}" for field in dataclasses.fields(self))


def parameter_count(model: str | Model) -> ParameterCount:
    """Count the parameters of a model.

    The counts are sums of the shapes of all weights, biases and norms, as PyTorch's `Module.parameters` gives them.
    They are exact for whole numbers up to 2^53.

    Args:
        model: name in the catalogue, or a model; its numbers may be arrays that broadcast together.

    Returns:
        The counts, NumPy float64 (JAX arrays under `jax.jit`).

    Raises:
        ValueError: an unknown name, or a model with axes.

    Example:
        `gz.parameter_count("mixtral-8x7b").active`
    """
    spec = catalog.model(model) if isinstance(model, str) else model
    for leaf in jax.tree.leaves(spec):
        if not hasattr(leaf, "dtype"):
            raise ValueError(f"model {spec.name!r} has the axis {leaf!r}: parameter_count takes numbers and arrays")
    hidden = spec.hidden_size
    attention = _attention(spec.attention, hidden) + _attention(spec.local_attention, hidden)
    attention = attention + _latent_attention(spec.latent_attention, hidden)
    ssm = _ssm(spec.ssm, hidden) + _ssd(spec.ssd, hidden) + _delta_net(spec.delta_net, hidden)
    dense = _ffn(spec.ffn, hidden)
    experts, active_experts, shared, router = _moe(spec.moe, hidden)
    embedding = spec.vocab_size * hidden
    head = embedding * (1.0 - spec.tied_embeddings) + spec.head_biases
    norms = _norms(spec)
    other = spec.other_parameters
    rest = attention + ssm + dense + shared + router + embedding + head + norms + other
    return ParameterCount(
        total=rest + experts,
        active=rest + active_experts,
        attention=attention,
        ssm=ssm,
        ffn=dense + shared,
        experts=experts,
        router=router,
        embedding=embedding,
        head=head,
        norms=norms,
        other=other,
    )


def _where(given: Number, otherwise: Number) -> Number:
    """`given`, or `otherwise` where it is 0."""
    if any(isinstance(x, jax.Array) for x in (given, otherwise)):
        return jnp.where(given > 0, given, otherwise)
    return np.where(given > 0, given, otherwise)


def _attention(part: Attention | None, hidden: Number) -> Number:
    """Query, key, value, gate and output projections: d·h(H + Hkv) + d·v·Hkv + d·g + H·v·D."""
    if part is None:
        return 0.0
    width, v_dim = _where(part.input_size, hidden), _where(part.v_head_dim, part.head_dim)
    into = part.head_dim * (part.heads + part.kv_heads) + v_dim * part.kv_heads * part.value_projection
    one = width * (into + part.output_gate) + part.heads * v_dim * hidden + part.biases
    return (part.layers - part.tied_layers) * one


def _latent_attention(part: LatentAttention | None, hidden: Number) -> Number:
    if part is None:
        return 0.0
    latent, rope, nope, value = part.kv_lora_rank, part.qk_rope_head_dim, part.qk_nope_head_dim, part.v_head_dim
    query_in = _where(part.q_lora_rank, hidden)
    one = hidden * part.q_lora_rank + query_in * part.heads * (nope + rope) + hidden * (latent + rope)
    one = one + latent * part.heads * (nope + value) + part.heads * value * hidden + part.biases
    # The indexer: queries from the query latent, one key, a weight per head (arXiv 2512.02556).
    index = part.index_heads * part.index_head_dim * query_in + hidden * (part.index_head_dim + part.index_heads)
    return part.layers * one + part.index_layers * index


def _ssm(part: SSM | None, hidden: Number) -> Number:
    """Mamba-1: projections, convolution, state matrix A of d_inner·d_state, and skip vector D."""
    if part is None:
        return 0.0
    inner, small = part.d_inner, part.dt_rank + 2.0 * part.d_state
    one = 3.0 * hidden * inner + inner * (part.d_conv + small + part.dt_rank + part.d_state + 1.0) + part.biases
    return part.layers * one


def _ssd(part: SSD | None, hidden: Number) -> Number:
    """Mamba-2: projections, convolution, and per head a decay, a skip factor and a step size bias."""
    if part is None:
        return 0.0
    inner, shared = part.heads * part.head_dim, 2.0 * part.groups * part.d_state
    one = hidden * (2.0 * inner + shared + part.heads) + (inner + shared) * part.d_conv + inner * hidden
    return part.layers * (one + 3.0 * part.heads + part.biases)


def _delta_net(part: DeltaNet | None, hidden: Number) -> Number:
    """Gated delta net: q, k, v, gate, β and decay projections, convolution, and two vectors over the heads."""
    if part is None:
        return 0.0
    keys, values = part.key_heads * part.key_head_dim, part.value_heads * part.value_head_dim
    one = hidden * (2.0 * keys + 2.0 * values + 2.0 * part.value_heads) + (2.0 * keys + values) * part.d_conv
    return part.layers * (one + 2.0 * part.value_heads + values * hidden)


def _ffn(part: FFN | None, hidden: Number) -> Number:
    if part is None:
        return 0.0
    one = hidden * part.intermediate_size * (part.in_projections + 1.0) + part.biases
    return (part.layers - part.tied_layers) * one


def _moe(part: MoE | None, hidden: Number) -> tuple[Number, Number, Number, Number]:
    """Routed experts, those of them that a token takes, shared experts, and routers with gates."""
    if part is None:
        return 0.0, 0.0, 0.0, 0.0
    width, matrices = _where(part.latent_size, hidden), part.in_projections + 1.0
    expert = width * part.intermediate_size * matrices + part.biases
    latent = 2.0 * hidden * part.latent_size
    shared = part.shared_experts * part.shared_intermediate_size * hidden * matrices
    router = part.experts * hidden + part.router_biases + part.shared_gate * hidden
    layers = part.layers
    return layers * part.experts * expert, layers * part.top_k * expert, layers * (shared + latent), layers * router


def _norms(model: Model) -> Number:
    """Norm vectors of model width before and after layers, and the smaller norms inside them."""
    hidden, total = model.hidden_size, model.final_norms * model.hidden_size
    for part in (model.attention, model.local_attention):
        if part is not None:
            width = _where(part.input_size, hidden)
            total = total + (part.layers - part.tied_layers) * (part.norms * width + part.qk_norms)
    if (mla := model.latent_attention) is not None:
        total = total + mla.layers * (mla.norms * hidden + mla.q_lora_rank + mla.kv_lora_rank)
        total = total + mla.index_layers * 2.0 * mla.index_head_dim
    for part in (model.ssm, model.ssd):
        if part is not None:
            total = total + part.layers * (part.norms * hidden + part.inner_norms)
    if (net := model.delta_net) is not None:
        total = total + net.layers * (net.norms * hidden + net.value_head_dim)
    if model.ffn is not None:
        total = total + (model.ffn.layers - model.ffn.tied_layers) * model.ffn.norms * hidden
    if model.moe is not None:
        total = total + model.moe.layers * model.moe.norms * hidden
    return total
