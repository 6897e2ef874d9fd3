"""Plots of requirements and sensitivities: curves and maps of what is needed, and bars of what would help."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from genz_jax import catalog
from genz_jax.base import units
from genz_jax.base.fields import at as value_at
from genz_jax.plots.style import COLOURS, headline, is_numeric, new_figure, panels, save, scaled
from genz_jax.plots.sweep import TODAY, curves, design_space

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def requirement(
    dataset: "xr.Dataset", path: str | None = None, x: str | None = None, chips: Sequence[str] | None = None
) -> "Figure":
    """Draw what is needed: over two long numeric axes a map, along one a curve for each of the other places.

    Without a numeric axis, a point for each place. Where the target is a number of a platform, lines or marks show
    what today's accelerators have. Places that cannot meet the objective are blank, on a map grey.

    Args:
        dataset: result of `gz.require`.
        path: file to write (.png, .pdf or .svg); by default none.
        x: dimension along the horizontal axis; by default the longest numeric one.
        chips: catalogue names to show; by default a choice of today's accelerators, () for none.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: not a result of `gz.require`, or no such dimension.
    """
    name = dataset.attrs.get("target")
    if name is None:
        raise ValueError("plot: the dataset has no attribute 'target'; give a result of gz.require")
    array = dataset[name]
    if x is not None and x not in array.dims:
        raise ValueError(f"x = {x!r}: must be one of the dimensions {', '.join(map(str, array.dims))}")
    numeric = [str(d) for d in array.dims if is_numeric(dataset, str(d)) and array.sizes[d] > 1]
    numeric.sort(key=lambda d: -array.sizes[d])
    long = [d for d in numeric if array.sizes[d] >= 10]
    if x is None and len(long) >= 2:
        drawn = design_space(dataset, name, long[0], long[1], chips)
        drawn.suptitle(f"{dataset.attrs.get('title', '')}; grey: cannot be met\n{headline(dataset)}", fontsize=9)
    else:
        along = x or (numeric[0] if numeric else None)
        drawn = _points(dataset, name) if along is None else curves(dataset.where(np.isfinite(array)), name, along)
        (axes,) = drawn.axes
        _lines(axes, dataset, name, TODAY if chips is None else chips)
        axes.set_title(f"{array.attrs['long_name']}\n{dataset.attrs.get('title', '')}", fontsize=10)
    if path is not None:
        save(drawn, path)
    return drawn


def _points(dataset: "xr.Dataset", name: str) -> "Figure":
    """One point for each place, along the last dimension, a colour for each of the others."""
    array = dataset[name]
    drawn, (axes,) = new_figure(1, 1)
    drawn.set_size_inches(8.0, 5.0)
    values, label = scaled(array)
    along = str(array.dims[-1]) if array.dims else ""
    places = [str(place) for place in dataset[along].values] if along else [name]
    for i, (title, at) in enumerate(panels(array, [along], 24)):
        line = np.atleast_1d(values[tuple(at.get(d, slice(None)) for d in array.dims)])
        axes.plot(places, line, "o", color=COLOURS[i % len(COLOURS)], label=title or name, markersize=8)
    axes.set(ylabel=label, xlabel=along)
    good = values[np.isfinite(values)]
    if good.size and good.min() > 0 and good.max() / good.min() > 20:
        axes.set_yscale("log")
    axes.grid(True, axis="y", which="both", alpha=0.25)
    axes.tick_params(axis="x", rotation=20 if len(places) > 3 else 0)
    if len(axes.lines) > 1:
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.12, 1.0), frameon=False)
    return drawn


def _lines(axes: "Axes", dataset: "xr.Dataset", name: str, chips: Sequence[str]) -> None:
    """A line for what each of some accelerators has, where it lies within reach of the curves."""
    path = str(dataset.attrs["target_path"])
    if not path.startswith("platform."):
        return
    raw = dataset[name].values
    good = raw[np.isfinite(raw) & (raw > 0)]
    if not good.size:
        return
    factor = scaled(dataset[name])[0][np.isfinite(raw) & (raw > 0)].max() / good.max()
    groups: dict[float, list[str]] = {}
    for chip in chips:
        platform = catalog.platform(chip)
        if (number := path.removeprefix("platform.")) not in platform.paths():
            return
        own = value_at(platform, number)
        if own is not None and good.min() / 2 <= float(own) <= good.max() * 2:
            same = next((value for value in groups if abs(value / float(own) - 1) < 0.06), float(own))
            short = platform.name.removesuffix("-80GB").removesuffix("-SXM")
            groups.setdefault(same, []).append(short)
    if len(groups) == 1 and len(next(iter(groups.values()))) == len(tuple(chips)) > 1:
        return  # all the same, as an efficiency that no vendor states
    for value, names in groups.items():
        axes.axhline(value * factor, color="0.35", lw=0.9, ls=(0, (1, 2)), zorder=0)
        axes.annotate(
            ", ".join(names[:3]) + (" …" if len(names) > 3 else ""),
            (1.0, value * factor),
            xycoords=("axes fraction", "data"),
            xytext=(-3, 2),
            textcoords="offset points",
            fontsize=7,
            ha="right",
            color="0.25",
        )


RESOURCE_COLOURS: dict[str, str] = dict(zip(("compute", "memory", "network", "latency"), COLOURS, strict=False))


def elasticities(dataset: "xr.Dataset", figure: str | None = None, path: str | None = None, most: int = 8) -> "Figure":
    """Draw how much a figure changes with each number of the platform, and the shares of the resources.

    One panel for each point, nine at most: bars of the elasticities, longest first, with what the parameter made
    better by the dataset's step gains, over a bar of the shares.

    Args:
        dataset: result of `gz.sensitivity`.
        figure: name of the figure; by default the first.
        path: file to write (.png, .pdf or .svg); by default none.
        most: parameters of a panel at most.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: not a result of `gz.sensitivity`, or no such figure in it.
    """
    figures = str(dataset.attrs.get("figures", "")).split()
    name = figure or (figures[0] if figures else "")
    if name not in figures:
        raise ValueError(f"figure {name!r}: not in the dataset; it has {', '.join(figures) or 'no elasticities'}")
    bars = dataset[f"{name}_elasticity"].transpose(..., "parameter")
    gains, shares = (
        dataset[f"{name}_{what}"].transpose(..., last) for what, last in (("gain", "parameter"), ("share", "resource"))
    )
    base = dataset[name]
    picks = panels(bars, ["parameter"], 9)
    columns = min(len(picks), 3)
    drawn, axes = new_figure(len(picks), columns)
    drawn.set_size_inches(1.0 + 4.6 * columns, 0.9 + 3.6 * -(-len(picks) // columns))
    step = float(dataset.attrs["step"])
    for panel, (title, at) in zip(axes, picks, strict=True):
        place = {str(dim): i for dim, i in at.items()}
        slope = bars.isel(place).values
        gain = gains.isel(place).values
        # An efficiency or a relative rate changes a figure just as the rate that it is a share of.
        own = np.isin(dataset.parameter_kind.values.astype(str), ("rate", "latency", "capacity", "power"))
        size = np.where(own, np.nan_to_num(np.abs(slope)), 0.0)
        order = np.argsort(-size, kind="stable")[:most]
        order = order[size[order] > 5e-4]
        kinds = [str(kind) for kind in dataset.parameter_kind.values[order]]
        panel.barh(
            np.arange(order.size),
            slope[order],
            color=[COLOURS[1] if kind == "latency" else COLOURS[0] for kind in kinds],
        )
        for i, k in enumerate(order):
            panel.annotate(
                f"+{gain[k]:.1%}",
                (max(slope[k], 0.0), i),
                xytext=(3, 0),
                textcoords="offset points",
                fontsize=7,
                va="center",
            )
        names = [str(p) for p in dataset.parameter.values[order]]
        panel.set_yticks([*range(order.size), order.size + 0.6], [*names, "share"], fontsize=8)
        panel.plot([0.0, 0.0], [-0.7, order.size - 0.3], color="black", lw=0.8)
        _strip(panel, shares.isel(place).values, order.size, [str(r) for r in dataset.resource.values])
        panel.set_xlabel(f"elasticity of {name}", fontsize=9)
        panel.set_xlim(-1.05, 1.05)
        panel.grid(True, axis="x", alpha=0.25)
        panel.set_axisbelow(True)
        inside = {str(d): i for d, i in place.items() if d in base.dims}
        value, unit = float(base.isel(inside).values), str(base.attrs.get("units", units.ONE))
        shown = units.show(value, unit) if np.isfinite(value) else "does not run"
        panel.set_title(f"{title + ': ' if title else ''}{name} {shown}", fontsize=9)
    _legend(drawn, step)
    if path is not None:
        save(drawn, path)
    return drawn


def _strip(panel: "Axes", shares: np.ndarray, rows: int, names: list[str]) -> None:
    """A bar of the resources' shares, below the elasticities, from -1 to 1."""
    left, y = -1.0, rows + 0.6
    for name, share in zip(names, np.nan_to_num(shares), strict=True):
        panel.barh(y, 2 * share, 0.7, left, color=RESOURCE_COLOURS[name], alpha=0.55)
        if share > 0.09:
            panel.text(left + share, y, f"{name} {share:.0%}", ha="center", va="center", fontsize=7)
        left += 2 * share
    panel.set_ylim(y + 0.7, -0.7)


def _legend(drawn: "Figure", step: float) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=COLOURS[0], label="rates"), Patch(color=COLOURS[1], label="latencies")]
    handles.append(Patch(color="none", label=f"+x %: gain with {step:.0%} better"))
    handles += [Patch(color=c, alpha=0.55, label=f"share: {name}") for name, c in RESOURCE_COLOURS.items()]
    columns = len(handles) if drawn.get_figwidth() > 9 else 3
    drawn.legend(handles=handles, loc="outside upper center", ncols=columns, fontsize=8, frameon=False)
