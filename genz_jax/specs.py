"""Specs: what is to be served, on what, how. Immutable pytrees in which every number is an array leaf.

A number may be given as a Python or NumPy number, a JAX array or tracer, text with units ("3.35 TB/s"), an `Axis`, or
an `xarray.DataArray`. Text is converted to base units and values are checked when a spec is made.
"""

import os
from typing import Any

import equinox as eqx

from genz_jax import units
from genz_jax.fields import (
    COUNT,
    FRACTION,
    NOT_NEGATIVE,
    SHARE,
    WHOLE,
    Label,
    Number,
    Rule,
    Spec,
    near,
    number,
)

# ---------------------------------------------------------------------------------------------------------- model


class Attention(Spec):
    """Attention layers of one kind: MHA (kv_heads = heads), GQA, or MQA (kv_heads = 1)."""

    layers: Number = number(units.ONE, "layers of this kind", rule=COUNT)
    heads: Number = number(units.ONE, "query heads", rule=WHOLE)
    kv_heads: Number = number(units.ONE, "key and value heads", rule=WHOLE)
    head_dim: Number = number(units.ONE, "size of one head of queries and keys", rule=WHOLE)
    v_head_dim: Number = number(
        units.ONE, "size of one head of values, 0 for that of keys", 0, rule=COUNT, keyword=True
    )
    value_projection: Number = number(
        units.ONE, "1 with a projection of values, 0 if keys are the values", 1, rule=SHARE, keyword=True
    )
    output_gate: Number = number(
        units.ONE, "columns of the gate on the output, 0 for none", 0, rule=COUNT, keyword=True
    )
    input_size: Number = number(units.ONE, "width of the input, 0 for the model's", 0, rule=COUNT, keyword=True)
    norms: Number = number(units.ONE, "norm vectors of model width", 1, rule=COUNT, keyword=True)
    qk_norms: Number = number(units.ONE, "elements of the norms of queries and keys", 0, rule=COUNT, keyword=True)
    biases: Number = number(units.ONE, "elements of biases and attention sinks", 0, rule=COUNT, keyword=True)
    tied_layers: Number = number(units.ONE, "layers that share the weights of another", 0, rule=COUNT, keyword=True)


class LocalAttention(Attention):
    """Attention layers that see a sliding window, or the chunk of that length that they are in."""

    window: Number = number(units.TOKEN, "tokens that a query sees at most", 4096, rule=WHOLE)


class LatentAttention(Spec):
    """Multi-head latent attention (MLA, arXiv 2405.04434): keys and values are projections of one cached latent."""

    layers: Number = number(units.ONE, "layers of this kind", rule=COUNT)
    heads: Number = number(units.ONE, "query heads", rule=WHOLE)
    q_lora_rank: Number = number(units.ONE, "rank of the query latent, 0 for a full projection", rule=COUNT)
    kv_lora_rank: Number = number(units.ONE, "rank of the key-value latent", rule=WHOLE)
    qk_nope_head_dim: Number = number(units.ONE, "head size of queries and keys without rotation", rule=WHOLE)
    qk_rope_head_dim: Number = number(units.ONE, "size of the rotated key that all heads share", rule=COUNT)
    v_head_dim: Number = number(units.ONE, "head size of values", rule=WHOLE)
    index_heads: Number = number(
        units.ONE, "heads of the sparse attention indexer, 0 for none", 0, rule=COUNT, keyword=True
    )
    index_head_dim: Number = number(units.ONE, "head size of the indexer", 0, rule=COUNT, keyword=True)
    index_top_k: Number = number(units.TOKEN, "tokens that the indexer selects, 0 for all", 0, rule=COUNT, keyword=True)
    index_layers: Number = number(units.ONE, "layers with an indexer of their own", 0, rule=COUNT, keyword=True)
    norms: Number = number(units.ONE, "norm vectors of model width", 1, rule=COUNT, keyword=True)
    biases: Number = number(units.ONE, "elements of biases", 0, rule=COUNT, keyword=True)


