"""Reasons: why a point does not run."""

import enum

import jax.numpy as jnp
from jaxtyping import Array, Int8

from genz_jax.base.fields import Number


class Reason(enum.IntEnum):
    """Why a point has no figures; where several hold, the first."""

    feasible = 0
    heads_not_divisible = 1
    experts_not_divisible = 2
    no_experts_for_ep = 3
    pp_beyond_layers = 4
    network_too_small = 5
    does_not_fit = 6
    kv_heads_not_divisible = 7
    top_k_beyond_experts = 8
    dp_beyond_batch = 9
    cp_beyond_tokens = 10
    cached_beyond_prompt = 11
    chunks_do_not_agree = 12
    no_head = 13


REASONS = {
    Reason.feasible: "runs",
    Reason.heads_not_divisible: "tp·ep does not divide the heads or channels",
    Reason.experts_not_divisible: "ep does not divide the experts",
    Reason.no_experts_for_ep: "ep above 1 for a model without experts",
    Reason.pp_beyond_layers: "more pipeline stages than layers",
    Reason.network_too_small: "more devices than the network joins",
    Reason.does_not_fit: "weights, KV cache and working memory exceed the memory",
    Reason.kv_heads_not_divisible: "the key-value heads do not divide the query heads",
    Reason.top_k_beyond_experts: "a token takes more experts than there are",
    Reason.dp_beyond_batch: "more data parallel replicas than requests",
    Reason.cp_beyond_tokens: "more context parallel ranks than prompt tokens",
    Reason.cached_beyond_prompt: "all of the prompt is cached, but prefill runs at least its last token",
    Reason.no_head: "an embedding model or encoder generates nothing: its stage is encode",
    Reason.chunks_do_not_agree: "a chunk without tokens or KV length, or prompts that do not divide their sequences",
}


def first_reason(*rules: tuple[Number, Reason]) -> Int8[Array, "..."]:
    """Code of the first rule that is broken, 0 if none."""
    code = jnp.int8(Reason.feasible)
    for broken, reason in reversed(rules):
        if broken is False:
            continue
        code = jnp.where(broken, jnp.int8(reason), code)
    return code
