"""Targets: numbers whose least or greatest value a service can be asked for."""

import dataclasses
from typing import Any, Literal

import equinox as eqx

from genz_jax.base import units
from genz_jax.base.fields import near
from genz_jax.serving.evaluate import Case
from genz_jax.serving.slo import SLO
from genz_jax.specs import LINK_ALIASES

Kind = Literal["rate", "efficiency", "latency", "capacity", "count"]


class Service(Case):
    """A case and what is promised of it."""

    slo: SLO | None = None


@dataclasses.dataclass(frozen=True)
class Target:
    """A number that is asked for.

    Attributes:
        name: what the result calls it.
        path: where it stands in a case.
        kind: how a service depends on it: better the more of a `rate` or `efficiency` (at most 1) or `capacity`, and
            the less of a `latency` or `count`.
        unit: its base unit.
        long_name: its description.
        start: a usual value, from which the search goes.
    """

    name: str
    path: str
    kind: Kind
    unit: str
    long_name: str
    start: float

    @property
    def most(self) -> bool:
        """The greatest value is asked for, not the least."""
        return self.kind in ("latency", "count")

    @property
    def extreme(self) -> str:
        """The word for what is asked for."""
        return "greatest" if self.most else "least"

    def of(self, case: Case) -> Any:
        """The number in a case."""
        at: Any = case
        for step in self.path.split("."):
            at = at[int(step)] if isinstance(at, tuple) else getattr(at, step)
        return at

    def put(self, case: Case, value: Any) -> Any:
        """The case with another number there."""
        return eqx.tree_at(self.of, case, value, is_leaf=lambda node: node is None)


_EFFICIENCIES = ("compute_efficiency", "memory_efficiency", "link_efficiency")
_KINDS: dict[str, Kind] = {
    "flops": "rate",
    "mem_bw": "rate",
    "onchip_bw": "rate",
    "offload_bw": "rate",
    "mem_capacity": "capacity",
    "collective_overhead": "latency",
    **dict.fromkeys(_EFFICIENCIES, "efficiency"),
}
_COUNTS = {"batch": "workload.batch", "input_tokens": "workload.input_tokens"}
_STARTS = {units.FLOP_RATE: 1e15, units.BYTE_RATE: 1e12, units.SECOND: 1e-6, units.BYTE: 1e11}


def names(case: Case) -> list[str]:
    """Targets that a case has."""
    levels = range(len(case.platform.network))
    links = [f"network.{i}.{what}" for i in levels for what in ("bandwidth", "latency")]
    short = {path: alias for alias, path in LINK_ALIASES.items()}
    return [*_KINDS, *(short.get(link, link) for link in links), *_COUNTS]


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
    short = {path: alias for alias, path in LINK_ALIASES.items()}
    name = short.get(name, name)
    if name not in known:
        raise ValueError(f"target = {name!r}: must be one of {', '.join(known)}{near(str(name), known)}")
    path = _COUNTS.get(name) or f"platform.{LINK_ALIASES.get(name, name)}"
    *outer, last = path.split(".")
    spec: Any = case
    for step in outer:
        spec = spec[int(step)] if isinstance(spec, tuple) else getattr(spec, step)
    meta = next(field.metadata for field in dataclasses.fields(spec) if field.name == last)
    kind: Kind = "count" if name in _COUNTS else _KINDS.get(name) or ("rate" if last == "bandwidth" else "latency")
    start = 1.0 if kind in ("efficiency", "count") else _STARTS[meta["units"]]
    return Target(name.replace(".", "_"), path, kind, meta["units"], meta["long_name"], start)
