"""Context parallelism: what ranks that share the tokens of a sequence send each other."""

from collections.abc import Sequence

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.work.operators.collectives import all_reduce, point_to_point, ring
from genz_jax.work.operators.operator import Operator
from genz_jax.work.step import Deployment, Segment, Step, ceil_div


def pass_keys(
    name: str,
    prompts: Sequence[Segment],
    elements: Number,
    window: Number | None,
    overlaps_with: tuple[str, ...],
    deployment: Deployment,
) -> list[Operator]:
    """Ring attention (arXiv 2310.01889, 2411.01783): ranks pass their block of keys and values around.

    After n − 1 passes every rank has seen the whole context. A pass runs beside the attention to the block that came
    before, so that of all passes only what is longer than (n − 1)/n of the attention's time counts. A window of w
    tokens ends within ⌈w/block⌉ passes, and no more than w tokens are sent in one.

    Args:
        name: name of the operator.
        prompts: prompts of one kernel, all of the same length.
        elements: elements of keys and values per token.
        window: tokens that a query sees at most; None for all.
        overlaps_with: names of the attention's operators.
        deployment: spread, formats and physics.
    """
    if deployment.parallelism.cp is None or not prompts:
        return []
    parts = deployment.cp
    again: Number = prompts[0].reread(None) if window is None else 0.0
    block: Number = (prompts[0].context + again) / parts
    sequences: Number = 0.0
    for segment in prompts:
        sequences = sequences + segment.batch
    share: Number = 1.0
    if window is not None and deployment.assumptions.causal:
        passes = xp.maximum(parts - 1.0, 1.0)
        share = xp.minimum(ceil_div(window, xp.where(block > 0, block, 1.0)), passes) / passes
        block = xp.minimum(block, window)
    op = ring(
        name,
        "attention_collectives",
        elements=sequences * block * elements,
        ranks=parts,
        precision=deployment.precision,
        stride=deployment.ranks,
        overlaps_with=overlaps_with,
    )
    return [op.times(share)]


def combine_outputs(name: str, step: Step, elements: Number, heads: Number, deployment: Deployment) -> list[Operator]:
    """Sum of the outputs of queries that met a part of the context on each rank, by all-reduce.

    Each rank scales its output by the exponent of its log-sum-exp, which travels with it: `elements` and one more for
    every head (split-KV attention, as in arXiv 2411.01783).

    Args:
        name: name of the layer.
        step: the forward pass.
        elements: elements of a head's output.
        heads: query heads on this rank.
        deployment: spread, formats and physics.
    """
    if deployment.parallelism.cp is None or all(segment.prompt for segment in step.segments):
        return []
    rows: Number = step.rows
    for segment in step.segments:
        if segment.prompt:
            rows = rows - segment.batch * segment.own_queries
    return [
        all_reduce(
            f"{name}.combine_outputs",
            "attention_collectives",
            elements=xp.maximum(rows, 0.0) * heads * (elements + 1.0),
            ranks=deployment.cp,
            precision=deployment.precision,
            stride=deployment.ranks,
        )
    ]


def pass_states(name: str, step: Step, state_bytes: Number, deployment: Deployment) -> list[Operator]:
    """Recurrent states of the prompts, sent from each rank to that with the next tokens (arXiv 2405.21060, 8.2).

    Ranks scan their tokens at once from an empty state; the state before them is added to their outputs afterwards.

    Args:
        name: name of the layer.
        step: the forward pass.
        state_bytes: bytes of a sequence's state on this rank.
        deployment: spread, formats and physics.
    """
    prompts = [segment for segment in step.segments if segment.prompt]
    if deployment.parallelism.cp is None or not prompts:
        return []
    sequences: Number = 0.0
    for segment in prompts:
        sequences = sequences + xp.where(segment.queries > 0, segment.batch, 0.0)
    op = point_to_point(
        f"{name}.pass_states",
        "ssm_collectives",
        elements=1.0,
        ranks=deployment.cp,
        precision=deployment.precision,
        stride=deployment.ranks,
    )
    sent = xp.where(deployment.cp > 1, sequences * state_bytes, 0.0)
    return [op.replace(message=sent)]
