"""Result: what a calibration found, with intervals and errors."""

import dataclasses
import os
from typing import TYPE_CHECKING

import numpy as np

from genz_jax.calibration.fit import Fit, geometric
from genz_jax.catalog.kernel_files import KernelLibrary
from genz_jax.specs import Platform

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EIGHTY = 1.2816
"""Standard errors on both sides that hold a constant with a probability of 80 %."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A fitted constant.

    Attributes:
        value: in base units.
        low: with `high` the interval that holds it with 80 %.
        high: see `low`; infinite where the rows do not determine it.
        determined: whether the rows determine it; else the value is what was known before.
    """

    value: float
    low: float
    high: float
    determined: bool

    @classmethod
    def of(cls, found: Fit) -> "dict[str, Parameter]":
        """Those of a fit, by name."""
        said = {}
        for name, value in found.values.items():
            factor = float(np.exp(min(EIGHTY * found.errors[name], 300.0)))
            said[name] = cls(value, value / factor, value * factor, found.determined[name])
        return said


@dataclasses.dataclass(frozen=True)
class Error:
    """How far predictions are from measurements: exp(mean |ln|) − 1, their median, their bias and how many.

    Of operators each row is predicted from folds without it; of steps with all constants.
    """

    rows: int
    error: float
    median: float
    bias: float

    @classmethod
    def of(cls, logarithms: np.ndarray) -> "Error":
        """Those of ln(predicted/measured)."""
        middle = float(np.median(np.abs(np.expm1(logarithms))))
        return cls(logarithms.size, geometric(logarithms), middle, float(np.exp(logarithms.mean())))


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Kernels of a device as its tables have them.

    Attributes:
        library: forms, by kernel, with the platform.
        parameters: constants by form and name, with intervals.
        errors: errors by kernel, of operators held out; of steps by section, model and format.
        points: kernel, measured and predicted seconds of every row, for `plot`.
    """

    library: KernelLibrary
    parameters: dict[str, dict[str, Parameter]]
    errors: dict[str, Error]
    points: list[tuple[str, np.ndarray, np.ndarray]]

    @property
    def platform(self) -> Platform:
        """The device with its kernels, for every verb."""
        return self.library.platform

    @property
    def undetermined(self) -> list[str]:
        """Constants that the tables do not determine, and that have the values that were known before."""
        return [
            f"{kernel}.{name}"
            for kernel, constants in self.parameters.items()
            for name, parameter in constants.items()
            if not parameter.determined
        ]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a platform file, which stands wherever a platform's name does.

        Raises:
            ValueError: the path does not end in .toml, or cannot be written.
        """
        self.library.save(path)

    def plot(self, path: str | None = None) -> "Figure":
        """Draw predicted over measured times, a panel for each section.

        Args:
            path: file to write (.png, .pdf or .svg); by default none.
        """
        from genz_jax.plots.calibration import predicted

        return predicted(self.points, self.errors, self.library.title, path)

    def __str__(self) -> str:
        wide = max(len(name) for name in self.errors)
        lines = [f"Calibration {self.library.title}", "", f"{'kernel':<{wide}}   rows   error   median   bias"]
        lines += [
            f"{name:<{wide}} {e.rows:6} {e.error:7.1%} {e.median:8.1%} {e.bias:6.2f}" for name, e in self.errors.items()
        ]
        if few := self.library.notes.get("too_few_rows"):
            lines += ["", f"too few rows, left as known before: {', '.join(few)}"]
        if self.undetermined:
            lines += ["", f"not determined by these tables: {', '.join(self.undetermined)}"]
        return "\n".join(lines)
