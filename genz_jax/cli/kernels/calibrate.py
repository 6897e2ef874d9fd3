"""The command `calibrate`: constants of a device's kernels from measured tables."""

from typing import Annotated

import typer

from genz_jax.cli import options as o, outputs

EXAMPLES = """\b
Examples:
  genz-jax measure --out mine.csv
  genz-jax calibrate mine.csv -p H100-SXM -o mine.toml --plot mine.png
  genz-jax estimate -m llama-3.1-8b -p mine.toml --batch 32
"""


def calibrate(
    tables: Annotated[
        list[str], typer.Argument(metavar="TABLE...", help="CSV files of genz-jax measure, of operators and steps.")
    ],
    platform: o.OnePlatform,
    out: Annotated[str | None, outputs.out("the platform file", "FILE.toml")] = None,
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What estimates say they rest on [default: platform and tables].")
    ] = None,
    plot: Annotated[str | None, outputs.plot("predicted over measured times")] = None,
) -> None:
    """Fit the kernels of a device to its measured tables.

    Of each kernel several forms are fitted, and the one is kept that predicts rows best that it was not fitted on.
    What the tables do not determine keeps the platform's own value, which the file says.
    """
    from genz_jax.base import files
    from genz_jax.calibration import calibrate as fit

    if out is not None:
        files.check_target(out, (".toml",))
    if plot is not None:
        files.check_target(plot, (".png", ".pdf", ".svg"))
    found = fit(tables, platform, title=title)
    if out is not None:
        found.save(out)
    if plot is not None:
        found.plot(plot)
    typer.echo(str(found))
