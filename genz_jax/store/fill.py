"""Fill: what is missing of a sweep written to its store, by this process or by the workers of a cluster."""

import os
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from genz_jax.reduce.interrupts import stop_on_interrupt
from genz_jax.store import dask_workers
from genz_jax.store.regions import Job
from genz_jax.store.write import open_or_create, shuffled

if TYPE_CHECKING:
    import xarray as xr


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
    try:
        store = open_or_create(path, job)
    except OSError as error:
        raise ValueError(f"store = {str(path)!r}: cannot be opened ({error.strerror or error})") from error
    store.verify()
    missing = store.missing()
    total = len(store.regions)
    with tqdm(
        total=total, initial=total - len(missing), unit="region", delay=2, leave=False, disable=not progress
    ) as bar:
        try:
            if client is None:
                with stop_on_interrupt() as request:
                    for _ in store.fill(shuffled(missing)):
                        bar.update()
                        if request.stop:
                            raise KeyboardInterrupt
            else:
                dask_workers.fill(store, missing, client, bar.update)
        except KeyboardInterrupt:
            done = total - len(store.missing())
            raise KeyboardInterrupt(
                f"store = {str(path)!r}: {done:,} of {total:,} regions are done; call again with the same arguments to "
                "go on"
            ) from None
    store.clean()
    return store.dataset()
