"""Search: every way to serve a model on a number of devices, evaluated at once, and the best of them."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from genz_jax import catalog
from genz_jax.base import units
from genz_jax.base.axes import Axis
from genz_jax.base.fields import near
from genz_jax.machine.cost import CostModel, device_cost
from genz_jax.questions.search import candidates as c
from genz_jax.questions.search.result import DIM, FIGURES, SearchResult
from genz_jax.questions.search.space import SearchSpace
from genz_jax.questions.sweep import ask
from genz_jax.serving.slo import CEILINGS, SLO, bounded_figure
from genz_jax.specs import Engine, Model, Platform, Precision, Workload
from genz_jax.specs.assumptions import Assumptions

if TYPE_CHECKING:
    import xarray as xr

Choice = float | Sequence[float] | np.ndarray | None
"""Values that a size may take: one, several, or None for every one that the devices allow."""

Cost = float | CostModel | Callable[[Platform], float]
"""Price of a device for an hour, in $, or the constants or the function of the platform that give it."""


def search(
    model: str | Model,
    platform: str | Platform,
    workload: str | Workload | None = None,
    *,
    chips: Choice,
    precision: str | Precision | Sequence[str | Precision] | Mapping[str, str | Precision] | None = None,
    tp: Choice = None,
    ep: Choice = None,
    pp: Choice = None,
    dp: Choice = None,
    cp: Choice = 1,
    micro_batches: Choice = None,
    batch: Choice = None,
    slo: SLO | None = None,
    objective: str | None = None,
    cost: Cost | None = None,
    stage: str = "request",
    engine: Engine | None = None,
    assumptions: str | Assumptions = "default",
    space: str = "all",
    progress: bool = True,
) -> SearchResult:
    """Evaluate every way to serve a model on some number of devices, and find the best.

    Candidates are all products tp·ep·cp·pp·dp of each number of devices, with every batch, number of micro-batches and
    precision. All are evaluated along one axis by one compiled program.

    Args:
        model: a catalogue name or a `gz.Model`.
        platform: a catalogue name or a `gz.Platform`.
        workload: lengths of the requests; its batch counts only with `space="genz"`.
        chips: devices of the system, one number or several, up to 4,096. Every candidate uses all of its system.
        precision: a format, or several; by default that of the model's checkpoint, else bf16.
        tp: tensor parallel sizes to try, by default all. Likewise `ep` (1 for a model without experts), `pp`, `dp`.
        ep: expert parallel sizes.
        pp: pipeline parallel sizes.
        dp: data parallel replicas.
        cp: context parallel sizes, by default 1; None for all.
        micro_batches: micro-batches of the pipeline, by default as many as stages.
        batch: requests at once, all replicas together; by default powers of two on each replica, up to 1,024 per
            device, and of every spread the largest batch that fits and meets the limits.
        slo: what must be met; only for requests, and of encode the limit e2e.
        objective: figure that decides, by default `throughput_per_device`: output tokens per second and device, of
            prefill and encode prompt tokens.
        cost: $ per device and hour, a `gz.CostModel`, or a function of the platform that gives it, for the figures
            `cost_per_hour` and `cost_per_million_tokens` (prompt tokens of prefill and encode, else output tokens);
            by default the list price of the catalogue, and where it has none the cost of ownership by
            `gz.CostModel()`. The attribute `cost_source` of the dataset says which.
        stage: request, prefill, decode or encode.
        engine: what bounds a forward pass; by default `gz.Engine()`.
        assumptions: "default", "genz", or a `gz.Assumptions`.
        space: "all", or "genz" for the candidates of the published analyser (arXiv 2406.01698): tp over divisors of the
            heads and pp over divisors of the layers with ⌊n/2⌋ ≤ tp·pp < n, pp at most the batch, of which ⌊batch/pp⌋
            requests are run; the smallest size is then by its rule too: a power of two, doubled until all candidates
            fit.
        progress: show a progress bar when it takes more than two seconds.

    Returns:
        All candidates, the best, and why others cannot run. Where none runs, `best` is None, `excluded` counts the
        rules, and `would_fit` is the least number of devices that would do.

    Raises:
        ValueError: an input that no machine or model could have; the message names field, value, rule and fix.

    Example:
        >>> import genz_jax as gz
        >>> found = gz.search("llama-3.1-70b", "H100-SXM", gz.Workload(1, 2048, 256), chips=8, precision="fp8",
        ...                   slo=gz.SLO(tpot="20 ms"), progress=False)
        >>> int(found.best.tp) * int(found.best.pp) * int(found.best.dp)
        8
    """
    question = ask(stage, assumptions, None, False, False)
    objective = _objective(objective, stage)
    if slo is not None and stage != "request" and not (stage == "encode" and set(slo.limits()) == {"e2e"}):
        known = ", which has only e2e" if stage == "encode" else ""
        raise ValueError(
            f"slo: limits are of requests, not of the stage {stage!r}{known}; leave one of the two out: "
            "requests are the default stage, and have ttft and tpot"
        )
    base = SearchSpace.read(model, platform, workload, precision, question, engine)
    system = c.whole_numbers("chips", chips, c.LARGEST)
    sizes = {"tp": tp, "ep": ep, "pp": pp, "dp": dp, "cp": cp}
    allowed = {name: None if size is None else c.whole_numbers(name, size) for name, size in sizes.items()}
    batches = None if batch is None else c.whole_numbers("batch", batch)
    micro = None if micro_batches is None else c.whole_numbers("micro_batches", micro_batches)
    if space == "genz":
        batches = c.whole_numbers("batch", base.case.workload.batch) if batches is None else batches
        columns, excluded = base.reference_candidates(system, batches), {}
    elif space == "all":
        columns, excluded = base.candidates(system, allowed, batches, micro)
    else:
        raise ValueError(f"space = {space!r}: must be 'all' or 'genz'")
    dataset = base.evaluate(columns, progress)
    if space == "all" and batches is None and c.length(columns):
        dataset = base.with_largest_batches(columns, dataset, functools.partial(_good, slo=slo))
    total = dataset.sizes[DIM] + sum(excluded.values())
    dataset = _with_cost(dataset, cost, base.case.platform, base.case.workload)
    dataset = _with_slo(dataset, slo)
    for name, count in c.count_reasons(dataset["reason"].values.astype(int)).items():
        excluded[name] = excluded.get(name, 0) + count
    devices, runs, good = (dataset[name].values for name in ("devices", "feasible", "meets_slo"))
    smallest = int(devices[runs].min()) if runs.any() else None
    smallest_for_slo = int(devices[good].min()) if good.any() else None
    would_fit = None
    if space == "genz":
        smallest = base.reference_smallest(int(c.whole_numbers("batch", batches).max()))
    elif smallest is None:
        would_fit = base.smallest(allowed, batches, progress)
    return SearchResult(
        dataset, tuple(system.tolist()), objective, slo, total, excluded, smallest, smallest_for_slo, would_fit
    )


def _objective(name: str | None, stage: str) -> str:
    """The figure that decides, by default that of the stage.

    Raises:
        ValueError: not a figure of the stage with a better and a worse.
    """
    common = {"throughput", "throughput_per_device", "memory", "energy", "devices", "latency", "batch_time"}
    common |= {"cost_per_hour", "cost_per_million_tokens"}
    figures = {"request": set(FIGURES) - {"batch_time"}, "prefill": common, "decode": common, "encode": common}
    if stage not in figures:
        raise ValueError(f"stage = {stage!r}: search takes one of {', '.join(figures)}")
    if name is None:
        return "throughput_per_device"
    if name not in figures[stage]:
        known = sorted(figures[stage])
        raise ValueError(f"objective = {name!r}: must be one of {', '.join(known)}{near(name, known, few=0)}")
    return name


def _price(cost: Cost | None, platform: Platform) -> tuple[float, str]:
    """$ per device and hour, and where they are from."""
    if cost is None and (listed := catalog.list_price(platform)) is not None:
        return listed.usd_per_hour, str(listed)
    if cost is None or isinstance(cost, CostModel):
        price, source = (
            float(device_cost(platform, cost or CostModel()).cost_per_hour),
            "cost of ownership by the model",
        )
    else:
        price, source = float(cost(platform) if callable(cost) else cost), "cost as given"
    if cost is not None and not (math.isfinite(price) and price >= 0):
        raise ValueError(f"cost = {price:g} $ per device and hour: must be finite and 0 or more")
    return price, f"{source}, {price:.4g} $ per device and hour"


def _with_cost(dataset: "xr.Dataset", cost: Cost | None, platform: Platform, load: Workload) -> "xr.Dataset":
    """Add tokens per second and device, and what the devices cost per hour and per million tokens."""
    price, source = _price(cost, platform)
    tokens, kind = dataset["throughput"], "output"
    if tokens.attrs["units"] == units.REQUEST_RATE:
        tokens, kind = tokens * float(load.input_tokens), "prompt"
    hourly = price * dataset["devices"]
    hourly.attrs = {"units": "USD h-1", "long_name": "cost of all devices per hour"}
    million = hourly / 3600.0 / tokens * 1e6
    million.attrs = {"units": "USD", "long_name": f"cost of a million {kind} tokens"}
    dataset = dataset.assign(cost_per_hour=hourly, cost_per_million_tokens=million).assign_attrs(cost_source=source)
    if "throughput_per_device" in dataset:
        return dataset
    each = tokens / dataset["devices"]
    each.attrs = {"units": units.TOKEN_RATE, "long_name": f"{kind} tokens per second and device"}
    return dataset.assign(throughput_per_device=each)


def _good(dataset: "xr.Dataset", slo: SLO | None) -> np.ndarray:
    """Which candidates run and meet the limits that a larger batch only comes nearer to."""
    uses = {name: use for name, use in _uses(dataset, slo).items() if name != "throughput"}
    return dataset["feasible"].values & np.all([use <= 1.0 for use in uses.values()], axis=0)


def _uses(dataset: "xr.Dataset", slo: SLO | None) -> dict[str, np.ndarray]:
    """How much of each limit each candidate uses, met up to 1."""
    uses = {}
    for name, limit in ({} if slo is None else slo.limits()).items():
        if isinstance(limit, Axis) or np.ndim(limit):
            raise ValueError(f"SLO.{name} is an axis: search takes one limit; search again for another")
        value = dataset[bounded_figure(name, dataset.attrs["stage"])].values.astype(float)
        uses[name] = value / float(limit) if name in CEILINGS else float(limit) / value
    return uses


def _with_slo(dataset: "xr.Dataset", slo: SLO | None) -> "xr.Dataset":
    """Add how much of its tightest limit each candidate uses, and whether it meets all."""
    runs = dataset["feasible"].values
    use = np.max([np.zeros(runs.shape), *_uses(dataset, slo).values()], axis=0)
    share = {"units": units.ONE, "long_name": "used share of the tightest limit, met up to 1"}
    met = {"units": units.ONE, "long_name": "the candidate runs and meets all limits"}
    return dataset.assign(slo_use=(DIM, np.where(runs, use, np.nan), share), meets_slo=(DIM, runs & (use <= 1.0), met))
