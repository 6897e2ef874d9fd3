"""Pipeline stages: whole layers, embedding on the first and head on the last, against explicit placement."""

from typing import Any

import numpy as np
import pytest
from helpers import big_platform

import genz_jax as gz

CHIP = gz.platform("H200").replace(mem_capacity="2 TB")
STAGES = [1, 2, 3, 5, 7, 8, 16, 20]


def partition(layers: int, stages: int) -> list[int]:
    """Layers of each stage: the rest goes one each to the stages that end with the last but one."""
    found = [layers // stages] * stages
    for i in range(2, layers % stages + 2):
        found[-i] += 1
    return found


def sweep(model: str, stage: str, **options: Any) -> Any:
    load = gz.Workload(16, 1000, 24)
    spread = gz.Parallelism(pp=gz.axis(STAGES))
    return gz.sweep(model, CHIP, load, spread, stage=stage, progress=False, **options)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["llama-3.1-70b", "gemma-3-12b"])  # the second ties its embedding
def test_the_fullest_stage_decides_what_is_held(model: str):
    count, layers = gz.parameter_count(model), int(gz.model(model).layers)
    tied = bool(gz.model(model).tied_embeddings)
    norms = float(gz.model(model).hidden_size)  # the last norm stands with the head
    body = float(count.total) - float(count.embedding) - (0.0 if tied else float(count.head)) - norms
    found = sweep(model, "memory")
    for pp in STAGES:
        held = [body * n / layers for n in partition(layers, pp)]
        held[0] += float(count.embedding)
        held[-1] += norms + (float(count.head) if not tied else float(count.embedding) * (pp > 1))
        assert float(found.weights.sel(pp=pp)) == pytest.approx(2 * max(held), rel=1e-6), pp


@pytest.mark.slow
def test_published_sizes_of_stages():
    # Llama 3.1 70B in bf16, by hand: 10 layers of 1.711 GB and 2.1 GB of embedding, and so on.
    spread = gz.Parallelism(pp=gz.axis([8, 16, 40]))
    found = gz.sweep("llama-3.1-70b", "H200", gz.Workload(1, 1024, 16), spread, stage="memory", progress=False)
    np.testing.assert_allclose(found.weights.values / 1e9, [19.2, 10.7, 5.52], rtol=5e-3)


@pytest.mark.slow
def test_the_slowest_stage_sets_the_pace():
    layers = 32
    one = gz.estimate("llama-3.1-8b", CHIP, gz.Workload(16, 1000, 24), stage="decode")
    assert one.breakdown is not None
    for pp in (3, 5):  # micro-batches of the same size on one device, without the sends between stages
        spread = gz.Parallelism(pp=pp, micro_batches=pp)
        piped = gz.estimate("llama-3.1-8b", CHIP, gz.Workload(16 * pp, 1000, 24), spread, stage="decode")
        parts = {name: float(value) for name, value in one.breakdown.items()}
        ends = parts["embedding"], parts["head"]
        sent = float(piped.breakdown["pipeline"])
        body = float(one.latency) - sum(ends) + sent
        stages = [body * n / layers for n in partition(layers, pp)]
        stages[0] += ends[0]
        stages[-1] += ends[1]
        expected = max(pp * max(stages), float(one.latency) + sent)
        assert float(piped.batch_time) == pytest.approx(expected, rel=1e-6)


def makespan(times: list[float], stages: int) -> float:
    """End of jobs that go through equal stages in order, where a stage takes one job at a time."""
    free = [0.0] * stages
    for time in times:
        done = 0.0
        for stage in range(stages):
            done = free[stage] = max(done, free[stage]) + time / stages
    return free[-1]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["prefill", "encode"])
@pytest.mark.parametrize(("batch", "micro_batches"), [(16, 1), (17, 1), (23, 1), (15, 1), (34, 2)])
def test_passes_go_through_the_pipeline_as_jobs_through_a_shop(stage: str, batch: int, micro_batches: int):
    # Stages of one length: hardly an embedding or a head, and links that take no time.
    model = gz.model("llama-3.1-8b").replace(vocab_size=1)
    platform = big_platform(link_bw=1e18, link_latency=0.0)
    engine, pp = gz.Engine(tokens_per_step=8000), 4

    def passed(batch: float, pp: int = 1, m: int = 1) -> float:
        spread = gz.Parallelism(pp=pp, micro_batches=m)
        found = gz.estimate(model, platform, gz.Workload(batch, 1000), spread, stage=stage, engine=engine)
        return float(found.batch_time)

    whole, rest = divmod(batch // micro_batches, 8)
    times = [passed(8)] * whole + ([passed(rest)] if rest else [])
    expected = makespan(times * micro_batches, pp)
    assert passed(batch, pp, micro_batches) == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_a_token_more_is_never_sooner():
    spread = gz.Parallelism(tp=2, pp=4)
    tokens = [8191, 8192, 8193, 8300, 12000, 16384, 16385]
    found = [gz.estimate("llama-3.1-70b", "H100-SXM", gz.Workload(1, n, 1), spread, "fp8") for n in tokens]
    times = [float(one.ttft) for one in found]
    assert times == sorted(times)


def test_one_stage_is_the_whole_model():
    alone = gz.estimate("llama-3.1-8b", CHIP, gz.Workload(16, 1000, 24), stage="decode")
    assert float(alone.batch_time) == float(alone.latency)
    assert float(alone.weights) == 2 * 8_030_261_248


@pytest.mark.slow
def test_beams_share_whole_blocks_of_the_prompt():
    prompts, outputs, beams = [1, 5, 12, 16, 17, 31, 40], [1, 2, 16, 17, 100], [1, 2, 4]
    load = gz.Workload(1, gz.axis(prompts), gz.axis(outputs), gz.axis(beams))
    held = gz.sweep("llama-3.1-8b", CHIP, load, stage="memory", progress=False).kv_cache
    held = held.transpose("input_tokens", "output_tokens", "beams").values / 131_072
    for axis in range(3):
        assert (np.diff(held, axis=axis) >= 0).all()
    for i, prompt in enumerate(prompts):
        for j, output in enumerate(outputs):
            assert held[i, j, 0] == -(-(prompt + output) // 16) * 16
            for k, n in enumerate(beams):
                # Blocks of one beam, and for each other beam those that its own tokens lie in.
                own = (prompt + output - 1) // 16 - prompt // 16 + 1
                assert held[i, j, k] >= held[i, j, 0] + (n - 1) * own * 16 - 1e-6
                assert held[i, j, k] <= held[i, j, 0] + (n - 1) * (own + 1) * 16 + 1e-6


@pytest.mark.first(1)
@pytest.mark.parametrize("model", ["falcon-mamba-7b", "qwen3-next-80b-a3b"])
def test_nothing_cached_is_as_without_a_cache(model: str):
    plain = gz.estimate(model, CHIP, gz.Workload(4, 1000, 2), stage="prefill")
    load = gz.Workload(4, 1000, 2, cached_tokens=gz.axis([0, 500]), cache_hit_rate=gz.axis([0.0, 1.0]))
    found = gz.sweep(model, CHIP, load, stage="prefill", progress=False).latency
    nothing = [found.sel(cached_tokens=0), found.sel(cache_hit_rate=0.0)]
    for values in nothing:
        np.testing.assert_allclose(values.values, float(plain.latency), rtol=1e-9)
    assert float(found.sel(cached_tokens=500, cache_hit_rate=1.0)) < float(plain.latency)
