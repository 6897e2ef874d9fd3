"""The command `tune`: the best design under limits, found by gradient."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from genz_jax.cli import options as o, outputs
from genz_jax.cli.case_options import case_options

if TYPE_CHECKING:
    from genz_jax.cli.cases import Asked
    from genz_jax.questions.tune.result import ActiveLimit, TuneResult

EXAMPLES = """\b
Examples:
  genz-jax tune power -m llama-3.1-8b -p H100-SXM --input 1024 --output 128 \\
      --bound flops=20TFLOP/s:5PFLOP/s --bound mem_bw=200GB/s:20TB/s \\
      --slo ttft=60ms --slo tpot=5ms --starts 64
  genz-jax tune cost_per_million_tokens -m llama-3.1-8b -p H100-SXM -w chat \\
      --bound mem_bw=1TB/s:20TB/s --bound batch=1:64 --slo catalogue \\
      --budget power=700W --starts 64 -o out.nc --plot out.png --json

\b
Bounds: NAME=LOW:HIGH, with NAME any continuous number of the platform, or batch, tp, ep, cp, pp, dp.
Limits: --slo ttft, tpot, e2e (at most), throughput, interactivity (at least);
        --budget area, power, price, cost_per_hour, and system_… for all devices.
"""


@case_options(one=("model", "platform", "precision"), stages=False)
def tune(
    objective: Annotated[
        str,
        typer.Argument(
            metavar="OBJECTIVE",
            help="Figure that is made best: price, power, area, cost_per_hour, system_price, cost_per_million_tokens, "
            "latency, throughput_per_device …",
        ),
    ],
    *,
    bound: Annotated[list[str], typer.Option(metavar="NAME=LOW:HIGH", help="Tune a number; see below. Repeat it.")],
    asked: "Asked",
    slo: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="A limit for all workloads, or the word catalogue for each one's own. Repeat it."
        ),
    ] = None,
    budget: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A limit of area, power or money. Repeat it.")
    ] = None,
    node: o.Node = "5nm",
    memory: o.Memory = "hbm3",
    constant: o.Constants = None,
    starts: Annotated[int, typer.Option(min=1, help="Starts of the descent.", show_default=True)] = 1024,
    steps: Annotated[int, typer.Option(min=10, help="Steps of the descent.", show_default=True)] = 180,
    seed: Annotated[int, typer.Option(help="Seed of the starts.", show_default=True)] = 0,
    check_grid: Annotated[
        int, typer.Option(min=0, metavar="N", help="Compare with the best of a grid of N points [default: none].")
    ] = 0,
    out: Annotated[str | None, outputs.out("the trace")] = None,
    plot: Annotated[str | None, outputs.plot("the convergence")] = None,
    json: o.Json = False,
) -> None:
    """Find the best design under limits."""
    from genz_jax import plots, tune as find
    from genz_jax.cli import cases, show

    target = outputs.Outputs(out, plot, json)
    with outputs.waiting():
        result: TuneResult = asked.of_requests(
            find,
            objective,
            bounds=_read_bounds(bound),
            budget=cases.pairs("--budget", budget) or None,
            slo=_read_slo(slo),
            cost_model=cases.read_cost_model(node, memory, constant),
            starts=starts,
            steps=steps,
            seed=seed,
            check_grid=check_grid,
            progress=outputs.on_terminal(),
        )
    target.finish(
        result.trace,
        draw=lambda path: plots.convergence(result, path),
        tree=lambda: _tree(result),
        tables=lambda: show.lines(str(result)),
    )


def _read_bounds(texts: list[str]) -> dict[str, tuple[str, str]]:
    """Least and greatest value by name."""
    from genz_jax.cli import cases

    found = {}
    for name, ends in cases.pairs("--bound", texts).items():
        low, colon, high = (part.strip() for part in ends.partition(":"))
        if not colon or not low or not high:
            raise ValueError(f"--bound {name}={ends!r}: must be NAME=LOW:HIGH, for example mem_bw=1TB/s:20TB/s")
        found[name] = (low, high)
    return found


def _read_slo(texts: list[str] | None) -> Any:
    from genz_jax import SLO
    from genz_jax.cli import cases

    if not texts:
        return None
    if texts == ["catalogue"]:
        return "catalogue"
    return SLO(**cases.read_limits(texts))


def _tree(result: "TuneResult") -> dict[str, Any]:
    """The result in base units."""
    from genz_jax.cli import show

    found = result.certificate
    return {
        "title": result.title,
        "objective": {"name": result.objective, "value": result.value, "unit": result.unit},
        "variables": {
            name: {"value": value, "unit": result.ranges[name][2]} for name, value in result.variables.items()
        },
        "limits": [_limit_record(held) for held in result.limits],
        "cost": {name: show.figure_json(*pair) for name, pair in result.cost.figures().items()},
        "workloads": {
            name: {figure: show.figure_json(*pair) for figure, pair in figures.figures().items()}
            for name, figures in result.results.items()
        },
        "certificate": {
            "exact": found.exact,
            "lower_bound": found.lower_bound,
            "grid": found.grid,
            "grid_points": found.grid_points,
            "gap": found.gap,
            "best_evaluations": found.best_evaluations,
            "evaluations": found.evaluations,
            "choices": found.choices,
            "tried": found.tried,
        },
    }


def _limit_record(held: "ActiveLimit") -> dict[str, Any]:
    return {
        "name": held.name,
        "value": held.value,
        "side": held.side,
        "limit": held.limit,
        "unit": held.unit,
        "active": held.active,
        "elasticity": held.elasticity,
        "worth_per_unit": held.worth,
    }
