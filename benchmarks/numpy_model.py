"""NumPy: the equations with broadcasting, as a user of NumPy would write them.

Operators are added one by one, for a stack of them on an axis of its own takes their number times the memory. Results
have the axes deployment, rate, bandwidth.
"""

from collections.abc import Iterator

import numpy as np
from problem import Work

Array = np.ndarray


def operator_times(work: Work, rate: Array, bandwidth: Array) -> Iterator[tuple[Array, Array]]:
    """Compute and memory time of each operator, which broadcast together."""
    for i in range(work.flops.shape[1]):
        flops, traffic, onchip = (column[:, i, None, None] for column in (work.flops, work.bytes, work.onchip))
        yield flops / rate[:, None], traffic / bandwidth + onchip


def latency(work: Work, rate: Array, bandwidth: Array) -> Array:
    """Latencies."""
    total = np.zeros((len(work.flops), len(rate), len(bandwidth)), np.float32)
    total += work.fixed[:, None, None]
    for compute, memory in operator_times(work, rate, bandwidth):
        total += np.maximum(compute, memory)
    return total


def energy(work: Work, rate: Array, bandwidth: Array, power: Array) -> dict[str, Array]:
    """Latencies and energies, from the watts drawn always and by busy compute, memory and links."""
    time = latency(work, rate, bandwidth)
    busy = power[1] * work.all_flops[:, None, None] / rate[:, None]
    busy = busy + power[2] * work.all_bytes[:, None, None] / bandwidth + power[3] * work.fixed[:, None, None]
    return {"latency": time, "energy": power[0] * time + busy}


def request(prefill: Work, decode: Work, rate: Array, bandwidth: Array, steps: float) -> dict[str, Array]:
    """TTFT, TPOT and latency of a request of so many decode steps."""
    ttft, tpot = latency(prefill, rate, bandwidth), latency(decode, rate, bandwidth)
    return {"ttft": ttft, "tpot": tpot, "latency": ttft + np.float32(steps) * tpot}


def gradient(work: Work, rate: Array, bandwidth: Array) -> dict[str, Array]:
    """Latencies and their derivatives, by hand: an operator's time falls with the resource that it waits for."""
    time = latency(work, rate, bandwidth)
    flops, traffic = np.zeros_like(time), np.zeros_like(time)
    for i, (compute, memory) in enumerate(operator_times(work, rate, bandwidth)):
        waits = compute > memory
        flops += np.where(waits, work.flops[:, i, None, None], np.float32(0))
        traffic += np.where(waits, np.float32(0), work.bytes[:, i, None, None])
    return {"latency": time, "by_rate": -flops / rate[:, None] ** 2, "by_bandwidth": -traffic / bandwidth**2}


def breakdown(work: Work, rate: Array, bandwidth: Array) -> dict[str, Array]:
    """Latencies by part."""
    return {name: latency(work.part(name), rate, bandwidth) for name in work.parts}


def best(work: Work, rate: Array, bandwidth: Array) -> dict[str, Array]:
    """The least latency over all deployments, and which one has it."""
    time = latency(work, rate, bandwidth)
    return {"least": time.min(0), "place": time.argmin(0)}


def least_bandwidth(work: Work, rate: Array, limits: Array) -> dict[str, Array]:
    """The least bandwidth at which the latency is at most a limit, over deployment × rate × limit, by bisection.

    Bandwidths are halved on a logarithmic scale, to the rounding of float32; infinite where none is enough.
    """
    shape = (len(work.flops), len(rate), len(limits))
    low, high = np.full(shape, 1.0, np.float32), np.full(shape, 1e30, np.float32)
    for _ in range(32):
        middle = np.sqrt(low) * np.sqrt(high)
        time = np.zeros(shape, np.float32)
        time += work.fixed[:, None, None]
        for i in range(work.flops.shape[1]):
            flops, traffic, onchip = (column[:, i, None, None] for column in (work.flops, work.bytes, work.onchip))
            time += np.maximum(flops / rate[:, None], traffic / middle + onchip)
        slow = time > limits
        low, high = np.where(slow, middle, low), np.where(slow, high, middle)
    return {"mem_bw": np.where(high < 9e29, high, np.float32(np.inf))}
