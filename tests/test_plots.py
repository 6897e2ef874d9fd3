"""Plots show the data they are given, with units, and write whole files."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def space():
    import genz_jax as gz

    chip = gz.platform("H100-SXM").replace(
        mem_capacity="192 GB",
        flops=gz.geomspace("100 TFLOP/s", "10 PFLOP/s", 12),
        mem_bw=gz.geomspace("500 GB/s", "20 TB/s", 16),
    )
    spread = gz.Parallelism(tp=gz.axis([1, 8]))
    return gz.sweep(["llama-3.1-8b", "llama-3.1-70b"], chip, gz.Workload(32, 2048, 256), spread, stage="decode")


@pytest.mark.slow
def test_map_has_a_panel_per_combination_and_the_swept_values(space):
    from genz_jax import plots

    drawn = plots.plot(space, "latency")
    panels = [axes for axes in drawn.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == [
        "llama-3.1-8b, tp 1",
        "llama-3.1-70b, tp 1",
        "llama-3.1-8b, tp 8",
        "llama-3.1-70b, tp 8",
    ]
    assert {axes.get_xlabel() for axes in panels} == {"memory bandwidth (TB/s)"}
    assert {axes.get_ylabel() for axes in panels} == {"peak dense 16-bit rate (PFLOP/s)"}
    mesh = panels[3].collections[0].get_array()
    assert mesh is not None
    expected = space.latency.sel(model="llama-3.1-70b", tp=8).transpose("flops", "mem_bw").values * 1e3
    np.testing.assert_allclose(np.ma.filled(mesh, np.nan), expected, rtol=1e-6)
    tags = {text.get_text() for text in panels[0].texts}
    assert {"A100", "H100", "MI300X"} <= {name for tag in tags for name in tag.replace("\n", "/").split("/")}


def test_curves_draw_one_line_per_combination(space):
    from genz_jax import plots

    drawn = plots.curves(space.isel(flops=-1), "throughput", "mem_bw")
    (axes,) = drawn.axes
    assert len(axes.lines) == 4
    np.testing.assert_allclose(np.asarray(axes.lines[0].get_xdata()), space.mem_bw.values / 1e12)
    first = axes.lines[0]
    assert first.get_label() == "llama-3.1-8b, tp 1"
    np.testing.assert_allclose(np.asarray(first.get_ydata()), space.throughput.isel(flops=-1, model=0, tp=0).values)


def test_points_that_do_not_run_are_left_blank():
    import genz_jax as gz
    from genz_jax import plots

    chip = gz.platform("H100-SXM").replace(
        mem_capacity=gz.geomspace("10 GB", "400 GB", 12), mem_bw=gz.geomspace("1 TB/s", "10 TB/s", 11)
    )
    drawn = plots.plot(gz.sweep("llama-3.1-70b", chip, stage="decode"), "latency")
    mesh = drawn.axes[0].collections[0].get_array()
    assert mesh is not None
    assert np.ma.getmaskarray(mesh).any()
    assert not np.ma.getmaskarray(mesh).all()


@pytest.mark.first(1)
@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_files_are_written_whole(space, tmp_path, ending):
    from genz_jax import plots

    path = tmp_path / f"map.{ending}"
    plots.plot(space, "latency", str(path))
    assert path.stat().st_size > 10_000
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("figure", "path", "words"),
    [
        ("speed", None, ["'speed'", "latency"]),
        ("latency", "map.jpg", ["map.jpg", ".png"]),
        ("latency", "missing/map.png", ["missing", "does not exist"]),
    ],
)
def test_bad_requests_say_what_is_wrong(space, tmp_path, monkeypatch, figure, path, words):
    from genz_jax import plots

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words[0]) as error:
        plots.plot(space, figure, path)
    message = str(error.value)
    assert all(word in message for word in words)
    assert "\n" not in message
    assert not list(tmp_path.iterdir())