class SSM(Spec):
    """Mamba-1 layers: selective state space with a diagonal state matrix (arXiv 2312.00752)."""

    layers: Number = number(units.ONE, "layers of this kind", rule=COUNT)
    d_inner: Number = number(units.ONE, "inner channels", rule=WHOLE)
    d_state: Number = number(units.ONE, "state size per channel", rule=WHOLE)
    d_conv: Number = number(units.ONE, "width of the causal convolution", rule=WHOLE)
    dt_rank: Number = number(units.ONE, "rank of the step size projection", rule=WHOLE)
    norms: Number = number(units.ONE, "norm vectors of model width", 1, rule=COUNT, keyword=True)
    inner_norms: Number = number(units.ONE, "elements of the norms of step size, B and C", 0, rule=COUNT, keyword=True)
    biases: Number = number(units.ONE, "elements of biases", 0, rule=COUNT, keyword=True)


class SSD(Spec):
    """Mamba-2 layers: structured state space duality with a scalar decay per head (arXiv 2405.21060)."""

    layers: Number = number(units.ONE, "layers of this kind", rule=COUNT)
    heads: Number = number(units.ONE, "heads", rule=WHOLE)
    head_dim: Number = number(units.ONE, "size of one head", rule=WHOLE)
    d_state: Number = number(units.ONE, "state size per channel", rule=WHOLE)
    groups: Number = number(units.ONE, "groups that share B and C", rule=WHOLE)
    d_conv: Number = number(units.ONE, "width of the causal convolution", rule=WHOLE)
    norms: Number = number(units.ONE, "norm vectors of model width", 1, rule=COUNT, keyword=True)
    inner_norms: Number = number(units.ONE, "elements of the gated norm before the output", 0, rule=COUNT, keyword=True)
    biases: Number = number(units.ONE, "elements of biases", 0, rule=COUNT, keyword=True)


class DeltaNet(Spec):
    """Gated delta net layers: linear attention with a delta-rule update and a decay per head (arXiv 2412.06464)."""

    layers: Number = number(units.ONE, "layers of this kind", rule=COUNT)
    key_heads: Number = number(units.ONE, "heads of queries and keys", rule=WHOLE)
    value_heads: Number = number(units.ONE, "heads of values, each with a state", rule=WHOLE)
    key_head_dim: Number = number(units.ONE, "size of one head of queries and keys", rule=WHOLE)
    value_head_dim: Number = number(units.ONE, "size of one head of values", rule=WHOLE)
    d_conv: Number = number(units.ONE, "width of the causal convolution", rule=WHOLE)
    norms: Number = number(units.ONE, "norm vectors of model width", 1, rule=COUNT, keyword=True)


class FFN(Spec):
    """Dense feed-forward layers."""

    layers: Number = number(units.ONE, "layers of this kind", rule=COUNT)
    intermediate_size: Number = number(units.ONE, "inner size", rule=COUNT)
    in_projections: Number = number(units.ONE, "matrices from hidden to inner size: 2 if gated, else 1", 2, rule=COUNT)
    norms: Number = number(units.ONE, "norm vectors of model width", 1, rule=COUNT, keyword=True)
    biases: Number = number(units.ONE, "elements of biases", 0, rule=COUNT, keyword=True)
    tied_layers: Number = number(units.ONE, "layers that share the weights of another", 0, rule=COUNT, keyword=True)


