"""The command `sensitivity`: what would help most, and what the time is spent on."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from genz_jax.cli import options as o, outputs
from genz_jax.cli.case_options import case_options

if TYPE_CHECKING:
    import xarray as xr

    from genz_jax.cli.cases import Asked

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


@case_options(axes=o.AxesOfSweep)
def sensitivity(
    asked: "Asked",
    figures: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Times, rates or energies [default: ttft, tpot, latency of a request, else latency]."
        ),
    ] = None,
    step: Annotated[float, typer.Option(metavar="SHARE", help="By how much better each number is.")] = 0.1,
    top: Annotated[int, typer.Option(metavar="N", help="Rows of a table at most.", min=1)] = 8,
    out: Annotated[str | None, outputs.out("the Dataset")] = None,
    plot: Annotated[str | None, outputs.plot("the first figure")] = None,
    json: o.Json = False,
) -> None:
    """Say what would help most: elasticities, gains, and shares of the resources."""
    from genz_jax import plots, sensitivity as evaluate
    from genz_jax.cli import cases

    target = outputs.Outputs(out, plot, json)
    wanted = cases.comma_list("--figures", figures) or None
    with outputs.waiting():
        dataset: xr.Dataset = asked.of_stage(evaluate, figures=wanted, step=step, progress=outputs.on_terminal())
        found = _points(dataset, top)
    target.finish(
        dataset,
        draw=lambda path: plots.elasticities(dataset, path=path),
        tree=lambda: {"step": step, "points": found},
        tables=lambda: _print(dataset, found, step),
    )


def _points(dataset: "xr.Dataset", top: int) -> list[dict[str, Any]]:
    """Every point and figure: value, shares, and the parameters that help most."""
    import numpy as np

    from genz_jax import rank_parameters
    from genz_jax.cli import show

    found = []
    inner = ("parameter", "resource")
    dims = {dim: n for dim, n in dataset.sizes.items() if dim not in inner}
    for name in str(dataset.attrs["figures"]).split():
        table = rank_parameters(dataset, name, top)
        for place in np.ndindex(*dims.values()):
            at = dict(zip(dims, place, strict=True))

            def here(array: Any, at: dict = at) -> Any:
                return array.isel({dim: i for dim, i in at.items() if dim in array.dims})

            value, share = here(dataset[name]), here(dataset[f"{name}_share"])
            coords = [name for name, coord in dataset.coords.items() if set(coord.dims) <= set(dims)]
            rows = [here(table[what]) for what in ("parameter", "gain", "first_order", "elasticity")]
            found.append(
                {
                    "at": show.place(here(dataset[coords])),
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
    from genz_jax.cli import show

    show.line(f"{dataset.attrs['title']}; {dataset.attrs['precision_name']}", "bold")
    for point in found[:PANELS]:
        place = ", ".join(
            c["value"] if isinstance(c["value"], str) else f"{name} {show.coordinate(c)}"
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
