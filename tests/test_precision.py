"""The text of a precision: what it may say, what it means, and that equal formats have equal names."""

import itertools
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import genz_jax as gz
from genz_jax.base.formats import BLOCK_FORMATS, FORMAT_BYTES, FORMATS, Format
from genz_jax.catalog.precisions import precision as read
from genz_jax.machine.roofline import formats_of
from genz_jax.specs.precision_text import LAYERS, OTHERS
from genz_jax.specs.stack import stack, take

BYTES = FORMAT_BYTES | {name: size for name, (_, size) in BLOCK_FORMATS.items()}


def same(a: gz.Precision, b: gz.Precision) -> bool:
    """True if all bytes and all formats of two precisions are equal, and both lack the same."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    return all(float(x) == float(y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


# -------------------------------------------------------------------------------------------------- the text and back

one_format = st.one_of(
    st.sampled_from([*FORMATS, *BLOCK_FORMATS, "FP8", "4bit", "16bit", "32bit"]),
    st.builds("{}:{}x{}".format, st.sampled_from(FORMATS), st.sampled_from([16, 32, 96, 128]), st.integers(0, 40)),
    st.floats(0.01, 32.0).map("{!r}bit".format),
)
main = st.lists(one_format, min_size=1, max_size=3).map("-".join)


@st.composite
def texts(draw: st.DrawFn) -> str:
    parts = []
    for name in draw(st.permutations(OTHERS))[: draw(st.integers(0, len(OTHERS)))]:
        pair = name in LAYERS and draw(st.booleans())
        parts.append(f"{name}={draw(one_format)}{f'-{draw(one_format)}' if pair else ''}")
    return "/".join([draw(main), *parts])


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(texts())
def test_the_name_is_a_text_of_the_same_precision(text: str):
    made = gz.Precision(text)
    again = gz.Precision(made.name)
    assert same(made, again)
    assert again.name == made.name
    assert same(made, read(text))


@settings(max_examples=200, deadline=None)
@given(texts(), st.randoms(use_true_random=False))
def test_order_and_case_of_a_text_do_not_count(text: str, random):
    first, *named = text.split("/")
    random.shuffle(named)
    assert gz.Precision(" / ".join([first, *named]).upper()).name == gz.Precision(text).name


def test_equal_formats_have_equal_names():
    # Few formats, so that many texts mean the same.
    formats = ("fp8", "bf16", "FP8", "16bit")
    made = [gz.Precision("-".join(three)) for n in (1, 2, 3) for three in itertools.product(formats, repeat=n)]
    named = itertools.product(("attention", "ffn", "head", "embedding", "accumulation"), (*formats, "fp16", "fp8-bf16"))
    made += [gz.Precision(f"fp8/{name}={value}") for name, value in named if name in LAYERS or "-" not in value]
    for a, b in itertools.combinations(made, 2):
        assert (a.name == b.name) == same(a, b), (a.name, b.name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("fp8", "fp8"),
        ("fp8-fp8-fp8", "fp8"),
        ("int4-bf16", "int4-bf16-bf16"),
        ("int4:128x16", "int4:128x16-bf16-bf16"),
        ("fp8-fp8-bf16/ffn=nvfp4-nvfp4", "fp8-fp8-bf16/ffn=nvfp4-nvfp4"),
        ("bf16/experts=mxfp4-bf16", "bf16/experts=mxfp4"),  # the activations that it has anyway
        ("fp8/shared_experts=fp8/ffn=fp8/attention=fp8", "fp8"),
        ("fp8/head=bf16/embedding=bf16", "fp8/embedding=bf16"),  # the head is as the embedding
        ("fp8/embedding=bf16/head=fp8", "fp8/head=fp8/embedding=bf16"),
        ("fp8/head=bf16/ffn=bf16/attention=bf16", "fp8/attention=bf16/ffn=bf16/head=bf16"),
        ("fp8/ffn=fp8-bf16", "fp8/ffn=fp8-bf16"),
        ("bf16/ffn=fp4:16x8", "bf16/ffn=nvfp4"),
        ("bf16/state=tf32/accumulation=fp16", "bf16"),  # as many bytes, and nothing is computed in them
    ],
)
def test_canonical_texts(text: str, name: str):
    assert gz.Precision(text).name == name


def test_keywords_are_the_text():
    text = gz.Precision("fp8-fp8-bf16/ffn=nvfp4-nvfp4/head=bf16/scores=bf16")
    assert same(gz.Precision("fp8", kv_cache="bf16", ffn="nvfp4-nvfp4", head="bf16", scores="bf16"), text)
    assert same(gz.Precision("fp8-fp8-bf16", ffn="nvfp4", ffn_activations="nvfp4", head="bf16", scores="bf16"), text)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: gz.Precision("fp8/fnn=bf16"), "fnn=bf16.*attention, ffn, experts, shared_experts, head, embedding"),
        (lambda: gz.Precision("fp8/ffn"), "'ffn' must be name=format"),
        (lambda: gz.Precision("fp8/ffn=bf17"), r"Precision\.ffn = 'bf17'.*nvfp4"),
        (lambda: gz.Precision("fp8/ffn=bf16-fp7"), r"Precision\.ffn_activations = 'fp7'.*nvfp4"),
        (lambda: gz.Precision("fp8-fp8-fp9"), r"Precision\.kv_cache = 'fp9'.*nvfp4"),
        (lambda: gz.Precision("fp8", kv_cache="fp3"), r"Precision\.kv_cache = 'fp3'.*nvfp4"),
        (lambda: gz.Precision("fp8/ffn=bf16/ffn=bf16"), "ffn is given twice"),
        (lambda: gz.Precision("fp8/ffn=bf16", ffn="fp8"), r"Precision\.ffn: given twice"),
        (lambda: gz.Precision("fp8", ffn="fp8-fp8", ffn_activations="fp8"), "ffn_activations: given twice"),
        (lambda: gz.Precision("fp8-bf16", activations="bf16"), r"Precision\.activations: given twice"),
        (lambda: gz.Precision("fp8/ffn=a-b-c"), "one or two formats"),
        (lambda: gz.Precision("fp8/embedding=bf16-bf16"), r"Precision\.embedding.*one format"),
        (lambda: gz.Precision("fp8", ffn=0.5), r"Precision\.compute: ffn is given in bytes"),
        (lambda: gz.Precision("fp8", fnn="bf16"), "no field 'fnn'.*ffn"),
        (lambda: gz.Precision("x" * 3000), "known are fp32"),
        (lambda: gz.Precision("fp8/" + "x" * 3000 + "=bf16"), "must be name=format"),
        (lambda: gz.Precision("fp8/ffn=" + "x" * 3000), "known are fp32"),
        (lambda: gz.Precision("-".join("abcd" * 900)), "one to three formats"),
        (lambda: gz.Precision("fp8/ffn=" + "-".join("ab" * 900)), "one or two formats"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(make, words: str):
    with pytest.raises(ValueError, match=words) as caught:
        make()
    assert len(str(caught.value)) <= 300
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------- what they mean


def test_kinds_of_layers_have_the_formats_that_they_name_or_their_defaults():
    made = gz.Precision("fp8-bf16-fp8/attention=int8/experts=mxfp4-fp8/shared_experts=nvfp4-nvfp4/embedding=bf16")
    sizes = {layers: (float(made.weight_bytes(layers)), float(made.input_bytes(layers))) for layers in LAYERS}
    assert sizes == {
        "attention": (1.0, 2.0),
        "ffn": (1.0, 2.0),
        "experts": (0.53125, 1.0),
        "shared_experts": (0.5625, 0.5625),
        "head": (2.0, 2.0),
    }
    runs = {layers: Format(int(made.arithmetic(layers))).name for layers in LAYERS}
    assert runs == {"attention": "bf16", "ffn": "bf16", "experts": "fp8", "shared_experts": "fp4", "head": "bf16"}


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("weights", ["fp8", "nvfp4", "bf16"])
@pytest.mark.parametrize("inputs", ["", "fp8", "nvfp4"])
def test_layers_run_at_the_wider_of_their_weights_and_inputs(layers: Any, weights: str, inputs: str):
    made = gz.Precision(f"int8-bf16-bf16/{layers}={weights}{inputs and '-' + inputs}")
    element = {"nvfp4": "fp4"}
    wanted = min((element.get(name, name) for name in (weights, inputs or "bf16")), key=FORMATS.index)
    found = formats_of(made)
    assert Format(int(found[made.kind(layers)])).name == wanted
    assert Format(int(found["weights"])).name == "bf16"


def test_formats_that_are_as_by_default_cost_no_operand():
    assert set(formats_of(gz.Precision("fp8/ffn=fp8"))) == set(formats_of(gz.Precision("fp8")))
    assert set(formats_of(gz.Precision("fp8/ffn=bf16"))) == {*formats_of(gz.Precision("fp8")), "ffn"}


def test_layers_without_formats_of_their_own_follow_the_weights():
    base = gz.Precision("fp8/ffn=bf16")
    changed = base.replace(weights="nvfp4", activations="nvfp4")
    assert float(changed.weight_bytes("attention")) == 0.5625
    assert float(changed.weight_bytes("ffn")) == 2.0
    assert float(base.replace(ffn=None).weight_bytes("ffn")) == 1.0
    assert base.replace(ffn="nvfp4-nvfp4").name == "fp8/ffn=nvfp4-nvfp4"
    assert base.replace(ffn="nvfp4-nvfp4").replace(ffn="bf16").name == base.name


@pytest.mark.slow
def test_bytes_may_be_numbers_and_axes():
    made = gz.Precision("fp8", ffn=0.55, compute="fp8")
    assert float(made.weight_bytes("ffn")) == 0.55
    assert Format(int(made.arithmetic("ffn"))) is Format.fp8
    apart = gz.Precision("bf16", head=1.0, head_format=int(Format.int8), head_activations="int8")
    assert apart.name == "bf16/head=int8-int8"
    ffn = gz.parameter_count("llama-3.1-8b").ffn
    swept = gz.sweep(
        "llama-3.1-8b",
        "H100-SXM",
        precision=gz.Precision("fp8").replace(ffn=gz.axis([0.5, 1.0, 2.0])),
        stage="memory",
        figures=["weights"],
        progress=False,
    )
    assert swept.weights.dims == ("ffn",)
    np.testing.assert_allclose(np.diff(swept.weights), [0.5 * ffn, ffn], rtol=1e-5)


@pytest.mark.slow
def test_lists_of_precisions_are_an_axis_whatever_each_names():
    listed = ["fp8", "bf16/experts=mxfp4", "fp8-fp8-bf16/ffn=nvfp4-nvfp4", "fp8/head=bf16", "fp8/experts=fp8-bf16"]
    stacked = stack([gz.Precision(text) for text in listed])
    for i, text in enumerate(listed):
        one, alone = take(stacked, np.array(i)), gz.Precision(text)
        for layers in (*LAYERS, "embedding", "weights"):
            for what in ("weight_bytes", "input_bytes", "arithmetic"):
                assert float(getattr(one, what)(layers)) == float(getattr(alone, what)(layers)), (text, layers, what)
    swept = gz.sweep("gpt-oss-20b", "H100-SXM", precision=listed, figures=["tpot", "memory"], progress=False)
    assert swept.precision.values.tolist() == listed
    for text in listed:
        alone = gz.estimate("gpt-oss-20b", "H100-SXM", precision=text)
        for figure in ("tpot", "memory"):
            assert float(swept[figure].sel(precision=text)) == pytest.approx(float(getattr(alone, figure)), rel=1e-5)
    with pytest.raises(ValueError, match="'fp8' stands twice"):
        gz.sweep("gpt-oss-20b", "H100-SXM", precision=["fp8", "fp8/ffn=fp8"], progress=False)
