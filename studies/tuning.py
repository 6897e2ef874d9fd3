"""Where is the cheapest accelerator that serves the five use cases, by gradient, and is it what the grid finds?

The question of studies/design_space.py, answered by `gz.tune` from many starts, beside the answer of its grid.

    python studies/tuning.py [--smoke] [--out DIR]
"""

import time
from typing import TYPE_CHECKING

import common
import design_space
import numpy as np

import genz_jax as gz
from genz_jax.base import units
from genz_jax.labelled import labels
from genz_jax.plots.style import COLOURS, new_figure, plain_ticks

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

STARTS, SMOKE_STARTS = 4096, 64
VARIABLES = tuple(design_space.UNITS)


def tune(starts: int) -> gz.results.TuneResult:
    """The optimum from that many starts."""
    return gz.tune(
        "system_price",
        design_space.MODEL,
        design_space.BASE,
        list(design_space.USE_CASES),
        precision=design_space.PRECISION,
        bounds=design_space.BOUNDS,
        slo="catalogue",
        starts=starts,
    )


def compute(smoke: bool) -> "xr.Dataset":
    """The optimum, its limits and the trace of the starts, beside the best of a grid.

    Args:
        smoke: few starts and a small grid.
    """
    grid = design_space.compute(smoke)
    by_grid = design_space.best(grid)
    starts = SMOKE_STARTS if smoke else STARTS
    tune(starts)  # compiles
    begin = time.perf_counter()
    found = tune(starts)
    seconds = time.perf_counter() - begin
    dataset = found.trace
    bounds = [found.ranges[name][:2] for name in VARIABLES]
    limits = found.limits
    pairs = np.array([[found.variables[name], by_grid[name]] for name in VARIABLES])
    extra = {
        "price": (np.array([found.value, by_grid["price"]]), ("answer",), {"units": units.MONEY, "long_name": "price"}),
        "optimum": (pairs, ("variable", "answer"), {"units": units.ONE, "long_name": "value in base units"}),
        "bound": (np.array(bounds), ("variable", "end"), {"units": units.ONE, "long_name": "bounds in base units"}),
        "elasticity": (
            np.array([held.elasticity for held in limits]),
            ("limit",),
            {"units": units.ONE, "long_name": "percent of the price that a percent of the limit is worth"},
        ),
    }
    coords = {
        "answer": labels.Coordinate(("answer",), np.array(["gradient", "grid"]), {"long_name": "answer"}),
        "variable": labels.Coordinate(("variable",), np.array(VARIABLES), {"long_name": "variable"}),
        "end": labels.Coordinate(("end",), np.array(["low", "high"]), {"long_name": "end"}),
        "limit": labels.Coordinate(("limit",), np.array([held.name for held in limits]), {"long_name": "limit"}),
    }
    lower = found.certificate.lower_bound
    attrs = {
        "gap": found.value / by_grid["price"] - 1.0,
        "lower_bound": np.nan if lower is None else lower,
        "best_evaluations": found.certificate.best_evaluations,
        "evaluations": found.certificate.evaluations,
        "seconds": seconds,
        "grid_points": grid.attrs["points"],
        "grid_seconds": grid.attrs["seconds"],
        "table": str(found),
    }
    return dataset.merge(labels.plain_dataset(extra, coords)).assign_attrs(attrs)


def plot(dataset: "xr.Dataset") -> "Figure":
    """Convergence of the starts beside the two answers, and where both lie within the bounds."""
    drawn, (left, right) = new_figure(2, 2)
    drawn.set_size_inches(10.5, 4.6)
    step, objective = dataset["step"].values, dataset["objective"].values / 1e3
    for degree, colour in zip(np.unique(dataset["tp"].values), COLOURS, strict=False):
        mine = objective[dataset["tp"].values == degree]
        low, middle, high = np.nanquantile(mine, [0.05, 0.5, 0.95], axis=0)
        left.fill_between(step, low, high, color=colour, alpha=0.25, lw=0)
        left.plot(step, middle, color=colour, lw=1.6, label=f"TP {degree:g}: median and 90 % of the starts")
    prices = dataset["price"].values / 1e3
    left.axhline(prices[1], color="black", ls="--", lw=1.2, label=f"best of the grid: {prices[1]:.2f} kUSD")
    left.axhline(prices[0], color="black", ls=":", lw=1.6, label=f"optimum by gradient: {prices[0]:.2f} kUSD")
    left.set(xlabel="step", ylabel="price of all devices (kUSD)", yscale="log", xlim=(step[0], step[-1]))
    plain_ticks(left.yaxis)
    left.grid(True, which="major", alpha=0.25)
    left.legend(fontsize=7.5, frameon=False)
    names = [str(name) for name in dataset["variable"].values]
    low, high = np.log(dataset["bound"].values.T)
    for k, (marker, label) in enumerate((("*", "gradient"), ("o", "grid"))):
        share = (np.log(dataset["optimum"].values[:, k]) - low) / (high - low)
        size, face = (12, COLOURS[4]) if marker == "*" else (15, "none")
        right.plot(share, range(len(names)), marker, ms=size, mfc=face, mec="black", label=label, clip_on=False)
    found = dataset["optimum"].sel(answer="gradient").values
    shown = [units.show(float(x), design_space.UNITS[name]) for name, x in zip(names, found, strict=True)]
    right.set_yticks(range(len(names)), [f"{name}\n{value}" for name, value in zip(names, shown, strict=True)])
    right.tick_params(axis="y", pad=8)
    right.set(xlabel="place between the bounds, logarithmic", xlim=(0, 1), ylim=(len(names) - 0.5, -0.5))
    right.grid(True, axis="x", alpha=0.25)
    right.legend(fontsize=8, frameon=False, loc="lower right", labelspacing=1.0)
    at = dataset.attrs
    drawn.suptitle(
        f"{design_space.MODEL}, {design_space.PRECISION}, five use cases: {at['evaluations']:,} evaluations of "
        f"{dataset.sizes['start']:,} starts ({at['seconds']:.1f} s) against {at['grid_points']:,} points "
        f"({at['grid_seconds']:.1f} s)",
        fontsize=9,
    )
    return drawn


def headline(dataset: "xr.Dataset") -> str:
    """The two answers compared."""
    at, (tuned, grid) = dataset.attrs, dataset["price"].values
    return (
        f"{at['table']}\n\n"
        f"gradient {tuned:,.0f} USD, grid {grid:,.0f} USD: {at['gap']:+.2%}\n"
        f"evaluations: best start {at['best_evaluations']:,}, all starts {at['evaluations']:,}, "
        f"grid {at['grid_points']:,} points; seconds {at['seconds']:.1f} against {at['grid_seconds']:.1f}"
    )


def main(arguments: list[str] | None = None) -> None:
    """Write the dataset and the figure, and say both answers."""
    print(headline(common.run(__file__, compute, plot, arguments)))


if __name__ == "__main__":
    main()
