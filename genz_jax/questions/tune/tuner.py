"""Tuner: a tuning problem as arrays and functions of them, and the way to its optimum."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from genz_jax.base import units
from genz_jax.base.label import Label
from genz_jax.labelled.inputs import WorkloadLike
from genz_jax.machine.capacity import usable_memory
from genz_jax.machine.cost import CostFunction, CostModel
from genz_jax.questions.tune.grid import GridBest, best_of_grid
from genz_jax.questions.tune.inputs import (
    SLOLike,
    Variable,
    choices_of,
    read_limits,
    read_tuned_case,
    read_variables,
    read_weights,
)
from genz_jax.questions.tune.polish import Polisher
from genz_jax.questions.tune.problem import SPREAD, Budget, Data, Form, Limit, price
from genz_jax.questions.tune.result import ActiveLimit, Certificate, Infeasible, TuneResult, trace_dataset
from genz_jax.questions.tune.search import DESIGNS, STAGES, WIDTH, Bundle, begin, descend, exact, judge, scatter, shares
from genz_jax.serving.evaluate import Question, compiled, slim
from genz_jax.serving.goals import Objective, read_goal
from genz_jax.serving.slo import SLO
from genz_jax.serving.stage import as_arrays
from genz_jax.specs import Engine, Model, Parallelism, Platform, Precision, assumptions as physics
from genz_jax.specs.assumptions import Assumptions


def build_problem(
    objective: str | Objective,
    model: str | Model,
    platform: str | Platform,
    workload: WorkloadLike | None = None,
    parallelism: Parallelism | None = None,
    precision: str | Precision | None = None,
    *,
    bounds: Mapping[str, Sequence[Any]],
    over: Sequence[str] | None = None,
    budget: Budget | Mapping[str, Any] | None = None,
    slo: SLOLike = None,
    weights: Sequence[float] | Mapping[str, float] | None = None,
    cost_model: CostModel | CostFunction | None = None,
    engine: Engine | None = None,
    assumptions: str | Assumptions = "default",
) -> "Tuner":
    """The problem that `tune` solves, as arrays and functions of them, for other optimisers and for grids.

    Arguments and errors as for `tune`.
    """
    case, names, shown = read_tuned_case(model, platform, workload, parallelism, precision, engine)
    variables = read_variables(case, bounds, over)
    bounded = case.engine
    if not any(v.name == "cp" for v in variables):
        case = slim(case)
    if any(v.path.startswith("workload.") for v in variables):
        case = dataclasses.replace(case, engine=bounded)  # more requests than are given may take more passes
    held = read_limits(names, budget, slo)
    form = Form(
        tuple(v.path for v in variables if not v.spread),
        read_goal(objective),
        tuple(limit for limit, _ in held),
        physics.preset(assumptions),
        None if cost_model is None or isinstance(cost_model, CostModel) else cost_model,
    )
    constants = CostModel() if cost_model is None else cost_model if isinstance(cost_model, CostModel) else None
    data = as_arrays(Data(case, constants, read_weights(names, weights), np.array([bound for _, bound in held]), 1.0))
    return Tuner(form, data, variables, names, choices_of(data.case, form, variables, shown), shown)


class Tuner:
    """A problem that has been read, and the way to its optimum."""

    def __init__(
        self,
        form: Form,
        data: Data,
        variables: tuple[Variable, ...],
        names: tuple[str, ...],
        choices: np.ndarray,
        shown: dict[str, str],
    ):
        self.form, self.data, self.variables, self.names = form, data, variables, names
        self.choices, self.shown = choices, shown
        self.continuous = tuple(v for v in variables if not v.spread)
        self.low = np.log([v.low for v in self.continuous])
        self.high = np.log([v.high for v in self.continuous])
        self.margin = 2e-5 if jnp.result_type(float) == jnp.float32 else 1e-9

    def run(self, starts: int, steps: int, seed: int, grid_points: int, progress: bool) -> TuneResult:
        """Descend, polish, round the batch, and verify."""
        choices = self._promising(starts, seed)
        spread = choices[:, np.arange(starts) % choices.shape[1]]
        unit = scatter(len(self.continuous), starts, seed)
        if self.form.goal.function is not None:
            self.data = dataclasses.replace(self.data, scale=self._scale(unit, spread))
        state, goals, excess = self._descend(unit, spread, steps, progress)
        low, high = self._box(spread)
        logs = low + np.asarray(state.unit, float) * (high - low)
        polisher = Polisher(self.form, self.data, self.margin, self._box, self._fail)
        polished = polisher.polish(logs, spread, goals[-1], excess[-1])
        best, ranks = polished.best, polished.ranks
        certified = best.bundle.certificate(len(self.form.limits))
        each = 1 + len(self.continuous)
        best_evaluations = 2 * steps + each * best.rounds
        evaluations = 2 * steps * starts + each * polished.rounds * WIDTH
        if choices.shape[1] < self.choices.shape[1]:
            evaluations += DESIGNS * self.choices.shape[1]
        shown = self._in_units(goals[:, ranks])
        smooth = np.repeat(STAGES, shares(steps))
        trace = trace_dataset(self.form.goal, shown, excess[:, ranks], spread[:, ranks], smooth, self._title())
        counts = (best_evaluations, evaluations, self.choices.shape[1], choices.shape[1])
        grid = self._grid(grid_points, progress) if grid_points else None
        return self._result(best.place, spread[:, best.start], best.bundle, certified, counts, trace, grid)

    def _sizes(self, spread: np.ndarray) -> tuple[Any, ...]:
        return tuple(jnp.asarray(row)[None] for row in spread)

    def _box(self, spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logarithms of the bounds of points with these parallel sizes, (d, n): each replica has a request."""
        low, high = (np.repeat(end[:, None], spread.shape[1], axis=1) for end in (self.low, self.high))
        if "workload.batch" in self.form.variables:
            at = self.form.variables.index("workload.batch")
            low[at] = np.maximum(low[at], np.log(spread[SPREAD.index("dp")]))
        return low, high

    def _promising(self, most: int, seed: int) -> np.ndarray:
        """The choices of parallel sizes that get starts: all, or as many as promise most."""
        if self.choices.shape[1] <= most:
            return self.choices
        unit = scatter(len(self.continuous), DESIGNS, seed)
        merits = judge(self.form, self.data, unit, self._box(self.choices), self.choices)
        return self.choices[:, np.sort(np.argsort(merits, kind="stable")[:most])]

    def _scale(self, unit: np.ndarray, spread: np.ndarray) -> Any:
        """Typical size of the user's objective."""
        low, high = self._box(spread[:, :WIDTH])
        logs = low + unit[:, :WIDTH] * (high - low)
        goal = exact(self.form, self.data, logs, spread[:, :WIDTH])[0].goal
        good = np.abs(goal[np.isfinite(goal)])
        return jnp.asarray(float(np.median(good)) or 1.0 if good.size else 1.0)

    def _descend(self, unit: np.ndarray, spread: np.ndarray, steps: int, progress: bool) -> Any:
        state = begin(jnp.asarray(unit), len(self.form.limits), steps)
        low, high = self._box(spread)
        box = (jnp.asarray(low), jnp.asarray(high))
        traces = []
        plan = list(zip(STAGES, shares(steps), strict=True))
        for smooth, part in tqdm(plan, unit="stage", delay=2, leave=False, disable=not progress):
            state, goals, excess = descend(self.form, smooth, part, steps, state, self.data, box, self._sizes(spread))
            traces.append((np.asarray(goals), np.asarray(excess)))
        goals, excess = (np.concatenate(parts) for parts in zip(*traces, strict=True))
        return state, goals, excess

    def _fail(self, bundles: list[Bundle], spread: np.ndarray) -> NoReturn:
        """Raise `Infeasible` with the limits that are missed at the nearest design."""
        known = [(k, b) for k, b in enumerate(bundles) if b.best >= 0]
        if not known:
            raise Infeasible("tune: no design within the bounds has finite figures", {})
        k, bundle = min(known, key=lambda kb: float(kb[1].excess[kb[1].best].max()))
        excess = bundle.excess[bundle.best]
        place = np.exp(bundle.places[bundle.best])
        missed = {}
        texts = []
        for i in np.argsort(-excess):
            if excess[i] <= 0:
                continue
            held = self._limit_at(int(i), excess, place, 0.0, 1.0)
            missed[held.name] = float(np.expm1(excess[i]))
            sides = (units.show(held.value, held.unit), held.side, units.show(held.limit, held.unit))
            texts.append(f"{held.name} {sides[0]}, {sides[1]} {sides[2]} ({missed[held.name]:.1%} off)")
        at = [f"{v.name} {units.show(x, v.unit)}" for v, x in zip(self.continuous, place, strict=True)]
        at += [f"{name} {n:g}" for name, n in zip(SPREAD, spread[:, k], strict=True) if n > 1]
        raise Infeasible(
            f"tune: no design within the bounds meets all limits; the nearest misses {'; '.join(texts)}, at "
            f"{', '.join(at)}; widen the bounds or relax these limits",
            missed,
        )

    def _named(self, limit: Limit) -> str:
        of = f" of {self.names[limit.workload]}" if limit.workload is not None and len(self.names) > 1 else ""
        return f"{limit.name}{of}" if limit.kind != "memory" else f"memory{of}"

    def _limit_at(self, i: int, excess: np.ndarray, place: np.ndarray, dual: float, value: float) -> ActiveLimit:
        """Limit i at a design, whose values of the continuous variables are `place`."""
        limit = self.form.limits[i]
        if limit.kind == "memory":
            tuned = {v.path: x for v, x in zip(self.continuous, place, strict=True)}
            platform = self.data.case.platform
            capacity = tuned.get("platform.mem_capacity", platform.mem_capacity)
            usable = usable_memory(platform.replace(mem_capacity=capacity), self.form.assumptions)
            bound, unit = float(np.asarray(usable)), units.BYTE
        else:
            bound = float(self.data.limits[i])
            spec: Any = Budget if limit.kind == "budget" else SLO
            unit = next(f.metadata["units"] for f in dataclasses.fields(spec) if f.name == limit.name)
        figure = bound * float(np.exp(-excess[i] if limit.floor else excess[i]))
        side = "at least" if limit.floor else "at most"
        return ActiveLimit(
            self._named(limit), figure, bound, unit, side, max(dual, 0.0), max(dual, 0.0) * value / bound
        )

    def _result(
        self,
        place: np.ndarray,
        chosen: np.ndarray,
        bundle: Bundle,
        certified: tuple[float, np.ndarray, np.ndarray],
        counts: tuple[int, int, int, int],
        trace: Any,
        grid: GridBest | None,
    ) -> TuneResult:
        bound, duals, box = certified
        values = dict(zip((v.name for v in self.continuous), np.exp(place), strict=True))
        if "batch" in values:
            values["batch"] = float(np.round(values["batch"]))
        paths = {v.path: values[v.name] for v in self.continuous}
        platform = self.data.case.platform.replace(
            **{path.removeprefix("platform."): x for path, x in paths.items() if path.startswith("platform.")}
        )
        cost = jax.tree.map(np.asarray, price(self.form, self.data, as_arrays(platform), 0.0))
        platform = platform.replace(power=cost.power, offload_bw=None, label=Label(f"{self.shown['platform']} tuned"))
        platform = jax.tree.map(np.asarray, platform)
        sizes = {name: float(n) for name, n in zip(SPREAD, chosen, strict=True)}
        spread: Any = jax.tree.map(float, self.data.case.parallelism.replace(**sizes))
        workloads = {}
        for k, name in enumerate(self.names):
            one = jax.tree.map(lambda leaf, k=k: np.asarray(leaf)[k, 0], self.data.case.workload)
            if "batch" in values:
                one = one.replace(batch=values["batch"])
            workloads[name] = one.replace(label=Label(name))
        question = Question("request", self.form.assumptions)
        results = {}
        for name, load in workloads.items():
            case = dataclasses.replace(self.data.case, platform=platform, workload=load, parallelism=spread)
            found = compiled(question, quick=True)(slim(case))
            results[name] = jax.tree.map(np.asarray, found)
            if not bool(found.feasible):
                raise RuntimeError(f"tune: {name} does not run on the design that was found: {results[name].reason}")
        final, _ = exact(self.form, self.data, self._logs(values)[:, None], chosen[:, None])
        value = float(self._in_units(float(final.goal[0])))
        unit_value = float(self.data.scale) if self.form.goal.function is not None else value
        excess = final.excess[:, 0]
        at = np.exp(place)
        limits = [self._limit_at(i, excess, at, float(duals[i]), unit_value) for i in range(len(duals))]
        limits += self._bounds(values, box, unit_value)
        certificate = self._certificate(value, bound if bundle.convex else None, counts, grid)
        tuned = {
            v.name: float(values[v.name]) if v.name in values else float(chosen[SPREAD.index(v.name)])
            for v in self.variables
        }
        return TuneResult(
            objective=self.form.goal.name,
            unit=self.form.goal.meta["units"],
            value=value,
            variables=tuned,
            platform=platform,
            parallelism=spread,
            workloads=workloads,
            precision=self.data.case.precision,
            results=results,
            cost=cost,
            limits=tuple(limits),
            certificate=certificate,
            trace=trace,
            title=self._title(),
            ranges={v.name: (v.low, v.high, v.unit) for v in self.variables},
        )

    def _title(self) -> str:
        word = "most" if self.form.goal.sign < 0 else "least"
        return (
            f"tune: {word} {self.form.goal.name} of {self.shown['model']} on a platform like {self.shown['platform']}; "
            f"{self.shown['precision']}; {', '.join(self.names)}"
        )

    def _logs(self, values: Mapping[str, float]) -> np.ndarray:
        return np.log([values[v.name] for v in self.continuous])

    def _in_units(self, goal: Any) -> Any:
        """The objective from the goal as it is minimised."""
        if self.form.goal.function is not None:
            return goal * float(self.data.scale)
        return np.exp(self.form.goal.sign * goal)

    def _bounds(self, values: Mapping[str, float], box: np.ndarray, unit_value: float) -> list[ActiveLimit]:
        """The bounds that the optimum lies at."""
        found = []
        for v, dual in zip(self.continuous, box, strict=True):
            if v.low == v.high or v.name == "batch" or not abs(dual) > 1e-3:
                continue
            end, side = (v.high, "at most") if dual < 0 else (v.low, "at least")
            if not np.isclose(values[v.name], end, rtol=1e-6):
                continue
            found.append(
                ActiveLimit(v.name, values[v.name], end, v.unit, side, abs(dual), abs(dual) * unit_value / end)
            )
        return found

    def _certificate(
        self, value: float, bound: float | None, counts: tuple[int, int, int, int], grid: GridBest | None
    ) -> Certificate:
        best = None if grid is None else float(self._in_units(grid.goal))
        gap = None if best is None else self.form.goal.sign * (value - best) / abs(best)
        lower = None if bound is None else float(self._in_units(bound))
        return Certificate(value, lower, best, 0 if grid is None else grid.points, gap, *counts)

    def _grid(self, points: int, progress: bool) -> GridBest:
        """The best of a grid that is as dense along every variable as the points allow."""
        each = max(int((points / self.choices.shape[1]) ** (1 / max(len(self.continuous), 1))), 2)
        axes = []
        for v, low, high in zip(self.continuous, self.low, self.high, strict=True):
            axis = np.linspace(low, high, each)
            axes.append(np.log(np.unique(np.round(np.exp(axis)))) if v.name == "batch" else axis)
        return best_of_grid(self.form, self.data, axes, [tuple(c) for c in self.choices.T], progress)
