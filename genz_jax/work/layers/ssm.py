"""Layers with a state: Mamba-1 (SSM), Mamba-2 (SSD), gated delta net, lightning attention, short convolution."""

from typing import Any

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.specs import SSD, SSM, DeltaNet, LinearAttention, ShortConvolution
from genz_jax.work.layers.context import pass_states
from genz_jax.work.layers.registry import layer
from genz_jax.work.layers.vector import pre_norm, with_parameters
from genz_jax.work.operators.collectives import all_reduce
from genz_jax.work.operators.elementwise import selective_scan
from genz_jax.work.operators.operator import Operator
from genz_jax.work.operators.products import conv1d, einsum, gemm
from genz_jax.work.step import Deployment, Step, shard


@layer(SSM, parameters="ssm", sharded=("d_inner",), role="mixer", preference=2)
def ssm_layer(name: str, part: SSM, hidden: Number, step: Step, deployment: Deployment) -> list[Operator]:
    """Operators of one Mamba-1 layer (arXiv 2312.00752) on one device.

    in_proj → x, z · causal convolution · x_proj → step size, B, C · dt_proj · selective scan · out_proj. Channels are
    split over T = tp·ep; x_proj's partial sums and the output are all-reduced.
    """
    precision, ranks = deployment.precision, deployment.ranks
    if not deployment.assumptions.fused_scan:
        return _published_ssm_layer(name, part, hidden, step, deployment)
    channels, linear = shard(part.d_inner, ranks), _linear(step, deployment)
    small = part.dt_rank + 2.0 * part.d_state
    held = channels * (part.d_state + 1.0) + part.biases
    return [
        *pre_norm(name, step, hidden, deployment, part.norms),
        gemm(f"{name}.in_proj", "ssm_projections", n=2.0 * channels, k=hidden, **linear),
        with_parameters(_convolution(name, channels, part.d_conv, step, deployment), precision, held, part.inner_norms),
        gemm(f"{name}.x_proj", "ssm_projections", n=small, k=channels, **linear),
        all_reduce(
            f"{name}.x_all_reduce", "ssm_collectives", elements=step.rows * small, ranks=ranks, precision=precision
        ),
        gemm(f"{name}.dt_proj", "ssm_projections", n=channels, k=part.dt_rank, **linear),
        _scan(name, channels, part.d_state, 3.0 * channels + 2.0 * part.d_state, step, deployment),
        *pass_states(name, step, precision.state * channels * part.d_state, deployment),
        gemm(f"{name}.out_proj", "ssm_projections", n=hidden, k=channels, **linear),
        all_reduce(
            f"{name}.all_reduce", "ssm_collectives", elements=step.rows * hidden, ranks=ranks, precision=precision
        ),
    ]


@layer(SSD, parameters="ssm", sharded=("heads",), role="mixer", preference=3)
def ssd_layer(name: str, part: SSD, hidden: Number, step: Step, deployment: Deployment) -> list[Operator]:
    """Operators of one Mamba-2 layer (arXiv 2405.21060) on one device.

    in_proj → z, x, B, C, step sizes · causal convolution of x, B, C · scan, one decay per head · out_proj. Heads are
    split over T = tp·ep, groups replicated past their number; the output is all-reduced.
    """
    precision, ranks, linear = deployment.precision, deployment.ranks, _linear(step, deployment)
    heads = shard(part.heads, ranks)
    channels, shared = heads * part.head_dim, 2.0 * shard(part.groups, ranks) * part.d_state
    held = 3.0 * heads + part.biases
    convolution = _convolution(name, channels + shared, part.d_conv, step, deployment)
    return [
        *pre_norm(name, step, hidden, deployment, part.norms),
        gemm(f"{name}.in_proj", "ssm_projections", n=2.0 * channels + shared + heads, k=hidden, **linear),
        with_parameters(convolution, precision, held, part.inner_norms),
        _scan(name, channels, part.d_state, 2.0 * channels + shared + heads, step, deployment),
        *pass_states(name, step, precision.state * channels * part.d_state, deployment),
        gemm(f"{name}.out_proj", "ssm_projections", n=hidden, k=channels, **linear),
        all_reduce(
            f"{name}.all_reduce", "ssm_collectives", elements=step.rows * hidden, ranks=ranks, precision=precision
        ),
    ]