class MoE(Spec):
    """Mixture-of-experts layers: `top_k` of `experts` for each token, and experts that all tokens share."""

    layers: Number = number(units.ONE, "layers of this kind", rule=COUNT)
    experts: Number = number(units.ONE, "routed experts", rule=WHOLE)
    top_k: Number = number(units.ONE, "routed experts of a token", rule=WHOLE)
    intermediate_size: Number = number(units.ONE, "inner size of a routed expert", rule=COUNT)
    in_projections: Number = number(units.ONE, "matrices from hidden to inner size: 2 if gated, else 1", 2, rule=COUNT)
    shared_experts: Number = number(units.ONE, "experts that every token takes", 0, rule=COUNT)
    shared_intermediate_size: Number = number(units.ONE, "inner size of a shared expert", 0, rule=COUNT)
    latent_size: Number = number(
        units.ONE, "width that the routed experts work in, 0 for the model's", 0, rule=COUNT, keyword=True
    )
    norms: Number = number(units.ONE, "norm vectors of model width", 1, rule=COUNT, keyword=True)
    biases: Number = number(units.ONE, "elements of biases of a routed expert", 0, rule=COUNT, keyword=True)
    router_biases: Number = number(
        units.ONE, "elements of biases and scales of the router", 0, rule=COUNT, keyword=True
    )
    shared_gate: Number = number(units.ONE, "1 with a gate on the shared experts, else 0", 0, rule=SHARE, keyword=True)


class Model(Spec):
    """A language model as counts of layers of each kind. A kind that it lacks is None and costs nothing."""

    hidden_size: Number = number(units.ONE, "model width", rule=WHOLE)
    layers: Number = number(units.ONE, "blocks, the unit of pipeline parallelism", rule=WHOLE)
    vocab_size: Number = number(units.ONE, "entries of the vocabulary", rule=WHOLE)
    tied_embeddings: Number = number(units.ONE, "1 if embedding and head are one matrix, else 0", 0, rule=SHARE)
    final_norms: Number = number(
        units.ONE, "norm vectors of model width outside the layers", 1, rule=COUNT, keyword=True
    )
    head_biases: Number = number(units.ONE, "elements of the head's bias", 0, rule=COUNT, keyword=True)
    other_parameters: Number = number(
        units.ONE, "parameters of other kinds, as of learned positions", 0, rule=COUNT, keyword=True
    )
    attention: Attention | None = None
    local_attention: LocalAttention | None = None
    latent_attention: LatentAttention | None = None
    ssm: SSM | None = None
    ssd: SSD | None = None
    delta_net: DeltaNet | None = None
    ffn: FFN | None = None
    moe: MoE | None = None
    label: Label = eqx.field(static=True, default=Label())

    @property
    def name(self) -> str:
        """Name of the model, for people."""
        return self.label.text

    @classmethod
    def from_hugging_face(cls, path_or_id: "str | os.PathLike[str]") -> "Model":
        """Read a model from a Hugging Face `config.json`; `genz_jax.catalog.hugging_face.read_model` has the details.

        Args:
            path_or_id: the file, a folder with one, or a hub id.

        Raises:
            ValueError: the file cannot be read, or the architecture is not known or not expressible.

        Example:
            `gz.Model.from_hugging_face("Qwen3-8B/config.json")`
        """
        from genz_jax.catalog.hugging_face import read_model

        return read_model(path_or_id)


# ------------------------------------------------------------------------------------------------------- platform


FORMATS = ("fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp6", "fp4", "int4", "int2")
"""Number formats of the matrix units, wide to narrow; a format's code is its place here."""

FORMAT_BYTES: dict[str, float] = dict(zip(FORMATS, (4.0, 4.0, 2.0, 2.0, 1.0, 1.0, 0.75, 0.5, 0.5, 0.25), strict=True))
"""Bytes per element of each format."""

BLOCK_FORMATS: dict[str, tuple[str, float]] = {
    "nvfp4": ("fp4", 0.5 + 1.0 / 16.0),
    "mxfp4": ("fp4", 0.5 + 1.0 / 32.0),
    "mxfp6": ("fp6", 0.75 + 1.0 / 32.0),
    "mxfp8": ("fp8", 1.0 + 1.0 / 32.0),
}
"""Block-scaled formats: the format of the elements, and bytes per element with the scales.

NVFP4 has an 8-bit scale for 16 elements, the OCP microscaling formats (MX specification 1.0) one for 32.
"""

_WIDER = {  # the formats tried, in order, where a platform has no rate for one
    "tf32": ("fp32",),
    "fp16": ("bf16",),
    "fp8": ("bf16",),
    "int8": ("fp8", "bf16"),
    "fp6": ("fp8", "bf16"),
    "fp4": ("fp6", "fp8", "bf16"),
    "int4": ("fp4", "int8", "fp8", "bf16"),
    "int2": ("int4", "fp4", "int8", "fp8", "bf16"),
}


