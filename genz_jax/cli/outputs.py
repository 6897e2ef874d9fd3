"""Outputs: the files of a command, JSON or tables on stdout, and a sign of life while it computes."""

import contextlib
import dataclasses
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import xarray as xr

FILES = {".nc": "h5py", ".zarr": "zarr"}
"""Package that writes a file, by the ending of its name."""

PICTURES = (".png", ".pdf", ".svg")
_DELAY, _EVERY = 2.0, 0.5  # s


def out(what: str, endings: str = "FILE.nc or FILE.zarr") -> Any:
    """The option for the file that a command writes."""
    return typer.Option("--out", "-o", metavar="FILE", help=f"Write {what} to {endings}.")


def plot(what: str = "") -> Any:
    """The option for the figure that a command draws."""
    drawn = f"Draw {what} to" if what else "Draw to"
    return typer.Option("--plot", metavar="FILE", help=f"{drawn} FILE.png, FILE.pdf or FILE.svg.")


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What a command writes; made before any work, so that what cannot be written is told at once.

    Attributes:
        out: file of the Dataset, if any.
        plot: file of the figure, if any.
        json: print JSON in place of tables.

    Raises:
        ValueError: a file that cannot be written, or whose package is not there.
    """

    out: str | None
    plot: str | None
    json: bool

    def __post_init__(self) -> None:
        from genz_jax.base import files

        if self.out is not None:
            package = FILES[files.check_target(self.out, tuple(FILES)).suffix]
            if importlib.util.find_spec(package) is None:
                raise ValueError(
                    f"output {self.out!r}: needs the package {package}; install it with pip install {package}"
                )
        if self.plot is not None:
            files.check_target(self.plot, PICTURES)

    def finish(
        self,
        dataset: "xr.Dataset",
        draw: Callable[[str], Any],
        tree: Callable[[], dict[str, Any]],
        tables: Callable[[], None],
    ) -> None:
        """Write the files, then print.

        Args:
            dataset: what the file holds.
            draw: draws the figure to a path.
            tree: makes what JSON says.
            tables: prints the tables.
        """
        from genz_jax.base import files
        from genz_jax.cli import show

        with waiting("writing"):
            if self.out is not None:
                files.save(dataset, self.out)
            if self.plot is not None:
                draw(self.plot)
        if self.json:
            show.print_json(tree() | {"out": self.out, "plot": self.plot})
            return
        tables()
        for path in (self.out, self.plot):
            if path is not None:
                show.line(f"written: {path}")


def on_terminal() -> bool:
    """True where progress is shown: stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextlib.contextmanager
def waiting(what: str = "compiling and computing") -> Iterator[None]:
    """Show on a terminal what a command does and for how long, from two seconds on; the line goes away at the end.

    Compilation has no steps to count, so that a thread moves the clock; progress bars inside stand below the line.
    """
    if not on_terminal():
        yield
        return
    from tqdm import tqdm

    ended = threading.Event()
    with tqdm(desc=what, bar_format="{desc}, {elapsed}", delay=_DELAY, miniters=0, leave=False) as line:

        def move() -> None:
            while not ended.wait(_EVERY):
                line.update(0)

        thread = threading.Thread(target=move, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
