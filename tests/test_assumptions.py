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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"experts": "some"}, "experts = 'some'.*expected, routed, published"),
        ({"pipeline": "fast"}, "pipeline = 'fast'.*scheduled, published"),
        ({"decode_position": "first"}, "decode_position = 'first'.*mean, last"),
        ({"cache_of": "none"}, "cache_of = 'none'.*batch, micro-batch"),
        ({"smooth": 2.0}, "smooth = 2.0.*0.5"),
    ],
)
def test_unknown_choices_are_refused(change, words):
    # The type check of the test run would refuse them first.
    code = (
        f"import genz_jax as gz\ntry:\n    gz.Assumptions(**{change!r})\nexcept ValueError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.search(words, done.stdout)


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match=r"assumptions = 'roofline': must be one of default, genz"):
        preset("roofline")
