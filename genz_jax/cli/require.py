"""The command `require`: the least of a platform's numbers, or the greatest batch, that meets an objective."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genz_jax.cli import options as o, outputs
from genz_jax.cli.case_options import case_options

if TYPE_CHECKING:
    import xarray as xr

    from genz_jax.cli.cases import Asked
    from genz_jax.serving.slo import SLO

EXAMPLES = """\b
Examples:
  genz-jax require mem_bw -m llama-3.1-70b -p H100-SXM --tp 8 --precision fp8 \\
      --batch 8 --slo ttft=500ms --slo tpot=10ms
  genz-jax require flops -m llama-2-7b -p H100-SXM --precision int8 \\
      -w question-answering,chat --over workload
  genz-jax require link_latency -m llama-3.1-70b -p H100-SXM --tp 8 --precision fp8 \\
      --axis batch=1,8,32 --slo tpot=5ms:20ms:12:log -o out.nc --plot out.png
  genz-jax require batch -m llama-3.1-8b -p H100-SXM,H200 --slo tpot=20ms --json

\b
Targets: the least flops, mem_bw, mem_capacity, link_bw, network.1.bandwidth, offload_bw,
onchip_bw, compute_efficiency, memory_efficiency, link_efficiency; the greatest link_latency,
network.1.latency, collective_overhead, batch, input_tokens. Limits may be lists (10ms,20ms) or
START:STOP:NUM with :log; without limits those of the catalogue's workloads hold.
"""
ROWS = 40
"""Rows of the table at most."""


@case_options(axes=o.AxesOfSweep, stages=False)
def require(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Number that is asked for; see below.")],
    *,
    slo: o.Limits = None,
    asked: "Asked",
    over: Annotated[
        str | None, typer.Option(metavar="DIM", help="What serves all places of a dimension, such as workload.")
    ] = None,
    out: Annotated[str | None, outputs.out("the Dataset")] = None,
    plot: Annotated[str | None, outputs.plot("the requirement")] = None,
    json: o.Json = False,
) -> None:
    """Invert the model: what is needed to meet an objective.

    Ends with exit code 1 where nothing meets it.
    """
    from genz_jax import plots, require as invert

    written = outputs.Outputs(out, plot, json)
    limits = _objective(slo, asked.workloads)
    with outputs.waiting():
        dataset: xr.Dataset = asked.of_requests(invert, target, slo=limits, over=over, progress=outputs.on_terminal())
    written.finish(
        dataset,
        draw=lambda path: plots.requirement(dataset, path=path),
        tree=lambda: _tree(dataset),
        tables=lambda: _print(dataset),
    )
    if not bool(dataset["feasible"].any()):
        raise typer.Exit(1)


def _objective(texts: list[str] | None, workloads: list[str]) -> "SLO":
    """The limits that are given, else those of the workloads.

    Raises:
        ValueError: neither is given.
    """
    from genz_jax import SLO
    from genz_jax.cli import cases
    from genz_jax.questions.require.requirements import catalogue_slo

    limits: dict[str, Any] = {}
    for name, text in cases.read_limits(texts).items():
        spread = "," in text or ":" in text
        limits[name] = cases.read_axis(f"{name}={text}", text, False) if spread else text
    if not limits and not workloads:
        raise ValueError("--slo: no limit is given; give one, such as --slo tpot=20ms, or a workload that has limits")
    return SLO(**limits) if limits else catalogue_slo(workloads, listed=len(workloads) > 1)


def _points(dataset: "xr.Dataset") -> list[dict[str, Any]]:
    """Every point: where it is, the value, what sets it, why there is none, and the best that can be reached."""
    import numpy as np

    from genz_jax.cli import show
    from genz_jax.labelled import labels

    name = dataset.attrs["target"]
    dims = dict(dataset[name].sizes)
    full = {what: dataset[what].broadcast_like(dataset[name]) for what in dataset.data_vars}
    text = {what: labels.words(full[what]) for what in ("reason", "limit")}
    found = []
    for place in np.ndindex(*dims.values()):
        at = dict(zip(dims, place, strict=True))
        here = full[name].isel(at)
        others = {
            str(what): {"value": full[what].isel(at).values.item(), "unit": full[what].attrs["units"]}
            for what in full
            if str(what).startswith(("best_", "binding_"))
        }
        found.append(
            {
                "at": show.place(here),
                name: {"value": here.values.item(), "unit": here.attrs["units"]},
                "feasible": bool(full["feasible"].isel(at).values),
                "reason": str(text["reason"].isel(at).values),
                "limit": str(text["limit"].isel(at).values),
                **others,
            }
        )
    return found


def _tree(dataset: "xr.Dataset") -> dict[str, Any]:
    attrs = dataset.attrs
    return {
        "target": attrs["target"],
        "extreme": attrs["extreme"],
        **{what: attrs[f"{what}_name"] for what in ("model", "platform", "workload", "precision")},
        "points": _points(dataset),
    }


def _print(dataset: "xr.Dataset") -> None:
    from genz_jax.base import units
    from genz_jax.cli import show
    from genz_jax.questions.require.result import LIMITS, OBSTACLES, Limit, Obstacle

    name = dataset.attrs["target"]
    points = _points(dataset)
    show.line(dataset.attrs["title"], "bold")
    varies = [key for key in points[0]["at"] if len({str(point["at"][key]["value"]) for point in points}) > 1]
    binding = [key for key in points[0] if str(key).startswith("binding_")]
    best = [key for key in points[0] if str(key).startswith("best_")]
    columns = [(key, "left") for key in varies] + [(f"{dataset.attrs['extreme']} {name}", "right")]
    columns += [(key.removeprefix("binding_"), "left") for key in binding]
    columns += [(key.replace("_", " "), "right") for key in best] + [("set by", "left")]
    rows = []
    for point in points[:ROWS]:
        cells = [show.coordinate(point["at"][key]) for key in varies] + [_value(point[name])]
        cells += [str(point[key]["value"]) for key in binding]
        cells += [show.quantity(point[key]["value"], point[key]["unit"]) for key in best]
        why = LIMITS[Limit[point["limit"]]] if point["feasible"] else f"cannot: {OBSTACLES[Obstacle[point['reason']]]}"
        rows.append([*cells, why])
    show.table("", columns, rows)
    if len(points) > ROWS:
        met = [point for point in points if point["feasible"]]
        show.line(f"{len(points) - ROWS:,} more points; {len(met):,} of {len(points):,} can meet the objective")
        if met:
            values = sorted(point[name]["value"] for point in met)
            unit = points[0][name]["unit"]
            low, middle, high = (units.show(v, unit) for v in (values[0], values[len(values) // 2], values[-1]))
            show.line(f"{name}: from {low} to {high}, median {middle}")


def _value(quantity: Mapping[str, Any]) -> str:
    from genz_jax.cli import show

    if quantity["value"] in (0.0, float("inf")):
        return "any"
    return show.quantity(quantity["value"], quantity["unit"])
