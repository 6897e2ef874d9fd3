"""Quantities of other packages (pint, astropy, unyt), by their values and units, without importing any of them."""

import re
from typing import Any

import numpy as np

from genz_jax.base import units

_LONG_PREFIXES = {"kilo": "k", "mega": "M", "giga": "G", "tera": "T", "peta": "P", "exa": "E", "milli": "m"}
_LONG_PREFIXES |= {"micro": "u", "nano": "n", "pico": "p", "kibi": "Ki", "mebi": "Mi", "gibi": "Gi", "tebi": "Ti"}
_LONG_UNITS = {"byte": "B", "bit": "b", "second": "s", "sec": "s", "watt": "W", "joule": "J", "flops": "FLOP"}
_ONE = ("", "1", "dimensionless")


def is_quantity(value: Any) -> bool:
    """Whether a value is a number with a unit of another package."""
    return _unit(value) is not None


def _unit(value: Any) -> Any:
    """The unit of a quantity, None if it is none."""
    unit = getattr(value, "units", None)
    if unit is not None and hasattr(value, "magnitude"):  # pint
        return unit
    if hasattr(value, "value") and hasattr(value, "unit") and hasattr(value.unit, "to_string"):  # astropy
        return value.unit
    if unit is not None and isinstance(value, np.ndarray) and hasattr(value, "to_value"):  # unyt
        return unit
    return None


def _numbers(value: Any) -> np.ndarray:
    plain = value.magnitude if hasattr(value, "magnitude") else value.value
    return np.asarray(plain, dtype=float)


def _spelt(unit: Any) -> str:
    """A unit as text, with short symbols where its package has them."""
    try:
        return format(unit, "~C")  # pint: TB/s
    except (TypeError, ValueError):
        return str(unit)


def _short(symbol: str) -> str:
    """The symbol of a unit in words: "terabyte" is TB."""
    for word, unit in _LONG_UNITS.items():
        prefix = symbol.removesuffix(word) if symbol.endswith(word) else None
        if prefix is not None and (prefix in _LONG_PREFIXES or len(prefix) <= 2):
            return _LONG_PREFIXES.get(prefix, prefix) + unit
    return symbol


def unit_of(text: str) -> tuple[float, str | None]:
    """Factor to base units and base unit of a unit as other packages write it, such as "TB/s", "Gbyte / s", "mm**2".

    Raises:
        ValueError: a unit that is not known here.
    """
    plain = text.strip().replace("**", "^").replace("·", "*")
    if plain in _ONE:
        return 1.0, None
    plain = re.sub(r"\s*([/*^])\s*", r"\1", plain)
    rate = re.fullmatch(r"(?:1\*)?([^/*\s]+)(?:/(?:s|sec|second)|[*\s](?:s|sec|second)\^?\(?-1(?:\.0)?\)?)", plain)
    symbol = (rate[1] if rate else plain).replace("^2", "2")
    if re.search(r"[/*\s^]", symbol):
        raise ValueError(f"the unit {text!r} is not known")
    factor, unit = units.parse_any(f"1 {_short(symbol)}{'/s' if rate else ''}")
    return factor, unit


def read(what: str, value: Any) -> tuple[np.ndarray, str | None]:
    """Values of a quantity in base units, and its base unit; None for one without dimension.

    Args:
        what: what the value is for, for the error.
        value: a quantity.

    Raises:
        ValueError: a unit that is not known here.
    """
    unit = _spelt(_unit(value))
    try:
        factor, base = unit_of(unit)
    except ValueError:
        kind = type(value).__module__.split(".")[0]
        raise ValueError(
            f"{what}: a quantity of {kind} in {unit!r}, a unit that is not known here; give text such as '4 TB/s'"
        ) from None
    return np.asarray(_numbers(value) * factor), base
