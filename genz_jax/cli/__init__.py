"""Command line of the package.

In: options. Out: tables, JSON, files and pictures. What a command needs is imported when it runs, so that help appears
at once; it never computes a figure itself.
"""

import contextlib
import importlib.metadata
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Annotated, Any

import typer
import typer.core

from genz_jax.cli.catalogue import models, platforms, workloads
from genz_jax.cli.cost import EXAMPLES as COST_EXAMPLES, cost
from genz_jax.cli.estimate import EXAMPLES as ESTIMATE_EXAMPLES, estimate
from genz_jax.cli.kernels.calibrate import EXAMPLES as CALIBRATE_EXAMPLES, calibrate
from genz_jax.cli.kernels.measure import EXAMPLES as MEASURE_EXAMPLES, measure
from genz_jax.cli.kernels.validate import EXAMPLES as VALIDATE_EXAMPLES, validate
from genz_jax.cli.parity import EXAMPLES as PARITY_EXAMPLES, parity
from genz_jax.cli.require import EXAMPLES as REQUIRE_EXAMPLES, require
from genz_jax.cli.search import EXAMPLES as SEARCH_EXAMPLES, search
from genz_jax.cli.sensitivity import EXAMPLES as SENSITIVITY_EXAMPLES, sensitivity
from genz_jax.cli.sweep import EXAMPLES as SWEEP_EXAMPLES, sweep
from genz_jax.cli.tune import EXAMPLES as TUNE_EXAMPLES, tune

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""Base of the errors of reading the command line."""


@contextlib.contextmanager
def _errors_as_one_line() -> Iterator[None]:
    """Turn what a person can mend into one line on stderr and exit code 2; other exceptions pass.

    What the system refuses to write to the standard output ends with exit code 1.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        if stop.args:
            typer.echo(f"stopped: {stop}", err=True)
        raise typer.Exit(130) from None
    except UsageError as error:
        message = error.format_message()  # type: ignore[attr-defined]
    except OSError as error:
        if error.filename is None:
            _no_output(error)
        message = f"{str(error.filename)!r}: {error.strerror or error}"
    except (ValueError, MemoryError) as error:
        message = str(error) or type(error).__name__
    else:
        return
    typer.echo(f"error: {_one_line(message)}", err=True)
    raise typer.Exit(2)


_SPELT = {
    "gz.models()": "genz-jax models",
    "gz.platforms()": "genz-jax platforms",
    "gz.workloads()": "genz-jax workloads",
    "gz.sweep": "genz-jax sweep",
    "gz.Speculation(gz.model(…))": "--draft MODEL",
    "stage='encode'": "--stage encode",
    " or a gz.Assumptions": "",
}
"""What messages of the library call by its name in Python: how it is said on the command line."""


def _one_line(message: str) -> str:
    """A message of the library in one line, in the words of the command line."""
    for python, command in _SPELT.items():
        message = message.replace(python, command)
    return " ".join(message.split())


def _no_output(error: OSError) -> None:
    """Say that the standard output cannot be written, and end.

    Raises:
        SystemExit: always.
    """
    # Python writes what is left when it ends, which must not fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    typer.echo(f"error: the standard output cannot be written ({error.strerror or error})", err=True)
    raise SystemExit(1)


class _Commands(typer.core.TyperGroup):
    """Commands whose errors are one line; without arguments they show their help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _errors_as_one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _errors_as_one_line():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Each command has examples: genz-jax COMMAND --help",
)


def _show_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"genz-jax {importlib.metadata.version('genz_jax')}")
        raise typer.Exit()
    return wanted


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Predict how fast LLMs serve on hardware platforms."""


app.command(epilog=ESTIMATE_EXAMPLES)(estimate)
app.command(epilog=SWEEP_EXAMPLES)(sweep)
app.command(epilog=SEARCH_EXAMPLES)(search)
app.command(epilog=REQUIRE_EXAMPLES)(require)
app.command(epilog=SENSITIVITY_EXAMPLES)(sensitivity)
app.command(epilog=TUNE_EXAMPLES)(tune)
app.command(epilog=COST_EXAMPLES)(cost)
app.command(epilog=MEASURE_EXAMPLES)(measure)
app.command(epilog=CALIBRATE_EXAMPLES)(calibrate)
app.command(epilog=VALIDATE_EXAMPLES)(validate)
app.command(epilog=PARITY_EXAMPLES)(parity)
app.command(epilog="\b\nExamples:\n  genz-jax models\n  genz-jax models 'llama-3*' --json")(models)
app.command(epilog="\b\nExamples:\n  genz-jax platforms\n  genz-jax platforms nvidia --json")(platforms)
app.command(epilog="\b\nExamples:\n  genz-jax workloads\n  genz-jax workloads chat --json")(workloads)


def run() -> None:
    """Run the command line as a process of its own: warnings are lines, and all of the output is written."""

    def show(message: Warning | str, *where: Any) -> None:
        typer.echo(f"warning: {_one_line(str(message))}", err=True)

    warnings.showwarning = show
    if sys.stdout is None:
        typer.echo("error: the standard output is closed", err=True)
        raise SystemExit(1)
    try:
        app()
    finally:
        try:
            sys.stdout.flush()
        except OSError as error:
            _no_output(error)
