"""The problem that is tuned: variables, objective and limits as functions of arrays.

Variables enter by their logarithms. Times of a roofline are sums of maxima of monomials in the rates of a platform, and
so are areas and costs (but for the step to several dies), so that objectives and limits are convex in these logarithms:
a geometric program, in which a local optimum of the hardware is the global one.
"""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax.base import units
from genz_jax.base.fields import Number, Spec, number
from genz_jax.machine.capacity import usable_memory
from genz_jax.machine.cost import CostFunction, CostModel, CostResult, cost_per_million_tokens, device_cost
from genz_jax.questions.search.candidates import SIZES
from genz_jax.serving.evaluate import Case, Question, evaluate
from genz_jax.serving.goals import SYSTEM, Goal, figure_names
from genz_jax.serving.results import RequestResult
from genz_jax.serving.slo import CEILINGS, FLOORS, SLO
from genz_jax.specs import Platform
from genz_jax.specs.assumptions import Assumptions

SPREAD = SIZES
"""Variables that are whole numbers of the parallelism."""

ROUNDING = 1e-6
"""Share of itself within which a batch is the whole number beside it: the rounding of its logarithm in float32."""

HUGE = 1e30
"""Capacity in bytes at which everything fits; what is needed is then a limit of its own."""


class Budget(Spec):
    """Upper limits of one device, and with `system_` of all devices. A limit that is None is not set."""

    area: Number = number(units.AREA, "die area, at most", None)
    power: Number = number(units.WATT, "board power, at most", None)
    price: Number = number(units.MONEY, "price of a device, at most", None)
    cost_per_hour: Number = number(units.MONEY_PER_HOUR, "cost of ownership of a device, at most", None)
    system_area: Number = number(units.AREA, "die area of all devices, at most", None)
    system_power: Number = number(units.WATT, "board power of all devices, at most", None)
    system_price: Number = number(units.MONEY, "price of all devices, at most", None)
    system_cost_per_hour: Number = number(units.MONEY_PER_HOUR, "cost of ownership of all devices, at most", None)

    def limits(self) -> dict[str, Any]:
        """The limits that are set, by name."""
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: limit for name, limit in named.items() if limit is not None}


@dataclasses.dataclass(frozen=True)
class Limit:
    """One limit: its kind (`memory`, `budget` or `slo`), the figure's name, and the workload that it is of, if any."""

    kind: str
    name: str
    workload: int | None = None

    @property
    def floor(self) -> bool:
        """True where the figure must be at least the limit."""
        return self.kind == "slo" and self.name in FLOORS


@dataclasses.dataclass(frozen=True)
class Form:
    """The static part of a tuning problem: a change here recompiles.

    Attributes:
        variables: paths of the continuous variables in a case, such as `platform.mem_bw` or `workload.batch`.
        goal: what is made best.
        limits: what must hold.
        assumptions: which physics counts.
        cost: the user's function of cost; None for a `CostModel`.
    """

    variables: tuple[str, ...]
    goal: Goal
    limits: tuple[Limit, ...]
    assumptions: Assumptions
    cost: CostFunction | None = None

    @property
    def figures(self) -> tuple[str, ...] | None:
        """Figures of a request that are needed; None for all."""
        if self.goal.function is not None:
            return None
        needed = {"memory"}
        if self.goal.name == "cost_per_million_tokens":
            needed.add("throughput_per_device")
        elif self.goal.name in figure_names(RequestResult) and self.goal.name not in figure_names(CostResult):
            needed.add(self.goal.name)
        needed |= {(CEILINGS | FLOORS)[limit.name] for limit in self.limits if limit.kind == "slo"}
        return tuple(sorted(needed))


class Data(eqx.Module):
    """The numbers of a problem: w workloads along the first of two dimensions, points along the second.

    Attributes:
        case: specs, the workload's numbers of shape (w, 1), others single.
        cost_model: constants of cost; None if the form has a function.
        weights: share of each workload, (w, 1).
        limits: values of the limits in base units, (c,); that of memory is what of the capacity is usable, here 0.
        scale: what the user's objective is divided by.
    """

    case: Case
    cost_model: CostModel | None
    weights: Any
    limits: Any
    scale: Any = 1.0


class Outcome(eqx.Module):
    """The goal as it is minimised, and how far each limit is exceeded, all in logarithms.

    Attributes:
        goal: ±ln of the objective, or the user's objective over its scale, (n,).
        excess: ln(figure/limit), or ln(limit/figure) for floors; above 0 where a limit is broken, (c, n).
    """

    goal: Any
    excess: Any


