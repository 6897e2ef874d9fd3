"""What every study's command line does: compute a dataset, draw it, write both.

A study is a file of this folder with `compute(smoke) -> xarray.Dataset`, `plot(dataset) -> Figure` and a `main()` that
calls `run`. `python studies/NAME.py` writes `NAME.nc` and `NAME.png`; the dataset alone suffices to draw the figure
again.
"""

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

import genz_jax as gz
from genz_jax import plots

FOLDER = Path(__file__).parent
DATA = FOLDER / "data"
"""Tables that studies compare with; each says its source in its first lines, which begin with `#`."""


def run(
    file: str,
    compute: Callable[[bool], xr.Dataset],
    plot: Callable[[xr.Dataset], Figure],
    arguments: list[str] | None = None,
) -> xr.Dataset:
    """Run a study as a command: `[--smoke] [--out DIR]`.

    Args:
        file: the study's `__file__`, whose name names the outputs.
        compute: makes the dataset; its argument is true for a small one in seconds.
        plot: draws the dataset.
        arguments: the command line; by default that of the process.

    Returns:
        The dataset.
    """
    name = Path(file).stem
    parser = argparse.ArgumentParser(description=f"Study {name}: computes {name}.nc and draws {name}.png.")
    parser.add_argument("--smoke", action="store_true", help="a small version, in seconds")
    parser.add_argument("--out", type=Path, default=FOLDER / "out", help="folder to write to (default: studies/out)")
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    dataset = compute(asked.smoke)
    seconds = time.perf_counter() - start
    gz.save(dataset, asked.out / f"{name}.nc")
    plots.save(plot(dataset), str(asked.out / f"{name}.png"))
    print(f"{name}: computed in {seconds:.1f} s; written: {asked.out / name}.nc, {asked.out / name}.png")
    return dataset


def table(file: str) -> list[dict[str, str]]:
    """Rows of a table in `DATA`, without the comment lines that name its source."""
    with (DATA / file).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(line for line in lines if not line.startswith("#")))
