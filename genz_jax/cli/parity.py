"""The command `parity`: a table of cases evaluated as the published analyser does, and compared with its outputs."""

import csv
import math
from typing import Annotated, Any

import typer

from genz_jax.cli import outputs

EXAMPLES = """\b
Examples:
  genz-jax parity cases.csv --models models.json --out predicted.csv
  genz-jax parity cases.csv --models models.json --rtol 1e-6
"""
TOLERANCES = {"float64": 1e-9, "float32": 1e-5}
COLUMNS = (
    "latency_ms",
    "throughput",
    "is_offload",
    "macs_M",
    "data_MiB",
    "weights_MiB",
    "unused_weights_MiB",
    "kv_cache_MiB",
    "attn_ms",
    "linear_ms",
    "comm_ms",
    "breakdown_Embedding_ms",
    "breakdown_MHA_ms",
    "breakdown_FFN_ms",
    "breakdown_Collective_ms",
    "breakdown_LA_layers_ms",
    "breakdown_QKVO_layers_ms",
    "breakdown_FFN_layers_ms",
    "breakdown_AR_time_ms",
    "breakdown_A2A_time_ms",
    "breakdown_Send_Recv_time_ms",
    "breakdown_Mamba_time_ms",
    "energy_kWh_at_1kW",
    "tokens_generated",
)
SHOWN = 20


def parity(
    cases: Annotated[str, typer.Argument(metavar="CASES", help="CSV file of cases, with or without their outputs.")],
    models: Annotated[str, typer.Option(metavar="FILE", help="JSON file of the dimensions of the cases' models.")],
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="Write predictions to FILE.csv.")
    ] = None,
    dtype: Annotated[
        str, typer.Option(metavar="TYPE", help="float64, float32, or both (predictions are those of float64).")
    ] = "float64",
    rtol: Annotated[
        str | None, typer.Option(metavar="R", help="Relative tolerance [default: 1e-9, for float32 1e-5].")
    ] = None,
) -> None:
    """Compare with the published analyser.

    Exit code 0: all figures agree; 1: some differ; 2: bad input.
    """
    import jax

    from genz_jax import parity as engine
    from genz_jax.base import files
    from genz_jax.cli import show

    if dtype not in (*TOLERANCES, "both"):
        raise ValueError(f"--dtype = {dtype!r}: must be float64, float32 or both")
    tolerances = TOLERANCES if rtol is None else dict.fromkeys(TOLERANCES, _read_tolerance(rtol))
    if out is not None:
        files.check_target(out, (".csv",))
    expected = "latency_ms" in engine.read_cases(cases)[0]
    predicted: list[dict[str, Any]] = []
    differ = False
    for name in TOLERANCES if dtype == "both" else (dtype,):
        with jax.enable_x64(name == "float64"), outputs.waiting():
            report, rows = engine.run(cases, models, tolerances[name])
        predicted = predicted or rows
        if not expected:
            show.line(f"{name}: {report.cases:,} cases predicted in {report.seconds:.3g} s; no outputs to compare with")
            continue
        show.line(
            f"{name}: {report.cases:,} cases, {report.figures:,} figures compared, worst relative difference "
            f"{report.worst:.2e}, tolerance {tolerances[name]:g}, {report.seconds:.3g} s"
        )
        if report.differences:
            differ = True
            _print_differences(report.differences)
    if out is not None:
        files.write(out, {".csv": lambda path: write_csv(path, predicted)})
    if differ:
        raise typer.Exit(1)


def _read_tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"--rtol = {text!r}: must be a number, finite and 0 or more")
    return value


def _print_differences(differences: list[Any]) -> None:
    from genz_jax.cli import show

    rows = [(d.case, d.column, d.expected, d.predicted, f"{d.relative:.2e}") for d in differences[:SHOWN]]
    headers = [("expected", "right"), ("predicted", "right"), ("relative", "right")]
    title = f"{len(differences):,} figures differ" if len(differences) > 1 else "1 figure differs"
    title += f"; the worst {SHOWN}" if len(differences) > SHOWN else ""
    show.table(title, [("case", "left"), ("column", "left"), *headers], rows)


def write_csv(path: str, rows: list[dict[str, Any]]) -> None:
    """Write predictions: id, error, then figures in the order of the reference table."""
    others = sorted({name for row in rows for name in row} - {"id", "error", *COLUMNS})
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["id", "error", *COLUMNS, *others], restval="")
        writer.writeheader()
        writer.writerows(rows)
