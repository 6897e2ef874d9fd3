"""Search: every way to serve a model on a number of devices, evaluated at once, and the best of them."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from genz_jax import catalog, inputs, labels, units
from genz_jax.assumptions import Assumptions
from genz_jax.axes import Axis
from genz_jax.evaluate import Case, Question
from genz_jax.explore import candidates as c
from genz_jax.explore.largest import Passes, largest_batches
from genz_jax.explore.search_result import DIM, SENSES, SearchResult
from genz_jax.explore.slo import CEILINGS, FLOORS, SLO
from genz_jax.explore.sweep import ask, evaluate_axes
from genz_jax.fields import near
from genz_jax.machine.cost import CostModel, device_cost
from genz_jax.specs import Engine, Model, Parallelism, Platform, Precision, Workload
from genz_jax.stack import stack, take
from genz_jax.work.mapping import Reason

if TYPE_CHECKING:
    import xarray as xr

Choice = float | Sequence[float] | np.ndarray | None
"""Values that a size may take: one, several, or None for every one that the devices allow."""

Cost = float | CostModel | Callable[[Platform], float]
"""Price of a device for an hour, in $, or the constants or the function of the platform that give it."""

_PADDED = (2**9, 2**12)  # lengths of the candidate axis, few so that a search seldom compiles anew
_COORDINATES = {
    "tp": "tensor parallel size",
    "ep": "expert parallel size",
    "cp": "context parallel size",
    "pp": "pipeline parallel size",
    "dp": "data parallel replicas",
    "micro_batches": "micro-batches of the pipeline",
    "batch": "requests at once",
    "requested_batch": "requests that are to be served, of which batch are run at once",
}


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
            device, and for every spread the largest batch that runs and meets the limits.
        slo: what must be met; only for requests.
        objective: figure that decides, by default `throughput_per_device` of requests, `throughput` of other stages.
        cost: $ per device and hour, a `gz.CostModel`, or a function of the platform that gives it, for the figures
            `cost_per_hour` and `cost_per_million_tokens`; by default the list price of the catalogue, if it has one.
            Where throughput counts requests the tokens are those of their prompts, else output tokens.
        stage: request, prefill or decode.
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
    if slo is not None and stage != "request":
        raise ValueError(f"slo: limits are of requests, not of the stage {stage!r}; leave one of the two out")
    base = _Base.read(model, platform, workload, precision, question, engine)
    price = _price(cost, base.case.platform)
    objective = _objective(objective, stage, price is not None)
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
    if space == "all" and batches is None:
        passes = base.passes if slo is not None and base.bounded and {"ttft", "e2e"} & set(slo.limits()) else None

        def evaluated(some: c.Columns) -> "xr.Dataset":
            return base.evaluate(some, False, beside=c.length(columns))

        good = _room_for_more(dataset, slo)
        more = largest_batches(columns, good, lambda some: _room_for_more(evaluated(some), slo), passes)
        if c.length(more):
            dataset = labels.joined([dataset, evaluated(more)], DIM)
    total = dataset.sizes[DIM] + sum(excluded.values())
    dataset = _with_slo(_per_token(dataset, price, base.case.workload), slo)
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


def _objective(name: str | None, stage: str, priced: bool) -> str:
    """The figure that decides, by default that of the stage.

    Raises:
        ValueError: not a figure of the stage with a better and a worse, or one that needs a cost.
    """
    common = {"throughput", "throughput_per_device", "memory", "energy", "devices", "latency", "batch_time"}
    common |= {"cost_per_hour", "cost_per_million_tokens"}
    figures = {"request": set(SENSES) - {"batch_time"}, "prefill": common, "decode": common}
    if stage not in figures:
        raise ValueError(f"stage = {stage!r}: search takes one of {', '.join(figures)}")
    if name is None:
        return "throughput_per_device" if stage == "request" else "throughput"
    if name.startswith("cost") and name in figures[stage] and not priced:
        raise ValueError(f"objective = {name!r}: needs the cost of a device, cost=…; the catalogue has no list price")
    if name not in figures[stage]:
        known = sorted(figures[stage])
        raise ValueError(f"objective = {name!r}: must be one of {', '.join(known)}{near(name, known)}")
    return name


@dataclasses.dataclass(frozen=True)
class _Base:
    """What all candidates share."""

    case: Case
    names: dict[str, str]
    precisions: list[Precision]
    question: Question

    @classmethod
    def read(
        cls, model: Any, platform: Any, workload: Any, precision: Any, question: Question, engine: Engine | None
    ) -> "_Base":
        items = list(precision.values()) if isinstance(precision, Mapping) else precision
        items = [items] if items is None or isinstance(items, str | Precision) else list(items)
        if not items:
            raise ValueError("precision = []: an empty list; at least one is needed")
        case, names = inputs.read_case(model, platform, workload, None, items[0], None, engine)
        precisions = [case.precision, *(inputs.precision(p) if isinstance(p, str) else p for p in items[1:])]
        texts = list(precision) if isinstance(precision, Mapping) else [p.name for p in precisions]
        tokens = (case.workload.input_tokens, case.workload.output_tokens)
        if axes := labels.axes_of(case):
            raise ValueError(f"{next(iter(axes))} is an axis: search takes one model, platform and workload")
        labels.refuse_bare_arrays(case)
        if len(set(texts)) < len(texts):
            raise ValueError(f"precision: a name stands twice in {', '.join(texts)}; give a mapping with other names")
        names["precision"] = ", ".join(texts)
        names["workload"] = case.workload.name or "input {:g}, output {:g}".format(*map(float, tokens))
        return cls(case, names, precisions, question)

    @property
    def has_experts(self) -> bool:
        moe = self.case.model.moe
        return moe is not None and float(moe.layers) > 0

    @property
    def bounded(self) -> bool:
        engine = self.case.engine
        return self.question.assumptions.prefill == "bounded" and engine is not None and not engine.single_pass

    def candidates(
        self,
        chips: np.ndarray,
        allowed: Mapping[str, np.ndarray | None],
        batches: np.ndarray | None,
        micro_batches: np.ndarray | None,
    ) -> tuple[c.Columns, dict[str, int]]:
        """Candidates that the rules on the model allow, and how many each rule excludes."""
        if not self.has_experts and allowed["ep"] is None:
            allowed = {**allowed, "ep": np.array([1])}
        columns = c.factorizations(chips, allowed)
        codes = c.reasons(columns, self.case.model, self.case.workload, self.question.assumptions)
        rows, batch = c.batches_of(columns, batches)
        codes = np.where((codes[rows] == 0) & (columns["dp"][rows] > batch), int(Reason.dp_beyond_batch), codes[rows])
        times = 1 if micro_batches is None else np.where(columns["pp"][rows] > 1, micro_batches.size, 1)
        excluded = c.count_reasons(codes, np.broadcast_to(times, codes.shape) * float(len(self.precisions)))
        good = codes == 0
        columns = c.take(columns, rows[good]) | {"batch": batch[good]}
        return c.cross(columns, micro_batches, len(self.precisions)), excluded

    def reference_candidates(self, nodes: np.ndarray, batches: np.ndarray) -> c.Columns:
        """Candidates of the published analyser, for each number of nodes and batch."""
        model = self.case.model
        heads = next((int(p.heads) for p in (model.attention, model.latent_attention) if p is not None), 1)
        columns = c.join([c.reference_spreads(int(n), heads, int(model.layers)) for n in nodes])
        rows, batch = c.batches_of(columns, batches)
        good = columns["pp"][rows] <= batch
        columns = c.take(columns, rows[good])
        columns |= {"batch": batch[good] // columns["pp"], "requested_batch": batch[good]}
        return c.cross(columns, None, len(self.precisions))

    def evaluate(self, columns: c.Columns, progress: bool, beside: int = 0) -> "xr.Dataset":
        """Figures of candidates along one axis, with their sizes as coordinates.

        Args:
            columns: the candidates.
            progress: show a progress bar when it takes more than two seconds.
            beside: candidates of another evaluation, whose compiled program is to do for these too.
        """
        count = c.length(columns)
        small, large = _PADDED
        padded = small if max(count, beside) <= small else math.ceil(max(count, 1) / large) * large
        rows = np.minimum(np.arange(padded), max(count - 1, 0))
        ones = {name: np.ones(1, dtype=int) for name in columns} if count == 0 else columns

        def axis(values: np.ndarray) -> Axis:
            return Axis(values[rows], (DIM,), listed=True)

        sizes: dict[str, Any] = {name: axis(ones[name]) for name in (*c.SIZES, "micro_batches")}
        if np.all(ones["cp"] == 1):
            sizes["cp"] = 1
        precision = self.precisions[0]
        if len(self.precisions) > 1:
            chosen = take(stack(self.precisions), ones["precision"][rows])
            precision = jax.tree.map(lambda leaf: Axis(leaf, (DIM,), listed=True), chosen)
        case = dataclasses.replace(
            self.case,
            parallelism=Parallelism(**sizes),
            workload=self.case.workload.replace(batch=axis(ones["batch"])),
            precision=precision,
        )
        dataset = evaluate_axes(case, self.names, self.question, progress)
        texts = np.array(self.names["precision"].split(", "))
        coords: dict[str, Any] = {
            name: (DIM, columns[name], {"units": units.ONE, "long_name": text})
            for name, text in _COORDINATES.items()
            if name in columns
        }
        coords["precision"] = (DIM, texts[columns["precision"]], {"long_name": "number formats"})
        dataset = dataset.broadcast_like(dataset["feasible"]).isel({DIM: slice(count)}).assign_coords(coords)
        attrs = {"units": units.ONE, "long_name": "devices"}
        return dataset.assign(devices=(DIM, columns["devices"], attrs))

    def passes(self, spreads: c.Columns) -> Passes:
        """In how many passes spreads process their prompts."""
        load, engine = self.case.workload, self.case.engine
        assert engine is not None
        cached = 0.0 if load.cached_tokens is None else float(load.cached_tokens) * float(load.cache_hit_rate)
        tokens = float(load.input_tokens) - cached
        return Passes(float(engine.tokens_per_step), tokens, spreads["micro_batches"].astype(float))

    def smallest(
        self, allowed: Mapping[str, np.ndarray | None], batches: np.ndarray | None, progress: bool
    ) -> int | None:
        """Least devices on which the smallest batch runs, up to the largest system; None if there is none."""
        least = np.array([1 if batches is None else batches.min()])
        # A replica without requests does not run, so there are at most as many as requests.
        dp = np.arange(1, min(int(least[0]), c.LARGEST) + 1)
        if (given := allowed.get("dp")) is not None:
            dp = np.intersect1d(dp, given)
        columns, _ = self.candidates(np.arange(1, c.LARGEST + 1), {**allowed, "dp": dp}, least, None)
        dataset = self.evaluate(columns, progress)
        fits = dataset["devices"].values[dataset["feasible"].values]
        return int(fits.min()) if fits.size else None

    def reference_smallest(self, batch: int) -> int | None:
        """The published rule: memory over capacity as a power of two, doubled until every candidate fits."""
        alone = c.reference_spreads(1, 1, 1) | {"batch": np.array([batch])}
        need = float(self.evaluate(c.cross(alone, None, 1), False)["memory"].values[0])
        nodes = need / float(self.case.platform.mem_capacity)
        size = 1 if nodes <= 1 else 2 ** math.ceil(math.log2(nodes))
        while size <= c.LARGEST:
            columns = self.reference_candidates(np.array([size]), np.array([batch]))
            if bool(self.evaluate(columns, False)["feasible"].values.all()):
                return size
            size *= 2
        return None


def _price(cost: Cost | None, platform: Platform) -> tuple[float, str] | None:
    """$ per device and hour, and where they are from; None where nothing is known."""
    if cost is None:
        listed = catalog.list_price(platform)
        return None if listed is None else (listed.usd_per_hour, str(listed))
    if isinstance(cost, CostModel):
        price, source = float(device_cost(platform, cost).cost_per_hour), "cost of ownership"
    else:
        price, source = float(cost(platform) if callable(cost) else cost), "cost as given"
    if not (math.isfinite(price) and price >= 0):
        raise ValueError(f"cost = {price:g} $ per device and hour: must be finite and 0 or more")
    return price, f"{source}, {price:.4g} $ per device and hour"


def _per_token(dataset: "xr.Dataset", price: tuple[float, str] | None, workload: Workload) -> "xr.Dataset":
    """Add tokens per second and device, and what the devices cost per hour and per million tokens."""
    rate, kind = dataset["throughput"], "output"
    if rate.attrs["units"] == units.REQUEST_RATE:
        rate, kind = rate * float(workload.input_tokens), "prompt"
    if "throughput_per_device" not in dataset:
        each = rate / dataset["devices"]
        each.attrs = {"units": units.TOKEN_RATE, "long_name": f"{kind} tokens per second and device"}
        dataset = dataset.assign(throughput_per_device=each)
    if price is None:
        return dataset
    hourly = price[0] * dataset["devices"]
    hourly.attrs = {"units": "USD h-1", "long_name": "cost of all devices per hour"}
    million = hourly / 3600.0 / rate * 1e6
    million.attrs = {"units": "USD", "long_name": f"cost of a million {kind} tokens"}
    return dataset.assign(cost_per_hour=hourly, cost_per_million_tokens=million).assign_attrs(cost_source=price[1])


def _used(dataset: "xr.Dataset", slo: SLO | None, left_out: tuple[str, ...] = ()) -> np.ndarray:
    """How much of its tightest limit each candidate uses."""
    use = np.zeros(dataset["feasible"].shape)
    for name, limit in ({} if slo is None else slo.limits()).items():
        if isinstance(limit, Axis) or np.ndim(limit):
            raise ValueError(f"SLO.{name} is an axis: search takes one limit; search again for another")
        if name not in left_out:
            value = dataset[CEILINGS.get(name) or FLOORS[name]].values.astype(float)
            use = np.maximum(use, value / float(limit) if name in CEILINGS else float(limit) / value)
    return use


def _room_for_more(dataset: "xr.Dataset", slo: SLO | None) -> np.ndarray:
    """Whether each candidate runs and meets the limits that a larger batch uses more of."""
    # Throughput rises with the batch: a limit on it says which batches are too small.
    return dataset["feasible"].values & (_used(dataset, slo, ("throughput",)) <= 1.0)


def _with_slo(dataset: "xr.Dataset", slo: SLO | None) -> "xr.Dataset":
    """Add how much of its tightest limit each candidate uses, and whether it meets all."""
    runs, use = dataset["feasible"].values, _used(dataset, slo)
    share = {"units": units.ONE, "long_name": "used share of the tightest limit, met up to 1"}
    met = {"units": units.ONE, "long_name": "the candidate runs and meets all limits"}
    return dataset.assign(slo_use=(DIM, np.where(runs, use, np.nan), share), meets_slo=(DIM, runs & (use <= 1.0), met))
