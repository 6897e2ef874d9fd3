"""Workload and parallelism: what is asked, and how a model is spread to serve it."""

import equinox as eqx

from genz_jax.base import units
from genz_jax.base.fields import AT_LEAST_ONE, COUNT, SHARE, WHOLE, Number, Spec, number, single
from genz_jax.base.label import Label, label


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


def _decode_fault(prompts: float, sequences: float, context: float, own: float) -> str:
    """What is wrong between the numbers of a decode chunk; nothing if they agree."""
    if prompts == sequences == 0:  # a chunk of nothing
        return ""
    if min(prompts, sequences) < 1 or sequences % prompts:
        return f"prompts = {prompts:g}, sequences = {sequences:g}: each prompt must have the same whole number of them"
    if context + own < 1:
        meant = f"for {prompts:g} requests of {sequences:g} tokens DecodeChunk({prompts:g}, {prompts:g}, {sequences:g})"
        return f"context_tokens and generated_tokens are 0: must be 1 or more together; {meant}"
    return ""


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
    prefill_chunks: tuple[PrefillChunk, ...] = eqx.field(
        default=(), metadata={"long_name": "parts of prompts in an iteration of chunked prefill, stage chunked alone"}
    )
    decode_chunks: tuple[DecodeChunk, ...] = eqx.field(
        default=(), metadata={"long_name": "requests that decode in the same iteration"}
    )
    label: Label = label()

    def _agree(self) -> None:
        tokens: float | None = 0.0
        for chunk in self.prefill_chunks:
            new = single(chunk.new_tokens)
            tokens = None if tokens is None or new is None else tokens + new[0]
        for i, chunk in enumerate(self.decode_chunks):
            numbers = single(chunk.prompts, chunk.sequences, chunk.context_tokens, chunk.generated_tokens)
            tokens = None if tokens is None or numbers is None else tokens + numbers[1]
            if numbers is not None and (told := _decode_fault(*numbers)):
                raise ValueError(f"Workload.decode_chunks.{i}: {told}")
        if tokens == 0 and (self.prefill_chunks or self.decode_chunks):
            raise ValueError(
                "Workload.prefill_chunks and decode_chunks: new_tokens and sequences are 0: must be 1 or more together"
            )

    @property
    def name(self) -> str:
        """Name of the workload, for people."""
        return self.label.text


class Parallelism(Spec):
    """How a model is spread. Devices = tp · ep · cp · pp · dp, the first innermost in the network.

    Tensor, expert and pipeline parallel ranks split the weights. Context parallel ranks split the tokens of a prompt
    and its KV cache, data parallel ones the requests; both hold all of the weights.

    `ep` multiplies `tp`: attention is split over tp · ep ranks, experts over ep, and each expert over tp. What vLLM
    calls `--tensor-parallel-size 8 --enable-expert-parallel` is ep=8, without it tp=8.
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
