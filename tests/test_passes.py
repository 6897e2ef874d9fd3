"""Prefill in bounded passes: the sum of explicit passes, memory that stops growing, and inverses that are exact."""

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import genz_jax as gz

CHIP = gz.platform("H100-SXM").replace(mem_capacity="1 TB")
UNBOUNDED = gz.Engine(10**7)


def prefill(model: str, batch: int, tokens: int, limit: int | None, tp: int, **options: Any) -> Any:
    engine = UNBOUNDED if limit is None else gz.Engine(limit)
    load = gz.Workload(batch, tokens, 1, **options)
    return gz.estimate(model, CHIP, load, gz.Parallelism(tp=tp), "fp8", engine=engine, stage="prefill")


def explicit(model: str, batch: int, tokens: int, limit: int, tp: int) -> float:
    """Sum of the iterations of chunked prefill that fill each pass with whole prompts and parts, in order."""
    passes: list[list[gz.specs.PrefillChunk]] = [[]]
    room = limit
    for _ in range(batch):
        past = 0
        while past < tokens:
            if not room:
                passes, room = [*passes, []], limit
            new = min(room, tokens - past)
            passes[-1].append(gz.specs.PrefillChunk(past, new))
            past, room = past + new, room - new
    found = 0.0
    for chunks in passes:
        load = gz.Workload(prefill_chunks=tuple(chunks))
        found += float(gz.estimate(model, CHIP, load, gz.Parallelism(tp=tp), "fp8", stage="chunked").latency)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "batch", "tokens", "limit", "tp", "tolerance"),
    [
        ("llama-3.1-8b", 1, 10000, 4096, 2, 1e-9),
        ("llama-3.1-8b", 16, 1024, 8192, 1, 1e-9),
        pytest.param("llama-3.1-8b", 1, 520, 512, 8, 1e-9, marks=pytest.mark.slow),
        # Two prompts are cut where a third pass would be whole: their keys that are read again are left out.
        pytest.param("llama-3.1-8b", 3, 5000, 8192, 2, 1e-5, marks=pytest.mark.slow),
        pytest.param("mixtral-8x7b", 2, 3000, 2048, 2, 1e-5, marks=pytest.mark.slow),
        pytest.param("gemma-3-12b", 1, 9000, 2048, 1, 1e-9, marks=pytest.mark.slow),  # windows
        pytest.param("deepseek-v3", 1, 6000, 2048, 8, 1e-9, marks=pytest.mark.slow),  # latents are expanded again
        pytest.param("falcon-mamba-7b", 1, 6000, 2048, 1, 1e-3, marks=pytest.mark.slow),  # states
    ],
)
def test_passes_take_as_long_as_explicit_ones(model, batch, tokens, limit, tp, tolerance):
    ours = prefill(model, batch, tokens, limit, tp)
    assert float(ours.latency) == pytest.approx(explicit(model, batch, tokens, limit, tp), rel=tolerance)
    assert float(ours.latency) > float(prefill(model, batch, tokens, None, tp).latency)


@pytest.mark.slow
def test_a_prefill_that_fits_a_step_is_one_pass():
    one, same = prefill("llama-3.1-8b", 4, 2048, 8192, 1), prefill("llama-3.1-8b", 4, 2048, None, 1)
    for name, (value, _) in same.figures().items():
        np.testing.assert_array_equal(one.figures()[name][0], value, err_msg=name)
    # The general program, in which the number of passes is not known, gives the same.
    ds = gz.sweep(
        "llama-3.1-8b",
        CHIP,
        gz.Workload(4, gz.axis([2048, 4096]), 1),
        precision="fp8",
        engine=gz.Engine(gz.axis([2048, 8192])),
        stage="prefill",
        progress=False,
    )
    assert set(ds.latency.dims) == {"input_tokens", "tokens_per_step"}
    at = ds.sel(tokens_per_step=8192, input_tokens=2048)
    assert float(at.latency) == pytest.approx(float(one.latency), rel=1e-12)
    assert float(at.activations) == pytest.approx(float(one.activations), rel=1e-12)
    for limit in (2048, 8192):
        for tokens in (2048, 4096):
            point = prefill("llama-3.1-8b", 4, tokens, limit, 1)
            cell = ds.sel(tokens_per_step=limit, input_tokens=tokens)
            assert float(cell.latency) == pytest.approx(float(point.latency), rel=1e-12)


def test_working_memory_is_that_of_one_pass():
    sizes = [float(prefill("llama-3.1-8b", 1, tokens, 8192, 1).activations) for tokens in (8192, 32768, 131072)]
    assert sizes[0] == sizes[1] == sizes[2]
    assert float(prefill("llama-3.1-8b", 1, 131072, None, 1).activations) > 10 * sizes[0]


