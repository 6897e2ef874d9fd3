"""Large sweeps: which do not stay in memory, or are computed elsewhere or later."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from genz_jax.base.units import brief
from genz_jax.grid.space import Space
from genz_jax.serving.evaluate import Question
from genz_jax.store.regions import Job

if TYPE_CHECKING:
    import xarray as xr


def sweep(
    space: Space,
    question: Question,
    store: str | os.PathLike | None,
    chunks: Mapping[str, Any] | None,
    client: Any,
    lazy: bool,
    progress: bool,
) -> "xr.Dataset":
    """Evaluate a space into a store, or lazily.

    Args:
        space: the case and its axes.
        question: what is asked.
        store: path of the store.
        chunks: lengths of the regions by dimension.
        client: a `dask.distributed.Client` whose workers write the store.
        lazy: an array of dask for every figure instead.
        progress: show a progress bar when it takes long.

    Raises:
        ValueError: options that do not go together, a store that is not of this sweep, or chunks that cannot be.
    """
    if lazy and (store is not None or client is not None):
        raise ValueError(
            "lazy = True: computes nothing yet, so it takes no store= or client=; leave it out, or write the lazy "
            "Dataset yourself while the client is there"
        )
    if client is not None and store is None:
        raise ValueError("client: its workers write to a store; give store='….zarr', or lazy=True without a client")
    if chunks is not None and store is None and not lazy:
        raise ValueError("chunks: only store=… and lazy=True have chunks; give one of them, or leave chunks out")
    if store is not None and not isinstance(store, str | os.PathLike):
        raise ValueError(f"store = {brief(store)}: must be the path of a Zarr store, as 'out.zarr'")
    job = Job.of(space, question, chunks)
    if store is None:
        from genz_jax.store import dask_arrays as lazily

        return lazily.sweep(job)
    from genz_jax.store import fill

    return fill.sweep(store, job, client, progress)
