"""What do more compute, memory and link bandwidth bring, and less link latency? Section 6 of arXiv 2406.01698 v1.

Two models for each of four experiments, prefill and decode, with the time of GEMMs, attention and communication:

- `table`: the figures of v1.
- `published`: their terms from our operators. Against the `genz` preset, activations of decode steps go through
  memory, embedding, head and router are left out, a message between pipeline stages costs 4.2 µs more, and the beams
  of a model with grouped queries do not share the reading of their prompt's KV cache.
- `genz` and `default`: all operators under these assumptions; what is neither attention nor communication counts as
  GEMM, norms and activations too.
"""

from typing import Any

import common
import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

import genz_jax as gz
from genz_jax.plots.style import COLOURS

EXPERIMENTS = {
    "compute": ("6A TFLOPS", "qa-rag", ("mixtral-8x7b", "gpt3-175b")),
    "memory bandwidth": ("6B MemBW", "summarization", ("mixtral-8x7b", "gpt3-175b")),
    "link bandwidth": ("6C ICN BW", "code-generation", ("gpt3-175b", "gpt-4")),
    "link latency": ("6D Tlink us", "code-generation", ("gpt3-175b", "gpt-4")),
}
"""What is scaled: the table's name for it, the use case, and the two models."""

PUBLISHED = {"mixtral_7x8": "mixtral-8x7b", "gpt-3": "gpt3-175b", "gpt-4": "gpt-4"}
STAGES = ("prefill", "decode")
COMPONENTS = ("GEMM", "attention", "communication")
GIB = 2.0**30
BASE = {"flops": 800e12, "mem_bw": 4000 * GIB, "link_bw": 300 * GIB, "link_latency": 2e-6}
"""The base device of v1; its rates of bytes are binary."""

SCALED = {"compute": "flops", "memory bandwidth": "mem_bw", "link bandwidth": "link_bw", "link latency": "link_latency"}
BEAMS = 4.0
"""Beams of the three use cases."""

SEND_OVERHEAD = 4.2e-6
"""Seconds that v1 adds to each message between pipeline stages; the analyser's later versions do not."""


def rows() -> list[dict[str, Any]]:
    """The points of the table: experiment, model, sizes, and the platform's numbers."""
    found = []
    for row in common.table("scaling_v1.csv"):
        experiment = next(name for name, (key, _, _) in EXPERIMENTS.items() if key == row["fig"])
        factor = float(row["x"].removesuffix("x"))
        numbers = dict(BASE)
        name = SCALED[experiment]
        numbers[name] = factor * 1e-6 if name == "link_latency" else BASE[name] * factor
        times = [float(row[f"{what}_ms"]) * 1e-3 for what in ("gemm", "attn", "comm")]
        found.append(
            {
                "experiment": experiment,
                "model": PUBLISHED[row["model"]],
                "tp": float(row["TP"]),
                "pp": float(row["PP"]),
                "stage": row["stage"],
                "x": factor,
                "table": times,
                **numbers,
            }
        )
    return found


def compute(smoke: bool) -> xr.Dataset:
    """Times over experiment, step, model, stage and component, by four approaches.

    Args:
        smoke: the table and the published terms alone.
    """
    approaches = ("table", "published") if smoke else ("table", "published", "genz", "default")
    points = rows()
    steps = len({point["x"] for point in points if point["experiment"] == "compute"})
    shape = (len(approaches), len(EXPERIMENTS), steps, 2, len(STAGES), len(COMPONENTS))
    times = np.full(shape, np.nan)
    x = np.full(shape[1:3], np.nan)
    names = [models for _, _, models in EXPERIMENTS.values()]
    for stage in STAGES:
        here = [point for point in points if point["stage"] == stage]
        by = {"table": np.array([point["table"] for point in here])}
        with jax.enable_x64(True):
            by |= {approach: ours(here, stage, approach) for approach in approaches[1:]}
        for i, point in enumerate(here):
            e = list(EXPERIMENTS).index(point["experiment"])
            s = sorted({p["x"] for p in here if p["experiment"] == point["experiment"]}).index(point["x"])
            m = names[e].index(point["model"])
            x[e, s] = point["x"]
            for a, approach in enumerate(approaches):
                times[a, e, s, m, STAGES.index(stage)] = by[approach][i]
    return xr.Dataset(
        {
            "time": (
                ("approach", "experiment", "step", "place", "stage", "component"),
                times,
                {"units": "s", "long_name": "time of a forward pass"},
            ),
            "x": (
                ("experiment", "step"),
                x,
                {"units": "1", "long_name": "multiple of the base; of the link latency, µs"},
            ),
            "model": (("experiment", "place"), np.array(names), {"units": "1", "long_name": "model"}),
        },
        {
            "approach": list(approaches),
            "experiment": list(EXPERIMENTS),
            "stage": list(STAGES),
            "component": list(COMPONENTS),
            "use_case": ("experiment", [use_case for _, use_case, _ in EXPERIMENTS.values()]),
        },
        {"title": "What scaling a platform's numbers brings, int8", "source": "arXiv 2406.01698 v1, section 6"},
    )


