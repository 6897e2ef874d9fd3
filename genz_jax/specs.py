"""Specs: what is to be served, on what, how. Immutable pytrees in which every number is an array leaf.

A number may be given as a Python or NumPy number, a JAX array or tracer, text with units ("3.35 TB/s"), an `Axis`, or
an `xarray.DataArray`. Text is converted to base units and values are checked when a spec is made.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from genz_jax import units
from genz_jax.architecture import (
    FFN as FFN,
    SSD as SSD,
    SSM as SSM,
    Attention as Attention,
    CompressedAttention as CompressedAttention,
    Compressor as Compressor,
    DeltaNet as DeltaNet,
    Indexer as Indexer,
    LatentAttention as LatentAttention,
    LatentExperts as LatentExperts,
    LayerEmbedding as LayerEmbedding,
    LinearAttention as LinearAttention,
    LocalAttention as LocalAttention,
    Model as Model,
    MoE as MoE,
    Projection as Projection,
    ResidualStreams as ResidualStreams,
    SparseAttention as SparseAttention,
)
from genz_jax.fields import (
    AT_LEAST_ONE,
    COUNT,
    FRACTION,
    NOT_NEGATIVE,
    SHARE,
    WHOLE,
    Label,
    Number,
    Rule,
    Spec,
    convert,
    near,
    number,
)
from genz_jax.formats import FORMATS, read_format

# ------------------------------------------------------------------------------------------------------- platform


class Rates(Spec):
    """Peak dense rate of each number format as a multiple of `Platform.flops`, which is the 16-bit rate.

    A rate of 0 stands for a format that the platform lacks: it runs at the nearest wider one that there is.
    """

    fp32: Number = number(units.ONE, "rate of fp32 relative to bf16", 0.5)
    tf32: Number = number(units.ONE, "rate of tf32 relative to bf16", 0.5, NOT_NEGATIVE)
    bf16: Number = number(units.ONE, "rate of bf16 relative to bf16", 1.0)
    fp16: Number = number(units.ONE, "rate of fp16 relative to bf16", 1.0, NOT_NEGATIVE)
    fp8: Number = number(units.ONE, "rate of fp8 relative to bf16", 2.0, NOT_NEGATIVE)
    int8: Number = number(units.ONE, "rate of int8 relative to bf16", 2.0, NOT_NEGATIVE)
    fp6: Number = number(units.ONE, "rate of fp6 relative to bf16", 2.0, NOT_NEGATIVE)
    fp4: Number = number(units.ONE, "rate of fp4 relative to bf16", 4.0, NOT_NEGATIVE)
    int4: Number = number(units.ONE, "rate of int4 relative to bf16", 4.0, NOT_NEGATIVE)
    int2: Number = number(units.ONE, "rate of int2 relative to bf16", 8.0, NOT_NEGATIVE)

    @classmethod
    def from_peaks(cls, peaks: dict[str, float]) -> "Rates":
        """Relative rates from absolute peaks by format; a format without a peak has the rate 0.

        By default fp16 has the rate of bf16, and fp32 that of tf32, or half the 16-bit rate.

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
        full = dict.fromkeys(FORMATS, 0.0) | peaks
        full["fp32"] = peaks.get("fp32", peaks.get("tf32", peaks["bf16"] / 2))
        full["fp16"] = peaks.get("fp16", peaks["bf16"])
        return cls(**{name: rate / peaks["bf16"] for name, rate in full.items()})


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
        units.BYTE_RATE,
        "bandwidth to the memory for what does not fit, 0 for none",
        None,
        rule=NOT_NEGATIVE,
        absent=0.0,
    )
    memory_reserve: Number = number(units.ONE, "share of the memory that is kept for the runtime", 0.1, rule=SHARE)
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
    cached_tokens: Number = number(
        units.TOKEN, "prompt tokens that are in the KV cache already", None, rule=COUNT, keyword=True
    )
    cache_hit_rate: Number = number(
        units.ONE, "share of the prompts whose cached tokens are there", 1.0, rule=SHARE, keyword=True
    )
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
    expert_imbalance: Number = number(
        units.ONE, "tokens of the busiest expert parallel rank over their mean", 1.0, rule=AT_LEAST_ONE, keyword=True
    )
    dp: Number = number(units.ONE, "data parallel replicas", 1, rule=WHOLE, keyword=True)
    cp: Number = number(
        units.ONE, "context parallel size; None, like 1, for none", 1, rule=WHOLE, keyword=True, absent=1.0
    )


