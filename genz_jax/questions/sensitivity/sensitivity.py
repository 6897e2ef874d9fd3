"""Sensitivity: how much a figure changes with each number of the platform, and what it waits for."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from genz_jax.base import units
from genz_jax.base.caches import QUESTIONS, Compiled
from genz_jax.base.fields import LESS_IS_BETTER, Number, Role, field_at, near
from genz_jax.base.paths import leaves
from genz_jax.grid.shape import FEW, Blocking
from genz_jax.grid.space import read_space
from genz_jax.labelled import labels
from genz_jax.labelled.inputs import ModelLike, ParallelismLike, PlatformLike, PrecisionLike, WorkloadLike
from genz_jax.questions.sweep import ask
from genz_jax.serving.evaluate import Case, Question, evaluate, figures_of, work_of
from genz_jax.specs import Engine, Platform, Speculation
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.figures import Result
from genz_jax.specs.reasons import Reason

if TYPE_CHECKING:
    import xarray as xr

POINTS = 2**14
"""Points of a block: a backward pass holds the times of every operator at each of them."""

RESOURCES: tuple[str, ...] = ("compute", "memory", "network", "latency")
"""What the time of a figure is spent on: matrix units, memories, link bandwidth, and latencies of links and
collectives."""

DEGREES = dict.fromkeys((units.SECOND, units.JOULE, units.JOULE_PER_TOKEN), 1.0)
DEGREES |= dict.fromkeys((units.TOKEN_RATE, units.REQUEST_RATE), -1.0)
"""Power of a figure, by its unit, in which it grows when all times of the machine do."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A number of a platform.

    Attributes:
        name: what the result calls it.
        place: its place among the platform's numbers.
        kind: its role: a rate, a rate relative to another, an efficiency (at most 1), a latency, a capacity, the
            reserve of it, or a power.
        resource: the one of `RESOURCES` whose time it is, None where another number stands for it.
        unit: its base unit.
        long_name: its description.
    """

    name: str
    place: int
    kind: Role
    resource: str | None
    unit: str
    long_name: str

    @property
    def less_is_better(self) -> bool:
        """Less of it improves a figure."""
        return self.kind in LESS_IS_BETTER


def parameters(platform: Platform) -> tuple[Parameter, ...]:
    """All numbers of a platform but the whole ones, between which there is nothing, in order."""
    found: list[Parameter] = []
    for place, path in enumerate(leaves(platform)):
        meta = field_at(platform, path)
        if meta["rule"].whole:
            continue
        kind = meta["role"]
        resource = "latency" if kind == "latency" else meta["resource"] if kind == "rate" else None
        name = platform.short(path).replace(".", "_")
        found.append(Parameter(name, place, kind, resource, meta["units"], meta["long_name"]))
    return tuple(found)


class Sensitivity(Result):
    """Elasticities, gains and shares of several figures, point by point.

    Arrays have the figures, or figures and parameters or resources, as leading tuples.
    """

    values: tuple[Number, ...]
    elasticity: tuple[tuple[Number, ...], ...]
    gain: tuple[tuple[Number, ...], ...]
    share: tuple[tuple[Number, ...], ...]
    feasible: Number
    reason_code: Number
    names: tuple[str, ...] = eqx.field(static=True)
    metas: tuple[tuple[str, str], ...] = eqx.field(static=True)
    parameters: tuple[str, ...] = eqx.field(static=True)

    def figures(self) -> dict[str, tuple[Any, dict[str, Any]]]:
        """Values and metadata by name: of each figure itself, and `…_elasticity`, `…_gain`, `…_share`."""
        found: dict[str, tuple[Any, dict[str, Any]]] = {}
        one = {"units": units.ONE}
        for i, (name, (unit, long_name)) in enumerate(zip(self.names, self.metas, strict=True)):
            found[name] = (self.values[i], {"units": unit, "long_name": long_name})
            for what, arrays, dim, keys in (
                ("elasticity", self.elasticity, "parameter", self.parameters),
                ("gain", self.gain, "parameter", self.parameters),
                ("share", self.share, "resource", RESOURCES),
            ):
                meta = one | {"dim": dim, "long_name": _LONG_NAMES[what].format(long_name)}
                found[f"{name}_{what}"] = (dict(zip(keys, arrays[i], strict=True)), meta)
        found["feasible"] = (self.feasible, one | {"long_name": "the point runs"})
        meta = one | {"codes": Reason, "long_name": "why the point does not run"}
        return found | {"reason": (self.reason_code, meta)}


_LONG_NAMES = {
    "elasticity": "elasticity of {}",
    "gain": "improvement of {} by a better parameter",
    "share": "share of {} by resource",
}


def sensitivity(
    model: ModelLike,
    platform: PlatformLike,
    workload: WorkloadLike | None = None,
    parallelism: ParallelismLike | None = None,
    precision: PrecisionLike | None = None,
    *,
    figures: str | Sequence[str] | None = None,
    step: float = 0.1,
    speculation: Speculation | None = None,
    engine: Engine | None = None,
    stage: str = "request",
    assumptions: str | Assumptions = "default",
    progress: bool = True,
) -> "xr.Dataset":
    """Elasticities of figures in every number of the platform that they depend on, what would help, and what bounds.

    - `…_elasticity`: e = ∂ln figure/∂ln parameter; −0.6 says that 1 % more makes the figure 0.6 % less.
    - `…_gain`: by which share the figure improves, evaluated anew, when the parameter alone is better by `step`: rates,
      efficiencies (to at most 1) and capacity times 1 + step; latencies, reserve and powers divided. Of a time or an
      energy it is old/new − 1, of a rate new/old − 1.
    - `…_share`: how much of the figure each resource accounts for: the matrix units, the memories, the link bandwidth,
      and latencies. A time t is homogeneous of degree 1 in latencies and reciprocals of rates, so that by Euler's
      theorem t = Σ −∂t/∂ln rate + Σ ∂t/∂ln latency: the shares add up to 1, and where nothing has a latency the
      elasticities of the rates add up to −1. An operator in balance counts half for either.

    Args:
        model: a catalogue name, a `gz.Model`, a list or mapping of these, with axes; all as for `gz.sweep`.
        platform: likewise.
        workload: likewise; by default one request of 1,024 + 128 tokens.
        parallelism: likewise; by default one device.
        precision: likewise; by default that of the model's checkpoint, else bf16.
        figures: times, rates or energies of the stage; by default ttft, tpot and latency of a request, else latency.
        step: by how much better each parameter is for `…_gain`.
        speculation: the draft model and its use, for the speculative stages.
        engine: what bounds a forward pass; by default `gz.Engine()`.
        stage: as for `gz.sweep`.
        assumptions: "default", "genz", or a `gz.Assumptions`.
        progress: show a progress bar when it takes more than two seconds.

    Returns:
        An `xarray.Dataset` with a dimension `parameter` (its `parameter_kind` and `parameter_unit` beside it) and one
        of `resource`. Its gradients are computed block by block, so that memory is bounded.

    Raises:
        ValueError: a figure that is no time, rate or energy, a step that is not above 0, or what `gz.sweep` refuses.

    Example:
        >>> import genz_jax as gz
        >>> ds = gz.sensitivity("llama-3.1-8b", "H100-SXM", figures="tpot")
        >>> str(gz.rank_parameters(ds).parameter.values[0])
        'mem_bw'
    """
    if not np.isfinite(step) or step <= 0:
        raise ValueError(f"step = {step!r}: must be finite and above 0, for example 0.1 for 10 % better")
    if figures is None:
        figures = ("ttft", "tpot", "latency") if stage == "request" else ("latency",)
    wanted = (figures,) if isinstance(figures, str) else tuple(figures)
    space = read_space(model, platform, workload, parallelism, precision, speculation, engine, stage)
    question = ask(stage, assumptions, wanted, False, False)
    function = slopes(question, float(step), space.points <= FEW)
    dataset = space.evaluate(function, question, progress, Blocking(POINTS))
    found = {one.name: one for one in parameters(space.case.platform)}
    shown = [found[str(name)] for name in dataset.parameter.values]
    beside = {f"parameter_{what}": [getattr(one, what) for one in shown] for what in ("kind", "unit", "long_name")}
    dataset = dataset.assign_coords({name: ("parameter", np.array(values)) for name, values in beside.items()})
    for name in beside:
        dataset[name].attrs["long_name"] = name.replace("_", " ")
    dataset.attrs |= {"step": float(step), "figures": " ".join(wanted)}
    return dataset


@functools.lru_cache(maxsize=QUESTIONS)
def slopes(question: Question, step: float, quick: bool = True) -> Any:
    """The function from a case to its `Sensitivity`, compiled once per structure and shapes.

    Args:
        question: the stage, the physics and the figures.
        step: by how much better each parameter is for the gains.
        quick: compile faster, for few points.
    """
    assert question.figures is not None
    names = question.figures
    asked = dataclasses.replace(question, figures=(*dict.fromkeys((*names, "feasible", "reason")),))

    @functools.partial(Compiled, quick=quick)
    def run(case: Case) -> Sensitivity:
        work = work_of(case, asked)
        result = figures_of(work, case.platform, asked)
        known = labels.flat_figures(result)
        metas = [known[name][1] for name in names]
        for name, meta in zip(names, metas, strict=True):
            if meta["units"] not in DEGREES or "codes" in meta:
                good = [other for other, (_, m) in known.items() if m["units"] in DEGREES]
                raise ValueError(f"figure {name!r}: is no time, rate or energy of {question.stage!r}{near(name, good)}")
        used = _used(case, asked, names)
        shape = jnp.broadcast_shapes(*(jnp.shape(known[name][0]) for name in names))
        dtype = jnp.result_type(float)
        numbers, structure = jax.tree.flatten(case.platform)
        own = tuple(jnp.broadcast_to(jnp.asarray(numbers[one.place], dtype), shape) for one in used)

        def at(values: tuple[jax.Array, ...]) -> jax.Array:
            changed = list(numbers)
            for one, value in zip(used, values, strict=True):
                changed[one.place] = value
            found = labels.flat_figures(figures_of(work, jax.tree.unflatten(structure, changed), asked))
            return jnp.stack([jnp.broadcast_to(found[name][0], shape) for name in names])

        values, back = jax.vjp(at, own)
        one_by_one = jnp.eye(len(names), dtype=dtype).reshape(len(names), len(names), *[1] * len(shape))
        seeds = jnp.broadcast_to(one_by_one, (len(names), *values.shape))
        gradient = jax.lax.map(lambda seed: back(seed)[0], seeds)
        scale = jnp.where(values == 0, 1.0, values)
        elasticity = [tuple(gradient[k][i] * own[k] / scale[i] for k in range(len(used))) for i in range(len(names))]

        def better(k: jax.Array) -> jax.Array:
            return at(tuple(jnp.where(k == i, _improved(one, own[i], step), own[i]) for i, one in enumerate(used)))

        improved = jax.lax.map(better, jnp.arange(len(used)))
        degrees = [DEGREES[meta["units"]] for meta in metas]
        gain, share = [], []
        for i, degree in enumerate(degrees):
            own_value, new = values[i][None], improved[:, i]
            ratio = own_value / new if degree > 0 else new / own_value
            gain.append(tuple(ratio - 1.0))
            share.append(_shares(used, elasticity[i], degree, jnp.where(jnp.isnan(values[i]), jnp.nan, 0.0)))
        return Sensitivity(
            tuple(values),
            tuple(elasticity),
            tuple(gain),
            tuple(share),
            result.feasible,  # type: ignore[attr-defined]
            result.reason_code,  # type: ignore[attr-defined]
            names,
            tuple((meta["units"], meta["long_name"]) for meta in metas),
            tuple(one.name for one in used),
        )

    return run


def _used(case: Case, question: Question, names: tuple[str, ...]) -> tuple[Parameter, ...]:
    """The platform's numbers that figures depend on: each stands on a dimension of its own, which theirs then have."""
    every = parameters(case.platform)
    if case.platform.offload_bw is None:
        every = tuple(one for one in every if one.kind not in ("capacity", "reserve"))
    dtype = jnp.result_type(float)
    place = {one.place: i for i, one in enumerate(every)}
    point = jax.tree.map(lambda _: jax.ShapeDtypeStruct((), dtype), case)
    numbers, structure = jax.tree.flatten(point.platform)
    for k in range(len(numbers)):
        shape = tuple(2 if place.get(k) == i else 1 for i in range(len(every)))
        numbers[k] = jax.ShapeDtypeStruct(shape, dtype)
    probe = eqx.tree_at(lambda c: c.platform, point, jax.tree.unflatten(structure, numbers))
    found = jax.eval_shape(lambda c: [labels.flat_figures(evaluate(c, question))[name][0] for name in names], probe)
    shapes = [np.broadcast_shapes((1,) * len(every), leaf.shape) for leaf in found]
    return tuple(one for i, one in enumerate(every) if any(shape[i] > 1 for shape in shapes))