def ours(points: list[dict[str, Any]], stage: str, approach: str) -> np.ndarray:
    """Seconds of GEMMs, attention and communication at each point: one sweep of all, zipped along its models."""

    def along(name: str) -> gz.specs.Axis:
        return gz.axis([point[name] for point in points], "model")

    loads = [gz.workload(EXPERIMENTS[point["experiment"]][1]) for point in points]
    load: dict[str, Any] = {
        name: gz.axis([float(getattr(one, name)) for one in loads], "model")
        for name in ("input_tokens", "output_tokens")
    }
    published = approach == "published"
    # Beams that share nothing are as many requests; prefill has one prompt for all.
    parts = [gz.model(point["model"]).attention for point in points]
    grouped = [part is not None and float(part.kv_heads) < float(part.heads) for part in parts]
    apart = np.array(grouped) & (published and stage == "decode")
    requests = np.where(apart, BEAMS, 1.0)
    beams = BEAMS / requests if stage == "decode" else np.ones(len(points))
    level = gz.specs.NetworkLevel(128, along("link_bw"), along("link_latency"))
    device = gz.Platform(along("flops"), along("mem_bw"), "100 TB", network=(level,))
    physics = gz.Assumptions.default if approach == "default" else gz.Assumptions.genz
    if published:
        physics = physics.replace(decode_activations_on_chip=False)
    ds = gz.sweep(
        {f"{i}": point["model"] for i, point in enumerate(points)},
        device,
        gz.Workload(gz.axis(requests, "model"), beams=gz.axis(beams, "model"), **load),
        gz.Parallelism(along("tp"), pp=along("pp")),
        "int8",
        stage=stage,
        assumptions=physics,
        operators=True,
        progress=False,
    )
    name = ds.operator.str
    outside = name.match("embedding|head|moe.router")
    attention = name.match(r"attention\..*(scores|values|attention)$")
    messages = name.match(r".*(all_reduce|all_gather|dispatch|combine|send)$")
    times = ds.operator_latency if not published else ds.operator_latency.where(~outside, 0.0)
    kinds = (~attention & ~messages, attention, messages)
    found = np.stack([times.where(kind, 0.0).sum("operator").values for kind in kinds], axis=-1)
    if published:
        found[:, 2] += SEND_OVERHEAD * np.array([point["pp"] - 1.0 for point in points])
    return found


def deviations(dataset: xr.Dataset) -> xr.DataArray:
    """Largest relative difference of the whole time from the table, by approach, experiment and stage."""
    whole = dataset.time.sum("component", skipna=False)
    table = whole.sel(approach="table")
    return abs(whole / table - 1.0).max(["step", "place"])


LABELS = {"table": "v1", "published": "v1's terms", "genz": "genz", "default": "default"}
AXES = {name: f"{name}, multiple of base" for name in EXPERIMENTS} | {"link latency": "link latency (µs)"}


def plot(dataset: xr.Dataset) -> Figure:
    """A panel for each experiment, model and stage: stacked times at every step, a bar for each approach."""
    drawn = Figure(figsize=(15.0, 13.0), layout="constrained")
    panels = drawn.subplots(len(EXPERIMENTS), 4)
    colours = dict(zip(COMPONENTS, COLOURS[:3], strict=True))
    approaches = list(dataset.approach.values)
    width = 0.8 / len(approaches)
    for row, experiment in zip(panels, EXPERIMENTS, strict=True):
        for column, panel in enumerate(row):
            place, stage = divmod(column, 2)
            here = dataset.isel(place=place).sel(experiment=experiment, stage=STAGES[stage])
            for a, approach in enumerate(approaches):
                bottom = np.zeros(here.sizes["step"])
                for component in COMPONENTS:
                    values = here.time.sel(approach=approach, component=component).values * 1e3
                    at = np.arange(values.size) + (a - (len(approaches) - 1) / 2) * width
                    panel.bar(
                        at,
                        values,
                        width * 0.92,
                        bottom,
                        color=colours[component],
                        hatch=("", "...", "///", "\\\\\\")[a],
                        edgecolor="white",
                        linewidth=0.4,
                    )
                    bottom += values
            panel.set_xticks(np.arange(here.sizes["step"]), [f"{x:g}" for x in here.x.values])
            panel.set_title(f"{here.model.values!s}, {STAGES[stage]}, {here.use_case.values!s}", fontsize=9)
            panel.set_xlabel(AXES[experiment], fontsize=9)
            panel.set_ylabel("time (ms)", fontsize=9)
            panel.grid(True, axis="y", alpha=0.25)
            panel.set_axisbelow(True)
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
    for a, approach in enumerate(approaches):
        hatch = ("", "...", "///", "\\\\\\")[a]
        handles.append(Patch(facecolor="0.6", edgecolor="white", hatch=hatch, label=LABELS[approach]))
    drawn.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=10, frameon=False)
    return drawn


def main() -> None:
    """Write the dataset and the figure, and say how far each approach is from the table."""
    dataset = common.run(__file__, compute, plot)
    print(deviations(dataset).to_series().unstack("stage").to_string())


if __name__ == "__main__":
    main()
