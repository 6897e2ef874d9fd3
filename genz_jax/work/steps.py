"""Forward passes of a model: prefill, encoding, decode, chunked prefill, and verification of speculative decoding."""

from typing import Any

import jax.numpy as jnp

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.specs import DecodeChunk, Model, Workload
from genz_jax.work.layers.embedding import embedding, head
from genz_jax.work.layers.registry import Layer, layers_of
from genz_jax.work.operators.collectives import point_to_point
from genz_jax.work.operators.operator import Operator, refuse_unknown
from genz_jax.work.step import Deployment, Segment, Step, floor_div


def replica_batch(workload: Workload, deployment: Deployment) -> Number:
    """Requests of one data parallel replica: batch/dp in the mean; each runs its own iterations of chunked prefill."""
    if workload.prefill_chunks or workload.decode_chunks:
        return workload.batch
    return workload.batch / deployment.parallelism.dp


def micro_batch(workload: Workload, deployment: Deployment) -> Number:
    """Requests of one micro-batch: batch/(dp·m) in the mean, or as published max(⌊batch/(dp·m)⌋, 1)."""
    batch = replica_batch(workload, deployment)
    if deployment.assumptions.pipeline == "published":
        return jnp.maximum(floor_div(batch, micro_batches(workload, deployment)), 1.0)
    return batch / micro_batches(workload, deployment)


def micro_batches(workload: Workload, deployment: Deployment) -> Number:
    """Micro-batches m that a replica's batch is cut into: as many as stages by default, at most one per request."""
    parallelism = deployment.parallelism
    asked = parallelism.pp if parallelism.micro_batches is None else parallelism.micro_batches
    if deployment.assumptions.pipeline == "published":
        return asked
    return jnp.minimum(asked, replica_batch(workload, deployment))


def prefill_step(workload: Workload, deployment: Deployment) -> Step:
    """Process the prompts of one micro-batch and sample the first token of each.

    Of a share `cache_hit_rate` of the prompts, `cached_tokens` are in the KV cache already (prefix caching, arXiv
    2309.06180 and 2312.07104): their queries start behind these, and see them. A context parallel rank has 1/cp of the
    tokens of every prompt.
    """
    batch, tokens, parts = micro_batch(workload, deployment), workload.input_tokens, deployment.cp
    cached, hits = workload.cached_tokens, workload.cache_hit_rate
    segments = (Segment("", True, batch, tokens, tokens, prompt=True, parts=parts),)
    new, resumed = tokens, 0.0
    if cached is not None:
        segments = (
            Segment("", True, batch * (1.0 - hits), tokens, tokens, prompt=True, parts=parts),
            Segment("hit_", True, batch * hits, tokens - cached, tokens, prompt=True, parts=parts),
        )
        new, resumed = tokens - hits * cached, jnp.where(cached > 0, hits, 0.0)
    new = new / parts
    return Step("prefill", batch, new, embedded=new, sampled=1.0, states=batch, segments=segments, resumed=resumed)


def encode_step(model: Model, workload: Workload, deployment: Deployment) -> Step:
    """Process the whole sequences of one micro-batch and sample and cache nothing, as for embeddings.

    Of a bidirectional model (BERT, arXiv 1810.04805) every token sees all of its sequence.
    """
    batch, tokens, parts = micro_batch(workload, deployment), workload.input_tokens, deployment.cp
    segment = Segment("", True, batch, tokens, tokens, prompt=True, parts=parts, both_ways=model.bidirectional)
    own = tokens / parts
    return Step("encode", batch, own, embedded=own, sampled=0.0, states=batch, segments=(segment,), resumed=0.0)


def decode_step(workload: Workload, deployment: Deployment) -> Step:
    """Generate one token of every beam of one micro-batch.

    The beams of a request share the KV cache of its prompt. The generated part has n tokens when n − 1 were generated
    before. It stands for the mean over all steps, n = 1 … O, or to O − 1 where prefill has made the first token; or for
    the last one. Context parallel ranks attend to 1/cp of the cache each; the rest of the layers all of them run whole.
    """
    assumptions, beams = deployment.assumptions, workload.beams
    requests, prompt, generated = micro_batch(workload, deployment), workload.input_tokens, workload.output_tokens
    positions = None
    if assumptions.decode_position == "mean":
        steps = generated - 1.0 if assumptions.first_token_from_prefill else generated
        positions = (jnp.ones_like(steps), jnp.maximum(steps, 1.0))
    queries = 1.0 if assumptions.beams_share_queries else beams
    parts = deployment.cp
    segments = (
        Segment("prefix_", False, requests, queries, prompt, newer=generated, grows="newer", parts=parts),
        Segment("suffix_", False, requests * beams, 1.0, generated, grows="context", parts=parts),
    )
    sequences = requests * beams
    return Step(
        "decode",
        sequences,
        1.0,
        embedded=1.0,
        sampled=1.0,
        states=sequences,
        segments=segments,
        positions=positions,
    )


