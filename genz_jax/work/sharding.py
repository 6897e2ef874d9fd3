"""Whether a model can be spread and run as asked, and why not: one `Rule` for each thing that cannot."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Array, Int8

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.specs import Model, Workload
from genz_jax.specs.reasons import Reason, first_reason
from genz_jax.work.layers.registry import Layer, layers_of
from genz_jax.work.step import Deployment, shard


@dataclasses.dataclass(frozen=True)
class Rule:
    """One thing that cannot run.

    Attributes:
        reason: its code.
        broken: whether a model, a deployment and a workload (or None) break it; numbers may be arrays that broadcast.
        message: what names field, value, rule and fix, from the model, the deployment and the workload of one point
            that breaks it, and the model's name.
    """

    reason: Reason
    broken: Callable[[Model, Deployment, Workload | None], Number]
    message: Callable[[Model, Deployment, Workload, str], str]


def mapping_reason(
    model: Model, deployment: Deployment, workload: Workload | None = None, encodes: bool = False
) -> Int8[Array, "..."]:
    """Code of the first of `RULES` that is broken, 0 if none.

    Args:
        model: the model.
        deployment: how it is spread.
        workload: the requests; without them the rules on requests hold.
        encodes: the pass only encodes, which a model without a language model head can.
    """
    rules = (rule for rule in RULES.values() if not (encodes and rule.reason is Reason.no_head))
    return first_reason(*((rule.broken(model, deployment, workload), rule.reason) for rule in rules))


def generates_nothing(model: Model) -> Number:
    """Whether a model only encodes: without a language model head, or with tokens that see those after them too."""
    headless = False if model.lm_head is None else model.lm_head <= 0
    both_ways = False if model.bidirectional is None else model.bidirectional > 0
    return xp.logical_or(headless, both_ways)


def why_nothing_is_generated(model: Model, name: str) -> str:
    """Message for a model, or a stacked list of models, of which none generates."""
    if model.lm_head is not None and np.all(model.lm_head <= 0):
        why = "has no language model head (lm_head = 0)"
    elif model.bidirectional is not None and np.all(model.bidirectional > 0):
        why = "sees both ways (bidirectional = 1)"
    else:
        why = "are embedding models and encoders"
    name = " ".join(name.split()) or "the model"
    name = name if len(name) <= 120 else f"{name[:119]}…"
    return f"model = {name!r}: {why} and generates nothing; use stage='encode'"


def _uneven(size: Number, parts: Number) -> Number:
    """True where `parts` does not divide `size`."""
    return xp.floor(size / parts) * parts != size


def _single(value: Any) -> float:
    return float(np.max(value))


# ---------------------------------------------------------------------------------------------------- the model itself


def _key_value_heads(model: Model, deployment: Deployment, workload: Workload | None) -> Number:
    """Key-value heads must divide query heads; with uneven shards it is the rule on heads that tells."""
    broken: Number = False
    if deployment.assumptions.even_sharding:
        for _, part, layer in layers_of(model):
            for size in layer.sharded[1:]:
                uneven = _uneven(getattr(part, layer.sharded[0]), getattr(part, size))
                broken = broken | (uneven & (part.layers > 0))
    return broken


def _key_value_heads_message(model: Model, deployment: Deployment, workload: Workload, name: str) -> str:
    sizes = [
        f"{kind}.{size} = {_single(getattr(part, size)):g}: must divide {layer.sharded[0]} = "
        f"{_single(getattr(part, layer.sharded[0])):g}"
        for kind, part, layer in layers_of(model)
        for size in layer.sharded[1:]
    ]
    return f"Model.{'; '.join(sizes)} of {name}"


def _with_experts(model: Model) -> list[tuple[str, Any, Layer]]:
    return [found for found in layers_of(model) if found[2].experts]


def _top_k(model: Model, deployment: Deployment, workload: Workload | None) -> Number:
    """A token takes at most all experts."""
    broken: Number = False
    for _, part, _ in _with_experts(model):
        broken = broken | ((part.top_k > part.experts) & (part.layers > 0))
    return broken


def _top_k_message(model: Model, deployment: Deployment, workload: Workload, name: str) -> str:
    told = [
        f"{kind}.top_k = {_single(part.top_k):g}: at most the {_single(part.experts):g} experts"
        for kind, part, _ in _with_experts(model)
    ]
    return f"Model.{'; '.join(told)} of {name}"


# ------------------------------------------------------------------------------------------------ how it is spread


def _heads(model: Model, deployment: Deployment, workload: Workload | None) -> Number:
    """Heads or channels must divide over T = tp·ep ranks, and key-value heads divide or be replicated evenly.

    Where uneven shards are assumed, the larger shard's query heads must be a multiple of its key-value heads.
    """
    ranks, even = deployment.ranks, deployment.assumptions.even_sharding
    broken: Number = False
    for _, part, layer in layers_of(model):
        bad: Number = False
        for i, name in enumerate(layer.sharded):
            size = getattr(part, name)
            if even:
                bad = bad | (_uneven(size, ranks) & (_uneven(ranks, size) if i else True))
            elif i:
                bad = bad | _uneven(shard(getattr(part, layer.sharded[0]), ranks), shard(size, ranks))
        broken = broken | (bad & (part.layers > 0))
    return broken


def _heads_message(model: Model, deployment: Deployment, workload: Workload, name: str) -> str:
    sizes = [
        f"{kind}.{size} = {_single(getattr(part, size)):g}"
        for kind, part, layer in layers_of(model)
        for size in layer.sharded
    ]
    ranks = _single(deployment.ranks)
    return f"Parallelism.tp·ep = {ranks:g}: must divide {', '.join(sizes)} of {name}; choose a divisor"


def _experts(model: Model, deployment: Deployment, workload: Workload | None) -> Number:
    """Experts must divide over ep."""
    broken: Number = False
    for _, part, _ in _with_experts(model):
        broken = broken | (_uneven(part.experts, deployment.parallelism.ep) & (part.layers > 0))
    return broken


def _experts_message(model: Model, deployment: Deployment, workload: Workload, name: str) -> str:
    experts = " or ".join(f"{_single(part.experts):g}" for _, part, _ in _with_experts(model))
    return f"Parallelism.ep = {_single(deployment.parallelism.ep):g}: must divide the {experts} experts of {name}"


def _no_experts(model: Model, deployment: Deployment, workload: Workload | None) -> Number:
    """A model without experts has ep = 1."""
    broken = deployment.parallelism.ep > 1
    for _, part, _ in _with_experts(model):
        broken = broken & (part.layers <= 0)
    return broken


# ------------------------------------------------------------------------------------------------ what is asked of it


def _of_requests(broken: Callable[[Workload, Deployment], Number]) -> Callable[..., Number]:
    """A rule on requests, of which iterations of chunked prefill are free: each replica runs one."""

    def rule(model: Model, deployment: Deployment, workload: Workload | None) -> Number:
        if workload is None or workload.prefill_chunks or workload.decode_chunks:
            return False
        return broken(workload, deployment)

    return rule


def _all_cached(workload: Workload, deployment: Deployment) -> Number:
    """Of a cached prompt at least the last token is left to run."""
    return False if workload.cached_tokens is None else workload.cached_tokens >= workload.input_tokens


def _all_cached_message(model: Model, deployment: Deployment, workload: Workload, name: str) -> str:
    cached, prompt = _single(workload.cached_tokens), _single(workload.input_tokens)
    return f"Workload.cached_tokens = {cached:g}: at most {prompt - 1:g} of the {prompt:g} prompt tokens"


def _chunks_disagree(model: Model, deployment: Deployment, workload: Workload | None) -> Number:
    """True where an iteration has no tokens, or a decode chunk's prompts and lengths do not fit its sequences."""
    if workload is None or not (workload.prefill_chunks or workload.decode_chunks):
        return False
    tokens: Number = 0.0
    bad: Number = False
    for chunk in workload.prefill_chunks:
        tokens = tokens + chunk.new_tokens
    for chunk in workload.decode_chunks:
        tokens = tokens + chunk.sequences
        # A chunk of no sequences pads the others of a list.
        bare = (chunk.context_tokens + chunk.generated_tokens < 1) | (chunk.prompts < 1)
        uneven = _uneven(chunk.sequences, xp.maximum(chunk.prompts, 1.0))
        bad = bad | ((chunk.sequences > 0) & bare) | uneven | (chunk.prompts > chunk.sequences)
    return bad | (tokens < 1)


