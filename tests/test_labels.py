import datetime
import json

import matplotlib
import numpy as np
import pint
import pytest
import xarray as xr

import genz_jax as gz

matplotlib.use("Agg")
CHIP = gz.platform("H100-SXM")
MODELS = ["llama-2-7b", "gpt2"]
QUICK = {"stage": "decode", "progress": False}


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    """A sweep with axes of every part, and infeasible points."""
    return gz.sweep(
        MODELS,
        CHIP.replace(mem_bw=gz.geomspace("1 TB/s", "4 TB/s", 3), link_bw=gz.axis(["100 GB/s", "450 GB/s"])),
        gz.Workload(batch=gz.axis([1, 512])),
        gz.Parallelism(tp=gz.axis([1, 2, 8])),
        breakdown=True,
        progress=False,
    )


@pytest.fixture(scope="module")
def details() -> xr.Dataset:
    """A decode step with figures of every operator."""
    chip = CHIP.replace(mem_bw=gz.axis([1e12, 2e12, 4e12]))
    return gz.sweep(MODELS, chip, None, gz.Parallelism(tp=gz.axis([1, 2])), breakdown=True, operators=True, **QUICK)


# ------------------------------------------------------------------------------------------- units and descriptions


@pytest.fixture(scope="module")
def ureg() -> pint.UnitRegistry:
    registry = pint.UnitRegistry()
    for name in ("flop", "token", "request"):
        registry.define(f"{name} = [{name}]")
    return registry


@pytest.mark.slow
@pytest.mark.parametrize("which", ["ds", "details"])
def test_every_variable_and_coordinate_says_what_it_is(which, ureg, request):
    dataset = request.getfixturevalue(which)
    for name, variable in dataset.variables.items():
        assert variable.attrs["long_name"], name
        if variable.dtype.kind == "U":
            continue
        unit = variable.attrs["units"]
        ureg.Quantity(1.0, "" if unit == "1" else unit.replace("-1", "**-1").replace(" ", "*"))


def test_coordinates_are_the_axes(ds):
    np.testing.assert_array_equal(ds.mem_bw, np.geomspace(1e12, 4e12, 3))
    np.testing.assert_array_equal(ds.link_bw, [100e9, 450e9])
    np.testing.assert_array_equal(ds.model, MODELS)
    np.testing.assert_array_equal(ds.batch, [1, 512])
    assert ds.mem_bw.attrs["units"] == "byte s-1"
    assert ds.link_bw.attrs["units"] == "byte s-1"
    assert set(ds.indexes) == {"model", "mem_bw", "link_bw", "batch", "tp", "component"}


def test_codes_have_flags(ds):
    for name in ("bound", "prefill_bound", "decode_bound", "reason"):
        attrs = ds[name].attrs
        meanings = attrs["flag_meanings"].split()
        assert ds[name].dtype == np.int8
        np.testing.assert_array_equal(attrs["flag_values"], range(len(meanings)))
        assert len(attrs["flag_descriptions"].split("; ")) == len(meanings)
        assert set(np.unique(ds[name])) <= set(range(len(meanings)))
    assert ds.bound.attrs["flag_meanings"] == "compute memory network none"


def test_words(ds):
    words = gz.words(ds.reason)
    assert words.dims == ds.reason.dims
    assert set(np.unique(words)) == {"feasible", "heads_not_divisible", "does_not_fit"}
    assert (words.sel(model="gpt2", tp=8) == "heads_not_divisible").all()
    assert "flag_values" not in words.attrs
    assert words.attrs["long_name"] == ds.reason.attrs["long_name"]
    assert gz.words(ds.bound.isel(model=0, mem_bw=0, link_bw=0, batch=0, tp=0)).item() in ("compute", "memory")


# ------------------------------------------------------------------------------------------------------- attributes


