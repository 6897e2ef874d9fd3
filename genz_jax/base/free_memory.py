"""Room: whether results fit in memory, asked before they are made."""

import math
import os
from pathlib import Path

try:
    import resource
except ImportError:  # not on Windows
    resource = None

SHARE = 0.8
"""Share of the memory that is free that results may take."""

_CGROUPS = Path("/sys/fs/cgroup")


def available_memory() -> float:
    """Bytes of memory that can be had: of the system, of the container, and of the process; infinite if none says."""
    return max(min(_of_system(), _of_container(), _of_process()), 0.0)


def check(needed: float, what: str, advice: str) -> None:
    """Raise MemoryError if so many bytes would not fit.

    Args:
        needed: the bytes.
        what: what needs them.
        advice: what else can be done.
    """
    there = available_memory()
    if needed > SHARE * there:
        raise MemoryError(
            f"{what} need {needed / 1e9:,.1f} GB ({int(needed):,} bytes), but {there / 1e9:,.1f} GB are free; {advice}"
        )


def _of_system() -> float:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return float(line.split()[1]) * 1024
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError):
        return math.inf


def _of_container() -> float:
    """What the control group of the process, of the second version, has left; files that it caches can be dropped."""
    try:
        own = next(line[3:].strip() for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::")
        folder = _CGROUPS / own.lstrip("/")
        limit = (folder / "memory.max").read_text().strip()
        if limit == "max":
            return math.inf
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return float(int(limit) - used + int(stat["inactive_file"]))
    except (OSError, ValueError, KeyError, StopIteration):
        return math.inf


def _of_process() -> float:
    """What a limit on the addresses of the process leaves."""
    if resource is None:
        return math.inf
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return math.inf
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        used = 0
    return float(limit - used)
