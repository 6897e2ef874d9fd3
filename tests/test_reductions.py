"""Reductions of a grid are those of the whole grid, whatever the blocks, and hold no more than the blocks."""

import signal
import subprocess
import sys
import warnings
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr

import genz_jax as gz
from genz_jax.grid import shape
from genz_jax.reduce import accumulators, quantiles, walk as reduce
from genz_jax.reduce.pareto import front_mask

CHIP = gz.platform("H100-SXM").replace(
    mem_bw=gz.geomspace("1 TB/s", "20 TB/s", 13), flops=gz.geomspace("100 TFLOP/s", "5 PFLOP/s", 11)
)
GIVEN: dict[str, Any] = {
    "model": ["llama-3.1-8b", "mixtral-8x7b"],
    "platform": CHIP,
    "workload": gz.Workload(batch=gz.axis([1, 8, 64]), input_tokens=512, output_tokens=64),
    "parallelism": gz.Parallelism(tp=gz.axis([1, 2, 3])),  # three ranks do not divide the heads
    "precision": "fp8",
    "progress": False,
}
FIGURES = ["ttft", "tpot", "throughput", "energy", "memory"]
LIMIT = gz.SLO(tpot="5 ms", ttft="600 ms")


@pytest.fixture(scope="module")
def whole() -> xr.Dataset:
    return gz.sweep(**GIVEN)


@pytest.fixture(scope="module")
def good(whole: xr.Dataset) -> xr.DataArray:
    return whole.feasible & (whole.tpot <= 5e-3) & (whole.ttft <= 0.6)


