"""Operators: from sizes to FLOPs, bytes of each tensor and where it lives, and message bytes.

Conventions: a multiply-accumulate is 2 FLOPs. Sizes are floats or arrays that broadcast together. `input`, `weight` and
`output` are the bytes of an operator's two operands and its result; `on_chip` names those that never leave the chip,
by their initials ("io" is input and output). The keys and values of attention are the `weight` of their operators.
"""

import string
from typing import Literal

import equinox as eqx
import jax.numpy as jnp

from genz_jax.fields import Number
from genz_jax.specs import Precision

Kind = Literal[
    "gemm",
    "conv1d",
    "conv2d",
    "depthwise_conv2d",
    "attention_scores",
    "attention_values",
    "attention",
    "einsum",
    "vector",
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "all_to_all",
    "point_to_point",
    "ring",
]
Operand = Literal["weights", "experts", "embedding", "kv_cache", "activations"]
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "point_to_point", "ring")

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


class Operator(eqx.Module):
    """One operator on one device, and how often it runs.

    Attributes:
        name: what it is, unique within a layer.
        kind: its kind, which decides what hardware runs it.
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
        hides: names of operators before it that a ring runs beside; (n − 1)/n of their time hides it.
        stored: bytes of parameters that it keeps in memory.
        cached: bytes of KV cache or state that it keeps in memory.
        sizes: its dimensions by name.
        stretches: where the operator stands for the mean of many decode positions, the parts of these between whose
            ends its work grows evenly.
    """

    name: str = eqx.field(static=True)
    kind: Kind = eqx.field(static=True)
    component: str = eqx.field(static=True)
    on_chip: str = eqx.field(static=True, default="")
    operand: Operand = eqx.field(static=True, default="weights")
    repeats: Number = 1.0
    flops: Number = 0.0
    input: Number = 0.0
    weight: Number = 0.0
    output: Number = 0.0
    message: Number = 0.0
    ranks: Number = 1.0
    stride: Number = 1.0
    hides: tuple[str, ...] = eqx.field(static=True, default=())
    stored: Number = 0.0
    cached: Number = 0.0
    sizes: dict[str, Number] = eqx.field(default_factory=dict)
    stretches: "tuple[Stretch, ...]" = ()

    def times(self, repeats: Number) -> "Operator":
        """This operator, run `repeats` times as often."""
        return eqx.tree_at(lambda op: op.repeats, self, self.repeats * repeats)


class Stretch(eqx.Module):
    """A share of the positions of a decode, and the operator at the first and the last of these."""

    share: Number
    count: Number
    first: Operator
    last: Operator


def gemm(
    name: str,
    component: str,
    *,
    batch: Number,
    m: Number,
    n: Number,
    k: Number,
    precision: Precision,
    on_chip: str = "",
    operand: Operand = "weights",
    stored: Number | None = None,
) -> Operator:
    """Multiply a batch of (m, k) activations with one (k, n) weight matrix.

    FLOPs = 2·batch·m·n·k; input = batch·m·k, weight = k·n, output = batch·m·n elements. The weights are shared by the
    batch, so they are read once.

    Args:
        name: name of the operator.
        component: part of the breakdown.
        batch: independent row blocks.
        m: rows (tokens) of each block.
        n: columns of the weights (output features).
        k: inner size (input features).
        precision: bytes per element.
        on_chip: initials of the tensors that stay on chip.
        operand: kind of the weights: weights, experts or embedding.
        stored: bytes of parameters in memory; by default the weight matrix.
    """
    weight = k * n * getattr(precision, operand)
    return Operator(
        name,
        "gemm",
        component,
        on_chip,
        operand,
        flops=2.0 * batch * m * n * k,
        input=batch * m * k * precision.activations,
        weight=weight,
        output=batch * m * n * precision.activations,
        stored=weight if stored is None else stored,
        sizes={"batch": batch, "m": m, "n": n, "k": k},
    )


def fc(name: str, component: str, *, batch: Number, n: Number, k: Number, precision: Precision) -> Operator:
    """Fully connected layer on vectors: a GEMM with one row per batch entry, FLOPs = 2·batch·n·k."""
    return gemm(name, component, batch=batch, m=1.0, n=n, k=k, precision=precision)


