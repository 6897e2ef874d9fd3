"""The decode step that stands for all generated positions, against the mean over every single one."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import big_platform, make_case, once
from hypothesis import given, strategies as st

import genz_jax as gz
from genz_jax.machine.roofline import mean_of_slowest
from genz_jax.serving.evaluate import Question
from genz_jax.specs.assumptions import Assumptions
from genz_jax.work.loads import PositionCount

DEFAULT = Assumptions.default
LAST = DEFAULT.replace(decode_position="last")
FIGURES = ("latency", "compute_time", "memory_time", "flop_count", "traffic", "energy")
PROMPT, OUTPUT = 40, 60
WINDOWS = (1, 17, 41, 63, 500)


def mean_of_steps(model, platform, beams, assumptions=LAST):
    """Mean of each figure over decode steps at every position; prefill makes the first of the output tokens."""
    workload = gz.Workload(3, PROMPT, np.arange(1.0, OUTPUT), beams)
    found = once(make_case(model, platform, workload), Question("decode", assumptions, FIGURES))
    return {name: np.broadcast_to(found[name], (OUTPUT - 1,)).mean() for name in FIGURES}


def step(model, platform, beams, assumptions=DEFAULT):
    found = once(
        make_case(model, platform, gz.Workload(3, PROMPT, OUTPUT, beams)), Question("decode", assumptions, FIGURES)
    )
    return {name: float(found[name]) for name in FIGURES}


def windowed(window: int) -> gz.Model:
    return gz.model("gemma-3-4b").replace(**{"local_attention.window": window})


def selecting(tokens: int) -> gz.Model:
    return gz.model("deepseek-v3.2").replace(**{"latent_attention.indexer.top_k": tokens})


CASES = {f"window {w}": windowed(w) for w in WINDOWS} | {f"selection of {w}": selecting(w) for w in (17, 63)}
CASES |= {name: gz.model(name) for name in ("llama-3.1-8b", "deepseek-v3", "jamba-1.5-mini", "qwen3.5-27b")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "beams", "fused"),
    [(name, 3, True) for name in CASES] + [(f"window {w}", 1, False) for w in (17, 63)] + [("window 17", 1, True)],
)
def test_the_mean_is_that_of_every_position(name: str, beams: int, fused: bool):
    model = CASES[name]
    for flops in ("989 TFLOP/s", "20 TFLOP/s"):
        platform = big_platform(flops=flops)
        mean = step(model, platform, beams, DEFAULT.replace(fused_attention=fused))
        every = mean_of_steps(model, platform, beams, LAST.replace(fused_attention=fused))
        for figure, value in mean.items():
            assert value == pytest.approx(every[figure], rel=1e-12), figure


@pytest.mark.slow
def test_attention_that_turns_compute_bound_on_the_way_is_averaged_exactly():
    # Between two rates all of decode attention goes from one side of the roofline to the other; near the edge it does
    # so within one request, where the maximum of means is too small.
    model = gz.model("llama-3.1-8b").replace(ffn=None, **{"attention.heads": 256, "attention.kv_heads": 1})
    gaps = []
    for flops in np.geomspace(1e13, 2e14, 12):
        platform = big_platform(flops=flops, mem_bw="1 TB/s")
        every = mean_of_steps(model, platform, 1)
        assert step(model, platform, 1)["latency"] == pytest.approx(every["latency"], rel=1e-12)
        middle = once(
            make_case(model, platform, gz.Workload(3, PROMPT, OUTPUT / 2)), Question("decode", LAST, ("latency",))
        )
        gaps.append(1 - float(middle["latency"]) / every["latency"])
    assert max(gaps) > 1e-6  # the case does cross


ends = st.floats(0, 1e3)


@given(ends, ends, ends, ends, st.integers(1, 60))
def test_the_mean_of_the_slowest_is_the_sum_over_positions(c0: float, c1: float, m0: float, m1: float, count: int):
    if count == 1:
        c1, m1 = c0, m0
    first, last = (jnp.asarray(c0), jnp.asarray(m0)), (jnp.asarray(c1), jnp.asarray(m1))
    found = float(mean_of_slowest(first, last, PositionCount.of(jnp.asarray(float(count)))))
    places = np.linspace(0, 1, count)
    every = np.maximum(c0 + (c1 - c0) * places, m0 + (m1 - m0) * places)
    assert found == pytest.approx(every.mean(), rel=1e-9, abs=1e-9)


def test_one_output_token_has_a_step_of_its_own_position():
    for output in (1, 2):
        workload = gz.Workload(3, PROMPT, output)
        found = [
            once(make_case(windowed(17), workload=workload), Question("decode", physics, ("latency",)))["latency"]
            for physics in (DEFAULT, LAST.replace(first_token_from_prefill=True))
        ]
        at_first = once(
            make_case(windowed(17), workload=gz.Workload(3, PROMPT, 1)), Question("decode", LAST, ("latency",))
        )["latency"]
        assert float(found[0]) == pytest.approx(float(at_first), rel=1e-12)
