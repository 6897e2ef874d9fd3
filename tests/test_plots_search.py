"""Plots of a search: what is drawn is what was found."""

import numpy as np
import pytest

import genz_jax as gz
from genz_jax import plots
from genz_jax.questions.search.result import SearchResult

LOAD = gz.Workload(1, 1024, 64)


@pytest.fixture(scope="module")
def found() -> SearchResult:
    return gz.search("llama-3.1-8b", "H100-SXM", LOAD, chips=range(1, 9), cost=2.0, slo=gz.SLO(ttft="100 ms"),
                     progress=False)  # fmt: skip


def line(drawn, label: str) -> tuple[np.ndarray, np.ndarray]:
    (axes,) = drawn.axes
    (one,) = [at for at in axes.lines if str(at.get_label()).startswith(label)]
    return np.asarray(one.get_xdata()), np.asarray(one.get_ydata())


@pytest.mark.slow
def test_the_front_is_drawn_and_named(found, tmp_path):
    path = tmp_path / "front.png"
    drawn = plots.front(found, path=str(path))
    assert path.stat().st_size > 10_000
    best = found.pareto(slo=True)
    x, y = line(drawn, "front that meets the SLO")
    np.testing.assert_allclose(x, best.interactivity.values)
    np.testing.assert_allclose(y, best.throughput_per_device.values)
    (axes,) = drawn.axes
    assert "tokens/s" in axes.get_xlabel()
    assert "more is better" in axes.get_ylabel()
    names = {text.get_text() for text in axes.texts}
    sizes = {f"TP{int(t)}" for t in best.tp.values}
    assert 2 <= len(names) <= 7
    assert all(name.split()[0] in sizes | {f"PP{int(p)}" for p in best.pp.values} | {
        f"DP{int(p)}" for p in best.dp.values} for name in names)  # fmt: skip
    star = next(at for at in axes.lines if at.get_marker() == "*")
    assert found.best is not None
    assert float(np.ravel(star.get_xdata())[0]) == pytest.approx(float(found.best.interactivity))
    dots = sum(np.shape(c.get_offsets())[0] for c in axes.collections)
    assert dots == int(found.dataset["feasible"].values.sum())


def test_names_do_not_cover_each_other(found):
    drawn = plots.front(found)
    (axes,) = drawn.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_cost_against_latency_is_in_dollars_and_milliseconds(found):
    drawn = plots.cost_and_latency(found)
    best = found.pareto({"tpot": "min", "cost_per_million_tokens": "min"}, slo=True)
    x, y = line(drawn, "front that meets the SLO")
    np.testing.assert_allclose(x, best.tpot.values * 1e3, rtol=1e-6)
    np.testing.assert_allclose(y, best.cost_per_million_tokens.values, rtol=1e-6)
    assert "(ms)" in drawn.axes[0].get_xlabel()
    assert "(USD)" in drawn.axes[0].get_ylabel()


def test_the_best_of_each_size_is_the_best_of_each_size(found):
    drawn = plots.best_by_size(found)
    d = found.dataset
    x, y = line(drawn, "best whatever")
    for n, value in zip(x, y, strict=True):
        rows = (d.devices.values == n) & d.feasible.values
        assert value == pytest.approx(d.throughput_per_device.values[rows].max())
    x, y = line(drawn, "best that meets")
    for n, value in zip(x, y, strict=True):
        rows = (d.devices.values == n) & d.meets_slo.values
        assert np.isnan(value) if not rows.any() else value == pytest.approx(d.throughput_per_device.values[rows].max())


@pytest.mark.slow
def test_what_cannot_be_drawn(found):
    with pytest.raises(ValueError, match="figure 'speed': must be one of"):
        plots.front(found, y="speed")
    one = gz.search("llama-3.1-8b", "H100-SXM", LOAD, chips=1, batch=4, progress=False)
    with pytest.raises(ValueError, match="search several, chips="):
        plots.best_by_size(one)
    none = gz.search("llama-3.1-405b", "H100-SXM", LOAD, chips=1, batch=4, progress=False)
    with pytest.raises(ValueError, match="no candidate of the search runs"):
        plots.front(none)
