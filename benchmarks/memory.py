"""Memory: the peak of this process, and of a sweep in a process of its own.

`python benchmarks/memory.py RATES BANDWIDTHS` prints the latter.
"""

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

CLEAR_REFS, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def _status(field: str) -> int | None:
    """Bytes that the system says of this process, None where it does not."""
    try:
        lines = STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def peak_so_far() -> int:
    """Peak resident memory of the process, byte."""
    peak = _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if peak is None else peak


class PeakMemory:
    """Peak resident memory of the process from now on, or from its start where that cannot be reset."""

    def __init__(self) -> None:
        self.before = _status("VmRSS") or 0
        try:
            CLEAR_REFS.write_text("5")
        except OSError:
            return

    def taken(self) -> int:
        """Peak resident memory, byte."""
        return peak_so_far()

    def added(self) -> int:
        """Peak resident memory beyond what there was at first, byte."""
        return max(self.taken() - self.before, 0)


def alone(rates: int, bandwidths: int) -> tuple[int, int]:
    """Bytes of the result of a sweep of decode latency, and peak resident memory of a process that does only that.

    Args:
        rates: number of peak rates.
        bandwidths: number of memory bandwidths.
    """
    command = [sys.executable, __file__, str(rates), str(bandwidths)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result, peak = (int(word) for word in text.split()[-2:])
    return result, peak


def main() -> None:
    """Sweep and print the bytes of the result and the peak, interpreter and libraries included."""
    from problem import Problem

    import genz_jax as gz

    rates, bandwidths = (int(word) for word in sys.argv[1:])
    problem = Problem(rates, bandwidths)
    dataset: Any = gz.sweep(**problem.arguments(), stage="decode", figures=["latency"], progress=False)
    print(dataset.latency.nbytes, peak_so_far())


if __name__ == "__main__":
    main()
