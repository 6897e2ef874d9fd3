"""Store: a sweep written to a Zarr store region by region, by any number of processes, which can be killed and go on.

A region is one chunk of every figure and one element of `done`, which is written last. Chunk files appear by renaming,
and no chunk belongs to two regions, so that whatever is on the disk is complete or absent. Whoever opens a store sees
whether all that `done` says is there, and as it was written.
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from genz_jax.base import files
from genz_jax.grid.feed import Block
from genz_jax.labelled import labels
from genz_jax.store import checksums, fingerprint
from genz_jax.store.checksums import DONE, listed
from genz_jax.store.frame import BLOCK, NEW, create, mend
from genz_jax.store.regions import Job, Regions, regions_of

if TYPE_CHECKING:
    import xarray as xr
    import zarr

ZARR = "3.1.6"
"""First version that lets an array have settings of its own; since 3.1.3 it writes a file under another name and then
renames it, so that a killed process leaves no half of it."""

_PARTIAL = ".partial"


class Store:
    """A sweep on the disk.

    Attributes:
        path: where it is.
        regions: its parts, by number.
    """

    def __init__(self, path: str | os.PathLike, regions: Regions):
        """Open a store for writing.

        Args:
            path: a store that `create` made.
            regions: the same sweep.

        Raises:
            ValueError: it is no store of a sweep, or of one with other parameters, or metadata or coordinates are
                damaged and cannot be made again.
        """
        self.path, self.regions = Path(path), regions
        self._record = check(self.path, regions)
        mend(self.path, regions, self._record)
        self._arrays = _open(self.path, [*regions.kinds, DONE])
        self._chunks = {dim: regions.shape[dim] for dim in regions.order}

    def is_done(self, number: int) -> bool:
        """Whether a region is written now, by whatever process."""
        return checksums.is_done(self.path, number)

    def missing(self) -> list[int]:
        """Numbers of the regions that are not written yet."""
        return np.setdiff1d(np.arange(len(self.regions)), checksums.done(self.path, self._record)[0]).tolist()

    def verify(self) -> None:
        """Mark regions as missing that should be there and are not, or not as they were written; warn of them."""
        marked, marks = checksums.done(self.path, self._record)
        damaged = checksums.damaged_chunks(self.path, self._record, marked)
        for number in damaged:
            (self.path / DONE / "c" / str(number)).unlink(missing_ok=True)
        if names := [*marks, *(name for bad in damaged.values() for name in bad)]:
            count = len(marks) + len(damaged)
            warnings.warn(
                f"store = {str(self.path)!r}: {count:,} of {len(self.regions):,} regions were done, but files of "
                f"theirs are lost or damaged ({listed(names)}); they are computed again",
                stacklevel=2,
            )

    def fill(self, numbers: Iterable[int]) -> Iterator[int]:
        """Compute and write regions, each unless it is done by then; one is computed while another is written.

        Yields:
            The number of each when it is done.

        Raises:
            ValueError: the system refuses to write.
        """
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            waiting: tuple[int, list[Future]] | None = None
            for number in numbers:
                if self.is_done(number):
                    yield number
                    continue
                region = self.regions[number]
                writes = self._writes(region, self.regions.compute(region))
                if waiting is not None:
                    yield self._finish(*waiting)
                waiting = number, [pool.submit(*write) for write in writes]
            if waiting is not None:
                yield self._finish(*waiting)

    def _writes(self, region: Block, values: Mapping[str, np.ndarray]) -> list[tuple]:
        return [
            (write_region, self._arrays[name], region.place, value, self._chunks, dims)
            for name, (dims, _) in self.regions.kinds.items()
            if self.regions.owned(region, dims)
            for value in [values[name]]
        ]

    def _finish(self, number: int, writes: list[Future]) -> int:
        try:
            for write in writes:
                write.result()
            self._arrays[DONE][number] = 1
        except OSError as error:
            # Another process that found all regions done has removed this one's unfinished files.
            if not (isinstance(error, FileNotFoundError) and self.path.is_dir() and self.is_done(number)):
                raise ValueError(
                    f"store = {str(self.path)!r}: cannot be written ({error.strerror or error}); when that is mended, "
                    "call again to go on"
                ) from error
        return number

    def clean(self) -> None:
        """Remove what killed processes have left, once all is done."""
        for folder, _, names in os.walk(self.path):
            for name in names:
                if name.endswith(_PARTIAL):
                    Path(folder, name).unlink(missing_ok=True)
        before = f".{self.path.name}."
        for name in os.listdir(self.path.parent):
            own = name.startswith(before) and name.endswith(NEW)
            # A dot between them is of a longer name, of another store.
            if own and "." not in name[len(before) : -len(NEW)]:
                shutil.rmtree(self.path.parent / name, ignore_errors=True)

    def dataset(self) -> "xr.Dataset":
        """The sweep, whose figures are read from the disk when they are used."""
        return labels.open_store(self.path).drop_vars(DONE)[list(self.regions.kinds)]


def write_region(
    array: "zarr.Array",
    place: Mapping[str, slice],
    value: np.ndarray,
    chunks: Mapping[str, int],
    dims: tuple[str, ...],
) -> None:
    """Write a region of one figure.

    Args:
        array: the figure on the disk.
        place: where the region lies, by dimension.
        value: what is written.
        chunks: lengths of the regions of the sweep, by dimension.
        dims: dimensions of the figure; those without a place are written whole.

    Raises:
        ValueError: the region is not one chunk, so that two processes could write one file, or has another shape.
    """
    for dim, length, size in zip(dims, array.chunks, array.shape, strict=True):
        if length != chunks.get(dim, length):
            raise ValueError(
                f"chunks[{dim!r}] = {chunks[dim]}: misaligned, the chunks of {array.name!r} have the length {length}"
            )
        at = place.get(dim, slice(0, size))
        if at.start % length or at.stop != min(at.start + length, size):
            raise ValueError(
                f"region {dim} = {at.start}:{at.stop}: misaligned with chunks of {length} of {size}; two processes "
                f"could write one chunk, so a region must be one chunk, from a multiple of {length} to the next"
            )
    where = tuple(place.get(dim, slice(0, size)) for dim, size in zip(dims, array.shape, strict=True))
    shape = tuple(at.stop - at.start for at in where)
    if value.shape != shape:
        raise ValueError(f"region of {array.name!r}: an array of shape {value.shape} for a region of {shape}")
    array[where] = value


def open_store(path: str | os.PathLike) -> "xr.Dataset":
    """Open the store of a finished sweep, after a look at every byte of it.

    A store of `gz.sweep(…, store=…)` has a checksum of each of its files. `xarray.open_zarr` looks at those of the
    chunks that it reads, but where a file is lost it puts −∞, −1 or false in its place, and says nothing. On two cores
    the look takes 0.4 s for a gigabyte that the system has in memory.

    Args:
        path: the store.

    Returns:
        The Dataset, which is read from the disk as it is used.

    Raises:
        ValueError: it is no such store, its sweep is not finished, or a file is lost or damaged; the message names it.

    Example:
        >>> import genz_jax as gz, tempfile
        >>> platform = gz.platform("H100-SXM").replace(mem_bw=gz.geomspace("1 TB/s", "10 TB/s", 3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ds = gz.sweep("gpt2", platform, stage="decode", figures=["latency"], store=f"{folder}/swept.zarr")
        ...     gz.open_store(f"{folder}/swept.zarr").latency.sizes["mem_bw"]
        3
    """
    _need_zarr()
    target = Path(os.path.realpath(path))
    record = checksums.read_record(target)
    again = "make the call of gz.sweep that wrote it again, which computes it anew"
    if bad := checksums.damaged_files(target, record):
        raise ValueError(f"store = {str(path)!r}: {listed(bad)} lost or damaged; {again}")
    marked, marks = checksums.done(target, record)
    damaged = checksums.damaged_chunks(target, record, marked)
    if bad := [*marks, *(name for names in damaged.values() for name in names)]:
        raise ValueError(f"store = {str(path)!r}: {listed(bad)} lost or damaged; {again}")
    total = checksums.regions(record)
    if len(marked) < total:
        raise ValueError(
            f"store = {str(path)!r}: {len(marked):,} of {total:,} regions are written; make the call of gz.sweep that "
            "began it again to go on, or look at what is there with xarray.open_zarr"
        )
    return labels.open_store(target).drop_vars(DONE)


def shuffled(numbers: list[int]) -> list[int]:
    """Numbers in an order of this process's own, so that several seldom do the same region at once."""
    own = zlib.crc32(f"{platform.node()} {os.getpid()}".encode())
    return np.random.default_rng(own).permutation(numbers).tolist()


def open_or_create(path: str | os.PathLike, job: Job) -> Store:
    """The store of a sweep at a path, which is made if there is none.

    Raises:
        ValueError: no store can be there, or another is there.
    """
    _need_zarr()
    target = files.check_target(path, (".zarr",))
    if target.is_dir() and not job.chunks and any(target.iterdir()):
        stored, sizes = json.loads(checksums.read_record(target)["chunks"]), labels.read_grid(job.case).sizes
        job = dataclasses.replace(job, chunks={dim: min(n, sizes[dim]) for dim, n in stored.items() if dim in sizes})
    regions = regions_of(job)
    for name in (DONE, BLOCK):
        if name in regions.kinds or name in regions.grid.sizes or name in regions.grid.coords:
            raise ValueError(f"dimension {name!r}: a store has {DONE!r} and {BLOCK!r} of its own; use another name")
    if not target.is_dir() or not any(target.iterdir()):
        create(target, regions)
    return Store(target, regions)


def _need_zarr() -> None:
    """Raise ValueError if there is no zarr whose files appear whole."""
    from packaging.version import Version  # a dependency of xarray

    try:
        there = importlib.metadata.version("zarr")
    except importlib.metadata.PackageNotFoundError:
        there = "0"
    if Version(there) < Version(ZARR):
        raise ValueError(
            f"store: needs the package zarr, {ZARR} or later; install it with pip install 'genz_jax[store]'"
        )


def _open(path: Path, names: list[str]) -> dict[str, "zarr.Array"]:
    """Arrays of a store by name, for writing."""
    import zarr

    # A chunk that holds nothing but fill values is a file too, so that an absent file is always an unwritten one. Set
    # for each array: the global setting of zarr is that of all threads.
    group = zarr.open_group(path, mode="r+", zarr_format=3)
    arrays = {name: group[name] for name in names}
    return {name: array.with_config({"write_empty_chunks": True}) for name, array in arrays.items()}  # type: ignore


def check(path: Path, regions: Regions) -> dict[str, str]:
    """What a store says about itself.

    Raises:
        ValueError: it is not of this sweep; the message says what differs.
    """
    there, here = checksums.read_record(path), fingerprint.parameters(regions)
    if there["fingerprint"] == fingerprint.digest(here):
        return there
    stored = json.loads(there["parameters"])
    others = {name for name in {*stored, *here} if stored.get(name) != here.get(name)}
    if all(name.startswith("chunks.") for name in others):
        raise ValueError(
            f"chunks = {regions.shape}: misaligned, those of the store {str(path)!r} are {there['chunks']}; leave "
            "chunks= out to go on with them, or choose another store="
        )
    raise ValueError(
        f"store = {str(path)!r}: holds another sweep; nothing was changed. {fingerprint.differences(stored, here)}. "
        "Give the parameters that it was made with, choose another store=, or remove it"
    )