def _improved(one: Parameter, value: jax.Array, step: float) -> jax.Array:
    if one.less_is_better:
        return value / (1.0 + step)
    better = value * (1.0 + step)
    return jnp.minimum(better, 1.0) if one.kind == "efficiency" else better


def _shares(
    used: tuple[Parameter, ...], elasticity: tuple[jax.Array, ...], degree: float, nothing: jax.Array
) -> tuple[jax.Array, ...]:
    """Elasticities by resource, as shares of the figure."""
    sums: dict[str, jax.Array] = dict.fromkeys(RESOURCES, nothing)
    for one, slope in zip(used, elasticity, strict=True):
        if one.resource is not None:
            sums[one.resource] = sums[one.resource] + (slope if one.less_is_better else -slope) * degree
    return tuple(sums[name] for name in RESOURCES)


def rank_parameters(dataset: "xr.Dataset", figure: str | None = None, most: int | None = None) -> "xr.Dataset":
    """What would help most: the parameters of each point by what they improve, the best first.

    Args:
        dataset: result of `gz.sensitivity`.
        figure: name of the figure; by default the first.
        most: how many parameters; by default all.

    Returns:
        A Dataset over `rank` and the other dimensions: `parameter`, its `gain`, the `first_order` gain that the
        elasticity e promises, (1 + step)^|e| − 1, and the `elasticity`. `print(gz.rank_parameters(ds).to_dataframe())`.

    Raises:
        ValueError: not a result of `gz.sensitivity`, or no such figure in it.

    Example:
        >>> import genz_jax as gz
        >>> found = gz.sensitivity("llama-3.1-8b", "H100-SXM", figures="tpot")
        >>> [str(name) for name in gz.rank_parameters(found, "tpot", 1).parameter.values]
        ['mem_bw']
    """
    figures = str(dataset.attrs.get("figures", "")).split()
    if "parameter" not in dataset.dims or not figures:
        raise ValueError("rank_parameters: no dimension 'parameter'; give a result of gz.sensitivity")
    name = figures[0] if figure is None else figure
    if name not in figures:
        raise ValueError(f"figure {name!r}: not in the dataset; it has {', '.join(figures)}")
    chosen = dataset[[f"{name}_gain", f"{name}_elasticity"]]
    chosen = chosen.rename({f"{name}_gain": "gain", f"{name}_elasticity": "elasticity"}).transpose(..., "parameter")
    step = float(dataset.attrs["step"])
    chosen["first_order"] = (1.0 + step) ** abs(chosen["elasticity"]) - 1.0
    chosen["first_order"].attrs = {"units": units.ONE, "long_name": "improvement by the elasticity"}
    gain = chosen["gain"].drop_vars([c for c in chosen.coords if "parameter" in chosen[c].dims])
    places = gain.copy(data=np.argsort(-gain.values, axis=-1, kind="stable")).rename(parameter="rank")
    table = chosen.isel(parameter=places.isel(rank=slice(most)))
    inside = [str(c) for c in table.coords if str(c).startswith("parameter")]
    table = table.reset_coords(inside).assign_coords(rank=np.arange(1, table.sizes["rank"] + 1))
    table["rank"].attrs["long_name"] = "place by gain"
    table.attrs |= {"figure": name}
    return table[["parameter", "gain", "first_order", "elasticity", *(n for n in inside if n != "parameter")]]
