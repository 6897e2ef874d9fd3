"""The command `sweep`: a grid of points to a file, a figure and a summary."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genz_jax.cli import options as o, outputs
from genz_jax.cli.case_options import case_options

if TYPE_CHECKING:
    import xarray as xr

    from genz_jax.cli.cases import Asked

EXAMPLES = """\b
Examples:
  genz-jax sweep -m llama-3.1-70b -p H100-SXM --batch 32 --precision fp8 \\
      --axis mem_bw=1TB/s:20TB/s:200:log --axis tp=1,2,4,8 \\
      -o out.nc --plot out.png
  genz-jax sweep -m llama-3.1-8b,mixtral-8x7b -p H100-SXM -p MI300X \\
      --axis batch=1:256:9:log --figures tpot,throughput --json
  genz-jax sweep -m llama-3.1-8b -p H100-SXM \\
      --axis flops=1e15,2e15@chip --axis mem_bw=3TB/s,6TB/s@chip
  genz-jax sweep -m llama-3.1-8b -p H100-SXM --figures tpot \\
      --axis mem_bw=1TB/s:20TB/s:1024:log --axis flops=1e14:1e16:64:log \\
      --store big.zarr --chunks mem_bw=256

\b
Axes: NAME=VALUES, with NAME any number of any spec:
  tp=1,2,4                     values
  mem_bw=1TB/s:20TB/s:200:log  START:STOP:NUM, evenly spaced, on a log scale with :log
  batch=1:256:9:log            whole numbers are rounded, and each is taken once
  flops=1e15,2e15@chip         @DIM names the dimension; axes of one dimension are zipped
