"""Power of the board: from counters of energy, which the driver keeps, while work is repeated."""

import contextlib
import time
from collections.abc import Callable

from genz_jax.measure.device import Device

WARM, SPAN = 0.3, 0.7
"""Seconds before the power counts, and seconds over which it is averaged."""

LEAST = 0.3
"""Seconds between the first and the last change of the counter below which the mean is not worth having."""

Counter = Callable[[], float]


def counter(device: Device) -> Counter | None:
    """The counter of a board's energy in joules; None where there is none, or no package that reads it."""
    if not device.is_gpu:
        return None
    # Drivers and their packages fail in ways of their own; the time of a kernel is worth a row without its power.
    with contextlib.suppress(Exception):
        found = (_nvidia if device.kind == "cuda" else _amd)(device)
        found()
        return found
    return None


def _nvidia(device: Device) -> Counter:
    import pynvml  # pyright: ignore[reportMissingImports]

    pynvml.nvmlInit()
    if device.serial:
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{device.serial.removeprefix('GPU-')}")
    else:
        handle = pynvml.nvmlDeviceGetHandleByPciBusId(device.bus)
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3


def _amd(device: Device) -> Counter:
    import amdsmi  # pyright: ignore[reportMissingImports]

    amdsmi.amdsmi_init()
    handle = amdsmi.amdsmi_get_processor_handle_from_bdf(device.bus)

    def joules() -> float:
        found = amdsmi.amdsmi_get_energy_count(handle)
        ticks = found["energy_accumulator"] if "energy_accumulator" in found else found["power"]
        return ticks * found["counter_resolution"] / 1e6

    return joules


def mean_watts(joules: Counter, replay: Callable[[], object], span: float = SPAN, warm: float = WARM) -> float | None:
    """Mean power while work is repeated.

    The counter moves in steps of up to a tenth of a second, so that the mean is taken from one step to another.

    Args:
        joules: counter of energy.
        replay: the work, up to its end.
        span: seconds over which to average.
        warm: seconds of work before that.

    Returns:
        Watts, or None if the counter stood still or was set back.
    """
    clock = time.perf_counter
    end = clock() + warm
    while clock() < end:
        replay()
    level, changes = joules(), []
    end = clock() + span
    while clock() < end or (len(changes) == 1 and clock() < end + span):
        replay()
        now, fresh = clock(), joules()
        if fresh != level:
            level = fresh
            changes.append((now, fresh))
    if len(changes) < 2 or changes[-1][0] - changes[0][0] < LEAST * span / SPAN:
        return None
    (begin, first), (stop, last) = changes[0], changes[-1]
    watts = (last - first) / (stop - begin)
    return watts if watts > 0 else None
