"""Results: the saved record of the benchmarks, as `pytest --benchmark-json` writes it, row by row."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import limits

HERE = Path(__file__).parent
HARDWARE = "hardware, decode"
OURS, ON_DEVICE, RESIDENT = "genz_jax", "genz_jax, left on the device", ", resident"
WRITES = {
    limits.RESIDENT: "write to memory that is there",
    limits.RESIDENT_STREAM: "the same, past the caches",
    limits.FRESH: "write to memory that the system gives anew",
    limits.FRESH_STREAM: "the same, past the caches",
    limits.DEVICE: "write to the memory of the device",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One case at one size.

    Attributes:
        case: what was computed.
        points: of how many points.
        record: all that was noted.
    """

    case: str
    points: int
    record: dict[str, Any]

    @property
    def competitors(self) -> dict[str, dict[str, Any]]:
        """What was measured of each competitor, by name."""
        return {one["name"]: one for one in self.record.get("competitors", [])}

    @property
    def ours(self) -> dict[str, Any]:
        """What was measured of genz_jax."""
        return self.competitors[OURS]

    def ratio(self, name: str) -> float | None:
        """How many times faster genz_jax is, None if the competitor did not take part."""
        one = self.competitors.get(name)
        return None if one is None else one["ratio"]

    def write_rate(self, fresh: bool) -> float | None:
        """Bytes per second that the machine writes at most, None if not measured.

        Args:
            fresh: to memory that the system gives anew, as each result is.
        """
        names = (limits.FRESH, limits.FRESH_STREAM) if fresh else (limits.RESIDENT, limits.RESIDENT_STREAM)
        rates = [rate for name, rate in self.record["limits"].items() if name in (*names, limits.DEVICE)]
        return max(rates, default=None)

    def share_of_write(self, fresh: bool) -> float | None:
        """Share of that rate at which genz_jax writes its result; on a device of its own, into the device's memory."""
        rate, one = self.write_rate(fresh), self.ours
        if limits.DEVICE in self.record["limits"]:
            one = self.competitors.get(ON_DEVICE, one)
        return None if rate is None else self.record["result_bytes"] / one["seconds"] / rate


def read(path: Path) -> list[Row]:
    """All rows, in the order of the run, sizes of a case together and growing.

    Raises:
        ValueError: no such file, not JSON, or nothing of these benchmarks in it.
    """
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); run the benchmarks first") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error}); give the file of --benchmark-json") from None
    records = [bench["extra_info"] for bench in saved.get("benchmarks", [])]
    rows = [Row(record["case"], record["points"], record) for record in records if "case" in record]
    if not any(row.competitors for row in rows):
        raise ValueError(f"{path}: no contests in it; run pytest benchmarks --benchmark-only --benchmark-json={path}")
    first = {case: i for i, case in reversed(list(enumerate(row.case for row in rows)))}
    return sorted(rows, key=lambda row: (first[row.case], row.points))


def largest(rows: list[Row], case: str, name: str = OURS, most: float = float("inf")) -> Row | None:
    """The largest size of a case in which a competitor took part, None if there is none.

    Args:
        rows: all rows.
        case: the case.
        name: the competitor.
        most: points that it has at most.
    """
    found = [row for row in rows if row.case == case and name in row.competitors and row.points <= most]
    return max(found, key=lambda row: row.points, default=None)
