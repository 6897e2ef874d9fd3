import math
import re

import numpy as np
import pint
import pytest
from hypothesis import given, strategies as st

import genz_jax as gz
from genz_jax.base import units
from genz_jax.base.fields import Spec
from genz_jax.serving import results

PREFIXES = {
    "": "",
    "n": "nano",
    "u": "micro",
    "µ": "micro",
    "μ": "micro",
    "m": "milli",
    "k": "kilo",
    "K": "kilo",
    "M": "mega",
    "G": "giga",
    "T": "tera",
    "P": "peta",
    "E": "exa",
    "p": "pico",
    "Ki": "kibi",
    "Mi": "mebi",
    "Gi": "gibi",
    "Ti": "tebi",
    "Pi": "pebi",
}
SYMBOLS = {
    "B": ("byte", units.BYTE),
    "byte": ("byte", units.BYTE),
    "b": ("bit", units.BYTE),
    "bit": ("bit", units.BYTE),
    "FLOP": ("flop", units.FLOP),
    "flop": ("flop", units.FLOP),
    "OP": ("flop", units.FLOP),
    "s": ("second", units.SECOND),
    "W": ("watt", units.WATT),
    "J": ("joule", units.JOULE),
    "token": ("token", units.TOKEN),
    "tok": ("token", units.TOKEN),
}
BASES = (units.BYTE, units.BYTE_RATE, units.FLOP, units.FLOP_RATE, units.SECOND, units.WATT, units.JOULE)
PLAIN = (units.TOKEN, units.TOKEN_RATE, units.ONE)
finite = st.floats(1e-6, 1e15)


@pytest.fixture(scope="module")
def ureg() -> pint.UnitRegistry:
    registry = pint.UnitRegistry()
    for name in ("flop", "token", "request", "USD"):
        registry.define(f"{name} = [{name}]")
    return registry


BELOW_ONE = ("n", "u", "µ", "μ", "m", "p")
SPELLINGS = [(p, s) for p in PREFIXES for s in SYMBOLS if not (p in BELOW_ONE and s in ("b", "bit"))]


@pytest.mark.parametrize(("prefix", "symbol"), SPELLINGS)
def test_every_prefix_and_symbol_agrees_with_pint(ureg, prefix, symbol):
    name, base = SYMBOLS[symbol]
    factor = ureg.Quantity(3.25, PREFIXES[prefix] + name).to(base).magnitude
    assert units.parse(f"3.25 {prefix}{symbol}", base) == pytest.approx(factor, rel=1e-14)


@pytest.mark.parametrize("symbol", ["B", "b", "FLOP", "token"])
@pytest.mark.parametrize("prefix", ["", "M", "G", "T", "P", "Ki", "Gi"])
def test_rates_agree_with_pint(ureg, prefix, symbol):
    name, base = SYMBOLS[symbol]
    factor = ureg.Quantity(0.5, f"{PREFIXES[prefix]}{name}/second").to(f"{base} s**-1").magnitude
    for text in (f"0.5 {prefix}{symbol}/s", f"0.5{prefix}{symbol}/s", f"  0.5 {prefix}{symbol} / s "):
        assert units.parse(text, f"{base} s-1") == pytest.approx(factor, rel=1e-14)


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("1 GB", units.BYTE, 1e9),
        ("1 GiB", units.BYTE, 2**30),
        ("1 TiB", units.BYTE, 2**40),
        ("8 Gb", units.BYTE, 1e9),
        ("989 TFLOPS", units.FLOP_RATE, 989e12),
        ("989 TFLOPs", units.FLOP_RATE, 989e12),
        ("989 TFLOP/s", units.FLOP_RATE, 989e12),
        ("10 PFLOPS", units.FLOP_RATE, 1e16),
        ("624 TOPS", units.FLOP_RATE, 624e12),
        ("624 TOP/s", units.FLOP_RATE, 624e12),
        ("400 Gbps", units.BYTE_RATE, 50e9),
        ("400 Gb/s", units.BYTE_RATE, 50e9),
        ("400 Gbit/s", units.BYTE_RATE, 50e9),
        ("50 GBps", units.BYTE_RATE, 50e9),
        ("3.35 TB/s", units.BYTE_RATE, 3.35e12),
        ("3.35TB/s", units.BYTE_RATE, 3.35e12),
        ("1e3 GB/s", units.BYTE_RATE, 1e12),
        ("1E3GB/s", units.BYTE_RATE, 1e12),
        ("+5 us", units.SECOND, 5e-6),
        (".25 us", units.SECOND, 0.25e-6),
        ("2048", units.TOKEN, 2048),
        ("2048 tokens", units.TOKEN, 2048),
        ("700 W", units.WATT, 700),
        ("1.5 kW", units.WATT, 1500),
        ("0.8", units.ONE, 0.8),
        ("1e12", units.BYTE_RATE, 1e12),
    ],
)
def test_spellings(text, unit, value):
    assert units.parse(text, unit) == pytest.approx(value, rel=1e-15)


