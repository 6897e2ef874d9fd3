"""Where is the cheapest accelerator that serves the five use cases, on a grid of 10^8 designs?

Compute, memory bandwidth, memory capacity, link bandwidth and tensor parallel size are varied for Llama-3.1-70B in fp8.
A design serves a use case of arXiv 2406.01698 if TTFT and TPOT are within its limits and it fits the memory. Blocks go
through one compiled kernel that keeps the cheapest design of each rate and bandwidth; only one block is ever held.

    python studies/design_space.py [--smoke] [--out DIR]
"""

import functools
import resource
import time
from typing import TYPE_CHECKING, Any

import common
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from genz_jax.base import units
from genz_jax.labelled import labels
from genz_jax.plots.style import COLOURS, new_figure, plain_ticks
from genz_jax.plots.sweep import TODAY, mark_platforms, platform_marks
from genz_jax.questions.tune.problem import Data, Form, measure
from genz_jax.questions.tune.tuner import Tuner, build_problem

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

MODEL, BASE, PRECISION = "llama-3.1-70b", "H100-SXM", "fp8"
USE_CASES = ("question-answering", "chat", "qa-rag", "summarization", "code-generation")
BOUNDS: dict[str, tuple[Any, Any]] = {
    "flops": ("100 TFLOP/s", "10 PFLOP/s"),
    "mem_bw": ("1 TB/s", "20 TB/s"),
    "mem_capacity": ("16 GB", "512 GB"),
    "link_bw": ("25 GB/s", "2 TB/s"),
    "tp": (1, 8),
}
UNITS = {
    "flops": units.FLOP_RATE,
    "mem_bw": units.BYTE_RATE,
    "mem_capacity": units.BYTE,
    "link_bw": units.BYTE_RATE,
    "tp": units.ONE,
}
SIZES = {"flops": 100, "mem_bw": 100, "mem_capacity": 50, "link_bw": 50}
SMOKE = {"flops": 16, "mem_bw": 16, "mem_capacity": 4, "link_bw": 4}


def problem() -> Tuner:
    """Least price of all devices, with the memory and the latencies of all use cases as limits."""
    return build_problem("system_price", MODEL, BASE, list(USE_CASES), None, PRECISION, bounds=BOUNDS, slo="catalogue")


def problem_bounds() -> dict[str, tuple[float, float]]:
    """Bounds of the variables in base units."""
    return {v.name: (v.low, v.high) for v in problem().variables}


@functools.partial(jax.jit, static_argnames="form")
def cheapest(form: Form, data: Data, rate: Any, axes: tuple[Any, Any, Any], spread: Any) -> tuple[Any, Any]:
    """For one rate and every bandwidth: ln of the least price over capacities and links, and where it is.

    Every axis has a dimension of its own: times are computed once for all capacities.
    """
    bandwidth, capacity, link = axes
    logs = (rate[None, None, None], bandwidth[:, None, None], capacity[None, :, None], link[None, None, :])
    goal, excess = measure(form, data, logs, spread)
    served = functools.reduce(jnp.logical_and, [one <= 0.0 for one in excess])
    goal = jnp.where(served, goal, jnp.inf).reshape(bandwidth.size, -1)
    return jnp.min(goal, axis=1), jnp.argmin(goal, axis=1)


def compute(smoke: bool) -> "xr.Dataset":
    """Cheapest design by tensor parallel size, rate and bandwidth; the figures of the run are attributes."""
    sizes, tuner = SMOKE if smoke else SIZES, problem()
    axes = [np.linspace(a, b, n) for a, b, n in zip(tuner.low, tuner.high, sizes.values(), strict=True)]
    rates, *others = (jnp.asarray(axis) for axis in axes)
    degrees = [float(n) for n in tuner.choices[0]]
    shape = (len(degrees), sizes["flops"], sizes["mem_bw"])
    price, place = np.full(shape, np.inf), np.zeros(shape, dtype=int)
    spreads = [tuple(jnp.asarray(float(n)) for n in column) for column in tuner.choices.T]
    options = (tuner.form, tuner.data)
    jax.block_until_ready(cheapest(*options, rates[0], tuple(others), spreads[0]))  # compiles
    begin = time.perf_counter()
    todo = [(k, i) for k in range(len(degrees)) for i in range(sizes["flops"])]
    for k, i in tqdm(todo, unit="block", delay=2, leave=False):
        price[k, i], place[k, i] = cheapest(*options, rates[i], tuple(others), spreads[k])
    seconds = time.perf_counter() - begin
    points = len(degrees) * int(np.prod(list(sizes.values())))
    capacity, link = np.unravel_index(place, (sizes["mem_capacity"], sizes["link_bw"]))
    served = np.isfinite(price)
    dims = ("tp", "flops", "mem_bw")

    def known(values: np.ndarray) -> np.ndarray:
        return np.where(served, values, np.nan)

    values = {
        "price": (known(np.exp(price)), dims, {"units": units.MONEY, "long_name": "least price of all devices"}),
        "mem_capacity": (known(np.exp(axes[2])[capacity]), dims, {"units": units.BYTE, "long_name": "its capacity"}),
        "link_bw": (known(np.exp(axes[3])[link]), dims, {"units": units.BYTE_RATE, "long_name": "its link bandwidth"}),
    }
    coords = {
        "tp": labels.Coordinate(("tp",), np.array(degrees), {"units": units.ONE, "long_name": "tensor parallel size"}),
        "flops": labels.Coordinate(
            ("flops",), np.exp(axes[0]), {"units": units.FLOP_RATE, "long_name": "peak dense 16-bit rate"}
        ),
        "mem_bw": labels.Coordinate(
            ("mem_bw",), np.exp(axes[1]), {"units": units.BYTE_RATE, "long_name": "memory bandwidth"}
        ),
    }
    attrs = {
        "title": f"cheapest accelerator for {MODEL} in {PRECISION}",
        "use_cases": ", ".join(USE_CASES),
        "points": points,
        "times": points // sizes["mem_capacity"] * len(USE_CASES),
        "seconds": seconds,
        "points_per_second": points / seconds,
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0,
    }
    return labels.plain_dataset(values, coords, attrs)


