import threading
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from test_store import CHUNKS, same, small

import genz_jax as gz
from genz_jax.store import regions as cutting


@pytest.fixture
def computed(monkeypatch) -> list:
    """Regions that are computed, as they are."""
    found, compute, lock = [], cutting.Regions.compute, threading.Lock()

    def noted(self: cutting.Regions, region: Any) -> dict[str, np.ndarray]:
        with lock:
            found.append(region.number)
        return compute(self, region)

    monkeypatch.setattr(cutting.Regions, "compute", noted)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [CHUNKS, None])
@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_a_lazy_sweep_is_that_in_memory(chunks, scheduler):
    with dask.config.set(scheduler=scheduler):
        same(small(None, breakdown=True, lazy=True, chunks=chunks).compute(), small(None, breakdown=True))


def test_nothing_is_computed_until_it_is_used(computed):
    found = small(lazy=True, chunks=CHUNKS)
    assert computed == []
    assert found.latency.chunksizes == {"model": (2,), "flops": (4, 2), "mem_bw": (3, 3, 1), "tp": (2, 1)}
    assert found.weights.chunksizes == {"model": (2,), "tp": (2, 1)}
    assert not any(dask.is_dask_collection(coordinate) for coordinate in found.coords.values())
    part = found.latency.isel(mem_bw=6, flops=5, tp=0)
    part.compute()
    assert len(computed) == 1
    np.testing.assert_allclose(part, small().latency.isel(mem_bw=6, flops=5, tp=0), rtol=1e-12)


def test_every_region_once(computed):
    small(lazy=True, chunks=CHUNKS).compute()
    assert sorted(computed) == list(range(12))


def test_reductions_are_those_of_the_whole():
    lazy, whole = small(lazy=True, chunks=CHUNKS), small()
    xr.testing.assert_allclose(lazy.latency.min("mem_bw").compute(), whole.latency.min("mem_bw"), rtol=1e-12)
    xr.testing.assert_allclose(lazy.latency.mean().compute(), whole.latency.mean(), rtol=1e-12)


@pytest.mark.slow
def test_a_large_grid_takes_no_memory_until_it_is_used():
    chip = gz.platform("H100-SXM").replace(
        mem_bw=gz.geomspace(1e11, 1e13, 10**5), flops=gz.geomspace(1e13, 1e16, 10**4)
    )
    found = gz.sweep("gpt2", chip, stage="decode", figures="latency", lazy=True)
    assert found.latency.size == 10**9
    corner = found.latency[:2, :3].compute()
    chip = gz.platform("H100-SXM")
    alone = gz.estimate(
        "gpt2", chip.replace(mem_bw=float(corner.mem_bw[2]), flops=float(corner.flops[1])), stage="decode"
    )
    at = corner.sel(mem_bw=corner.mem_bw[2], flops=corner.flops[1])
    assert float(at) == pytest.approx(float(alone.latency), rel=1e-12)


def test_a_single_point():
    found = gz.sweep("gpt2", "H100-SXM", stage="decode", figures="latency", lazy=True)
    assert float(found.latency) == float(gz.sweep("gpt2", "H100-SXM", stage="decode", figures="latency").latency)
