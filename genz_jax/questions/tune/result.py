"""What tuning gives: the optimum, what holds it back and what that is worth, and a certificate."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from genz_jax.base import units
from genz_jax.base.html import html_table
from genz_jax.labelled import labels
from genz_jax.machine.cost import CostResult
from genz_jax.questions.tune.problem import SPREAD
from genz_jax.serving.goals import Goal
from genz_jax.serving.results import RequestResult
from genz_jax.specs import Parallelism, Platform, Precision, Workload

if TYPE_CHECKING:
    import xarray as xr


class Infeasible(ValueError):
    """No design within the bounds meets all limits; the message says which are missed, and by how much.

    Attributes:
        excess: relative violation of each limit at the design whose largest violation is smallest.
    """

    def __init__(self, message: str, excess: dict[str, float]):
        super().__init__(message)
        self.excess = excess


@dataclasses.dataclass(frozen=True)
class ActiveLimit:
    """A limit or a bound, whether it is active at the optimum, and what relaxing it is worth.

    Attributes:
        name: what is limited, such as "ttft of chat" or "flops".
        value: the figure at the optimum, in base units.
        limit: the limit.
        unit: base unit of both.
        side: "at most" or "at least".
        elasticity: percent by which the objective gets better when the limit is relaxed by one percent; 0 where it does
            not hold anything back.
        worth: by how much the objective gets better per base unit of the limit.
    """

    name: str
    value: float
    limit: float
    unit: str
    side: str
    elasticity: float
    worth: float

    @property
    def active(self) -> bool:
        """True where relaxing it helps, by more than a thousandth of its own change."""
        return bool(self.elasticity > 1e-3)


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What stands for the optimum being one.

    Attributes:
        exact: the objective by the exact model, evaluated anew at the optimum with all its limits.
        lower_bound: value that no design with these parallel sizes and batch can beat, by the cutting planes, if the
            problem is convex in logarithms; None where the planes showed that it is not.
        grid: the best feasible value of a dense grid; None if none was asked for, NaN if no point of it is feasible.
        grid_points: its points.
        gap: (objective − grid)/grid where smaller is better, the negative where larger is: below 0 if the optimum is
            better than the grid's best.
        best_evaluations: evaluations of the model along the way of the best start; with its gradient one counts twice,
            with all derivatives by d variables 1 + d times.
        evaluations: those of all starts together.
        choices: choices of parallel sizes within the bounds that the model and the network allow.
        tried: of these, how many had starts of their own. Where that is not all, they are those with the best merit
            at the same scattered designs for all.
    """

    exact: float
    lower_bound: float | None
    grid: float | None
    grid_points: int
    gap: float | None
    best_evaluations: int
    evaluations: int
    choices: int = 1
    tried: int = 1


