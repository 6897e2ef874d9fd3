"""Times of operators against peaks and bandwidths, and rates of the catalogue's platforms against its tables."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ZOO, big_platform, catalogue, make_case, once, pick, rates
from hypothesis import given, strategies as st

import genz_jax as gz
from genz_jax.base.formats import FORMATS
from genz_jax.machine.capacity import capacity_check
from genz_jax.machine.energy import energy
from genz_jax.machine.roofline import Speeds, compute_rate, operator_time
from genz_jax.serving.evaluate import Question
from genz_jax.specs import assumptions
from genz_jax.work.loads import load
from genz_jax.work.operators import elementwise, operator as operators, products

BF16 = gz.Precision("bf16")
positive = st.floats(1e-3, 1e3)


def timed(op: operators.Operator, platform: gz.Platform, physics=assumptions.default, bandwidth: Any = None):
    speeds = Speeds.of(platform, BF16, platform.mem_bw if bandwidth is None else bandwidth)
    return operator_time(op, load(op, physics), speeds, platform, physics)


@pytest.mark.slow
@given(m=st.integers(0, 5000), n=st.integers(1, 9000), k=st.integers(1, 9000), compute=positive, memory=positive)
def test_a_gemm_takes_the_longer_of_compute_and_memory(m: int, n: int, k: int, compute: float, memory: float):
    platform = gz.Platform(compute * 1e12, memory * 1e9, 1e12, compute_efficiency=0.6, memory_efficiency=0.8)
    op = products.gemm("g", "ffn", batch=2.0, m=float(m), n=float(n), k=float(k), precision=BF16).times(3.0)
    time = timed(op, platform)
    at_peak = 3 * 2 * 2 * m * n * k / (compute * 1e12)
    moved = 3 * 2 * (2 * m * k + k * n + 2 * m * n) / (memory * 1e9) if m else 0.0
    assert float(time.compute) == pytest.approx(at_peak / 0.6, rel=1e-12)
    assert float(time.memory) == pytest.approx(moved / 0.8, rel=1e-12)
    assert float(time.latency) == max(float(time.compute), float(time.memory))
    assert float(time.latency) >= max(at_peak, moved)
    assert float(time.network) == 0.0


@pytest.mark.parametrize("on_chip", ["", "i", "o", "io", "iwo", "w"])
def test_tensors_on_chip_take_no_memory_time(on_chip: str):
    platform = gz.Platform(1e30, 2e12, 1e12, onchip_bw=7e12, memory_efficiency=0.5)
    op = products.gemm("g", "ffn", batch=1.0, m=3.0, n=5.0, k=7.0, precision=BF16, on_chip=on_chip)
    tensors = {"i": 2 * 3 * 7, "w": 2 * 7 * 5, "o": 2 * 3 * 5}
    outside = sum(size for name, size in tensors.items() if name not in on_chip)
    inside = sum(size for name, size in tensors.items() if name in on_chip)
    assert float(timed(op, platform).memory) == pytest.approx(outside / 2e12 / 0.5, rel=1e-12)
    counted = timed(op, platform, assumptions.default.replace(on_chip_traffic=True))
    assert float(counted.memory) == pytest.approx((outside / 2e12 + inside / 7e12) / 0.5, rel=1e-12)


def test_vector_operators_wait_for_memory_alone():
    platform = gz.Platform(1e9, 2e12, 1e12, memory_efficiency=0.5)
    time = timed(elementwise.norm("n", rows=11.0, width=13.0, precision=BF16), platform)
    assert float(time.compute) == 0.0
    assert float(time.latency) == float(time.memory) == pytest.approx(4 * 2 * 11 * 13 / 2e12 / 0.5, rel=1e-12)


@pytest.mark.slow
@given(a=st.floats(0, 1e6), b=st.floats(0, 1e6), smooth=st.sampled_from([1e-3, 0.01, 0.05, 0.2, 0.5]))
def test_smooth_maximum_keeps_its_bounds(a: float, b: float, smooth: float):
    # FLOPs and bytes that take a and b seconds.
    op = operators.Operator("x", "gemm", "ffn", flops=(a + 1e-9) * 1e12, input=b * 1e12)
    platform = gz.Platform(1e12, 1e12, 1e12)
    largest = max(a + 1e-9, b)
    latency = float(timed(op, platform, assumptions.default.replace(smooth=smooth)).latency)
    assert largest * (1 - 1e-12) <= latency <= largest * 2**smooth * (1 + 1e-12)
    p = 1 / smooth
    expected = largest * (1 + (min(a + 1e-9, b) / largest) ** p) ** smooth
    assert latency == pytest.approx(expected, rel=1e-12)


def test_smooth_maximum_becomes_exact():
    op = operators.Operator("x", "gemm", "ffn", flops=3e12, input=2.9e12)
    platform = gz.Platform(1e12, 1e12, 1e12)
    errors = [
        float(timed(op, platform, assumptions.default.replace(smooth=tau)).latency) / 3.0 - 1.0
        for tau in (0.5, 0.1, 0.02, 0.004, 0.0005, 0.0)
    ]
    assert all(error >= 0 for error in errors)
    assert errors == sorted(errors, reverse=True)
    assert errors[-2] < 1e-12
    assert errors[-1] == 0.0


@pytest.mark.parametrize("smooth", [0.01, 0.5])
@pytest.mark.parametrize(("flops", "moved"), [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1e-30, 1e30)])
def test_smooth_maximum_has_a_finite_gradient(smooth: float, flops: float, moved: float):
    physics = assumptions.default.replace(smooth=smooth)

    def latency(rate, bandwidth):
        op = operators.Operator("x", "gemm", "ffn", flops=flops, input=moved)
        return timed(op, gz.Platform(1e12, 1e12, 1e12).replace(flops=rate, mem_bw=bandwidth), physics).latency

    slopes = jax.grad(latency, (0, 1))(jnp.asarray(2.0), jnp.asarray(3.0))
    assert all(math.isfinite(slope) and slope <= 0 for slope in slopes)


NARROWER = {  # the formats that a number of each format can be computed in, nearest first
    "fp16": ["bf16"],
    "fp8": ["bf16"],
    "int8": ["fp8", "bf16"],
    "fp6": ["fp8", "bf16"],
    "fp4": ["fp6", "fp8", "bf16"],
    "int4": ["fp4", "int8", "fp8", "bf16"],
    "int2": ["int4", "fp4", "int8", "fp8", "bf16"],
}


@pytest.mark.first(21)
@pytest.mark.parametrize("name", sorted(catalogue("platforms")))
def test_rates_of_the_catalogue_are_those_of_its_table(name: str):
    platform, table = gz.platform(name), rates(catalogue("platforms")[name])
    for format in FORMATS:
        rate = float(compute_rate(platform, gz.Precision(format)))
        if format in table:
            assert rate == pytest.approx(table[format], rel=1e-12)
        elif format in NARROWER:
            wider = next(candidate for candidate in NARROWER[format] if candidate in table)
            assert rate == pytest.approx(table[wider], rel=1e-12), f"{format} runs as {wider}"
        else:
            assert 0 < rate <= table["bf16"]
    assert float(platform.flops) == pytest.approx(table["bf16"], rel=1e-12)


@pytest.mark.parametrize(
    ("precision", "format"),
    [
        (gz.Precision("fp8"), "fp8"),
        (gz.Precision("int4", "bf16"), "bf16"),
        (gz.Precision("fp8", "int8"), "fp8"),
        (gz.Precision("bf16", compute="fp8"), "fp8"),
    ],
)
def test_the_wider_of_weights_and_activations_is_computed_in(precision: gz.Precision, format: str):
    platform = gz.platform("H100-SXM")
    expected = {"fp8": 1979e12, "bf16": 989e12}[format]
    assert float(compute_rate(platform, precision)) == pytest.approx(expected, rel=2e-3)


@given(
    need=st.floats(1e9, 1e12), capacity=st.floats(1e9, 1e12), memory=st.floats(1e11, 1e13), link=st.floats(1e9, 1e12)
)
def test_offloading_streams_both_memories_at_once(need: float, capacity: float, memory: float, link: float):
    platform = gz.Platform(1e15, memory, capacity, offload_bw=link)
    runs, offloads, bandwidth = capacity_check(jnp.asarray(need), jnp.asarray(capacity), platform)
    assert bool(runs)
    assert bool(offloads) == (need > capacity)
    expected = need / max(min(need, capacity) / memory, (need - capacity) / link) if need > capacity else memory
    assert float(bandwidth) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("link", [None, 0.0])
def test_without_a_link_what_does_not_fit_does_not_run(link: float | None):
    platform = gz.Platform(1e15, 2e12, 80e9, offload_bw=link)
    for need, fits in ((79e9, True), (80e9, True), (81e9, False)):
        runs, offloads, bandwidth = capacity_check(jnp.asarray(need), platform.mem_capacity, platform)
        assert (bool(runs), bool(offloads), float(bandwidth)) == (fits, False, 2e12)


def test_energy_is_the_sum_of_its_shares():
    split = gz.specs.PowerSplit(0.25, 0.35, 0.15, 0.05)
    platform = gz.Platform(1e15, 1e12, 1e11, power=900.0, power_split=split)
    found = energy(2.0, 1.1, 0.7, 0.4, platform)
    assert float(found) == pytest.approx(900 * (0.25 * 2 + 0.35 * 1.1 + 0.15 * 0.7 + 0.05 * 0.4), rel=1e-14)


def scan_states(model: gz.Model, kinds: tuple[str, ...]) -> float:
    """State elements of one sequence in the layers of some kinds."""
    states = 0.0
    if model.ssm is not None and "ssm" in kinds:
        states += float(model.ssm.layers * model.ssm.d_inner * model.ssm.d_state)
    if model.ssd is not None and "ssd" in kinds:
        states += float(model.ssd.layers * model.ssd.heads * model.ssd.head_dim * model.ssd.d_state)
    return states


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["default", "genz"])
@pytest.mark.parametrize("stage", ["prefill", "decode"])
def test_a_stage_takes_at_least_the_time_of_its_work(stage: str, preset: str):
    physics = assumptions.preset(preset).replace(vector_operators=False)
    found = once(make_case(pick(ZOO), big_platform(), gz.Workload(8, 2000, 100)), Question(stage, physics))
    kinds = ("ssm", "ssd") if preset == "default" else ("ssd",)  # whose scan is one kernel of the vector units
    states = np.array([scan_states(gz.model(name), kinds) for name in ZOO])
    scan = 6 * 8 * (2000 if stage == "prefill" else 1) * states
    matrix_flops = found["flop_count"] - scan
    np.testing.assert_allclose(found["compute_time"], matrix_flops / 989e12, rtol=1e-9)
    assert np.all(found["latency"] >= matrix_flops / 989e12 * (1 - 1e-12))
    assert np.all(found["latency"] >= found["memory_time"])
    assert np.all(found["memory_time"] <= found["traffic"] / 3.35e12 * (1 + 1e-12))
    embedding = np.array([float(model.hidden_size) * float(model.vocab_size) for model in map(gz.model, ZOO)])
    read = found["weights"] - found["idle_weights"] - (2 * embedding if preset == "default" else 0)
    if stage == "prefill" or preset == "default":
        assert np.all(found["latency"] >= read / 3.35e12 * (1 - 1e-12))
