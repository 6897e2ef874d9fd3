"""Presets are reached by name and by attribute; switches refuse what they do not know."""

import re
import subprocess
import sys

import pytest

import genz_jax as gz
from genz_jax.specs.assumptions import preset


def test_presets_by_name_and_by_attribute():
    assert preset("genz") is gz.Assumptions.genz
    assert preset("default") is gz.Assumptions.default == gz.Assumptions()
    assert preset(gz.Assumptions.genz) is gz.Assumptions.genz
    assert gz.Assumptions.genz != gz.Assumptions.default


def test_a_preset_gives_the_same_by_name_and_by_attribute():
    by_name = gz.estimate("gpt2", "H100-SXM", stage="decode", assumptions="genz")
    by_attribute = gz.estimate("gpt2", "H100-SXM", stage="decode", assumptions=gz.Assumptions.genz)
    assert float(by_name.latency) == float(by_attribute.latency)


REFUSED = [
    ({"experts": "some"}, "experts = 'some'.*expected, routed, published"),
    ({"pipeline": "fast"}, "pipeline = 'fast'.*scheduled, published"),
    ({"decode_position": "first"}, "decode_position = 'first'.*mean, last"),
    ({"cache_of": "none"}, "cache_of = 'none'.*batch, micro-batch"),
    ({"smooth": 2.0}, "smooth = 2.0.*0.5"),
]


@pytest.fixture(scope="module")
def messages() -> list[str]:
    """What each change is refused with, in a process without the test run's type check, which would be first."""
    code = f"""
import genz_jax as gz
for change, _ in {REFUSED!r}:
    try:
        gz.Assumptions(**change)
        print()
    except ValueError as error:
        print(error)
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.first(1)
@pytest.mark.parametrize("i", range(len(REFUSED)), ids=lambda i: next(iter(REFUSED[i][0])))
def test_unknown_choices_are_refused(i, messages):
    assert re.search(REFUSED[i][1], messages[i])


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match=r"assumptions = 'roofline': must be one of default, genz"):
        preset("roofline")
