"""Figure: points per second by size and by case, beside the machine's limits."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from results import HARDWARE, ON_DEVICE, OURS, RESIDENT, Row, largest

from genz_jax.plots.style import COLOURS

BLUE, ORANGE, GREEN, PINK, RED, SKY, BLACK, _ = COLOURS
STYLES: dict[str, dict[str, Any]] = {  # line, marker and hatch tell them apart in grey too
    OURS: {"color": BLUE, "marker": "o", "linestyle": "-", "linewidth": 2.4, "zorder": 5},
    ON_DEVICE: {"color": SKY, "marker": "p", "linestyle": "-"},
    "C, factored": {"color": RED, "marker": "^", "linestyle": "--"},
    f"C, factored{RESIDENT}": {"color": RED, "marker": "^", "linestyle": ":", "markerfacecolor": "white"},
    "C, naive": {"color": ORANGE, "marker": "v", "linestyle": "--"},
    f"C, naive{RESIDENT}": {"color": ORANGE, "marker": "v", "linestyle": ":", "markerfacecolor": "white"},
    "numba": {"color": GREEN, "marker": "D", "linestyle": "-."},
    "numexpr": {"color": PINK, "marker": "X", "linestyle": "-."},
    "NumPy": {"color": SKY, "marker": "s", "linestyle": "-."},
    "genz-llm": {"color": BLACK, "marker": "*", "linestyle": "-"},
}
HATCHES = {OURS: "", "C, factored": "//", "C, naive": "\\\\", "numba": "..", "NumPy": "xx", "genz-llm": "--"}
CASES = {
    HARDWARE: "hardware only",
    "30 models × batch × tp × hardware": "30 models, deployments\nand hardware",
    "breakdown": "breakdown by part",
    "energy": "latency and energy",
    "request": "TTFT, TPOT and latency\nof requests",
    "gradient": "latency and its gradient",
    "requirement": "least bandwidth\nthat meets an objective",
    "best parallelism": "best parallelism and batch",
}


def by_size(axes: Axes, rows: list[Row]) -> None:
    """Lines of the hardware-only sweep over its size, one for each competitor."""
    mine = [row for row in rows if row.case == HARDWARE]
    for name, style in STYLES.items():
        there = [(row.points, row.competitors[name]) for row in mine if name in row.competitors]
        if there:
            points = [count for count, _ in there]
            axes.plot(points, [one["points_per_second"] for _, one in there], label=name, markersize=5.5, **style)
    largest_row = max(mine, key=lambda row: row.points)
    for fresh, words in ((False, "write limit, memory that is there"), (True, "write limit, memory anew")):
        rate = largest_row.write_rate(fresh)
        if rate is not None:
            level = rate * largest_row.points / largest_row.record["result_bytes"]
            line = "--" if fresh else "-"
            axes.axhline(level, color="0.45", linewidth=1.2, linestyle=line, label=words, zorder=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("points of the sweep")
    axes.set_ylabel("points per second")
    axes.set_title("latency over peak rate × memory bandwidth, by size", fontsize=10)
    axes.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.1), ncols=2)


def by_case(axes: Axes, rows: list[Row]) -> None:
    """Bars of each case, at the largest size in which another than genz_jax took part."""
    shown = []
    for case in CASES:
        found = [row for row in rows if row.case == case and len(set(row.competitors) & set(HATCHES)) > 1]
        mine = [row for row in rows if row.case == case]
        row = max(found or mine, key=lambda row: row.points, default=None)
        if row is not None:
            shown.append(row)
    thick = 0.86 / len(HATCHES)
    for k, row in enumerate(shown):
        there = [name for name in HATCHES if name in row.competitors]
        for i, name in enumerate(there):
            speed, style = row.competitors[name]["points_per_second"], STYLES[name]
            at = k + (i - (len(there) - 1) / 2) * thick
            axes.barh(at, speed, thick, color=style["color"], hatch=HATCHES[name], edgecolor="white", linewidth=0.5)
            axes.annotate(name, (speed, at), xytext=(3, 0), textcoords="offset points", va="center", fontsize=6.5)
    axes.set_yticks(
        range(len(shown)), [f"{CASES[row.case]}\n({row.points:.0e} points)".replace("e+0", "e") for row in shown]
    )
    axes.tick_params(axis="y", labelsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, 1.0), high * 12)
    axes.set_xlabel("points per second")
    axes.set_title("by case, at the largest size with competitors", fontsize=10)


def draw(rows: list[Row], path: Path) -> None:
    """Draw points per second by size and by case.

    Args:
        rows: all rows.
        path: file of the figure.
    """
    drawn, (left, right) = plt.subplots(1, 2, figsize=(12.5, 7.2), width_ratios=(1.15, 1), layout="constrained")
    if largest(rows, HARDWARE) is not None:
        by_size(left, rows)
    by_case(right, rows)
    for axes, axis in ((left, "both"), (right, "x")):
        axes.grid(axis=axis, color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    drawn.savefig(path, dpi=170)
    plt.close(drawn)