class Rates(Spec):
    """Peak dense rate of each number format as a multiple of `Platform.flops`, which is the 16-bit rate.

    A format that the platform lacks runs at the rate of the nearest wider one that it has.
    """

    fp32: Number = number(units.ONE, "rate of fp32 relative to bf16", 0.5)
    tf32: Number = number(units.ONE, "rate of tf32 relative to bf16", 0.5)
    bf16: Number = number(units.ONE, "rate of bf16 relative to bf16", 1.0)
    fp16: Number = number(units.ONE, "rate of fp16 relative to bf16", 1.0)
    fp8: Number = number(units.ONE, "rate of fp8 relative to bf16", 2.0)
    int8: Number = number(units.ONE, "rate of int8 relative to bf16", 2.0)
    fp6: Number = number(units.ONE, "rate of fp6 relative to bf16", 2.0)
    fp4: Number = number(units.ONE, "rate of fp4 relative to bf16", 4.0)
    int4: Number = number(units.ONE, "rate of int4 relative to bf16", 4.0)
    int2: Number = number(units.ONE, "rate of int2 relative to bf16", 8.0)

    @classmethod
    def from_peaks(cls, peaks: dict[str, float]) -> "Rates":
        """Relative rates from absolute peaks by format, filled with the nearest wider format's.

        Args:
            peaks: flop s-1 by format name; `bf16` is needed.

        Raises:
            ValueError: an unknown format, or no bf16.
        """
        for name in peaks:
            if name not in FORMATS:
                raise ValueError(f"Rates: unknown format {name!r}{near(name, FORMATS)}")
        if "bf16" not in peaks:
            raise ValueError(f"Rates: no bf16 among {sorted(peaks)}; the 16-bit rate is the base of the others")
        full = dict(peaks)
        full.setdefault("fp32", peaks.get("tf32", peaks["bf16"] / 2))
        for name, wider in _WIDER.items():
            full.setdefault(name, full[next((w for w in wider if w in peaks), wider[-1])])
        return cls(**{name: full[name] / peaks["bf16"] for name in FORMATS})


class NetworkLevel(Spec):
    """One level of the interconnect: the devices that it joins, and its links."""

    size: Number = number(units.ONE, "devices within one domain of this level", rule=WHOLE)
    bandwidth: Number = number(units.BYTE_RATE, "one-way link bandwidth per device")
    latency: Number = number(units.SECOND, "latency of one hop", "1 us", rule=NOT_NEGATIVE)


class PowerSplit(Spec):
    """Shares of the device power: always drawn, and drawn while each resource is busy (arXiv 2406.01698)."""

    static: Number = number(units.ONE, "share of power drawn always", 0.3, rule=SHARE)
    compute: Number = number(units.ONE, "share of power of the busy matrix units", 0.4, rule=SHARE)
    memory: Number = number(units.ONE, "share of power of the busy memory", 0.2, rule=SHARE)
    network: Number = number(units.ONE, "share of power of the busy links", 0.1, rule=SHARE)


UNLIMITED = 2.0**24
"""Devices of a network level that joins any number of them."""


LINK_ALIASES = {
    "link_bw": "network.0.bandwidth",
    "link_latency": "network.0.latency",
    "link_domain": "network.0.size",
}
"""Short names of the innermost network level's numbers."""