def test_attributes_say_all_that_went_in(ds):
    attrs = ds.attrs
    assert attrs["stage"] == "request"
    assert attrs["title"] == "genz_jax request: llama-2-7b, gpt2 on H100-SXM"
    assert attrs["model_name"] == "llama-2-7b, gpt2"
    assert attrs["platform_name"] == "H100-SXM"
    assert attrs["precision_name"] == "bf16"
    assert attrs["genz_jax_version"] == gz.__version__
    assert attrs["jax_version"][0].isdigit()
    assert datetime.datetime.fromisoformat(attrs["created"]).tzinfo is not None
    assert all(isinstance(value, str) for value in attrs.values())


def test_assumptions_of_the_attributes_can_be_used_again(ds):
    assert gz.Assumptions(**json.loads(ds.attrs["assumptions"])) == gz.Assumptions()
    smooth = gz.Assumptions(smooth=0.1)
    again = gz.sweep("gpt2", CHIP, assumptions=smooth, figures=["latency"], **QUICK)
    assert gz.Assumptions(**json.loads(again.attrs["assumptions"])) == smooth


def test_the_case_of_the_attributes_has_every_number(ds):
    case = json.loads(ds.attrs["case"])
    assert set(case) == {"model", "platform", "workload", "parallelism", "precision", "engine"}
    assert case["platform"]["flops"] == 989.4e12
    assert case["platform"]["mem_bw"] == {"dims": ["mem_bw"], "size": 3}
    assert case["platform"]["network"][0]["bandwidth"] == {"dims": ["link_bw"], "size": 2}
    assert case["platform"]["network"][1]["size"] == 16384
    assert case["model"]["attention"]["heads"] == {"dims": ["model"], "size": 2}
    assert case["workload"]["input_tokens"] == 1024
    assert case["precision"]["weights"] == 2


@pytest.mark.slow
def test_the_draft_is_in_the_attributes():
    speculation = gz.Speculation(gz.model("opt-125m"), gz.axis([2, 4]), 0.8)
    result = gz.sweep(
        "gpt2-xl", CHIP, stage="speculative_decode", speculation=speculation, figures=["latency"], progress=False
    )
    case = json.loads(result.attrs["case"])
    assert case["speculation"]["draft"]["hidden_size"] == 768
    assert case["speculation"]["tokens"] == {"dims": ["tokens"], "size": 2}
    assert any("opt-125m" in text for text in result.attrs.values())


# ------------------------------------------------------------------------------------------------------- dimensions


def test_figures_have_the_dimensions_they_depend_on(ds):
    everything = {"model", "mem_bw", "link_bw", "batch", "tp"}
    assert dict(ds.sizes) == {"model": 2, "mem_bw": 3, "link_bw": 2, "batch": 2, "tp": 3, "component": 14}
    assert set(ds.ttft.dims) == set(ds.tpot.dims) == set(ds.energy.dims) == everything
    assert set(ds.weights.dims) == {"model", "tp"}
    assert set(ds.kv_cache.dims) == {"model", "batch", "tp"}
    assert set(ds.devices.dims) == {"tp"}
    assert set(ds.feasible.dims) == {"model", "batch", "tp"}
    assert set(ds.prefill_breakdown.dims) == everything | {"component"}


def test_dimensions_are_in_the_order_of_the_fields(ds):
    order = ("model", "link_bw", "mem_bw", "batch", "tp", "component")
    for name, variable in ds.variables.items():
        places = [order.index(dim) for dim in variable.dims if dim not in ("mem_bw", "link_bw")]
        assert places == sorted(places), name
    assert ds.ttft.dims == ("model", "mem_bw", "link_bw", "batch", "tp")
    assert ds.prefill_breakdown.dims[-1] == "component"


