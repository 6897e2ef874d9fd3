"""The command `sensitivity`: what would help most, and what the time is spent on."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from genz_jax.cli import options as o

if TYPE_CHECKING:
    import xarray as xr

EXAMPLES = """\b
Examples:
  genz-jax sensitivity -m llama-3.1-70b -p H100-SXM --tp 8 --precision fp8 --batch 8
  genz-jax sensitivity -m llama-3.1-8b -p H100-SXM,B200 --figures tpot --step 0.5 --top 4
  genz-jax sensitivity -m llama-3.1-8b -p H100-SXM --stage decode \\
      --axis batch=1,64 -o out.nc --plot out.png
  genz-jax sensitivity -m gpt2 -p H100-SXM --figures ttft --json
"""
PANELS = 12
"""Tables that are printed at most."""


def sensitivity(
    model: o.Models,
    platform: o.Platforms,
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
    stage: o.Stage = None,
    max_num_batched_tokens: o.TokensPerStep = None,
    max_num_seqs: o.MaxSequences = None,
    assumptions: o.AssumptionsName = "default",
    set: o.Changes = None,
    prefill: o.PrefillChunks = None,
    decode: o.DecodeChunks = None,
    draft: o.Draft = None,
    draft_tokens: o.DraftTokens = None,
    acceptance: o.Acceptance = None,
    figures: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Times, rates or energies [default: ttft, tpot, latency of a request, else latency]."
        ),
    ] = None,
    step: Annotated[float, typer.Option(metavar="SHARE", help="By how much better each number is.")] = 0.1,
    top: Annotated[int, typer.Option(metavar="N", help="Rows of a table at most.", min=1)] = 8,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="Write the Dataset to FILE.nc or FILE.zarr.")
    ] = None,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw the first figure to FILE.png, FILE.pdf or FILE.svg.")
    ] = None,
    json: o.Json = False,
) -> None:
    """Say what would help most: elasticities, gains, and shares of the resources."""
    given = locals()
    import sys

    from genz_jax import plots, sensitivity as evaluate
    from genz_jax.base import files
    from genz_jax.cli import cases, show
    from genz_jax.cli.require import check_outputs

    check_outputs(out, plot)
    asked = cases.read(given, axis or [])
    wanted = cases.comma_list("--figures", figures) or None
    dataset: xr.Dataset = asked.call(evaluate, figures=wanted, step=step, progress=sys.stderr.isatty())
    if out is not None:
        files.save(dataset, out)
    if plot is not None:
        plots.elasticities(dataset, path=plot)
    found = _points(dataset, top)
    if json:
        show.print_json({"step": step, "points": found, "out": out, "plot": plot})
        return
    _print(dataset, found, step)
    for path in (out, plot):
        if path is not None:
            show.line(f"written: {path}")


def _points(dataset: "xr.Dataset", top: int) -> list[dict[str, Any]]:
    """Every point and figure: value, shares, and the parameters that help most."""
    import numpy as np

    from genz_jax import help_most

    found = []
    inner = ("parameter", "resource")
    dims = {dim: n for dim, n in dataset.sizes.items() if dim not in inner}
    for name in str(dataset.attrs["figures"]).split():
        table = help_most(dataset, name, top)
        for place in np.ndindex(*dims.values()):
            at = dict(zip(dims, place, strict=True))

            def here(array: Any, at: dict = at) -> Any:
                return array.isel({dim: i for dim, i in at.items() if dim in array.dims})

            value, share = here(dataset[name]), here(dataset[f"{name}_share"])
            coords = {
                str(key): {"value": coord.values.item(), "unit": coord.attrs.get("units")}
                for key, coord in dataset.coords.items()
                if set(coord.dims) <= set(dims)
                for coord in [here(coord)]
                if coord.ndim == 0
            }
            rows = [here(table[what]) for what in ("parameter", "gain", "first_order", "elasticity")]
            found.append(
                {
                    "at": coords,
                    "figure": name,
                    "value": float(value),
                    "unit": value.attrs["units"],
                    "shares": {str(r): float(s) for r, s in zip(share.resource.values, share.values, strict=True)},
                    "helps": [
                        dict(zip(("parameter", "gain", "first_order", "elasticity"), map(_plain, row), strict=True))
                        for row in zip(*(array.values for array in rows), strict=True)
                    ],
                }
            )
    return found


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, str) else float(value)


def _print(dataset: "xr.Dataset", found: list[dict[str, Any]], step: float) -> None:
    from genz_jax.base import units
    from genz_jax.cli import show

    show.line(f"{dataset.attrs['title']}; {dataset.attrs['precision_name']}", "bold")
    for point in found[:PANELS]:
        place = ", ".join(
            c["value"] if isinstance(c["value"], str) else f"{name} {units.show(c['value'], c['unit'] or units.ONE)}"
            for name, c in point["at"].items()
        )
        shares = ", ".join(f"{name} {share:.1%}" for name, share in point["shares"].items() if share > 5e-4)
        show.line()
        show.line(
            f"{point['figure']} {show.quantity(point['value'], point['unit'])}"
            f"{' at ' + place if place else ''}: {shares or 'does not run'}"
        )
        columns = [("parameter", "left"), (f"gain, {step:.0%} better", "right"), ("first order", "right")]
        rows = [
            [row["parameter"], f"{row['gain']:.2%}", f"{row['first_order']:.2%}", f"{row['elasticity']:+.3f}"]
            for row in point["helps"]
            if abs(row["elasticity"]) > 5e-4 or row["gain"] > 5e-4
        ]
        if rows:
            show.table("", [*columns, ("elasticity", "right")], rows)
    if len(found) > PANELS:
        show.line(f"{len(found) - PANELS:,} more; write them with -o or --json")
