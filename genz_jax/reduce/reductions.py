"""Reductions: what can be asked of a grid of points without holding it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from genz_jax.base.fields import Number, near
from genz_jax.base.units import ONE
from genz_jax.labelled import labels
from genz_jax.machine.cost import CostModel, cost_per_million_tokens, device_cost
from genz_jax.serving.goals import SYSTEM, Goal
from genz_jax.specs import Platform
from genz_jax.specs.figures import Result, figure_metadata

Objective = str | Callable[[Any, Platform], Number]
"""A figure of the stage, a figure of cost, or a function of the stage's result and the platform, of arrays."""

Sense = str
"""What is better: "min" or "max"."""

COSTS = tuple(name.removeprefix("system_") for name in SYSTEM)
"""Figures of the cost of a device; with `system_` before the name, of all devices."""

_TOKENS = "cost_per_million_tokens"


@dataclasses.dataclass(frozen=True)
class Best:
    """The best point of a grid, or the best over some of its dimensions at every place of the others.

    Only points that run, and that meet the `slo` of the sweep, count. Of equal points any one is taken.

    Attributes:
        objective: a figure of the stage such as "tpot"; a figure of cost at default constants (`price`, `power`,
            `area`, `cost_per_hour`, with `system_` of all devices, or `cost_per_million_tokens`); or a function of the
            result and the `Platform`.
        over: the dimensions over which the best is sought, all by default.
        sense: "min" or "max"; by default what is better for the figure, "min" for a function.
    """

    objective: Objective
    over: str | Sequence[str] | None = None
    sense: Sense | None = None


@dataclasses.dataclass(frozen=True)
class TopK:
    """The `k` best points of a grid, in order: dimension `rank`. Attributes else as for `Best`."""

    objective: Objective
    k: int = 10
    sense: Sense | None = None


@dataclasses.dataclass(frozen=True)
class ParetoFront:
    """The points of a grid that no other point equals or beats in all objectives, exactly: dimension `point`.

    Of points that are equal in all objectives one is taken.

    Attributes:
        objectives: "min" or "max" by name of a figure, two or more; None for what is better for the figure.
    """

    objectives: Mapping[str, Sense | None]


@dataclasses.dataclass(frozen=True)
class Quantiles:
    """Exact quantiles of a figure over the points that run: dimension `quantile`.

    Between two points the quantile is interpolated linearly, as `numpy.quantile` does.

    Attributes:
        figure: a figure of the stage, a figure of cost, or a function, as for `Best`.
        q: shares from 0 to 1.
        over: the dimensions whose points are ranked, all by default.
    """

    figure: Objective
    q: Sequence[float] = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
    over: str | Sequence[str] | None = None


@dataclasses.dataclass(frozen=True)
class Fraction:
    """The share of points that run, and that meet the `slo` of the sweep.

    Attributes:
        over: the dimensions whose points are counted, all by default.
    """

    over: str | Sequence[str] | None = None


Reduction = Best | TopK | ParetoFront | Quantiles | Fraction


def value_of(objective: Objective, result: Result, platform: Platform) -> Number:
    """The value of an objective.

    Args:
        objective: the figure or function.
        result: all figures of the stage.
        platform: the platform.

    Raises:
        ValueError: no such figure.
    """
    if callable(objective):
        return objective(result, platform)
    figures = labels.flat_figures(result)
    if objective in figures and "codes" not in figures[objective][1] and not isinstance(figures[objective][0], dict):
        return figures[objective][0]
    _check_cost(objective, figures)
    cost = device_cost(platform, CostModel())
    if objective == _TOKENS:
        return cost_per_million_tokens(result, cost)  # type: ignore[arg-type]
    name = objective.removeprefix("system_")
    return getattr(cost, name) * (figures["devices"][0] if name != objective else 1.0)


def _check_cost(objective: str, figures: Mapping[str, Any]) -> None:
    """Raise ValueError where an objective is no figure of cost that the stage can have."""
    costs = [*COSTS]
    costs += [f"system_{name}" for name in COSTS if "devices" in figures]
    costs += [_TOKENS] if "throughput_per_device" in figures else []
    if objective not in costs:
        known = [name for name, (value, meta) in figures.items() if "codes" not in meta and not isinstance(value, dict)]
        near_by = near(objective, known + costs)
        raise ValueError(f"reduce: {objective!r} is no figure of this stage with numbers, nor of cost{near_by}")


def name_of(objective: Objective) -> str:
    """What a result calls an objective."""
    return getattr(objective, "__name__", "objective") if callable(objective) else objective


def meta_of(objective: Objective, result: Any) -> dict[str, Any]:
    """Unit, description and which value is better of an objective, from a result or the shapes of one."""
    if callable(objective):
        return figure_metadata(ONE, name_of(objective), "min")
    figures = labels.flat_figures(result)
    if objective in figures and "codes" not in figures[objective][1]:
        return figures[objective][1]
    _check_cost(objective, figures)
    return dict(Goal(objective).meta)


def sense_of(objective: Objective, sense: Sense | None, meta: Mapping[str, Any]) -> float:
    """1 where less is better, −1 where more is.

    Raises:
        ValueError: neither "min" nor "max", or a figure of which neither is known to be better.
    """
    if sense is None:
        sense = meta.get("better")
    if sense not in ("min", "max"):
        given = "is neither known to be better small nor large" if sense is None else f"has the sense {sense!r}"
        raise ValueError(f"reduce: {name_of(objective)!r} {given}; give sense='min' or sense='max'")
    return 1.0 if sense == "min" else -1.0


def reduced_dims(over: str | Sequence[str] | None, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """The dimensions that a reduction takes away.

    Raises:
        ValueError: none, one twice, or one that the sweep has not.
    """
    if over is None:
        return tuple(sizes)
    named = (over,) if isinstance(over, str) else tuple(over)
    for dim in named:
        if dim not in sizes:
            raise ValueError(f"reduce: over has {dim!r}, but the sweep has the dimensions {', '.join(sizes)}")
    if not named or len(set(named)) < len(named):
        raise ValueError(f"reduce: over = {list(named)!r}; name each dimension once, at least one, or leave it out")
    return tuple(dim for dim in sizes if dim in named)


def check(reduction: Any) -> None:
    """Raise ValueError where a reduction is none, or asks for what cannot be."""
    if not isinstance(reduction, Reduction):
        kinds = ", ".join(f"gz.{kind.__name__}" for kind in (Best, TopK, ParetoFront, Quantiles, Fraction))
        raise ValueError(f"reduce = {reduction!r}: must be one of {kinds}, or a mapping of names to them")
    if isinstance(reduction, TopK) and not (reduction.k >= 1 and reduction.k == int(reduction.k)):
        raise ValueError(f"TopK.k = {reduction.k!r}: must be a whole number of at least 1")
    if isinstance(reduction, ParetoFront) and not isinstance(reduction.objectives, Mapping):
        raise ValueError(
            f"ParetoFront.objectives = {reduction.objectives!r}: must be a mapping of figures to the better "
            "side, such as {'tpot': 'min', 'throughput': 'max'}"
        )
    if isinstance(reduction, ParetoFront) and len(reduction.objectives) < 2:
        raise ValueError(f"ParetoFront.objectives = {list(reduction.objectives)}: name two or more")
    if isinstance(reduction, Quantiles):
        q = np.asarray(reduction.q, dtype=float)
        if q.ndim != 1 or not q.size or not np.all((q >= 0) & (q <= 1)):
            raise ValueError(f"Quantiles.q = {reduction.q!r}: must be a list of shares from 0 to 1")
