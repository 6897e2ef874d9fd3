"""Targets: numbers whose least or greatest value a service can be asked for."""

import dataclasses
from typing import Any

from genz_jax.base import units
from genz_jax.base.fields import LESS_IS_BETTER, Role, at, field_at, near, put
from genz_jax.serving.evaluate import Case


@dataclasses.dataclass(frozen=True)
class Target:
    """A number that is asked for.

    Attributes:
        name: what the result calls it.
        path: where it stands in a case.
        kind: its role: a service is better the more of a `rate`, `efficiency` (at most 1) or `capacity`, and the less
            of a `latency` or `count`.
        unit: its base unit.
        long_name: its description.
        start: a usual value, from which the search goes.
    """

    name: str
    path: str
    kind: Role
    unit: str
    long_name: str
    start: float

    @property
    def most(self) -> bool:
        """The greatest value is asked for, not the least."""
        return self.kind in LESS_IS_BETTER

    @property
    def extreme(self) -> str:
        """The word for what is asked for."""
        return "greatest" if self.most else "least"

    def of(self, case: Case) -> Any:
        """The number in a case."""
        return at(case, self.path)

    def put(self, case: Case, value: Any) -> Any:
        """The case with another number there."""
        return put(case, self.path, value)


_KINDS: tuple[Role, ...] = ("rate", "efficiency", "capacity", "latency")
_COUNTS = {"batch": "workload.batch", "input_tokens": "workload.input_tokens"}
_STARTS = {units.FLOP_RATE: 1e15, units.BYTE_RATE: 1e12, units.SECOND: 1e-6, units.BYTE: 1e11}


def names(case: Case) -> list[str]:
    """Targets that a case has."""
    platform = case.platform
    return [*(platform.short(p) for p in platform.paths() if field_at(platform, p)["role"] in _KINDS), *_COUNTS]


def read_target(name: str, case: Case) -> Target:
    """The target of that name.

    Args:
        name: a number of a platform (`mem_bw`, `flops`, `mem_capacity`, `link_bw`, `link_latency`, an efficiency,
            `network.1.bandwidth`, …), or `batch` or `input_tokens`.
        case: the case that has it.

    Raises:
        ValueError: no such target.
    """
    known = names(case)
    name = case.platform.short(name)
    if name not in known:
        raise ValueError(f"target = {name!r}: must be one of {', '.join(known)}{near(str(name), known, few=0)}")
    path = _COUNTS.get(name) or f"platform.{case.platform.full(name)}"
    meta = field_at(case, path)
    start = 1.0 if meta["role"] in ("efficiency", "count") else _STARTS[meta["units"]]
    return Target(name.replace(".", "_"), path, meta["role"], meta["units"], meta["long_name"], start)
