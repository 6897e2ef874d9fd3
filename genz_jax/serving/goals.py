"""Goals: what is made best, by the name of a figure or as a function of the user."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from genz_jax.base import units
from genz_jax.base.fields import Number, field_at, near
from genz_jax.machine.cost import CostResult
from genz_jax.serving.results import RequestResult
from genz_jax.specs import Platform
from genz_jax.specs.figures import Result, figure_metadata

SYSTEM = {
    "system_area": figure_metadata(units.AREA, "die area of all devices", "min"),
    "system_power": figure_metadata(units.WATT, "board power of all devices", "min"),
    "system_price": figure_metadata(units.MONEY, "price of all devices", "min"),
    "system_cost_per_hour": figure_metadata(units.MONEY_PER_HOUR, "cost of ownership of all devices", "min"),
}
"""Figures of cost times the devices; without `system_` the name is that of one device's figure."""

COMBINED = SYSTEM | {
    "cost_per_million_tokens": figure_metadata(units.MONEY_PER_MEGATOKEN, "cost of a million output tokens", "min")
}
"""Figures that are made of a cost and a result."""

Objective = Callable[[RequestResult, Platform], Number]


@dataclasses.dataclass(frozen=True)
class Goal:
    """What is made best.

    Attributes:
        name: a figure of a request, of cost, or of all devices' cost; or what to call the function.
        function: the user's function of result and platform, which is minimised; None for a named figure.
    """

    name: str
    function: Objective | None = None

    @property
    def sign(self) -> float:
        """−1 for what is maximised."""
        return -1.0 if self.meta["better"] == "max" else 1.0

    @property
    def meta(self) -> Mapping[str, Any]:
        """Metadata, as of a figure."""
        if self.function is not None:
            return figure_metadata(units.ONE, self.name, "min")
        return metadata(self.name, CostResult, RequestResult)


def metadata(name: str, *kinds: type[Result]) -> Mapping[str, Any]:
    """Metadata of a figure that is made of a cost and a result, or else of the first of these classes that has it.

    Raises:
        KeyError: none has it.
    """
    kind = next((kind for kind in kinds if name in figure_names(kind)), None)
    return COMBINED[name] if kind is None else field_at(kind, name)


def figure_names(kind: Any) -> tuple[str, ...]:
    fields = [f for f in dataclasses.fields(kind) if "units" in f.metadata and "codes" not in f.metadata]
    return tuple(f.name for f in fields if f.name not in ("feasible", "offloads"))


def read_goal(objective: "str | Objective") -> Goal:
    """The goal of that name, or the user's function.

    Raises:
        ValueError: no such figure.
    """
    if callable(objective):
        return Goal(getattr(objective, "__name__", "objective"), objective)
    known = (*figure_names(CostResult), *COMBINED, *figure_names(RequestResult))
    if objective not in known:
        raise ValueError(f"objective = {objective!r}: no figure of cost or of a request{near(str(objective), known)}")
    return Goal(objective)
