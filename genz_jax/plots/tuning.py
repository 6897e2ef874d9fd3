"""Plots of tuning and of costs: convergence, the optimum on a map of the design space, and what a device's price is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from genz_jax.base import units
from genz_jax.plots.style import COLOURS, is_wide, new_figure, save, scaled
from genz_jax.plots.sweep import design_space
from genz_jax.questions.tune.result import TuneResult

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BANDS = ((0.05, 0.95, 0.2, "90 % of the starts"), (0.25, 0.75, 0.35, "50 % of the starts"))
_PRICE = {
    "silicon_price": "silicon",
    "memory_price": "memory",
    "packaging_price": "packaging, board, test",
}
_HOURLY = {
    "purchase_per_hour": "device and server, written off",
    "electricity_per_hour": "electricity",
    "hosting_per_hour": "hosting",
}
_LEAST = 1e-2  # percent; less is not told apart
_HATCHES = ("", "///", "...", "xx")


def convergence(result: TuneResult, path: str | None = None) -> "Figure":
    """Draw objective and excess against the step: quantiles over starts, the best start, and the optimum.

    The starts shown are those with the parallel sizes of the best, which look for the same optimum.

    Args:
        result: what `gz.tune` gave.
        path: file to write (.png, .pdf or .svg); by default none.
    """
    trace = result.trace
    same = np.logical_and.reduce([trace[n].values == trace[n].values[0] for n in ("tp", "ep", "pp")])
    trace = trace.isel(start=np.flatnonzero(same))
    drawn, (top, bottom) = new_figure(2, 2)
    step = trace["step"].values
    objective, label = scaled(trace["objective"])
    factor = float(np.nanmax(objective) / np.nanmax(trace["objective"].values))
    _bands(top, step, objective)
    top.axhline(result.value * factor, color="black", ls=":", lw=1.4, label="optimum, exact model")
    good = objective[np.isfinite(objective)]
    top.set(xlabel="step", ylabel=label)
    top.set_yscale("log" if is_wide(good) else "linear")
    excess = np.maximum(trace["excess"].values * 100.0, _LEAST)
    _bands(bottom, step, excess)
    bottom.set(xlabel="step", ylabel="largest excess over a limit (%)", yscale="log", ylim=(_LEAST, None))
    for panel in (top, bottom):
        smooth = trace["smooth"].values
        for change in np.flatnonzero(np.diff(smooth)):
            panel.axvline(step[change] + 0.5, color="0.4", lw=0.8, ls="--")
        panel.grid(True, which="major", alpha=0.25)
        panel.set_xlim(step[0], step[-1])
    top.legend(fontsize=8, frameon=False)
    note = "right of the dashed line: maxima exact"
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    bottom.text(0.98, 0.97, note, transform=bottom.transAxes, ha="right", va="top", fontsize=8, bbox=box)
    of = "" if same.all() else f" of {same.size:,}, those with the parallel sizes of the optimum"
    drawn.suptitle(f"{result.title}\n{trace.sizes['start']:,} starts{of}", fontsize=9)
    if path is not None:
        save(drawn, path)
    return drawn


def _bands(panel: "Axes", step: np.ndarray, values: np.ndarray) -> None:
    for low, high, alpha, label in _BANDS:
        edges = np.nanquantile(values, [low, high], axis=0)
        panel.fill_between(step, *edges, color=COLOURS[0], alpha=alpha, lw=0, label=label)
    panel.plot(step, np.nanmedian(values, axis=0), color=COLOURS[0], lw=1.5, label="median")
    panel.plot(step, values[0], color=COLOURS[4], lw=1.5, label="best start")


def tuned_space(
    dataset: "xr.Dataset",
    figure: str,
    x: str,
    y: str,
    result: TuneResult,
    chips: Sequence[str] | None = None,
    path: str | None = None,
) -> "Figure":
    """Draw a map of the design space with lines of equal figure, today's accelerators, and the optimum.

    Args:
        dataset: result of `gz.sweep` over two numbers of the platform.
        figure: name of the variable, such as `latency`.
        x: dimension of the horizontal axis.
        y: dimension of the vertical axis.
        result: what `gz.tune` gave; both numbers are marked where it has them.
        chips: catalogue names to mark; by default a choice of today's accelerators.
        path: file to write (.png, .pdf or .svg); by default none.
    """
    from matplotlib.patheffects import withStroke

    drawn = design_space(dataset, figure, x, y, chips)
    place = []
    for axis in (x, y):
        values, _ = scaled(dataset[axis])
        place.append(float(getattr(result.platform, axis)) * values.max() / dataset[axis].values.max())
    for panel in drawn.axes:
        if panel.get_xlabel() and panel.collections and panel.get_title():
            panel.plot(*place, "*", color=COLOURS[4], markeredgecolor="black", markersize=15, clip_on=False, zorder=5)
            panel.annotate(
                f"optimum: {result.objective} {units.show(result.value, result.unit)}",
                (place[0], place[1]),
                xytext=(0, -16),
                textcoords="offset points",
                fontsize=8,
                ha="center",
                path_effects=[withStroke(linewidth=2, foreground="white")],
            )
    drawn.suptitle(f"other numbers of the platform as tuned; {dataset.attrs.get('workload_name', '')}", fontsize=10)
    if path is not None:
        save(drawn, path)
    return drawn


def cost_breakdown(costs: "xr.Dataset", path: str | None = None) -> "Figure":
    """Draw bars of what makes a device's cost to make, and its cost of ownership per hour.

    Args:
        costs: result of `gz.cost` for a list of platforms, or with the one dimension `platform`.
        path: file to write (.png, .pdf or .svg); by default none.

    Raises:
        ValueError: the dataset has other dimensions than `platform`.
    """
    if set(costs.sizes) != {"platform"}:
        raise ValueError(f"cost_breakdown: dimensions {', '.join(map(str, costs.sizes))}; must be just platform")
    names = [str(name) for name in costs["platform"].values]
    drawn, (left, right) = new_figure(2, 2)
    drawn.set_size_inches(10.0, 1.6 + 0.42 * len(names))
    for panel, parts, label, total in (
        (left, _PRICE, "cost to make a device (USD)", None),
        (right, _HOURLY, "cost of ownership (USD per device and hour)", "cost_per_hour"),
    ):
        start: Any = np.zeros(len(names))
        for k, (name, text) in enumerate(parts.items()):
            value = np.broadcast_to(costs[name].values, start.shape)
            panel.barh(
                names, value, left=start, color=COLOURS[k], hatch=_HATCHES[k], edgecolor="white", label=text, lw=0.5
            )
            start = start + value
        shown = start if total is None else costs[total].values
        for row, value in enumerate(shown):
            panel.annotate(
                f"{value:,.0f}" if value >= 100 else f"{value:.2f}",
                (value, row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        panel.set(xlabel=label, xlim=(0, 1.15 * float(np.max(start))))
        panel.invert_yaxis()
        panel.grid(True, axis="x", alpha=0.25)
        panel.set_axisbelow(True)
        panel.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    right.set_yticklabels([])
    if path is not None:
        save(drawn, path)
    return drawn
