"""Results: the figures of every stage, as pytrees."""

from genz_jax.base import units
from genz_jax.base.fields import Number
from genz_jax.base.formats import Format
from genz_jax.specs.figures import Bound, Result, code, figure
from genz_jax.specs.reasons import Reason


class OperatorResult(Result):
    """Figures of one operator, all of its repeats together."""

    repeats: Number = figure(units.ONE, "times that it runs")
    flops: Number = figure(units.FLOP, "floating point operations")
    input_bytes: Number = figure(units.BYTE, "bytes of the first operand", "min")
    weight_bytes: Number = figure(units.BYTE, "bytes of the second operand", "min")
    output_bytes: Number = figure(units.BYTE, "bytes of the result", "min")
    message_bytes: Number = figure(units.BYTE, "bytes that each rank of a collective holds", "min")
    compute_time: Number = figure(units.SECOND, "time of the matrix units", "min")
    memory_time: Number = figure(units.SECOND, "time of the memory", "min")
    network_time: Number = figure(units.SECOND, "time of the links", "min")
    latency: Number = figure(units.SECOND, "time that it takes", "min")
    bound_code: Number = code(Bound, "resource that it waits for")


class StageResult(Result):
    """Figures of one forward pass: prefill, decode, encode or chunked.

    Latency is that of one micro-batch through all pipeline stages. Where `feasible` is false, times, rates and energy
    are NaN and `reason` says why.
    """

    latency: Number = figure(units.SECOND, "latency of one micro-batch through all stages", "min")
    batch_time: Number = figure(units.SECOND, "time of the whole batch", "min")
    throughput: Number = figure(units.ONE, "completions per second", "max")
    compute_time: Number = figure(units.SECOND, "time of the matrix units, sum over operators", "min")
    memory_time: Number = figure(units.SECOND, "time of the memory, sum over operators", "min")
    network_time: Number = figure(units.SECOND, "time of the links, sum over collectives", "min")
    flop_count: Number = figure(units.FLOP, "floating point operations of one micro-batch on one rank of every layer")
    traffic: Number = figure(units.BYTE, "bytes of all operands and results of one micro-batch", "min")
    weights: Number = figure(units.BYTE, "weights per device", "min")
    idle_weights: Number = figure(
        units.BYTE, "weights per device that the pass does not read, as of idle experts", "min"
    )
    kv_cache: Number = figure(units.BYTE, "KV cache and state per device", "min")
    activations: Number = figure(units.BYTE, "peak of activations per device", "min")
    buffers: Number = figure(units.BYTE, "buffers of collectives per device", "min")
    memory: Number = figure(units.BYTE, "memory that is needed per device", "min")
    memory_excess: Number = figure(units.BYTE, "memory per device that is needed beyond what may be used", "min")
    energy: Number = figure(units.JOULE, "energy of the whole batch on all devices", "min")
    bound_code: Number = code(Bound, "resource that takes the largest share of the latency")
    compute_format_code: Number = code(Format, "number format that linear layers run at")
    offloads: Number = figure(units.ONE, "part of the memory is offloaded")
    feasible: Number = figure(units.ONE, "the point runs")
    reason_code: Number = code(Reason, "why the point does not run")
    breakdown: dict[str, Number] | None = None
    operators: dict[str, OperatorResult] | None = None


class PrefillResult(StageResult):
    """Figures of prefill: the prompts of a batch, up to the first token of each."""

    throughput: Number = figure(units.REQUEST_RATE, "prompts per second", "max")


class EncodeResult(StageResult):
    """Figures of encoding: the whole sequences of a batch, without a cache or a sampled token."""

    throughput: Number = figure(units.REQUEST_RATE, "sequences per second", "max")
    token_throughput: Number | None = figure(units.TOKEN_RATE, "tokens per second", "max", default=None)


class DecodeResult(StageResult):
    """Figures of a decode step: one token of every sequence of a batch."""

    throughput: Number = figure(units.TOKEN_RATE, "output tokens per second, beams counted once", "max")


class ChunkedResult(StageResult):
    """Figures of an iteration of chunked prefill."""

    throughput: Number = figure(units.TOKEN_RATE, "prompt tokens and decoding requests per second", "max")


