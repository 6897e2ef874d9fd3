"""What does a platform need to serve five use cases, for dense, GQA, MoE, SSM and hybrid models?

The least memory bandwidth, compute and memory, and for four devices the least link bandwidth and the greatest link
latency, at int8 and the latency objectives of arXiv 2406.01698 (section 7 of v1), by three approaches:

- `published`: that paper's formulas on this model's counts: bandwidth (weights − idle experts + KV cache)/TPOT, compute
  prefill FLOPs/TTFT, capacity weights + KV cache, of the layers alone (no embedding, head, router). With grouped
  queries v1 holds the prompt's KV cache once for each beam, elsewhere once for all; `genz` and `default` always once.
- `genz` and `default`: exact inverses of the roofline under these assumptions, all other resources unlimited. The
  memory of `default` holds activations and buffers too, and leaves the runtime's reserve free.

Links: each of four tensor parallel devices has twice its share of the memory bandwidth and compute that `genz` or
`default` need alone; link latency 1 µs where bandwidth is asked for, and 450 GB/s where latency is.
"""

from typing import Any

import common
import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

import genz_jax as gz
from genz_jax.plots.style import COLOURS, plain_ticks

MODELS = {
    "llama-2-7b": "dense (MHA)",
    "llama-3.1-70b": "dense (GQA)",
    "gpt3-175b": "dense (MHA)",
    "mixtral-8x7b": "MoE",
    "gpt-4": "MoE",
    "falcon-mamba-7b": "SSM",
    "jamba-1.5-mini": "hybrid MoE",
}
"""Models, and their kind. The sizes of GPT-4 are those that the paper supposes."""

USE_CASES = ("question-answering", "chat", "qa-rag", "summarization", "code-generation")
PUBLISHED = {
    "llama_7b": "llama-2-7b",
    "mixtral_7x8": "mixtral-8x7b",
    "LLaMA_70b": "llama-3.1-70b",
    "gpt-3": "gpt3-175b",
    "gpt-4": "gpt-4",
}
"""Names of models in the table of v1."""

PUBLISHED_USE_CASES: dict[str, str] = dict(
    zip(("QA", "Chat Bots", "QA + RAG", "Summarization", "Code Generation"), USE_CASES, strict=True)
)
TARGETS = ("mem_bw", "flops", "mem_capacity", "link_bw", "link_latency")
DEVICES, HEADROOM = 4, 2.0
MIB = 2.0**20
UNLIMITED = 1e24


def platform(**changes: Any) -> gz.Platform:
    """A device of unlimited resources, whose rate at int8 is `flops`."""
    links = (gz.specs.NetworkLevel(DEVICES, "450 GB/s", "1 us"),)
    rates = gz.specs.Rates(**{name: 1.0 for name in gz.specs.Rates().paths()})
    free = gz.Platform(UNLIMITED, UNLIMITED, UNLIMITED, network=links, rates=rates, onchip_bw=UNLIMITED)
    return free.replace(**changes)


def objective(kind: str) -> gz.SLO:
    """Limits of the use cases of one kind (`ttft` or `tpot`), along the dimension `workload`."""
    seconds = [str(gz.catalog.about("workload", name).notes[kind]) for name in USE_CASES]
    return gz.SLO(**{kind: gz.axis(seconds, "workload")})


def compute(smoke: bool) -> xr.Dataset:
    """Requirements over model, workload and approach.

    Args:
        smoke: two models, `genz` alone, and no links.
    """
    names = [name for name in MODELS if not smoke or name in ("llama-2-7b", "mixtral-8x7b")]
    with jax.enable_x64(True):
        found = {"published": by_formula(names)}
        for physics in ("genz",) if smoke else ("genz", "default"):
            found[physics] = exact(names, physics, links=not smoke)
    dataset = xr.concat(list(found.values()), xr.IndexVariable("approach", list(found)), join="outer")
    dataset = dataset.merge(table(names))
    dataset = dataset.assign_coords(kind=("model", [MODELS[name] for name in names]))
    for name in (*TARGETS, "weights", "kv_cache", "idle_weights"):
        for variant in (name, f"table_{name}"):
            if variant in dataset:
                dataset[variant].attrs = {"units": UNITS[name], "long_name": LONG_NAMES[name]}
    dataset.attrs = {
        "title": "What five use cases need of a platform, int8",
        "source": "arXiv 2406.01698 v1, section 7",
    }
    return dataset


UNITS = {"mem_bw": "byte s-1", "flops": "flop s-1", "link_bw": "byte s-1", "link_latency": "s"}
UNITS |= dict.fromkeys(("mem_capacity", "weights", "kv_cache", "idle_weights"), "byte")
LONG_NAMES = {
    "mem_bw": "least memory bandwidth",
    "flops": "least compute at int8",
    "mem_capacity": "least memory",
    "link_bw": f"least link bandwidth, {DEVICES} devices",
    "link_latency": f"greatest link latency, {DEVICES} devices",
    "weights": "weights of the layers",
    "kv_cache": "KV cache and state at full length",
    "idle_weights": "weights of experts that a decode step does not read",
}


