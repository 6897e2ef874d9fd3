"""Memory of a device: parts from closed forms, and what still fits against trying every size."""

import numpy as np
import pytest
from helpers import make_case, once

import genz_jax as gz
from genz_jax.serving.evaluate import Question
from genz_jax.specs.assumptions import Assumptions

DEFAULT = Assumptions.default


def memory(model, workload, capacity="80 GB", assumptions=DEFAULT, spread=None):
    platform = gz.platform("H100-SXM").replace(mem_capacity=capacity)
    case = make_case(gz.model(model), platform, workload, gz.Parallelism(**(spread or {})))
    return {name: np.asarray(value) for name, value in once(case, Question("memory", assumptions)).items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("llama-3.1-70b", 327_680),  # 80 layers · 2 · 8 heads · 128 · 2 B
        ("deepseek-v3", 70_272),  # 61 layers · 576 · 2 B
        ("mixtral-8x7b", 131_072),  # 32 layers · 2 · 8 heads · 128 · 2 B
        ("falcon-mamba-7b", 0),
        ("jamba-1.5-large", 9 * 2 * 8 * 128 * 2),
        ("gemma-3-27b", 10 * 2 * 16 * 128 * 2),  # the 10 global layers of 62, past the window
    ],
)
def test_the_cache_of_one_token_more_is_the_published(name: str, published: int):
    found = memory(name, gz.Workload(1, 128_000, 100), "10 TB")
    assert float(found["kv_cache_per_token"]) == pytest.approx(published, rel=1e-9)


@pytest.mark.slow
def test_the_parts_of_a_dense_model_are_those_of_its_sizes():
    # Llama 3.1 8B, one H100: the widest operator of prefill is the activation of the gated FFN, 2 · 14,336 in and
    # 14,336 out, beside the residual stream, its sum and its norm of 4,096. Four sequences are sampled from later, at
    # 40 B for a logit.
    found = memory("llama-3.1-8b", gz.Workload(4, 1000, 24))
    assert float(found["weights"]) == 2 * 8_030_261_248
    assert float(found["kv_cache"]) == 4 * 1024 * 131_072
    assert float(found["activations"]) == max(4 * 1000 * (3 * 4096 + 3 * 14_336) * 2, 4 * 128_256 * 40)
    assert float(found["buffers"]) == 0.0
    assert float(found["reserve"]) == pytest.approx(8e9 + 0.3 * 2**30, rel=1e-12)
    parts = sum(float(found[name]) for name in ("weights", "kv_cache", "activations", "buffers"))
    assert float(found["memory"]) == pytest.approx(parts, rel=1e-12)
    assert float(found["free"]) == pytest.approx(72e9 - 0.3 * 2**30 - parts, rel=1e-9)


@pytest.mark.slow
def test_a_collective_has_a_buffer_to_send_and_one_to_receive():
    found = memory("llama-3.1-8b", gz.Workload(2, 512, 16), spread={"tp": 4})
    assert float(found["buffers"]) == 2 * 2 * 512 * 4096 * 2


@pytest.mark.slow
@pytest.mark.parametrize(("block", "held"), [(1, 1001), (16, 1008), (64, 1024), (1000, 2000)])
def test_sequences_are_held_in_whole_blocks(block: int, held: int):
    found = memory("llama-3.1-8b", gz.Workload(3, 991, 10), assumptions=DEFAULT.replace(cache_block=block))
    assert float(found["kv_cache"]) == 3 * held * 131_072


@pytest.mark.slow
def test_the_stage_and_the_request_need_the_same():
    workload = gz.Workload(8, 3000, 200)
    spreads = {"gemma-3-27b": {"tp": 2}, "mixtral-8x7b": {"tp": 2, "ep": 4}, "deepseek-v3": {"tp": 8, "pp": 2}}
    for name, spread in spreads.items():
        apart = memory(name, workload, "300 GB", spread=spread)
        case = make_case(gz.model(name), gz.platform("H100-SXM").replace(mem_capacity="300 GB"), workload,
                         gz.Parallelism(**spread))  # fmt: skip
        request = once(case, Question("request", DEFAULT, ("memory", "activations", "kv_cache", "feasible")))
        for figure in ("memory", "activations", "kv_cache"):
            assert float(request[figure]) == pytest.approx(float(apart[figure]), rel=1e-12)


def test_the_published_set_counts_weights_and_cache_alone():
    found = memory("llama-3.1-8b", gz.Workload(4, 1000, 24), assumptions=Assumptions.genz)
    assert float(found["activations"]) == float(found["buffers"]) == float(found["reserve"]) == 0.0


SPREADS = {
    "llama-3.1-8b": ({}, {"tp": 2}, {"pp": 2}, {"dp": 2}),
    "gemma-3-27b": ({"tp": 2}, {"tp": 2, "pp": 2}),
    "gpt-oss-20b": ({"tp": 2},),
    "mixtral-8x7b": ({"tp": 2}, {"ep": 4}),
    "deepseek-v3": ({"tp": 8, "pp": 2},),
    "jamba-1.5-mini": ({"tp": 2},),
    "falcon-mamba-7b": ({},),
}
QUICK = ("llama-3.1-8b", "gemma-3-27b")
PLACES = [
    pytest.param(name, spread, marks=[pytest.mark.slow] if i or name not in QUICK else [], id=f"{name} {spread}")
    for name, spreads in SPREADS.items()
    for i, spread in enumerate(spreads)
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "spread"), PLACES)
def test_the_largest_batch_fits_and_one_more_does_not(name: str, spread: dict[str, int]):
    def at(batch):
        return memory(name, gz.Workload(np.asarray(batch, float), 2000, 100), "141 GB", spread=spread)

    dp = spread.get("dp", 1)
    largest = float(at(8.0)["largest_batch"])
    assert largest >= dp
    free = at([largest, largest + dp])["free"]
    assert free[0] >= 0
    assert free[1] < 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "spread"), PLACES)
@pytest.mark.parametrize("capacity", ["141 GB", pytest.param("100 GB", marks=pytest.mark.slow)])
def test_the_longest_context_fits_and_one_token_more_does_not(name: str, spread: dict[str, int], capacity: str):
    def at(prompt):
        return memory(
            name, gz.Workload(4.0 * spread.get("dp", 1), np.asarray(prompt, float), 100), capacity, spread=spread
        )

    longest = float(at(1000.0)["longest_context"])
    if longest == 0:
        assert at(1.0)["free"] < 0 or name == "deepseek-v3"
        return
    free = at([longest - 100, longest - 100 + 1])["free"]
    assert free[0] >= 0
    assert free[1] < 0


@pytest.mark.slow
def test_what_fits_is_one_axis_among_others():
    chip = gz.platform("H100-SXM").replace(mem_capacity=gz.linspace("40 GB", "288 GB", 7))
    spread = gz.Parallelism(tp=gz.axis([1, 2, 4, 8]))
    ds = gz.sweep(
        ["llama-3.1-8b", "mixtral-8x7b"], chip, gz.Workload(1, 1000, 100), spread, stage="memory", progress=False
    )
    assert dict(ds.largest_batch.sizes) == {"model": 2, "mem_capacity": 7, "tp": 4}
    for figure in ("largest_batch", "longest_context"):
        values = ds[figure].transpose("model", "tp", "mem_capacity").values
        assert np.all(np.diff(values, axis=-1) >= 0)
        assert np.all(np.diff(values, axis=1) >= 0)
    assert ds.largest_batch.attrs["units"] == "1"
    assert float(ds.largest_batch.sel(model="mixtral-8x7b", tp=1, mem_capacity=40e9)) == 0
