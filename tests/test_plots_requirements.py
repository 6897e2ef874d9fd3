"""Plots of requirements and sensitivities show the data they are given."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle

import genz_jax as gz
from genz_jax import plots


@pytest.fixture(scope="module")
def needed():
    chip = gz.platform("H100-SXM").replace(flops=gz.geomspace("100 TFLOP/s", "5 PFLOP/s", 6))
    slo = gz.SLO(tpot=gz.geomspace("100 us", "10 ms", 5), ttft="1 s")
    return gz.require("mem_bw", ["gpt2", "opt-125m"], chip, gz.Workload(8, 512, 64), slo=slo)


@pytest.fixture(scope="module")
def helped():
    return gz.sensitivity(
        "gpt2", "H100-SXM", gz.Workload(gz.axis([1, 256]), 512, 64), gz.Parallelism(tp=2), stage="decode"
    )


@pytest.mark.slow
def test_curves_of_what_is_needed(needed):
    drawn = plots.requirement(needed, x="slo_tpot")
    (axes,) = drawn.axes
    curves = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    assert len(curves) == 12
    line = next(line for line in curves if "gpt2" in str(line.get_label()))
    expected = needed.mem_bw.sel(model="gpt2").isel(flops=0).values / 1e12
    np.testing.assert_allclose(np.asarray(line.get_ydata()), expected)
    assert "TB/s" in axes.get_ylabel()
    # The accelerators that lie among the curves have lines with their names.
    assert any("H100" in text.get_text() for text in axes.texts)


def test_without_accelerators_there_are_no_lines(needed):
    drawn = plots.requirement(needed.isel(model=0, flops=0), chips=())
    assert not drawn.axes[0].texts


def test_points_where_no_axis_is_a_number(needed, tmp_path):
    one = needed.isel(flops=0, slo_tpot=-1)
    drawn = plots.requirement(one, str(tmp_path / "points.svg"))
    np.testing.assert_allclose(np.asarray(drawn.axes[0].lines[0].get_ydata()) * 1e9, one.mem_bw)
    assert (tmp_path / "points.svg").stat().st_size > 5_000


@pytest.mark.slow
def test_bars_are_the_elasticities(helped, tmp_path):
    drawn = plots.elasticities(helped, path=str(tmp_path / "bars.png"))
    assert [axes.get_title().split(":")[0] for axes in drawn.axes] == ["batch 1", "batch 256"]
    labels = [tick.get_text() for tick in drawn.axes[0].get_yticklabels()]
    assert labels[-1] == "share"
    for name, bar in zip(labels[:-1], drawn.axes[0].patches, strict=False):
        expected = float(helped.latency_elasticity.sel(parameter=name).isel(batch=0))
        assert isinstance(bar, Rectangle)
        assert bar.get_width() == pytest.approx(expected)
    assert (tmp_path / "bars.png").stat().st_size > 10_000


def test_other_datasets_are_refused(needed, helped):
    with pytest.raises(ValueError, match=r"gz\.require"):
        plots.requirement(helped)
    with pytest.raises(ValueError, match="elasticities"):
        plots.elasticities(needed)
    with pytest.raises(ValueError, match="speed"):
        plots.requirement(needed, x="speed")
    with pytest.raises(ValueError, match="tpot"):
        plots.elasticities(helped, "tpot")
