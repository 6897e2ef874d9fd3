"""The command `estimate`: one point as tables or JSON."""

import math
import warnings
from typing import TYPE_CHECKING, Any

import typer

from genz_jax.cli import options as o, outputs
from genz_jax.cli.case_options import NAMED, case_options

if TYPE_CHECKING:
    from genz_jax import Fit
    from genz_jax.cli.cases import Asked
    from genz_jax.specs.figures import Result

EXAMPLES = """\b
Examples:
  genz-jax estimate -m llama-3.1-70b -p H100-SXM --tp 8 --precision fp8 \\
      --batch 32 --input 2048 --output 256
  genz-jax estimate -m mixtral-8x7b -p H100-SXM -w chat --tp 4 \\
      --set mem_bw="4 TB/s" --set power=500W --breakdown
  genz-jax estimate -m llama-3.1-8b -p H100-SXM --stage decode --operators
  genz-jax estimate -m llama-3.1-70b -p GB200 --precision fp8 \\
      --tp 8 --cp 4 --input 131072
  genz-jax estimate -m llama-3.1-8b -p H100-SXM \\
      --prefill 0:512 --decode 32:1024
  genz-jax estimate -m llama-3.1-70b -p H100-SXM --tp 4 --json \\
      --draft llama-3.2-1b --draft-tokens 5 --acceptance 0.7
  genz-jax estimate -m deepseek-v3 -p B200 --tp 8 --precision fp8 \
      --stage request --draft mtp --draft-tokens 1 --acceptance 0.85
  genz-jax estimate -m llama-3.1-70b -p H100-SXM --tp 8 --stage memory
"""
FITTED = ("request", "prefill", "decode", "memory")
"""Stages of which it is told what the memory holds."""
SIZES = ("tp", "ep", "cp", "pp", "dp")


@case_options(one=NAMED)
def estimate(
    asked: "Asked",
    breakdown: o.Breakdown = False,
    operators: o.Operators = False,
    json: o.Json = False,
) -> None:
    """Evaluate one point: latency, memory, energy, and what its KV cache holds.

    Ends with exit code 1 where the point does not run.
    """
    from genz_jax import estimate as evaluate
    from genz_jax.questions.sweep import ask

    ask(asked.stage, asked.assumptions, None, breakdown, operators)
    with outputs.waiting():
        result = asked.of_stage(evaluate, operators=operators)
        held = _fit(asked)
    (_print_json if json else _print_tables)(asked, result, held, breakdown, operators)
    if not bool(result.feasible):  # type: ignore[attr-defined]
        raise typer.Exit(1)


def _fit(asked: "Asked") -> "Fit | None":
    """What the memory holds; None for a stage of which it is not told."""
    from genz_jax import ContextWarning, fit

    if asked.stage not in FITTED or asked.case.speculation is not None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ContextWarning)  # told once is enough
        return asked.of_requests(fit)


def _devices(asked: "Asked") -> int:
    spread = asked.case.parallelism
    return round(math.prod(float(getattr(spread, name)) for name in SIZES))


def _stages(asked: "Asked", result: "Result") -> dict[str, Any]:
    """The forward passes of a result, by name."""
    inner = {name: getattr(result, name, None) for name in ("prefill", "decode")}
    return {name: part for name, part in inner.items() if part is not None} or {asked.stage: result}


def _print_json(asked: "Asked", result: "Result", held: "Fit | None", breakdown: bool, operators: bool) -> None:
    from genz_jax.base import units
    from genz_jax.cli import show
    from genz_jax.labelled import context_limit, labels
    from genz_jax.specs.assumptions import preset

    case, stages = asked.case, _stages(asked, result)
    figures = {name: pair for name, pair in labels.flat_figures(result).items() if not isinstance(pair[0], dict)}
    tree: dict[str, Any] = {
        "model": case.model.name,
        "platform": case.platform.name,
        "workload": case.workload.name or None,
        "precision": case.precision.name,
        "devices": _devices(asked),
        "stage": asked.stage,
        "assumptions": asked.assumptions,
        "kernels": labels.basis(case, preset(asked.assumptions)),
        "figures": {name: show.figure_json(*pair) for name, pair in figures.items()},
    }
    if result.idle and "compute_format" in tree["figures"]:
        tree["figures"]["compute_format"]["value"] = None
    if held is not None:
        tree["fit"] = _fit_json(held)
    if (beyond := context_limit.beyond(case, case.model.name, asked.stage)) is not None:
        tree["context_beyond_maximum"] = beyond
    if breakdown:
        tree["breakdown"] = {
            name: {part: {"value": float(time), "unit": units.SECOND} for part, time in stage.breakdown.items()}
            for name, stage in stages.items()
        }
    if operators:
        tree["operators"] = {
            name: {
                operator: {figure: show.figure_json(*pair) for figure, pair in found.figures().items()}
                for operator, found in stage.operators.items()
            }
            for name, stage in stages.items()
        }
    show.print_json(tree)


