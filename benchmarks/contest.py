"""Contest: competitors that compute the same figures, asserted equal, then timed by turns beside limits."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import limits
import numpy as np
from memory import PeakMemory

from genz_jax.base.free_memory import available_memory

Arrays = dict[str, np.ndarray]

TOLERANCE = {"float32": 1e-5, "float64": 1e-9}
REST = 0.005
"""Seconds between turns, in which the threads of the one before come to rest."""

BLOCK = 2**22


class Competitor:
    """A way to compute the figures of all points.

    Args:
        name: what it is called.
        call: computes them, anew at each call.
        arrays: figures by name from what the call returns, in the same order of axes for all.
        forget: drops what was compiled, so that the next call is a first one.
    """

    def __init__(
        self,
        name: str,
        call: Callable[[], Any],
        arrays: Callable[[Any], Arrays] | None = None,
        forget: Callable[[], None] | None = None,
    ):
        self.name, self.call, self.forget = name, call, forget
        self.arrays: Callable[[Any], Arrays] = arrays or (lambda result: result)
        self.seconds: list[float] = []
        self.processor_seconds: list[float] = []
        self.first: list[float] = []
        self.worst: float | None = None
        self.added_bytes = self.peak_bytes = 0

    def first_calls(self, times: int) -> Any:
        """Call as for the first time, and note seconds and memory; the last result."""
        result = None
        for _ in range(times):
            del result
            if self.forget is not None:
                self.forget()
            gc.collect()
            peak, start = PeakMemory(), time.perf_counter()
            result = self.call()
            self.first.append(time.perf_counter() - start)
            self.added_bytes, self.peak_bytes = peak.added(), peak.taken()
        return result

    def timed(self) -> Any:
        """Call, and note the time."""
        busy, start = time.process_time(), time.perf_counter()
        result = self.call()
        self.seconds.append(time.perf_counter() - start)
        self.processor_seconds.append(time.process_time() - busy)
        return result

    def record(self, points: int, ours: Sequence[float]) -> dict[str, Any]:
        """What was measured.

        Args:
            points: points of the problem.
            ours: seconds that genz_jax took in the same turns.
        """
        median = statistics.median(self.seconds)
        return {
            "name": self.name,
            "calls": len(self.seconds),
            "sampled": False,
            "seconds": median,
            "fastest": min(self.seconds),
            "slowest": max(self.seconds),
            "ratio": statistics.median(np.divide(self.seconds, ours)),
            "points_per_second": points / median,
            "ns_per_point": median / points * 1e9,
            "first_seconds": statistics.median(self.first),
            "compile_seconds": max(statistics.median(self.first) - median, 0.0) if self.forget else 0.0,
            "cores_busy": statistics.median(np.divide(self.processor_seconds, self.seconds)),
            "added_bytes": self.added_bytes,
            "peak_bytes": self.peak_bytes,
            "worst_relative_difference": self.worst,
        }


def worst_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Greatest relative difference of two arrays, block by block so that no third one is made.

    Points that do not run are NaN in ours; its competitors do not tell. Where both are zero they are equal.
    """
    if ours.shape != theirs.shape:
        return math.inf
    worst, axis = 0.0, int(np.argmax(ours.shape)) if ours.ndim else 0
    ours, theirs = (np.moveaxis(np.atleast_1d(array), axis, 0) for array in (ours, theirs))
    rows = max(BLOCK // max(math.prod(ours.shape[1:]), 1), 1)
    for start in range(0, len(ours), rows):
        a, b = (np.asarray(array[start : start + rows], np.float64) for array in (ours, theirs))
        scale = np.where(a == b, 1.0, np.maximum(np.abs(a), np.abs(b)))
        worst = max(worst, float(np.max(np.abs(a - b) / scale, initial=0.0, where=~np.isnan(a))))
    return worst


class Contest:
    """Ours and the others on one problem.

    Args:
        ours: genz_jax.
        others: those it is compared with.
        measured: the machine's limits: functions that return how much they did, by name.
        extra: what else takes its turn before each call of ours.
    """

    def __init__(
        self,
        ours: Competitor,
        others: Sequence[Competitor],
        measured: dict[str, Callable[[], float]],
        extra: Callable[[], None] | None = None,
    ):
        self.ours, self.others, self.measured, self.extra = ours, list(others), measured, extra
        self.limits: dict[str, list[float]] = {name: [] for name in measured}
        self.result_bytes = 0

    def first_calls(self, cold: int, tolerance: float, check: Callable[[Any], None] | None = None) -> None:
        """First calls of all, whose figures must be equal.

        Args:
            cold: first calls of ours.
            tolerance: greatest relative difference.
            check: looks at the result of ours.
        """
        result = self.ours.first_calls(cold)
        if check is not None:
            check(result)
        expected = self.ours.arrays(result)
        self.result_bytes = result.nbytes if hasattr(result, "nbytes") else sum(a.nbytes for a in expected.values())
        for other in self.others:
            found = other.arrays(other.first_calls(1))
            common = set(expected) & set(found)
            assert common, f"{other.name} has none of the figures {', '.join(expected)}"
            other.worst = max(worst_difference(expected[name], found[name]) for name in common)
            assert other.worst <= tolerance, f"{other.name} differs from genz_jax by {other.worst:.2g}"
            del found
        self.measure_limits()  # once, so that buffers and threads are there
        for numbers in self.limits.values():
            numbers.clear()

    def turn(self) -> None:
        """All others and the limits, once each."""
        for other in self.others:
            time.sleep(REST)
            other.timed()
        self.measure_limits()
        if self.extra is not None:
            self.extra()
        time.sleep(REST)

    def measure_limits(self) -> None:
        """Each limit once."""
        for name, function in self.measured.items():
            time.sleep(REST)
            start = time.perf_counter()
            done = function()
            self.limits[name].append(done / (time.perf_counter() - start))

    def record(self, points: int, flops_per_point: float) -> dict[str, Any]:
        """What was measured.

        Args:
            points: points of the problem.
            flops_per_point: least operations of a point: a maximum and a sum for each operator.
        """
        found = {name: statistics.median(numbers) for name, numbers in self.limits.items()}
        competitors = [one.record(points, self.ours.seconds) for one in (self.ours, *self.others)]
        writes = [rate for name, rate in found.items() if name in limits.WRITES]
        for one in competitors:
            if writes:
                one["of_write"] = self.result_bytes / max(writes) / one["seconds"]
            if limits.MULTIPLY_ADD in found:
                one["of_multiply_add"] = points * flops_per_point / found[limits.MULTIPLY_ADD] / one["seconds"]
        return {
            "points": points,
            "result_bytes": self.result_bytes,
            "flops_per_point": flops_per_point,
            "limits": found,
            "competitors": competitors,
        }


def room_for(size: float) -> str | None:
    """Why so many bytes cannot be had, None if they can."""
    there = available_memory()
    return None if size < 0.85 * there else f"needs {size / 1e9:.1f} GB, {there / 1e9:.1f} GB are free"
