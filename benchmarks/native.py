"""Native: the C of `native.c`, compiled with the system's compiler for this machine, on NumPy arrays."""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from problem import Work

COMMAND = ("cc", "-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC")
STREAMING = 2**25
"""Bytes of a result from which its stores go past the cache: more than most last levels hold."""

LARGEST = np.float32(1e30)
"""What `least_bandwidth` gives where no bandwidth is enough."""

Array = np.ndarray


class _Work(ctypes.Structure):
    _fields_ = (
        ("deployments", ctypes.c_long),
        *((name, ctypes.c_void_p) for name in ("first", "flops", "bytes", "onchip", "fixed", "all_flops", "all_bytes")),
    )


class _Grid(ctypes.Structure):
    _fields_ = (
        ("rates", ctypes.c_long),
        ("bandwidths", ctypes.c_long),
        ("rate", ctypes.c_void_p),
        ("bandwidth", ctypes.c_void_p),
    )


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled functions.

    Raises:
        OSError: no compiler `cc`, or one without OpenMP.
    """
    if shutil.which(COMMAND[0]) is None:
        raise OSError("no C compiler `cc` on this machine")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "native.so"
        source = Path(__file__).with_name("native.c")
        outcome = subprocess.run([*COMMAND, str(source), "-o", str(made)], capture_output=True, text=True, check=False)
        if outcome.returncode:
            raise OSError(f"{' '.join(COMMAND)} failed: {outcome.stderr.strip()[:500]}")
        loaded = ctypes.CDLL(str(made))
    loaded.multiply_add.restype = ctypes.c_float
    loaded.threads.restype = loaded.chains.restype = ctypes.c_long
    return loaded


def missing() -> str | None:
    """Why there is no native code, None if there is."""
    try:
        library()
    except OSError as error:
        return str(error)
    return None


def compiler() -> str:
    """The compiler's own words for its version."""
    lines = subprocess.run([COMMAND[0], "--version"], capture_output=True, text=True, check=True).stdout.splitlines()
    return lines[0]


def _single(values: Any) -> Array:
    return np.ascontiguousarray(values, np.float32)


class Native:
    """The equations in C on one problem's work and grid.

    Args:
        rate: peak rates.
        bandwidth: memory bandwidths.
        works: the work of each stage that is asked for.
        resident: write every result into the memory of the first, so that no page is touched for the first time.
    """

    def __init__(self, rate: Array, bandwidth: Array, *works: Work, resident: bool = False):
        self.held: list[Any] = []  # what C has pointers to
        self.grid = _Grid(len(rate), len(bandwidth), self._pointer(rate), self._pointer(bandwidth))
        self.works = [self._work(work) for work in works]
        self.shape = (len(works[0].flops), len(rate), len(bandwidth))
        self.resident: dict[str, Array] | None = {} if resident else None

    def _pointer(self, values: Any, kind: Any = np.float32) -> int:
        self.held.append(np.ascontiguousarray(values, kind))
        return self.held[-1].ctypes.data

    def _work(self, work: Work) -> _Work:
        there = (work.flops > 0) | (work.bytes > 0) | (work.onchip > 0)
        first = np.concatenate(([0], np.cumsum(there.sum(1))))
        return _Work(
            len(work.flops),
            self._pointer(first, np.int64),
            *(self._pointer(column[there]) for column in (work.flops, work.bytes, work.onchip)),
            *(self._pointer(column) for column in (work.fixed, work.all_flops, work.all_bytes)),
        )

    def _result(self, name: str, shape: tuple[int, ...] | None = None, kind: Any = np.float32) -> Array:
        if self.resident is None:
            return np.empty(self.shape if shape is None else shape, kind)
        if name not in self.resident:
            self.resident[name] = np.empty(self.shape if shape is None else shape, kind)
        return self.resident[name]

    def _call(self, function: str, *arguments: Any) -> None:
        """Call a function with structures, numbers, and arrays, which are passed by their address."""
        passed = []
        for one in arguments:
            if isinstance(one, ctypes.Structure):
                one = ctypes.byref(one)
            elif isinstance(one, np.ndarray):
                one = ctypes.c_void_p(one.ctypes.data)
            elif isinstance(one, bool):
                one = ctypes.c_int(one)
            elif isinstance(one, int):
                one = ctypes.c_long(one)
            elif isinstance(one, float):
                one = ctypes.c_float(one)
            passed.append(one)
        getattr(library(), function)(*passed)

    def _run(self, kernel: str, factored: bool, names: tuple[str, ...], *given: Any) -> dict[str, Array]:
        results = {name: self._result(name) for name in names}
        arrays = list(results.values())
        how = (arrays[0].nbytes * len(arrays) >= STREAMING,) if factored else ()
        self._call(f"{kernel}_{'factored' if factored else 'naive'}", *given, *how, *arrays)
        return results

    def latency(self, factored: bool) -> dict[str, Array]:
        """Latencies."""
        return self._run("latency", factored, ("latency",), self.works[0], self.grid)

    def energy(self, factored: bool, power: Array) -> dict[str, Array]:
        """Latencies and energies, from the watts drawn always and by busy compute, memory and links."""
        return self._run("energy", factored, ("latency", "energy"), self.works[0], self.grid, _single(power))

    def request(self, factored: bool, steps: float) -> dict[str, Array]:
        """TTFT, TPOT and latency of a request of so many decode steps; the works are of prefill and decode."""
        return self._run("request", factored, ("ttft", "tpot", "latency"), *self.works, self.grid, float(steps))

    def gradient(self) -> dict[str, Array]:
        """Latencies and their derivatives by the rate and the bandwidth."""
        return self._run("gradient", True, ("latency", "by_rate", "by_bandwidth"), self.works[0], self.grid)

    def breakdown(self, factored: bool) -> dict[str, Array]:
        """Latencies of each work."""
        stream = self.shape[0] * self.shape[1] * self.shape[2] * 4 >= STREAMING
        results = {}
        for i, work in enumerate(self.works):
            results[str(i)] = self._result(str(i))
            how = (stream,) if factored else ()
            name = f"latency_{'factored' if factored else 'naive'}"
            self._call(name, work, self.grid, *how, results[str(i)])
        return results

    def best(self, factored: bool) -> dict[str, Array]:
        """The least latency over all deployments, and which one has it."""
        shape = self.shape[1:]
        least, place = self._result("least", shape), self._result("place", shape, np.int32)
        self._call(f"best_{'factored' if factored else 'naive'}", self.works[0], self.grid, least, place)
        return {"least": least, "place": place}

    def least_bandwidth(self, limits: Array) -> dict[str, Array]:
        """The least bandwidth for a latency of at most each of some limits, over deployment × rate × limit."""
        limits = _single(limits)
        found = self._result("mem_bw", (*self.shape[:2], len(limits)))
        rates = ctypes.c_void_p(self.grid.rate)
        self._call("least_bandwidth", self.works[0], self.grid.rates, rates, len(limits), limits, found)
        found[found >= LARGEST] = np.inf
        return {"mem_bw": found}


def fill(to: Array, stream: bool) -> None:
    """Write a number into all of an array, on all cores, past the cache or not."""
    library().fill(ctypes.c_void_p(to.ctypes.data), ctypes.c_long(to.size), ctypes.c_float(1.0), ctypes.c_int(stream))


def multiply_add(rounds: int) -> float:
    """Do fused multiply-adds on all cores.

    Args:
        rounds: how many for each of the chains.

    Returns:
        Floating point operations done.
    """
    library().multiply_add(ctypes.c_long(rounds))
    return 2.0 * rounds * library().chains() * library().threads()
