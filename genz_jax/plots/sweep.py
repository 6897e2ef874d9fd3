"""Plots of a sweep: curves, and maps of a design space with today's accelerators marked."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from genz_jax import catalog
from genz_jax.base.fields import at as value_at
from genz_jax.plots.style import (
    COLOURS,
    LINE_STYLES,
    headline,
    is_numeric,
    new_figure,
    panels,
    plain_ticks,
    round_levels,
    save,
    scaled,
    set_scales,
)
from genz_jax.specs import Platform

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.contour import ContourSet
    from matplotlib.figure import Figure


def plot(
    dataset: "xr.Dataset",
    figure: str | None = None,
    path: str | None = None,
    chips: Sequence[str] | None = None,
) -> "Figure":
    """Draw one figure of a sweep over its longest numeric axes.

    With two numeric axes of ten values or more, a map of both with contour lines, and the catalogue's platforms marked
    where the axes are rates of a platform; with fewer, curves. Other dimensions become panels, colours and line styles.

    Args:
        dataset: result of `gz.sweep`.
        figure: name of the variable; by default `tpot`, `latency` or the first there is.
        path: file to write (.png, .pdf or .svg); by default none.
        chips: catalogue names to mark on a map; by default a choice of today's accelerators, () for none.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: no such variable, or no axis to draw along.
    """
    name = figure or next((n for n in ("tpot", "latency") if n in dataset), str(next(iter(dataset.data_vars))))
    if name not in dataset:
        raise ValueError(f"figure {name!r}: not in the dataset; it has {', '.join(map(str, dataset.data_vars))}")
    array = dataset[name]
    numeric = [d for d in array.dims if is_numeric(dataset, str(d)) and array.sizes[d] > 1]
    if not numeric:
        raise ValueError(f"figure {name!r}: depends on no numeric axis ({', '.join(map(str, array.dims))}); sweep one")
    numeric.sort(key=lambda d: -array.sizes[d])
    flat = [str(d) for d in numeric if array.sizes[d] >= 10][:2]
    if len(flat) == 2:
        drawn = design_space(dataset, name, flat[0], flat[1], chips)
    else:
        drawn = curves(dataset, name, str(numeric[0]))
    if path is not None:
        save(drawn, path)
    return drawn


def curves(dataset: "xr.Dataset", figure: str, x: str) -> "Figure":
    """Draw a figure along one numeric axis: one line for each combination of the other dimensions.

    Args:
        dataset: result of `gz.sweep`.
        figure: name of the variable.
        x: dimension of the horizontal axis.
    """
    array = dataset[figure].transpose(..., x)
    drawn, (axes,) = new_figure(1, 1)
    drawn.set_size_inches(8.0, 5.0)
    across, x_label = scaled(dataset[x])
    values, y_label = scaled(array)
    picks = panels(array, [x], 24)
    # The first dimension has the colours and the others the line styles, where there are enough of both.
    first = len({at[d] for _, at in picks for d in [next(d for d in array.dims if d in at)]}) if picks[0][1] else 1
    first = first if first <= len(COLOURS) and len(picks) <= first * len(LINE_STYLES) else len(COLOURS)
    for i, (title, at) in enumerate(picks):
        line = values[tuple(at.get(d, slice(None)) for d in array.dims)]
        colour, style = COLOURS[i % first], LINE_STYLES[i // first % len(LINE_STYLES)]
        mark = "o" if across.size <= 12 else ""
        axes.plot(across, line, style, marker=mark, color=colour, label=title or figure, lw=1.8)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.set_title(headline(dataset), fontsize=10)
    set_scales(axes, across, values)
    axes.grid(True, which="both", alpha=0.25)
    if len(axes.lines) > 1:
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    return drawn


TODAY = ("A100-SXM-80GB", "H100-SXM", "H200", "B200", "B300", "MI300X", "MI355X", "TPU-v5p", "TPU-v6e", "TPU-v7")
"""Catalogue platforms that maps are marked with by default."""


_LABELLED = 60.0
"""Pixels from which a contour line has room for its value."""


def design_space(dataset: "xr.Dataset", figure: str, x: str, y: str, chips: Sequence[str] | None = None) -> "Figure":
    """Draw a figure over two numeric axes: colour and contour lines, one panel for each of the other dimensions.

    Points that do not run are grey. Where both axes are numbers of a platform, catalogue platforms are marked.

    Args:
        dataset: result of `gz.sweep`.
        figure: name of the variable.
        x: dimension of the horizontal axis.
        y: dimension of the vertical axis.
        chips: catalogue names to mark; by default a choice of today's accelerators.
    """
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import MaxNLocator

    array = dataset[figure].transpose(..., y, x)
    picks = panels(array, [x, y], 9)
    first = next((array.sizes[d] for d in array.dims if d not in (x, y)), 1)
    drawn, axes = new_figure(len(picks), first if len(picks) > first and first <= 4 else min(len(picks), 3))
    values, label = scaled(array)
    across, x_label = scaled(dataset[x])
    up, y_label = scaled(dataset[y])
    shown = np.concatenate([values[tuple(at.get(d, slice(None)) for d in array.dims)].ravel() for _, at in picks])
    shown = shown[np.isfinite(shown)]
    low, high = (float(shown.min()), float(shown.max())) if shown.size else (0.0, 1.0)
    spread = low > 0 and high / low > 5
    norm = LogNorm(low, high) if spread else Normalize(low, high)
    lines = round_levels(low, high) if spread else MaxNLocator(7).tick_values(low, high)
    marks = platform_marks(dataset, x, y, TODAY if chips is None else chips)
    image = None
    for panel, (title, at) in zip(axes, picks, strict=True):
        flat = values[tuple(at.get(d, slice(None)) for d in array.dims)]
        panel.set_facecolor("0.9")
        image = panel.pcolormesh(across, up, np.ma.masked_invalid(flat), norm=norm, cmap="cividis", shading="nearest")
        image.set_rasterized(True)
        panel.set_title(title or figure, fontsize=9)
        set_scales(panel, across, up)
        panel.set(xlabel=x_label, ylabel=y_label, xlim=(across.min(), across.max()), ylim=(up.min(), up.max()))
        if np.isfinite(flat).any() and float(np.nanmax(flat)) > float(np.nanmin(flat)):
            contours = panel.contour(across, up, flat, levels=lines, colors="white", linewidths=0.7)
            _label(panel, contours)
        elif not np.isfinite(flat).any():
            panel.text(0.5, 0.5, "does not run here", transform=panel.transAxes, ha="center")
        mark_platforms(panel, marks)
    assert image is not None
    bar = drawn.colorbar(image, ax=axes, label=label, fraction=0.03)
    if spread:
        plain_ticks(bar.ax.yaxis)
    drawn.suptitle(f"{headline(dataset)} (other numbers of the platform as they are)", fontsize=10)
    return drawn


def mark_platforms(panel: "Axes", marks: dict[str, tuple[float, float]]) -> None:
    """Mark platforms with their names; those that lie together share a name tag.

    Args:
        panel: a map.
        marks: place by name, as of `platform_marks`.
    """
    from matplotlib.patheffects import withStroke

    groups: list[list[str]] = []
    for name, (x, y) in marks.items():
        near = (g for g in groups if np.abs(np.log(np.divide((x, y), marks[g[0]]))).sum() < 0.35)
        if (group := next(near, None)) is None:
            groups.append([name])
        else:
            group.append(name)
    for group in groups:
        places = [marks[name] for name in group]
        panel.plot(*zip(*places, strict=True), "o", color=COLOURS[1], markeredgecolor="black", markersize=5)
        short = [name.removesuffix("-SXM").removesuffix("-SXM-80GB") for name in group]
        lines = ["/".join(short[i : i + 2]) for i in range(0, len(short), 2)]
        panel.annotate(
            "\n".join(lines),
            max(places, key=lambda place: place[0]),
            xytext=(5, 0),
            textcoords="offset points",
            fontsize=7,
            va="center",
            color="black",
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )


def platform_marks(dataset: "xr.Dataset", x: str, y: str, chips: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Places of catalogue platforms on a map of two of a platform's numbers, in the units of `scaled`.

    Args:
        dataset: dataset with both axes as coordinates in base units.
        x: dimension of the horizontal axis.
        y: dimension of the vertical axis.
        chips: catalogue names.

    Returns:
        Place by name, for the platforms inside the map; none where an axis is no number of a platform.
    """
    own = {"flops", "mem_bw", "mem_capacity", "power", *Platform.aliases}
    if not {x, y} <= own:
        return {}
    found = {}
    for name in chips:
        platform = catalog.platform(name)
        at_axes = []
        for axis in (x, y):
            value = float(value_at(platform, axis))
            values = dataset[axis].values
            inside = values.min() <= value <= values.max()
            factor = scaled(dataset[axis])[0].max() / values.max()
            at_axes.append(value * factor if inside else np.nan)
        if np.isfinite(at_axes).all():
            found[platform.name] = (at_axes[0], at_axes[1])
    return found


def _label(panel: "Axes", contours: "ContourSet") -> None:
    """Write the value of every contour line at a third of its length, where the edge does not cut the text off."""
    panel.figure.canvas.draw()  # lengths are those on the page, which the layout changes
    places = []
    for path in contours.get_paths():
        for line in map(np.asarray, path.to_polygons(closed_only=False)):
            shown = panel.transData.transform(line)
            run = np.concatenate(([0.0], np.cumsum(np.hypot(*np.diff(shown, axis=0).T))))
            if run[-1] > _LABELLED:
                places.append(tuple(line[np.searchsorted(run, run[-1] / 3)]))
    panel.clabel(contours, fmt=lambda v: f"{v:g}", fontsize=8, manual=places)