def exact(names: list[str], physics: str, links: bool) -> xr.Dataset:
    """Inverses of the roofline."""
    asked: Any = {"precision": "int8", "assumptions": physics, "progress": False}
    tpot, ttft = objective("tpot"), objective("ttft")
    both = gz.SLO(ttft=ttft.ttft, tpot=tpot.tpot)
    found = {
        "mem_bw": gz.require("mem_bw", names, platform(), USE_CASES, slo=tpot, **asked).mem_bw,
        "flops": gz.require("flops", names, platform(), USE_CASES, slo=ttft, **asked).flops,
        "mem_capacity": gz.require("mem_capacity", names, platform(), USE_CASES, slo=gz.SLO(), **asked).mem_capacity,
    }
    if links:
        share = HEADROOM / DEVICES
        device = platform(mem_bw=found["mem_bw"] * share, flops=found["flops"] * share)
        spread = gz.Parallelism(tp=DEVICES)
        for target in ("link_bw", "link_latency"):
            found[target] = gz.require(target, names, device, USE_CASES, spread, slo=both, **asked)[target]
    return xr.Dataset({name: array.reset_coords(drop=True) for name, array in found.items()})


def by_formula(names: list[str]) -> xr.Dataset:
    """The published formulas on counts of the `genz` preset, layers alone."""
    asked: Any = {"precision": "int8", "assumptions": "genz", "operators": True, "progress": False}
    decode = gz.sweep(names, platform(), beams_apart(names), stage="decode", **asked)
    prefill = gz.sweep(names, platform(), USE_CASES, stage="prefill", **asked)
    projections = decode.operator.str.endswith("proj")
    weights = decode.operator_weight_bytes.where(projections, 0.0).sum("operator")
    idle = decode.operator_weight_bytes.where(decode.operator.str.contains("idle"), 0.0).sum("operator")
    outside = prefill.operator.str.match("embedding|head|moe.router")
    flops = prefill.operator_flops.where(~outside, 0.0).sum("operator")
    limits = {kind: xr.DataArray(getattr(objective(kind), kind).values, dims="workload") for kind in ("ttft", "tpot")}
    cache = decode.kv_cache
    found = xr.Dataset(
        {
            "mem_bw": (weights - idle + cache) / limits["tpot"],
            "flops": flops / limits["ttft"],
            "mem_capacity": weights + cache,
            "weights": weights,
            "idle_weights": idle,
            "kv_cache": cache,
        }
    )
    return found.drop_vars(["batch", "beams", "input_tokens", "output_tokens"])


def beams_apart(names: list[str]) -> gz.Workload:
    """The use cases, with beams of models with grouped queries as requests of their own."""
    cases = [gz.workload(name) for name in USE_CASES]
    parts = [gz.model(name).attention for name in names]
    grouped = [part is not None and float(part.kv_heads) < float(part.heads) for part in parts]
    beams = np.array([float(case.beams) for case in cases])
    requests = np.where(np.array(grouped)[:, None], beams, 1.0)
    coords = {"model": names, "workload": list(USE_CASES)}

    def over_both(values: np.ndarray) -> xr.DataArray:
        return xr.DataArray(values, coords, ("model", "workload"))

    def along(name: str) -> xr.DataArray:
        values = [float(getattr(case, name)) for case in cases]
        return xr.DataArray(values, {"workload": list(USE_CASES)}, ("workload",))

    return gz.Workload(over_both(requests), along("input_tokens"), along("output_tokens"), over_both(beams / requests))


def table(names: list[str]) -> xr.Dataset:
    """The figures of v1 in base units, NaN for other models."""
    wanted = {  # column, factor to base units: v1's TB/s are MiB/1e6 per second
        "table_mem_bw": ("membw_TBps", 1e6 * MIB),
        "table_flops": ("compute_PFLOPS", 1e15),
        "table_mem_capacity": ("cap_GB", 2.0**30),
        "table_weights": ("weights_MB", MIB),
        "table_idle_weights": ("unused_MB", MIB),
        "table_kv_cache": ("kv_MB", MIB),
    }
    coords = {"model": names, "workload": list(USE_CASES)}
    values = {name: np.full((len(names), len(USE_CASES)), np.nan) for name in wanted}
    for row in common.table("requirements_v1.csv"):
        if (name := PUBLISHED[row["model"]]) in names:
            at = names.index(name), USE_CASES.index(PUBLISHED_USE_CASES[row["usecase"]])
            for variable, (column, factor) in wanted.items():
                values[variable][at] = float(row[column]) * factor
    return xr.Dataset({name: (("model", "workload"), array) for name, array in values.items()}, coords)


