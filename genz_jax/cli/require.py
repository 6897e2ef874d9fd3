"""The command `require`: the least of a platform's numbers, or the greatest batch, that meets an objective."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genz_jax.cli import options as o
from genz_jax.cli.limits import Limits

if TYPE_CHECKING:
    import xarray as xr

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


def require(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Number that is asked for; see below.")],
    model: o.Models,
    platform: o.Platforms,
    slo: Limits = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUES", help="Sweep a number, as genz-jax sweep does. May be repeated."),
    ] = None,
    workload: o.Workloads = None,
    batch: o.Batch = None,
    beams: o.Beams = None,
    input: o.Input = None,
    output: o.Output = None,
    tp: o.TensorParallel = None,
    ep: o.ExpertParallel = None,
    pp: o.PipelineParallel = None,
    micro_batches: o.MicroBatches = None,
    dp: o.DataParallel = None,
    cp: o.ContextParallel = None,
    precision: o.Precisions = None,
    max_num_batched_tokens: o.TokensPerStep = None,
    max_num_seqs: o.MaxSequences = None,
    assumptions: o.AssumptionsName = "default",
    set: o.Changes = None,
    over: Annotated[
        str | None, typer.Option(metavar="DIM", help="What serves all places of a dimension, such as workload.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="Write the Dataset to FILE.nc or FILE.zarr.")
    ] = None,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw the requirement to FILE.png, FILE.pdf or FILE.svg.")
    ] = None,
    json: o.Json = False,
) -> None:
    """Invert the model: what is needed to meet an objective.

    Ends with exit code 1 where nothing meets it.
    """
    given = locals()
    import sys

    from genz_jax import plots, require as invert
    from genz_jax.base import files
    from genz_jax.cli import cases, show

    check_outputs(out, plot)
    asked = cases.read(given | dict.fromkeys(o.OTHER_STAGES), axis or [])
    case = asked.case
    dataset: xr.Dataset = invert(
        target,
        case.model,
        case.platform,
        case.workload,
        case.parallelism,
        case.precision,
        slo=_objective(given),
        engine=case.engine,
        assumptions=asked.assumptions,
        over=over,
        progress=sys.stderr.isatty(),
    )
    if out is not None:
        files.save(dataset, out)
    if plot is not None:
        plots.requirement(dataset, path=plot)
    if json:
        show.print_json(_tree(dataset) | {"out": out, "plot": plot})
    else:
        _print(dataset)
        for path in (out, plot):
            if path is not None:
                show.line(f"written: {path}")
    if not bool(dataset["feasible"].any()):
        raise typer.Exit(1)


def check_outputs(out: str | None, plot: str | None) -> None:
    """Raise ValueError, before any work, where an output cannot be written."""
    from genz_jax.base import files
    from genz_jax.cli.sweep import FILES, PICTURES, check_writer

    if out is not None:
        files.check_target(out, FILES)
        check_writer(out)
    if plot is not None:
        files.check_target(plot, PICTURES)


def _objective(given: Mapping[str, Any]) -> "SLO":
    """The limits that are given, else those of the workloads."""
    from genz_jax import SLO
    from genz_jax.cli import cases
    from genz_jax.cli.limits import read_limits
    from genz_jax.questions.require.requirements import catalogue_slo

    limits: dict[str, Any] = {}
    for name, text in read_limits(given["slo"]).items():
        spread = "," in text or ":" in text
        limits[name] = cases.read_axis(f"{name}={text}", text, False) if spread else text
    names = cases.comma_list("--workload", given["workload"])
    if limits or not names:
        return SLO(**limits)
    return catalogue_slo(names, listed=len(names) > 1)


def _points(dataset: "xr.Dataset") -> list[dict[str, Any]]:
    """Every point: where it is, the value, what sets it, why there is none, and the best that can be reached."""
    import numpy as np

    from genz_jax.labelled import labels

    name = dataset.attrs["target"]
    dims = dict(dataset[name].sizes)
    full = {what: dataset[what].broadcast_like(dataset[name]) for what in dataset.data_vars}
    text = {what: labels.words(full[what]) for what in ("reason", "limit")}
    found = []
    for place in np.ndindex(*dims.values()):
        at = dict(zip(dims, place, strict=True))
        here = full[name].isel(at)
        coords = {
            str(key): {"value": coord.values.item(), "unit": coord.attrs.get("units")}
            for key, coord in here.coords.items()
        }
        others = {
            str(what): {"value": full[what].isel(at).values.item(), "unit": full[what].attrs["units"]}
            for what in full
            if str(what).startswith(("best_", "binding_"))
        }
        found.append(
            {
                "at": coords,
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
    from genz_jax.questions.require.requirements import LIMITS, OBSTACLES, Limit, Obstacle

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
        cells = [_shown(point["at"][key]) for key in varies] + [_value(point[name])]
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


def _shown(coord: Mapping[str, Any]) -> str:
    from genz_jax.base import units

    value = coord["value"]
    return value if isinstance(value, str) else units.show(value, coord["unit"] or units.ONE)


def _value(quantity: Mapping[str, Any]) -> str:
    from genz_jax.cli import show

    if quantity["value"] in (0.0, float("inf")):
        return "any"
    return show.quantity(quantity["value"], quantity["unit"])