@given(value=finite, unit=st.sampled_from(BASES))
def test_shown_text_reads_back(value, unit):
    assert units.parse(units.show(value, unit, digits=17), unit) == pytest.approx(value, rel=1e-14)
    assert units.parse(units.show(value, unit), unit) == pytest.approx(value, rel=5.1e-4)


@given(value=st.floats(0.0, 999.0), unit=st.sampled_from(PLAIN))
def test_shown_counts_read_back(value, unit):
    assert units.parse(units.show(value, unit), unit) == pytest.approx(value, rel=5.1e-4)


@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_bare_numbers_are_in_base_units(value):
    assert units.parse_any(repr(value)) == (value, None)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (3.35e12, units.BYTE_RATE, "3.35 TB/s"),
        (80e9, units.BYTE, "80 GB"),
        (989.4e12, units.FLOP_RATE, "989.4 TFLOP/s"),
        (1e-6, units.SECOND, "1 µs"),
        (4.526e-3, units.SECOND, "4.526 ms"),
        (12.5, units.SECOND, "12.5 s"),
        (4000.0, units.SECOND, "4000 s"),
        (0.0, units.BYTE, "0 B"),
        (999.9, units.WATT, "999.9 W"),
        (1000.0, units.WATT, "1 kW"),
        (2048, units.TOKEN, "2,048 tokens"),
        (1234567, units.TOKEN, "1,234,567 tokens"),
        (0.8, units.ONE, "0.8"),
        (216.44, units.TOKEN_RATE, "216.4 tokens/s"),
        (math.nan, units.SECOND, "nan s"),
        (math.inf, units.BYTE, "inf B"),
    ],
)
def test_shown_text(value, unit, text):
    assert units.show(value, unit) == text


@given(number=st.floats(1e-3, 1e6), spelling=st.sampled_from(SPELLINGS), rate=st.booleans())
def test_value_is_linear_in_the_number(number, spelling, rate):
    prefix, symbol = spelling
    text = f"{prefix}{symbol}{'/s' if rate else ''}"
    value, unit = units.parse_any(f"{number!r} {text}")
    one, same = units.parse_any(f"1 {text}")
    assert unit == same
    np.testing.assert_allclose(value, number * one, rtol=1e-15)


@pytest.mark.parametrize("text", ["5 XB", "5 TX/s", "3 parsec", "1 GB/h", "5 gb", "7 TFLOPS/s", "1 GT/s", "5 %"])
def test_unknown_units_are_named(text):
    with pytest.raises(ValueError, match=r"unit|number") as caught:
        units.parse(text, units.BYTE)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", " ", "fast", "GB", "--3 GB", "3..5 GB", "1 2 GB", "0x10 B", "3,35 TB/s"])
def test_no_number_is_an_error_with_an_example(text):
    with pytest.raises(ValueError, match=r"'3.35 TB/s'") as caught:
        units.parse(text, units.BYTE_RATE)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("wanted", [*BASES, *PLAIN])
