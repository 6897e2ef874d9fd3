"""Roofline: the time of each operator is that of the resource that it waits for longest."""

import math
from typing import get_args

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax.base.fields import Number
from genz_jax.base.formats import FORMATS, WIDER, Format
from genz_jax.machine.efficiency import Efficiency
from genz_jax.machine.network import network_time
from genz_jax.specs import Layers, Platform, Precision, wider
from genz_jax.specs.assumptions import Assumptions
from genz_jax.work.loads import Load, PositionCount
from genz_jax.work.operators.operator import COLLECTIVES, Operand, Operator


class NativeFormats(eqx.Module):
    """What the matrix units of a platform run each format at.

    A format that the platform lacks (rate 0) runs at the nearest wider one that it has, in the order of
    `formats.WIDER`.

    Attributes:
        codes: code of that format, by the format asked for.
        rates: its rate relative to bf16.
    """

    codes: dict[str, Number]
    rates: dict[str, Number]

    @classmethod
    def of(cls, platform: Platform) -> "NativeFormats":
        """Those of a platform."""
        codes: dict[str, Number] = {name: jnp.int8(Format[name]) for name in FORMATS}
        rates: dict[str, Number] = {name: getattr(platform.rates, name) for name in FORMATS}
        for name in FORMATS:
            for fallback in WIDER[name]:
                lacking = rates[name] <= 0
                codes[name] = jnp.where(lacking, jnp.int8(Format[fallback]), codes[name])
                rates[name] = jnp.where(lacking, getattr(platform.rates, fallback), rates[name])
        return cls(codes, rates)

    def code(self, format: Number) -> Number:
        """Code of the format that is run at where the format of a code is asked for."""
        return _select(self.codes, format)

    def rate(self, format: Number) -> Number:
        """Its rate relative to bf16."""
        return _select(self.rates, format)


def _select(values: dict[str, Number], format: Number) -> Number:
    """The value of the format of a code; bf16's for a code that is none."""
    found = values["bf16"]
    for name, value in values.items():
        if name != "bf16":
            found = jnp.where(format == Format[name].value, value, found)
    return found


def native_format(platform: Platform, format: Number) -> tuple[Number, Number]:
    """Code of the format that a platform runs at where one is asked for, and its rate relative to bf16.

    Args:
        platform: the device.
        format: code of the format asked for.
    """
    native = NativeFormats.of(platform)
    return native.code(format), native.rate(format)


def compute_rate(platform: Platform, precision: Precision) -> Number:
    """Peak rate of the matrix units for linear layers at a precision, in flop s-1."""
    return platform.flops * NativeFormats.of(platform).rate(precision.compute)


def formats_of(precision: Precision) -> dict[Operand, Number]:
    """Code of the format that a product runs at, by what its second operand is: the wider of the two tensors'.

    Kinds of layers without formats of their own are not there: their operators have the operand whose formats they
    share (`Precision.kind`), so that a format that is not asked for costs nothing.
    """
    kinds: tuple[Layers, ...] = get_args(Layers)
    found: dict[Operand, Number] = {kind: precision.arithmetic(kind) for kind in kinds if precision.kind(kind) == kind}
    found["kv_cache"] = wider(precision.scores_format, precision.kv_cache_format)
    found["activations"] = precision.activations_format
    return found


class Speeds(eqx.Module):
    """Seconds per unit of work of a device, at peak and as achieved; per FLOP by the second operand of the product."""

    flop: dict[Operand, Number]
    byte: Number
    achieved_flop: dict[Operand, Number]
    achieved_byte: Number
    achieved_onchip_byte: Number
    efficiency: Efficiency | None = None

    @classmethod
    def of(cls, platform: Platform, precision: Precision, bandwidth: Number, measured: bool = True) -> "Speeds":
        """Speeds of a platform.

        Args:
            platform: the device.
            precision: formats of the products.
            bandwidth: the memory's, less than its own if it offloads.
            measured: kernels take the times that the platform has for them, instead of ideal ones.
        """
        native, formats = NativeFormats.of(platform), formats_of(precision)
        peak = {operand: 1.0 / (platform.flops * native.rate(code)) for operand, code in formats.items()}
        achieved = {operand: seconds / platform.compute_efficiency for operand, seconds in peak.items()}
        onchip = 1.0 / (platform.onchip_bw * platform.memory_efficiency)
        # These lie on the axes of a few numbers; fused, every point would divide anew.
        peak, achieved, onchip = jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, (peak, achieved, onchip)))
        byte = 1.0 / bandwidth
        memory = byte / platform.memory_efficiency
        if platform.offload_bw is None:  # else the bandwidth depends on all that memory depends on
            byte, memory = jax.lax.optimization_barrier((jnp.asarray(byte), jnp.asarray(memory)))
        efficiency = None
        if measured and platform.kernels is not None:
            codes: dict[Operand, Number] = {operand: native.code(code) for operand, code in formats.items()}
            efficiency = Efficiency.of(platform.kernels, codes, achieved, memory)
        return cls(peak, byte, achieved, memory, onchip, efficiency)


