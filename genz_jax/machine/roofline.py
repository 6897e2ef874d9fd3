"""Roofline: the time of each operator is that of the resource that it waits for longest."""

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax.assumptions import Assumptions
from genz_jax.fields import Number
from genz_jax.machine.network import network_time
from genz_jax.specs import FORMATS, Platform, Precision
from genz_jax.work.operators import COLLECTIVES, Operator


def compute_rate(platform: Platform, precision: Precision) -> Number:
    """Peak rate of the matrix units at the precision's compute format, in flop s-1."""
    relative: Number = platform.rates.bf16
    for code, name in enumerate(FORMATS):
        if name != "bf16":
            relative = jnp.where(precision.compute == code, getattr(platform.rates, name), relative)
    return platform.flops * relative


class Speeds(eqx.Module):
    """Seconds per unit of work of a device, at peak and as achieved."""

    flop: Number
    byte: Number
    onchip_byte: Number
    compute_efficiency: Number
    memory_efficiency: Number

    @classmethod
    def of(cls, platform: Platform, precision: Precision, bandwidth: Number) -> "Speeds":
        """Speeds of a platform, where `bandwidth` is the memory's (less than its own if it offloads)."""
        return cls(
            1.0 / compute_rate(platform, precision),
            1.0 / bandwidth,
            1.0 / platform.onchip_bw,
            1.0 / platform.compute_efficiency,
            1.0 / platform.memory_efficiency,
        )


class Load(eqx.Module):
    """What an operator asks of each resource, all repeats together; the work that the machine sees."""

    flops: Number
    bytes: Number
    onchip_bytes: Number


def load(op: Operator, assumptions: Assumptions) -> Load:
    """Work of all repeats of an operator. An operator of the matrix units without FLOPs moves nothing.

    Vector operators wait for memory alone, so their FLOPs take no time here.
    """
    onchip: Number = 0.0
    offchip: Number = 0.0
    for initial, tensor in (("i", op.input), ("w", op.weight), ("o", op.output)):
        if initial in op.on_chip:
            onchip = onchip + tensor
        else:
            offchip = offchip + tensor
    if op.kind == "vector":
        return Load(0.0, offchip * op.repeats, onchip * op.repeats)
    runs = jnp.where(op.flops > 0, op.repeats, 0.0)
    return Load(op.flops * op.repeats, offchip * runs, onchip * runs if assumptions.on_chip_traffic else 0.0)


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
        network = network_time(op, platform) * op.repeats
        return OperatorTime(0.0, 0.0, network, network)
    memory = work.bytes * (speeds.byte * speeds.memory_efficiency)
    if assumptions.on_chip_traffic and op.on_chip:
        memory = memory + work.onchip_bytes * (speeds.onchip_byte * speeds.memory_efficiency)
    if op.kind == "vector":
        return OperatorTime(0.0, memory, 0.0, memory)
    compute = work.flops * (speeds.flop * speeds.compute_efficiency)
    return OperatorTime(compute, memory, 0.0, slowest(compute, memory, assumptions.smooth))


def slowest(a: Number, b: Number, smooth: float) -> jax.Array:
    """max(a, b), or its p-norm with p = 1/smooth: at least the maximum, at most 2^smooth times it."""
    largest = jnp.maximum(a, b)
    if smooth == 0:
        return largest
    scale = jnp.where(largest > 0, largest, 1.0)
    ratio = jnp.minimum(a, b) / scale
    # The ratio's derivative at 0 is finite for p >= 2, which the bound on `smooth` ensures.
    return largest * (1.0 + ratio ** (1.0 / smooth)) ** smooth