def _fit_json(held: "Fit") -> dict[str, Any]:
    """What fits, in base units."""
    names = ("capacity", "usable", "memory", "share", "kv_tokens", "concurrency", "largest_batch", "least_devices")
    spread = {} if held.least is None else {name: float(getattr(held.least, name) or 1) for name in SIZES}
    return {name: getattr(held, name) for name in names} | {"least": spread or None}


def _print_tables(asked: "Asked", result: "Result", held: "Fit | None", breakdown: bool, operators: bool) -> None:
    from genz_jax.cli import show
    from genz_jax.labelled import labels
    from genz_jax.specs.assumptions import preset
    from genz_jax.specs.reasons import REASONS, Reason

    show.line(_headline(asked), "bold")
    show.line(labels.basis(asked.case, preset(asked.assumptions)))
    show.line()
    rows = []
    for name, (value, meta) in result.figures().items():
        text = "–" if result.idle and name == "compute_format" else show.figure_text(value, meta)
        why = name == "reason" and text != Reason.feasible.name
        rows.append((name, text, REASONS[Reason[text]] if why else meta["long_name"]))
    show.table("", [("figure", "left"), ("value", "right"), ("meaning", "left")], rows)
    if held is not None:
        show.line()
        show.lines(str(held))
    stages = _stages(asked, result)
    if breakdown and bool(result.feasible):  # type: ignore[attr-defined]
        _print_breakdown(stages)
    if operators:
        for name, stage in stages.items():
            _print_operators(name, stage)


def _headline(asked: "Asked") -> str:
    """What is estimated, in one line."""
    case, spread, load = asked.case, asked.case.parallelism, asked.case.workload
    devices = _devices(asked)
    sizes = [f"{name} {float(getattr(spread, name)):g}" for name in SIZES]
    parts = [f"{case.model.name} on {devices} × {case.platform.name}", case.precision.name]
    if devices > 1:
        parts.append(", ".join(size for size in sizes if not size.endswith(" 1")))
    if asked.stage != "chunked":
        parts.append(f"batch {float(load.batch):g}")
        parts += [f"{float(load.beams):g} beams"] if float(load.beams) > 1 else []
        output = "" if asked.stage == "encode" else f" + {float(load.output_tokens):,.0f}"
        parts.append(f"{float(load.input_tokens):,.0f}{output} tokens")
    if case.speculation is not None:
        speculation = case.speculation
        drafts = "multi-token prediction" if speculation.draft is None else speculation.draft.name
        parts.append(f"draft {drafts}, {float(speculation.tokens):g} tokens")
    parts += [f"assumptions {asked.assumptions}"] if asked.assumptions != "default" else []
    return f"{asked.stage}: {'; '.join(parts)}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole > 0 else "–"


def _print_breakdown(stages: dict[str, Any]) -> None:
    from genz_jax.base import units
    from genz_jax.cli import show
    from genz_jax.work.operators.operator import COMPONENTS

    columns = [("component", "left")]
    for name in stages:
        columns += [(name, "right"), ("share", "right")]
    rows = []
    for component, meaning in COMPONENTS.items():
        times = [(float(s.breakdown[component]), float(sum(s.breakdown.values()))) for s in stages.values()]
        if any(time != 0 for time, _ in times):
            cells = [cell for time, all_ in times for cell in (show.quantity(time, units.SECOND), _share(time, all_))]
            rows.append((component, *cells, meaning))
    show.line()
    show.table("latency by component", [*columns, ("meaning", "left")], rows)


def _print_operators(name: str, stage: Any) -> None:
    from genz_jax.base import units
    from genz_jax.cli import show

    found = sorted(stage.operators.items(), key=lambda item: -float(item[1].latency))
    whole = sum(float(operator.latency) for _, operator in found)
    rows = []
    for operator, r in found:
        moved = float(r.input_bytes) + float(r.weight_bytes) + float(r.output_bytes) + float(r.message_bytes)
        if float(r.repeats) == 0:
            continue
        rows.append(
            (
                operator,
                f"{float(r.repeats):g}",
                show.quantity(float(r.flops), units.FLOP),
                show.quantity(moved, units.BYTE),
                show.quantity(float(r.latency), units.SECOND),
                _share(float(r.latency), whole),
                r.bound,
            )
        )
    headers = [(name, "right") for name in ("repeats", "FLOPs", "bytes", "time", "share")]
    show.line()
    show.table(f"operators of {name}, all repeats together", [("operator", "left"), *headers, ("bound", "left")], rows)
