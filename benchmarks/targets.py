"""Targets: what the package promises of its speed, and whether a run of the benchmarks keeps it."""

import dataclasses

from results import HARDWARE, RESIDENT, Row, largest

SIZE = 10**8
"""Points at which the targets of speed are held."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A promise and what was measured.

    Attributes:
        promise: what is promised.
        found: what was measured, in words.
        met: whether it is kept; None if it was not measured as promised.
    """

    promise: str
    found: str
    met: bool | None


def targets(rows: list[Row]) -> list[Target]:
    """All targets."""
    return [
        _ratio(rows, "genz-llm", 1e6, "genz-llm per point"),
        _ratio(rows, "NumPy", 20.0, "NumPy"),
        _ratio(rows, "C, naive", 1.0, "naive C"),
        _ratio(rows, f"C, naive{RESIDENT}", 1.0, "naive C that writes over an earlier result"),
        _ratio(rows, "C, factored", 0.8, "factored C"),
        _ratio(rows, f"C, factored{RESIDENT}", 0.8, "factored C that writes over an earlier result"),
        _share(rows, fresh=False),
        _share(rows, fresh=True),
        _best(rows),
        *_memory(rows),
    ]


def _size(points: int) -> str:
    return f"{points:,} points"


def _ratio(rows: list[Row], name: str, least: float, words: str) -> Target:
    promise = f"≥ {least:,.10g} × {words}, hardware-only sweep of latency"
    row = largest(rows, HARDWARE, name, SIZE)
    if row is None:
        return Target(promise, "not measured", None)
    ratio = row.ratio(name)
    assert ratio is not None
    digits = f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2f}"
    held = row.points == SIZE or (name in ("genz-llm", "NumPy") and ratio >= least)
    return Target(promise, f"{digits} × at {_size(row.points)}", (ratio >= least) if held else None)


def _share(rows: list[Row], fresh: bool) -> Target:
    where = "memory that the system gives anew, as each result is" if fresh else "memory that is there"
    promise = f"≥ 50 % of the bandwidth of writes to {where}, hardware-only sweep of latency"
    row = largest(rows, HARDWARE, most=SIZE)
    share = None if row is None else row.share_of_write(fresh)
    if row is None or share is None:
        return Target(promise, "not measured", None)
    return Target(promise, f"{share:.0%} at {_size(row.points)}", share >= 0.5 if row.points == SIZE else None)


def _best(rows: list[Row]) -> Target:
    promise = "best of 10⁹ points by TTFT, TPOT, energy and feasibility in under 10 s"
    row = largest(rows, "best of all")
    if row is None:
        return Target(promise, "not measured", None)
    seconds = row.ours["seconds"]
    met = seconds * 1e9 / row.points < 10.0 if row.points > 0.9e9 else None
    return Target(promise, f"{seconds:.2f} s for {_size(row.points)}", met)


def _memory(rows: list[Row]) -> list[Target]:
    promise = "peak resident memory ≤ result + 15 % + 400 MB"
    found = []
    for row in rows:
        if row.case == "memory":
            peak, allowed = row.record["peak_bytes"], row.record["allowed"]
            words = f"{peak / 1e6:,.0f} MB of {allowed / 1e6:,.0f} MB at {_size(row.points)}"
            found.append(Target(promise, words, peak <= allowed))
    return found or [Target(promise, "not measured", None)]