class Platform(Spec):
    """An accelerator and the network between its like. Rates are dense vendor peaks; bandwidths are per device."""

    flops: Number = number(units.FLOP_RATE, "peak dense 16-bit rate")
    mem_bw: Number = number(units.BYTE_RATE, "memory bandwidth")
    mem_capacity: Number = number(units.BYTE, "memory capacity")
    network: tuple[NetworkLevel, ...] = (NetworkLevel(UNLIMITED, "300 GB/s", "1 us"),)
    rates: Rates = Rates()
    power: Number = number(units.WATT, "power of one device under full load", "700 W", rule=NOT_NEGATIVE)
    power_split: PowerSplit = PowerSplit()
    onchip_bw: Number = number(units.BYTE_RATE, "on-chip memory bandwidth", 18000 * 2.0**30)
    offload_bw: Number = number(
        units.BYTE_RATE, "bandwidth to the memory for what does not fit, 0 for none", None, rule=NOT_NEGATIVE
    )
    compute_efficiency: Number = number(units.ONE, "achieved share of the peak rate", 1.0, rule=FRACTION)
    memory_efficiency: Number = number(units.ONE, "achieved share of the memory bandwidth", 1.0, rule=FRACTION)
    link_efficiency: Number = number(units.ONE, "achieved share of the link bandwidth", 1.0, rule=FRACTION)
    collective_overhead: Number = number(units.SECOND, "fixed time of a collective", "5 us", rule=NOT_NEGATIVE)
    label: Label = eqx.field(static=True, default=Label())

    @classmethod
    def _alias(cls, path: str) -> str:
        return LINK_ALIASES.get(path, path)

    @classmethod
    def _aliases(cls) -> tuple[str, ...]:
        return tuple(LINK_ALIASES)

    def __check_init__(self):
        if not self.network:
            raise ValueError("Platform.network = (): must have at least one gz.NetworkLevel(size, bandwidth, latency)")

    @property
    def name(self) -> str:
        """Name of the platform, for people."""
        return self.label.text

    @property
    def link_bw(self) -> Number:
        """One-way bandwidth per device of the innermost network level, byte s-1."""
        return self.network[0].bandwidth

    @property
    def link_latency(self) -> Number:
        """Hop latency of the innermost network level, s."""
        return self.network[0].latency


# ------------------------------------------------------------------------------------- workload and its deployment


class PrefillChunk(Spec):
    """Part of a prompt that a chunked-prefill iteration works on."""

    past_tokens: Number = number(units.TOKEN, "prompt tokens already in the KV cache", rule=COUNT)
    new_tokens: Number = number(units.TOKEN, "prompt tokens of this chunk", rule=COUNT)


class DecodeChunk(Spec):
    """Requests that decode in a chunked-prefill iteration, all with the same lengths.

    `prompts` prompts of `context_tokens` each; `sequences` sequences in all, each with `generated_tokens` of its own.
    n requests without beams are `DecodeChunk(n, n, kv_length)`; one prompt with b beams is
    `DecodeChunk(1, b, prompt_length, generated)`.
    """

    prompts: Number = number(units.ONE, "distinct prompts", 1, rule=COUNT)
    sequences: Number = number(units.ONE, "sequences, each of which gets one token", 1, rule=COUNT)
    context_tokens: Number = number(units.TOKEN, "KV length that the sequences of a prompt share", 0, rule=COUNT)
    generated_tokens: Number = number(units.TOKEN, "KV length of each sequence of its own", 0, rule=COUNT)


class Workload(Spec):
    """What is asked: a batch of requests of equal lengths, or one iteration of chunked prefill."""

    batch: Number = number(units.ONE, "requests at once", 1, rule=WHOLE)
    input_tokens: Number = number(units.TOKEN, "prompt tokens of a request", 1024, rule=WHOLE)
    output_tokens: Number = number(units.TOKEN, "generated tokens of a request", 128, rule=COUNT)
    beams: Number = number(units.ONE, "beams of a request", 1, rule=WHOLE)
    prefill_chunks: tuple[PrefillChunk, ...] = ()
    decode_chunks: tuple[DecodeChunk, ...] = ()
    label: Label = eqx.field(static=True, default=Label())

    @property
    def name(self) -> str:
        """Name of the workload, for people."""
        return self.label.text


