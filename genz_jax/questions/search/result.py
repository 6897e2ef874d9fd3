"""Search result: all candidates of a search, ranked, and as a table for people."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from genz_jax.base import units
from genz_jax.base.html import html_table
from genz_jax.machine.cost import CostResult
from genz_jax.questions.search import candidates as c
from genz_jax.reduce.pareto import pareto
from genz_jax.serving import goals
from genz_jax.serving.results import RequestResult, StageResult
from genz_jax.serving.slo import CEILINGS, SLO, bounded_figure
from genz_jax.specs import Parallelism
from genz_jax.specs.figures import Better
from genz_jax.specs.reasons import REASONS, Reason

if TYPE_CHECKING:
    import xarray as xr

FIGURES = (
    "ttft",
    "tpot",
    "latency",
    "batch_time",
    "throughput",
    "throughput_per_device",
    "interactivity",
    "memory",
    "energy",
    "energy_per_token",
    "devices",
    "cost_per_hour",
    "cost_per_million_tokens",
)
"""Figures that candidates are compared by."""

FRONT = ("interactivity", "throughput_per_device")
TIE = 1e-5  # candidates this close in the objective are equal: figures are in float32
SHOWN = 8
DIM = "candidate"


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What a search found. Print it for a table of the best.

    Attributes:
        dataset: figures of all candidates that the rules on the model allow, along `candidate`, which `tp`, `ep`, `cp`,
            `pp`, `dp`, `micro_batches`, `batch` and `precision` describe; `meets_slo` says which meet the SLO, and
            `slo_use` how much of its tightest limit each uses, met up to 1.
        chips: devices of the systems that were searched.
        objective: the figure that decides.
        slo: what was to be met, if anything.
        candidates: how many there were, those that the rules exclude among them.
        excluded: how many candidates each rule excluded, by the name of the reason.
        smallest: devices of the smallest candidate that runs; None if there is none.
        smallest_for_slo: devices of the smallest one that meets the SLO; None if there is none.
        would_fit: where no candidate runs, the least devices on which one would, up to 4,096; else None.
    """

    dataset: "xr.Dataset"
    chips: tuple[int, ...]
    objective: str
    slo: SLO | None
    candidates: int
    excluded: dict[str, int]
    smallest: int | None
    smallest_for_slo: int | None
    would_fit: int | None

    @property
    def ranking(self) -> np.ndarray:
        """Places of the candidates that meet the SLO, best first; of equal ones that with fewer devices comes first."""
        good = np.flatnonzero(self.dataset["meets_slo"].values)
        values = self.dataset[self.objective].values[good].astype(float)
        value = -values if better(self.objective) == "max" else values
        order = np.lexsort((self.dataset["devices"].values[good], value))
        if not order.size:
            return good
        # Runs of values that are equal but for rounding, each sorted by devices.
        ordered = value[order]
        run = np.cumsum(np.r_[False, ordered[1:] - ordered[:-1] > TIE * np.abs(ordered[:-1])])
        return good[order[np.lexsort((ordered, self.dataset["devices"].values[good][order], run))]]

    @property
    def best(self) -> "xr.Dataset | None":
        """The best candidate, without the dimension; None if none meets the SLO."""
        ranking = self.ranking
        return self.dataset.isel({DIM: int(ranking[0])}) if ranking.size else None

    @property
    def closest(self) -> "xr.Dataset | None":
        """The candidate that misses the SLO least, or meets it with most to spare; None if none runs."""
        use = self.dataset["slo_use"].values
        known = np.flatnonzero(self.dataset["feasible"].values & np.isfinite(use))
        return self.dataset.isel({DIM: int(known[np.argmin(use[known])])}) if known.size else None

    def misses(self, at: int) -> dict[str, tuple[float, float]]:
        """Limits that a candidate misses, the most first: its figure and the limit, in base units."""
        found = {}
        for name, limit in ({} if self.slo is None else self.slo.limits()).items():
            figure = bounded_figure(name, self.dataset.attrs["stage"])
            value, limit = float(self.dataset[figure].values[at]), float(limit)
            use = value / limit if name in CEILINGS else limit / value
            if use > 1.0:
                found[name] = use, value, limit
        return {name: (value, limit) for name, (_, value, limit) in sorted(found.items(), key=lambda item: -item[1][0])}

    @property
    def parallelism(self) -> Parallelism | None:
        """How the best candidate spreads the model, for `gz.estimate`; None if none meets the SLO."""
        best = self.best
        if best is None:
            return None
        return Parallelism(**{name: int(best[name]) for name in (*c.SIZES, "micro_batches")})

    def pareto(self, objectives: Mapping[str, Any] | None = None, slo: bool = False) -> "xr.Dataset":
        """Candidates that no other one beats.

        Args:
            objectives: "min" or "max" by figure; by default the most interactivity and throughput per device.
            slo: only among those that meet the SLO.
        """
        dataset = self.dataset
        if slo:
            dataset = dataset.isel({DIM: np.flatnonzero(dataset["meets_slo"].values)})
        return pareto(dataset, {name: better(name) for name in FRONT} if objectives is None else objectives)

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def _repr_html_(self) -> str:
        return html_table(str(self))


def better(figure: str) -> Better:
    """Which value of one of `FIGURES` is better: "min" or "max"."""
    return goals.metadata(figure, RequestResult, StageResult, CostResult)["better"]


