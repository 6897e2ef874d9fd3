"""Vector work that layers of every kind share."""

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
    return [norm(f"{name}.norm", rows=step.rows, width=width, precision=precision, stored=stored).counted_as("norms")]


def with_parameters(op: Operator, precision: Precision, own: Number = 0.0, norms: Number | None = None) -> Operator:
    """Add replicated parameters to what an operator stores.

    Args:
        op: the operator, a linear layer or a convolution.
        precision: bytes per element.
        own: biases and the like, in the format of the operator's weights.
        norms: small norms inside the layer, in that of all norms.
    """
    more = own * precision.weight_bytes(op.operand)
    if norms is None:
        return op.replace(stored=op.stored + more)
    inner = norms * precision.weights
    return op.replace(stored=op.stored + (more + inner), stored_as=op.stored_as | {"norms": inner})