RULES = {
    rule.reason: rule
    for rule in (
        Rule(
            Reason.no_head,
            lambda model, deployment, workload: generates_nothing(model),
            lambda model, deployment, workload, name: why_nothing_is_generated(model, name),
        ),
        Rule(Reason.kv_heads_not_divisible, _key_value_heads, _key_value_heads_message),
        Rule(Reason.top_k_beyond_experts, _top_k, _top_k_message),
        Rule(Reason.heads_not_divisible, _heads, _heads_message),
        Rule(Reason.experts_not_divisible, _experts, _experts_message),
        Rule(
            Reason.no_experts_for_ep,
            _no_experts,
            lambda model, deployment, workload, name: (
                f"Parallelism.ep = {_single(deployment.parallelism.ep):g}: {name} has no experts to spread; "
                "use ep=1, and tp or pp instead"
            ),
        ),
        Rule(
            Reason.pp_beyond_layers,
            lambda model, deployment, workload: deployment.parallelism.pp > model.layers,
            lambda model, deployment, workload, name: (
                f"Parallelism.pp = {_single(deployment.parallelism.pp):g}: at most the {_single(model.layers):g} "
                f"layers of {name}"
            ),
        ),
        Rule(
            Reason.dp_beyond_batch,
            _of_requests(lambda workload, deployment: deployment.parallelism.dp > workload.batch),
            lambda model, deployment, workload, name: (
                f"Parallelism.dp = {_single(deployment.parallelism.dp):g}: at most the batch of "
                f"{_single(workload.batch):g}; each replica needs one"
            ),
        ),
        Rule(
            Reason.cp_beyond_tokens,
            _of_requests(lambda workload, deployment: deployment.cp > workload.input_tokens),
            lambda model, deployment, workload, name: (
                f"Parallelism.cp = {_single(deployment.cp):g}: at most the {_single(workload.input_tokens):g} "
                "prompt tokens"
            ),
        ),
        Rule(Reason.cached_beyond_prompt, _of_requests(_all_cached), _all_cached_message),
        Rule(
            Reason.chunks_do_not_agree,
            _chunks_disagree,
            lambda model, deployment, workload, name: "Workload.prefill_chunks and decode_chunks do not agree",
        ),
    )
}
"""Rules by reason; where several are broken, the first tells."""