def describe(dataset: "xr.Dataset", at: int) -> str:
    """A candidate's sizes in short, those that are 1 left out: `TP8 PP2 DP4 B64`."""
    sizes = [f"{name.upper()}{int(dataset[name].values[at])}" for name in c.SIZES if int(dataset[name].values[at]) > 1]
    return " ".join([*(sizes or ["TP1"]), f"B{int(dataset['batch'].values[at])}"])


def table(result: SearchResult, places: Sequence[int] | np.ndarray) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of candidates, for people."""
    dataset = result.dataset
    sizes = [name for name in c.SIZES if name not in ("ep", "cp") or (dataset[name].values > 1).any()]
    if (dataset["micro_batches"].values != dataset["pp"].values).any():
        sizes.append("micro_batches")
    sizes += [name for name in ("requested_batch", "batch") if name in dataset.coords]
    figures = ["ttft", "tpot", "latency", "throughput", "throughput_per_device", "interactivity", "memory"]
    figures += ["cost_per_million_tokens", "energy_per_token"]
    figures = [name for name in dict.fromkeys([*figures, result.objective]) if name in dataset and name != "devices"]
    several = len(np.unique(dataset["precision"].values)) > 1
    headers = [*(["precision"] if several else []), "devices", *sizes, *(_header(dataset, name) for name in figures)]
    rows = []
    for at in places:
        row = [str(dataset["precision"].values[at])] if several else []
        row += [f"{int(dataset[name].values[at]):,}" for name in ("devices", *sizes)]
        row += [_shown(float(dataset[name].values[at]), dataset[name].attrs["units"]) for name in figures]
        rows.append(row)
    return headers, rows


_HEADERS = {
    "throughput": "tokens/s",
    "throughput_per_device": "tokens/s/device",
    "interactivity": "tokens/s/user",
    "cost_per_million_tokens": "$/Mtoken",
    "energy_per_token": "J/token",
}


def _header(dataset: "xr.Dataset", name: str) -> str:
    """What stands above a column of a figure."""
    if name == "throughput" and dataset[name].attrs["units"] == units.REQUEST_RATE:
        return "requests/s"
    return _HEADERS.get(name, name)


def _shown(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return "–"
    if unit in (units.TOKEN_RATE, units.JOULE_PER_TOKEN, "USD", "USD h-1", units.ONE, units.REQUEST_RATE):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return units.show(value, unit, 3)


def summary(result: SearchResult) -> list[str]:
    """What was searched, what was excluded, and the smallest sizes, in lines."""
    dataset = result.dataset
    runs, good = (int(dataset[name].values.sum()) for name in ("feasible", "meets_slo"))
    names = {what: dataset.attrs.get(f"{what}_name", "") for what in ("model", "platform", "workload", "precision")}
    lines = [f"search: {names['model']} on {names['platform']}; {names['workload']}; {names['precision']}"]
    met = f", {good:,} meet the SLO" if result.slo is not None else ""
    lines += [f"{result.candidates:,} candidates, {runs:,} run{met}"]
    lines += [f"  {count:,} × {name}: {REASONS[Reason[name]]}" for name, count in result.excluded.items()]
    if result.slo is not None:
        limits = {name: float(limit) for name, limit in result.slo.limits().items()}
        shown = [
            f"{name} {'at most' if name in CEILINGS else 'at least'} " + units.show(limit, _unit(name))
            for name, limit in limits.items()
        ]
        lines.append(f"SLO: {', '.join(shown)}")
        if "ttft" in limits:
            lines.append("  ttft is that of a batch whose prompts arrive together; one prompt alone waits less")
    if "cost_source" in dataset.attrs:
        lines.append(f"cost: {dataset.attrs['cost_source']}")
    for what, size in (("fits", result.smallest), ("meets the SLO", result.smallest_for_slo)):
        if size is not None and (what == "fits" or result.slo is not None) and result.chips != (size,):
            lines.append(f"smallest system that {what}: {_devices(size)}")
    if not runs:
        needed = f"none of up to {c.LARGEST:,}" if result.would_fit is None else _devices(result.would_fit)
        lines.append(f"no candidate runs; {needed} would")
    return lines


def _devices(count: int) -> str:
    return f"{count:,} device{'s' if count > 1 else ''}"


def ranked(result: SearchResult, most: int) -> tuple[str, np.ndarray]:
    """A title and the places of the best candidates, or of that closest to the SLO; no places where none runs."""
    ranking = result.ranking
    if ranking.size:
        return f"best by {result.objective}", ranking[:most]
    use = np.where(result.dataset["feasible"].values, result.dataset["slo_use"].values, np.nan)
    if np.isnan(use).all():
        return "", ranking
    at = int(np.nanargmin(use))
    texts = [
        f"{name} {units.show(value, _unit(name))}, {'at most' if name in CEILINGS else 'at least'} "
        f"{units.show(limit, _unit(name))} is asked for"
        for name, (value, limit) in result.misses(at).items()
    ]
    return f"no candidate meets the SLO; the closest has {'; '.join(texts)}", np.array([at])


def _unit(limit: str) -> str:
    return units.SECOND if limit in CEILINGS else units.TOKEN_RATE


def _lines(result: SearchResult) -> list[str]:
    lines = summary(result)
    title, places = ranked(result, SHOWN)
    if not places.size:
        return lines
    headers, rows = table(result, places)
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    lines += ["", title]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (headers, *rows)]
    return lines
