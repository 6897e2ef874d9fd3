"""The command `measure`: times of operators and of decoder steps on a GPU of one's own, as a table."""

import math
from typing import Annotated

import typer

from genz_jax.cli import options as o, outputs

EXAMPLES = """\b
Examples:
  genz-jax measure --out my.csv
  genz-jax measure --out my.csv --resume --seconds 600
  genz-jax measure --out products.csv --only gemm,experts --device cuda:1
"""


def measure(
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="Write the table to FILE.csv, row by row.")],
    seconds: Annotated[
        str, typer.Option(metavar="S", help="Time that it may take; the case under way is finished.")
    ] = "240",
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the rows of FILE.csv and time what it lacks, on the same GPU.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="SECTIONS",
            help="Some of gemm, decode_attention, prefill_attention, experts, memory, decode, prefill [default: all].",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="cuda or cuda:N, for AMD's GPUs too; cpu times tiny sizes, for tests.")
    ] = "cuda",
    json: o.Json = False,
) -> None:
    """Time operators and decoder steps on this machine's GPU.

    Needs PyTorch: pip install 'genz_jax[measure]'. Cases come in a fixed random order, so that a table cut short is a
    sample of all; what could not be timed is said on stderr.
    """
    from genz_jax import measure as engine
    from genz_jax.cli import cases, show

    sections = engine.SECTIONS if only is None else cases.comma_list("--only", [only])
    report = engine.measure(out, _read_seconds(seconds), resume, sections, device, outputs.on_terminal())
    for line in report.lines():
        typer.echo(line, err=True)
    if json:
        counts = {"rows": report.rows, "added": report.added}
        show.print_json({"device": report.device, **counts, "not_timed": report.lines(), "out": out})
        return
    show.line(f"{report.device}: {report.added:,} rows timed, {report.rows:,} in the table")
    show.line(f"written: {out}")


def _read_seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"--seconds = {text!r}: must be a number of seconds, more than 0 and finite")
    return value