@pytest.mark.slow
def test_axes_of_one_value_keep_their_dimension_where_it_matters():
    platform = CHIP.replace(mem_bw=gz.axis(["2 TB/s"]))
    one = gz.sweep("gpt2", platform, gz.Workload(batch=gz.axis([4])), gz.Parallelism(tp=gz.axis([1])), **QUICK)
    assert dict(one.sizes) == {"mem_bw": 1, "batch": 1, "tp": 1}
    assert set(one.latency.dims) == {"mem_bw", "batch", "tp"}
    assert set(one.weights.dims) == {"tp"}
    assert set(one.kv_cache.dims) == {"batch", "tp"}
    point = gz.sweep("gpt2", platform.replace(mem_bw="2 TB/s"), gz.Workload(batch=4), **QUICK)
    for name in point:
        np.testing.assert_allclose(one[name].squeeze(), point[name], rtol=1e-12)


def test_no_axes_make_a_point():
    point = gz.sweep("gpt2", CHIP, **QUICK)
    assert dict(point.sizes) == {}
    assert all(variable.shape == () for variable in point.values())
    assert float(point.latency) > 0


@pytest.mark.slow
def test_zipped_axes_share_a_dimension_and_crossed_ones_do_not():
    bandwidths, rates = [1e12, 2e12, 3e12], [1e14, 2e14, 3e14]
    figures = {"figures": ["latency"], **QUICK}
    crossed = gz.sweep("gpt2", CHIP.replace(mem_bw=gz.axis(bandwidths), flops=gz.axis(rates)), **figures).latency
    both = CHIP.replace(mem_bw=gz.axis(bandwidths, dim="chip"), flops=gz.axis(rates, dim="chip"))
    zipped = gz.sweep("gpt2", both, **figures).latency
    assert dict(crossed.sizes) == {"flops": 3, "mem_bw": 3}
    assert dict(zipped.sizes) == {"chip": 3}
    np.testing.assert_allclose(zipped, np.diagonal(crossed.transpose("mem_bw", "flops")), rtol=1e-12)
    assert zipped.coords["mem_bw"].dims == zipped.coords["flops"].dims == ("chip",)
    np.testing.assert_array_equal(zipped.mem_bw, bandwidths)
    np.testing.assert_array_equal(zipped.flops, rates)


def test_zipped_axes_of_like_named_fields_both_have_a_coordinate():
    depth = {"attention.layers": gz.axis([6, 12], "depth"), "ffn.layers": gz.axis([5, 11], "depth")}
    model = gz.model("gpt2").replace(**depth)
    found = gz.sweep(model, CHIP, figures=["latency"], **QUICK)
    values = [found.coords[name].values.tolist() for name in found.coords]
    assert sorted(values) == [[5, 11], [6, 12]]


@pytest.mark.slow
def test_an_axis_zipped_with_a_list():
    chips = ["H100-SXM", "H200", "MI300X"]
    batches = gz.axis([1, 2, 4], dim="platform")
    found = gz.sweep("gpt2", chips, gz.Workload(batch=batches), figures=["latency"], **QUICK)
    assert found.latency.dims == ("platform",)
    np.testing.assert_array_equal(found.batch, [1, 2, 4])
    for i, chip in enumerate(chips):
        alone = gz.estimate("gpt2", chip, gz.Workload(batch=[1, 2, 4][i]), stage="decode")
        assert float(found.latency.sel(platform=chip)) == pytest.approx(float(alone.latency), rel=1e-12)


@pytest.mark.slow
def test_a_labelled_array_brings_its_dimensions_and_labels():
    bandwidth = xr.DataArray(
        np.arange(1.0, 7.0).reshape(2, 3),
        dims=("vendor", "year"),
        coords={"vendor": ["a", "b"], "year": [2024, 2025, 2026]},
        attrs={"units": "TB/s"},
    )
    capacity = xr.DataArray([80.0, 96.0, 128.0], dims="year", attrs={"units": "GB"})
    found = gz.sweep("gpt2", CHIP.replace(mem_bw=bandwidth, mem_capacity=capacity), figures=["latency"], **QUICK)
    assert dict(found.sizes) == {"vendor": 2, "year": 3}
    np.testing.assert_array_equal(found.vendor, ["a", "b"])
    np.testing.assert_array_equal(found.year, [2024, 2025, 2026])
    assert found.coords["mem_bw"].dims == ("vendor", "year")
    np.testing.assert_allclose(found.coords["mem_bw"], bandwidth * 1e12)
    assert found.coords["mem_bw"].attrs["units"] == "byte s-1"
    assert found.coords["mem_capacity"].dims == ("year",)
    flat = CHIP.replace(mem_bw=gz.axis((bandwidth.values * 1e12).ravel()))
    expected = gz.sweep("gpt2", flat, figures=["latency"], **QUICK).latency.values.reshape(2, 3)
    np.testing.assert_allclose(found.latency.transpose("vendor", "year"), expected, rtol=1e-12)


