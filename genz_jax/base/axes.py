"""Axes: values that stand where a single number would, and so become a dimension of the result."""

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genz_jax.base import quantities, units

MOST = 10**7
"""Values of an axis at most: 80 MB. A grid has as many points as its axes multiply to."""


class Axis:
    """Values of one parameter along one or more named dimensions.

    An axis may stand for any number of any spec. Axes with the same dimension are zipped, others are crossed.

    Attributes:
        values: the values in base units, one array dimension per name in `dims`.
        dims: names of the dimensions; None for that of the field that the axis is put in.
        unit: base unit of the values if they were given as text with units, else None.
        coords: labels along the dimensions, by dimension name.
        listed: the values are one number of a list of specs, which has labels of its own.
        attrs: attributes of the labels, by dimension name.
    """

    def __init__(
        self,
        values: Any,
        dims: Sequence[str] | None,
        unit: str | None = None,
        coords: Any = None,
        listed: bool = False,
        attrs: Any = None,
    ):
        _check_length(np.shape(values))
        self.values = np.asarray(values, dtype=float)
        self.listed = listed
        self.attrs: dict[str, dict[str, Any]] = dict(attrs or {})
        self.dims = tuple(dims) if dims is not None else None
        self.unit = unit
        self.coords: dict[str, np.ndarray] = dict(coords or {})
        if self.values.size == 0:
            raise ValueError(f"axis{f' {self.dims}' if self.dims else ''}: no values; an axis needs at least one")
        if self.dims is not None and self.values.ndim != len(self.dims):
            raise ValueError(f"axis {self.dims}: values have {self.values.ndim} dimensions, names {len(self.dims)}")

    def named(self, name: str) -> "Axis":
        """This axis with dimension `name` if it has none yet."""
        return self if self.dims is not None else Axis(self.values, (name,), self.unit, self.coords)

    def __len__(self) -> int:
        return self.values.shape[0]

    def __repr__(self) -> str:
        shown = np.array2string(self.values, threshold=6, edgeitems=2, precision=4)
        return f"Axis({', '.join(self.dims or ('?',))}: {shown})"


def _check_length(shape: tuple[Any, ...]) -> None:
    """Raise ValueError if an axis would be too long, before there are values."""
    longest = max(shape, default=0)
    if longest > MOST:
        raise ValueError(
            f"axis: {longest:,} values; at most {MOST:,} make sense, for a grid crosses its axes: give fewer values, "
            "or cross several axes"
        )


def _read(values: Sequence[Any]) -> tuple[list[float], str | None]:
    """Numbers or texts with units → values in base units, and the unit they share (None if they carry none)."""
    found_numbers: list[float] = []
    found: set[str | None] = set()
    for value in values:
        try:
            number, unit = _one(value)
        except (TypeError, OverflowError):
            raise ValueError(f"axis: {value!r} is not a number; give numbers, or texts with units") from None
        found_numbers.append(number)
        if unit or number:  # 0 needs no unit
            found.add(unit)
    if len(found) > 1:
        shown = ", ".join(sorted(str(unit or "none") for unit in found))
        raise ValueError(f"axis: values in different units ({shown}); give all of them in one")
    return found_numbers, found.pop() if found else None


def _one(value: Any) -> tuple[float, str | None]:
    if isinstance(value, str):
        return units.parse_any(value)
    if quantities.is_quantity(value):
        number, unit = quantities.read("axis", value)
        return float(number), unit
    return float(value), None


