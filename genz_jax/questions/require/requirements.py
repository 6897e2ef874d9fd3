"""Requirements: the model backwards, the least of a number that meets a service level objective."""

import dataclasses
import enum
import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax import catalog
from genz_jax.base import units
from genz_jax.base.axes import Axis
from genz_jax.base.caches import QUESTIONS, Compiled
from genz_jax.base.fields import Number
from genz_jax.grid.shape import Blocking
from genz_jax.grid.space import Space
from genz_jax.labelled import inputs
from genz_jax.labelled.inputs import ModelLike, ParallelismLike, PlatformLike, PrecisionLike, WorkloadLike, read_case
from genz_jax.machine.capacity import capacity_for
from genz_jax.questions.require.root import SPAN, crossing, greatest_whole, tolerance
from genz_jax.serving.evaluate import Case, Question, figures_of, work_of
from genz_jax.serving.slo import CEILINGS, FLOORS, SLO
from genz_jax.serving.targets import Target, read_target
from genz_jax.specs import Engine, assumptions as physics
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.figures import Result
from genz_jax.specs.reasons import Reason

if TYPE_CHECKING:
    import xarray as xr

SLOLike = SLO | Sequence[SLO] | Mapping[str, SLO]

POINTS = 2**17
"""Points of a block: every step of the search evaluates a whole block, until its slowest point is done."""

_MANY = 2.0**23
"""More requests or tokens than any answer."""

FEW = 2**15
"""Points up to which a quick compilation saves more than it costs: 5 s of 10 s, for 10 µs more for each point."""


class Obstacle(enum.IntEnum):
    """Why no value of the target meets the objective."""

    met = 0
    compute = 1
    memory = 2
    network = 3
    capacity = 4
    mapping = 5


OBSTACLES = {
    Obstacle.met: "the objective can be met",
    Obstacle.compute: "bound by the matrix units whatever the target",
    Obstacle.memory: "bound by the memory bandwidth whatever the target",
    Obstacle.network: "bound by the links whatever the target",
    Obstacle.capacity: "weights, KV cache and working memory exceed the memory",
    Obstacle.mapping: "the model cannot be spread as asked",
}


class Limit(enum.IntEnum):
    """What sets the value of the target."""

    ttft = 0
    tpot = 1
    e2e = 2
    throughput = 3
    interactivity = 4
    capacity = 5
    none = 6


LIMITS = {
    Limit.ttft: "time to first token",
    Limit.tpot: "time per output token",
    Limit.e2e: "end-to-end latency",
    Limit.throughput: "throughput",
    Limit.interactivity: "tokens per second of one request",
    Limit.capacity: "memory capacity",
    Limit.none: "nothing: any value meets the objective",
}


class Requirement(Result):
    """The value of a target that just meets an objective, point by point.

    `best` has the figure of each limit at the best value of the target: without end for a rate, 0 for a latency, 1 for
    an efficiency or a count.
    """

    value: Number
    residual: Number
    feasible: Number
    reason_code: Number
    limit_code: Number
    best: dict[str, Number]
    target: Target = eqx.field(static=True)

    def figures(self) -> dict[str, tuple[Any, dict[str, Any]]]:
        """Values and metadata by name; the value has the name of the target."""
        target = self.target
        meets = f"{target.extreme} {target.long_name} that meets the objective"
        found = {
            target.name: (self.value, {"units": target.unit, "long_name": meets}),
            "residual": (self.residual, _meta("share of the limit that is used there, less 1")),
            "feasible": (self.feasible, _meta("some value meets the objective")),
            "reason": (self.reason_code, _meta("why no value does", codes=Obstacle, meanings=OBSTACLES)),
            "limit": (self.limit_code, _meta("what sets the value", codes=Limit, meanings=LIMITS)),
        }
        for name in (limit.name for limit in Limit if limit.name in self.best):
            unit = units.SECOND if name in CEILINGS else units.TOKEN_RATE
            meta = _meta(f"{LIMITS[Limit[name]]} at the best {target.long_name}") | {"units": unit}
            found[f"best_{name}"] = (self.best[name], meta)
        return found


def _meta(long_name: str, **more: Any) -> dict[str, Any]:
    return {"units": units.ONE, "long_name": long_name, **more}


