"""The table: a CSV file that grows row by row and can be gone on with after any end."""

import csv
import math
import os
from collections.abc import Mapping

from genz_jax.base import files

COLUMNS = ("section", "name", "parameters", "us", "us_min", "watts")
SECTIONS = ("gemm", "decode_attention", "prefill_attention", "experts", "memory", "decode", "prefill")
FOUND = {"decode": ("distinct",), "prefill": ("distinct",)}
"""Parameters that are known only when a case was timed, by section: they do not tell cases apart."""

Key = tuple[str, str, frozenset[str]]


def key(section: str, name: str, parameters: str) -> Key:
    """What tells a row from others."""
    left_out = FOUND.get(section, ())
    return section, name, frozenset(part for part in parameters.split() if part.partition("=")[0] not in left_out)


def text(parameters: Mapping[str, int | str]) -> str:
    """Parameters as they stand in the table."""
    return " ".join(f"{name}={value}" for name, value in parameters.items())


def check_place(path: str | os.PathLike, resume: bool) -> None:
    """Check, before any work, that a table can be begun or gone on with.

    Raises:
        ValueError: it cannot be written, or it is there already and is not to be gone on with.
    """
    if files.check_target(path, (".csv",)).exists() and not resume:
        raise ValueError(f"output {str(path)!r}: exists; go on with it by --resume, or choose another name")


class Table:
    """Rows in a CSV file, each on the disk as soon as it is added.

    Attributes:
        rows: how many there are.
        kept: how many of them were there before.
    """

    def __init__(self, path: str | os.PathLike, resume: bool = False) -> None:
        """Begin a table, or go on with one.

        Args:
            path: the file.
            resume: keep the rows that are there; a last line that was not finished is dropped.

        Raises:
            ValueError: it cannot be written, is there already, or is another table.
        """
        check_place(path, resume)
        try:
            whole = _whole_lines(path) if resume and os.path.exists(path) else b""
            rows = _read(whole, path)
            self._file = open(path, "a" if resume else "x", newline="", encoding="utf-8")
            self._file.truncate(len(whole))
        except OSError as error:
            raise ValueError(f"output {str(path)!r}: cannot be written ({error.strerror or error})") from error
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._known = set(rows)
        self.rows = self.kept = len(rows)
        if not whole:
            self._write(COLUMNS)

    def __contains__(self, row: Key) -> bool:
        return row in self._known

    def add(
        self,
        section: str,
        name: str,
        parameters: Mapping[str, int | str],
        times: tuple[float, float],
        watts: float | None = None,
    ) -> None:
        """Add a row.

        Args:
            section: what kind of thing was timed.
            name: which of its kind.
            parameters: its sizes and settings.
            times: median and least microseconds.
            watts: mean power of the board meanwhile, if known.
        """
        said = text(parameters)
        power = "" if watts is None else f"{watts:.1f}"
        self._write((section, name, said, f"{times[0]:.4f}", f"{times[1]:.4f}", power))
        self._known.add(key(section, name, said))
        self.rows += 1

    def _write(self, row: tuple[str, ...]) -> None:
        try:
            self._writer.writerow(row)
            self._file.flush()
        except OSError as error:
            raise ValueError(f"output {self._file.name!r}: cannot be written ({error.strerror or error})") from error

    def __enter__(self) -> "Table":
        return self

    def __exit__(self, *what: object) -> None:
        self._file.close()


def _whole_lines(path: str | os.PathLike) -> bytes:
    """What a file holds up to the end of its last finished line.

    Raises:
        ValueError: its only line, not finished, is no table's.
    """
    with open(path, "rb") as file:
        content = file.read()
    end = content.rfind(b"\n") + 1
    if not (end or ",".join(COLUMNS).encode().startswith(content)):
        raise ValueError(f"output {str(path)!r}: is no table; choose another name")
    return content[:end]


def _read(content: bytes, path: str | os.PathLike) -> list[Key]:
    """Rows of a table.

    Raises:
        ValueError: it is another table, or a line is no row.
    """
    if not content:
        return []
    shown = f"output {str(path)!r}"
    try:
        lines = list(csv.reader(content.decode("utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{shown}: is no CSV file ({error}); choose another name") from None
    if tuple(lines[0]) != COLUMNS:
        raise ValueError(f"{shown}: its columns are not {','.join(COLUMNS)}; choose another name")
    for number, line in enumerate(lines[1:], 2):
        if line and (len(line) != len(COLUMNS) or not all(map(_is_time, line[3:5]))):
            raise ValueError(f"{shown}: line {number} is no row of the table; remove it and go on")
    return [key(*line[:3]) for line in lines[1:] if line]


def _is_time(cell: str) -> bool:
    try:
        return math.isfinite(float(cell)) and float(cell) > 0
    except ValueError:
        return False
