"""Gradients over a grid: those of central differences, whatever the blocks."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

import genz_jax as gz
from genz_jax.grid import shape

CHIP = gz.platform("H100-SXM")
GRID = CHIP.replace(mem_bw=gz.geomspace("1 TB/s", "20 TB/s", 4), flops=gz.geomspace("100 TFLOP/s", "5 PFLOP/s", 3))
GIVEN: dict[str, Any] = {
    "model": ["llama-3.1-8b", "mixtral-8x7b"],
    "workload": gz.Workload(batch=gz.axis([1, 32]), input_tokens=512, output_tokens=64),
    "parallelism": gz.Parallelism(tp=gz.axis([2, 3])),  # three ranks do not divide the heads
    "precision": "fp8",
    "progress": False,
}
FIGURES = ["ttft", "tpot", "energy"]
PARAMETERS = ["mem_bw", "flops", "link_latency", "memory_efficiency"]


def slopes(**options: Any) -> xr.Dataset:
    return gz.gradients(platform=GRID, **GIVEN, figures=FIGURES, parameters=PARAMETERS, **options)


@pytest.mark.slow
def test_slopes_are_those_of_central_differences():
    found = slopes()
    values = gz.sweep(platform=GRID, **GIVEN, figures=[*FIGURES, "feasible", "reason"])
    xr.testing.assert_allclose(found[list(values)], values, rtol=1e-12)
    assert found.parameter.values.tolist() == PARAMETERS
    assert found.parameter_unit.values.tolist() == ["byte s-1", "flop s-1", "s", "1"]
    for name in PARAMETERS:
        own: Any = {"mem_bw": GRID.mem_bw, "flops": GRID.flops}.get(name)
        base = CHIP.replace(memory_efficiency=0.9).network[0].latency if name == "link_latency" else 1.0
        start = own.values if own is not None else float(base)
        around = []
        for step in (-1e-6, 1e-6):
            moved = start * (1 + step) if name != "memory_efficiency" else 1.0 + min(step, 0.0)
            change: Any = moved if own is None else gz.axis(np.asarray(moved))
            there = gz.sweep(platform=GRID.replace(**{name: change}), **GIVEN, figures=FIGURES)
            around.append({figure: there[figure].values for figure in FIGURES})
        wide: Any = 2e-6 * start if name != "memory_efficiency" else 1e-6
        for figure in FIGURES:
            difference = around[1][figure] - around[0][figure]
            dims = values[figure].dims
            if own is not None:
                wide_here = xr.DataArray(wide, dims=[name]).broadcast_like(values[figure]).transpose(*dims).values
            else:
                wide_here = wide
            mine = found[f"{figure}_gradient"].sel(parameter=name).transpose(*dims).values
            scale = np.abs(values[figure].values) / np.abs(np.broadcast_to(wide_here / 2e-6, mine.shape))
            np.testing.assert_allclose(
                mine / scale, difference / wide_here / scale, atol=1e-5, err_msg=f"{figure} {name}"
            )
    infeasible = np.isnan(values.ttft.values)
    assert infeasible.any()
    assert (np.isnan(found.ttft_gradient.transpose("parameter", ...).values) == infeasible).all()


@pytest.mark.slow
def test_blocks_make_the_whole(monkeypatch):
    whole = slopes()
    monkeypatch.setattr(shape, "CPU", shape.Blocking(7, 3))
    xr.testing.assert_allclose(slopes(), whole, rtol=1e-9)


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameters": []}, "empty list"),
        ({"parameters": "bandwith"}, "no spec has a number"),
        ({"figures": "bound"}, "no real number"),
        ({"figures": "tpott"}, "tpot"),
    ],
)
def test_what_has_no_slope_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        gz.gradients("gpt2", "H100-SXM", progress=False, **options)