_FORMAT_CODE = Rule(
    f"must be the name of a number format or its code, 0 to {len(FORMATS) - 1}: {', '.join(FORMATS)}",
    low_included=True,
    high=len(FORMATS) - 1,
    whole=True,
)

TENSORS = ("weights", "activations", "kv_cache", "scores", "experts", "embedding", "accumulation", "state")
"""Tensors that have a format each, in a `Precision`."""


class Precision(Spec):
    """Number formats: bytes per element of each kind of tensor, and the format of its arithmetic.

    A product of two tensors runs at the wider of their formats: linear layers at that of `weights` and `activations`,
    experts and the head likewise, attention at that of `scores` and `kv_cache`. So weight-only quantization
    ("int4-bf16") saves bytes and no arithmetic.

    With `kv_outliers` s and `kv_rank` r the KV cache is compressed as GEAR does (arXiv 2403.05527): an element of N
    tokens of D channels takes b + s·2 + r·(N + D)/(N·D)·2 bytes, where b is `kv_cache`.
    """

    weights: Number = number(units.ONE, "bytes per weight")
    activations: Number = number(units.ONE, "bytes per activation")
    kv_cache: Number = number(units.ONE, "bytes per element of the KV cache")
    scores: Number = number(units.ONE, "bytes per attention score")
    experts: Number = number(units.ONE, "bytes per weight of routed experts")
    embedding: Number = number(units.ONE, "bytes per weight of embedding and head")
    accumulation: Number = number(units.ONE, "bytes per element of partial sums that ranks reduce")
    state: Number = number(units.ONE, "bytes per element of recurrent states")
    weights_format: Number = number(units.ONE, "code of the format of weights", rule=_FORMAT_CODE)
    activations_format: Number = number(units.ONE, "code of the format of activations", rule=_FORMAT_CODE)
    kv_cache_format: Number = number(units.ONE, "code of the format of the KV cache", rule=_FORMAT_CODE)
    scores_format: Number = number(units.ONE, "code of the format of attention scores", rule=_FORMAT_CODE)
    experts_format: Number = number(units.ONE, "code of the format of routed experts", rule=_FORMAT_CODE)
    embedding_format: Number = number(units.ONE, "code of the format of embedding and head", rule=_FORMAT_CODE)
    kv_outliers: Number = number(units.ONE, "share of the KV cache that is kept in 16 bits besides", 0.0, rule=SHARE)
    kv_rank: Number = number(units.ONE, "rank of the 16-bit correction of each head's KV cache", 0.0, rule=COUNT)
    label: Label = eqx.field(static=True, default=Label())

    def __init__(
        self,
        weights: Any = "bf16",
        activations: Any = None,
        kv_cache: Any = None,
        compute: Any = None,
        label: Label | None = None,
        *,
        scores: Any = None,
        experts: Any = None,
        embedding: Any = None,
        accumulation: Any = None,
        state: Any = "fp32",
        kv_outliers: Any = 0.0,
        kv_rank: Any = 0.0,
        **formats: Any,
    ):
        """Make a precision from format names (`formats.read_format` has their grammar) or bytes per element.

        Args:
            weights: format of weights.
            activations: format of activations; by default that of the weights, or bf16 where that is one of storage
                only, such as int4:128x16 or 4.85bit.
            kv_cache: format of the KV cache; by default that of the activations.
            compute: format of the arithmetic of all tensors, where it is not their own; needed for bytes.
            label: name shown to people; by default the formats.
            scores: format of attention scores and of queries in attention; by default that of the activations.
            experts: format of the weights of routed experts; by default that of the weights.
            embedding: format of embedding and head; by default that of the weights.
            accumulation: format of partial sums that ranks reduce; by default that of the activations.
            state: format of recurrent states.
            kv_outliers: share of the KV cache kept in 16 bits besides.
            kv_rank: rank of the 16-bit correction of each head's KV cache.
            **formats: codes of formats, `weights_format` and so on, where they are not those of the names.

        Raises:
            ValueError: an unknown format, or bytes without a format of their arithmetic.
        """
        given: dict[str, Any] = {"weights": weights, "activations": activations, "kv_cache": kv_cache}
        given |= {"scores": scores, "experts": experts, "embedding": embedding}
        given |= {"accumulation": accumulation, "state": state}
        if activations is None and isinstance(weights, str) and read_format("Precision.weights", weights).storage_only:
            given["activations"] = "bf16"
        for name, source in _SAME_AS.items():
            if given[name] is None:
                given[name] = given[source]
                if f"{source}_format" in formats:
                    formats.setdefault(f"{name}_format", formats[f"{source}_format"])
        if isinstance(compute, str):
            compute = FORMATS.index(read_format("Precision.compute", compute).format)
        elif compute is not None:
            compute = convert("Precision.compute", compute, units.ONE, _FORMAT_CODE)
        for name, value in given.items():
            where = f"Precision.{name}"
            tensor = read_format(where, value) if isinstance(value, str) else None
            setattr(self, name, value if tensor is None else tensor.bytes)
            if name in ("accumulation", "state"):
                continue
            code = formats.pop(f"{name}_format", compute)
            if code is None and tensor is not None:
                code = FORMATS.index(tensor.format)
            if code is None and value is not None:
                raise ValueError(
                    f"Precision.compute: {name} is given in bytes, so compute must name the format of its arithmetic, "
                    f"one of {', '.join(FORMATS)}"
                )
            setattr(self, f"{name}_format", code)
        if formats:
            known = [field.name for field in dataclasses.fields(self)]
            raise ValueError(f"Precision has no field {next(iter(formats))!r}{near(next(iter(formats)), known)}")
        self.kv_outliers, self.kv_rank = kv_outliers, kv_rank
        self.label = label if label is not None else Label(_formats_text(given))

    def replace(self, **changes: Any) -> "Precision":
        known = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in changes:
            if name not in known:
                raise ValueError(f"Precision has no field {name!r}{near(name, known)}")
        # A format given by its name brings its own arithmetic.
        stale = {f"{name}_format" for name, value in changes.items() if isinstance(value, str)} - set(changes)
        values = {name: value for name, value in known.items() if name not in stale}
        return Precision(**values | {"label": Label(f"{self.name} changed")} | changes)

    def kv_element(self, tokens: Number, channels: Number) -> Number:
        """Bytes per element of the KV cache of one head, for so many tokens and channels: b + 2s + 2r(N + D)/(N·D)."""
        size = tokens * channels
        low_rank = self.kv_rank * (tokens + channels) / jnp.where(size > 0, size, 1.0)
        return self.kv_cache + 2.0 * (self.kv_outliers + jnp.where(size > 0, low_rank, 0.0))

    @property
    def compute(self) -> Number:
        """Code of the format that linear layers run at: the wider of weights and activations."""
        return wider(self.weights_format, self.activations_format)

    @property
    def name(self) -> str:
        """Name of the precision, for people; `inputs.precision` reads it."""
        return self.label.text


