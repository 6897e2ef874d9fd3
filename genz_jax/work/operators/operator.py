"""Operators: from sizes to FLOPs, bytes of each tensor and where it lives, and message bytes.

Conventions: a multiply-accumulate is 2 FLOPs. Sizes are floats or arrays that broadcast together. `input`, `weight` and
`output` are the bytes of an operator's two operands and its result; `on_chip` names those that never leave the chip,
by their initials ("io" is input and output). The keys and values of attention are the `weight` of their operators.
"""

import dataclasses
from typing import Any, Literal

import equinox as eqx
import jax

from genz_jax.base.fields import Number
from genz_jax.specs import Layers

Operand = Layers | Literal["kv_cache", "activations"]
COLLECTIVES = {"all_reduce", "all_gather", "reduce_scatter", "all_to_all", "point_to_point", "ring"}
"""Kinds of operators that are messages between ranks; `machine.network.collective` adds others."""

COMPONENTS = {
    "embedding": "input embedding",
    "head": "language model head",
    "embedding_collectives": "collectives of embedding and head",
    "attention_projections": "query, key, value and output projections",
    "attention_core": "attention scores and values",
    "attention_collectives": "collectives of attention layers",
    "ssm_projections": "projections of state space layers",
    "ssm_scan": "convolution and scan of state space layers",
    "ssm_collectives": "collectives of state space layers",
    "ffn": "feed-forward layers, experts and router",
    "ffn_all_reduce": "all-reduces of feed-forward layers",
    "ffn_all_to_all": "all-to-alls and gathers of expert parallelism",
    "vector": "norms, activations, rotations and residuals",
    "pipeline": "messages between pipeline stages",
}
"""Parts of a stage's latency, by the name that an operator's `component` has."""


_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)  # a hundredth of the time that a module takes to make
class Operator:
    """One operator on one device, and how often it runs.

    Attributes:
        name: what it is, unique within a layer.
        kind: its kind, which decides what hardware runs it: one of `COLLECTIVES`, `vector`, or a kind of product.
        kernel: what runs it, for platforms with measured kernels: a field of `Kernels`, without the format of products.
        component: the part of the breakdown that it counts for, one of `COMPONENTS`.
        on_chip: initials of the tensors that stay on chip.
        operand: what tensor the second operand is, which decides the format of the arithmetic.
        repeats: times it runs in a stage.
        flops: floating point operations of one run.
        input: bytes of the first operand.
        weight: bytes of the second operand.
        output: bytes of the result.
        message: bytes that each rank of a collective holds.
        ranks: ranks of the collective.
        stride: devices between neighbouring ranks, 1 for the innermost parallelism.
        overlaps_with: names of operators before it that a ring runs beside; (n − 1)/n of their time overlaps_with it.
        stored: bytes of parameters that it keeps in memory.
        stored_as: those of these bytes that are no parameters of the layer's usual field of `ParameterCount`, by the
            name of their field ("norms", "router").
        cached: bytes of KV cache or state that it keeps in memory.
        sizes: its dimensions by name.
        position_ranges: for the mean over many decode positions, the ranges of them within which the work is linear in
            the position.
    """

    name: str = dataclasses.field(metadata=_STATIC)
    kind: str = dataclasses.field(metadata=_STATIC)
    component: str = dataclasses.field(metadata=_STATIC)
    on_chip: str = dataclasses.field(metadata=_STATIC, default="")
    operand: Operand = dataclasses.field(metadata=_STATIC, default="weights")
    kernel: str = dataclasses.field(metadata=_STATIC, default="")
    repeats: Number = 1.0
    flops: Number = 0.0
    input: Number = 0.0
    weight: Number = 0.0
    output: Number = 0.0
    message: Number = 0.0
    ranks: Number = 1.0
    stride: Number = 1.0
    overlaps_with: tuple[str, ...] = dataclasses.field(metadata=_STATIC, default=())
    stored: Number = 0.0
    stored_as: dict[str, Number] = dataclasses.field(default_factory=dict)
    cached: Number = 0.0
    sizes: dict[str, Number] = dataclasses.field(default_factory=dict)
    position_ranges: "tuple[PositionRange, ...]" = ()

    def times(self, repeats: Number) -> "Operator":
        """This operator, run `repeats` times as often."""
        return self.replace(repeats=self.repeats * repeats)

    def replace(self, **changes: Any) -> "Operator":
        """This operator with other values of some fields."""
        return dataclasses.replace(self, **changes)

    def counted_as(self, field: str) -> "Operator":
        """This operator, all of whose parameters count for one field of `ParameterCount`."""
        return self.replace(stored_as={field: self.stored})


def refuse_unknown(op: Operator) -> None:
    """Raise ValueError for an operator that no part of the breakdown or no collective stands for."""
    if op.component not in COMPONENTS:
        raise ValueError(
            f"operator {op.name}: its component {op.component!r} is none of {', '.join(COMPONENTS)}; add it to "
            "COMPONENTS of genz_jax.work.operators.operator, with what it is"
        )
    if op.kind not in COLLECTIVES and not (isinstance(op.message, float) and op.message == 0.0):
        raise ValueError(
            f"operator {op.name}: messages of the kind {op.kind!r} have no time; register one with "
            f"genz_jax.machine.network.collective({op.kind!r}), or use one of {', '.join(sorted(COLLECTIVES))}"
        )


class PositionRange(eqx.Module):
    """A range of decode positions within which an operator's work is linear, by its first and its last position.

    Attributes:
        share: the range's share of all positions.
        count: number of its positions.
        first: the operator at the first position.
        last: the operator at the last position.
    """

    share: Number
    count: Number
    first: Operator
    last: Operator
