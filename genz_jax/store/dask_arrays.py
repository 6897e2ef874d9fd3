"""Lazily: a sweep as a Dataset of dask arrays, which is computed region by region when it is used."""

from typing import TYPE_CHECKING, Any

import numpy as np

from genz_jax.labelled import labels
from genz_jax.store.regions import Job, regions_of

if TYPE_CHECKING:
    import xarray as xr

_PLACE = "_place_{}"
"""Names of the arrays that tell a region where it lies."""


def sweep(job: Job) -> "xr.Dataset":
    """The Dataset of a sweep, of which nothing has been computed; without axes it is one point, and computed.

    Raises:
        ValueError: dask is not installed, or chunks that cannot be.
    """
    try:
        import dask.array as da
    except ImportError:
        raise ValueError("lazy: needs the package dask; install it with pip install 'genz_jax[store]'") from None
    regions = regions_of(job)
    template = regions.template(lambda shape, dtype, chunks: da.zeros(shape, dtype=dtype, chunks=chunks))
    places = {}
    for dim, length in regions.shape.items():
        chunks: Any = length  # dask declares them as text
        places[_PLACE.format(dim)] = (dim, da.arange(regions.grid.sizes[dim], chunks=chunks), {})
    return labels.map_regions(_region, labels.without_coordinates(places), template, job=regions.job)


def _region(places: "xr.Dataset", job: Job) -> "xr.Dataset":
    """The figures of the region that lies at the places, without coordinates; of all of a sweep without axes."""
    regions = regions_of(job)
    corner = [int(places[_PLACE.format(dim)].values[0]) // length for dim, length in regions.shape.items()]
    region = regions[int(np.ravel_multi_index(corner, tuple(regions.counts.values()))) if corner else 0]
    figures = regions.frame.data_vars
    computed = regions.compute(region).items()
    return labels.without_coordinates(
        {name: (figures[name].dims, value, figures[name].attrs) for name, value in computed}
    )