@pytest.mark.parametrize("given_text", ["1 GB", "1 GB/s", "1 TFLOP", "1 TFLOP/s", "1 ms", "1 W", "1 J", "1 token"])
def test_wrong_dimension_names_both_units_and_an_example(ureg, given_text, wanted):
    _, found = units.parse_any(given_text)
    if found == wanted:
        assert units.parse(given_text, wanted) > 0
        return
    with pytest.raises(ValueError, match=r"is needed, e\.g\.") as caught:
        units.parse(given_text, wanted)
    message = str(caught.value)
    assert repr(given_text) in message
    assert repr(found) in message
    assert repr(wanted) in message
    # The example that the message gives must itself be accepted.
    units.parse(message.rsplit("e.g. ", 1)[1].strip("'"), wanted)


def test_a_thousandth_of_a_bit_is_no_link_rate():
    # "mbps" is a slip for "Mbps"; nobody means millibits.
    with pytest.raises(ValueError, match="mbps"):
        units.parse("400 mbps", units.BYTE_RATE)


def readable(text: str) -> str:
    """A unit as pint writes it."""
    return "" if text == units.ONE else re.sub(r"(?<=[A-Za-z])(-?\d+)", r"**\1", text).replace(" ", "*")


def kinds_below(kind: type) -> list[type]:
    return [kind, *(below for child in kind.__subclasses__() for below in kinds_below(child))]


def test_units_of_all_fields_of_specs_and_results_are_known_to_pint(ureg):
    kinds = [*kinds_below(Spec), *kinds_below(results.Result)]
    fields = [field for kind in kinds for field in getattr(kind, "__dataclass_fields__", {}).values()]
    spellings = {field.metadata["units"] for field in fields if "units" in field.metadata}
    assert {"m2 s flop-1", "W m-2", "USD h-1", "J token-1"} <= spellings
    for text in spellings:
        assert ureg.Quantity(1.0, readable(text)).magnitude == 1.0


@pytest.mark.slow
def test_units_of_all_datasets_are_known_to_pint(ureg):
    chip, work = gz.platform("H100-SXM").replace(mem_bw=gz.axis([1e12, 2e12])), gz.Workload(2, 64, 4)
    made = [
        gz.sweep("gpt2", chip, work),
        gz.sweep("gpt2", chip, work, stage="memory"),
        gz.cost(["H100-SXM", "B200"]),
        gz.sensitivity("gpt2", "H100-SXM", work),
        gz.gradients("gpt2", chip, work, figures="tpot", parameters=["flops"]),
    ]
    for ds in made:
        for name in ds.variables:
            if np.issubdtype(ds[name].dtype, np.number) or ds[name].dtype == bool:
                assert ureg.Quantity(1.0, readable(ds[name].attrs["units"])).magnitude == 1.0, name
        assert not any("mm" in str(variable.attrs.get("units")) for variable in ds.variables.values())


@pytest.mark.parametrize(
    ("text", "square_metres"),
    [("814 mm2", 814e-6), ("814mm²", 814e-6), ("8.14 cm2", 8.14e-4), ("0.000814 m2", 8.14e-4), ("1 um2", 1e-12)],
)
def test_areas(ureg, text, square_metres):
    assert units.parse(text, units.AREA) == pytest.approx(square_metres, rel=1e-14)
    number, unit = re.findall(r"([\d.]+) ?([a-z]+)", text)[0]
    assert ureg.Quantity(float(number), f"{unit}**2").to("m**2").magnitude == pytest.approx(square_metres, rel=1e-14)
    assert units.parse(units.show(square_metres, units.AREA), units.AREA) == pytest.approx(square_metres, rel=1e-3)


def test_prefixes_are_not_put_before_powers():
    assert units.show(6.81e-19, "m2 s flop-1") == "6.81e-19 m2 s flop-1"
    assert units.show(8.14e-4, units.AREA) == "814 mm²"
