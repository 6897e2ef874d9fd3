"""Goals: what is made best, by the name of a figure or as a function of the user."""

import dataclasses
from collections.abc import Callable
from typing import Any

from genz_jax.base import units
from genz_jax.base.fields import Number, near
from genz_jax.machine.cost import CostResult
from genz_jax.serving.results import RequestResult
from genz_jax.specs import Platform

MAXIMISED = ("throughput", "throughput_per_device", "interactivity")
"""Figures that are better when they are larger; all others are better when they are smaller."""

SYSTEM = {
    "system_price": ("price", units.MONEY, "price of all devices"),
    "system_power": ("power", units.WATT, "board power of all devices"),
    "system_area": ("area", units.AREA, "die area of all devices"),
    "system_cost_per_hour": ("cost_per_hour", units.MONEY_PER_HOUR, "cost of ownership of all devices"),
}
"""Figures of cost times the devices: the figure of one device, unit and description."""

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
        return -1.0 if self.function is None and self.name in MAXIMISED else 1.0

    @property
    def meta(self) -> dict[str, str]:
        """Unit and description."""
        if self.function is not None:
            return {"units": units.ONE, "long_name": self.name}
        if self.name == "cost_per_million_tokens":
            return {"units": units.MONEY_PER_MEGATOKEN, "long_name": "cost of a million output tokens"}
        if self.name in SYSTEM:
            return {"units": SYSTEM[self.name][1], "long_name": SYSTEM[self.name][2]}
        kind = CostResult if self.name in figure_names(CostResult) else RequestResult
        field = next(f for f in dataclasses.fields(kind) if f.name == self.name)
        return {"units": field.metadata["units"], "long_name": field.metadata["long_name"]}


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
    known = (*figure_names(CostResult), *SYSTEM, "cost_per_million_tokens", *figure_names(RequestResult))
    if objective not in known:
        raise ValueError(f"objective = {objective!r}: no figure of cost or of a request{near(str(objective), known)}")
    return Goal(objective)
