"""Style: palette, units of axes, panels, and how a figure becomes a file."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from genz_jax.base import units

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#F0E442")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""

LINE_STYLES = ("-", "--", "-.", ":")
SCALES = {  # unit of the figure's axis, by base unit
    units.SECOND: ("ms", 1e-3),
    units.BYTE_RATE: ("TB/s", 1e12),
    units.BYTE: ("GB", 1e9),
    units.FLOP_RATE: ("PFLOP/s", 1e15),
    units.FLOP: ("TFLOP", 1e12),
    units.TOKEN_RATE: ("tokens/s", 1.0),
    units.REQUEST_RATE: ("requests/s", 1.0),
    units.WATT: ("W", 1.0),
    units.JOULE: ("J", 1.0),
    units.JOULE_PER_TOKEN: ("mJ/token", 1e-3),
    units.TOKEN: ("tokens", 1.0),
    units.AREA: ("mm²", 1e-6),
    units.MONEY: ("USD", 1.0),
    units.MONEY_PER_HOUR: ("USD/h", 1.0),
    units.MONEY_PER_MEGATOKEN: ("USD per million tokens", 1.0),
    units.ONE: ("", 1.0),
}


def scaled(array: "xr.DataArray") -> tuple[np.ndarray, str]:
    """Values in a readable unit, and the axis label with it."""
    unit = array.attrs.get("units", units.ONE)
    symbol, factor = SCALES.get(unit, (unit, 1.0))
    largest = float(np.max(array.values, initial=0.0, where=np.isfinite(array.values)))
    if unit == units.BYTE_RATE and largest < 1e12:
        symbol, factor = "GB/s", 1e9
    if unit == units.SECOND and largest >= 2.0:
        symbol, factor = "s", 1.0
    if unit == units.SECOND and 0 < largest < 1e-4:
        symbol, factor = "µs", 1e-6
    name = str(array.attrs.get("long_name", array.name))
    return np.asarray(array.values, dtype=float) / factor, f"{name} ({symbol})" if symbol else name


def is_numeric(dataset: "xr.Dataset", name: str) -> bool:
    """True if the dataset has that coordinate and it is one of numbers."""
    return name in dataset.coords and np.issubdtype(dataset[name].dtype, np.number)


def save(drawn: "Figure", path: str) -> None:
    """Write a figure to a .png, .pdf or .svg file, whole or not at all.

    Args:
        drawn: the figure.
        path: where; what is there is replaced.

    Raises:
        ValueError: the path ends otherwise, or cannot be written.
    """
    from genz_jax.base import files

    def write(fresh: str) -> None:
        drawn.savefig(fresh, dpi=160)

    files.write(path, dict.fromkeys((".png", ".pdf", ".svg"), write))


def panels(array: "xr.DataArray", used: Sequence[str], most: int) -> list[tuple[str, dict[Any, Any]]]:
    """Titles and selections of the combinations of the other dimensions; some where there are too many."""
    others = [d for d in reversed(array.dims) if d not in used]
    picks: list[tuple[str, dict[Any, Any]]] = [("", {})]
    for dim in others:
        coord = array[dim]
        places = range(array.sizes[dim])
        if len(places) * len(picks) > most:
            keep = max(most // len(picks), 1)
            places = sorted({round(i) for i in np.linspace(0, array.sizes[dim] - 1, keep)})
        picks = [(f"{place(coord, i)}, {title}".rstrip(", "), {**at, dim: i}) for title, at in picks for i in places]
    return picks


def place(coord: "xr.DataArray", index: int) -> str:
    """Name and value of a place along a coordinate."""
    value = coord.values[index]
    if isinstance(value, str):
        return value
    unit = coord.attrs.get("units", units.ONE)
    return f"{coord.name} {units.show(float(value), unit)}"


def new_figure(count: int, columns: int) -> tuple["Figure", list["Axes"]]:
    """A figure with that many panels, without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    drawn = Figure(figsize=(1.2 + 4.2 * columns, 0.9 + 3.7 * rows), layout="constrained")
    FigureCanvasAgg(drawn)
    axes = np.atleast_1d(drawn.subplots(rows, columns, squeeze=False)).ravel()
    for extra in axes[count:]:
        extra.set_visible(False)
    return drawn, list(axes[:count])


def is_wide(values: np.ndarray) -> bool:
    """True if a log scale shows the values better: they span much, or lie along an axis evenly in their logarithms."""
    good = values[np.isfinite(values)]
    if good.size == 0 or good.min() <= 0:
        return False
    ratios = good[1:] / good[:-1] if good.ndim == 1 else np.ones(0)
    even = ratios.size > 2 and ratios[0] > 1 and np.allclose(ratios, ratios[0], rtol=1e-3)
    return bool(good.max() / good.min() > 20 or even)


def set_scales(panel: "Axes", across: np.ndarray, up: np.ndarray) -> None:
    """Make each axis logarithmic if its values are wide."""
    panel.set_xscale("log" if is_wide(across) else "linear")
    panel.set_yscale("log" if is_wide(up) else "linear")
    for axis, values in ((panel.xaxis, across), (panel.yaxis, up)):
        if is_wide(values):
            plain_ticks(axis)


def plain_ticks(axis: "Axis") -> None:
    """Label 1, 2 and 5 of every decade of a logarithmic axis, as plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def round_levels(low: float, high: float) -> np.ndarray:
    """Levels 1, 2 and 5 of every decade between two values."""
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    levels = np.outer(decades, (1.0, 2.0, 5.0)).ravel()
    return levels[(levels > low) & (levels < high)]


def headline(dataset: "xr.Dataset") -> str:
    """What was swept, in a line."""
    parts = [str(dataset.attrs.get(f"{what}_name", "")) for what in ("platform", "precision", "workload")]
    return "; ".join(part for part in parts if part)
