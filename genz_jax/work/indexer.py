"""The indexer of sparse attention: its own work, and what it leaves for attention to see."""

import jax.numpy as jnp

from genz_jax.fields import Number
from genz_jax.specs import Indexer
from genz_jax.work.operators import Operator, attention_scores, gemm
from genz_jax.work.step import Deployment, Segment, Step
from genz_jax.work.vector import holding


def indexer(
    name: str, part: Indexer, layers: Number, hidden: Number, query_in: Number, step: Step, deployment: Deployment
) -> list[Operator]:
    """Operators of the indexer of sparse attention (arXiv 2512.02556), which every rank has whole.

    Queries of `heads` heads from an input of width `query_in`, one key per token and a weight per head, and the scores
    of all pairs; the keys have a cache of their own. Only `part.layers` of the `layers` have one, the others share it.
    """
    precision = deployment.precision
    heads, size = part.heads, part.head_dim
    linear = {"batch": step.sequences, "m": step.tokens, "precision": precision}
    columns = size + heads * part.head_weights
    key = gemm(f"{name}.index_k_proj", "attention_projections", n=columns, k=hidden, **linear)
    ops = [
        gemm(f"{name}.index_q_proj", "attention_projections", n=heads * size, k=query_in, **linear),
        holding(key, 2.0 * size, precision),
    ]
    for segment in step.segments:
        context, pairs = segment.seen(None, deployment.assumptions)
        ops.append(
            attention_scores(
                f"{name}.{segment.name}index_scores",
                batch=segment.batch,
                heads=heads,
                kv_heads=1.0,
                queries=segment.queries,
                context=context,
                pairs=pairs,
                head_dim=size,
                precision=precision,
            )
        )
    share = part.layers / jnp.maximum(layers, 1.0)
    return [op.times(share) for op in ops]


def selected(part: Indexer, segment: Segment, deployment: Deployment) -> tuple[Number, Number]:
    """Tokens of a stretch that are read, and (query, key) pairs of a sequence and head, where an indexer selects.

    A query sees as many tokens as in a window of that length; together the queries of a prompt read them all. Of the
    newest block, which is always selected, a query sees half in the mean: top_k − (block_size − 1)/2 tokens.
    """
    assumptions = deployment.assumptions
    window = part.top_k - (part.block_size - 1.0) / 2.0
    seen, pairs = segment.seen(jnp.where(part.top_k > 0, window, segment.context + segment.newer), assumptions)
    return (segment.seen(None, assumptions)[0] if segment.prefill else seen), pairs
