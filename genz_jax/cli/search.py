"""The command `search`: every way to serve a model on a number of devices."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genz_jax.cli import options as o, outputs
from genz_jax.cli.case_options import case_options

if TYPE_CHECKING:
    from genz_jax.cli.cases import Asked
    from genz_jax.questions.search.result import SearchResult

EXAMPLES = """\b
Examples:
  genz-jax search -m llama-3.1-70b -p H100-SXM --chips 16 --precision fp8 \\
      --input 2048 --output 256 --slo tpot=20ms --slo ttft=1s
  genz-jax search -m mixtral-8x7b -p H100-SXM -w chat --chips 1:16 \\
      --slo tpot=10ms --cost 2.5 --objective cost_per_million_tokens
  genz-jax search -m llama-3.1-8b -p H200 --chips 8 --batch 8,64,512 \\
      --precision bf16,fp8 --plot front.png --json
  genz-jax search -m llama-3.1-8b -p H100-SXM --chips 8 --batch 16 \\
      --space genz --assumptions genz --stage decode

\b
Numbers: 8, a list 8,16,32, or a range 1:64 with both ends included
Limits: ttft, tpot and e2e at most, throughput and interactivity at least
"""
FIGURES = ("front", "size", "cost")


@case_options(one=("model", "platform", "workload"), stages=False)
def search(
    *,
    chips: Annotated[str, typer.Option(metavar="NUMBERS", help="Devices of the system, up to 4,096.")],
    asked: "Asked",
    precision: o.Precisions = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help="Requests at once, all replicas together [default: powers of two on each, and the most that fit and "
            "meet the limits].",
        ),
    ] = None,
    tp: Annotated[str | None, typer.Option(metavar="NUMBERS", help="Tensor parallel sizes [default: all].")] = None,
    ep: Annotated[str | None, typer.Option(metavar="NUMBERS", help="Expert parallel sizes [default: all].")] = None,
    pp: Annotated[str | None, typer.Option(metavar="NUMBERS", help="Pipeline parallel sizes [default: all].")] = None,
    dp: Annotated[str | None, typer.Option(metavar="NUMBERS", help="Data parallel replicas [default: all].")] = None,
    cp: Annotated[str, typer.Option(metavar="NUMBERS", help="Context parallel sizes; all for every one.")] = "1",
    micro_batches: Annotated[
        str | None, typer.Option(metavar="NUMBERS", help="Micro-batches of the pipeline [default: as many as stages].")
    ] = None,
    slo: o.Limits = None,
    objective: Annotated[
        str | None, typer.Option(metavar="FIGURE", help="What decides [default: throughput_per_device].")
    ] = None,
    cost: Annotated[
        float | None,
        typer.Option(
            metavar="USD", help="Price of a device for an hour [default: list price, else cost of ownership]."
        ),
    ] = None,
    stage: Annotated[str, typer.Option(metavar="NAME", help="request, prefill, decode or encode.")] = "request",
    space: Annotated[
        str, typer.Option(metavar="NAME", help="all, or genz for the candidates of the published analyser.")
    ] = "all",
    top: Annotated[int, typer.Option(metavar="N", help="Candidates to show.", min=1)] = 8,
    out: Annotated[str | None, outputs.out("all candidates")] = None,
    plot: Annotated[str | None, outputs.plot()] = None,
    plot_figure: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="front: throughput per device against interactivity; size: the best for each number of devices; "
            "cost: $ per million tokens against TPOT.",
        ),
    ] = "front",
    json: o.Json = False,
) -> None:
    """Find the best way to serve a model on a number of devices.

    Ends with exit code 1 where nothing runs or meets the limits.
    """
    from genz_jax import SLO, plots, search as look
    from genz_jax.cli import cases

    target = outputs.Outputs(out, plot, json)
    if plot_figure not in FIGURES:
        raise ValueError(f"--plot-figure = {plot_figure!r}: must be one of {', '.join(FIGURES)}")
    formats = cases.comma_list("--precision", precision)
    given = {"tp": tp, "ep": ep, "pp": pp, "dp": dp, "cp": cp, "micro_batches": micro_batches, "batch": batch}
    sizes = {name: read_sizes(name, text) for name, text in given.items()}
    start = time.perf_counter()
    with outputs.waiting():
        result: SearchResult = look(
            asked.case.model,
            asked.case.platform,
            asked.case.workload,
            chips=read_numbers("--chips", chips),
            precision=formats or asked.case.precision,
            **sizes,
            slo=SLO(**cases.read_limits(slo)) if slo else None,
            objective=objective,
            cost=cost,
            stage=stage,
            engine=asked.case.engine,
            assumptions=asked.assumptions,
            space=space,
            progress=outputs.on_terminal(),
        )
    seconds = time.perf_counter() - start
    drawer = {"front": plots.front, "size": plots.best_by_size, "cost": plots.cost_and_latency}[plot_figure]
    target.finish(
        result.dataset,
        draw=lambda path: drawer(result, path=path),
        tree=lambda: _summary(result, seconds, top),
        tables=lambda: _print(result, seconds, top),
    )
    if result.best is None:
        raise typer.Exit(1)


def read_sizes(name: str, text: str | None) -> list[int] | None:
    """Sizes to try; None for all of them, or for the default."""
    return None if text is None or (name, text) == ("cp", "all") else read_numbers(f"--{name.replace('_', '-')}", text)


def read_numbers(option: str, text: str) -> list[int]:
    """Whole numbers from `8`, `8,16,32` or `1:64`, or several of these with commas.

    Raises:
        ValueError: no such form.
    """
    found: list[int] = []
    for part in text.split(","):
        ends = part.strip().split(":")
        if len(ends) > 2 or not all(end.strip().isdigit() for end in ends):
            raise ValueError(f"{option} = {text!r}: must be whole numbers such as 8, 8,16,32 or 1:64")
        found += range(int(ends[0]), int(ends[-1]) + 1)
    return found


def _summary(result: "SearchResult", seconds: float, top: int) -> dict[str, Any]:
    """What was found, numbers in base units."""
    import numpy as np

    dataset = result.dataset
    closest, best = result.closest, result.best
    front = ("interactivity", "throughput_per_device")
    running = bool(np.any(dataset["feasible"].values)) and all(name in dataset for name in front)
    return {
        **{name: dataset.attrs[f"{name}_name"] for name in ("model", "platform", "workload", "precision")},
        "stage": dataset.attrs["stage"],
        "objective": result.objective,
        "cost": dataset.attrs.get("cost_source"),
        "seconds": seconds,
        "candidates": result.candidates,
        "feasible": int(dataset["feasible"].values.sum()),
        "meet_slo": int(dataset["meets_slo"].values.sum()),
        "excluded": result.excluded,
        "smallest": result.smallest,
        "smallest_for_slo": result.smallest_for_slo,
        "would_fit": result.would_fit,
        "best": [_point(dataset.isel(candidate=int(at))) for at in result.ranking[:top]],
        "closest": _point(closest) if best is None and closest is not None else None,
        "misses": _misses(result) if best is None and closest is not None else None,
        "front": _points(result.pareto(slo=best is not None)) if running else [],
    }


def _misses(result: "SearchResult") -> dict[str, Any]:
    """By how much the closest candidate misses each limit, in base units."""
    from genz_jax.questions.search.result import ranked

    _, (at,) = ranked(result, 1)
    return {name: {"value": value, "limit": limit} for name, (value, limit) in result.misses(int(at)).items()}


def _points(dataset: Any) -> list[dict[str, Any]]:
    return [_point(dataset.isel(candidate=at)) for at in range(dataset.sizes["candidate"])]


def _point(row: Any) -> dict[str, Any]:
    """A candidate: its sizes as numbers, its figures with their units."""
    from genz_jax.labelled import labels

    sizes = {str(name): coord.values.item() for name, coord in row.coords.items()}
    figures = {}
    for name, value in row.data_vars.items():
        plain = labels.words(value).values.item() if "flag_meanings" in value.attrs else value.values.item()
        figures[str(name)] = {"value": plain, "unit": value.attrs["units"]}
    return {"at": sizes, "figures": figures}


def _print(result: "SearchResult", seconds: float, top: int) -> None:
    from genz_jax.cli import show
    from genz_jax.questions.search.result import ranked, summary, table

    first, *rest = summary(result)
    show.line(first, "bold")
    for text in rest:
        show.line(text)
    show.line(f"{seconds:.3g} s with compilation")
    title, places = ranked(result, top)
    if len(places):
        headers, rows = table(result, places)
        show.line()
        show.table(title, [(header, "right") for header in headers], rows)