def require(
    target: str,
    model: ModelLike,
    platform: PlatformLike,
    workload: WorkloadLike | None = None,
    parallelism: ParallelismLike | None = None,
    precision: PrecisionLike | None = None,
    *,
    slo: SLOLike | None = None,
    engine: Engine | None = None,
    assumptions: str | Assumptions = "default",
    over: str | None = None,
    progress: bool = True,
) -> "xr.Dataset":
    """The least of a number that meets a service level objective, for every combination of all other axes.

    The figures of a request are, in the reciprocal of a rate and in a latency, sums of maxima of straight lines, so
    the crossing with the tightest limit is found exactly, to rounding; so is the memory that is needed. What is not
    such a sum (memory that is partly offloaded, smooth maxima) is searched in a bracket to rounding; the greatest
    batch and prompt are searched among the whole numbers below 2^24. `residual` says what is left.

    Args:
        target: what is asked for: the least `flops`, `mem_bw`, `mem_capacity`, `link_bw`, `network.1.bandwidth`,
            `offload_bw`, `onchip_bw`, `compute_efficiency`, `memory_efficiency` or `link_efficiency`; the greatest
            `link_latency`, `network.1.latency`, `collective_overhead`, `batch` or `input_tokens`. The value
            given in the specs is ignored.
        model: a catalogue name, a `gz.Model`, a list or mapping of these, with axes; all as for `gz.sweep`.
        platform: likewise.
        workload: likewise; by default one request of 1,024 + 128 tokens.
        parallelism: likewise; by default one device.
        precision: likewise; by default that of the model's checkpoint, else bf16.
        slo: the limits, all of which hold; each may be an axis, and several objectives make the dimension `slo`. By
            default what the catalogue says of the workloads that are given by name.
        engine: what bounds a forward pass; by default `gz.Engine()`.
        assumptions: "default", "genz", or a `gz.Assumptions`.
        over: a dimension, such as `workload`, of which one platform must serve all places; see
            `gz.binding_requirement`.
        progress: show a progress bar when it takes more than two seconds.

    Returns:
        An `xarray.Dataset` with a variable of the target's name, NaN where `feasible` is false; `reason` then says
        what stands in the way and `best_ttft`, `best_tpot`, … what can be reached. 0, for the greatest of a latency ∞,
        means that any value does. `limit` is the limit that sets the value.

    Raises:
        ValueError: an unknown target, a target that is an axis, no limit, or what `gz.sweep` refuses.

    Example:
        >>> import genz_jax as gz
        >>> ds = gz.require("mem_bw", "llama-3.1-70b", "H100-SXM", gz.Workload(batch=gz.axis([1, 8])),
        ...                 gz.Parallelism(tp=8), "fp8", slo=gz.SLO(ttft="500 ms", tpot="10 ms"))
        >>> dict(ds.mem_bw.sizes)
        {'batch': 2}
    """
    case, named = read_case(model, platform, workload, parallelism, precision, None, engine, "request")
    asked = read_target(target, case)
    promised, names = _read_slo(slo, workload)
    service = dataclasses.replace(case, slo=promised)
    _check(asked, service)
    if asked.kind == "count":
        service = asked.put(
            service, jnp.asarray(_MANY)
        )  # the given value is ignored, and does not tell how many passes
    space = Space.of(service, named)
    question = Question("request", physics.preset(assumptions))
    function = inverse(asked, question.assumptions, space.points <= FEW)
    dataset = space.evaluate(function, question, progress, Blocking(POINTS))
    words = ", ".join(names) or ", ".join(promised.limits())
    dataset.attrs["title"] = f"genz_jax: {asked.extreme} {asked.name} for {named['model']} within {words}"[:200]
    dataset.attrs |= {"target": asked.name, "target_path": asked.path, "extreme": asked.extreme}
    return dataset if over is None else binding_requirement(dataset, over)


def _read_slo(slo: SLOLike | None, workload: Any) -> tuple[SLO, list[str]]:
    """The objective, with the dimension `slo` for several, or the catalogue's of the named workloads."""
    if isinstance(slo, SLO):
        return slo, []
    if slo is not None:
        return inputs.one_or_list("slo", slo, SLO)
    given = [workload] if isinstance(workload, str) else list(workload) if isinstance(workload, Sequence) else [None]
    if not all(isinstance(name, str) for name in given):
        raise ValueError("slo = None: say what is promised, for example slo=gz.SLO(ttft='200 ms', tpot='10 ms')")
    return catalogue_slo([str(name) for name in given], listed=not isinstance(workload, str)), []


