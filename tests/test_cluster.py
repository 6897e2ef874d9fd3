import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import distributed
import jax
import pytest
from test_store import CHUNKS, contents, done, names_in, same, small


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two spawned processes, each with a JAX of its own."""
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


def processes(client: Any) -> set[int]:
    return set(client.run(os.getpid).values())


@pytest.mark.slow
def test_workers_write_what_one_process_does(tmp_path, client):
    small(store=tmp_path / "one.zarr", chunks=CHUNKS)
    found = small(store=tmp_path / "x.zarr", chunks=CHUNKS, client=client)
    assert os.getpid() not in processes(client)
    assert contents(tmp_path / "x.zarr") == contents(tmp_path / "one.zarr")
    same(found, small())
    assert names_in(tmp_path) == ["one.zarr", "x.zarr"]
    again = contents(tmp_path / "x.zarr")
    small(store=tmp_path / "x.zarr", client=client)  # nothing is left to do
    assert contents(tmp_path / "x.zarr") == again


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(tmp_path, client):
    path, chunks = tmp_path / "x.zarr", {"mem_bw": 1, "flops": 1, "model": 1, "tp": 1}
    small(store=tmp_path / "one.zarr", chunks=chunks, bandwidths=20)
    before, killed = processes(client), []

    def kill() -> None:
        while done(path) < 30:
            time.sleep(0.005)
        killed.append(min(before))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    small(store=path, chunks=chunks, bandwidths=20, client=client)
    killer.join()
    assert contents(path) == contents(tmp_path / "one.zarr")
    client.wait_for_workers(2, timeout=60)
    assert killed[0] not in processes(client)


@pytest.mark.slow
def test_workers_and_this_process_at_once(tmp_path, client):
    path, chunks = tmp_path / "x.zarr", {"mem_bw": 1, "flops": 1}
    small(store=tmp_path / "one.zarr", chunks=chunks)
    ended: list[Any] = []

    def write() -> None:
        with jax.enable_x64(True):
            ended.append(small(store=path, chunks=chunks))

    other = threading.Thread(target=write)
    other.start()
    small(store=path, chunks=chunks, client=client)
    other.join()
    assert len(ended) == 1
    assert contents(path) == contents(tmp_path / "one.zarr")


@pytest.mark.slow
def test_single_precision_in_the_workers(tmp_path, client):
    with jax.enable_x64(False):
        found = small(store=tmp_path / "x.zarr", client=client)
        assert found.latency.dtype == "float32"
        small(store=tmp_path / "one.zarr")
    assert contents(tmp_path / "x.zarr") == contents(tmp_path / "one.zarr")


@pytest.mark.slow
def test_a_worker_that_does_not_see_the_store_is_told(tmp_path, client, monkeypatch):
    from genz_jax.store import dask_workers as cluster

    monkeypatch.setattr(cluster, "RETRIES", 0)
    submit = client.submit

    def elsewhere(function: Any, job: Any, *rest: Any, **options: Any) -> Any:
        if rest:
            rest = (str(tmp_path / "other" / "x.zarr"), *rest[1:])
        return submit(function, job, *rest, **options)

    monkeypatch.setattr(client, "submit", elsewhere)
    with pytest.raises(ValueError, match=r"other/x\.zarr.*not there.*all workers"):
        small(store=tmp_path / "x.zarr", client=client)


@pytest.mark.slow
def test_a_lazy_sweep_on_workers(client):
    same(small(lazy=True, chunks=CHUNKS).compute(), small())
