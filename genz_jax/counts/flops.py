"""FLOPs: how many one forward pass of a model takes, by operator, in closed form."""

import dataclasses
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from genz_jax import catalog
from genz_jax.base.axes import Axis
from genz_jax.base.fields import Number
from genz_jax.labelled.inputs import refuse_to_generate
from genz_jax.serving.stage import as_arrays
from genz_jax.specs import Model, Parallelism, Precision, Workload
from genz_jax.specs.assumptions import Assumptions, preset
from genz_jax.work.operators.operator import COLLECTIVES, Operator
from genz_jax.work.step import Deployment, Step
from genz_jax.work.steps import chunked_step, decode_step, encode_step, forward, prefill_step

STEPS: dict[str, Callable[[Model, Workload, Deployment], Step]] = {
    "prefill": lambda _, workload, deployment: prefill_step(workload, deployment),
    "decode": lambda _, workload, deployment: decode_step(workload, deployment),
    "chunked": lambda _, workload, deployment: chunked_step(workload, deployment),
    "encode": encode_step,
}
"""The forward pass of each stage."""


_ATTENTION = ("attention", "attention_scores", "attention_values")


@dataclasses.dataclass(frozen=True)
class FlopCount:
    """FLOPs of one forward pass through all layers; a multiply-accumulate is 2.

    Attributes:
        operators: FLOPs of each operator by name, over all layers that have it.
        kinds: kind of each operator by name.
    """

    operators: dict[str, Number]
    kinds: dict[str, str]

    @property
    def total(self) -> Number:
        """FLOPs of the pass."""
        return _sum(self.operators.values())

    @property
    def gemm(self) -> Number:
        """FLOPs of products of activations with weights: projections, feed-forward layers, experts, router, head."""
        return self._of("gemm")

    @property
    def attention(self) -> Number:
        """FLOPs of attention scores and values."""
        return self._of(*_ATTENTION)

    @property
    def vector(self) -> Number:
        """FLOPs of all else: norms, activations, rotations, convolutions and scans."""
        return self._of(*(set(self.kinds.values()) - {"gemm", *_ATTENTION}))

    def _of(self, *kinds: str) -> Number:
        return _sum(flops for name, flops in self.operators.items() if self.kinds[name] in kinds)

    def __str__(self) -> str:
        rows = [*self.operators.items(), *((name, getattr(self, name)) for name in ("gemm", "attention", "vector"))]
        rows += [("total", self.total)]
        width = max(len(name) for name, _ in rows) + 2
        return "\n".join(
            f"{name:<{width}}" + (f"{value}" if isinstance(value, Tracer) else f"{value:>26,.0f}")
            for name, value in rows
        )


def flop_count(
    model: str | Model,
    workload: Workload,
    stage: str = "prefill",
    assumptions: str | Assumptions | None = None,
) -> FlopCount:
    """Count the FLOPs of one forward pass of the whole model, before any sharding.

    A decode step is the one that makes the last output token: one query per sequence sees input_tokens + output_tokens
    tokens, its own included, whatever `Assumptions.decode_position` says. GEMM and attention FLOPs are those that
    PyTorch's `FlopCounterMode` counts, where attention is causal=False and the head sees all tokens
    (last_token_head=False). They are exact for whole numbers up to 2^53.

    Args:
        model: name in the catalogue, or a model; its numbers are single.
        workload: batch and lengths, or the chunks of a chunked stage.
        stage: prefill (all prompts), decode (one token of each sequence), chunked (one iteration) or encode (all
            sequences, without a head; of an encoder every token sees all of its sequence).
        assumptions: "default", "genz", or a `gz.Assumptions`; by default "default".

    Returns:
        The FLOPs, as Python floats (JAX arrays under `jax.jit` or `jax.grad`).

    Raises:
        ValueError: an unknown name or stage, numbers that are axes or arrays, a chunked stage without chunks, or an
            embedding model or encoder for a stage that generates.

    Example:
        >>> import genz_jax as gz
        >>> one, two = (gz.flop_count("llama-3.1-8b", gz.Workload(batch, 2048)).total for batch in (1, 2))
        >>> two / one
        2.0
    """
    spec = catalog.model(model) if isinstance(model, str) else model
    if not isinstance(spec, Model):
        raise ValueError(f"model = {model!r}: must be a name or a gz.Model")
    if not isinstance(workload, Workload):
        raise ValueError(f"workload = {workload!r}: must be a gz.Workload")
    if stage not in STEPS:
        raise ValueError(f"stage = {stage!r}: must be one of {', '.join(STEPS)}")
    if stage == "chunked" and not (workload.prefill_chunks or workload.decode_chunks):
        raise ValueError(
            "Workload.prefill_chunks and decode_chunks are empty: a chunked stage needs at least one chunk"
        )
    if stage != "encode":
        refuse_to_generate(spec, spec.name)
    for name, part in (("model", spec), ("workload", workload)):
        for keys, leaf in jax.tree_util.tree_leaves_with_path(part, is_leaf=lambda x: isinstance(x, Axis)):
            if isinstance(leaf, Axis) or np.ndim(leaf):
                path = jax.tree_util.keystr(keys, simple=True, separator=".")
                raise ValueError(f"{name}.{path} = {leaf!r}: must be a single number; flop_count takes one point")
    physics = preset("default" if assumptions is None else assumptions).replace(decode_position="last")
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((spec, workload))):
        return _count(spec, workload, stage, physics)
    with jax.enable_x64(True):
        count = _count(spec, workload, stage, physics)
        flops = {name: float(value) for name, value in count.operators.items()}
    flops = {name: value for name, value in flops.items() if value}
    return FlopCount(flops, {name: count.kinds[name] for name in flops})


def _count(model: Model, workload: Workload, stage: str, assumptions: Assumptions) -> FlopCount:
    """FLOPs of every operator that is no collective, in JAX's default float type."""
    model, workload, spread, formats = as_arrays((model, workload, Parallelism(), Precision()))
    deployment = Deployment(spread, formats, assumptions)
    ops: tuple[Operator, ...] = forward(model, STEPS[stage](model, workload, deployment), deployment)
    ops = tuple(op for op in ops if op.kind not in COLLECTIVES)
    return FlopCount({op.name: jnp.asarray(op.flops * op.repeats) for op in ops}, {op.name: op.kind for op in ops})


def _sum(values: Iterable[Number]) -> Number:
    total: Number = 0.0
    for value in values:
        total = total + value
    return total
