"""Sweep: a stage over every combination of its axes, in blocks that fit the cache, as one labelled Dataset."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from genz_jax.base.fields import near
from genz_jax.base.units import brief
from genz_jax.grid.space import Space
from genz_jax.labelled.inputs import ModelLike, ParallelismLike, PlatformLike, PrecisionLike, WorkloadLike, read_case
from genz_jax.reduce.reductions import Reduction
from genz_jax.reduce.walk import read_reductions, reduce_space
from genz_jax.serving.evaluate import STAGES, Question, detailed, function_of
from genz_jax.serving.slo import SLO
from genz_jax.specs import Engine, Speculation, assumptions as physics
from genz_jax.specs.assumptions import Assumptions

if TYPE_CHECKING:
    import xarray as xr


@overload
def sweep(
    model: ModelLike,
    platform: PlatformLike,
    workload: WorkloadLike | None = None,
    parallelism: ParallelismLike | None = None,
    precision: PrecisionLike | None = None,
    *,
    speculation: Speculation | None = None,
    engine: Engine | None = None,
    stage: str = "request",
    assumptions: str | Assumptions = "default",
    figures: Sequence[str] | None = None,
    breakdown: bool = False,
    operators: bool = False,
    reduce: Reduction | None = None,
    slo: SLO | None = None,
    progress: bool = True,
    store: str | os.PathLike | None = None,
    chunks: Mapping[str, int] | None = None,
    client: Any = None,
    lazy: bool = False,
) -> "xr.Dataset": ...


@overload
def sweep(
    model: ModelLike,
    platform: PlatformLike,
    workload: WorkloadLike | None = None,
    parallelism: ParallelismLike | None = None,
    precision: PrecisionLike | None = None,
    *,
    speculation: Speculation | None = None,
    engine: Engine | None = None,
    stage: str = "request",
    assumptions: str | Assumptions = "default",
    figures: Sequence[str] | None = None,
    breakdown: bool = False,
    operators: bool = False,
    reduce: Mapping[str, Reduction],
    slo: SLO | None = None,
    progress: bool = True,
) -> "dict[str, xr.Dataset]": ...


def sweep(
    model: ModelLike,
    platform: PlatformLike,
    workload: WorkloadLike | None = None,
    parallelism: ParallelismLike | None = None,
    precision: PrecisionLike | None = None,
    *,
    speculation: Speculation | None = None,
    engine: Engine | None = None,
    stage: str = "request",
    assumptions: str | Assumptions = "default",
    figures: Sequence[str] | None = None,
    breakdown: bool = False,
    operators: bool = False,
    reduce: Any = None,
    slo: SLO | None = None,
    progress: bool = True,
    store: str | os.PathLike | None = None,
    chunks: Mapping[str, int] | None = None,
    client: Any = None,
    lazy: bool = False,
) -> Any:
    """Evaluate a stage for every combination of its axes.

    Any number of any spec may be an axis (`gz.axis`, `gz.linspace`, `gz.geomspace`, or an `xarray.DataArray`); lists of
    names or specs are axes too. Axes of the same dimension are zipped, others crossed.

    Args:
        model: a catalogue name, a `gz.Model`, or a list or mapping of these, which makes the dimension `model`.
        platform: likewise, dimension `platform`.
        workload: likewise, dimension `workload`; by default one request of 1,024 + 128 tokens.
        parallelism: a `gz.Parallelism` or a list of them, dimension `parallelism`; by default one device.
        precision: a format such as "fp8" or "int4-bf16", a `gz.Precision`, or a list, dimension `precision`; by default
            that of each model's checkpoint, else bf16.
        speculation: the draft model and its use, for the speculative stages and for requests.
        engine: what bounds a forward pass; by default `gz.Engine()`.
        stage: request (TTFT, TPOT, end to end), prefill, decode, encode (embeddings of whole sequences), chunked,
            memory (what is needed, and the largest batch and the longest context that fit), speculative_prefill,
            speculative_decode.
        assumptions: "default", "genz", or a `gz.Assumptions`.
        figures: names of the figures wanted, by default all that the stage itself has. Fewer are faster. Those of the
            two stages of a request can be asked for as `prefill_…` and `decode_…`.
        breakdown: latency by component too (dimension `component`).
        operators: figures of every operator too (dimension `operator`).
        reduce: what is wanted of the grid instead of the grid itself, which is then never held and may have 10⁹ points:
            `gz.Best`, `gz.TopK`, `gz.ParetoFront`, `gz.Quantiles`, `gz.Fraction`, or several by name. Ctrl-C returns
            what is done.
        slo: what points must meet to count in a reduction; its limits may be axes. Only for requests.
        progress: show a progress bar when it takes more than two seconds.
        store: path of a Zarr store that the result is written to, region by region, so that it need not fit in memory.
            A call that was stopped or killed goes on where it was when it is made again, and several processes that
            make the same call share the work.
        chunks: lengths of the regions by dimension, which are the chunks of the store or of the lazy arrays; -1 stands
            for a whole axis. By default, and along the dimensions that it lacks, about a million points.
        client: a `dask.distributed.Client` whose workers write the store, which all of them must see.
        lazy: compute nothing yet: the arrays are dask's, and computed region by region when they are used.

    Returns:
        An `xarray.Dataset` whose variables have the dimensions they depend on. Where `feasible` is false, times, rates
        and energies are NaN and `reason` says why. `dataset.attrs` holds all that went in. With `reduce`, a Dataset of
        the reduction, or for a mapping a dict of them: the points that were found with all their figures, and where
        they are as coordinates; `found` is false where there is none.
        That of a store is read from the disk as it is used.

    Raises:
        ValueError: an input that no machine or model could have; the message names field, value, rule and fix. A store
            that holds something else, or chunks that are not those of the store.
        MemoryError: the result would not fit in memory; the message names the bytes.

    Example:
        >>> import genz_jax as gz
        >>> chip = gz.platform("H100-SXM").replace(mem_bw=gz.geomspace("1 TB/s", "20 TB/s", 5))
        >>> ds = gz.sweep(["llama-3.1-8b", "mixtral-8x7b"], chip, gz.Workload(batch=gz.axis([1, 8])), precision="fp8")
        >>> dict(ds.tpot.sizes)
        {'model': 2, 'mem_bw': 5, 'batch': 2}
        >>> best = gz.sweep("llama-3.1-8b", chip, gz.Workload(batch=gz.axis([1, 8])), progress=False,
        ...                 reduce=gz.Best("throughput", over="batch"), slo=gz.SLO(tpot="10 ms"))
        >>> best.batch.values.tolist()
        [nan, 8.0, 8.0, 8.0, 8.0]
    """
    case, names = read_case(model, platform, workload, parallelism, precision, speculation, engine, stage)
    question = ask(stage, assumptions, figures, breakdown, operators)
    if reduce is not None:
        if store is not None or lazy or chunks is not None or client is not None:
            raise ValueError("reduce: is held in memory; leave out store=, chunks=, client= and lazy=")
        wanted = read_reductions(reduce)
        if slo is not None and stage != "request":
            raise ValueError(f"slo: limits are of requests, not of the stage {stage!r}; leave one of the two out")
        if breakdown or operators:
            raise ValueError("breakdown, operators: a reduction has neither; ask gz.sweep for the point it finds")
        space = Space.of(dataclasses.replace(case, slo=slo), names)
        found = reduce_space(space, question, wanted, progress)
        return found if isinstance(reduce, Mapping) else found[""]
    if slo is not None:
        raise ValueError("slo: without reduce nothing depends on it; give reduce=gz.Best(…), or compare the figures")
    space = Space.of(case, names)
    if store is not None or lazy or chunks is not None or client is not None:
        from genz_jax.store import large

        return large.sweep(space, question, store, chunks, client, lazy, progress)
    return space.evaluate(function_of(question), question, progress)


def ask(
    stage: str, assumptions: str | Assumptions, figures: Sequence[str] | None, breakdown: bool, operators: bool
) -> Question:
    """The question that a call asks.

    Raises:
        ValueError: an unknown stage or preset, or details that a stage has not.
    """
    if stage not in STAGES:
        raise ValueError(f"stage = {brief(stage)}: must be one of {', '.join(STAGES)}{near(str(stage), STAGES, few=0)}")
    if (breakdown or operators) and stage not in detailed():
        raise ValueError(
            f"stage = {stage!r}: has no breakdown or operators; ask {', '.join(map(repr, detailed()))} instead"
        )
    if isinstance(figures, str):
        figures = [figures]
    if figures is not None and not isinstance(figures, Sequence):
        raise ValueError(f"figures = {figures!r}: must be a list of names of figures")
    wanted = None if figures is None else tuple(figures)
    if wanted == ():
        raise ValueError("figures = []: an empty list; name at least one, or leave it out for all")
    return Question(stage, physics.preset(assumptions), wanted, breakdown, operators)
