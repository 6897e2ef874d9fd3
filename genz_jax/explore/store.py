"""Store: a sweep written to a Zarr store region by region, by any number of processes, which can be killed and go on.

A region is one chunk of every figure and one element of `done`, which is written last. Chunk files appear by renaming,
and no chunk belongs to two regions, so that whatever is on the disk is complete or absent.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from genz_jax import files, labels
from genz_jax.explore import fingerprint
from genz_jax.explore.blocks import Block
from genz_jax.explore.regions import Job, Regions, regions_of

if TYPE_CHECKING:
    import xarray as xr
    import zarr

DONE, BLOCK = "done", "block"
"""Name of the variable that says which regions are written, and of its dimension."""

LEVEL = 1
"""Level of Zstandard. 20 figures of a decode sweep, on 2 cores: 363 MB/s and a fifth of the size at 1, 299 MB/s and no
less at 3; 863 MB/s and a quarter of the size at −7. Unlike Blosc's, its bytes do not depend on threads."""

ZARR = "3.1.6"
"""First version that lets an array have settings of its own; since 3.1.3 it writes a file under another name and then
renames it, so that a killed process leaves no half of it."""

_NEW, _PARTIAL = ".new", ".partial"


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
            ValueError: it is no store of a sweep, or of one with other parameters.
        """
        self.path, self.regions = Path(path), regions
        check(self.path, regions)
        self._arrays = _open(self.path)
        self._chunks = {dim: regions.shape[dim] for dim in regions.order}

    def is_done(self, number: int) -> bool:
        """Whether a region is written now, by whatever process."""
        return bool(np.asarray(self._arrays[DONE][number]))

    def missing(self) -> list[int]:
        """Numbers of the regions that are not written yet."""
        return np.flatnonzero(np.asarray(self._arrays[DONE][:]) == 0).tolist()

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
        for left in self.path.parent.glob(f".{self.path.name}.*{_NEW}"):
            shutil.rmtree(left, ignore_errors=True)

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


def sweep(path: str | os.PathLike, job: Job, client: Any, progress: bool) -> "xr.Dataset":
    """Write what is missing of a sweep, and open it.

    Args:
        path: where the store is or will be.
        job: the sweep.
        client: a `dask.distributed.Client` whose workers do it; None for this process.
        progress: show a progress bar when it takes long.

    Raises:
        ValueError: no store can be there, or another is there.
        KeyboardInterrupt: interrupted; the message says how to go on.
    """
    store = open_or_create(path, job)
    missing = store.missing()
    total = len(store.regions)
    with tqdm(
        total=total, initial=total - len(missing), unit="region", delay=2, leave=False, disable=not progress
    ) as bar:
        try:
            if client is None:
                for _ in store.fill(shuffled(missing)):
                    bar.update()
            else:
                from genz_jax.explore import cluster

                cluster.fill(store, missing, client, bar.update)
        except KeyboardInterrupt:
            done = total - len(store.missing())
            raise KeyboardInterrupt(
                f"store = {str(path)!r}: {done:,} of {total:,} regions are done; call again with the same arguments to "
                "go on"
            ) from None
    store.clean()
    return store.dataset()


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
    target = files.check_target(path, (".zarr",)).absolute()
    if target.is_dir() and not job.chunks and any(target.iterdir()):
        stored, sizes = json.loads(_attributes(target)["chunks"]), labels.read_grid(job.case).sizes
        job = dataclasses.replace(job, chunks={dim: min(n, sizes[dim]) for dim, n in stored.items() if dim in sizes})
    regions = regions_of(job)
    for name in (DONE, BLOCK):
        if name in regions.kinds or name in regions.grid.sizes or name in regions.grid.coords:
            raise ValueError(f"dimension {name!r}: a store has {DONE!r} and {BLOCK!r} of its own; use another name")
    if not target.is_dir() or not any(target.iterdir()):
        create(target, regions)
    return Store(target, regions)


def create(target: Path, regions: Regions) -> None:
    """Make a store without figures, whole or not at all; if another process is first, its store stays.

    Raises:
        ValueError: the system refuses to write.
    """
    with tempfile.TemporaryDirectory(
        prefix=f".{target.name}.", suffix=_NEW, dir=target.parent, ignore_cleanup_errors=True
    ) as workspace:
        fresh = Path(workspace, target.name)
        try:
            _write_frame(fresh, regions)
            fresh.rename(target)
        except (OSError, ValueError) as error:
            if not (target / "zarr.json").exists():
                reason = error.strerror if isinstance(error, OSError) else None
                raise ValueError(f"store = {str(target)!r}: cannot be written ({reason or error})") from error


def _write_frame(path: Path, regions: Regions) -> None:
    """Coordinates, attributes and empty arrays of a sweep."""
    import zarr
    from zarr.codecs import ZstdCodec

    labels.save(regions.frame.drop_vars(list(regions.kinds)), path)
    group = zarr.open_group(path, mode="r+")
    for name, variable in regions.frame.data_vars.items():
        dims = tuple(map(str, variable.dims))
        group.create_array(
            str(name),
            shape=variable.shape,
            chunks=tuple(regions.shape.get(dim, n) for dim, n in zip(dims, variable.shape, strict=True)),
            dtype=variable.dtype,
            fill_value=np.nan if variable.dtype.kind == "f" else 0,
            compressors=ZstdCodec(level=LEVEL),
            dimension_names=dims,
            attributes={key: np.asarray(value).tolist() for key, value in variable.attrs.items()},
        )
    found = fingerprint.parameters(regions)
    group.create_array(
        DONE,
        shape=(len(regions),),
        chunks=(1,),
        dtype=np.int8,
        fill_value=0,
        compressors=None,
        dimension_names=(BLOCK,),
        attributes={
            "units": "1",
            "long_name": "1 where the region of this number is written; regions are numbered along the dimensions of "
            "`regions` from slow to fast",
            "regions": json.dumps(regions.counts),
            "chunks": json.dumps(regions.shape),
            "fingerprint": fingerprint.digest(found),
            "parameters": json.dumps(found),
        },
    )


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


def _open(path: Path) -> dict[str, "zarr.Array"]:
    """All arrays of a store by name, for writing."""
    import zarr

    # A chunk that holds nothing but fill values is a file too, so that an absent file is always an unwritten one. Set
    # for each array: the global setting of zarr is that of all threads.
    arrays = zarr.open_group(path, mode="r+").arrays()
    return {name: array.with_config({"write_empty_chunks": True}) for name, array in arrays}


def _attributes(path: Path) -> dict[str, Any]:
    """What a store says about its regions.

    Raises:
        ValueError: it is not there, or no store of a sweep.
    """
    if not path.is_dir():
        raise ValueError(f"store = {str(path)!r}: is not there; it must be in a place that all workers see")
    found: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((path / DONE / "zarr.json").read_text(encoding="utf-8")).get("attributes", {})
    if not {"fingerprint", "parameters", "chunks"} <= set(found):
        raise ValueError(
            f"store = {str(path)!r}: is there, but was not begun by a sweep with store=…; nothing was changed. Choose "
            "another name, or remove it"
        )
    return found


def check(path: Path, regions: Regions) -> None:
    """Raise ValueError if a store is not of this sweep, and say what differs."""
    there, here = _attributes(path), fingerprint.parameters(regions)
    if there["fingerprint"] == fingerprint.digest(here):
        return
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