def grouped_gemm(
    name: str,
    component: str,
    *,
    groups: Number,
    m: Number,
    n: Number,
    k: Number,
    precision: Precision,
    operand: Operand = "weights",
    stored: Number | None = None,
) -> Operator:
    """Multiply (m, k) activations of each group with the group's own (k, n) weights, as the experts of an MoE do.

    FLOPs = 2·groups·m·n·k; input = groups·m·k, weight = groups·k·n, output = groups·m·n elements.

    Args:
        name: name of the operator.
        component: part of the breakdown.
        groups: groups with any rows.
        m: rows of each group.
        n: output features.
        k: input features.
        precision: bytes per element.
        operand: kind of the weights: weights or experts.
        stored: bytes of parameters in memory, those of idle groups included; by default the weights of the groups.
    """
    weight = groups * k * n * getattr(precision, operand)
    return Operator(
        name,
        "gemm",
        component,
        operand=operand,
        flops=2.0 * groups * m * n * k,
        input=groups * m * k * precision.activations,
        weight=weight,
        output=groups * m * n * precision.activations,
        stored=weight if stored is None else stored,
        sizes={"batch": groups, "m": m, "n": n, "k": k},
    )


def conv1d(
    name: str,
    component: str,
    *,
    batch: Number,
    channels_out: Number,
    channels_in: Number,
    length: Number,
    width: Number,
    precision: Precision,
    on_chip: str = "",
) -> Operator:
    """Convolve a sequence, depthwise where one input channel meets each output channel.

    FLOPs = 2·batch·channels_out·length·width: every output element takes `width` taps of its own channel. Input =
    batch·length·channels_in, weight = channels_out·width, output = batch·length·channels_out elements.
    """
    weight = channels_out * width * precision.weights
    return Operator(
        name,
        "conv1d",
        component,
        on_chip,
        flops=2.0 * batch * channels_out * length * width,
        input=batch * length * channels_in * precision.activations,
        weight=weight,
        output=batch * length * channels_out * precision.activations,
        stored=weight,
        sizes={"batch": batch, "out": channels_out, "in": channels_in, "length": length, "width": width},
    )


def conv2d(
    name: str,
    component: str,
    *,
    batch: Number,
    channels_out: Number,
    channels_in: Number,
    height: Number,
    width: Number,
    kernel_height: Number,
    kernel_width: Number,
    precision: Precision,
) -> Operator:
    """Convolve an image at stride 1 with padding, as patch embeddings and vision encoders do.

    FLOPs = 2·batch·channels_out·channels_in·height·width·kernel_height·kernel_width. Input =
    batch·channels_in·height·width, weight = channels_out·channels_in·kernel_height·kernel_width, output =
    batch·channels_out·height·width elements.
    """
    pixels, taps = height * width, kernel_height * kernel_width
    weight = channels_out * channels_in * taps * precision.weights
    return Operator(
        name,
        "conv2d",
        component,
        flops=2.0 * batch * channels_out * channels_in * pixels * taps,
        input=batch * channels_in * pixels * precision.activations,
        weight=weight,
        output=batch * channels_out * pixels * precision.activations,
        stored=weight,
        sizes={"batch": batch, "out": channels_out, "in": channels_in, "pixels": pixels, "taps": taps},
    )


def depthwise_conv2d(
    name: str,
    component: str,
    *,
    batch: Number,
    channels: Number,
    height: Number,
    width: Number,
    kernel_height: Number,
    kernel_width: Number,
    precision: Precision,
) -> Operator:
    """Convolve each channel of an image with a kernel of its own.

    FLOPs = 2·batch·channels·height·width·kernel_height·kernel_width; weight = channels·kernel_height·kernel_width
    elements; input and output batch·channels·height·width elements each.
    """
    pixels, taps = height * width, kernel_height * kernel_width
    weight = channels * taps * precision.weights
    plane = batch * channels * pixels * precision.activations
    return Operator(
        name,
        "depthwise_conv2d",
        component,
        flops=2.0 * batch * channels * pixels * taps,
        input=plane,
        weight=weight,
        output=plane,
        stored=weight,
        sizes={"batch": batch, "channels": channels, "pixels": pixels, "taps": taps},
    )