def chunked_step(workload: Workload, deployment: Deployment) -> Step:
    """One iteration of chunked prefill: chunks of prompts together with the decode steps of other requests.

    Context parallel ranks split the chunks' tokens; decoding tokens all of them run. Each data parallel replica runs
    such an iteration.
    """
    segments: list[Segment] = []
    new: Number = 0.0
    decoded: Number = 0.0
    prompts: Number = 0.0
    for i, chunk in enumerate(workload.prefill_chunks):
        context = chunk.past_tokens + chunk.new_tokens
        name, queries = f"prefill{i}_", chunk.new_tokens
        segments.append(Segment(name, True, 1.0, queries, context, kernel=name, prompt=True, parts=deployment.cp))
        new = new + chunk.new_tokens / deployment.cp
        prompts = prompts + jnp.where(chunk.new_tokens > 0, 1.0, 0.0)
    for i, chunk in enumerate(workload.decode_chunks):
        segments += _decode_segments(f"decode{i}_", chunk, deployment)
        decoded = decoded + chunk.sequences
    return Step(
        "chunked",
        1.0,
        new + decoded,
        embedded=new,
        sampled=decoded + prompts,
        states=jnp.maximum(decoded + prompts, 1.0),
        segments=tuple(segments),
    )


def _decode_segments(name: str, chunk: DecodeChunk, deployment: Deployment) -> tuple[Segment, Segment]:
    """Attention of decoding requests to what the sequences of a prompt share, and to what each has of its own."""
    shared, own, prompts, sequences = chunk.context_tokens, chunk.generated_tokens, chunk.prompts, chunk.sequences
    branches = own > 0
    if deployment.assumptions.beams_share_queries:
        # Published: one query per prompt for its beams, and one KV cache for the generated parts of all beams.
        prefix = jnp.where(branches, 1.0, prompts), jnp.where(branches, prompts, 1.0)
        suffix = 1.0, jnp.where(branches, sequences, 0.0)
    else:
        prefix = prompts, sequences / jnp.maximum(prompts, 1.0)
        suffix = jnp.where(branches, sequences, 0.0), 1.0
    parts = deployment.cp
    return (
        Segment(f"{name}prefix_", False, *prefix, context=shared, newer=own, kernel=name, parts=parts),
        Segment(f"{name}suffix_", False, *suffix, context=own, kernel=name, parts=parts),
    )


def verify_step(workload: Workload, tokens: Number, deployment: Deployment) -> Step:
    """Check `tokens` draft tokens of each sequence in one pass of the full model, at the end of the request.

    The pass samples after every draft token; with a bonus token also after the one that came before them.
    """
    assumptions, batch = deployment.assumptions, micro_batch(workload, deployment)
    if not assumptions.beams_share_queries:
        batch = batch * workload.beams
    if assumptions.bonus_token:
        tokens = tokens + 1.0
    name, past = "prefill0_", workload.input_tokens + workload.output_tokens
    segment = Segment(name, True, batch, tokens, past + tokens, kernel=name, parts=deployment.cp)
    return Step("chunked", batch, tokens, embedded=tokens, sampled=tokens, states=batch, segments=(segment,))


def _shared(op: Operator, part: Any) -> Operator:
    """The operator with its parameters spread over layers that share them."""
    if not hasattr(part, "tied_layers"):
        return op
    share = (part.layers - part.tied_layers) / xp.maximum(part.layers, 1.0)
    return op.replace(stored=op.stored * share, stored_as={field: held * share for field, held in op.stored_as.items()})


def layer_operators(
    name: str, part: Any, layer: Layer, hidden: Number, step: Step, deployment: Deployment
) -> list[Operator]:
    """Operators of all layers of one part of a model."""
    once = layer.operators(name, part, hidden, step, deployment)
    return [_shared(op, part).times(part.layers) for op in once]


def forward(model: Model, step: Step, deployment: Deployment) -> tuple[Operator, ...]:
    """Operators of one forward pass through all layers, in order, with how often each runs.

    Parts that the model lacks contribute nothing. With pp stages the hidden vectors of a micro-batch are sent pp − 1
    times.

    Raises:
        ValueError: a part of a kind without a `Layer`, an operator of no known component, or a message of a kind that
            has no time.
    """
    ops = embedding(model, step, deployment)
    for name, part, layer in layers_of(model):
        ops += layer_operators(name, part, layer, model.hidden_size, step, deployment)
    parallelism = deployment.parallelism
    ops += [
        point_to_point(
            "pipeline.send",
            "pipeline",
            elements=step.rows * model.hidden_size,
            ranks=parallelism.pp,
            precision=deployment.precision,
            stride=deployment.ranks * deployment.cp,
        )
    ]
    ops = tuple(ops) if step.mode == "encode" else (*ops, *head(model, step, deployment))
    for op in ops:
        refuse_unknown(op)
    return ops
