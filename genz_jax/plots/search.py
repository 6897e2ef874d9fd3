"""Plots of a search: the Pareto front, the best against the number of devices, and cost against latency."""

from typing import TYPE_CHECKING, Any

import numpy as np

from genz_jax.base import units
from genz_jax.plots.style import COLOURS, is_wide, new_figure, save, scaled
from genz_jax.questions.search.result import DIM, FIGURES, SearchResult, better, describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = 7
"""Points of a front that are named."""


def front(
    result: SearchResult,
    x: str = "interactivity",
    y: str = "throughput_per_device",
    path: str | None = None,
) -> "Figure":
    """Draw all candidates over two figures, and those that no other beats, named by their parallelism.

    Args:
        result: what `gz.search` found.
        x: figure of the horizontal axis.
        y: figure of the vertical axis.
        path: file to write (.png, .pdf or .svg); by default none.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: no such figure, or no candidate runs.
    """
    dataset = _running(result, x, y)
    senses = {name: better(name) for name in (x, y)}
    drawn, axes = _axes(result)
    across, x_label = scaled(dataset[x])
    up, y_label = scaled(dataset[y])
    met, limited = dataset["meets_slo"].values, result.slo is not None
    size, alpha = (7, 0.6) if across.size < 5000 else (3, 0.25)
    dots = {"s": size, "alpha": alpha, "lw": 0, "rasterized": True}
    if limited:
        axes.scatter(across[~met], up[~met], color="0.7", label=f"misses the SLO ({int((~met).sum()):,})", **dots)
    text = "meets the SLO" if limited else "candidates that run"
    axes.scatter(across[met], up[met], color=COLOURS[5], label=f"{text} ({int(met.sum()):,})", **dots)
    factors = {x: _factor(dataset[x]), y: _factor(dataset[y])}
    _scale(axes, across, up, room=1.25)
    if limited:
        _draw_front(axes, result.pareto(senses), factors, "0.45", "--", "front whatever the SLO")
    if met.any():
        best = result.pareto(senses, slo=True)
        text = "front that meets the SLO" if limited else "Pareto front"
        place = _draw_front(axes, best, factors, COLOURS[0], "-", f"{text} ({best.sizes[DIM]:,})")
        _name_points(axes, place[0], place[1], [describe(best, at) for at in range(best.sizes[DIM])])
    if (chosen := result.best) is not None:
        at = [float(chosen[name]) / factors[name] for name in (x, y)]
        name = str(dataset[result.objective].attrs["long_name"])
        axes.plot(
            [at[0]], [at[1]], "*", color=COLOURS[4], ms=12, mec="black", mew=0.6, label=f"best by {name}", zorder=5
        )
    axes.set(xlabel=f"{x_label}, {_better(x)}", ylabel=f"{y_label}, {_better(y)}")
    _legend(drawn, axes)
    return _written(drawn, path)


def _draw_front(axes: "Axes", best: Any, factors: dict[str, float], colour: str, style: str, label: str) -> Any:
    """Draw a front as the boundary of what it beats, and return where its points are."""
    x = next(iter(factors))
    places = tuple(best[name].values / factor for name, factor in factors.items())
    axes.plot(*places, style, color=colour, lw=1.5, drawstyle="steps-post" if better(x) == "min" else "steps-pre",
              marker="o" if style == "-" else "", ms=3.5, label=label)  # fmt: skip
    return places


def best_by_size(result: SearchResult, figure: str | None = None, path: str | None = None) -> "Figure":
    """Draw the best value of a figure for each number of devices, among candidates that meet the SLO.

    Args:
        result: what `gz.search` found for several numbers of chips.
        figure: the figure, by default the objective of the search.
        path: file to write; by default none.

    Raises:
        ValueError: no such figure, one number of devices only, or no candidate runs.
    """
    name = figure or result.objective
    dataset = _running(result, name)
    sizes = np.unique(dataset["devices"].values)
    if sizes.size < 2:
        raise ValueError(f"best_by_size: all candidates have {sizes[0]} devices; search several, chips=range(1, 65)")
    drawn, axes = _axes(result)
    values, label = scaled(dataset[name])
    reduce = np.fmin if better(name) == "min" else np.fmax
    groups = [("best that meets the SLO" if result.slo else "best", dataset["meets_slo"].values, COLOURS[0], "-")]
    if result.slo is not None:
        groups.append(("best whatever the SLO", np.ones(values.size, dtype=bool), "0.45", "--"))
    shown = []
    for text, rows, colour, style in groups:
        best = [reduce.reduce(values[rows & (dataset["devices"].values == n)], initial=np.nan) for n in sizes]
        axes.plot(sizes, best, style, marker="o", ms=3.5, color=colour, lw=1.5, label=text)
        shown += best
    if result.smallest_for_slo is not None and result.slo is not None:
        axes.axvline(result.smallest_for_slo, color=COLOURS[4], lw=1.2, ls=":",
                     label=f"smallest that meets the SLO: {result.smallest_for_slo}")  # fmt: skip
    axes.set(xlabel="devices", ylabel=f"{label}, {_better(name)}")
    _scale(axes, sizes.astype(float), np.array(shown, dtype=float))
    if len(axes.lines) > 1:
        _legend(drawn, axes)
    return _written(drawn, path)


