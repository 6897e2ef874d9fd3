"""Limits: how fast the machine writes memory and multiplies and adds, whatever the equations."""

from collections.abc import Callable
from typing import Any

import numpy as np
from native import fill, multiply_add

RESIDENT, RESIDENT_STREAM = "write, resident", "write, resident, streaming"
FRESH, FRESH_STREAM = "write, fresh", "write, fresh, streaming"
MULTIPLY_ADD = "multiply-add"
DEVICE = "write, device"
WRITES = (RESIDENT, RESIDENT_STREAM, FRESH, FRESH_STREAM, DEVICE)


class Limits:
    """Measurements of the processor's limits, by name; each returns the bytes written or the operations done.

    Args:
        size: bytes to write, more than the caches hold.
        rounds: multiply-adds of each chain.
    """

    def __init__(self, size: int, rounds: int):
        self.size, self.rounds = size, rounds
        self.resident = np.zeros(size // 4, np.float32)
        fill(self.resident, stream=False)

    def measurements(self) -> dict[str, Callable[[], float]]:
        """Functions to time."""
        return {
            RESIDENT: lambda: self._write(self.resident, False),
            RESIDENT_STREAM: lambda: self._write(self.resident, True),
            FRESH: lambda: self._write(np.empty_like(self.resident), False),
            FRESH_STREAM: lambda: self._write(np.empty_like(self.resident), True),
            MULTIPLY_ADD: lambda: multiply_add(self.rounds),
        }

    def _write(self, to: Any, stream: bool) -> float:
        fill(to, stream)
        return float(to.nbytes)
