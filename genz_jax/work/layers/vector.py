"""Vector work that layers of every kind share."""

import equinox as eqx

from genz_jax.base.fields import Number
from genz_jax.specs import Precision
from genz_jax.work.operators.elementwise import norm
from genz_jax.work.operators.operator import Operator
from genz_jax.work.step import Deployment, Step


def pre_norm(name: str, step: Step, width: Number, deployment: Deployment, norms: Number = 1.0) -> list[Operator]:
    """The norm before a layer, with the residual addition fused, where vector operators count.

    Args:
        name: name of the layer.
        step: the forward pass.
        width: width of the input.
        deployment: spread, formats and physics.
        norms: vectors of that width that the layer's norms hold.
    """
    if not deployment.assumptions.vector_operators:
        return []
    precision = deployment.precision
    stored = norms * width * precision.weights
    return [norm(f"{name}.norm", rows=step.rows, width=width, precision=precision, stored=stored)]


def holding(op: Operator, precision: Precision, own: Number = 0.0, norms: Number = 0.0) -> Operator:
    """The operator with that many parameters more in memory, which each rank has whole.

    Args:
        op: the operator, a linear layer or a convolution.
        precision: bytes per element.
        own: biases and the like, in the format of the operator's weights.
        norms: small norms inside the layer, in that of all norms.
    """
    more = own * precision.weight_bytes(op.operand) + norms * precision.weights
    return eqx.tree_at(lambda o: o.stored, op, op.stored + more)
