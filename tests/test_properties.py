"""Properties that hold at any point: monotony, scaling, and that one point is the same however it is evaluated."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
from helpers import (
    ALL,
    ZOO,
    big_platform,
    log_uniform,
    make_case,
    numbers,
    once,
    pick,
    point,
    random_case,
    random_platform,
    request_question,
    run,
    worst,
)
from hypothesis import given, settings, strategies as st

import genz_jax as gz
from genz_jax.serving.evaluate import Case, Question, compiled, evaluate
from genz_jax.specs import assumptions
from genz_jax.specs.stack import stack, take

PRESETS = {"default": assumptions.default, "genz": assumptions.genz}
STAGES = ("request", "chunked", "speculative_decode", "speculative_prefill")
QUICK = (("request", "default"), ("chunked", "genz"))
POINTS = 40
few = settings(max_examples=settings().max_examples // 6)
seeds = st.integers(0, 2**32 - 1)
every_stage = pytest.mark.parametrize(
    ("stage", "preset"), [(stage, preset) for stage in STAGES for preset in sorted(PRESETS)]
)

some_stages = pytest.mark.parametrize(
    ("stage", "preset"),
    [
        pytest.param(stage, preset, marks=[] if (stage, preset) in QUICK else pytest.mark.slow)
        for stage in STAGES
        for preset in sorted(PRESETS)
    ],
)
"""All stages in the second tier, since each is compiled with all its figures."""


def times(case: Case, stage: str, preset: str) -> dict[str, np.ndarray]:
    """Times of a stage, the two stages of a request among them, and whether it runs."""
    names = ("ttft", "tpot", "latency") if stage == "request" else ("latency", "batch_time")
    return run(case, Question(stage, PRESETS[preset], (*names, "feasible")))


def change(case: Case, *where: str, factor: Any) -> Case:
    """A case with some numbers of its platform multiplied."""
    platform = case.platform
    for path in where:
        level = platform
        for name in path.split("."):
            level = level[int(name)] if isinstance(level, tuple) else getattr(level, name)
        platform = platform.replace(**{path: level * factor})
    return eqx.tree_at(lambda c: c.platform, case, platform)


RATES = ("flops", "mem_bw", "onchip_bw", "network.0.bandwidth", "network.1.bandwidth")
LATENCIES = ("network.0.latency", "network.1.latency", "collective_overhead")


@pytest.mark.first(1)
@every_stage
@few
@given(seed=seeds, factor=st.floats(1, 100))
def test_more_of_anything_is_never_slower(stage: str, preset: str, seed: int, factor: float):
    case = random_case(stage, seed, POINTS)
    before = times(case, stage, preset)
    assert np.all(before["feasible"])
    for path in (*RATES, *LATENCIES):
        after = times(change(case, path, factor=factor if path in RATES else 1 / factor), stage, preset)
        for name in before:
            if name != "feasible":
                assert np.all(after[name] <= before[name] * (1 + 1e-12)), (path, name)


@pytest.mark.slow
@every_stage
@few
@given(seed=seeds, factor=st.floats(0.01, 100))
def test_scaling_all_rates_scales_time(stage: str, preset: str, seed: int, factor: float):
    case = random_case(stage, seed, POINTS)
    faster = change(change(case, *RATES, factor=factor), *LATENCIES, factor=1 / factor)
    before, after = times(case, stage, preset), times(faster, stage, preset)
    for name in before:
        if name != "feasible":
            np.testing.assert_allclose(after[name], before[name] / factor, rtol=1e-12)


@pytest.mark.slow
@every_stage
@few
@given(seed=seeds, factor=st.floats(1, 1000))
def test_more_capacity_never_stops_what_runs(stage: str, preset: str, seed: int, factor: float):
    case = random_case(stage, seed, POINTS, capacity=(1e9, 1e12))
    before = times(case, stage, preset)
    after = times(change(case, "mem_capacity", factor=factor), stage, preset)
    assert np.all(after["feasible"] >= before["feasible"])
    runs = before["feasible"]
    for name in before:
        np.testing.assert_array_equal(after[name][runs], before[name][runs])
        if name != "feasible":
            np.testing.assert_array_equal(np.isnan(before[name]), ~runs)


@pytest.mark.first(1)
@every_stage
@few
@given(seed=seeds)
def test_doubling_the_batch_is_never_faster(stage: str, preset: str, seed: int):
    case = random_case(stage, seed, POINTS)
    if stage == "chunked":
        (chunk,) = case.workload.decode_chunks
        double = chunk.replace(prompts=2 * chunk.prompts, sequences=2 * chunk.sequences)
        larger = eqx.tree_at(lambda c: c.workload.decode_chunks, case, (double,))
    else:
        larger = eqx.tree_at(lambda c: c.workload.batch, case, 2 * case.workload.batch)
    before, after = times(case, stage, preset), times(larger, stage, preset)
    # The published speculative stages round the number of micro-batches down, so that a larger batch may have fewer.
    rounded = ("batch_time",) if preset == "genz" and stage.startswith("speculative") else ()
    for name in set(before) - {"feasible", *rounded}:
        assert np.all(after[name] >= before[name] * (1 - 1e-12)), name


@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_one_device_sends_nothing(preset: str):
    case = make_case(pick(ZOO), big_platform(), gz.Workload(4, 900, 70))
    found = once(case, request_question(PRESETS[preset]))
    for stage in ("prefill", "decode"):
        assert np.all(found[f"{stage}_network_time"] == 0)
        for name, value in found.items():
            if name.startswith(f"{stage}_breakdown/") and (
                "collectives" in name or "_all_" in name or "pipeline" in name
            ):
                assert np.all(value == 0), name
    slow = {
        f"network.{level}.{what}": value for level in (0, 1) for what, value in (("bandwidth", 1e6), ("latency", 0.9))
    }
    slower = once(
        make_case(pick(ZOO), big_platform(**slow), gz.Workload(4, 900, 70)), request_question(PRESETS[preset])
    )
    assert worst(found, slower)[0] == 0


# ------------------------------------------------------------------------------------------- one point, many ways


def full_question(stage: str, preset: str) -> Question:
    if stage == "request":
        return request_question(PRESETS[preset])
    return Question(stage, PRESETS[preset], breakdown=stage == "chunked")


@pytest.mark.slow
@some_stages
def test_compiled_is_not_compiled(stage: str, preset: str):
    case, question = random_case(stage, 1, len(ZOO)), full_question(stage, preset)
    with jax.disable_jit():
        plain = numbers(evaluate(case, question))
    difference, figure = worst(run(case, question), plain)
    assert difference < 1e-11, figure


DIFFERENCES = ("idle_weights", "prefill_idle_weights", "decode_idle_weights")
"""Figures that are the difference of larger ones, which are compared with those."""


@pytest.mark.slow
@every_stage
def test_single_precision_is_double_precision(stage: str, preset: str):
    case, question = random_case(stage, 2, 3 * len(ZOO)), full_question(stage, preset)
    double = once(case, question)
    with jax.enable_x64(False):
        single = once(case, question)
    assert {value.dtype for value in single.values()} <= {np.dtype(t) for t in ("float32", "bool", "int8")}
    for name in DIFFERENCES:
        if name in double:
            scale = double[name.replace("idle_weights", "weights")]
            assert np.all(np.abs(single.pop(name) - double.pop(name)) <= 1e-5 * scale)
    for found in (single, double):
        for name in [name for name in found if "bound" in name]:
            del found[name]  # near a tie, rounding decides
    difference, figure = worst(single, double)
    assert difference < 1e-5, figure


@every_stage
@pytest.mark.slow
def test_vmap_is_a_loop(stage: str, preset: str):
    case, question = random_case(stage, 3, len(ZOO)), full_question(stage, preset)
    together = once(case, question)
    mapped = numbers(jax.vmap(lambda one: evaluate(one, question))(case))
    assert worst(mapped, {name: np.broadcast_to(value, (len(ZOO),)) for name, value in together.items()})[0] < 1e-12
    for i in (0, 4, 7):
        alone = once(point(case, i), question)
        difference, figure = worst(alone, {name: np.broadcast_to(v, (len(ZOO),))[i] for name, v in together.items()})
        assert difference < 1e-12, figure


@pytest.mark.slow
def test_a_grid_is_its_points():
    # A thousand points of all models of the catalogue, whose specs are zipped with the dimension of the models.
    n, rng = 1000, np.random.default_rng(4)
    names = np.resize(gz.models(), n)
    models = stack([gz.model(name) for name in gz.models()])
    place = {name: i for i, name in enumerate(gz.models())}
    platform = random_platform(rng, n, capacity=(1e10, 1e14))
    batch, prompt, output, beams = (np.floor(log_uniform(rng, 1, high, n)) for high in (64, 9000, 500, 5))
    workload = gz.Workload(batch, prompt, output, beams)
    spread = gz.Parallelism(*(rng.choice([1.0, 2.0, 4.0, 8.0], n, p=[0.4, 0.3, 0.2, 0.1]) for _ in range(3)))
    precision = gz.Precision(*(rng.choice([1.0, 2.0], n) for _ in range(3)), compute=rng.choice([2.0, 4.0], n))

    def zipped(spec: Any) -> Any:
        return jax.tree.map(lambda leaf: gz.axis(leaf, "model") if np.ndim(leaf) else leaf, spec)

    dataset = gz.sweep(
        {f"{i}": gz.model(name) for i, name in enumerate(names)},
        *(zipped(spec) for spec in (platform, workload, spread, precision)),
        figures=ALL,
        progress=False,
    )
    function = compiled(Question("request", assumptions.default, ALL))
    points = []
    for i, name in enumerate(names):
        model = take(models, np.array(place[name]))
        parts = (point(part, i) for part in (platform, workload, spread, precision))
        points.append(function(make_case(model, *parts, engine=gz.Engine())))
    expected = numbers(jax.tree.map(lambda *leaves: np.array(leaves), *points))
    found = {name: np.broadcast_to(dataset[name].transpose(..., "model").values, (n,)) for name in expected}
    difference, figure = worst(found, expected)
    assert difference < 1e-12, figure
    assert 0.2 < np.mean(found["feasible"]) < 0.9


@pytest.mark.slow
def test_a_crossed_grid_is_its_points():
    axes = {"mem_bw": np.geomspace(1e12, 2e13, 5), "batch": np.array([1.0, 8.0, 64.0]), "tp": np.array([1.0, 2.0])}
    names = ["llama-3.1-8b", "gpt-oss-20b"]
    dataset = gz.sweep(
        names,
        big_platform(mem_bw=gz.axis(axes["mem_bw"])),
        gz.Workload(gz.axis(axes["batch"]), 700, 60),
        gz.Parallelism(gz.axis(axes["tp"])),
        "bf16",
        progress=False,
    )
    points = [
        (name, bandwidth, batch, tp)
        for name in names
        for bandwidth in axes["mem_bw"]
        for batch in axes["batch"]
        for tp in axes["tp"]
    ]
    case = make_case(
        stack([gz.model(name) for name, *_ in points]),
        big_platform(mem_bw=np.array([point[1] for point in points])),
        gz.Workload(np.array([point[2] for point in points]), 700, 60),
        gz.Parallelism(np.array([point[3] for point in points])),
        engine=gz.Engine(),
    )
    for figure, value in once(case, Question("request", assumptions.default)).items():
        grid = dataset[figure].broadcast_like(dataset["latency"]).transpose("model", "mem_bw", "batch", "tp")
        np.testing.assert_allclose(
            grid.values.ravel(), np.broadcast_to(value, (len(points),)), rtol=1e-12, err_msg=figure
        )
