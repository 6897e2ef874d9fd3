"""Collectives: messages between the ranks that share a layer."""

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.specs import Precision
from genz_jax.work.operators.operator import Operator


def collective(
    kind: str,
    name: str,
    component: str,
    elements: Number,
    ranks: Number,
    precision: Precision,
    stride: Number,
    overlaps_with: tuple[str, ...] = (),
) -> Operator:
    """A message of that many elements on every rank, partial sums where it reduces; none where there is one rank.

    Args:
        kind: kind of the operator, whose time `machine.network` has.
        name: name of the operator.
        component: part of the breakdown, one of `COMPONENTS`.
        elements: elements that a rank holds.
        ranks: ranks that take part.
        precision: bytes per element.
        stride: devices between neighbouring ranks.
        overlaps_with: names of operators before it that it runs beside.
    """
    size = precision.accumulation if kind in ("all_reduce", "reduce_scatter") else precision.activations
    return Operator(
        name,
        kind,
        component,
        message=xp.where(ranks > 1, elements * size, 0.0),
        ranks=ranks,
        stride=stride,
        overlaps_with=overlaps_with,
        sizes={"elements": elements, "ranks": ranks},
    )


def all_reduce(
    name: str, component: str, *, elements: Number, ranks: Number, precision: Precision, stride: Number = 1.0
) -> Operator:
    """Sum a tensor of `elements` over all ranks: each holds the whole tensor before and after."""
    return collective("all_reduce", name, component, elements, ranks, precision, stride)


def all_gather(
    name: str, component: str, *, elements: Number, ranks: Number, precision: Precision, stride: Number = 1.0
) -> Operator:
    """Join the parts of a tensor: each rank holds `elements`/ranks before and `elements` after."""
    return collective("all_gather", name, component, elements, ranks, precision, stride)


def reduce_scatter(
    name: str, component: str, *, elements: Number, ranks: Number, precision: Precision, stride: Number = 1.0
) -> Operator:
    """Sum a tensor over all ranks and split it: each rank holds `elements` before and `elements`/ranks after."""
    return collective("reduce_scatter", name, component, elements, ranks, precision, stride)


def all_to_all(
    name: str, component: str, *, elements: Number, ranks: Number, precision: Precision, stride: Number = 1.0
) -> Operator:
    """Transpose over ranks: each rank holds `elements` and sends 1/ranks of them to every other."""
    return collective("all_to_all", name, component, elements, ranks, precision, stride)


def point_to_point(
    name: str, component: str, *, elements: Number, ranks: Number, precision: Precision, stride: Number = 1.0
) -> Operator:
    """Send a tensor of `elements` along a chain of ranks, as pipeline stages do: ranks − 1 messages."""
    op = collective("point_to_point", name, component, elements, ranks, precision, stride)
    return op.times(ranks - 1.0)


def ring(
    name: str,
    component: str,
    *,
    elements: Number,
    ranks: Number,
    precision: Precision,
    stride: Number = 1.0,
    overlaps_with: tuple[str, ...] = (),
) -> Operator:
    """Pass tensors of `elements` around a ring of ranks until each has seen all: ranks − 1 passes, all ranks at once.

    Args:
        name: name of the operator.
        component: part of the breakdown.
        elements: elements that a rank sends in one pass.
        ranks: ranks of the ring.
        precision: bytes per element.
        stride: devices between neighbouring ranks.
        overlaps_with: names of operators before it that it runs beside.
    """
    op = collective("ring", name, component, elements, ranks, precision, stride, overlaps_with)
    return op.times(ranks - 1.0)
