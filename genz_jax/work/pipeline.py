"""Pipeline stages as engines cut them: whole layers, the embedding on the first stage and the head on the last."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.specs import Model
from genz_jax.work.operators.operator import Operator
from genz_jax.work.step import Deployment, floor_div, shard

FIRST = ("embedding", "embedding.all_reduce")
"""Operators of the first stage beside its layers."""

LAST = ("head", "head.all_gather")
"""Operators of the last stage beside its layers."""


class Ends(eqx.Module):
    """An amount (bytes, seconds): all of it, and the parts of the embedding and of the head."""

    total: Number
    first: Number
    last: Number

    @property
    def layers(self) -> Number:
        """The part of the layers."""
        return self.total - self.first - self.last


def ends_of(ops: Sequence[Operator], amounts: Sequence[Number], total: Number | None = None) -> Ends:
    """Amounts of operators, summed by where the operators run; their total may be known."""
    first = xp.total(amount for op, amount in zip(ops, amounts, strict=True) if op.name in FIRST)
    last = xp.total(amount for op, amount in zip(ops, amounts, strict=True) if op.name in LAST)
    return Ends(xp.total(amounts) if total is None else total, first, last)


def shares(layers: Number, stages: Number) -> tuple[Number, Number, Number]:
    """Shares of the layers that the first, a middle and the last of p stages have.

    Each has ⌊L/p⌋ layers; one more have the r = L − p·⌊L/p⌋ stages that end with the last but one, so the first only
    where r = p − 1 and the last never (as vLLM's `get_pp_indices` cuts them). Layers of several kinds take turns
    evenly, so that a stage has the same share of each.
    """
    whole = floor_div(layers, stages)
    rest = layers - stages * whole
    more = jnp.where(rest >= 1.0, 1.0, 0.0)
    first = jnp.where(rest >= stages - 1.0, more, 0.0)
    return (whole + first) / layers, jnp.where(stages > 2.0, whole + more, whole) / layers, whole / layers


def stages_of(amount: Ends, layers: Number, deployment: Deployment) -> list[Number]:
    """The amount on the first, a middle and the last stage; all of it on each where there is one stage."""
    pp = deployment.parallelism.pp
    first, middle, last = shares(layers, pp)
    parts = (amount.layers * first + amount.first, amount.layers * middle, amount.layers * last + amount.last)
    return [jnp.where(pp > 1.0, part, amount.total) for part in parts]


def slowest(amount: Ends, layers: Number, deployment: Deployment) -> Number:
    """The largest amount on one stage; as published, the mean of all stages."""
    if deployment.assumptions.pipeline == "published":
        return amount.total / deployment.parallelism.pp
    first, middle, last = stages_of(amount, layers, deployment)
    return jnp.maximum(jnp.maximum(first, middle), last)


def tied_copy(model: Model, deployment: Deployment) -> Number:
    """Bytes of the matrix of tied embedding and head on the last stage, where the first is another one."""
    if not deployment.assumptions.gather_embedding:
        return 0.0
    matrix = shard(model.vocab_size, deployment.ranks) * model.hidden_size * deployment.precision.embedding
    tied = model.tied_embeddings if model.lm_head is None else model.tied_embeddings * model.lm_head
    return jnp.where(deployment.parallelism.pp > 1.0, matrix * tied, 0.0)
