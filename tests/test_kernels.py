"""Kernels: forms against closed forms and limits, and what the engine makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import genz_jax as gz
from genz_jax.base.fields import at
from genz_jax.kernels import Job, Kernels, Overlap
from genz_jax.kernels.attention import BalancedPrefill, PairedPrefill, SplitDecode
from genz_jax.kernels.form import EXPONENTS, Form, soft_max
from genz_jax.kernels.gemm import Gemm, TwoTileGemm
from genz_jax.kernels.vector import Routing, Stream

US = 1e-6
FORMS = {
    "gemm_bf16": Gemm(
        2.8 * US, 0.8, 0.885, depth_time=0.3 * US, fill=161.0, exponent=4, tile=64, splits=8, split_time=2.7 * US
    ),
    "gemm_fp8": TwoTileGemm(
        3.7 * US, 0.8, 0.82, fill=240.0, input_launch=1.65 * US, input_bytes=3.0, small_efficiency=0.46
    ),
    "experts_bf16": Overlap(12 * US, 0.72, 0.78, exponent=2),
    "prefill_attention": BalancedPrefill(4.3 * US, 0.65, 1.0, tile_time=1.4 * US, chain=0.5, flat=0.24),
    "decode_attention": SplitDecode(4.3 * US, 0.26 * US, 7.6 * US, 0.865),
    "norm": Stream(2.1 * US, 0.89, 0.75),
    "activation": Stream(1.4 * US, 0.89),
    "rotation": Stream(2.1 * US, 0.89, block_time=0.0007 * US),
    "routing": Routing(60 * US, 16.0, 0.89),
    "embedding": Overlap(9 * US),
}
MEASURED = Kernels(**FORMS, derating=0.09)
H100 = gz.platform("H100-SXM").replace(mem_capacity="2 TB")
LOAD = gz.Workload(batch=8, input_tokens=1024, output_tokens=64)
STAGES = ("request", "prefill", "encode")
MODELS = ("llama-3.1-8b", "mixtral-8x7b")


def job(**sizes: float) -> Job:
    m, n, k = sizes["m"], sizes["n"], sizes["k"]
    flops, moved = 2.0 * m * n * k, 2.0 * (m * n + m * k + n * k)
    return Job(flops, moved, {"batch": 1.0, **sizes}, 1e-15, 1e-20, 132.0, 50e6, 1.0 / 7e12)


@pytest.mark.parametrize("p", EXPONENTS)
def test_the_soft_maximum_is_the_norm(p):
    a, b = np.random.default_rng(0).uniform(0.0, 3.0, (2, 50))
    norm = np.maximum(a, b) if p == float("inf") else (a**p + b**p) ** (1.0 / p)
    np.testing.assert_allclose(soft_max(jnp.asarray(a), jnp.asarray(b), p), norm, rtol=1e-12)


def test_the_soft_maximum_of_nothing_has_a_slope():
    for p in EXPONENTS[1:]:
        assert np.isfinite(jax.grad(lambda x, p=p: soft_max(x, 0.0 * x, p))(0.0))


def test_a_small_product_takes_the_time_of_one_tile_on_each_processor():
    form = Gemm(compute_efficiency=0.8, tile=64.0, exponent=float("inf"))
    tiny, wave = (form.seconds(job(m=m, n=n, k=4096.0)) for m, n in ((1.0, 64.0), (64.0, 64.0 * 132)))
    compute = 2.0 * 64 * 64 * 132 * 4096 * 1e-15 / 0.8
    assert float(tiny) == pytest.approx(compute) == pytest.approx(float(wave), rel=1e-12)


def test_waves_of_tiles_are_whole():
    form = TwoTileGemm(compute_efficiency=0.8, small_efficiency=0.4, exponent=float("inf"))
    wave = 2.0 * 128 * 128 * 132 * 4096 * 1e-15 / 0.8
    for blocks, waves in ((133, 2), (264, 2), (265, 3)):
        assert float(form.seconds(job(m=128.0, n=128.0 * blocks, k=4096.0))) == pytest.approx(waves * wave)


def test_a_causal_prompt_has_the_triangle_of_tiles():
    # One head of a prompt of four tiles on one processor: 10 tiles of 4·128³ operations and nothing else.
    form = BalancedPrefill(exponent=float("inf"))
    seq, size = 512.0, 128.0
    sizes = dict(batch=1.0, heads=1.0, kv_heads=1.0, queries=seq, context=seq, head_dim=size)
    flops = 4.0 * seq * (seq + 1) / 2 * size
    found = form.seconds(Job(flops, 0.0, sizes, 1e-12, 0.0, 1.0, 1.0, 0.0))
    assert float(found) == pytest.approx(10 * 4 * 128**3 * 1e-12, rel=4e-3)


def test_what_fits_the_cache_comes_from_it():
    form, moved = Stream(), 20e6
    near, far = (form.seconds(Job(0.0, b, {}, 0.0, 1 / 3e12, 132.0, 50e6, 1 / 7e12)) for b in (moved, 100 * moved))
    assert float(near) == pytest.approx(moved / 7e12)
    assert float(far) == pytest.approx(100 * moved / 3e12)


@pytest.mark.first(2)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("model", MODELS)
def test_kernels_without_forms_are_the_roofline(model, stage):
    ideal, plain = (
        gz.estimate(model, H100.replace(kernels=kernels), LOAD, stage=stage).latency for kernels in (None, Kernels())
    )
    neutral = Kernels(gemm_bf16=Overlap(), decode_attention=Overlap(), norm=Overlap(), experts_bf16=Overlap())
    overlapped = gz.estimate(model, H100.replace(kernels=neutral), LOAD, stage=stage).latency
    assert float(plain) == pytest.approx(float(ideal), rel=1e-12)
    assert float(overlapped) == pytest.approx(float(ideal), rel=2e-4)  # the mean over positions is a quadrature


@pytest.mark.parametrize("model", MODELS)
def test_measured_kernels_are_slower_and_ignored_by_the_published_physics(model):
    measured = H100.replace(kernels=MEASURED)
    assert float(gz.estimate(model, measured, LOAD).latency) > float(gz.estimate(model, H100, LOAD).latency)
    both = [float(gz.estimate(model, p, LOAD, stage="decode", assumptions="genz").latency) for p in (H100, measured)]
    assert both[0] == both[1]
    assert measured.ideal().kernels is None


def test_the_mean_over_positions_is_that_of_all_positions():
    measured, tokens = H100.replace(kernels=MEASURED), 400
    load = gz.Workload(batch=16, input_tokens=700, output_tokens=tokens)
    mean = float(gz.estimate("llama-3.1-8b", measured, load, stage="decode").latency)
    each = gz.Workload(batch=16, input_tokens=gz.axis(np.arange(700, 700 + tokens - 1)), output_tokens=2)
    one_by_one = gz.sweep("llama-3.1-8b", measured, each, stage="decode", progress=False).latency
    assert mean == pytest.approx(float(one_by_one.mean()), rel=1e-3)


@pytest.mark.slow
def test_a_list_of_measured_and_ideal_platforms_is_each_alone():
    platforms = {
        "ideal": H100,
        "measured": H100.replace(kernels=MEASURED),
        "other": gz.platform("H200").replace(kernels=MEASURED.replace(gemm_bf16=Overlap(1 * US, 0.7, 0.8, exponent=2))),
    }
    ds = gz.sweep("llama-3.1-8b", platforms, LOAD, precision=["bf16", "fp8"], progress=False)
    for name, platform in platforms.items():
        for text in ("bf16", "fp8"):
            alone = float(gz.estimate("llama-3.1-8b", platform, LOAD, precision=text).latency)
            assert float(ds.latency.sel(platform=name, precision=text)) == pytest.approx(alone, rel=1e-9)


@pytest.mark.parametrize("path", ["mem_bw", "flops"])
def test_more_of_a_rate_is_never_slower(path):
    axis = {path: gz.geomspace(1e12, 1e13, 40) if path == "mem_bw" else gz.geomspace(1e14, 1e16, 40)}
    ds = gz.sweep("mixtral-8x7b", H100.replace(kernels=MEASURED, **axis), LOAD, progress=False)
    assert (ds.latency.diff(path) <= 0).all()


def test_every_constant_sweeps():
    kernels = MEASURED.replace(**{"gemm_bf16.launch": gz.axis([1e-6, 5e-6], "launch"), "derating": gz.axis([0, 0.1])})
    ds = gz.sweep("llama-3.1-8b", H100.replace(kernels=kernels), LOAD, stage="prefill", progress=False)
    assert set(ds.latency.dims) == {"launch", "derating"}
    assert (ds.latency.diff("launch") > 0).all()
    assert (ds.latency.diff("derating") > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["prefill", "decode"])
def test_slopes_of_all_constants_are_finite_differences(stage):
    platform = H100.replace(kernels=MEASURED)
    names = [path for path in MEASURED.paths() if float(at(MEASURED, path)) > 0]

    def latency(values: jax.Array) -> jax.Array:
        changes = dict(zip(names, values, strict=True))
        kernels = MEASURED.replace(**{name: float(at(MEASURED, name)) * x for name, x in changes.items()})
        found = gz.estimate("mixtral-8x7b", platform.replace(kernels=kernels), LOAD, precision="fp8", stage=stage)
        return found.latency

    ones, h = np.ones(len(names)), 1e-6
    slope = jax.grad(latency)(jnp.asarray(ones))
    for i in range(len(names)):
        if names[i].endswith(("tile", "splits", "processors")):
            continue  # whole numbers of tiles and waves: the slope of a step is none
        step = h * np.eye(len(names))[i]
        both = [float(latency(jnp.asarray(ones + s))) for s in (step, -step)]
        assert float(slope[i]) == pytest.approx((both[0] - both[1]) / (2 * h), rel=1e-4, abs=1e-9), names[i]


def test_bad_constants_are_told():
    with pytest.raises(ValueError, match=r"Gemm\.launch = -1: must be finite and 0 or more"):
        Gemm(launch=-1.0)
    with pytest.raises(ValueError, match=r"exponent = 3: must be one of 0.5, 1, 2, 4, inf"):
        Gemm(exponent=3)
    with pytest.raises(ValueError, match=r"compute_efficiency = 2: must be above 0 and at most 1.5"):
        Overlap(compute_efficiency=2.0)
    assert isinstance(MEASURED.decode_attention, Form)


def test_short_prompts_split_their_keys_over_the_processors():
    form = PairedPrefill(2.2 * US, 0.37, 0.75, tile_time=2.8 * US, chain=1.15, alone=1.2)
    sizes = dict(batch=1.0, heads=8.0, kv_heads=1.0, queries=4096.0, context=4096.0, head_dim=128.0)
    few, many = (
        float(
            form.seconds(Job(4.0 * b * 8 * 4096 * 4097 / 2 * 128, 0.0, sizes | {"batch": b}, 1e-15, 0.0, 132.0, 1, 0))
        )
        for b in (1.0, 16.0)
    )
    assert few < many < 16 * few
