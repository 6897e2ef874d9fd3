"""Inverse: the value of a target at which a case just meets its objective, at every point at once."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from genz_jax.base.caches import QUESTIONS, Compiled
from genz_jax.base.fields import Number
from genz_jax.machine.capacity import capacity_for
from genz_jax.questions.require.result import Limit, Obstacle, Requirement
from genz_jax.questions.require.root import SPAN, crossing, greatest_whole, tolerance
from genz_jax.serving.evaluate import Case, Question, figures_of, work_of
from genz_jax.serving.slo import CEILINGS, FLOORS
from genz_jax.serving.targets import Target
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.reasons import Reason


@functools.lru_cache(maxsize=QUESTIONS)
def inverse(target: Target, assumptions: Assumptions, quick: bool = True) -> Any:
    """The function from a case to its `Requirement`, compiled once per structure and shapes.

    Args:
        target: what is asked for.
        assumptions: which physics counts.
        quick: compile in half the time, for few points.
    """

    @functools.partial(Compiled, quick=quick)
    def run(service: Case) -> Requirement:
        return _Search(target, service, assumptions).requirement()

    return run


class _Search:
    """The figures of a service as functions of the target."""

    def __init__(self, target: Target, service: Case, assumptions: Assumptions):
        self.target, self.service = target, service
        assert service.slo is not None
        self.limits: list[str] = list(service.slo.limits())
        figures = ("feasible", "reason", "memory", "bound", "prefill_bound", "decode_bound")
        wanted = [(CEILINGS | FLOORS)[name] for name in self.limits]
        self.question = Question("request", assumptions, (*figures, *wanted))
        self.dtype: Any = jnp.result_type(float)
        # What is asked of a platform is counted once, not in every step of a search.
        self.work = work_of(service, self.question) if target.path.startswith("platform.") else None
        one = jnp.ones((), self.dtype)
        self.shape: tuple[int, ...] = jax.eval_shape(lambda: self.shape_of(self.at(one))).shape

    def shape_of(self, result: Any) -> jax.Array:
        """Anything that has the shape of all points."""
        return jnp.where(result.feasible, self.worst(self.uses(result), ())[0], jnp.nan)

    def at(self, value: jax.Array) -> Any:
        """Figures where the target has that value."""
        case = self.target.put(self.service, value)
        work = work_of(case, self.question) if self.work is None else self.work
        return figures_of(work, case.platform, self.question)

    def uses(self, result: Any) -> dict[str, Number]:
        """The share of each limit that is used."""
        assert self.service.slo is not None
        return self.service.slo.use(result)

    def full(self, value: Number) -> jax.Array:
        """An array of all points."""
        return jnp.broadcast_to(jnp.asarray(value, self.dtype), self.shape)

    def requirement(self) -> Requirement:
        """The answer, by the kind of the target."""
        kind = self.target.kind
        if kind == "count":
            return self.greatest_count()
        if kind == "capacity":
            return self.least_capacity()
        return self.crossing_of_rate()

    def worst(self, uses: dict[str, Number], shape: tuple[int, ...] | None = None) -> tuple[jax.Array, jax.Array]:
        """The greatest use, and the code of its limit; 0 and `capacity` where there is no limit."""
        shape = self.shape if shape is None else shape
        most, code = jnp.zeros(shape, self.dtype), jnp.full(shape, jnp.int8(Limit.capacity))
        for name, use in uses.items():
            code = jnp.where(use > most, jnp.int8(Limit[name]), code)
            most = jnp.maximum(most, use)
        return most, code

    def obstacle(self, result: Any, limit: jax.Array) -> jax.Array:
        """Code of what stands in the way at the best value of the target."""
        bound = jnp.where(limit == Limit.ttft.value, result.prefill_bound_code, result.bound_code)
        decodes = (limit == Limit.tpot.value) | (limit == Limit.interactivity.value)
        bound = jnp.where(decodes, result.decode_bound_code, bound)
        full = result.reason_code == Reason.does_not_fit.value
        runs = result.reason_code == Reason.feasible.value
        apart = jnp.where(full, jnp.int8(Obstacle.capacity), jnp.int8(Obstacle.mapping))
        return jnp.where(runs, bound + jnp.int8(1), apart)

    def answer(
        self, value: jax.Array, use: jax.Array, feasible: jax.Array, reason: jax.Array, limit: jax.Array, best: Any
    ) -> Requirement:
        """The value, its use of the limits and what sets it, or why there is none; and the best figures."""
        figures = {name: getattr(best, (CEILINGS | FLOORS)[name]) for name in self.limits}
        return Requirement(
            jnp.where(feasible, value, jnp.nan),
            jnp.where(feasible, use - 1.0, jnp.nan),
            feasible,
            jnp.where(feasible, jnp.int8(Obstacle.met), reason),
            jnp.where(feasible, limit, jnp.int8(Limit.none)),
            figures,
            self.target,
        )

    def crossing_of_rate(self) -> Requirement:
        """The greatest reciprocal of a rate, or the greatest latency, that every limit allows."""
        target = self.target
        rising = target.kind == "latency"

        def value_of(u: Number) -> Number:
            return target.start * u if rising else target.start / u

        def use(u: jax.Array) -> tuple[jax.Array, jax.Array]:
            return self.worst(self.uses(self.at(value_of(u))))

        best, idle = self.ends(0.0 if rising else 1.0 if target.kind == "efficiency" else jnp.inf, value_of(SPAN))
        most, limit = self.worst(self.uses(best))
        allowed = 1.0 + tolerance(self.dtype)
        reachable = best.feasible & (most <= allowed)
        idle = self.worst(self.uses(idle))[0] <= allowed
        low = self.full(1.0 if target.kind == "efficiency" else 0.0)
        found = crossing(use, self.full(1.0), low, jnp.logical_not(reachable) | idle)
        value = jnp.where(idle, jnp.inf if rising else 0.0, value_of(found.u))
        binding = jnp.where(idle, jnp.int8(Limit.none), found.aux)
        residual = jnp.where(idle, 1.0, found.use)
        return self.answer(value, residual, reachable & found.found, self.obstacle(best, limit), binding, best)

    def ends(self, *values: Number) -> list[Any]:
        """Figures at several values of the target, one after the other, traced and compiled once."""
        stacked = jnp.stack([self.full(value) for value in values])
        found = jax.lax.map(lambda value: jax.tree.map(self.full_of, self.at(value)), stacked)
        return [jax.tree.map(lambda leaf, i=i: leaf[i], found) for i in range(len(values))]

    def full_of(self, leaf: jax.Array) -> jax.Array:
        """A figure at all points."""
        return jnp.broadcast_to(leaf, self.shape)

    def least_capacity(self) -> Requirement:
        """The memory that is needed and the reserve; less where the rest is offloaded and the limits allow it."""
        best = self.at(self.full(jnp.inf))
        most, limit = self.worst(self.uses(best))
        reachable = best.feasible & (most <= 1.0 + tolerance(self.dtype))
        need = self.full(capacity_for(self.full(best.memory), self.service.platform, self.question.assumptions))
        link = self.service.platform.offload_bw
        if link is None:
            always = jnp.full(self.shape, jnp.int8(Limit.capacity))
            return self.answer(need, self.full(1.0), reachable, self.obstacle(best, limit), always, best)

        def use(u: jax.Array) -> tuple[jax.Array, jax.Array]:
            return self.worst(self.uses(self.at(need / u)))

        offloads = self.full(link) > 0
        idle = offloads & (use(self.full(SPAN))[0] <= 1.0)
        searched = reachable & offloads & jnp.logical_not(idle)
        found = crossing(use, self.full(2.0), self.full(1.0), jnp.logical_not(searched))
        value = jnp.where(searched, need / found.u, jnp.where(idle, 0.0, need))
        binding = jnp.where(idle, jnp.int8(Limit.none), jnp.int8(Limit.capacity))
        binding = jnp.where(searched, found.aux, binding)
        spent = jnp.where(searched, found.use, 1.0)
        return self.answer(value, spent, reachable & found.found, self.obstacle(best, limit), binding, best)

    def greatest_count(self) -> Requirement:
        """The greatest batch or prompt. Throughput rises with the batch, so its limit is looked at in the end."""
        rises = {"throughput"} if self.target.name == "batch" else set()
        allowed = 1.0 + tolerance(self.dtype)

        def good(count: jax.Array) -> jax.Array:
            result = self.at(count)
            uses = {name: use for name, use in self.uses(result).items() if name not in rises}
            return result.feasible & (self.worst(uses)[0] <= allowed)

        count = greatest_whole(good, self.shape, self.dtype)
        there, beyond = self.ends(jnp.maximum(count, 1.0), count + 1.0)
        # What stops it from growing sets its value, and stands in the way of more throughput.
        _, stops = self.worst({name: use for name, use in self.uses(beyond).items() if name not in rises})
        stops = jnp.where(beyond.feasible, stops, jnp.int8(Limit.capacity))
        most, _ = self.worst(self.uses(there))
        feasible = (count >= 1.0) & there.feasible & (most <= allowed)
        return self.answer(count, most, feasible, self.obstacle(beyond, stops), stops, there)