"""
LONGEST, ROWS = 8, 24  # dimensions and rows of the overview at most
READ = 10_000_000
"""Points of a store up to which it is read again for the summary."""
SMALLEST = ("tpot", "latency", "ttft", "batch_time")
"""Figures of which the smallest value marks the best point, the first that is there."""


@case_options(axes=o.Axes)
def sweep(
    asked: "Asked",
    figures: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Figures wanted, with commas or repeated [default: all of the stage]; `feasible` and `reason` are "
            "always there. Fewer are faster.",
        ),
    ] = None,
    breakdown: o.Breakdown = False,
    operators: o.Operators = False,
    out: Annotated[str | None, outputs.out("the Dataset")] = None,
    plot: Annotated[str | None, outputs.plot("the Dataset")] = None,
    plot_figure: Annotated[
        str | None, typer.Option(metavar="NAME", help="Figure to draw [default: tpot, or latency].")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write to FILE.zarr part by part, so that it need not fit in memory. Given again, the command goes on "
            "where it was stopped; given several times at once, they share the work.",
        ),
    ] = None,
    chunks: Annotated[
        list[str] | None,
        typer.Option(metavar="DIM=N", help="Length of a part along a dimension, for --store. With commas or repeated."),
    ] = None,
    json: o.Json = False,
) -> None:
    """Evaluate every combination of axes."""
    from genz_jax import plots, sweep as evaluate
    from genz_jax.cli import cases

    target = outputs.Outputs(out, plot, json)
    lengths = read_chunks(chunks)
    if lengths and store is None:
        raise ValueError(f"--chunks {','.join(chunks or [])!r}: only a store has chunks; give --store FILE.zarr too")
    wanted = cases.comma_list("--figures", figures)
    start = time.perf_counter()
    with outputs.waiting():
        dataset: xr.Dataset = asked.of_stage(
            evaluate,
            figures=list(dict.fromkeys([*wanted, "feasible", "reason"])) if wanted else None,
            breakdown=breakdown,
            operators=operators,
            progress=outputs.on_terminal(),
            store=store,
            chunks=lengths,
        )
    seconds = time.perf_counter() - start
    summary = summarize(dataset, seconds, store is not None) | {"store": store}
    target.finish(
        dataset,
        draw=lambda path: plots.plot(dataset, plot_figure, path=path),
        tree=lambda: summary,
        tables=lambda: _print(summary),
    )


def read_chunks(given: list[str] | None) -> dict[str, int] | None:
    """Lengths by dimension from `DIM=N`; None if there are none.

    Raises:
        ValueError: another form.
    """
    from genz_jax.cli import cases

    found = {}
    for text in cases.comma_list("--chunks", given):
        dim, _, length = (part.strip() for part in text.partition("="))
        if not dim or not length.lstrip("-").isdigit():
            raise ValueError(f"--chunks {text!r}: must be DIM=N, for example mem_bw=256")
        found[dim] = int(length)
    return found or None


def summarize(dataset: "xr.Dataset", seconds: float, stored: bool = False) -> dict[str, Any]:
    """Size, time, feasibility and best point of a sweep, numbers in base units.

    Args:
        dataset: the sweep.
        seconds: time that it took.
        stored: it lies in a store; with more points than `READ` only its size and time are told.
    """
    import math

    import numpy as np

    from genz_jax.labelled import labels

    inner = {"component"} | {str(dim) for dim in dataset.dims if str(dim).endswith("operator")}
    sizes = {str(dim): int(size) for dim, size in dataset.sizes.items() if dim not in inner}
    points = math.prod(sizes.values())
    size = {
        **{name: dataset.attrs[f"{name}_name"].split(", ") for name in ("model", "platform", "precision")},
        "stage": dataset.attrs["stage"],
        "dims": sizes,
        "points": points,
        "seconds": seconds,
        "points_per_second": points / seconds,
    }
    if stored and points > READ:
        return size
    reasons, counts = np.unique(labels.words(dataset["reason"]).values, return_counts=True)
    repeats = points // max(int(dataset["reason"].size), 1)
    return {
        **size,
        "feasible_share": float(dataset["feasible"].values.mean()),
        "reasons": {str(name): int(count) * repeats for name, count in zip(reasons, counts, strict=True)},
        "best": _best(dataset),
        "overview": _overview(dataset),
    }


def _overview(dataset: "xr.Dataset") -> list[dict[str, Any]]:
    """Range of the smallest-is-best figure for every combination of the short dimensions."""
    import itertools

    import numpy as np

    from genz_jax.cli import show

    name = next((name for name in SMALLEST if name in dataset), None)
    if name is None:
        return []
    variable = dataset[name]
    short: list[str] = []
    for dim in map(str, variable.dims):
        rows = int(np.prod([variable.sizes[d] for d in short], dtype=int))
        if variable.sizes[dim] <= LONGEST and rows * variable.sizes[dim] <= ROWS:
            short.append(dim)
    if not short or len(short) == variable.ndim:
        return []
    found = []
    for place in itertools.product(*(range(variable.sizes[dim]) for dim in short)):
        part = variable.isel(dict(zip(short, place, strict=True)))
        known = part.values[np.isfinite(part.values)]
        spread = np.quantile(known, [0.0, 0.5, 1.0]) if known.size else (np.nan,) * 3
        figure = {"figure": name, "unit": variable.attrs["units"]}
        found.append({"at": show.place(part), **figure, **dict(zip(RANGE, spread, strict=True))})
    return found


def _best(dataset: "xr.Dataset") -> dict[str, Any] | None:
    """The point with the smallest latency; None if no point has one."""
    import numpy as np

    from genz_jax.cli import show

    name = next((name for name in SMALLEST if name in dataset), None)
    if name is None:
        return None
    variable = dataset[name]
    smallest = np.fmin.reduce(variable.values, axis=None)
    if not np.isfinite(smallest):
        return None
    place = np.unravel_index(int(np.argmax(variable.values == smallest)), variable.shape)
    at = variable.isel(dict(zip(variable.dims, place, strict=True)))
    return {"figure": name, "value": float(smallest), "unit": variable.attrs["units"], "at": show.place(at)}


RANGE = ("min", "median", "max")


def _count(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _print(summary: dict[str, Any]) -> None:
    from genz_jax.base import units
    from genz_jax.cli import show
    from genz_jax.specs.reasons import REASONS, Reason

    def named(what: str) -> str:
        names = summary[what]
        return ", ".join(names) if len(names) <= 4 else f"{len(names)} {what}s"

    dims = " × ".join(f"{name} {size:,}" for name, size in summary["dims"].items())
    show.line(f"{summary['stage']}: {named('model')} on {named('platform')}; {named('precision')}", "bold")
    show.line(f"{summary['points']:,} points: {dims}" if dims else "1 point")
    show.line(f"{summary['seconds']:.3g} s with compilation, {_count(summary['points_per_second'])} points/s")
    if "feasible_share" in summary:
        show.line(f"{summary['feasible_share']:.1%} of the points run")
    for name, count in summary.get("reasons", {}).items():
        if name != "feasible":
            show.line(f"  {count:,} × {name}: {REASONS[Reason[name]]}")
    if overview := summary.get("overview"):
        names = list(overview[0]["at"])
        columns = [(name, "left") for name in names] + [(f"{n} {overview[0]['figure']}", "right") for n in RANGE]
        rows = [
            [*(show.coordinate(at) for at in row["at"].values()), *(show.quantity(row[n], row["unit"]) for n in RANGE)]
            for row in overview
        ]
        show.table("", columns, rows)
    best = summary.get("best")
    if best is not None:
        show.line(f"smallest {best['figure']}: {units.show(best['value'], best['unit'])}")
        for name, coord in best["at"].items():
            show.line(f"  {name} = {show.coordinate(coord)}")
    if summary["store"] is not None:
        show.line(f"written: {summary['store']}")