def attention_scores(
    name: str,
    *,
    batch: Number,
    heads: Number,
    kv_heads: Number,
    queries: Number,
    context: Number,
    pairs: Number,
    head_dim: Number,
    precision: Precision,
    on_chip: str = "o",
    cached: Number | None = None,
) -> Operator:
    """Scores of queries against keys, Q·Kᵀ.

    FLOPs = 2·batch·heads·pairs·head_dim, where `pairs` counts the (query, key) pairs that are computed: queries·context
    without a mask, S(S+1)/2 for a causal prompt of S. Keys are read once per key-value head: batch·kv_heads·context·
    head_dim elements, which makes GQA and MQA cheaper than MHA. Scores have batch·heads·pairs elements; flash attention
    keeps them on chip, so `o` is the default residency.

    Args:
        name: name of the operator.
        batch: sequences.
        heads: query heads on this device.
        kv_heads: key-value heads on this device.
        queries: queries of a sequence.
        context: keys of a sequence.
        pairs: (query, key) pairs of a sequence and head.
        head_dim: size of a head.
        precision: bytes per element.
        on_chip: initials of the tensors that stay on chip.
        cached: bytes of the key cache; by default the keys that are read.
    """
    keys = batch * kv_heads * context * head_dim * precision.kv_element(context, head_dim)
    return Operator(
        name,
        "attention_scores",
        "attention_core",
        on_chip,
        "kv_cache",
        flops=2.0 * batch * heads * pairs * head_dim,
        input=batch * heads * queries * head_dim * precision.activations,
        weight=keys,
        output=batch * heads * pairs * precision.scores,
        cached=keys if cached is None else cached,
        sizes={
            "batch": batch,
            "heads": heads,
            "kv_heads": kv_heads,
            "queries": queries,
            "context": context,
            "head_dim": head_dim,
        },
    )


def attention_values(
    name: str,
    *,
    batch: Number,
    heads: Number,
    kv_heads: Number,
    queries: Number,
    context: Number,
    pairs: Number,
    head_dim: Number,
    precision: Precision,
    on_chip: str = "i",
    cached: Number | None = None,
) -> Operator:
    """Weighted sum of values, P·V: the mirror image of `attention_scores`.

    FLOPs = 2·batch·heads·pairs·head_dim; input (the scores) batch·heads·pairs elements, on chip by default; weight
    (the values) batch·kv_heads·context·head_dim; output batch·heads·queries·head_dim. Arguments as there.
    """
    scores = attention_scores(
        name,
        batch=batch,
        heads=heads,
        kv_heads=kv_heads,
        queries=queries,
        context=context,
        pairs=pairs,
        head_dim=head_dim,
        precision=precision,
        cached=cached,
    )
    return Operator(
        name,
        "attention_values",
        "attention_core",
        on_chip,
        "kv_cache",
        flops=scores.flops,
        input=scores.output,
        weight=scores.weight,
        output=scores.input,
        cached=scores.cached,
        sizes=scores.sizes,
    )


def einsum(
    name: str,
    component: str,
    equation: str,
    sizes: dict[str, Number],
    *,
    precision: Precision,
    on_chip: str = "",
) -> Operator:
    """Contract two tensors by an einsum equation, element-wise products included.

    FLOPs = 2 × the product of the distinct labels of the operands; each tensor has the product of its own labels as
    elements.

    Args:
        name: name of the operator.
        component: part of the breakdown.
        equation: two operands and a result, for example "bdl,ds->bdls".
        sizes: size of each label.
        precision: bytes per element; all three tensors are activations.
        on_chip: initials of the tensors that stay on chip.

    Raises:
        ValueError: the equation is not of that form, or a label has no size.
    """
    left, arrow, result = equation.replace(" ", "").partition("->")
    operands = left.split(",")
    if not arrow or len(operands) != 2 or not set(left + result) <= set(string.ascii_letters + ","):
        raise ValueError(f"einsum equation {equation!r}: must have two operands and a result, like 'ij,jk->ik'")
    if missing := set(left + result) - {","} - set(sizes):
        raise ValueError(f"einsum equation {equation!r}: no size for the labels {', '.join(sorted(missing))}")

    def product(labels: str) -> Number:
        total: Number = 1.0
        for label in dict.fromkeys(labels):
            total = total * sizes[label]
        return total

    return Operator(
        name,
        "einsum",
        component,
        on_chip,
        "activations",
        flops=2.0 * product("".join(operands)),
        input=product(operands[0]) * precision.activations,
        weight=product(operands[1]) * precision.activations,
        output=product(result) * precision.activations,
        sizes=dict(sizes),
    )


