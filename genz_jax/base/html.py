"""HTML: what `print` shows, as a table for notebooks."""

import html
import re
from collections.abc import Sequence


def html_table(shown: str | Sequence[Sequence[str]]) -> str:
    """A `<table>` of escaped text, spaces at the start of a cell kept.

    Args:
        shown: rows of cells, or lines of text whose columns are apart by two spaces or more. The last cell of a row
            that is shorter than others spans the rest.
    """
    if isinstance(shown, str):
        shown = [re.split(r"(?<=\S) {2,}", line.rstrip()) for line in shown.splitlines()]
    width = max((len(row) for row in shown), default=0)
    lines = [f"<tr>{_cells(row, width)}</tr>" for row in shown]
    return "\n".join(["<table>", *lines, "</table>"])


def _cells(row: Sequence[str], width: int) -> str:
    spans = [1] * (len(row) - 1) + [width - len(row) + 1]
    return "".join(
        f'<td colspan="{span}" style="text-align: left; white-space: pre">{html.escape(cell)}</td>'
        for cell, span in zip(row, spans, strict=True)
    )