@pytest.fixture(params=[37, pytest.param(100, marks=pytest.mark.slow), pytest.param(None, marks=pytest.mark.slow)])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of the usual length, and short ones that divide no axis."""
    if request.param is not None:
        monkeypatch.setattr(shape, "CPU", shape.Blocking(request.param, 5))


def ask(reduction: Any, slo: gz.SLO | None = LIMIT, **options: Any) -> Any:
    return gz.sweep(**{**GIVEN, **options}, reduce=reduction, slo=slo, figures=FIGURES)


@pytest.mark.slow
def test_best_of_all_is_the_least_of_the_whole_and_lies_where_it_says(cut, whole, good):
    found = ask(gz.Best("tpot"))
    assert float(found.tpot) == pytest.approx(float(whole.tpot.where(good).min()), rel=1e-12)
    for name in FIGURES:
        place = {dim: found[dim].item() for dim in whole[name].dims}
        assert float(found[name]) == pytest.approx(float(whole[name].sel(place)), rel=1e-12)
    assert bool(found.found)
    assert found.attrs["complete"] == 1
    assert found.attrs["points"] == found.attrs["points_done"] == good.size


@pytest.mark.slow
@pytest.mark.parametrize("over", [["tp", "batch"], "mem_bw", ["model", "flops", "tp"], ["mem_bw", "flops"]])
def test_best_over_some_dimensions_at_every_place_of_the_others(cut, whole, good, over):
    found = ask(gz.Best("throughput", over))
    named = [over] if isinstance(over, str) else over
    expected = whole.throughput.where(good).max(named)
    found = found.transpose(*expected.dims)
    np.testing.assert_allclose(found.throughput, expected, rtol=1e-12)
    np.testing.assert_array_equal(found.found, good.any(named).transpose(*expected.dims))
    for dim in named:  # the coordinates lead to the values
        assert found[dim].dims == expected.dims
    for index in np.ndindex(*expected.shape):
        at = dict(zip(expected.dims, index, strict=True))
        if not found.found.values[index]:
            assert np.isnan(found.throughput.values[index])
            continue
        place = {dim: found[dim].isel(at).item() for dim in named}
        assert float(whole.throughput.isel(at).sel(place)) == pytest.approx(float(expected.isel(at)), rel=1e-12)


def test_top_k_are_the_first_of_all_sorted(cut, whole, good):
    found = ask(gz.TopK("energy", 25))
    values = np.sort(whole.energy.where(good).values.ravel())[:25]
    np.testing.assert_allclose(found.energy, values, rtol=1e-12)
    assert found["rank"].values.tolist() == list(range(1, 26))
    places = [tuple(found[dim].values[i] for dim in whole.energy.dims) for i in range(25)]
    assert len(set(places)) == 25
    for place, value in zip(places, values, strict=True):
        assert float(whole.energy.sel(dict(zip(whole.energy.dims, place, strict=True)))) == pytest.approx(value)


@pytest.mark.slow
def test_more_than_there_are(cut, good):
    found = ask(gz.TopK("energy", 10**6))
    assert found.sizes["rank"] == int(good.sum())


@pytest.mark.slow
@pytest.mark.parametrize(
    "objectives",
    [
        {"ttft": "min", "throughput": "max"},
        pytest.param({"tpot": None, "energy": None, "memory": None}, marks=pytest.mark.slow),
        pytest.param({"ttft": None, "tpot": None, "energy": None, "throughput": None}, marks=pytest.mark.slow),
    ],
)
def test_fronts_are_those_of_the_whole(cut, whole, good, objectives):
    found = ask(gz.ParetoFront(objectives))
    signs = {name: -1.0 if name == "throughput" else 1.0 for name in objectives}
    columns = [(sign * whole[name]).where(good).transpose(*good.dims).values.ravel() for name, sign in signs.items()]
    values = np.stack(columns, axis=1)
    expected = np.unique(values[front_mask(values)], axis=0)
    mine = np.stack([sign * found[name].values for name, sign in signs.items()], axis=1)
    np.testing.assert_allclose(np.unique(mine, axis=0), expected, rtol=1e-12)
    assert len(mine) == len(expected)
    assert (np.diff(mine[:, 0]) >= 0).all()


@pytest.mark.first(1)
@pytest.mark.parametrize("over", [None, ["mem_bw", "flops"], ["tp", "batch", "model"]])
@pytest.mark.parametrize("sorted_up_to", [1, pytest.param(2**22, marks=pytest.mark.slow)])
def test_quantiles_are_numpys(cut, whole, good, over, sorted_up_to, monkeypatch):
    monkeypatch.setattr(quantiles, "SORTED", sorted_up_to)
    if sorted_up_to == 1 and over == ["tp", "batch", "model"]:
        over = ["tp", "batch", "model", "flops"]  # one selection for each place that is left
    q = [0.0, 0.1, 0.5, 0.73, 1.0]
    found = ask(gz.Quantiles("latency", q, over))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where no point is good
        expected = whole.latency.where(good).quantile(q, over, skipna=True)
    np.testing.assert_allclose(found.latency.transpose(*expected.dims), expected, rtol=1e-12)
    counts = good.sum(over)
    np.testing.assert_array_equal(found["count"].transpose(*counts.dims), counts)


@pytest.mark.slow
def test_quantiles_of_single_precision():
    with jax.enable_x64(False):
        found = ask(gz.Quantiles("latency"), None)
        values = gz.sweep(**GIVEN).latency.values
    np.testing.assert_allclose(found.latency, np.nanquantile(values.astype(float), found["quantile"]), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("over", [None, "batch", ["mem_bw", "flops", "tp"]])
def test_fractions_count_what_meets_the_objective(cut, good, over):
    found = ask(gz.Fraction(over))
    expected = good.mean(over)
    np.testing.assert_allclose(found.fraction.transpose(*expected.dims), expected, rtol=1e-12)
    assert (found.points == good.size // expected.size).all()


@pytest.mark.slow
def test_many_at_once_and_limits_as_axes(cut, whole):
    limits = np.array([2e-3, 5e-3, 1.0])
    reductions = {"best": gz.Best("ttft", ["tp", "batch"]), "share": gz.Fraction(["tp", "batch"]), "k": gz.TopK("ttft")}
    found = ask(reductions, gz.SLO(tpot=gz.axis(limits)))
    assert list(found) == list(reductions)
    for i, limit in enumerate(limits):
        met = whole.feasible & (whole.tpot <= limit)
        for mine, expected in (
            (found["best"].ttft, whole.ttft.where(met).min(["tp", "batch"])),
            (found["share"].fraction, met.mean(["tp", "batch"])),
        ):
            mine = mine.isel(slo_tpot=i).transpose(*expected.dims)
            np.testing.assert_allclose(mine, expected, rtol=1e-12)


@pytest.mark.slow
def test_objectives_of_cost_and_of_ones_own(whole, good):
    found = ask({"price": gz.Best("system_price"), "own": gz.Best(lambda r, p: r.ttft * r.tpot, sense="max")})
    one = gz.cost(CHIP.replace(mem_bw="1 TB/s", flops="100 TFLOP/s"))
    least = float(found["price"].system_price)
    assert least >= float(one.price)
    place = {dim: found["price"][dim].item() for dim in whole.tpot.dims}
    chip = CHIP.replace(mem_bw=place["mem_bw"], flops=place["flops"])
    assert least == pytest.approx(place["tp"] * float(gz.cost(chip).price), rel=1e-9)
    own = (whole.ttft * whole.tpot).where(good)
    assert float(found["own"]["<lambda>"]) == pytest.approx(float(own.max()), rel=1e-12)


@pytest.mark.slow
def test_nothing_found():
    found = ask(gz.Best("tpot", "batch"), gz.SLO(tpot="1 ns"))
    assert not found.found.any()
    assert np.isnan(found.tpot).all()
    assert np.isnan(found.batch).all()
    several = {"k": gz.TopK("tpot"), "front": gz.ParetoFront({"tpot": "min", "ttft": "min"}), "q": gz.Quantiles("tpot")}
    empty = ask(several, gz.SLO(tpot="1 ns"))
    assert empty["k"].sizes["rank"] == empty["front"].sizes["point"] == 0
    assert np.isnan(empty["q"].tpot).all()


@pytest.mark.slow
def test_one_point():
    found = gz.sweep("gpt2", "H100-SXM", None, reduce=gz.Best("tpot"), progress=False)
    assert float(found.tpot) == pytest.approx(float(gz.estimate("gpt2", "H100-SXM").tpot), rel=1e-12)


@pytest.mark.parametrize(
    ("reduction", "message"),
    [
        ("tpot", "must be one of gz.Best"),
        ({}, "empty mapping"),
        (gz.Best("tpott"), "tpot"),
        (gz.Best("weights_per"), "is no figure"),
        (gz.Best("tpot", "platform"), "the sweep has the dimensions model"),
        (gz.Best("tpot", ["tp", "tp"]), "each dimension once"),
        (gz.Best("tpot", []), "at least one"),
        (gz.Best("tpot", sense="least"), "sense='min'"),
        (gz.Best("bound"), "is no figure"),
        (gz.TopK("tpot", 0), "TopK.k = 0"),
        (gz.ParetoFront({"tpot": "min"}), "two or more"),
        (gz.Quantiles("tpot", [50.0]), "from 0 to 1"),
        (gz.Quantiles("tpot", []), "from 0 to 1"),
        (gz.Fraction("chips"), "the sweep has the dimensions"),
    ],
)
def test_what_cannot_be_asked_is_refused(reduction, message):
    with pytest.raises(ValueError, match=message):
        ask(reduction)


def test_what_goes_with_a_reduction_only():
    with pytest.raises(ValueError, match="without reduce"):
        gz.sweep(**GIVEN, slo=LIMIT)
    with pytest.raises(ValueError, match="limits are of requests"):
        ask(gz.Best("latency"), stage="decode")
    with pytest.raises(ValueError, match="reduction has neither"):
        ask(gz.Best("latency"), None, breakdown=True)


@pytest.mark.slow
def test_one_trace_and_few_bytes_whatever_the_size(monkeypatch):
    from genz_jax.reduce import ranked as points

    seen: list[int] = []
    once = 0
    real = points.evaluate
    monkeypatch.setattr(points, "evaluate", lambda *a: (seen.append(1), real(*a))[1])
    monkeypatch.setattr(shape, "CPU", shape.Blocking(2**10))
    reduce._step.cache_clear()
    points.described.cache_clear()
    points.ranked_points.cache_clear()
    for n in (2, 40):  # blocks of one shape, 5 of them and 100
        chip = CHIP.replace(
            mem_bw=gz.geomspace(1e12, 2e13, 50), flops=gz.geomspace(1e14, 5e15, 50), link_bw=gz.geomspace(1e11, 4e11, n)
        )
        gz.sweep("gpt2", chip, reduce=gz.Best("tpot"), figures=["tpot"], progress=False)
        if n == 2:
            once = len(seen)
    # Traced for the figures' names and the step of a block, whatever the number of blocks.
    assert once == 2
    assert len(seen) == once


@pytest.mark.slow
def test_an_interrupt_returns_what_is_done(monkeypatch):
    monkeypatch.setattr(shape, "CPU", shape.Blocking(100))
    real, calls, before = accumulators.BestPoints.look, [], signal.getsignal(signal.SIGINT)

    def look(self: Any, block: Any, out: Any) -> None:
        calls.append(block)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        real(self, block, out)

    monkeypatch.setattr(accumulators.BestPoints, "look", look)
    with pytest.warns(UserWarning, match="interrupted after"):
        found = ask({"k": gz.TopK("tpot", 3), "share": gz.Fraction()})
    assert 0 < found["k"].attrs["points_done"] < found["k"].attrs["points"]
    assert found["k"].attrs["complete"] == 0
    assert int(found["share"].points) == found["share"].attrs["points_done"]
    assert signal.getsignal(signal.SIGINT) is before


DEVICES = """
import jax
jax.config.update("jax_num_cpu_devices", {devices})
import numpy as np
import genz_jax as gz
from genz_jax.grid import feed, shape
shape.CPU = shape.Blocking(2**19, spread={sharded})
chip = gz.platform("H100-SXM").replace(mem_bw=gz.geomspace(1e12, 2e13, 101), flops=gz.geomspace(1e14, 5e15, 37))
given = dict(model=["gpt2", "opt-125m"], platform=chip, workload=gz.Workload(batch=gz.axis([1, 8])), progress=False)
whole = gz.sweep(**given)
best = gz.sweep(**given, reduce=gz.Best("tpot", ["batch", "mem_bw"]))
share = gz.sweep(**given, reduce=gz.Fraction(), slo=gz.SLO(tpot="100 us"))
cut = feed.Blocks({{"x": np.ones((37, 101))}}, {{"a": 37, "b": 101}}, ("a", "b"), {{"a": 37, "b": 101}})
print(cut.sharding is not None, cut.shape)
np.savez({path!r}, whole=whole.latency.values, bound=whole.bound.values, best=best.tpot.values,
         batch=best.batch.values, share=share.fraction.values)
"""


@pytest.mark.slow
def test_all_devices_give_what_one_gives(tmp_path):
    found = {}
    for devices, sharded in ((1, 2**16), (3, 1)):
        path = str(tmp_path / f"{devices}.npz")
        code = DEVICES.format(devices=devices, sharded=sharded, path=path)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == (["False", "{'a':", "37,", "'b':", "101}"] if devices == 1 else
                                       ["True", "{'a':", "37,", "'b':", "102}"])  # fmt: skip
        found[devices] = np.load(path)
    for name, values in found[1].items():
        np.testing.assert_allclose(found[3][name], values, rtol=1e-6, err_msg=name)