def place(case: Case, paths: tuple[str, ...], logs: Any, spread: Any) -> Case:
    """The case with the variables' values and the parallel sizes in it; one without context parallelism stays so."""
    sizes = dict(zip(SPREAD, spread, strict=True))
    new: dict[str, dict[str, Any]] = {"platform": {}, "workload": {}}
    for path, log in zip(paths, logs, strict=True):
        what, _, rest = path.partition(".")
        value = jnp.exp(log)[None]
        if path == "workload.batch":
            # exp(ln n) is seldom n: a pass or block that n fills would become two. The slope stays that of the batch.
            nearest = jnp.round(value)
            whole = jnp.abs(value - nearest) <= ROUNDING * value
            value = value + jax.lax.stop_gradient(jnp.where(whole, nearest - value, 0.0))
        new[what][rest] = value
    if case.parallelism.cp is None:
        del sizes["cp"]
    return dataclasses.replace(
        case,
        platform=case.platform.replace(**new["platform"]),
        workload=case.workload.replace(**new["workload"]),
        parallelism=case.parallelism.replace(**sizes),
    )


def price(form: Form, data: Data, platform: Platform, smooth: float) -> CostResult:
    """Cost of the platform, by the constants or the user's function."""
    if form.cost is not None:
        return form.cost(platform)
    assert data.cost_model is not None
    return device_cost(platform, data.cost_model, smooth)


def measure(form: Form, data: Data, logs: Any, spread: Any, smooth: float = 0.0) -> tuple[Any, list[Any]]:
    """Goal as it is minimised and the excess of every limit, each of the shape that it depends on.

    What the memory must hold is compared with what is usable here, smoothly, instead of by a mask that has no slope.

    Args:
        form: structure of the problem.
        data: its numbers.
        logs: logarithms of each continuous variable; arrays of one rank that broadcast together.
        spread: parallel sizes in the order of `SPREAD`, each a single number or an array like `logs` after a 1.
        smooth: 0 for the exact model, τ for p-norms with p = 1/τ.
    """
    rank = max((log.ndim for log in logs), default=1)

    def column(leaf: Any) -> Any:
        return leaf.reshape(leaf.shape[:1] + (1,) * rank)

    case = dataclasses.replace(data.case, workload=jax.tree.map(column, data.case.workload))
    case = place(case, form.variables, logs, spread)
    cost = price(form, data, case.platform, smooth)
    # A device without memory limit, with the power that its rates make.
    unlimited = case.platform.replace(mem_capacity=HUGE, offload_bw=None, power=cost.power)
    question = Question("request", form.assumptions.replace(smooth=smooth), form.figures)
    result: Any = evaluate(dataclasses.replace(case, platform=unlimited), question)
    devices = math.prod(spread)

    def of(value: Any, workload: int | None) -> Any:
        value = jnp.asarray(value)
        return value if value.ndim == 0 else value[workload or 0] if value.shape[0] > 1 else value[0]

    def of_cost(name: str) -> Any:
        return getattr(cost, name.removeprefix("system_")) * (devices if name in SYSTEM else 1.0)

    goal = form.goal
    if goal.function is not None:
        value = goal.function(result, case.platform)
    elif goal.name == "cost_per_million_tokens":
        value = cost_per_million_tokens(result, cost)
    elif goal.name in SYSTEM or goal.name in figure_names(CostResult):
        value = of_cost(goal.name)
    else:
        value = getattr(result, goal.name)
    if jnp.ndim(value) and value.shape[0] > 1:
        mean = jnp.sum(column(data.weights) * value, axis=0)
    else:
        mean = of(value, None)
    minimised = mean / data.scale if goal.function is not None else goal.sign * jnp.log(mean)
    excess = []
    for limit, bound in zip(form.limits, data.limits, strict=True):
        if limit.kind == "memory":
            usable = jnp.maximum(usable_memory(case.platform, form.assumptions), 1.0)
            excess.append(jnp.log(of(result.memory, limit.workload)) - jnp.log(of(usable, None)))
        elif limit.kind == "budget":
            excess.append(jnp.log(of(of_cost(limit.name), None) / bound))
        else:
            used = SLO(**{limit.name: bound}).use(result)[limit.name]
            excess.append(jnp.log(of(used, limit.workload)))
    return minimised, excess


def outcome(form: Form, data: Data, logs: Any, spread: Any, smooth: float = 0.0) -> Outcome:
    """Evaluate n points: arguments as for `measure`, `logs` of shape (d, n)."""
    goal, excess = measure(form, data, logs, spread, smooth)
    shape = logs.shape[1:]
    return Outcome(jnp.broadcast_to(goal, shape), jnp.stack([jnp.broadcast_to(one, shape) for one in excess]))


def slopes(form: Form, data: Data, logs: Any, spread: Any) -> tuple[Outcome, Outcome]:
    """Outcome of the exact model, and its derivatives by each logarithm, whose arrays have the variables first."""

    def along(direction: Any) -> Any:
        tangent = jnp.broadcast_to(direction[:, None], logs.shape)
        return jax.jvp(lambda at: outcome(form, data, at, spread), (logs,), (tangent,))

    values, derivatives = jax.vmap(along)(jnp.eye(logs.shape[0], dtype=logs.dtype))
    return jax.tree.map(lambda leaf: leaf[0], values), derivatives