def elementwise(
    name: str,
    *,
    elements: Number,
    reads: Number,
    writes: Number,
    flops_per_element: Number,
    precision: Precision,
    component: str = "vector",
) -> Operator:
    """Map tensors element by element, bound by memory: `reads` tensors in and `writes` out, `elements` each.

    FLOPs = flops_per_element·elements, run by the vector units, which take no time of their own.
    """
    tensor = elements * precision.activations
    return Operator(
        name,
        "vector",
        component,
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
    op = elementwise(name, elements=rows * width, reads=2.0, writes=2.0, flops_per_element=5.0, precision=precision)
    return eqx.tree_at(lambda o: o.stored, op, stored)


def activation(name: str, *, elements: Number, inputs: Number, precision: Precision) -> Operator:
    """Activation of a feed-forward layer; with two inputs, gated: act(gate)·up. Writes one tensor of `elements`.

    FLOPs: 4 per element for the function (exponential, addition, division and product of a SiLU), 1 for the gate.
    """
    op = elementwise(name, elements=elements, reads=1.0, writes=1.0, flops_per_element=4.0, precision=precision)
    return eqx.tree_at(
        lambda o: (o.input, o.flops), op, (inputs * elements * precision.activations, (3.0 + inputs) * elements)
    )


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
        flops=flops_per_state * batch * length * channels * d_state,
        input=batch * length * operands * precision.activations + steps * state,
        output=batch * length * channels * precision.activations + state,
        cached=state,
        sizes={"batch": batch, "length": length, "channels": channels, "d_state": d_state},
    )


def _collective(
    kind: Kind,
    name: str,
    component: str,
    elements: Number,
    ranks: Number,
    precision: Precision,
    stride: Number,
    hides: tuple[str, ...] = (),
) -> Operator:
    """A message of that many elements on every rank, partial sums where it reduces; none where there is one rank."""
    size = precision.accumulation if kind in ("all_reduce", "reduce_scatter") else precision.activations
    return Operator(
        name,
        kind,
        component,
        message=jnp.where(ranks > 1, elements * size, 0.0),
        ranks=ranks,
        stride=stride,
        hides=hides,
        sizes={"elements": elements, "ranks": ranks},
    )


def all_reduce(
    name: str, component: str, *, elements: Number, ranks: Number, precision: Precision, stride: Number = 1.0
) -> Operator:
    """Sum a tensor of `elements` over all ranks: each holds the whole tensor before and after."""
    return _collective("all_reduce", name, component, elements, ranks, precision, stride)


def all_gather(
    name: str, component: str, *, elements: Number, ranks: Number, precision: Precision, stride: Number = 1.0
) -> Operator:
    """Join the parts of a tensor: each rank holds `elements`/ranks before and `elements` after."""
    return _collective("all_gather", name, component, elements, ranks, precision, stride)


def reduce_scatter(
    name: str, component: str, *, elements: Number, ranks: Number, precision: Precision, stride: Number = 1.0
) -> Operator:
    """Sum a tensor over all ranks and split it: each rank holds `elements` before and `elements`/ranks after."""
    return _collective("reduce_scatter", name, component, elements, ranks, precision, stride)


def all_to_all(
    name: str, component: str, *, elements: Number, ranks: Number, precision: Precision, stride: Number = 1.0
) -> Operator:
    """Transpose over ranks: each rank holds `elements` and sends 1/ranks of them to every other."""
    return _collective("all_to_all", name, component, elements, ranks, precision, stride)


def point_to_point(
    name: str, component: str, *, elements: Number, ranks: Number, precision: Precision, stride: Number = 1.0
) -> Operator:
    """Send a tensor of `elements` along a chain of ranks, as pipeline stages do: ranks − 1 messages."""
    op = _collective("point_to_point", name, component, elements, ranks, precision, stride)
    return op.times(ranks - 1.0)


def ring(
    name: str,
    component: str,
    *,
    elements: Number,
    ranks: Number,
    precision: Precision,
    stride: Number = 1.0,
    hides: tuple[str, ...] = (),
) -> Operator:
    """Pass tensors of `elements` around a ring of ranks until each has seen all: ranks − 1 passes, all ranks at once.

    Args:
        name: name of the operator.
        component: part of the breakdown.
        elements: elements that a rank sends in one pass.
        ranks: ranks of the ring.
        precision: bytes per element.
        stride: devices between neighbouring ranks.
        hides: names of operators before it that it runs beside.
    """
    op = _collective("ring", name, component, elements, ranks, precision, stride, hides)
    return op.times(ranks - 1.0)