_SAME_AS = {
    "activations": "weights",
    "kv_cache": "activations",
    "scores": "activations",
    "experts": "weights",
    "embedding": "weights",
    "accumulation": "activations",
}
"""Tensor whose format another has by default, in the order in which they are filled in."""


def wider(a: Number, b: Number) -> Number:
    """Code of the wider of two formats."""
    return jnp.minimum(a, b) if any(isinstance(x, jax.Array) for x in (a, b)) else np.minimum(a, b)


def _formats_text(given: dict[str, Any]) -> str:
    """Formats as text: weights-activations-cache, and those of other tensors that are not as by default."""
    main = [given[name] for name in ("weights", "activations", "kv_cache") if isinstance(given[name], str)]
    text = main[0] if len(set(main)) == 1 else "-".join(main)
    default = {name: given[source] for name, source in _SAME_AS.items()} | {"state": "fp32"}
    others = [name for name in TENSORS[3:] if isinstance(given[name], str) and given[name] != default[name]]
    return "/".join([text, *(f"{name}={given[name]}" for name in others)])


class Speculation(Spec):
    """Speculative decoding: a draft model proposes tokens that the full model verifies in one pass.

    Without a draft model, the model's own module for multi-token prediction proposes them.
    """

    draft: Model | None = None
    tokens: Number = number(units.TOKEN, "draft tokens per step", 4, rule=WHOLE)
    acceptance: Number = number(units.ONE, "probability that a draft token is accepted", 0.8, rule=SHARE)