def catalogue_slo(given: Sequence[str], listed: bool) -> SLO:
    """What the catalogue says is promised of workloads.

    Args:
        given: their names.
        listed: along the dimension `workload`; else there is one.

    Raises:
        ValueError: an unknown name, or objectives that are not there or not of one kind.
    """
    notes = [catalog.about("workload", name).notes for name in given]
    limits = [tuple(name for name in CEILINGS if name in note) for note in notes]
    if not limits[0] or len(set(limits)) > 1:
        raise ValueError(
            f"slo = None: the catalogue's objectives of {', '.join(given)} are not all there or not of one kind; give "
            "slo=gz.SLO(…)"
        )
    values = {name: [units.parse(note[name], units.SECOND) for note in notes] for name in limits[0]}
    if not listed:
        return SLO(**{name: value[0] for name, value in values.items()})
    return SLO(**{name: Axis(value, ("workload",), units.SECOND) for name, value in values.items()})


def _check(target: Target, service: Case) -> None:
    own = target.of(service)
    if isinstance(own, Axis) and not own.listed:
        raise ValueError(f"{target.path} is an axis, but it is what is asked for; leave it out of the axes")
    if service.slo is not None and not service.slo.limits() and target.kind not in ("capacity", "count"):
        raise ValueError("slo = gz.SLO(): no limit is set; set at least one of ttft, tpot, e2e, throughput")


@functools.lru_cache(maxsize=QUESTIONS)
def inverse(target: Target, assumptions: Assumptions, quick: bool = True) -> Any:
    """The function from a case to its `Requirement`, compiled once per structure and shapes.

    Args:
        target: what is asked for.
        assumptions: which physics counts.
        quick: compile in half the time, for few points.
    """
    options: Any = {"xla_backend_optimization_level": 0} if quick else {}

    @functools.partial(Compiled, compiler_options=options)
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
        binding = jnp.where(idle, jnp.int8(Limit.none), found.beside)
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
        binding = jnp.where(searched, found.beside, binding)
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


def binding_requirement(dataset: "xr.Dataset", over: str = "workload") -> "xr.Dataset":
    """What one platform needs to serve all places along a dimension: the greatest requirement, and whose it is.

    Args:
        dataset: result of `gz.require`.
        over: the dimension, such as `workload` or `model`.

    Returns:
        A Dataset without that dimension. The target's value is the maximum over it (the minimum of a latency or a
        count), NaN where one place cannot be met, and `binding_…` names the place that sets it, or that cannot be met.

    Raises:
        ValueError: not a result of `gz.require`, or no such dimension.

    Example:
        >>> import genz_jax as gz
        >>> needs = gz.require("mem_bw", "llama-3.1-70b", "H100-SXM", gz.Workload(batch=gz.axis([1, 8])),
        ...                    gz.Parallelism(tp=8), "fp8", slo=gz.SLO(ttft="500 ms", tpot="10 ms"))
        >>> int(gz.binding_requirement(needs, "batch").binding_batch)
        8
    """
    name = dataset.attrs.get("target")
    if name is None:
        raise ValueError("binding_requirement: the dataset has no attribute 'target'; give a result of gz.require")
    if over not in dataset.dims:
        raise ValueError(f"over = {over!r}: must be one of the dimensions {', '.join(map(str, dataset.dims))}")
    values, feasible = (dataset[what].broadcast_like(dataset[over]) for what in (name, "feasible"))
    most = dataset.attrs["extreme"] == "greatest"
    # A place that cannot be met outweighs all others.
    weighed = values.where(feasible, -math.inf if most else math.inf)
    place = weighed.argmin(over) if most else weighed.argmax(over)
    chosen = dataset.isel({over: place}).drop_vars(over, errors="ignore")
    chosen = chosen.drop_vars([c for c in chosen.coords if over in dataset[c].dims], errors="ignore")
    meaning = f"{over} that sets the {dataset.attrs['extreme']} {name}"
    named = over in dataset.coords
    chosen[f"binding_{over}"] = dataset[over][place].drop_vars(over, errors="ignore") if named else place
    chosen[f"binding_{over}"].attrs = {"units": units.ONE, "long_name": meaning}
    chosen.attrs = dataset.attrs | {"combined_over": json.dumps([over])}
    return chosen
