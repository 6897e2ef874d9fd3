"""Numbers beyond sense, quantities of other packages, and rules between numbers."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pint
import pytest
import xarray as xr

import genz_jax as gz
from genz_jax.base import sense, units
from genz_jax.base.axes import from_labelled
from genz_jax.base.fields import Spec
from genz_jax.machine.capacity import capacity_check
from genz_jax.specs.reasons import Reason

H100 = gz.platform("H100-SXM")
LLAMA = gz.model("llama-3.1-8b")


@pytest.fixture(scope="module")
def ureg() -> pint.UnitRegistry:
    registry = pint.UnitRegistry()
    registry.define("flop = [flop]")
    return registry


BEYOND = {
    "bare TB/s": (lambda: H100.replace(mem_bw=4), r"Platform\.mem_bw = 4: .*did you mean '4 TB/s'\?"),
    "bare GB": (lambda: H100.replace(mem_capacity=80), r"Platform\.mem_capacity = 80: .*did you mean '80 GB'\?"),
    "bare TFLOP/s": (lambda: H100.replace(flops=989), r"Platform\.flops = 989: .*did you mean '989 TFLOP/s'\?"),
    "bare us": (
        lambda: H100.replace(link_latency=5),
        r"\.latency = 5: .*at most 1 s; did you mean '5 us'\?",
    ),
    "tiny": (lambda: H100.replace(mem_bw=1e-30), r"Platform\.mem_bw = 1e-30: must be between"),
    "an axis": (lambda: H100.replace(mem_bw=gz.axis([1e12, 3])), r"mem_bw = 3 \(at 1 of 2 values\): must be between"),
    "layers": (lambda: LLAMA.replace(layers=10.0**300), r"Model\.layers = 1e\+300: must be at most 1,000,000"),
    "layers of a part": (lambda: LLAMA.replace(**{"attention.layers": 1e7}), r"Attention\.layers = 1e\+07"),
    "batch": (lambda: gz.Workload(1e32), r"Workload\.batch = 1e\+32: must be at most 1,000,000,000"),
    "tokens": (lambda: gz.Workload(1, 10**12), r"Workload\.input_tokens = 1e\+12: must be at most"),
    "minus zero": (
        lambda: H100.replace(link_latency=-0.0),
        r"NetworkLevel\.latency = -0: must be finite and 0 or more",
    ),
    "no float": (lambda: H100.replace(mem_bw=10**400), r"Platform\.mem_bw = 10+…0: not a number"),
    "power": (lambda: H100.replace(power=1e12), r"Platform\.power = 1e\+12: must be between"),
    "mm2": (lambda: gz.Budget(area=814), r"Budget\.area = 814: .*did you mean '814 mm2'\?"),
    "cost in mm2": (lambda: gz.CostModel(compute_area=6.8e-13), r"compute_area = 6\.8e-13: must be between"),
    "a JAX array": (lambda: H100.replace(mem_bw=jnp.asarray(4.0)), r"Platform\.mem_bw = 4: .*'4 TB/s'"),
}


@pytest.mark.parametrize("case", BEYOND)
def test_numbers_beyond_sense_are_refused_with_their_limits(case):
    made, words = BEYOND[case]
    with pytest.raises(ValueError, match=words) as caught:
        made()
    assert len(str(caught.value)) <= 300


def specs() -> list[Spec]:
    platforms = [gz.platform(name) for name in gz.platforms()]
    return [*platforms, *(gz.model(name) for name in gz.models()), gz.CostModel(), gz.PowerModel(), gz.Workload()]


@pytest.mark.slow
def test_the_catalogue_lies_well_within_the_limits():
    # A factor of ten to either side of every device and model that there is.
    for spec in specs():
        for path in spec.paths():
            owner = spec
            *outer, last = path.split(".")
            for step in outer:
                owner = owner[int(step)] if isinstance(owner, tuple) else getattr(owner, step)
            value, rule = getattr(owner, last), owner.__dataclass_fields__[last].metadata["rule"]
            if value is not None and not np.isfinite(rule.high) and float(value) > 0:
                assert not rule.limits.broken(np.asarray([float(value) / 10, float(value) * 10])).any(), path


def test_limits_take_both_their_ends():
    limit = sense.of(units.BYTE_RATE)
    for value in (limit.low, limit.high):
        assert float(H100.replace(mem_bw=value).mem_bw) == value
    for value in (np.nextafter(limit.low, 0), np.nextafter(limit.high, np.inf)):
        with pytest.raises(ValueError, match="must be between"):
            H100.replace(mem_bw=value)


@pytest.mark.parametrize("need", [np.nan, np.inf])
@pytest.mark.parametrize("offload", [None, 1e11])
def test_what_is_no_number_never_fits(need, offload):
    chip = gz.Platform(1e15, 2e12, 80e9, offload_bw=offload)
    assert not capacity_check(jnp.asarray(need), chip.mem_capacity, chip)[0]


@pytest.mark.slow
def test_a_batch_that_overflows_does_not_fit():
    def runs(batch: jax.Array) -> jax.Array:
        return gz.estimate(LLAMA, H100, gz.Workload(batch, 1024, 128), stage="memory").feasible

    # Traced values are not checked.
    assert jax.jit(runs)(jnp.asarray(1.0))
    assert not jax.jit(runs)(jnp.asarray(1e32))
    assert not jax.jit(runs)(jnp.asarray(np.inf))


# ------------------------------------------------------------------------------------------ quantities of others


def test_quantities_of_pint_are_read_by_their_units(ureg):
    second = ureg.second
    chip = H100.replace(
        mem_bw=4 * ureg.TB / second,
        flops=0.9 * ureg.Pflop / second,
        mem_capacity=80 * ureg.gibibyte,
        link_bw=3600 * ureg.gigabit / second,
        link_latency=700 * ureg.nanosecond,
        power=0.7 * ureg.kilowatt,
    )
    found = [chip.mem_bw, chip.flops, chip.mem_capacity, chip.link_bw, chip.link_latency, chip.power]
    wanted = [4e12, 9e14, 80 * 2**30, 450e9, 7e-7, 700]
    np.testing.assert_allclose([float(value) for value in found], wanted, rtol=1e-14)
    assert float(gz.Budget(area=814 * ureg.mm**2).area) == pytest.approx(814e-6, rel=1e-14)
    assert float(gz.Workload(ureg.Quantity(8)).batch) == 8


def test_axes_of_pint_are_read_by_their_units(ureg):
    rate = ureg.TB / ureg.second
    for given in (
        gz.axis(np.array([1.0, 2.0, 3.0]) * rate),
        gz.axis([1 * rate, 2 * rate, 3000 * ureg.GB / ureg.second]),
        gz.linspace(1 * rate, 3 * rate, 3),
        xr.DataArray([1.0, 2.0, 3.0], dims="mem_bw", attrs={"units": "TB/s"}),
        xr.DataArray([1.0, 2.0, 3.0], dims="mem_bw", attrs={"units": "terabyte / second"}),
        SimpleNamespace(data=np.array([1.0, 2.0, 3.0]) * rate, values=None, dims=("mem_bw",), coords={}, attrs={}),
    ):
        if isinstance(given, SimpleNamespace):
            given = from_labelled(given)
        np.testing.assert_allclose(H100.replace(mem_bw=given).mem_bw.values, [1e12, 2e12, 3e12], rtol=1e-14)


class Unit(str):
    """A unit of astropy, which is only a text here."""

    def to_string(self) -> str:
        return str(self)


class Unyt(np.ndarray):
    """An array of unyt: a subclass of arrays with units."""

    units = "TB/s"

    def to_value(self) -> np.ndarray:
        return np.asarray(self)

    @property
    def value(self) -> np.ndarray:
        return np.asarray(self)


def test_quantities_of_other_packages():
    assert float(H100.replace(mem_bw=SimpleNamespace(value=4.0, unit=Unit("Tbyte / s"))).mem_bw) == 4e12
    assert float(H100.replace(link_latency=SimpleNamespace(value=2.0, unit=Unit("us"))).link_latency) == 2e-6
    assert float(H100.replace(mem_bw=np.asarray(4.0).view(Unyt)).mem_bw) == 4e12
    np.testing.assert_array_equal(gz.axis(np.array([1.0, 2.0]).view(Unyt)).values, [1e12, 2e12])


def test_quantities_of_another_dimension_or_unknown_unit_are_refused(ureg):
    for given, words in (
        (4 * ureg.TB, r"Platform\.mem_bw: the quantity is in 'byte'"),
        (4 * ureg.metre, r"Platform\.mem_bw: a quantity of pint in 'm'.*not known here"),
        (4 * ureg.TB / ureg.hour, r"Platform\.mem_bw: a quantity of pint in 'TB/h'"),
        (4 * ureg.dimensionless, r"Platform\.mem_bw = 4: .*did you mean '4 TB/s'"),
    ):
        with pytest.raises(ValueError, match=words):
            H100.replace(mem_bw=given)
    with pytest.raises(ValueError, match="different units"):
        gz.axis([1 * ureg.TB, 1 * ureg.TB / ureg.second])


# ------------------------------------------------------------------------------------------ rules between numbers


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (
            lambda: gz.Workload(decode_chunks=(gz.specs.DecodeChunk(32, 1024),)),
            r"decode_chunks\.0: .*DecodeChunk\(32, 32, 1024\)",
        ),
        (lambda: gz.Workload(decode_chunks=(gz.specs.DecodeChunk(5, 1, 100, 10),)), r"prompts = 5, sequences = 1"),
        (lambda: gz.Workload(decode_chunks=(gz.specs.DecodeChunk(2, 5, 100),)), r"prompts = 2, sequences = 5"),
        (lambda: gz.Workload(decode_chunks=(gz.specs.DecodeChunk(0, 4, 100),)), r"prompts = 0"),
        (lambda: gz.Workload(prefill_chunks=(gz.specs.PrefillChunk(0, 0),)), r"new_tokens and sequences are 0"),
        (lambda: gz.specs.PowerSplit(static=0.5), r"PowerSplit: the shares add to 1\.2"),
        (lambda: gz.layers.FFN(2, 64, tied_layers=3), r"FFN\.tied_layers = 3: must be at most .* 2"),
        (lambda: gz.layers.Attention(4, 8, 8, 64, shared_kv_layers=5), r"Attention\.shared_kv_layers = 5"),
    ],
)
def test_numbers_that_do_not_agree_are_refused(made, words):
    with pytest.raises(ValueError, match=words):
        made()


def test_axes_of_numbers_that_do_not_agree_are_data():
    chunk = gz.specs.DecodeChunk(gz.axis([1, 2, 3]), 4, 100)
    ds = gz.sweep("gpt2", H100, gz.Workload(decode_chunks=(chunk,)), stage="chunked", figures=["latency", "reason"])
    assert list(gz.words(ds.reason).values) == ["feasible", "feasible", "chunks_do_not_agree"]
    assert list(np.isnan(ds.latency.values)) == [False, False, True]


@pytest.mark.slow
def test_words_of_what_results_have():
    found = gz.estimate("llama-3.1-8b", "H100-SXM", stage="memory")
    assert gz.words(found.reason) == gz.words(found.reason_code) == gz.words(Reason.feasible) == "feasible"
    assert list(gz.words(np.array([0, 6]))) == ["feasible", "does_not_fit"]
    assert list(gz.words(np.array(["memory", "compute"]))) == ["memory", "compute"]
    for wrong in ("latency", 99, 1.5, np.array([-7])):
        with pytest.raises(ValueError, match="words: "):
            gz.words(wrong)
