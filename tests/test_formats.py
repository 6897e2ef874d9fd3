"""Number formats of single tensors: bytes, the rate of each product, and what a platform runs them at."""

import dataclasses

import numpy as np
import pytest
from helpers import make_case, once

import genz_jax as gz
from genz_jax.base.formats import FORMATS, WIDER, Format
from genz_jax.catalog.precisions import precision as read
from genz_jax.machine.roofline import formats_of, native_format
from genz_jax.serving.evaluate import Question
from genz_jax.specs.assumptions import Assumptions
from genz_jax.work.operators.products import attention_scores

DEFAULT = Assumptions.default
APART = DEFAULT.replace(fused_attention=False)


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("int4:128x16", 4 + 16 / 128),  # GPTQ, AWQ: a 16-bit scale for 128 weights
        ("int4:32x16", 4 + 16 / 32),
        ("fp8:16384x32", 8 + 32 / 16384),  # DeepSeek's blocks of 128 × 128
        ("nvfp4", 4 + 8 / 16),
        ("mxfp4", 4 + 8 / 32),
        ("mxfp8", 8 + 8 / 32),
        ("4.85bit", 4.85),
        ("3bit", 3),
        ("int2", 2),
    ],
)
def test_bytes_are_those_of_elements_and_scales(text: str, bits: float):
    assert float(gz.Precision(text).weights) == pytest.approx(bits / 8, rel=1e-12)


@pytest.mark.parametrize("text", ["int4:0x16", "int5:128x16", "0bit", "33bit", "bit", "int4:128", "fp9", ""])
def test_a_format_that_cannot_be_is_refused_with_what_can(text: str):
    with pytest.raises(ValueError, match=r"Precision\.weights = .*known are fp32.*int4:128x16"):
        gz.Precision(text)


def test_storage_formats_compute_in_16_bits():
    for text in ("int4:128x16", "4.85bit"):
        made = gz.Precision(text)
        assert float(made.activations) == 2.0
        assert Format(int(made.compute)) is Format.bf16


def test_each_tensor_has_its_own_format():
    made = gz.Precision(
        "fp8", "bf16", "int8", scores="fp8", experts="nvfp4", embedding="fp16", accumulation="fp32", state="bf16"
    )
    assert made.name == "fp8-bf16-int8/scores=fp8/experts=nvfp4/embedding=fp16/accumulation=fp32/state=bf16"
    again = read(made.name)
    for field in dataclasses.fields(made):
        if field.name != "label":
            values = getattr(again, field.name), getattr(made, field.name)
            assert values == (None, None) or float(values[0]) == float(values[1]), field.name
    runs = {operand: Format(int(code)).name for operand, code in formats_of(made).items()}
    # The wider of the two tensors of a product.
    assert runs == {
        "weights": "bf16",
        "experts": "bf16",
        "embedding": "bf16",
        "kv_cache": "fp8",
        "activations": "bf16",
    }


@pytest.mark.parametrize("text", ["fp8-fp8-fp8-fp8", "fp8/router=bf16", "fp8/embedding", "fp8/weights=fp8/x=1"])
def test_text_of_unknown_tensors_is_refused(text: str):
    with pytest.raises(ValueError, match=r"precision = .*(scores|three formats)"):
        read(text)


def test_replacing_a_tensor_by_name_brings_its_arithmetic():
    changed = gz.Precision("fp8").replace(weights="bf16")
    assert Format(int(changed.compute)) is Format.bf16
    assert float(changed.embedding) == 1.0
    with pytest.raises(ValueError, match=r"no field 'kv_cach'.*kv_cache"):
        gz.Precision("fp8").replace(kv_cach="int8")


# ------------------------------------------------------------------------------------- what the work layer reads


def operators(precision: gz.Precision, model="mixtral-8x7b", stage="prefill", **spread):
    case = make_case(
        gz.model(model), workload=gz.Workload(2, 64, 8), parallelism=gz.Parallelism(**spread), precision=precision
    )
    found = once(case, Question(stage, APART, operators=True))
    return {
        name.removeprefix("operator_"): float(np.sum(value)) for name, value in found.items() if "operator_" in name
    }


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("tensor", "figure", "format", "ratio"),
    [
        ("experts", "weight_bytes/moe.down_proj", "int4", 0.25),
        ("embedding", "weight_bytes/head", "fp32", 2.0),
        ("embedding", "input_bytes/embedding", "fp32", 2.0),
        ("weights", "weight_bytes/attention.qkv_proj", "int8", 0.5),
        ("scores", "output_bytes/attention.scores", "fp32", 2.0),
        ("accumulation", "message_bytes/attention.all_reduce", "fp32", 2.0),
    ],
)
def test_a_tensor_of_another_format_changes_its_own_bytes_alone(tensor: str, figure: str, format: str, ratio: float):
    base, other = (operators(p, tp=2) for p in (gz.Precision("bf16"), gz.Precision("bf16").replace(**{tensor: format})))
    assert other[figure] == pytest.approx(ratio * base[figure], rel=1e-12)
    own = {"weights": "weight_bytes", "scores": "put_bytes", "accumulation": "message_bytes"}.get(tensor, "bytes")
    for name, value in base.items():
        if "bytes" in name and own not in name:
            assert other[name] == pytest.approx(value, rel=1e-12), name