@layer(DeltaNet, parameters="ssm", sharded=("value_heads",), role="mixer", preference=5)
def delta_net_layer(name: str, part: DeltaNet, hidden: Number, step: Step, deployment: Deployment) -> list[Operator]:
    """Operators of one gated delta net layer (arXiv 2412.06464) on one device.

    in_proj → q, k, v, gate, β and decay · causal convolution of q, k, v · delta rule, one state of key × value size
    per value head · out_proj. Decay and gate may come from latents of `decay_rank` and `gate_rank`, which are
    replicated; the decay is then per channel of the keys (arXiv 2510.26692). Heads are split over T = tp·ep; the
    output is all-reduced.
    """
    precision, ranks, linear = deployment.precision, deployment.ranks, _linear(step, deployment)
    heads = shard(part.value_heads, ranks)
    keys, values = shard(part.key_heads, ranks) * part.key_head_dim, heads * part.value_head_dim
    # Columns of decay and gate in the first projection; elements of decay per token; then the second projections.
    decay_in, gate_in, decays = heads, values, heads
    raised: list[Operator] = []
    if part.decay_rank is not None:
        low = part.decay_rank > 0
        decay_in, decays = xp.where(low, part.decay_rank, heads), xp.where(low, keys, heads)
        columns = xp.where(low, keys, 0.0)
        raised += [gemm(f"{name}.decay_up_proj", "ssm_projections", n=columns, k=part.decay_rank, **linear)]
    if part.gate_rank is not None:
        low = part.gate_rank > 0
        gate_in = xp.where(low, part.gate_rank, values)
        columns = xp.where(low, values, 0.0)
        raised += [gemm(f"{name}.gate_up_proj", "ssm_projections", n=columns, k=part.gate_rank, **linear)]
    projected = 2.0 * keys + values + heads + decay_in + gate_in
    convolution = _convolution(name, 2.0 * keys + values, part.d_conv, step, deployment)
    operands = 2.0 * (keys + values) + heads + decays
    return [
        *pre_norm(name, step, hidden, deployment, part.norms),
        gemm(f"{name}.in_proj", "ssm_projections", n=projected, k=hidden, **linear),
        *raised,
        with_parameters(convolution, precision, heads + decays, part.value_head_dim),
        _scan(name, values, part.key_head_dim, operands, step, deployment, 8.0),
        *pass_states(name, step, precision.state * values * part.key_head_dim, deployment),
        gemm(f"{name}.out_proj", "ssm_projections", n=hidden, k=values, **linear),
        all_reduce(
            f"{name}.all_reduce", "ssm_collectives", elements=step.rows * hidden, ranks=ranks, precision=precision
        ),
    ]


@layer(LinearAttention, parameters="ssm", sharded=("heads",), role="mixer", preference=4)
def linear_attention_layer(
    name: str, part: LinearAttention, hidden: Number, step: Step, deployment: Deployment
) -> list[Operator]:
    """Operators of one lightning attention layer (arXiv 2501.08313) on one device.

    in_proj → q, k, v and gate · linear attention, one state of head size squared per head with a fixed decay ·
    out_proj. A state element takes 5 FLOPs per token: decay, product and sum of the update, product and sum of the
    read-out. Heads are split over T = tp·ep; the output is all-reduced.
    """
    precision, ranks, linear = deployment.precision, deployment.ranks, _linear(step, deployment)
    channels = shard(part.heads, ranks) * part.head_dim
    into = gemm(f"{name}.in_proj", "ssm_projections", n=4.0 * channels, k=hidden, **linear)
    return [
        *pre_norm(name, step, hidden, deployment, part.norms),
        with_parameters(into, precision, norms=part.inner_norms),
        _scan(name, channels, part.head_dim, 4.0 * channels, step, deployment, 5.0),
        *pass_states(name, step, precision.state * channels * part.head_dim, deployment),
        gemm(f"{name}.out_proj", "ssm_projections", n=hidden, k=channels, **linear),
        all_reduce(
            f"{name}.all_reduce", "ssm_collectives", elements=step.rows * hidden, ranks=ranks, precision=precision
        ),
    ]


