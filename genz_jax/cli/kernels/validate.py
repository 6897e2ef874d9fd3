"""The command `validate`: predictions for every row of a table, and how far they are from what was measured."""

from pathlib import Path
from typing import Annotated

import typer

from genz_jax.cli import options as o, outputs

EXAMPLES = """\b
Examples:
  genz-jax validate operators mine.csv -p mine.toml --out predicted.csv
  genz-jax validate steps steps.csv -p mine.toml --report steps.md --plot steps.png
"""


def validate(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="operators or steps: of what the table's rows are.")],
    table: Annotated[str, typer.Argument(metavar="TABLE", help="CSV file; its measured columns may be missing.")],
    platform: o.OnePlatform,
    out: Annotated[str | None, outputs.out("the table with the column predicted_us", "FILE.csv")] = None,
    report: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the errors as a Markdown table to FILE.md.")
    ] = None,
    plot: Annotated[str | None, outputs.plot("predicted over measured times")] = None,
) -> None:
    """Predict every row of a table of operators or whole steps.

    A row of steps is one forward pass at exactly its context, whatever its size. Rows that no kernel fits stay empty.
    """
    from genz_jax.base import files
    from genz_jax.calibration.validate import validate as predict
    from genz_jax.plots import predicted

    for path, endings in ((out, (".csv",)), (report, (".md",)), (plot, (".png", ".pdf", ".svg"))):
        if path is not None:
            files.check_target(path, endings)
    with outputs.waiting():
        found = predict(kind, table, platform)
    if out is not None:
        found.save(out)
    errors = found.errors
    if report is not None:
        files.write(report, {".md": lambda fresh: Path(fresh).write_text(found.markdown(), encoding="utf-8")})
    if plot is not None and errors:
        predicted(found.points, {name: own for name, (own, _) in errors.items()}, platform, plot)
    typer.echo(found.markdown() if errors else f"{len(found.rows)} rows predicted; none has a measured time")
