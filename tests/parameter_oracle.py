"""Parameters of a model in closed form, to compare `gz.parameter_count` with."""

import numpy as np

from genz_jax.base.fields import Number
from genz_jax.counts.parameters import ParameterCount
from genz_jax.specs import (
    FFN,
    SSD,
    SSM,
    Attention,
    CompressedAttention,
    Compressor,
    DeltaNet,
    Indexer,
    LatentAttention,
    LinearAttention,
    Model,
    MoE,
    ShortConvolution,
    SparseAttention,
)
from genz_jax.work.prediction_module import prediction_module, there


def closed_form(spec: Model) -> ParameterCount:
    """Parameters of a model as sums of the shapes of its weights, written out kind by kind."""
    counts = _parts(spec)
    idle = counts.pop("idle")
    total = sum(counts.values())
    module = _parts(prediction_module(spec))
    mtp = sum(count for name, count in module.items() if name not in ("embedding", "idle"))
    counts |= {"total": total, "active": total - idle, "mtp": spec.mtp_layers * mtp}
    return ParameterCount(**{name: np.rint(value) for name, value in counts.items()})


def _parts(spec: Model) -> dict[str, Number]:
    """Parameters by what they are for, and the routed experts that a token does not take."""
    hidden = spec.hidden_size
    counts = _layers(spec)
    counts["embedding"] = spec.vocab_size * hidden
    counts["head"] = counts["embedding"] * (1.0 - spec.tied_embeddings) + spec.head_biases
    if spec.lm_head is not None:
        counts["head"] = counts["head"] * spec.lm_head
    if (own := spec.layer_embedding) is not None:
        counts["embedding"] = counts["embedding"] + own.layers * own.size * own.vocab_size
    counts["norms"] = counts["norms"] + spec.final_norms * hidden
    counts["other"] = spec.other_parameters
    for part in spec.projections:
        counts["other"] = counts["other"] + part.layers * part.input_size * part.output_size
    return counts


def _layers(model: Model) -> dict[str, Number]:
    """Parameters of all layers by what they are for, and the routed experts that a token does not take."""
    hidden = model.hidden_size
    attention: Number = 0.0
    for part in (model.attention, model.local_attention, model.sparse_attention):
        attention = attention + _attention(part, hidden)
    attention = attention + _latent_attention(model.latent_attention, hidden)
    attention = attention + _compressed_attention(model.compressed_attention, hidden)
    ssm = _ssm(model.ssm, hidden) + _ssd(model.ssd, hidden) + _delta_net(model.delta_net, hidden)
    ssm = ssm + _linear_attention(model.linear_attention, hidden)
    ssm = ssm + _short_convolution(model.short_convolution, hidden)
    experts, active, shared, router = _moe(model.moe, hidden)
    return {
        "attention": attention,
        "ssm": ssm,
        "ffn": _ffn(model.ffn, hidden) + shared,
        "experts": experts,
        "router": router,
        "norms": _norms(model),
        "idle": experts - active,
    }


def _where(given: Number, otherwise: Number) -> Number:
    """`given`, or `otherwise` where it is 0."""
    return np.where(given > 0, given, otherwise)


def _given(value: Number | None) -> Number:
    """The number, 0 where it is absent."""
    return 0.0 if value is None else value


def _attention(part: Attention | None, hidden: Number) -> Number:
    """Query, key, value, gate and output projections: d·h(H + Hkv) + d·v·Hkv + d·g + H·v·D, and indexers."""
    if part is None:
        return 0.0
    width, v_dim = _where(part.input_size, hidden), _where(part.v_head_dim, part.head_dim)
    keys = part.kv_heads * (part.head_dim + v_dim * part.value_projection)
    one = width * (part.heads * part.head_dim + keys + part.output_gate) + part.heads * v_dim * hidden + part.biases
    total = (part.layers - part.tied_layers) * one - part.shared_kv_layers * width * keys
    return total + (_indexer(part.indexer, hidden, width) if isinstance(part, SparseAttention) else 0.0)


def _indexer(part: Indexer | None, hidden: Number, query_in: Number) -> Number:
    """Queries from a width of their own, one key, and a weight per head (arXiv 2512.02556)."""
    if part is None:
        return 0.0
    keys = hidden * (part.head_dim + part.heads * part.head_weights)
    return part.layers * (part.heads * part.head_dim * query_in + keys)


def _latent_attention(part: LatentAttention | None, hidden: Number) -> Number:
    if part is None:
        return 0.0
    latent, rope, nope, value = part.kv_lora_rank, part.qk_rope_head_dim, part.qk_nope_head_dim, part.v_head_dim
    query_in = _where(part.q_lora_rank, hidden)
    one = hidden * part.q_lora_rank + query_in * part.heads * (nope + rope) + hidden * (latent + rope)
    one = one + latent * part.heads * (nope + value) + part.heads * value * hidden + part.biases
    one = one + hidden * _given(part.output_gate)
    return part.layers * one + _indexer(part.indexer, hidden, query_in)


