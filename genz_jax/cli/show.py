"""Show: figures as text, tables and JSON on stdout."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from genz_jax.base import units

_WIDE = 1000
_GAP = 3
_NARROWEST = 24


class _Console(Console):
    """A console that raises an error where nobody reads what it writes."""

    def on_broken_pipe(self) -> None:
        raise


def console() -> Console:
    """A console on stdout that wraps lines at a terminal only."""
    return _Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False, markup=False, emoji=False)


def table(title: str, columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; where a terminal is too narrow, the last column wraps if it is one of text.

    Args:
        title: printed above it; empty for none.
        columns: header and alignment ("left" or "right") of each column.
        rows: cells as text.
    """
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    rows = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, [header for header, _ in columns], strict=True)]
    wraps = columns[-1][1] != "right"
    for header, justify in columns:
        made.add_column(header, justify="right" if justify == "right" else "left", no_wrap=True)
    if wraps:
        made.columns[-1].no_wrap = False
        widths[-1] = min(widths[-1], _NARROWEST)
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    out = console()
    out.width = max(out.width, sum(widths) + _GAP * (len(widths) - 1))
    if title:
        out.print(Text(title, style="bold"))
    out.print(made)


def line(text: str = "", style: str = "") -> None:
    """Print a line."""
    console().print(Text(text, style=style))


def lines(text: str) -> None:
    """Print lines."""
    for each in text.splitlines():
        line(each)


def quantity(value: float, unit: str) -> str:
    """A value in base units as short text; a dash for none."""
    return "–" if np.isnan(value) else units.show(value, unit)


def figure_text(value: Any, meta: dict[str, Any]) -> str:
    """A figure as people read it: the word of a code, yes or no, a number with its unit, or a dash for none."""
    value = np.asarray(value)
    if "codes" in meta:
        word = meta["codes"](int(value)).name
        return "–" if word == "none" else word
    if value.dtype == bool:
        return "yes" if value else "no"
    return quantity(float(value), meta["units"])


def figure_json(value: Any, meta: dict[str, Any]) -> dict[str, Any]:
    """A figure as value in base units and unit."""
    value = np.asarray(value)
    plain = meta["codes"](int(value)).name if "codes" in meta else value.item()
    return {"value": plain, "unit": meta["units"]}


def place(array: Any) -> dict[str, dict[str, Any]]:
    """Where a point of a Dataset is: value in base units and unit of its coordinates."""
    return {
        str(name): {"value": coord.values.item(), "unit": coord.attrs.get("units")}
        for name, coord in array.coords.items()
        if coord.ndim == 0
    }


def coordinate(coord: Mapping[str, Any]) -> str:
    """One coordinate of a `place` as text."""
    value = coord["value"]
    return value if isinstance(value, str) else units.show(value, coord["unit"] or units.ONE)


def print_json(tree: Any) -> None:
    """Print JSON in which numbers that are not finite are null."""

    def clean(item: Any) -> Any:
        if isinstance(item, dict):
            return {str(key): clean(value) for key, value in item.items()}
        if isinstance(item, list | tuple):
            return [clean(value) for value in item]
        if isinstance(item, np.generic):
            item = item.item()
        return None if isinstance(item, float) and not np.isfinite(item) else item

    sys.stdout.write(json.dumps(clean(tree), indent=2, allow_nan=False) + "\n")