class Parallelism(Spec):
    """How a model is spread. Devices = tp · ep · cp · pp · dp, the first innermost in the network.

    Tensor, expert and pipeline parallel ranks split the weights. Context parallel ranks split the tokens of a prompt
    and its KV cache, data parallel ones the requests; both hold all of the weights.
    """

    tp: Number = number(units.ONE, "tensor parallel size", 1, rule=WHOLE)
    ep: Number = number(units.ONE, "expert parallel size", 1, rule=WHOLE)
    pp: Number = number(units.ONE, "pipeline parallel size", 1, rule=WHOLE)
    micro_batches: Number = number(
        units.ONE, "micro-batches of the pipeline, by default as many as stages", None, WHOLE
    )
    dp: Number = number(units.ONE, "data parallel replicas", 1, rule=WHOLE, keyword=True)
    cp: Number = number(
        units.ONE, "context parallel size; None, like 1, for none", 1, rule=WHOLE, keyword=True, optional=True
    )


_FORMAT_CODE = Rule(
    f"must be the name of a number format or its code, 0 to {len(FORMATS) - 1}: {', '.join(FORMATS)}",
    low_included=True,
    high=len(FORMATS) - 1,
    whole=True,
)


class Precision(Spec):
    """Number formats: bytes per element of each tensor, and the format that the matrix units run at."""

    weights: Number = number(units.ONE, "bytes per weight")
    activations: Number = number(units.ONE, "bytes per activation")
    kv_cache: Number = number(units.ONE, "bytes per element of the KV cache")
    compute: Number = number(units.ONE, "code of the format of the matrix units", rule=_FORMAT_CODE)
    label: Label = eqx.field(static=True, default=Label())

    def __init__(
        self,
        weights: Any = "bf16",
        activations: Any = None,
        kv_cache: Any = None,
        compute: Any = None,
        label: Label | None = None,
    ):
        """Make a precision from format names.

        Args:
            weights: format of weights, one of `FORMATS` or `BLOCK_FORMATS`.
            activations: format of activations; by default that of the weights.
            kv_cache: format of the KV cache; by default that of the activations.
            compute: format that the matrix units run at; by default the wider of weights and activations.
            label: name shown to people; by default the formats.

        Raises:
            ValueError: an unknown format.
        """
        activations = weights if activations is None else activations
        kv_cache = activations if kv_cache is None else kv_cache
        if compute is None and isinstance(weights, str) and isinstance(activations, str):
            compute = min((_format("Precision", f) for f in (weights, activations)), key=FORMATS.index)
        names = [x for x in (weights, activations, kv_cache) if isinstance(x, str)]
        text = names[0] if len(set(names)) == 1 else "-".join(names)
        self.weights = _element_bytes("Precision.weights", weights)
        self.activations = _element_bytes("Precision.activations", activations)
        self.kv_cache = _element_bytes("Precision.kv_cache", kv_cache)
        self.compute = FORMATS.index(_format("Precision.compute", compute)) if isinstance(compute, str) else compute
        self.label = label if label is not None else Label(text)

    def replace(self, **changes: Any) -> "Precision":
        renamed = changes if "label" in changes else {"label": Label(f"{self.name} changed"), **changes}
        return super().replace(**renamed)

    @property
    def name(self) -> str:
        """Name of the precision, for people."""
        return self.label.text


def _format(where: str, name: str) -> str:
    """The format that the matrix units run at for tensors of that format."""
    name = name.lower()
    if name in BLOCK_FORMATS:
        return BLOCK_FORMATS[name][0]
    if name not in FORMATS:
        known = (*FORMATS, *BLOCK_FORMATS)
        raise ValueError(f"{where} = {name!r}: unknown number format; known are {', '.join(known)}")
    return name


def _element_bytes(where: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.lower() in BLOCK_FORMATS:
        return BLOCK_FORMATS[value.lower()][1]
    return FORMAT_BYTES[_format(where, value)]


class Speculation(Spec):
    """Speculative decoding: a draft model proposes tokens that the full model verifies in one pass."""

    draft: Model
    tokens: Number = number(units.TOKEN, "draft tokens per step", 4, rule=WHOLE)
    acceptance: Number = number(units.ONE, "probability that a draft token is accepted", 0.8, rule=SHARE)