def test_time_to_first_token_is_the_end_of_the_last_pass():
    options: Any = {"precision": "fp8", "engine": gz.Engine(4096)}
    load = gz.Workload(8, 3000, 64)
    request = gz.estimate("llama-3.1-8b", CHIP, load, **options)
    first = gz.estimate("llama-3.1-8b", CHIP, load, stage="prefill", **options)
    assert float(request.ttft) == float(first.batch_time)


def test_published_physics_knows_no_passes():
    load = gz.Workload(2, 3000, 8)
    few, many = (
        gz.estimate("llama-2-7b", CHIP, load, precision="fp8", engine=gz.Engine(limit), assumptions="genz")
        for limit in (128, 8192)
    )
    for name, (value, _) in few.figures().items():
        np.testing.assert_array_equal(value, many.figures()[name][0], err_msg=name)


@pytest.mark.slow
def test_larger_steps_are_not_slower():
    ds = gz.sweep(
        "llama-3.1-8b",
        CHIP,
        gz.Workload(4, 5000, 1),
        precision="fp8",
        engine=gz.Engine(gz.axis([256, 512, 1000, 2048, 4096, 8192, 16384, 32768])),
        stage="prefill",
        progress=False,
    )
    times = ds.latency.values
    assert (np.diff(times) <= 1e-3 * times[:-1]).all()  # a last pass of few tokens may cost up to that
    assert (np.diff(ds.activations.values) >= 0).all()


@pytest.mark.slow
@settings(max_examples=settings().max_examples // 4)
@given(
    batch=st.integers(1, 64),
    prompt=st.integers(1, 60000),
    output=st.integers(1, 3000),
    capacity=st.floats(1.9e10, 3e11),
    limit=st.sampled_from([512, 8192]),
    double=st.booleans(),
)
def test_the_largest_that_fits_fits_and_the_next_does_not(batch, prompt, output, capacity, limit, double):
    chip = gz.platform("H100-SXM").replace(mem_capacity=capacity)

    def memory(batch: float, prompt: float) -> Any:
        with jax.enable_x64(double):
            load = gz.Workload(batch, prompt, output)
            return gz.estimate("llama-3.1-8b", chip, load, engine=gz.Engine(limit), stage="memory")

    found = memory(batch, prompt)
    most, longest = float(found.largest_batch), float(found.longest_context)
    if most:
        assert bool(memory(most, prompt).feasible)
    assert not bool(memory(most + 1, prompt).feasible)
    if longest:
        assert bool(memory(batch, longest - output).feasible)
    assert not bool(memory(batch, max(longest, output) + 1 - output).feasible)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "batch", "output", "capacity", "expected"),
    # Contexts that end within a block of the cache, where activations still grow: by brute force over prompts.
    [("llama-3.1-8b", 64, 8, "19.173 GB", 55), ("llama-3.1-8b", 2, 15, "18.2656 GB", 118)],
)
def test_a_context_may_end_within_a_block(model, batch, output, capacity, expected):
    chip = gz.platform("H100-SXM").replace(mem_capacity=capacity)
    found = gz.estimate(model, chip, gz.Workload(batch, 100, output), stage="memory")
    assert float(found.longest_context) == expected
    load = gz.Workload(batch, gz.axis(np.arange(1.0, 200.0)), output)
    fits = gz.sweep(model, chip, load, stage="memory", figures=["feasible"], progress=False).feasible
    assert fits.input_tokens[fits.values].values[-1] + output == expected


def test_longest_context_is_exact_where_rounding_decides():
    chip = gz.platform("H100-SXM")
    load = gz.Workload(4, 4698, 54)
    need = gz.estimate("llama-3.1-8b", chip, gz.Workload(4, 4768 - 54, 54), stage="memory").memory
    just = chip.replace(
        mem_capacity=float(need + chip.runtime_memory) / (1.0 - float(chip.memory_reserve)) * (1 + 1e-15)
    )
    assert float(gz.estimate("llama-3.1-8b", just, load, stage="memory").longest_context) == 4768
    less = chip.replace(mem_capacity=float(just.mem_capacity) * (1 - 1e-12))
    assert float(gz.estimate("llama-3.1-8b", less, load, stage="memory").longest_context) == 4752


@pytest.mark.slow
def test_inverses_have_slopes():
    def largest(capacity: jax.Array) -> jax.Array:
        chip = CHIP.replace(mem_capacity=capacity)
        return gz.estimate("llama-3.1-8b", chip, gz.Workload(4, 2000, 48), stage="memory").largest_batch

    at, step = 1e12, 1e11
    slope = float(jax.grad(largest)(jax.numpy.asarray(at)))
    expected = float(largest(jax.numpy.asarray(at + step)) - largest(jax.numpy.asarray(at - step))) / (2 * step)
    assert slope == pytest.approx(expected, abs=1.0 / (2 * step))  # both ends are whole numbers
