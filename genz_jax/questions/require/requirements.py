"""Requirements: the model backwards, the least of a number that meets a service level objective."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from genz_jax import catalog
from genz_jax.base import units
from genz_jax.base.axes import Axis
from genz_jax.grid.shape import FEW, Blocking
from genz_jax.grid.space import Space
from genz_jax.labelled import inputs
from genz_jax.labelled.inputs import ModelLike, ParallelismLike, PlatformLike, PrecisionLike, WorkloadLike, read_case
from genz_jax.questions.require.inverse import inverse
from genz_jax.serving.evaluate import Case, Question
from genz_jax.serving.slo import CEILINGS, SLO
from genz_jax.serving.targets import Target, read_target
from genz_jax.specs import Engine, assumptions as physics
from genz_jax.specs.assumptions import Assumptions

if TYPE_CHECKING:
    import xarray as xr

SLOLike = SLO | Sequence[SLO] | Mapping[str, SLO]

POINTS = 2**17
"""Points of a block: every step of the search evaluates a whole block, until its slowest point is done."""

_MANY = 2.0**23
"""More requests or tokens than any answer."""


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