def cost_and_latency(result: SearchResult, latency: str = "tpot", path: str | None = None) -> "Figure":
    """Draw the cost of a million output tokens against a latency, with the Pareto front of the two.

    Args:
        result: what `gz.search` found with `cost=…`.
        latency: figure of the horizontal axis: tpot, ttft or latency.
        path: file to write; by default none.

    Raises:
        ValueError: no such figure, or no candidate runs.
    """
    return front(result, latency, "cost_per_million_tokens", path)


def _running(result: SearchResult, *figures: str) -> Any:
    """Candidates that run.

    Raises:
        ValueError: a figure is not there or has no better and worse, or none runs.
    """
    dataset = result.dataset
    for name in figures:
        if name not in dataset or name not in FIGURES:
            known = ", ".join(known for known in FIGURES if known in dataset)
            raise ValueError(f"figure {name!r}: must be one of {known}")
    runs = np.flatnonzero(dataset["feasible"].values)
    if not runs.size:
        raise ValueError("no candidate of the search runs, so there is nothing to draw; print(result) says why")
    return dataset.isel({DIM: runs})


def _axes(result: SearchResult) -> tuple["Figure", "Axes"]:
    drawn, (axes,) = new_figure(1, 1)
    drawn.set_size_inches(8.0, 5.4)
    names = [
        str(result.dataset.attrs.get(f"{what}_name", "")) for what in ("model", "platform", "workload", "precision")
    ]
    limits = [] if result.slo is None else [_limits(result)]
    axes.set_title("; ".join(name for name in [*names, *limits] if name), fontsize=9)
    axes.grid(True, which="both", alpha=0.2)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    return drawn, axes


def _limits(result: SearchResult) -> str:
    assert result.slo is not None
    shown = []
    for name, limit in result.slo.limits().items():
        unit = units.SECOND if name in ("ttft", "tpot", "e2e") else units.TOKEN_RATE
        shown.append(f"{name} {'≤' if unit == units.SECOND else '≥'} {units.show(float(limit), unit)}")
    return f"SLO {', '.join(shown)}"


def _factor(array: Any) -> float:
    """Size of the unit that `scaled` shows an array in."""
    values = np.asarray(array.values, dtype=float)
    at = int(np.nanargmax(values))
    return values[at] / scaled(array)[0][at] if values[at] else 1.0


def _better(name: str) -> str:
    return "more is better" if better(name) == "max" else "less is better"


def _scale(axes: "Axes", across: np.ndarray, up: np.ndarray, room: float = 1.0) -> None:
    """Log scales where values spread, else from 0; with some room to the right for names."""
    from matplotlib.ticker import NullFormatter

    for axis, values, more in (("x", across, room), ("y", up, 1.0)):
        side = getattr(axes, f"{axis}axis")
        if is_wide(values):
            low, high = np.nanmin(values), np.nanmax(values)
            getattr(axes, f"set_{axis}scale")("log")
            getattr(axes, f"set_{axis}lim")(low / 1.15, high * 1.15 * more**2)
            side.set_minor_formatter(NullFormatter())
        else:
            getattr(axes, f"set_{axis}lim")(0, np.nanmax(values) * 1.06 * (1 + (more - 1) / 2))
        side.set_major_formatter("{x:,g}")


def _name_points(axes: "Axes", x: np.ndarray, y: np.ndarray, names: list[str]) -> None:
    """Name some points of a front, spread evenly along its length on the paper, none over another."""
    from matplotlib.patheffects import withStroke

    canvas: Any = axes.figure.canvas
    canvas.draw()
    on_paper = axes.transData.transform(np.stack([x, y], axis=1))
    along = np.r_[0.0, np.cumsum(np.hypot(*np.diff(on_paper, axis=0).T))]
    wanted = np.linspace(0.0, along[-1], min(LABELS, x.size))
    taken: list[Any] = []
    for at in sorted({int(np.argmin(np.abs(along - place))) for place in wanted}):
        note = axes.annotate(
            names[at],
            (x[at], y[at]),
            xytext=(6, 4),
            textcoords="offset points",
            fontsize=7.5,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            zorder=6,
        )
        box = note.get_window_extent(canvas.get_renderer())
        if any(box.overlaps(other) for other in taken):
            note.remove()
        else:
            taken.append(box)


def _legend(drawn: "Figure", axes: "Axes") -> None:
    handles, texts = axes.get_legend_handles_labels()
    made = drawn.legend(handles, texts, fontsize=8, loc="outside lower center", ncols=3, frameon=False)
    for handle in made.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_alpha(1.0)
            handle.set_sizes([20.0])  # type: ignore[attr-defined]


def _written(drawn: "Figure", path: str | None) -> "Figure":
    if path is not None:
        save(drawn, path)
    return drawn
