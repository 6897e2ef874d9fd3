"""Products of tensors, for the matrix units: GEMMs, convolutions, the two products of attention, einsums."""

import string

from genz_jax.base.fields import Number
from genz_jax.specs import Layers, Precision
from genz_jax.work.operators.operator import Operator


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
    layers: Layers = "weights",
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
        layers: kind of layers that the weights are of, which decides the formats.
        stored: bytes of parameters in memory; by default the weight matrix.
    """
    weight = k * n * precision.weight_bytes(layers)
    return Operator(
        name,
        "gemm",
        component,
        on_chip,
        precision.kind(layers),
        "gemm",
        flops=2.0 * batch * m * n * k,
        input=batch * m * k * precision.input_bytes(layers),
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
    layers: Layers = "weights",
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
        layers: kind of layers that the weights are of, which decides the formats.
        stored: bytes of parameters in memory, those of idle groups included; by default the weights of the groups.
    """
    weight = groups * k * n * precision.weight_bytes(layers)
    return Operator(
        name,
        "gemm",
        component,
        operand=precision.kind(layers),
        kernel="experts" if layers == "experts" else "gemm",
        flops=2.0 * groups * m * n * k,
        input=groups * m * k * precision.input_bytes(layers),
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
    layers: Layers = "weights",
) -> Operator:
    """Convolve a sequence, depthwise where one input channel meets each output channel.

    FLOPs = 2·batch·channels_out·length·width: every output element takes `width` taps of its own channel. Input =
    batch·length·channels_in, weight = channels_out·width, output = batch·length·channels_out elements.
    """
    weight = channels_out * width * precision.weight_bytes(layers)
    return Operator(
        name,
        "conv1d",
        component,
        on_chip,
        precision.kind(layers),
        "convolution",
        flops=2.0 * batch * channels_out * length * width,
        input=batch * length * channels_in * precision.input_bytes(layers),
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
