"""numba and numexpr: the hot loops of the equations, as a user of these would write them."""

from typing import Any

import numpy as np
from problem import Work

Array = np.ndarray

NUMBA: Any = None
NUMEXPR: Any = None
MISSING: dict[str, str] = {}
try:
    import numba as NUMBA  # pyright: ignore[reportMissingImports]
except ImportError as error:  # it lags behind new versions of Python and NumPy
    MISSING["numba"] = str(error)
try:
    import numexpr as NUMEXPR  # pyright: ignore[reportMissingImports]
except ImportError as error:
    MISSING["numexpr"] = str(error)

_COMPILED: dict[str, Any] = {}


def forget() -> None:
    """Drop what numba has compiled."""
    _COMPILED.clear()


def _compiled(name: str) -> Any:
    if name not in _COMPILED:
        _COMPILED[name] = NUMBA.njit(parallel=True, fastmath=True)(globals()[name])
    return _COMPILED[name]


def _latency(flops: Array, traffic: Array, onchip: Array, fixed: Array, rate: Array, bandwidth: Array) -> Array:
    total = np.empty((len(flops), len(rate), len(bandwidth)), np.float32)
    for both in NUMBA.prange(len(flops) * len(rate)):
        d, r = both // len(rate), both % len(rate)
        per_flop = np.float32(1) / rate[r]
        for k in range(len(bandwidth)):
            per_byte = np.float32(1) / bandwidth[k]
            time = fixed[d]
            for i in range(flops.shape[1]):
                time += max(flops[d, i] * per_flop, traffic[d, i] * per_byte + onchip[d, i])
            total[d, r, k] = time
    return total


def _best(flops: Array, traffic: Array, onchip: Array, fixed: Array, rate: Array, bandwidth: Array) -> Any:
    least = np.empty((len(rate), len(bandwidth)), np.float32)
    place = np.zeros((len(rate), len(bandwidth)), np.int32)
    for r in NUMBA.prange(len(rate)):
        per_flop = np.float32(1) / rate[r]
        for k in range(len(bandwidth)):
            per_byte = np.float32(1) / bandwidth[k]
            least[r, k] = np.inf
            for d in range(len(flops)):
                time = fixed[d]
                for i in range(flops.shape[1]):
                    time += max(flops[d, i] * per_flop, traffic[d, i] * per_byte + onchip[d, i])
                if time < least[r, k]:
                    least[r, k] = time
                    place[r, k] = d
    return least, place


def _arrays(work: Work, rate: Array, bandwidth: Array) -> tuple[Array, ...]:
    return work.flops, work.bytes, work.onchip, work.fixed, rate, bandwidth


def numba_latency(work: Work, rate: Array, bandwidth: Array) -> dict[str, Array]:
    """Latencies, by numba on all cores."""
    return {"latency": _compiled("_latency")(*_arrays(work, rate, bandwidth))}


def numba_best(work: Work, rate: Array, bandwidth: Array) -> dict[str, Array]:
    """The least latency over all deployments and which one has it, by numba on all cores."""
    least, place = _compiled("_best")(*_arrays(work, rate, bandwidth))
    return {"least": least, "place": place}


def numexpr_latency(work: Work, rate: Array, bandwidth: Array) -> dict[str, Array]:
    """Latencies, by numexpr on all cores: an operator at a time, since it takes few arguments."""
    total = np.empty((len(work.flops), len(rate), len(bandwidth)), np.float32)
    total[:] = work.fixed[:, None, None]
    for i in range(work.flops.shape[1]):
        flops, traffic, onchip = (column[:, i, None, None] for column in (work.flops, work.bytes, work.onchip))
        values = {"total": total, "compute": flops / rate[:, None], "memory": traffic / bandwidth + onchip}
        NUMEXPR.evaluate("total + where(compute > memory, compute, memory)", values, out=total)
    return {"latency": total}
