import numpy as np
import pytest
import xarray as xr
from hypothesis import given, strategies as st

import genz_jax as gz
from genz_jax.base import units

counts = st.integers(1, 50)


@given(start=st.floats(-1e6, 1e6), stop=st.floats(-1e6, 1e6), num=counts)
def test_linspace_is_numpys(start, stop, num):
    np.testing.assert_array_equal(gz.linspace(start, stop, num).values, np.linspace(start, stop, num))


@given(start=st.floats(1e-6, 1e15), stop=st.floats(1e-6, 1e15), num=counts)
def test_geomspace_is_numpys(start, stop, num):
    np.testing.assert_array_equal(gz.geomspace(start, stop, num).values, np.geomspace(start, stop, num))


def test_ends_as_text():
    line = gz.linspace("1 TB/s", "2 TB/s", 5)
    np.testing.assert_allclose(line.values, np.linspace(1e12, 2e12, 5), rtol=1e-15)
    assert line.unit == units.BYTE_RATE
    curve = gz.geomspace("100 TFLOP/s", "10 PFLOPS", 7)
    np.testing.assert_allclose(curve.values, np.geomspace(1e14, 1e16, 7), rtol=1e-15)
    assert curve.unit == units.FLOP_RATE
    assert curve.values[0] == 1e14
    assert curve.values[-1] == 1e16


def test_values_as_text():
    axis = gz.axis(["80 GB", "80 GiB", "0.1 TB"])
    np.testing.assert_array_equal(axis.values, [80e9, 80 * 2**30, 1e11])
    assert axis.unit == units.BYTE


@pytest.mark.parametrize(
    "values", [[1, 8, 64], (1, 8, 64), np.array([1, 8, 64]), range(1, 4), np.array([1, 2], np.float32)]
)
def test_values_of_many_kinds(values):
    axis = gz.axis(values)
    np.testing.assert_array_equal(axis.values, np.asarray(values, float))
    assert axis.values.dtype == np.float64
    assert axis.unit is None
    assert len(axis) == len(values)


def test_the_same_axis_may_stand_in_two_fields():
    axis = gz.axis([1, 2, 4])
    workload = gz.Workload(batch=axis, beams=axis)
    np.testing.assert_array_equal(workload.batch.values, workload.beams.values)
    assert axis.dims is None


def test_a_name_for_the_dimension():
    assert gz.axis([1, 2], dim="case").dims == ("case",)
    assert gz.axis([1, 2], "case").dims == ("case",)
    assert gz.linspace(1, 2, 3, dim="case").dims == gz.geomspace(1, 2, 3, dim="case").dims == ("case",)


def test_a_labelled_array_keeps_its_dimensions_and_labels():
    array = xr.DataArray(
        [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
        dims=("vendor", "generation"),
        coords={"vendor": ["a", "b"], "generation": [1, 2, 3]},
        attrs={"units": "TB/s"},
    )
    axis = gz.platform("H100-SXM").replace(mem_bw=array).mem_bw
    assert axis.dims == ("vendor", "generation")
    np.testing.assert_array_equal(axis.values, array.values * 1e12)
    np.testing.assert_array_equal(axis.coords["vendor"], ["a", "b"])
    np.testing.assert_array_equal(axis.coords["generation"], [1, 2, 3])


@pytest.mark.parametrize(
    ("text", "factor"),
    [("byte s-1", 1.0), ("B/s", 1.0), ("GB/s", 1e9), ("GiB/s", 2.0**30), ("Gbps", 0.125e9), (None, 1.0)],
)
def test_units_of_a_labelled_array(text, factor):
    attrs = {} if text is None else {"units": text}
    array = xr.DataArray([2e6, 3e6], dims="x", attrs=attrs)
    axis = gz.platform("H100-SXM").replace(mem_bw=array).mem_bw
    np.testing.assert_allclose(axis.values, array.values * factor, rtol=1e-15)


@pytest.mark.parametrize("text", ["1", "dimensionless"])
def test_a_labelled_array_without_dimension(text):
    array = xr.DataArray([1.0, 2.0], dims="x", attrs={"units": text})
    np.testing.assert_array_equal(gz.Workload(batch=array).batch.values, [1, 2])


def test_a_sweeps_own_coordinate_is_a_fine_axis():
    # Coordinates of a result carry units in the spelling of the CF conventions.
    for unit, field in ((units.BYTE_RATE, "mem_bw"), (units.FLOP_RATE, "flops"), (units.BYTE, "mem_capacity")):
        array = xr.DataArray([1e12, 2e12], dims=field, attrs={"units": unit})
        axis = getattr(gz.platform("H100-SXM").replace(**{field: array}), field)
        np.testing.assert_array_equal(axis.values, array.values)


def test_axis_shows_dims_and_values():
    assert repr(gz.axis([1, 2], "batch")) == "Axis(batch: [1. 2.])"
    assert len(repr(gz.linspace(1, 1000, 1000))) < 100


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: gz.axis([]), "at least one"),
        (lambda: gz.axis(np.array([])), "at least one"),
        (lambda: gz.axis([], dim="batch"), "at least one"),
        (lambda: gz.axis("1, 2, 3"), r"list of values.*gz\.axis\(\["),
        (lambda: gz.axis([["1"]]), "DataArray"),
        (lambda: gz.axis(np.ones((2, 2))), "DataArray"),
        (lambda: gz.axis(["1 TB/s", "80 GB"]), "different units.*byte"),
        (lambda: gz.axis(["1 TB/s", "fast"]), "'fast'"),
        (lambda: gz.axis([1, None]), "None"),
        (lambda: gz.linspace(0, 1, 0), "num = 0.*at least 1"),
        (lambda: gz.linspace(0, 1, -3), "num = -3.*at least 1"),
        (lambda: gz.geomspace(1, 2, 0), "num = 0.*at least 1"),
        (lambda: gz.linspace("1 TB/s", "80 GB", 3), "different units"),
        (lambda: gz.geomspace(0, 1, 3), "above 0.*linspace"),
        (lambda: gz.geomspace("-1 GB/s", "1 GB/s", 3), "above 0.*linspace"),
        (lambda: gz.platform("H100-SXM").replace(mem_bw=gz.axis(["1 GB"])), "mem_bw.*'byte'.*'byte s-1'"),
        (lambda: gz.Workload(batch=xr.DataArray([1.0], dims="x", attrs={"units": "GB"})), "batch.*byte"),
        (lambda: gz.Workload(batch=xr.DataArray([1.0], dims="x", attrs={"units": "furlong"})), "furlong"),
        (lambda: gz.Workload(batch=xr.DataArray(4.0)), "dimension"),
    ],
)
def test_errors(make, words):
    with pytest.raises(ValueError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
