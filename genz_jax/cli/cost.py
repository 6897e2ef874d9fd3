"""The command `cost`: area, price, power and cost of ownership of devices."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from genz_jax.cli import money, options as o

if TYPE_CHECKING:
    import xarray as xr

EXAMPLES = """\b
Examples:
  genz-jax cost -p H100-SXM
  genz-jax cost -p H200,B200,MI300X --memory hbm3e --constant gross_margin=0 \\
      -o out.nc --plot out.png
  genz-jax cost -p H100-SXM --set mem_capacity="192 GB" --json
"""
FILES = (".nc", ".zarr")
PICTURES = (".png", ".pdf", ".svg")


def cost(
    platform: o.Platforms,
    set: o.Changes = None,
    node: money.Node = "5nm",
    memory: money.Memory = "hbm3",
    constant: money.Constants = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="Write the Dataset to FILE.nc or FILE.zarr.")
    ] = None,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw the parts of the cost to FILE.png, FILE.pdf or FILE.svg.")
    ] = None,
    json: o.Json = False,
) -> None:
    """Estimate what devices cost: die area, price, power, ownership."""
    from genz_jax import catalog, cost as evaluate, plots
    from genz_jax.base import files
    from genz_jax.cli import cases, show

    for path, endings in ((out, FILES), (plot, PICTURES)):
        if path is not None:
            files.check_target(path, endings)
    names = cases.comma_list("--platform", platform)
    changes = money.pairs("--set", set)
    chips = {}
    for name in names:
        chip = catalog.platform(name)
        chips[chip.name] = chip.replace(**changes) if changes else chip
    if len(chips) < len(names):
        raise ValueError(f"--platform = {','.join(names)!r}: a platform stands twice; give it once")
    costs: xr.Dataset = evaluate(chips, money.read_cost_model(node, memory, constant))
    if out is not None:
        files.save(costs, out)
    if plot is not None:
        plots.cost_breakdown(costs, plot)
    if json:
        show.print_json(_tree(costs) | {"out": out, "plot": plot})
        return
    _print(costs)
    for path in (out, plot):
        if path is not None:
            show.line(f"written: {path}")


def _tree(costs: "xr.Dataset") -> dict[str, Any]:
    """Figures by platform, in base units."""
    found: dict[str, Any] = {}
    for name in costs["platform"].values:
        found[str(name)] = {
            str(figure): {"value": _at(costs, str(figure), name), "unit": costs[figure].attrs["units"]}
            for figure in costs.data_vars
        }
    return {"platforms": found}


def _at(costs: "xr.Dataset", figure: str, platform: Any) -> float:
    variable = costs[figure]
    return float(variable.sel(platform=platform) if "platform" in variable.dims else variable)


def _print(costs: "xr.Dataset") -> None:
    from genz_jax.cli import show

    names = [str(name) for name in costs["platform"].values]
    rows = []
    for figure in map(str, costs.data_vars):
        attrs = costs[figure].attrs
        cells = [show.quantity(_at(costs, figure, name), attrs["units"]) for name in names]
        rows.append((figure, *cells, attrs["long_name"]))
    show.table("", [("figure", "left"), *((name, "right") for name in names), ("meaning", "left")], rows)