class OperatorTime(eqx.Module):
    """Seconds that all repeats of an operator take on each resource, and in all."""

    compute: Number
    memory: Number
    network: Number
    latency: Number


def operator_time(
    op: Operator, work: Load, speeds: Speeds, platform: Platform, assumptions: Assumptions
) -> OperatorTime:
    """Time of all repeats of an operator.

    t_compute = FLOPs/(rate · eff_c); t_memory = Σ bytes/(bandwidth · eff_m) over the tensors, each at the bandwidth of
    where it lives; t = max(t_compute, t_memory), or the time of the collective.
    """
    if op.kind in COLLECTIVES:
        network = network_time(op, platform, assumptions) * op.repeats
        return OperatorTime(0.0, 0.0, network, network)
    compute, memory = _busy(work, op, speeds, assumptions)
    form = None if speeds.efficiency is None else speeds.efficiency.form(op)
    if speeds.efficiency is not None and form is not None:
        time = speeds.efficiency.seconds(form, op, work)
        return OperatorTime(0.0 if op.kind == "vector" else compute, memory, 0.0, time)
    if op.kind == "vector":
        return OperatorTime(0.0, memory, 0.0, memory)
    longest = slowest(compute, memory, assumptions.smooth)
    if work.ranges:
        # Exact for the maximum; a smooth maximum adds its excess at the mean position.
        mean: Number = 0.0
        for part in work.ranges:
            first, last = (_busy(end, op, speeds, assumptions) for end in (part.first, part.last))
            mean = mean + part.share * mean_of_slowest(first, last, part.count)
        longest = mean if assumptions.smooth == 0 else mean + (longest - jnp.maximum(compute, memory))
    return OperatorTime(compute, memory, 0.0, longest)


def _busy(work: Load, op: Operator, speeds: Speeds, assumptions: Assumptions) -> tuple[Number, Number]:
    """Times of the matrix units and of the memory."""
    memory = work.bytes * speeds.achieved_byte
    if assumptions.on_chip_traffic and op.on_chip:
        memory = memory + work.onchip_bytes * speeds.achieved_onchip_byte
    return _apart(work.flops * speeds.achieved_flop[op.operand], memory)


SHARE = 8
"""A time is computed once, instead of anew for every point, if the points are at least that many times its numbers."""


def _apart(compute: Number, memory: Number) -> tuple[Number, Number]:
    """Two times that are compared at many points, each computed once on the axes that it depends on.

    Compilers fuse what an operator needs into the loop over points, where a product would be repeated at each.
    """
    points = math.prod(jnp.broadcast_shapes(jnp.shape(compute), jnp.shape(memory)))
    compute, memory = (
        jax.lax.optimization_barrier(jnp.asarray(time)) if jnp.size(time) * SHARE <= points else time
        for time in (compute, memory)
    )
    return compute, memory


def mean_of_slowest(first: tuple[Number, Number], last: tuple[Number, Number], positions: PositionCount) -> Number:
    """Mean of max(compute, memory) over evenly spaced positions between which both grow evenly, exactly.

    max(c, m) = m + max(d, 0) with the difference d = c − m, which runs evenly from one end to the other. From its
    larger end h it falls by s per position, so k = ⌊h/s⌋ + 1 of the n positions have d ≥ 0 (all of them if the smaller
    end is positive too, none if h < 0), and their sum is k·h − s·k(k − 1)/2.

    Args:
        first: compute and memory time at the first position.
        last: compute and memory time at the last.
        positions: how many positions there are.
    """
    start, end = first[0] - first[1], last[0] - last[1]
    high, low = jnp.maximum(start, end), jnp.minimum(start, end)
    crosses = (high > 0) & (low < 0)
    fall = jnp.where(crosses, (high - low) * positions.per_gap, 1.0)
    above = jax.lax.stop_gradient(jnp.floor(jnp.where(crosses, high, 0.0) / fall)) + 1.0
    part = (high - 0.5 * fall * (above - 1.0)) * above * positions.per_position
    return 0.5 * (first[1] + last[1]) + jnp.where(crosses, part, jnp.maximum(0.5 * (high + low), 0.0))


def slowest(a: Number, b: Number, smooth: float) -> jax.Array:
    """max(a, b), or its p-norm with p = 1/smooth: at least the maximum, at most 2^smooth times it."""
    largest = jnp.maximum(a, b)
    if smooth == 0:
        return largest
    scale = jnp.where(largest > 0, largest, 1.0)
    ratio = jnp.minimum(a, b) / scale
    # The ratio's derivative at 0 is finite for p >= 2, which the bound on `smooth` ensures.
    return largest * (1.0 + ratio ** (1.0 / smooth)) ** smooth