def axis(values: Any, dim: str | None = None) -> Axis:
    """Make an axis of given values.

    Args:
        values: numbers, texts with units such as `["1 TB/s", "2 TB/s"]`, or quantities of pint, astropy or unyt.
        dim: name of the dimension; by default the name of the field that the axis is put in. Axes of the same
            dimension are zipped.

    Returns:
        The axis.

    Raises:
        ValueError: no values, or values in different units.

    Example:
        >>> import genz_jax as gz
        >>> gz.sweep("llama-3.1-8b", "H100-SXM", gz.Workload(batch=gz.axis([1, 8, 64]))).tpot.sizes["batch"]
        3
    """
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise ValueError(f"axis: {values!r} is not a list of values; write e.g. gz.axis([1, 2, 4])")
    if quantities.is_quantity(values):
        read, unit = quantities.read("axis", values)
        return axis(read, dim) if unit is None else Axis(axis(read).values, (dim,) if dim else None, unit)
    _check_length(values.shape if isinstance(values, np.ndarray) else (len(values),))
    of_quantities = len(values) > 0 and not hasattr(values, "ndim") and quantities.is_quantity(next(iter(values)))
    if not of_quantities and np.ndim(values) > 1:
        raise ValueError("axis: the values have more than one dimension; use an xarray.DataArray with named dimensions")
    if isinstance(values, np.ndarray) and np.issubdtype(values.dtype, np.number):
        return Axis(values, (dim,) if dim else None)
    numbers, unit = _read(list(values))
    return Axis(numbers, (dim,) if dim else None, unit)


def _spaced(function: Any, start: Any, stop: Any, num: int, dim: str | None) -> Axis:
    if not isinstance(num, numbers.Real) or not num >= 1 or (num <= MOST and num != int(num)):
        raise ValueError(f"axis: num = {num!r} values; a whole number of at least 1 is needed")
    _check_length((num,))
    (low, high), unit = _read([start, stop])
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"axis: from {start!r} to {stop!r}; both ends must be finite")
    if function is np.geomspace and not (low > 0 and high > 0):
        raise ValueError(f"geomspace: from {start!r} to {stop!r}; both ends must be above 0, use linspace instead")
    return Axis(function(low, high, int(num)), (dim,) if dim else None, unit)


def linspace(start: Any, stop: Any, num: int, dim: str | None = None) -> Axis:
    """Make an axis of `num` evenly spaced values from `start` to `stop`, both included.

    Args:
        start: first value, a number or a text with a unit.
        stop: last value, likewise.
        num: how many values.
        dim: name of the dimension, as for `axis`.

    Raises:
        ValueError: `num` below 1, or ends in different units.

    Example:
        >>> import genz_jax as gz
        >>> gz.linspace("1 TB/s", "3 TB/s", 3).values / 1e12
        array([1., 2., 3.])
    """
    return _spaced(np.linspace, start, stop, num, dim)


def geomspace(start: Any, stop: Any, num: int, dim: str | None = None) -> Axis:
    """Make an axis of `num` values from `start` to `stop`, both included, evenly spaced on a log scale.

    Args:
        start: first value, a number or a text with a unit.
        stop: last value, likewise.
        num: how many values.
        dim: name of the dimension, as for `axis`.

    Raises:
        ValueError: `num` below 1, ends in different units, or an end that is not above 0.

    Example:
        >>> import genz_jax as gz
        >>> gz.geomspace("1 TB/s", "100 TB/s", 3).values / 1e12
        array([  1.,  10., 100.])
    """
    return _spaced(np.geomspace, start, stop, num, dim)


def from_labelled(array: Any) -> Axis:
    """Make an axis of a labelled array (an `xarray.DataArray`), which keeps its dimensions and their labels.

    Args:
        array: anything with `values`, `dims` and `coords` as an `xarray.DataArray` has them; `attrs["units"]`, if
            there, is taken as the unit of the values.

    Raises:
        ValueError: the units are unknown, or the array has no dimension.
    """
    unit = None
    _check_length(tuple(getattr(array, "shape", ())))
    if not array.dims:
        raise ValueError("axis: a labelled array without a dimension is a single number; give float(array)")
    if quantities.is_quantity(getattr(array, "data", None)):
        values, unit = quantities.read("axis", array.data)
    else:
        values = np.asarray(array.values, dtype=float)
        if (text := array.attrs.get("units")) is not None:
            factor, unit = quantities.unit_of(str(text))
            values = values * factor
    coords: Mapping[str, np.ndarray] = {d: np.asarray(array.coords[d].values) for d in array.dims if d in array.coords}
    attrs = {d: dict(array.coords[d].attrs) for d in coords}
    return Axis(values, array.dims, unit, coords, attrs=attrs)


def is_labelled(value: Any) -> bool:
    """True for an `xarray.DataArray` (by its attributes, so that xarray need not be imported here)."""
    return hasattr(value, "dims") and hasattr(value, "coords") and hasattr(type(value), "values")