def ratios(dataset: xr.Dataset) -> dict[str, float]:
    """Headline ratios of the paper, by the published formulas."""
    one = dataset.sel(approach="published")
    return {
        "KV cache of code generation / weights, llama-2-7b": float(
            (one.kv_cache / one.weights).sel(model="llama-2-7b", workload="code-generation")
        ),
        "most / least demanding use case, memory bandwidth, llama-2-7b": float(
            one.mem_bw.sel(model="llama-2-7b").max() / one.mem_bw.sel(model="llama-2-7b").min()
        ),
        "most / least demanding use case, compute, llama-2-7b": float(
            one.flops.sel(model="llama-2-7b").max() / one.flops.sel(model="llama-2-7b").min()
        ),
        "mixtral-8x7b / llama-2-7b, memory, chat": float(
            one.mem_capacity.sel(model="mixtral-8x7b", workload="chat")
            / one.mem_capacity.sel(model="llama-2-7b", workload="chat")
        ),
        "mixtral-8x7b / llama-2-7b, memory bandwidth, chat": float(
            one.mem_bw.sel(model="mixtral-8x7b", workload="chat") / one.mem_bw.sel(model="llama-2-7b", workload="chat")
        ),
    }


SCALES = {"mem_bw": ("TB/s", 1e12), "flops": ("PFLOP/s", 1e15), "mem_capacity": ("GB", 1e9)}
SCALES |= {"link_bw": ("GB/s", 1e9), "link_latency": ("µs", 1e-6)}
CHIPS = ("H100-SXM", "B200")


def plot(dataset: xr.Dataset) -> Figure:
    """One panel for each target: models along, a colour for each use case, a marker for each approach.

    Where no value of the target meets the limits, the panel says so.
    """
    targets = [name for name in TARGETS if name in dataset]
    drawn = Figure(figsize=(11.0, 2.7 * len(targets) + 0.8), layout="constrained")
    panels = np.atleast_1d(drawn.subplots(len(targets), 1, sharex=True))
    markers = {"published": "x", "genz": "o", "default": "s"}
    markers = {name: marker for name, marker in markers.items() if name in dataset.approach}
    exact = [name for name in markers if name != "published"]
    colours = COLOURS
    count = len(USE_CASES)
    for panel, target in zip(panels, targets, strict=True):
        symbol, scale = SCALES[target]
        for i, use_case in enumerate(USE_CASES):
            for approach, marker in markers.items():
                shift = (i - (count - 1) / 2) * 0.14 + (0.045 if approach == "default" else 0.0)
                values = dataset[target].sel(workload=use_case, approach=approach).values / scale
                for place in np.flatnonzero(np.isnan(values) & (approach in exact)):
                    panel.annotate(
                        f"{approach}:\nnot met",
                        (place + shift, 0.03),
                        xycoords=("data", "axes fraction"),
                        fontsize=7,
                        color=colours[i],
                        ha="center",
                        va="bottom",
                    )
                panel.plot(
                    np.arange(values.size) + shift,
                    np.where(values > 0, values, np.nan),
                    marker,
                    color=colours[i],
                    markersize=6 if approach != "default" else 4,
                    markerfacecolor="none" if approach == "genz" else None,
                    markeredgewidth=1.4,
                )
        panel.set_yscale("log")
        plain_ticks(panel.yaxis)
        panel.set_ylabel(f"{LONG_NAMES[target]}\n({symbol})", fontsize=9)
        panel.grid(True, axis="y", alpha=0.25)
        _chips(panel, target, scale)
    names = [f"{name}\n{kind}" for name, kind in zip(dataset.model.values, dataset.kind.values, strict=True)]
    panels[-1].set_xticks(np.arange(len(names)), names, fontsize=9)
    panels[-1].set_xlim(-0.6, len(names) - 0.4)
    handles = [panels[0].plot([], [], "D", color=colours[i], label=name)[0] for i, name in enumerate(USE_CASES)]
    for approach, marker in markers.items():
        label = {"published": "published formula", "genz": "exact, genz", "default": "exact, default"}[approach]
        face = "none" if approach == "genz" else "black"
        handles += panels[0].plot([], [], marker, color="black", markerfacecolor=face, label=label)
    drawn.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    return drawn


def _chips(panel: Any, target: str, scale: float) -> None:
    """Lines of today's accelerators."""
    for name in CHIPS:
        chip = gz.platform(name)
        value = {"mem_bw": chip.mem_bw, "flops": chip.flops * chip.rates.int8, "mem_capacity": chip.mem_capacity}
        if target in value:
            panel.axhline(float(value[target]) / scale, color="0.4", lw=0.9, ls=":")
            panel.annotate(
                name.removesuffix("-SXM"),
                (1.0, float(value[target]) / scale),
                xycoords=("axes fraction", "data"),
                xytext=(3, 0),
                textcoords="offset points",
                fontsize=8,
                va="center",
                annotation_clip=False,
            )


def main() -> None:
    """Write the dataset and the figure, and say the headline ratios."""
    dataset = common.run(__file__, compute, plot)
    for name, value in ratios(dataset).items():
        print(f"{value:8.3f}  {name}")


if __name__ == "__main__":
    main()