def _compressed_attention(part: CompressedAttention | None, hidden: Number) -> Number:
    """Query latent, one key-value vector, the output in groups and together, and compressors."""
    if part is None:
        return 0.0
    wide = part.heads * part.head_dim
    one = hidden * part.q_lora_rank + part.q_lora_rank * wide + hidden * part.head_dim
    one = one + wide * part.output_rank + part.output_groups * part.output_rank * hidden + part.biases
    total = part.layers * one
    for compressor in (part.sparse, part.heavy):
        if compressor is not None:
            total = total + compressor.layers * _compressor(compressor, part.head_dim, hidden)
            if (index := compressor.indexer) is not None:
                # Its key has no projection of its own: it compresses as the layer does.
                query = part.q_lora_rank * index.heads * index.head_dim + hidden * index.heads * index.head_weights
                total = total + index.layers * (query + _compressor(compressor, index.head_dim, hidden))
    return total


def _compressor(part: Compressor, size: Number, hidden: Number) -> Number:
    """`series` vectors and gates of a token, and a bias for each of the places that become one entry."""
    return part.series * size * (2.0 * hidden + part.rate)


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
    """Gated delta net: q, k, v, gate, β and decay projections, convolution, decay rates and step size biases."""
    if part is None:
        return 0.0
    keys, values = part.key_heads * part.key_head_dim, part.value_heads * part.value_head_dim
    low, gate = _given(part.decay_rank), _given(part.gate_rank)
    # A decay per head, or through a latent one per channel of the keys; a step size bias for each.
    decay = _where(low * (hidden + keys), hidden * part.value_heads) + _where(there(low) * keys, part.value_heads)
    gates = _where(gate * (hidden + values), hidden * values)
    one = hidden * (2.0 * keys + values + part.value_heads) + decay + gates + part.value_heads
    return part.layers * (one + (2.0 * keys + values) * part.d_conv + values * hidden)


def _linear_attention(part: LinearAttention | None, hidden: Number) -> Number:
    """Lightning attention: query, key, value, gate and output projections."""
    return 0.0 if part is None else part.layers * 5.0 * hidden * part.heads * part.head_dim


def _short_convolution(part: ShortConvolution | None, hidden: Number) -> Number:
    """Projections to the input and its two gates, the convolution, and the output projection."""
    return 0.0 if part is None else part.layers * (part.channels * (4.0 * hidden + part.d_conv) + part.biases)


def _ffn(part: FFN | None, hidden: Number) -> Number:
    if part is None:
        return 0.0
    one = hidden * part.intermediate_size * (part.in_projections + 1.0) + part.biases
    return (part.layers - part.tied_layers) * one


def _moe(part: MoE | None, hidden: Number) -> tuple[Number, Number, Number, Number]:
    """Routed experts, those of them that a token takes, shared experts with latent projections, and routers."""
    if part is None:
        return 0.0, 0.0, 0.0, 0.0
    latent = 0.0 if part.latent is None else part.latent.size
    width, matrices = hidden if part.latent is None else _where(latent, hidden), part.in_projections + 1.0
    expert = width * part.intermediate_size * matrices + part.biases
    shared = part.shared_experts * part.shared_intermediate_size * hidden * matrices + 2.0 * hidden * latent
    router = part.experts * hidden + part.router_biases + part.shared_gate * hidden
    layers = part.layers
    return layers * part.experts * expert, layers * part.top_k * expert, layers * shared, layers * router


def _norms(model: Model) -> Number:
    """Norm vectors of model width before and after layers, and the smaller norms inside them."""
    hidden = model.hidden_size
    total: Number = 0.0
    for part in (model.attention, model.local_attention, model.sparse_attention):
        if part is not None:
            width = _where(part.input_size, hidden)
            total = total + (part.layers - part.tied_layers) * (part.norms * width + part.qk_norms)
            total = total + (_index_norms(part.indexer) if isinstance(part, SparseAttention) else 0.0)
    if (mla := model.latent_attention) is not None:
        total = total + mla.layers * (mla.norms * hidden + mla.q_lora_rank + mla.kv_lora_rank)
        total = total + _index_norms(mla.indexer)
    if (part := model.compressed_attention) is not None:
        total = total + part.layers * (part.norms * hidden + part.q_lora_rank + part.head_dim)
        for compressor in (part.sparse, part.heavy):
            if compressor is not None:
                total = total + compressor.layers * part.head_dim
                total = total + 0.5 * _index_norms(compressor.indexer)
    for part in (model.ssm, model.ssd, model.linear_attention):
        if part is not None:
            total = total + part.layers * (part.norms * hidden + part.inner_norms)
    if (short := model.short_convolution) is not None:
        total = total + short.layers * short.norms * hidden
    if (net := model.delta_net) is not None:
        total = total + net.layers * (net.norms * hidden + net.value_head_dim)
    if model.ffn is not None:
        total = total + (model.ffn.layers - model.ffn.tied_layers) * model.ffn.norms * hidden
    if (moe := model.moe) is not None:
        latent = 0.0 if moe.latent is None else moe.latent.size * moe.latent.norm
        total = total + moe.layers * (moe.norms * hidden + latent)
    return total


def _index_norms(part: Indexer | None) -> Number:
    """Scale and bias of the key's norm, or scales of both norms; in compressed attention half of it, a scale."""
    return 0.0 if part is None else part.layers * 2.0 * part.head_dim
