"""Cluster: the regions of a store written by the workers of a `dask.distributed` client."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from genz_jax.store.regions import Job, regions_of
from genz_jax.store.write import Store

TASKS = 2048
"""Tasks at most: the scheduler takes about a millisecond for each."""

RETRIES = 3
"""Times that a task is tried again after it raised; after the death of a worker dask tries as often by itself."""


def fill(store: Store, missing: Sequence[int], client: Any, advance: Callable[[int], Any]) -> None:
    """Let workers write regions.

    Args:
        store: the store, in a place that all workers see.
        missing: numbers of the regions to write.
        client: a `dask.distributed.Client`.
        advance: called with the number of regions that were done since.

    Raises:
        ValueError: no such client, or workers that do not see the store.
        RuntimeError: regions are still missing in the end, or workers die again and again.
    """
    try:
        from distributed import Client, KilledWorker, as_completed
    except ImportError:
        raise ValueError(
            "client: needs the package distributed; install it with pip install 'genz_jax[store]'"
        ) from None
    if not isinstance(client, Client) or client.asynchronous:
        raise ValueError(f"client = {client!r}: must be a dask.distributed.Client that is not asynchronous")
    if not missing:
        return
    parts = [part.tolist() for part in np.array_split(np.asarray(missing), min(len(missing), TASKS))]
    # As a task's result the job is sent to each worker once, and made again where the worker that held it is gone.
    job = client.submit(_same, store.regions.job, pure=False)
    tasks = {
        client.submit(write, job, str(store.path), numbers, pure=False, retries=RETRIES): len(numbers)
        for numbers in parts
    }
    try:
        for task in as_completed(tasks):
            task.result()
            advance(tasks[task])
    except KilledWorker as error:
        raise RuntimeError(
            f"store = {str(store.path)!r}: the workers of a task died again and again, perhaps for want "
            "of memory; give shorter chunks or workers more memory, and call again to go on"
        ) from error
    finally:
        client.cancel([*tasks, job])
    if left := store.missing():
        raise RuntimeError(
            f"store = {str(store.path)!r}: {len(left):,} of {len(store.regions):,} regions are missing although all "
            "tasks ended; are client and workers on the same file system? Call again to go on"
        )


def _same(job: Job) -> Job:
    return job


def write(job: Job, path: str, numbers: Sequence[int]) -> None:
    """Write regions of a store, in a worker.

    Args:
        job: the sweep.
        path: the store.
        numbers: the regions.

    Raises:
        ValueError: the store is not there, or of another sweep.
    """
    for _ in _opened(job, path).fill(numbers):
        pass


@functools.lru_cache(maxsize=2)
def _opened(job: Job, path: str) -> Store:
    return Store(path, regions_of(job))