def test_real_chips_on_one_dimension_keep_their_numbers():
    names = ["mine", "yours"]
    bandwidth = xr.DataArray([1e12, 2e12], dims="platform", coords={"platform": names})
    rate = xr.DataArray([1e14, 2e14], dims="platform", coords={"platform": names})
    found = gz.sweep("gpt2", CHIP.replace(mem_bw=bandwidth, flops=rate), figures=["latency"], **QUICK)
    assert found.latency.dims == ("platform",)
    np.testing.assert_array_equal(found.platform, names)
    np.testing.assert_array_equal(found.coords["mem_bw"], [1e12, 2e12])
    np.testing.assert_array_equal(found.coords["flops"], [1e14, 2e14])


def test_labels_keep_their_own_description():
    cost = xr.DataArray([20e3, 30e3], dims="cost", attrs={"units": "USD", "long_name": "price of a card"})
    bandwidth = xr.DataArray([1e12, 2e12], dims="cost", coords={"cost": cost})
    found = gz.sweep("gpt2", CHIP.replace(mem_bw=bandwidth), figures=["latency"], **QUICK)
    assert found.cost.attrs == {"units": "USD", "long_name": "price of a card"}


# -------------------------------------------------------------------------------------------- components, operators


def test_components_add_up(ds, details):
    for whole, parts in ((ds.ttft, ds.prefill_breakdown), (ds.tpot, ds.decode_breakdown)):
        xr.testing.assert_allclose(parts.sum("component", skipna=False), whole, rtol=1e-9)
    xr.testing.assert_allclose(details.breakdown.sum("component", skipna=False), details.latency, rtol=1e-9)
    assert all(text for text in details.component_description.values)


def test_operators_add_up(details):
    for whole in ("latency", "compute_time", "memory_time", "network_time"):
        total = details[f"operator_{whole}"].sum("operator", skipna=False)
        feasible = details.feasible.broadcast_like(total)
        xr.testing.assert_allclose(total.where(feasible), details[whole].broadcast_like(total), rtol=1e-9)
    assert len(set(details.operator.values)) == details.sizes["operator"]
    assert (gz.words(details.operator_bound) == "network").any()


def test_infeasible_points_are_nan_and_say_why(ds):
    for name in ("ttft", "tpot", "latency", "throughput", "throughput_per_device", "interactivity", "energy"):
        known = ds[name].notnull()
        xr.testing.assert_equal(known, ds.feasible.broadcast_like(known))
    for name in ("weights", "kv_cache", "memory", "devices"):
        assert ds[name].notnull().all()
    xr.testing.assert_equal(ds.feasible, ds.reason == 0)
    assert 0 < int(ds.feasible.sum()) < ds.feasible.size


def test_a_plot_of_a_slice(ds):
    from matplotlib import pyplot as plt

    lines = ds.tpot.sel(model="llama-2-7b", batch=1, tp=8, link_bw=450e9).plot()
    np.testing.assert_allclose(lines[0].get_xdata(), ds.mem_bw)
    assert "memory bandwidth" in plt.gca().get_xlabel()
    assert "time per output token" in plt.gca().get_ylabel()
    plt.close()
    mesh = ds.tpot.sel(model="llama-2-7b", batch=1, tp=8).plot(x="mem_bw", y="link_bw")
    assert mesh.get_array().size == 6
    plt.close()