def test_recurrent_states_have_their_format():
    sizes = [
        once(
            make_case(gz.model("falcon-mamba-7b"), precision=gz.Precision("bf16", state=state)),
            Question("decode", DEFAULT, ("kv_cache",)),
        )["kv_cache"]
        for state in ("fp32", "bf16")
    ]
    window = 64 * 8192 * 3 * 2
    assert float(sizes[0] - window) == pytest.approx(2 * float(sizes[1] - window), rel=1e-9)


@pytest.mark.parametrize(("bits", "share", "rank", "tokens", "size"), [(2, 0.02, 4, 1000, 128), (4, 0.0, 2, 7, 64)])
def test_a_compressed_cache_has_gears_bytes(bits: int, share: float, rank: int, tokens: int, size: int):
    # arXiv 2403.05527: b + s·b₁₆ + r(N + D)/(N·D)·b₁₆ per element of a head.
    precision = gz.Precision("bf16", kv_cache=f"int{bits}", kv_outliers=share, kv_rank=rank)
    op = attention_scores(
        "a",
        batch=3.0,
        heads=8.0,
        kv_heads=2.0,
        queries=1.0,
        context=float(tokens),
        pairs=float(tokens),
        head_dim=float(size),
        precision=precision,
    )
    element = bits / 8 + share * 2 + rank * (tokens + size) / (tokens * size) * 2
    assert float(op.weight) == pytest.approx(3 * 2 * tokens * size * element, rel=1e-12)


# --------------------------------------------------------------------------------------- what a platform runs


@pytest.mark.parametrize("asked", FORMATS)
def test_a_format_that_is_lacking_runs_at_the_nearest_wider_one(asked: str):
    peaks = {"bf16": 100.0, "fp8": 200.0, "int8": 150.0}
    platform = gz.Platform("100 TFLOP/s", "1 TB/s", "80 GB", rates=gz.specs.Rates.from_peaks(peaks))
    there = {**peaks, "fp32": 50.0, "fp16": 100.0}
    runs = next(name for name in (asked, *WIDER[asked]) if name in there)
    code, relative = native_format(platform, np.asarray(float(Format[asked])))
    assert Format(int(code)).name == runs
    assert float(relative) == pytest.approx(there[runs] / 100.0, rel=1e-12)


@pytest.mark.slow
def test_the_result_says_which_format_it_ran_at():
    for stage in ("request", "decode", "prefill"):
        said = gz.estimate("llama-3.1-8b", "A100-SXM-80GB", precision="fp8", stage=stage).words("compute_format_code")
        assert said == "bf16"
    assert gz.estimate("llama-3.1-8b", "H100-SXM", precision="fp8").words("compute_format_code") == "fp8"
    swept = gz.sweep("llama-3.1-8b", ["A100-SXM-80GB", "H100-SXM"], precision="fp8", progress=False)
    assert list(gz.words(swept.compute_format).values) == ["bf16", "fp8"]


def test_each_product_runs_at_the_rate_of_its_own_tensors():
    # Compute times of a platform whose memory never binds are FLOPs over the rate of the wider tensor.
    platform = gz.Platform(
        "100 TFLOP/s", "1e6 TB/s", "1 PB", rates=gz.specs.Rates.from_peaks({"bf16": 100.0, "fp8": 200.0})
    )
    precision = gz.Precision("bf16", scores="fp8", kv_cache="fp8", experts="fp8")
    case = make_case(gz.model("mixtral-8x7b"), platform, gz.Workload(4, 512), precision=precision)
    found = once(case, Question("prefill", DEFAULT, operators=True))
    for name, factor in (
        ("attention.attention", 2.0),
        ("moe.down_proj", 1.0),
        ("attention.qkv_proj", 1.0),
        ("head", 1.0),
    ):
        rate = float(found[f"operator_flops/{name}"] / found[f"operator_compute_time/{name}"])
        assert rate == pytest.approx(factor * 1e14, rel=1e-9), name
