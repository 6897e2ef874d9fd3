"""Table: measured times of operators and steps, as `genz-jax measure` writes them, read with every doubt refused."""

import csv
import dataclasses
import math
import os
from collections.abc import Sequence

from genz_jax.base.fields import near
from genz_jax.base.units import brief

COLUMNS = ("section", "name", "parameters", "us", "us_min", "watts")
"""Exactly these, in this order."""

SHORTEST, LONGEST = 0.1, 1e8
"""Microseconds between which a kernel's or a step's time makes sense: a tenth of a launch, 100 s."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        line: its line in the file, the header's being 1.
        section: what kind of thing was timed.
        name: which of them.
        parameters: its sizes and words by key.
        us: median time in µs; NaN where a table is only to be predicted.
        us_min: least time in µs.
        watts: mean power of the board; NaN where it was not measured.
    """

    line: int
    section: str
    name: str
    parameters: dict[str, str]
    us: float
    us_min: float
    watts: float

    def number(self, key: str) -> float:
        """A parameter that is a number above 0.

        Raises:
            ValueError: it is not there, or is none.
        """
        text = self.parameters.get(key)
        if text is None:
            raise ValueError(f"no {key} among {', '.join(self.parameters) or 'no parameters'}")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{key} = {brief(text)}: must be a number above 0")
        return value


def read_table(path: str | os.PathLike[str], measured: bool = True) -> list[Row]:
    """Read a table.

    Args:
        path: a CSV file with exactly the columns of `COLUMNS`.
        measured: the times are needed; else they are not looked at.

    Raises:
        ValueError: the file cannot be read or has other columns; a row of another length, without parameters of the
            form key=value, or with a time that is no number above 0 or none that a kernel can take. The message names
            the file, the line and the reason.
    """
    where = str(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"table {where!r}: cannot be read as CSV: {error}") from None
    if not lines:
        raise ValueError(f"table {where!r}: is empty; its first line must be {','.join(COLUMNS)}")
    _check_header(where, lines[0], measured)
    rows = [
        _row(where, number, dict(zip(lines[0], line, strict=False)), len(line) == len(lines[0]), measured)
        for number, line in enumerate(lines[1:], 2)
        if line
    ]
    if not rows:
        raise ValueError(f"table {where!r}: has no rows below its header")
    return rows


def _check_header(where: str, header: Sequence[str], measured: bool) -> None:
    needed = COLUMNS if measured else COLUMNS[:3]
    if missing := [name for name in needed if name not in header]:
        raise ValueError(f"table {where!r}: lacks the columns {', '.join(missing)}; needed are {','.join(COLUMNS)}")
    if measured and (more := [name for name in header if name not in COLUMNS]):
        raise ValueError(f"table {where!r}: has the unknown columns {', '.join(more)}; needed are {','.join(COLUMNS)}")
    if len(set(header)) < len(header):
        raise ValueError(f"table {where!r}: a column stands twice in {','.join(header)}")


def _row(where: str, number: int, values: dict[str, str], whole: bool, measured: bool) -> Row:
    def refuse(reason: str) -> ValueError:
        return ValueError(f"table {where!r}, line {number}: {reason}")

    if not whole:
        raise refuse(f"has {len(values)} values or a comma too many; needed are {','.join(COLUMNS)}")
    parameters = {}
    for pair in values["parameters"].split():
        key, equals, value = pair.partition("=")
        if not (key and equals and value):
            raise refuse(f"parameters {brief(values['parameters'])}: must be key=value, separated by spaces")
        if key in parameters:
            raise refuse(f"the parameter {key} stands twice")
        parameters[key] = value
    us = us_min = watts = math.nan
    if measured:
        us, us_min = (_time(values[name], name, refuse) for name in ("us", "us_min"))
        if us_min > us * 1.0001:
            raise refuse(f"us_min = {us_min:g} is above us = {us:g}")
        if values["watts"].strip():
            watts = _number(values["watts"], "watts", refuse)
    return Row(number, values["section"].strip(), values["name"].strip(), parameters, us, us_min, watts)


def _number(text: str, name: str, refuse) -> float:
    try:
        value = float(text)
    except ValueError:
        raise refuse(f"{name} = {brief(text)}: is no number") from None
    if not (math.isfinite(value) and value > 0):
        raise refuse(f"{name} = {text}: must be finite and above 0")
    return value


def _time(text: str, name: str, refuse) -> float:
    value = _number(text, name, refuse)
    if not SHORTEST <= value <= LONGEST:
        raise refuse(f"{name} = {text}: no kernel takes that many microseconds; are they seconds or milliseconds?")
    return value


def unknown(what: str, name: str, known: Sequence[str]) -> str:
    """The reason why a name is refused, with the nearest known ones."""
    return f"unknown {what} {brief(name)}{near(name, known)}"
