"""Files: outputs appear whole or not at all."""

import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from genz_jax.base.units import brief

if TYPE_CHECKING:
    import xarray as xr

IN_MEMORY = 2**26
"""Bytes of a Dataset whose NetCDF file is made in memory before it is written."""

_ZARR = ("zarr.json", ".zgroup", ".zarray")
"""Files of which a Zarr store, of the third or the second format, has one."""

_UNFINISHED: set[str] = set()
"""Folders with what is not yet complete, which a signal that ends the process has to remove."""


def save(dataset: "xr.Dataset", path: str | os.PathLike) -> None:
    """Write a Dataset to a NetCDF file (.nc) or a Zarr store (.zarr), whole or not at all.

    It is written beside its place under another name and moved there when it is complete.

    Args:
        dataset: what to write.
        path: where; what is there is replaced.

    Raises:
        ValueError: what is no Dataset; the path ends otherwise, or cannot be written.

    Example:
        >>> import genz_jax as gz, tempfile, xarray as xr
        >>> ds = gz.sweep("llama-3.1-8b", "H100-SXM", gz.Workload(batch=gz.axis([1, 8, 64])))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     gz.save(ds, f"{folder}/out.nc")
        ...     xr.load_dataset(f"{folder}/out.nc").latency.equals(ds.latency)
        True
    """
    if not hasattr(dataset, "to_netcdf"):
        raise ValueError(f"dataset = {brief(dataset)}: must be an xarray Dataset, as gz.sweep returns it")
    writers = {".nc": write_netcdf, ".zarr": write_zarr}
    write(path, {ending: functools.partial(writer, dataset) for ending, writer in writers.items()})


def write_netcdf(dataset: "xr.Dataset", path: str) -> None:
    """Write a Dataset to a NetCDF file.

    Raises:
        OSError: it cannot be written.
    """
    if dataset.nbytes <= IN_MEMORY:
        with open(path, "wb") as file:
            file.write(dataset.to_netcdf(engine="h5netcdf"))
        return
    # What HDF5 cannot write ends in a crash when it closes the file, so that there has to be room before it begins.
    with open(path, "wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, dataset.nbytes + IN_MEMORY // 16)
        file.truncate(0)
    dataset.to_netcdf(path, engine="h5netcdf")


def write_zarr(dataset: "xr.Dataset", path: str | os.PathLike) -> None:
    """Write a Dataset to a Zarr store of the third format, with a checksum of every chunk."""
    from zarr.codecs import Crc32cCodec, ZstdCodec

    # The format specifies text of variable length only.
    texts = {name: c.astype(object) for name, c in dataset.coords.items() if c.dtype.kind == "U"}
    named = dataset.assign_coords(texts)
    encoding = {name: {"compressors": (ZstdCodec(level=0), Crc32cCodec())} for name in named.variables}
    named.to_zarr(path, mode="w", zarr_format=3, consolidated=False, encoding=encoding)


def check_target(path: str | os.PathLike, endings: tuple[str, ...]) -> Path:
    """Check, before any work, that a file can be written.

    Args:
        path: where it will be; a link stands for what it points at.
        endings: what its name may end in.

    Returns:
        The place, without links.

    Raises:
        ValueError: another ending, no such folder, a folder that cannot be written to, or something else is there.
    """
    shown = f"output {str(path)!r}"
    if "\0" in str(path):
        raise ValueError(f"{shown}: a name cannot hold a null character; choose another")
    if Path(path).suffix not in endings:
        raise ValueError(f"{shown}: must end in {' or '.join(endings)}")
    target = Path(os.path.realpath(path))
    folder = target.parent
    if not folder.is_dir():
        raise ValueError(f"{shown}: the folder {str(folder)!r} does not exist; make it first")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{shown}: the folder {str(folder)!r} cannot be written to; choose another")
    if target.exists() and target.is_dir() != (Path(path).suffix == ".zarr"):
        raise ValueError(f"{shown}: is a {'folder' if target.is_dir() else 'file'}; choose another name")
    return target


def write(path: str | os.PathLike, writers: dict[str, Callable[[str], object]]) -> None:
    """Write a file, or a store that is a folder, under a name beside it and move it to its place when complete.

    Args:
        path: where it will be; what is there is replaced.
        writers: function that writes to a path, by the ending of the name.

    Raises:
        ValueError: no writer for the ending, a folder with something else is there, or the path cannot be written.
    """
    target = check_target(path, tuple(writers))
    if target.is_dir() and any(target.iterdir()) and not any((target / name).is_file() for name in _ZARR):
        raise ValueError(f"output {str(path)!r}: is a folder that holds no Zarr store; choose another name")
    try:
        with workspace(target) as folder:
            fresh = os.path.join(folder, target.name)
            writers[Path(path).suffix](fresh)
            _replace(fresh, target, os.path.join(folder, "old"))
    except OSError as error:
        raise ValueError(f"output {str(path)!r}: cannot be written ({error.strerror or error})") from error


def _replace(fresh: str, target: Path, old: str) -> None:
    """Put something in its place; if that fails, what was there stays."""
    if not target.is_dir():
        os.replace(fresh, target)
        return
    os.replace(target, old)
    try:
        os.replace(fresh, target)
    except BaseException:
        os.replace(old, target)
        raise


@contextlib.contextmanager
def workspace(target: Path, suffix: str = "") -> Iterator[str]:
    """A folder beside a file for what is not yet complete, which is removed in the end.

    Args:
        target: the file.
        suffix: what the folder's name ends in.
    """
    with tempfile.TemporaryDirectory(
        prefix=f".{target.name}.", suffix=suffix, dir=target.absolute().parent, ignore_cleanup_errors=True
    ) as folder:
        _UNFINISHED.add(folder)
        try:
            yield folder
        finally:
            _UNFINISHED.discard(folder)


def remove_unfinished() -> None:
    """Remove what is not yet complete, before a signal ends the process."""
    for folder in tuple(_UNFINISHED):
        shutil.rmtree(folder, ignore_errors=True)
