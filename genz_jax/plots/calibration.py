"""Calibration: predicted over measured times."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from genz_jax.plots.style import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def predicted(
    points: Sequence[tuple[str, np.ndarray, np.ndarray]],
    errors: Mapping[str, Any],
    title: str,
    path: str | None = None,
) -> "Figure":
    """Draw the ratio of predicted to measured times against the measured, a panel for each section.

    Args:
        points: kernel, measured and predicted seconds.
        errors: `Error` by kernel, for the legend.
        title: what stands above.
        path: file to write (.png, .pdf or .svg); by default none.

    Returns:
        The matplotlib figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    sections = list(dict.fromkeys(name.partition("/")[0] for name, _, _ in points))
    columns = min(len(sections), 3)
    rows = -(-len(sections) // columns)
    drawn = Figure(figsize=(5.0 * columns, 3.6 * rows), layout="constrained")
    panels = drawn.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for panel, section in zip(panels, sections, strict=False):
        for name, measured, times in points:
            first, _, rest = name.partition("/")
            if first == section:
                label = f"{rest}  {errors[name].error:.1%}" if name in errors else rest
                panel.scatter(measured * 1e6, times / measured, s=7, alpha=0.6, label=label, linewidths=0)
        for bound in (0.9, 1.1):
            panel.axhline(bound, color="grey", linewidth=0.6, linestyle=":")
        panel.axhline(1.0, color="black", linewidth=0.8)
        panel.set(xscale="log", yscale="log", ylim=(0.4, 2.5), title=section.replace("_", " "))
        panel.set_xlabel("measured (µs)")
        panel.set_yticks([0.5, 0.7, 0.9, 1.1, 1.5, 2.0], minor=False)
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
        panel.legend(fontsize=7, loc="upper right", markerscale=2)
    for panel in panels[len(sections) :]:
        panel.set_visible(False)
    for panel in panels[::columns]:
        panel.set_ylabel("predicted / measured")
    drawn.suptitle(f"{title}: predicted over measured, with exp(mean |ln|) − 1", fontsize=10)
    if path is not None:
        save(drawn, path)
    return drawn
