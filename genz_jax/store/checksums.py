"""Checksums: whether what a store says that it holds is there, byte for byte.

Metadata and coordinates never change: the attributes of `done` hold a hash of each such file, and one of themselves.
Figures appear chunk by chunk, and every chunk ends in the CRC-32C of its bytes, which is Zarr's codec `crc32c`.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

DONE = "done"
"""Name of the variable that says which regions are written."""

RECORD = f"{DONE}/zarr.json"
"""The file that says what the store holds."""

SHOWN = 3
"""Files that a message names at most."""

_KEYS = {"fingerprint", "parameters", "regions", "chunks", "figures", "created", "files", "checksum"}


def seal(path: Path) -> None:
    """Note the hashes of all files of a new store in the attributes of `done`."""
    record = path / RECORD
    found = json.loads(record.read_text(encoding="utf-8"))
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file() and file != record)
    found["attributes"]["files"] = json.dumps({name: _hash(path / name) for name in names})
    found["attributes"]["checksum"] = _digest(found)
    record.write_text(json.dumps(found, indent=2), encoding="utf-8")


def read_record(path: Path) -> dict[str, str]:
    """What a store says about itself.

    Raises:
        ValueError: it is not there, no store of a sweep, or its record is damaged.
    """
    if not path.is_dir():
        raise ValueError(f"store = {str(path)!r}: is not there; it must be in a place that all workers see")
    try:
        found: Any = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        found = None
    except OSError as error:
        raise ValueError(f"store = {str(path)!r}: {RECORD!r} cannot be read ({error.strerror})") from error
    except ValueError:
        found = {"attributes": dict.fromkeys(_KEYS, "")}  # not text, or not JSON
    attributes = found.get("attributes") if isinstance(found, dict) else None
    if not isinstance(attributes, dict) or not _KEYS <= set(attributes):
        raise ValueError(
            f"store = {str(path)!r}: is there, but was not begun by a sweep with store=… ({RECORD!r} does not say so); "
            "nothing was changed. Choose another name, or remove it"
        )
    if attributes["checksum"] != _digest(found):
        raise ValueError(
            f"store = {str(path)!r}: {RECORD!r}, which says what it holds, is damaged; nothing was changed. Put that "
            "file back from a copy, or remove the store and make it again"
        )
    return attributes


def damaged_files(path: Path, record: Mapping[str, str]) -> list[str]:
    """Files of metadata and coordinates that are lost or not as they were written."""
    found = []
    for name, known in json.loads(record["files"]).items():
        try:
            whole = _hash(path / name) == known
        except OSError:
            whole = False
        found += [] if whole else [name]
    return found


def done(path: Path, record: Mapping[str, str]) -> tuple[list[int], list[str]]:
    """Numbers of the regions that are marked as written, and the marks that cannot be read."""
    count, marked, bad = regions(record), [], []
    try:
        names = [entry.name for entry in os.scandir(path / DONE / "c")]
    except OSError:
        names = []  # none is written yet
    for number in sorted(int(name) for name in names if name.isascii() and name.isdigit()):
        if number < count:
            (marked if is_done(path, number) else bad).append(number)
    return marked, [f"{DONE}/c/{number}" for number in bad]


def is_done(path: Path, number: int) -> bool:
    """Whether a region is marked as written, now and by whatever process."""
    return _read(path / DONE / "c" / str(number)) == b"\x01"


def damaged_chunks(path: Path, record: Mapping[str, str], numbers: Iterable[int]) -> dict[int, list[str]]:
    """Chunks of figures that are lost or not as they were written, by the number of their region.

    Args:
        path: the store.
        record: what it says about itself.
        numbers: the regions that should be there.
    """
    counts, figures = json.loads(record["regions"]), json.loads(record["figures"])

    def look(number: int) -> list[str]:
        return [name for name in _chunks(number, counts, figures) if _read(path / name) is None]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        numbers = list(numbers)
        return {number: bad for number, bad in zip(numbers, pool.map(look, numbers), strict=True) if bad}


def _chunks(number: int, counts: Mapping[str, int], figures: Mapping[str, list[str]]) -> Iterator[str]:
    """Files of a region: of each figure one, unless the first region along what the figure lacks has it."""
    places = np.unravel_index(number, tuple(counts.values())) if counts else ()
    corner = dict(zip(counts, map(int, places), strict=True))
    for name, dims in figures.items():
        if not any(at for dim, at in corner.items() if dim not in dims):
            yield "/".join([name, "c", *(str(corner.get(dim, 0)) for dim in dims)])


def regions(record: Mapping[str, str]) -> int:
    """Number of the regions of a store."""
    counts = json.loads(record["regions"])
    return int(np.prod(list(counts.values()), dtype=int))


def _read(file: Path) -> bytes | None:
    """Content of a chunk's file; None if it is not there or not as it was written."""
    import google_crc32c

    try:
        content = file.read_bytes()
    except OSError:
        return None
    if len(content) < 4 or google_crc32c.value(content[:-4]).to_bytes(4, "little") != content[-4:]:
        return None
    return content[:-4]


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _digest(record: Mapping[str, Any]) -> str:
    """Hash of a record without the hash that it holds."""
    rest = {name: value for name, value in record["attributes"].items() if name != "checksum"}
    return hashlib.sha256(json.dumps({**record, "attributes": rest}, sort_keys=True).encode()).hexdigest()


def listed(names: list[str]) -> str:
    """Some names for a message, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(map(repr, names[:SHOWN])) + (f" and {more:,} more" if more > 0 else "")
