"""Measurements of one GPU: single operators and whole decoder steps, timed with PyTorch, as a table.

In: a GPU, an amount of time. Out: a CSV file of `section,name,parameters,us,us_min,watts`, row by row.
It never knows models, platforms or predictions of this package: what is timed says nothing about what was expected.
"""

import importlib.util
import math
import os
import warnings
from collections.abc import Sequence

from genz_jax.measure.report import Report
from genz_jax.measure.table import SECTIONS, Table, check_place

SECONDS = 240.0


def measure(
    path: str | os.PathLike,
    seconds: float = SECONDS,
    resume: bool = False,
    sections: Sequence[str] = SECTIONS,
    device: str = "cuda",
    progress: bool = True,
) -> Report:
    """Time operators and decoder steps on a GPU and write a table of them.

    Args:
        path: the table, a CSV file.
        seconds: how long it may take; the case under way is finished.
        resume: go on with the table that is there, and time what it lacks.
        sections: what is timed; each has its share of the time.
        device: "cuda" or "cuda:N", which is also what PyTorch calls AMD's GPUs; "cpu" times tiny sizes, for tests.
        progress: show a bar on stderr.

    Returns:
        How many rows there are, and what was skipped and why.

    Raises:
        ValueError: the table cannot be written or is there already, no such section or time, PyTorch or a GPU is
            missing, or the GPU stopped working.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"seconds = {seconds}: must be more than 0 and finite")
    for name in sections:
        if name not in SECTIONS:
            raise ValueError(f"section {name!r}: must be one of {', '.join(SECTIONS)}")
    check_place(path, resume)
    if importlib.util.find_spec("torch") is None:
        raise ValueError("measuring needs PyTorch, which is not installed; pip install 'genz_jax[measure]'")
    try:
        with warnings.catch_warnings():
            # PyTorch looks for a package that reads NVIDIA's counters, of which an old one warns that it is old.
            warnings.filterwarnings("ignore", ".*pynvml", FutureWarning)
            from genz_jax.measure import device as devices, run
    except (ImportError, OSError) as error:
        raise ValueError(f"PyTorch cannot be imported ({error}); pip install --upgrade 'genz_jax[measure]'") from error

    found = devices.find(device)
    with Table(path, resume) as table:
        return run.run(table, found, sections, seconds, progress)
