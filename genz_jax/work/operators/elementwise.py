"""Operators of the vector units, which wait for memory: element by element, norms, activations, scans."""

from genz_jax.base.fields import Number
from genz_jax.specs import Precision
from genz_jax.work.operators.operator import Operator


def elementwise(
    name: str,
    *,
    elements: Number,
    reads: Number,
    writes: Number,
    flops_per_element: Number,
    precision: Precision,
    component: str = "vector",
    kernel: str = "vector",
) -> Operator:
    """Map tensors element by element, bound by memory: `reads` tensors in and `writes` out, `elements` each.

    FLOPs = flops_per_element·elements, run by the vector units, which take no time of their own.
    """
    tensor = elements * precision.activations
    return Operator(
        name,
        "vector",
        component,
        kernel=kernel,
        flops=flops_per_element * elements,
        input=reads * tensor,
        output=writes * tensor,
        sizes={"elements": elements},
    )


def norm(name: str, *, rows: Number, width: Number, precision: Precision, stored: Number = 0.0) -> Operator:
    """RMS or layer norm of `rows` vectors, with the residual addition before it fused.

    Reads the residual and the branch, writes the sum and the normed vector: 2 tensors in, 2 out. 5 FLOPs per element:
    add, square, accumulate, scale, gain.
    """
    sizes = {"elements": rows * width, "reads": 2.0, "writes": 2.0, "flops_per_element": 5.0}
    return elementwise(name, **sizes, precision=precision, kernel="norm").replace(stored=stored)


def activation(name: str, *, elements: Number, inputs: Number, precision: Precision) -> Operator:
    """Activation of a feed-forward layer; with two inputs, gated: act(gate)·up. Writes one tensor of `elements`.

    FLOPs: 4 per element for the function (exponential, addition, division and product of a SiLU), 1 for the gate.
    """
    op = elementwise(name, elements=elements, reads=1.0, writes=1.0, flops_per_element=4.0, precision=precision)
    op = op.replace(kernel="activation")
    return op.replace(input=inputs * elements * precision.activations, flops=(3.0 + inputs) * elements)


def softmax(name: str, *, rows: Number, width: Number, precision: Precision) -> Operator:
    """Softmax of `rows` vectors that is not fused into attention, as over router logits or a vocabulary.

    One read and one write of rows·width elements; 5 FLOPs per element: maximum, subtract, exponential, sum, divide.
    """
    return elementwise(name, elements=rows * width, reads=1.0, writes=1.0, flops_per_element=5.0, precision=precision)


def selective_scan(
    name: str,
    *,
    batch: Number,
    length: Number,
    channels: Number,
    d_state: Number,
    operands: Number,
    steps: Number,
    precision: Precision,
    flops_per_state: float = 6.0,
) -> Operator:
    """Scan of a state space layer as one fused kernel (arXiv 2312.00752, 2405.21060).

    Each of channels·d_state state elements takes, per token, the exponent's product, the decay product, the input
    product and its addition, and the product and addition of the read-out: FLOPs = 6·batch·length·channels·d_state
    (the exponential not counted). The delta rule has a product and a sum more: it reads the state before the update.
    Memory traffic: `operands` elements per token in, one per channel out, and the state once in and once out.

    Args:
        name: name of the operator.
        batch: sequences.
        length: tokens of a sequence.
        channels: inner channels on this device.
        d_state: state elements per channel.
        operands: elements read per token: x, z, B, C and the step sizes.
        steps: share of the sequences that read an earlier state: 1 in decode, 0 in a prefill that starts from none.
        precision: bytes per element.
        flops_per_state: FLOPs of a state element and token.
    """
    state = batch * channels * d_state * precision.state
    return Operator(
        name,
        "vector",
        "ssm_scan",
        kernel="scan",
        flops=flops_per_state * batch * length * channels * d_state,
        input=batch * length * operands * precision.activations + steps * state,
        output=batch * length * channels * precision.activations + state,
        cached=state,
        sizes={"batch": batch, "length": length, "channels": channels, "d_state": d_state},
    )
