"""Whether a model can be spread as asked, and why not."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int8

from genz_jax.base.fields import Number
from genz_jax.specs import Model, Workload
from genz_jax.specs.reasons import Reason, first_reason
from genz_jax.work.step import Deployment, shard


def _uneven(size: Number, parts: Number) -> Number:
    """True where `parts` does not divide `size`."""
    return jnp.floor(size / parts) * parts != size


def generates_nothing(model: Model) -> Bool[Array, "..."]:
    """Whether a model only encodes: without a language model head, or with tokens that see those after them too."""
    headless = False if model.lm_head is None else model.lm_head <= 0
    both_ways = False if model.bidirectional is None else model.bidirectional > 0
    return jnp.logical_or(headless, both_ways)


def mapping_reason(
    model: Model, deployment: Deployment, workload: Workload | None = None, encodes: bool = False
) -> Int8[Array, "..."]:
    """Code of the first rule that parallelism breaks, 0 if none.

    Query heads must divide over T = tp·ep ranks and key-value heads divide or be replicated evenly; or, where uneven
    shards are assumed, the larger shard's query heads must be a multiple of its key-value heads. The same holds for
    the heads or channels of state space layers; experts must divide over ep; pp is at most the number of layers. The
    model itself is at fault where its key-value heads do not divide its query heads, or top_k exceeds the experts.
    Every data parallel replica needs a request and every context parallel rank a token of the prompt; iterations of
    chunked prefill are free of these two rules, since each replica runs one. Of a cached prompt at least the last
    token is left to run. A model without a language model head, or one that sees both ways, only encodes.
    """
    ranks, parallelism = deployment.ranks, deployment.parallelism
    even = deployment.assumptions.even_sharding
    heads: Number = False
    groups: Number = False
    for part in (model.attention, model.local_attention, model.sparse_attention):
        if part is None:
            continue
        if even:
            bad = _uneven(part.heads, ranks) | (_uneven(part.kv_heads, ranks) & _uneven(ranks, part.kv_heads))
            groups = groups | (_uneven(part.heads, part.kv_heads) & (part.layers > 0))
        else:
            bad = _uneven(shard(part.heads, ranks), shard(part.kv_heads, ranks))
        heads = heads | (bad & (part.layers > 0))
    split = [
        (model.latent_attention, "heads"),
        (model.compressed_attention, "heads"),
        (model.ssm, "d_inner"),
        (model.ssd, "heads"),
        (model.delta_net, "value_heads"),
        (model.linear_attention, "heads"),
        (model.short_convolution, "channels"),
    ]
    for part, size in split:
        if part is not None and even:
            heads = heads | (_uneven(getattr(part, size), ranks) & (part.layers > 0))
    moe, ep = model.moe, parallelism.ep
    experts = False if moe is None else _uneven(moe.experts, ep) & (moe.layers > 0)
    dense = (ep > 1) if moe is None else (ep > 1) & (moe.layers <= 0)
    deep = parallelism.pp > model.layers
    greedy = False if moe is None else (moe.top_k > moe.experts) & (moe.layers > 0)
    idle: Number = False
    short: Number = False
    cached: Number = False
    if workload is not None and not (workload.prefill_chunks or workload.decode_chunks):
        idle = parallelism.dp > workload.batch
        short = deployment.cp > workload.input_tokens
        if workload.cached_tokens is not None:
            cached = workload.cached_tokens >= workload.input_tokens
    chunks = False if workload is None else _chunks_disagree(workload)
    return first_reason(
        (False if encodes else generates_nothing(model), Reason.no_head),
        (groups, Reason.kv_heads_not_divisible),
        (greedy, Reason.top_k_beyond_experts),
        (heads, Reason.heads_not_divisible),
        (experts, Reason.experts_not_divisible),
        (dense, Reason.no_experts_for_ep),
        (deep, Reason.pp_beyond_layers),
        (idle, Reason.dp_beyond_batch),
        (short, Reason.cp_beyond_tokens),
        (cached, Reason.cached_beyond_prompt),
        (chunks, Reason.chunks_do_not_agree),
    )


def _chunks_disagree(workload: Workload) -> Number:
    """True where an iteration has no tokens, or a decode chunk's prompts and lengths do not fit its sequences."""
    if not (workload.prefill_chunks or workload.decode_chunks):
        return False
    tokens: Number = 0.0
    bad: Number = False
    for chunk in workload.prefill_chunks:
        tokens = tokens + chunk.new_tokens
    for chunk in workload.decode_chunks:
        tokens = tokens + chunk.sequences
        # A chunk of no sequences pads the others of a list.
        bare = (chunk.context_tokens + chunk.generated_tokens < 1) | (chunk.prompts < 1)
        uneven = _uneven(chunk.sequences, jnp.maximum(chunk.prompts, 1.0))
        bad = bad | ((chunk.sequences > 0) & bare) | uneven | (chunk.prompts > chunk.sequences)
    return bad | (tokens < 1)
