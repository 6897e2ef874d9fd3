"""The command `cost`: area, price, power and cost of ownership of devices."""

from typing import TYPE_CHECKING, Annotated, Any

from genz_jax.cli import options as o, outputs

if TYPE_CHECKING:
    import xarray as xr

EXAMPLES = """\b
Examples:
  genz-jax cost -p H100-SXM
  genz-jax cost -p H200,B200,MI300X --memory hbm3e --constant gross_margin=0 \\
      -o out.nc --plot out.png
  genz-jax cost -p H100-SXM --set mem_capacity="192 GB" --json
"""


def cost(
    platform: o.Platforms,
    set: o.Changes = None,
    node: o.Node = "5nm",
    memory: o.Memory = "hbm3",
    constant: o.Constants = None,
    out: Annotated[str | None, outputs.out("the Dataset")] = None,
    plot: Annotated[str | None, outputs.plot("the parts of the cost")] = None,
    json: o.Json = False,
) -> None:
    """Estimate what devices cost: die area, price, power, ownership."""
    from genz_jax import catalog, cost as evaluate, plots
    from genz_jax.cli import cases

    target = outputs.Outputs(out, plot, json)
    names = cases.comma_list("--platform", platform)
    changes = cases.pairs("--set", set)
    chips = {}
    for name in names:
        chip = catalog.platform(name)
        chips[chip.name] = chip.replace(**changes) if changes else chip
    if len(chips) < len(names):
        raise ValueError(f"--platform = {','.join(names)!r}: a platform stands twice; give it once")
    with outputs.waiting():
        costs: xr.Dataset = evaluate(chips, cases.read_cost_model(node, memory, constant))
    target.finish(
        costs,
        draw=lambda path: plots.cost_breakdown(costs, path),
        tree=lambda: _tree(costs),
        tables=lambda: _print(costs),
    )


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
