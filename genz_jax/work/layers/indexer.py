"""The indexer of sparse attention: its own work, and what it leaves for attention to see."""

from collections.abc import Sequence
from typing import Any

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.specs import Indexer
from genz_jax.work.layers.kernel import Visibility, over_positions
from genz_jax.work.layers.vector import with_parameters
from genz_jax.work.operators.operator import Operator
from genz_jax.work.operators.products import attention_scores, gemm
from genz_jax.work.step import Deployment, Segment, Step


def indexer(
    name: str, part: Indexer, layers: Number, hidden: Number, query_in: Number, step: Step, deployment: Deployment
) -> list[Operator]:
    """Operators of the indexer of sparse attention (arXiv 2512.02556), which every rank has whole.

    Queries of `heads` heads from an input of width `query_in`, one key per token and a weight per head, and the scores
    of all pairs; the keys have a cache of their own. Only `part.layers` of the `layers` have one, the others share it.
    """
    precision = deployment.precision
    heads, size = part.heads, part.head_dim
    linear: dict[str, Any] = {"batch": step.sequences, "m": step.tokens, "precision": precision}
    linear["layers"] = "attention"
    columns = size + heads * part.head_weights
    key = gemm(f"{name}.index_k_proj", "attention_projections", n=columns, k=hidden, **linear)
    ops = [
        gemm(f"{name}.index_q_proj", "attention_projections", n=heads * size, k=query_in, **linear),
        with_parameters(key, precision, norms=2.0 * size),
    ]

    def score(segments: Sequence[Segment]) -> list[Operator]:
        found = []
        for segment in segments:
            context, pairs = segment.seen(None, deployment.assumptions)
            found.append(
                attention_scores(
                    f"{name}.{segment.name}index_scores",
                    batch=segment.batch,
                    heads=heads,
                    kv_heads=1.0,
                    queries=segment.own_queries,
                    context=context + segment.reread(None),
                    pairs=pairs,
                    head_dim=size,
                    precision=precision,
                    cached=segment.batch * context * segment.own_share * size * precision.kv_cache,
                )
            )
        return found

    ops += over_positions(score, step.segments, step, None)
    share = part.layers / xp.maximum(layers, 1.0)
    return [op.times(share) for op in ops]


def selected(part: Indexer, step: Step, deployment: Deployment) -> Visibility:
    """Attention to the tokens that an indexer selects.

    A query sees as many tokens as in a window of that length; together the queries of a prompt read them all, and the
    cache holds all. Of the newest block, which is always selected, a query sees half in the mean: top_k −
    (block_size − 1)/2 tokens.
    """
    assumptions = deployment.assumptions
    every: Number = 0.0
    for segment in step.segments:
        every = every + segment.context + segment.newer
    window = xp.where(part.top_k > 0, part.top_k - (part.block_size - 1.0) / 2.0, every)

    def reads(segment: Segment) -> tuple[Number, Number, Number]:
        whole, _ = segment.seen(None, assumptions)
        seen, pairs = segment.seen(window, assumptions)
        return whole + segment.reread(None) if segment.prefill else seen, pairs, whole

    return Visibility(window, reads)