@dataclasses.dataclass(frozen=True)
class TuneResult:
    """The best design that was found. `print` it for a table.

    Attributes:
        objective: name of what was made best.
        unit: its base unit.
        value: its value by the exact model.
        variables: the tuned numbers by name, in base units.
        platform: the platform, its power that of the cost model.
        parallelism: how the model is spread.
        workloads: the workloads by name, with the tuned batch.
        precision: number formats.
        results: figures of each workload on it.
        cost: area, price, power and cost of ownership of a device.
        limits: all limits and bounds, the active ones with what they are worth.
        certificate: how sure it is.
        trace: objective and excess of every step of every start, best start first (`xarray.Dataset`).
        title: what was tuned.
    """

    objective: str
    unit: str
    value: float
    variables: dict[str, float]
    platform: Platform
    parallelism: Parallelism
    workloads: dict[str, Workload]
    precision: Precision
    results: dict[str, RequestResult]
    cost: CostResult
    limits: tuple[ActiveLimit, ...]
    certificate: Certificate
    trace: "xr.Dataset" = dataclasses.field(repr=False)
    title: str = ""
    ranges: dict[str, tuple[float, float, str]] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def batch(self) -> float:
        """Requests at once, of the first workload."""
        return float(next(iter(self.workloads.values())).batch)

    @property
    def active(self) -> tuple[ActiveLimit, ...]:
        """The limits and bounds that hold the optimum back, what is worth most first."""
        return tuple(sorted((h for h in self.limits if h.active), key=lambda h: -h.elasticity))

    def __str__(self) -> str:
        lines = [self.title, f"{self.objective} = {units.show(self.value, self.unit)}", ""]
        rows: list[tuple[str, ...]] = [("variable", "best", "from", "to")]
        for name, (low, high, unit) in self.ranges.items():
            rows.append((name, *(units.show(v, unit) for v in (self.variables[name], low, high))))
        lines += [*_table(rows, (0,)), ""]
        rows = [("limit", "value", "", "limit", "1 % relaxed", "worth")]
        for held in self.limits:
            if held.name in self.ranges and not held.active:
                continue
            gain = f"{held.elasticity:.2g} %" if held.active else "–"
            sides = (units.show(held.value, held.unit), held.side, units.show(held.limit, held.unit))
            rows.append((held.name, *sides, gain, self.described(held) if held.active else ""))
        lines += [*_table(rows, (0, 2, 5)), ""]
        shown = {"price": "device price", "power": "board power", "area": "die area", "cost_per_hour": "ownership"}
        figures = self.cost.figures()
        parts = [f"{text} {units.show(float(figures[n][0]), figures[n][1]['units'])}" for n, text in shown.items()]
        return "\n".join([*lines, "; ".join(parts), *self._certified()])

    def _repr_html_(self) -> str:
        return html_table(str(self))

    def described(self, held: ActiveLimit) -> str:
        """What relaxing a limit by a round step is worth, in words."""
        step = _round_step(held.limit)
        more = "more" if held.side == "at most" else "less"
        return f"{units.show(step, held.unit)} {more}: {units.show(held.worth * step, self.unit, 3)} better"

    def _certified(self) -> list[str]:
        found = self.certificate
        lines = [
            f"evaluations: {found.best_evaluations:,} by the best start, {found.evaluations:,} by all",
        ]
        if found.tried < found.choices:
            lines.append(f"parallel sizes: the {found.tried:,} most promising of {found.choices:,} choices tried")
        elif found.choices > 1:
            lines.append(f"parallel sizes: all {found.choices:,} choices tried")
        if found.lower_bound is not None:
            lines.append(f"bound for these parallel sizes, if convex: {units.show(found.lower_bound, self.unit, 6)}")
        if found.gap is not None and found.grid is not None:
            lines.append(
                f"best of a grid of {found.grid_points:,} points: {units.show(found.grid, self.unit, 6)}, "
                f"gap {found.gap:+.3%}"
            )
        return lines


def trace_dataset(
    goal: Goal, objective: np.ndarray, excess: np.ndarray, spread: np.ndarray, smooth: np.ndarray, title: str
) -> "xr.Dataset":
    """Label the steps of the starts.

    Args:
        goal: what is made best.
        objective: its value, (steps, n).
        excess: logarithm of the largest excess over a limit, (steps, n).
        spread: parallel sizes of the starts, (s, n).
        smooth: smoothing of the maxima at every step.
        title: what was tuned.
    """
    share = {"units": units.ONE, "long_name": "largest share by which a limit is exceeded"}
    values: dict[str, Any] = {
        "objective": (objective.T, ("start", "step"), goal.meta),
        "excess": (np.expm1(np.minimum(excess, 50.0)).T, ("start", "step"), share),
        "smooth": (smooth, ("step",), {"units": units.ONE, "long_name": "smoothing of the maxima"}),
    }
    for name, row in zip(SPREAD, spread, strict=True):
        values[name] = (row, ("start",), {"units": units.ONE, "long_name": f"{name} of the start"})
    steps, starts = np.arange(1, smooth.size + 1), np.arange(spread.shape[1])
    coords = {
        "step": labels.Coordinate(("step",), steps, {"units": units.ONE, "long_name": "step"}),
        "start": labels.Coordinate(("start",), starts, {"units": units.ONE, "long_name": "start, best first"}),
    }
    return labels.plain_dataset(values, coords, {"title": title[:200], "objective": goal.name})


def _round_step(limit: float) -> float:
    """A power of ten that is between 1 and 10 % of a limit."""
    return 10.0 ** math.floor(math.log10(abs(limit)) - 1.0)


def _table(rows: list[tuple[str, ...]], left: tuple[int, ...]) -> list[str]:
    """Rows with aligned columns, those of `left` to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [c.ljust(w) if k in left else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines
