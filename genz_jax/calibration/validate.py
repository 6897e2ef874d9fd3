"""Validate: predictions for every row of a table, measured or not, and how far they are from measurements."""

import csv
import dataclasses
import io
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from genz_jax.base import files
from genz_jax.calibration import jobs, steps
from genz_jax.calibration.result import Error
from genz_jax.calibration.table import Row, read_table
from genz_jax.catalog import ideal_kernels, platform as find_platform
from genz_jax.catalog.kernel_files import KernelLibrary, read_library
from genz_jax.kernels import Form, Overlap
from genz_jax.specs import Platform

COLUMN = "predicted_us"
"""Name of the column that predictions have."""

PLAIN = 0.8
"""Share of all peak rates of the plain roofline that predictions are compared with."""


@dataclasses.dataclass(frozen=True)
class Validation:
    """Predictions of a table.

    Attributes:
        path: the table.
        rows: its rows.
        predicted: seconds of every row; NaN where no kernel fits.
        plain: the same of a roofline at 0.8 of all peak rates.
        measured: seconds as measured; NaN where the table has none.
    """

    path: str
    rows: list[Row]
    predicted: np.ndarray
    plain: np.ndarray
    measured: np.ndarray

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table's columns and rows in order, with the predicted µs behind them, empty where there is none.

        Raises:
            ValueError: the path does not end in .csv, or cannot be written.
        """
        with open(self.path, newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*lines[0], COLUMN])
        for line, seconds in zip(lines[1:], self.predicted, strict=True):
            writer.writerow([*line, f"{seconds * 1e6:.4f}" if np.isfinite(seconds) else ""])

        def write(fresh: str) -> None:
            with open(fresh, "w", newline="", encoding="utf-8") as file:
                file.write(text.getvalue())

        files.write(path, {".csv": write})

    @property
    def errors(self) -> dict[str, tuple[Error, Error]]:
        """Errors by kernel, of the predictions and of the plain roofline, on the same rows; where there are times."""
        kinds = [_kind(row) for row in self.rows]
        found: dict[str, tuple[Error, Error]] = {}
        for kind in dict.fromkeys(kinds):
            own = np.array([one == kind for one in kinds]) & np.isfinite(self.measured) & np.isfinite(self.predicted)
            if own.any():
                own_error, plain = (
                    Error.of(np.log(times[own] / self.measured[own])) for times in (self.predicted, self.plain)
                )
                found[kind] = own_error, plain
        return found

    @property
    def points(self) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """Kernel, measured and predicted seconds, for a figure."""
        kinds = np.array([_kind(row) for row in self.rows])
        known = np.isfinite(self.measured) & np.isfinite(self.predicted)
        return [
            (kind, self.measured[own], self.predicted[own])
            for kind in dict.fromkeys(kinds.tolist())
            if (own := (kinds == kind) & known).any()
        ]

    def markdown(self) -> str:
        """The errors as a table."""
        lines = ["| kernel | rows | error | median | bias | plain roofline × 0.8 |", "|---|---|---|---|---|---|"]
        for kind, (own, plain) in self.errors.items():
            lines.append(
                f"| {kind} | {own.rows} | {own.error:.1%} | {own.median:.1%} | {own.bias:.2f} | {plain.error:.1%} |"
            )
        left = int(np.isnan(self.predicted).sum())
        said = f"\n{left} of {len(self.rows)} rows have no prediction: no kernel fits them.\n" if left else "\n"
        return "\n".join(lines) + "\n" + said


def _kind(row: Row) -> str:
    if row.section in jobs.STEPS:
        return steps.kind_of(row)
    return jobs.kernel_of(row)


def validate(kind: str, table: str | os.PathLike[str], platform: str | os.PathLike[str]) -> Validation:
    """Predict every row of a table.

    The times of the table, if it has any, are read for the errors alone: predictions are the same without them.

    Args:
        kind: "operators" or "steps": of what the table's rows are.
        table: a CSV file with at least the columns section, name and parameters.
        platform: a platform file, or a platform's name, whose kernels are ideal.

    Raises:
        ValueError: another kind, a table or a platform file that cannot be read.
    """
    if kind not in ("operators", "steps"):
        raise ValueError(f"kind = {kind!r}: must be operators or steps")
    rows = read_table(table, measured=False)
    library = read_library(platform) if str(platform).endswith(".toml") else None
    device = find_platform(platform) if library is None else library.platform
    slow = device.ideal().replace(compute_efficiency=PLAIN, memory_efficiency=PLAIN, link_efficiency=PLAIN)
    run = _operators if kind == "operators" else _steps
    predicted, plain = run(rows, library, device), run(rows, None, slow)
    return Validation(str(table), rows, predicted, plain, _times(table, len(rows)))


def _times(table: str | os.PathLike[str], count: int) -> np.ndarray:
    try:
        return np.array([row.us for row in read_table(table)]) * 1e-6
    except ValueError:
        return np.full(count, np.nan)


def _operators(rows: Sequence[Row], library: KernelLibrary | None, device: Platform) -> np.ndarray:
    kernels = device.kernels or ideal_kernels(device)
    forms: Mapping[str, Form] = {} if library is None else library.forms
    found = np.full(len(rows), np.nan)
    for name in dict.fromkeys(jobs.kernel_of(row) for row in rows):
        own = [i for i, row in enumerate(rows) if jobs.kernel_of(row) == name]
        form = forms.get(name) or (Overlap() if library is None else None)
        if form is None or jobs.section_of(rows[own[0]]) is None:
            continue
        own = [i for i in own if _whole(rows[i])]
        if own:
            asked = jobs.asked_of([rows[i] for i in own], "")
            found[own] = _alone(form)(jobs.job(asked, rows[own[0]].name, device, kernels))
    return found


def _alone(form: Form) -> Callable[[jobs.Job], np.ndarray]:
    """The kernel as tables time it: products without the pass that quantises their input."""
    names = {"input_launch", "input_bytes"} & set(form.paths())
    bare = form.replace(**dict.fromkeys(names, 0.0))
    return lambda job: np.asarray(bare.seconds(job), float)


def _whole(row: Row) -> bool:
    """Whether a row has all that its section needs."""
    section = jobs.section_of(row)
    try:
        return section is not None and all(row.number(key) > 0 for key in section.keys)
    except ValueError:
        return False


def _steps(rows: Sequence[Row], library: KernelLibrary | None, device: Platform) -> np.ndarray:
    known = [i for i, row in enumerate(rows) if row.section in jobs.STEPS]
    some = [rows[i] for i in known]
    forms = {} if library is None else library.forms
    attention = {name.partition("/")[2]: f for name, f in forms.items() if name.startswith("prefill_attention/")}
    found = np.full(len(rows), np.nan)
    if some:
        found[known] = steps.seconds(some, steps.batches(some, "", strict=False), device, attention)
    return found
