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
    input_bytes: Number = figure(units.BYTE, "bytes of the first operand")
    weight_bytes: Number = figure(units.BYTE, "bytes of the second operand")
    output_bytes: Number = figure(units.BYTE, "bytes of the result")
    message_bytes: Number = figure(units.BYTE, "bytes that each rank of a collective holds")
    compute_time: Number = figure(units.SECOND, "time of the matrix units")
    memory_time: Number = figure(units.SECOND, "time of the memory")
    network_time: Number = figure(units.SECOND, "time of the links")
    latency: Number = figure(units.SECOND, "time that it takes")
    bound_code: Number = code(Bound, "resource that it waits for")


class StageResult(Result):
    """Figures of one forward pass: prefill, decode, encode or chunked.

    Latency is that of one micro-batch through all pipeline stages. Where `feasible` is false, times, rates and energy
    are NaN and `reason` says why.
    """

    latency: Number = figure(units.SECOND, "latency of one micro-batch through all stages")
    batch_time: Number = figure(units.SECOND, "time of the whole batch")
    throughput: Number = figure(units.ONE, "completions per second")
    compute_time: Number = figure(units.SECOND, "time of the matrix units, sum over operators")
    memory_time: Number = figure(units.SECOND, "time of the memory, sum over operators")
    network_time: Number = figure(units.SECOND, "time of the links, sum over collectives")
    flop_count: Number = figure(units.FLOP, "floating point operations of one micro-batch on one rank of every layer")
    traffic: Number = figure(units.BYTE, "bytes of all operands and results of one micro-batch")
    weights: Number = figure(units.BYTE, "weights per device")
    idle_weights: Number = figure(units.BYTE, "weights per device that the pass does not read, as of idle experts")
    kv_cache: Number = figure(units.BYTE, "KV cache and state per device")
    activations: Number = figure(units.BYTE, "peak of activations per device")
    buffers: Number = figure(units.BYTE, "buffers of collectives per device")
    memory: Number = figure(units.BYTE, "memory that is needed per device")
    memory_excess: Number = figure(units.BYTE, "memory per device that is needed beyond what may be used")
    energy: Number = figure(units.JOULE, "energy of the whole batch on all devices")
    bound_code: Number = code(Bound, "resource that takes the largest share of the latency")
    compute_format_code: Number = code(Format, "number format that linear layers run at")
    offloads: Number = figure(units.ONE, "part of the memory is offloaded")
    feasible: Number = figure(units.ONE, "the point runs")
    reason_code: Number = code(Reason, "why the point does not run")
    breakdown: dict[str, Number] | None = None
    operators: dict[str, OperatorResult] | None = None


class PrefillResult(StageResult):
    """Figures of prefill: the prompts of a batch, up to the first token of each."""

    throughput: Number = figure(units.REQUEST_RATE, "prompts per second")


class EncodeResult(StageResult):
    """Figures of encoding: the whole sequences of a batch, without a cache or a sampled token."""

    throughput: Number = figure(units.REQUEST_RATE, "sequences per second")
    token_throughput: Number | None = figure(units.TOKEN_RATE, "tokens per second", default=None)


class DecodeResult(StageResult):
    """Figures of a decode step: one token of every sequence of a batch."""

    throughput: Number = figure(units.TOKEN_RATE, "output tokens per second, beams counted once")


class ChunkedResult(StageResult):
    """Figures of an iteration of chunked prefill."""

    throughput: Number = figure(units.TOKEN_RATE, "prompt tokens and decoding requests per second")


class RequestResult(Result):
    """Figures of serving a batch of requests from the first prompt token to the last output token."""

    ttft: Number = figure(units.SECOND, "time to first token")
    tpot: Number = figure(units.SECOND, "time per output token")
    latency: Number = figure(units.SECOND, "end-to-end latency of a request")
    throughput: Number = figure(units.TOKEN_RATE, "output tokens per second, all requests together")
    throughput_per_device: Number = figure(units.TOKEN_RATE, "output tokens per second and device")
    interactivity: Number = figure(units.TOKEN_RATE, "output tokens per second of one request while it decodes")
    weights: Number = figure(units.BYTE, "weights per device")
    kv_cache: Number = figure(units.BYTE, "KV cache and state per device at full length")
    activations: Number = figure(units.BYTE, "peak of activations per device")
    buffers: Number = figure(units.BYTE, "buffers of collectives per device")
    memory: Number = figure(units.BYTE, "memory that is needed per device")
    memory_excess: Number = figure(units.BYTE, "memory per device that is needed beyond what may be used")
    devices: Number = figure(units.ONE, "devices")
    energy: Number = figure(units.JOULE, "energy of all requests on all devices")
    energy_per_token: Number = figure(units.JOULE_PER_TOKEN, "energy per output token")
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

    weights: Number = figure(units.BYTE, "weights per device")
    kv_cache: Number = figure(units.BYTE, "KV cache and state per device at full length")
    kv_cache_per_token: Number = figure(units.BYTE, "KV cache per device that one token more of one request takes")
    activations: Number = figure(units.BYTE, "peak of activations per device")
    buffers: Number = figure(units.BYTE, "buffers of collectives per device")
    memory: Number = figure(units.BYTE, "memory that is needed per device")
    memory_excess: Number = figure(units.BYTE, "memory per device that is needed beyond what may be used")
    reserve: Number = figure(units.BYTE, "memory per device that is kept for the runtime")
    free: Number = figure(units.BYTE, "memory per device that is left, below 0 if it does not fit")
    largest_batch: Number = figure(units.ONE, "requests that fit at once")
    longest_context: Number = figure(units.TOKEN, "prompt and output tokens of a request that fit at this batch")
    feasible: Number = figure(units.ONE, "the point runs")
    reason_code: Number = code(Reason, "why the point does not run")


class SpeculativeResult(Result):
    """Figures of a stage of speculative decoding, draft and full model together."""

    latency: Number = figure(units.SECOND, "latency of one step: drafting and verification, or both prefills")
    batch_time: Number = figure(units.SECOND, "time of a step of the whole batch")
    throughput: Number = figure(units.ONE, "completions per second")
    expected_tokens: Number = figure(units.TOKEN, "expected tokens of a step")
    draft_time: Number = figure(units.SECOND, "time of the draft model")
    full_time: Number = figure(units.SECOND, "time of the full model")
    weights: Number = figure(units.BYTE, "weights per device, both models")
    kv_cache: Number = figure(units.BYTE, "KV cache and state per device, both models")
    activations: Number = figure(units.BYTE, "peak of activations per device")
    buffers: Number = figure(units.BYTE, "buffers of collectives per device")
    memory: Number = figure(units.BYTE, "memory that is needed per device")
    memory_excess: Number = figure(units.BYTE, "memory per device that is needed beyond what may be used")
    energy: Number = figure(units.JOULE, "energy of a step of the whole batch on all devices")
    bound_code: Number = code(Bound, "resource that takes the largest share of the latency")
    offloads: Number = figure(units.ONE, "part of the memory is offloaded")
    feasible: Number = figure(units.ONE, "the point runs")
    reason_code: Number = code(Reason, "why the point does not run")


class SpeculativePrefillResult(SpeculativeResult):
    """Figures of the prefill of both models of speculative decoding."""

    throughput: Number = figure(units.REQUEST_RATE, "prompts per second")


class SpeculativeDecodeResult(SpeculativeResult):
    """Figures of a step of speculative decoding."""

    throughput: Number = figure(units.TOKEN_RATE, "expected output tokens per second")