class RequestResult(Result):
    """Figures of serving a batch of requests from the first prompt token to the last output token."""

    ttft: Number = figure(units.SECOND, "time to first token", "min")
    tpot: Number = figure(units.SECOND, "time per output token", "min")
    latency: Number = figure(units.SECOND, "end-to-end latency of a request", "min")
    throughput: Number = figure(units.TOKEN_RATE, "output tokens per second, all requests together", "max")
    throughput_per_device: Number = figure(units.TOKEN_RATE, "output tokens per second and device", "max")
    interactivity: Number = figure(units.TOKEN_RATE, "output tokens per second of one request while it decodes", "max")
    weights: Number = figure(units.BYTE, "weights per device", "min")
    kv_cache: Number = figure(units.BYTE, "KV cache and state per device at full length", "min")
    activations: Number = figure(units.BYTE, "peak of activations per device", "min")
    buffers: Number = figure(units.BYTE, "buffers of collectives per device", "min")
    memory: Number = figure(units.BYTE, "memory that is needed per device", "min")
    memory_excess: Number = figure(units.BYTE, "memory per device that is needed beyond what may be used", "min")
    devices: Number = figure(units.ONE, "devices", "min")
    energy: Number = figure(units.JOULE, "energy of all requests on all devices", "min")
    energy_per_token: Number = figure(units.JOULE_PER_TOKEN, "energy per output token", "min")
    bound_code: Number = code(Bound, "resource that takes the largest share of the end-to-end latency")
    prefill_bound_code: Number = code(Bound, "resource that prefill waits for most")
    decode_bound_code: Number = code(Bound, "resource that decode waits for most")
    compute_format_code: Number = code(Format, "number format that linear layers run at")
    feasible: Number = figure(units.ONE, "the point runs")
    reason_code: Number = code(Reason, "why the point does not run")
    prefill: StageResult | None = None
    decode: StageResult | None = None


class MemoryResult(Result):
    """Memory of one device while it serves, as an engine sets it aside, and what more would fit.

    `memory` = weights + kv_cache + activations + buffers, which must fit beside the reserve.
    """

    weights: Number = figure(units.BYTE, "weights per device", "min")
    kv_cache: Number = figure(units.BYTE, "KV cache and state per device at full length", "min")
    kv_cache_per_token: Number = figure(
        units.BYTE, "KV cache per device that one token more of one request takes", "min"
    )
    activations: Number = figure(units.BYTE, "peak of activations per device", "min")
    buffers: Number = figure(units.BYTE, "buffers of collectives per device", "min")
    memory: Number = figure(units.BYTE, "memory that is needed per device", "min")
    memory_excess: Number = figure(units.BYTE, "memory per device that is needed beyond what may be used", "min")
    reserve: Number = figure(units.BYTE, "memory per device that is kept for the runtime", "min")
    free: Number = figure(units.BYTE, "memory per device that is left, below 0 if it does not fit", "max")
    largest_batch: Number = figure(units.ONE, "requests that fit at once", "max")
    longest_context: Number = figure(units.TOKEN, "prompt and output tokens of a request that fit at this batch", "max")
    feasible: Number = figure(units.ONE, "the point runs")
    reason_code: Number = code(Reason, "why the point does not run")


class SpeculativeResult(Result):
    """Figures of a stage of speculative decoding, draft and full model together."""

    latency: Number = figure(units.SECOND, "latency of one step: drafting and verification, or both prefills", "min")
    batch_time: Number = figure(units.SECOND, "time of a step of the whole batch", "min")
    throughput: Number = figure(units.ONE, "completions per second", "max")
    expected_tokens: Number = figure(units.TOKEN, "expected tokens of a step")
    draft_time: Number = figure(units.SECOND, "time of the draft model", "min")
    full_time: Number = figure(units.SECOND, "time of the full model", "min")
    weights: Number = figure(units.BYTE, "weights per device, both models", "min")
    kv_cache: Number = figure(units.BYTE, "KV cache and state per device, both models", "min")
    activations: Number = figure(units.BYTE, "peak of activations per device", "min")
    buffers: Number = figure(units.BYTE, "buffers of collectives per device", "min")
    memory: Number = figure(units.BYTE, "memory that is needed per device", "min")
    memory_excess: Number = figure(units.BYTE, "memory per device that is needed beyond what may be used", "min")
    energy: Number = figure(units.JOULE, "energy of a step of the whole batch on all devices", "min")
    bound_code: Number = code(Bound, "resource that takes the largest share of the latency")
    offloads: Number = figure(units.ONE, "part of the memory is offloaded")
    feasible: Number = figure(units.ONE, "the point runs")
    reason_code: Number = code(Reason, "why the point does not run")


class SpeculativePrefillResult(SpeculativeResult):
    """Figures of the prefill of both models of speculative decoding."""

    throughput: Number = figure(units.REQUEST_RATE, "prompts per second", "max")


class SpeculativeDecodeResult(SpeculativeResult):
    """Figures of a step of speculative decoding."""

    throughput: Number = figure(units.TOKEN_RATE, "expected output tokens per second", "max")