@layer(ShortConvolution, parameters="ssm", sharded=("channels",), role="mixer", preference=1)
def short_convolution_layer(
    name: str, part: ShortConvolution, hidden: Number, step: Step, deployment: Deployment
) -> list[Operator]:
    """Operators of one gated short convolution layer (arXiv 2511.23404) on one device.

    in_proj → B, C, x · causal convolution of B · x · out_proj. Channels are split over T = tp·ep; the output is
    all-reduced. The convolution's window of earlier inputs is its only state.
    """
    precision, ranks, linear = deployment.precision, deployment.ranks, _linear(step, deployment)
    channels = shard(part.channels, ranks)
    convolution = _convolution(name, channels, part.d_conv, step, deployment)
    return [
        *pre_norm(name, step, hidden, deployment, part.norms),
        gemm(f"{name}.in_proj", "ssm_projections", n=3.0 * channels, k=hidden, **linear),
        with_parameters(convolution, precision, part.biases),
        gemm(f"{name}.out_proj", "ssm_projections", n=hidden, k=channels, **linear),
        all_reduce(
            f"{name}.all_reduce", "ssm_collectives", elements=step.rows * hidden, ranks=ranks, precision=precision
        ),
    ]


def _linear(step: Step, deployment: Deployment) -> dict[str, Any]:
    sizes = {"batch": step.sequences, "m": step.tokens}
    return {**sizes, "precision": deployment.precision, "layers": "attention"}


def _convolution(name: str, channels: Number, width: Number, step: Step, deployment: Deployment) -> Operator:
    """Causal depthwise convolution; its window of d_conv − 1 earlier inputs per sequence is kept as state."""
    precision = deployment.precision
    op = conv1d(
        f"{name}.conv",
        "ssm_scan",
        batch=step.sequences,
        channels_out=channels,
        channels_in=channels,
        length=step.tokens,
        width=width,
        precision=precision,
        layers="attention",
    )
    return op.replace(cached=step.states * channels * (width - 1.0) * precision.activations)


def _scan(
    name: str,
    channels: Number,
    d_state: Number,
    operands: Number,
    step: Step,
    deployment: Deployment,
    flops_per_state: float = 6.0,
) -> Operator:
    return selective_scan(
        f"{name}.scan",
        batch=step.states,
        length=step.rows / step.states,
        channels=channels,
        d_state=d_state,
        operands=operands,
        steps=step.resumed,
        flops_per_state=flops_per_state,
        precision=deployment.precision,
    )


def _published_ssm_layer(name: str, part: SSM, hidden: Number, step: Step, deployment: Deployment) -> list[Operator]:
    """The published form: projections split over T, the scan as seven einsums of the unsplit state."""
    precision, ranks = deployment.precision, deployment.ranks
    linear = _linear(step, deployment)
    width = xp.round(hidden / ranks)
    channels = width * (part.d_inner / hidden)
    conv = conv1d(
        f"{name}.conv",
        "ssm_scan",
        batch=step.sequences,
        channels_out=channels,
        channels_in=channels,
        length=step.tokens,
        width=part.d_conv,
        precision=precision,
        layers="attention",
    )
    labels = {"b": step.sequences, "l": step.tokens, "d": part.d_inner, "s": part.d_state}

    def contract(label: str, equation: str, on_chip: str = "") -> Operator:
        return einsum(f"{name}.{label}", "ssm_scan", equation, labels, precision=precision, on_chip=on_chip)

    state = contract("x_calc", "lbds,lbds->lbds", "iwo")
    return [
        gemm(f"{name}.in_proj", "ssm_projections", n=2.0 * channels, k=width, **linear),
        # The published KV figure counts the convolution's weights and one token's share of the state.
        conv.replace(stored=0.0 * conv.weight, cached=conv.weight),
        gemm(f"{name}.x_proj", "ssm_projections", n=part.dt_rank + 2.0 * part.d_state, k=channels, **linear),
        gemm(f"{name}.dt_proj", "ssm_projections", n=channels, k=part.dt_rank, **linear),
        contract("delta_a", "bdl,ds->bdls", "wo"),
        contract("delta_b", "bdl,bls->bdls", "o"),
        contract("delta_b_u", "bdls,bdl->bdls"),
        state.replace(cached=state.weight / step.tokens),
        contract("y_calc", "lbds,lbs->lbd", "iwo"),
        contract("d_addition", "bld,bld->bld", "iwo"),
        contract("z_gate", "bld,bld->bld", "iwo"),
        *pass_states(name, step, part.d_inner * part.d_state * precision.activations, deployment),
        gemm(f"{name}.out_proj", "ssm_projections", n=width, k=channels, **linear),
        all_reduce(
            f"{name}.all_reduce",
            "ssm_collectives",
            elements=step.rows * width,
            ranks=ranks,
            precision=precision,
        ),
    ]