def best(dataset: "xr.Dataset") -> dict[str, float]:
    """The cheapest design of the grid, in base units."""
    price = dataset["price"].values
    at = dataset.isel(dict(zip(dataset["price"].dims, np.unravel_index(np.nanargmin(price), price.shape), strict=True)))
    return {name: float(at[name]) for name in ("price", "flops", "mem_bw", "mem_capacity", "link_bw", "tp")}


def plot(dataset: "xr.Dataset") -> "Figure":
    """Map of the least price over rate and bandwidth, with the tensor parallel size that gives it."""
    from matplotlib.colors import LogNorm
    from matplotlib.patheffects import AbstractPathEffect, withStroke

    price = np.fmin.reduce(dataset["price"].values, axis=0) / 1e3
    filled = np.where(np.isnan(dataset["price"].values), np.inf, dataset["price"].values)
    degree = np.where(np.isnan(price), np.nan, dataset["tp"].values[np.argmin(filled, axis=0)])
    drawn, (panel,) = new_figure(1, 1)
    drawn.set_size_inches(7.6, 5.6)
    across, up = dataset["mem_bw"].values / 1e12, dataset["flops"].values / 1e15
    panel.set(xscale="log", yscale="log", xlabel="memory bandwidth (TB/s)", ylabel="peak dense 16-bit rate (PFLOP/s)")
    panel.set_facecolor("0.88")
    low, high = float(np.nanmin(price)), float(np.nanmax(price))
    levels = [n for n in (30, 40, 50, 70, 100, 150, 200, 300, 500, 700) if low < n < high]
    image = panel.pcolormesh(
        across, up, np.ma.masked_invalid(price), norm=LogNorm(low, high), cmap="cividis", shading="nearest"
    )
    image.set_rasterized(True)
    outline: list[AbstractPathEffect] = [withStroke(linewidth=2.5, foreground="black")]
    for size in np.unique(degree[np.isfinite(degree)]):
        mine = degree == size
        if mine.sum() < 0.01 * mine.size:
            continue
        # The price jumps between the sizes, so that each has lines of its own.
        lines = panel.contour(across, up, np.where(mine, price, np.nan), levels=levels, colors="white", linewidths=0.8)
        for text in panel.clabel(lines, fmt=lambda v: f"{v:g}", fontsize=7.5):
            text.set_path_effects(outline)
        if mine.sum() < np.isfinite(degree).sum():
            panel.contour(across, up, mine, levels=[0.5], colors="black", linewidths=1)
        row = min(int(np.nonzero(mine)[0].max()), int(0.94 * up.size))
        place = across[int(np.median(np.flatnonzero(mine[row])))], up[row]
        label = f"{size:g} device{'s' if size > 1 else ''}"
        panel.text(*place, label, color="white", fontsize=9.5, fontweight="bold", ha="center", path_effects=outline)
    mark_platforms(panel, platform_marks(dataset, "mem_bw", "flops", TODAY))
    found = best(dataset)
    place = (found["mem_bw"] / 1e12, found["flops"] / 1e15)
    panel.plot(*place, "*", color=COLOURS[4], markeredgecolor="black", markersize=15)
    for axis in (panel.xaxis, panel.yaxis):
        plain_ticks(axis)
    parts = ", ".join(units.show(found[name], UNITS[name]) for name in ("flops", "mem_bw", "mem_capacity"))
    panel.set_title(
        f"Least price of all devices that serve {MODEL} in {PRECISION} in five use cases; "
        f"{dataset.attrs['points']:,} designs\n"
        f"star: the cheapest, {found['price'] / 1e3:.1f} kUSD ({found['tp']:g} × {parts}); grey: no design serves all\n"
        "dots: rates of today's accelerators",
        fontsize=8.5,
    )
    bar = drawn.colorbar(image, ax=panel, label="price of all devices (kUSD)", ticks=levels)
    bar.ax.set_yticklabels([f"{level:g}" for level in levels])
    bar.ax.minorticks_off()
    return drawn


def headline(dataset: "xr.Dataset") -> str:
    """The answer, in two lines."""
    found = best(dataset)
    parts = ", ".join(f"{name} {units.show(found[name], unit)}" for name, unit in UNITS.items())
    run = dataset.attrs
    return (
        f"cheapest: {found['price']:,.0f} USD with {parts}\n"
        f"{run['points']:,} designs, {run['times']:,} TTFTs and TPOTs, {run['seconds']:.1f} s, "
        f"{run['points_per_second']:,.0f} designs/s, peak memory {run['peak_memory'] / 1e9:.2f} GB"
    )


def main(arguments: list[str] | None = None) -> None:
    """Write the dataset and the figure, and say the answer."""
    print(headline(common.run(__file__, compute, plot, arguments)))


if __name__ == "__main__":
    main()
