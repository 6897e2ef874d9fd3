"""Figures: numbers of a result, each with its unit and description."""

import dataclasses
import enum
from typing import Any, Literal

import equinox as eqx
import numpy as np

from genz_jax.base import field_help, units
from genz_jax.base.formats import Format
from genz_jax.base.html import html_table
from genz_jax.specs.reasons import REASONS, Reason


class Bound(enum.IntEnum):
    """The resource that a stage waits for most."""

    compute = 0
    memory = 1
    network = 2
    none = 3


BOUNDS = {
    Bound.compute: "matrix units",
    Bound.memory: "memory bandwidth",
    Bound.network: "links",
    Bound.none: "nothing, since the point does not run",
}


FORMAT_WORDS = {member: f"{member.name} arithmetic" for member in Format}


Better = Literal["min", "max"]
"""Which value of a figure is better: the smaller or the larger one."""


def figure(unit: str, long_name: str, better: Better | None = None, **options: Any) -> Any:
    """Declare a figure of a result.

    Args:
        unit: base unit.
        long_name: description.
        better: "min" where a smaller value is better, "max" where a larger one is, None where neither is.
        **options: those of `equinox.field`, such as `default`.
    """
    return eqx.field(metadata=figure_metadata(unit, long_name, better), **options)


def figure_metadata(unit: str, long_name: str, better: Better | None = None) -> dict[str, Any]:
    """Metadata of a figure; arguments as for `figure`."""
    return {"units": unit, "long_name": long_name, "better": better}


def code(enumeration: type[enum.IntEnum], long_name: str, **options: Any) -> Any:
    """Declare a coded figure: int8 values with the meanings of an enumeration."""
    return eqx.field(metadata={"units": units.ONE, "long_name": long_name, "codes": enumeration}, **options)


class Result(eqx.Module):
    """Base of results. The fields that people read as words hold codes; `words` tells them."""

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        cls.__doc__ = field_help.with_figures(cls)

    def words(self, name: str) -> Any:
        """Meaning of a coded field: a text for a single point, else an array of texts.

        Returns:
            None where the figure is not there.

        Raises:
            ValueError: the field has no codes.
        """
        field = next((f for f in dataclasses.fields(self) if f.name == name), None)
        if field is None or "codes" not in field.metadata:
            raise ValueError(f"{type(self).__name__} has no coded field {name!r}")
        if getattr(self, name) is None:
            return None
        meanings = np.array([member.name for member in field.metadata["codes"]])
        values = meanings[np.asarray(getattr(self, name), dtype=int)]
        return str(values) if values.ndim == 0 else values

    @property
    def bound(self) -> Any:
        """The resource that is waited for most: compute, memory or network."""
        return self.words("bound_code")

    @property
    def idle(self) -> bool:
        """Whether this is a single point that does not run, and so waits for nothing."""
        waits_for = getattr(self, "bound_code", None)
        return waits_for is not None and np.ndim(waits_for) == 0 and int(waits_for) == Bound.none

    @property
    def reason(self) -> Any:
        """Why there are no figures, or `feasible`."""
        return self.words("reason_code")

    def figures(self) -> dict[str, tuple[Any, dict[str, Any]]]:
        """Values and metadata of all figures that are there, by name."""
        found = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if "units" in field.metadata and value is not None:
                found[field.name.removesuffix("_code")] = (value, dict(field.metadata))
        return found

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return "\n".join(f"{name:<24} {text:>22}   {meaning}" for name, text, meaning in self._rows())

    def _repr_html_(self) -> str:
        return html_table(self._rows())

    def _rows(self) -> list[tuple[str, str, str]]:
        """What is printed of each figure: name, value and description."""
        rows = []
        for name, (value, meta) in self.figures().items():
            array = np.asarray(value)
            if array.ndim:
                text = f"array of shape {array.shape}"
            elif "codes" in meta:
                text = meta["codes"](int(array)).name
                if self.idle and meta["codes"] in (Bound, Format):
                    text = "–"
                if meta["codes"] is Reason and int(array):
                    text += f": {REASONS[Reason(int(array))]}"
            elif array.dtype == bool:
                text = "yes" if array else "no"
            else:
                text = units.show(float(array), meta["units"])
            rows.append((name, text, meta["long_name"]))
        return rows
