"""Requirements are the inverse of what the model says, exact, and say what stands in the way where there are none."""

import dataclasses
import itertools
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
from helpers import make_case, pick, random_case

import genz_jax as gz
from genz_jax.questions.require.inverse import inverse
from genz_jax.questions.require.result import Limit, Obstacle, Requirement
from genz_jax.serving.evaluate import Case, Question, evaluate
from genz_jax.serving.slo import CEILINGS
from genz_jax.serving.targets import Target, read_target
from genz_jax.specs import assumptions
from genz_jax.specs.stack import stack, take

DEFAULT, GENZ = assumptions.default, assumptions.genz
FIGURES = ("ttft", "tpot", "latency", "throughput", "interactivity", "feasible", "memory")
POINTS = 10_000
EXACT = (
    "mem_bw",
    "flops",
    "link_bw",
    "network.1.bandwidth",
    "link_latency",
    "network.1.latency",
    "collective_overhead",
    "compute_efficiency",
    "memory_efficiency",
    "link_efficiency",
)


def service(case: Case, **limits: Any) -> Case:
    """The case with a promise."""
    return dataclasses.replace(case, slo=gz.SLO(**limits))


def few_kinds(stage: str, seed: int, n: int, **options: Any) -> Case:
    """Random points of two models with attention, dense and with experts, which compile faster than all kinds."""
    both = stack([gz.model(name) for name in ("llama-3.1-8b", "mixtral-8x7b")])
    models = take(both, np.random.default_rng(seed).integers(0, 2, n))
    return eqx.tree_at(lambda c: c.model, random_case(stage, seed, n, **options), models)


def forward(case: Any, physics: Any = DEFAULT) -> Any:
    return evaluate(Case(*(getattr(case, f.name) for f in dataclasses.fields(Case))), Question("request", physics))


@jax.jit
def forward_default(case: Case) -> Any:
    return evaluate(case, Question("request", DEFAULT, FIGURES))


def mixed_limits(result: Any, slack: Any = 1.0) -> dict[str, np.ndarray]:
    """For every point the value of one of three figures as its limit, by turns; the others are far away."""
    limits = {}
    for turn, (name, figure) in enumerate(CEILINGS.items()):
        value = np.asarray(getattr(result, figure)) * slack
        limits[name] = np.where(np.arange(value.size) % 3 == turn, value, 1e9)
    return limits


def moved(target: Target, case: Case, factor: float) -> Any:
    """The case with a target that is worse by a factor."""
    own = target.of(case)
    return target.put(case, own * factor if target.kind == "latency" else own / factor)


@pytest.mark.slow
@pytest.mark.parametrize("name", [EXACT[0], *(pytest.param(name, marks=pytest.mark.slow) for name in EXACT[1:])])
def test_requirement_of_what_the_model_says_is_the_value_it_was_said_for(name: str):
    case = random_case("request", 11, POINTS)
    target = read_target(name, case)
    result = forward_default(case)
    limits = mixed_limits(result)
    found: Requirement = inverse(target, DEFAULT)(service(case, **limits))
    value, own = np.asarray(found.value), np.asarray(target.of(case))
    assert np.asarray(found.feasible).all()
    # The value is never worse than the one that the figures were computed for.
    excess = own / np.where(value > 0, value, np.nan) if target.most else value / own
    assert np.nanmax(excess) <= 1 + 1e-6
    # Where the figure depends on the target at all, both are the same.
    worse = forward_default(moved(target, case, 1 + 1e-4))
    elastic = np.zeros(POINTS)
    for limit, figure in CEILINGS.items():
        use = np.asarray(getattr(worse, figure)) / limits[limit]
        elastic = np.maximum(elastic, (use - 1) / 1e-4)
    depends = elastic > 1e-7
    assert depends.sum() > POINTS / 5
    np.testing.assert_allclose(value[depends], own[depends], rtol=1e-6)
    # And evaluated again, the limit is just met.
    finite = np.isfinite(value) & (value > 0)
    again = forward_default(target.put(case, np.where(finite, value, own)))
    use = np.max([np.asarray(getattr(again, figure)) / limits[limit] for limit, figure in CEILINGS.items()], axis=0)
    np.testing.assert_allclose(use[finite], 1.0, rtol=1e-12)
    np.testing.assert_allclose(np.asarray(found.residual), 0.0, atol=1e-13)


@pytest.mark.slow
def test_capacity_is_the_memory_that_is_needed():
    case = random_case("request", 12, POINTS)
    result = forward_default(case)
    target = read_target("mem_capacity", case)
    found = inverse(target, DEFAULT)(service(case, **mixed_limits(result, 1.01)))
    np.testing.assert_allclose(found.value * (1 - case.platform.memory_reserve), result.memory, rtol=4e-16)
    assert np.asarray(forward_default(target.put(case, found.value)).feasible).all()
    assert not np.asarray(forward_default(target.put(case, found.value * (1 - 1e-12))).feasible).any()


@pytest.mark.slow
def test_capacity_with_an_offload_link_is_that_at_which_the_limit_is_just_met():
    case = few_kinds("request", 13, 2_000)
    rng = np.random.default_rng(13)
    case = eqx.tree_at(lambda c: c.platform.offload_bw, case, 10 ** rng.uniform(9.5, 12, 2_000))
    target = read_target("mem_capacity", case)
    need = np.asarray(forward_default(case).memory)
    case = target.put(case, need * rng.uniform(0.2, 0.9, need.size))
    result = forward_default(case)
    # Only where less memory is slower: near the need, memory and link together are faster than the memory alone.
    whole = forward_default(target.put(case, need / (1 - case.platform.memory_reserve)))
    slower = np.asarray((result.tpot > whole.tpot * 1.01) & (result.ttft > whole.ttft * 1.01))
    assert slower.sum() > 500
    found = inverse(target, DEFAULT)(service(case, **mixed_limits(result)))
    own = np.asarray(target.of(case))
    np.testing.assert_allclose(np.asarray(found.value)[slower], own[slower], rtol=1e-9)


@pytest.mark.slow
def test_memory_bandwidth_beside_a_solution_over_sorted_breakpoints():
    """The times of single operators, of another path, sorted by where they turn from compute to memory."""
    n = 300
    case = few_kinds("decode", 14, n)
    # One stage: the slowest of several, which decides, may be another at another bandwidth.
    case = eqx.tree_at(lambda c: c.parallelism.pp, case, np.ones(n))
    # At one position: the mean of several bends once more for each at which attention turns.
    last = DEFAULT.replace(decode_position="last")
    decode: Any = evaluate(case, Question("decode", last, operators=True))
    stack = {
        what: np.stack([np.broadcast_to(getattr(op, f"{what}_time"), n) for op in decode.operators.values()])
        for what in ("compute", "memory", "network")
    }
    scale = np.asarray(decode.batch_time / decode.latency)
    own = np.asarray(case.platform.mem_bw)
    limit = np.asarray(decode.batch_time) * 10 ** np.random.default_rng(14).uniform(-2.5, 0.5, n)
    expected = np.full(n, np.nan)
    for i in range(n):
        a, b, c = (stack[what][:, i] * scale[i] for what in ("compute", "memory", "network"))
        # Time(u) = Σ max(a, b·u) + Σ c with u = own/x.
        turns = np.sort(np.concatenate([[0.0], (a[b > 0] / b[b > 0])]))
        times = np.array([np.maximum(a, b * u).sum() + c.sum() for u in turns])
        if times[0] > limit[i]:
            continue
        left = turns[np.flatnonzero(times <= limit[i])[-1]]
        slope = b[(b > 0) & (a <= b * left * (1 + 1e-15))].sum()
        u = left + (limit[i] - np.maximum(a, b * left).sum() - c.sum()) / slope
        expected[i] = own[i] / u
    found = inverse(read_target("mem_bw", case), last)(service(case, tpot=limit))
    assert 0.02 < np.isnan(expected).mean() < 0.7
    np.testing.assert_array_equal(np.asarray(found.feasible), ~np.isnan(expected))
    np.testing.assert_allclose(np.asarray(found.value), expected, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["mem_bw", *(pytest.param(n, marks=pytest.mark.slow) for n in ("link_latency", "batch"))]
)
def test_a_tighter_objective_never_needs_less(name: str):
    case = few_kinds("request", 15, 2_000)
    target = read_target(name, case)
    limits = mixed_limits(forward_default(case))
    slacks = [0.6, 0.9, 1.0, 1.5, 4.0]
    values = []
    for slack in slacks:
        found = inverse(target, DEFAULT)(service(case, **{k: v * slack for k, v in limits.items()}))
        worst = -np.inf if target.most else np.inf
        values.append(np.where(np.asarray(found.feasible), np.asarray(found.value), worst))
    for tight, loose in itertools.pairwise(values):
        assert np.all(tight <= loose if target.most else tight >= loose)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["batch", pytest.param("input_tokens", marks=pytest.mark.slow)])
def test_greatest_count_is_met_and_one_more_is_not(name: str):
    case = few_kinds("request", 16, 3_000, capacity=(1e12, 1e13))
    target = read_target(name, case)
    limits = mixed_limits(forward_default(case), np.random.default_rng(16).uniform(0.2, 4.0, 3_000))
    limits = {key: np.where(np.isfinite(limit), limit, 10.0) for key, limit in limits.items()}
    found = inverse(target, DEFAULT)(service(case, **limits))
    feasible, value = np.asarray(found.feasible), np.asarray(found.value)
    assert 0.5 < feasible.mean() < 1
    value = np.where(feasible, value, 0.0)

    def met(count: np.ndarray) -> np.ndarray:
        result = forward_default(target.put(case, np.maximum(count, 1.0)))
        uses = gz.SLO(**limits).use(result)
        # Times are proportional to the batch in places, so that three times a limit is met exactly, to rounding.
        return np.asarray(result.feasible) & (np.max(list(uses.values()), axis=0) <= 1 + 1e-14)

    assert met(value)[feasible].all()
    assert not met(value + 1)[value < 2**24 - 1].any()


@pytest.mark.slow
def test_throughput_needs_a_batch_and_says_what_keeps_it_from_growing():
    chip = gz.platform("H100-SXM")
    slo = gz.SLO(tpot="30 ms", throughput=gz.axis([100, 1000, 100_000], dim="goal"))
    ds = gz.require("batch", "llama-3.1-8b", chip, gz.Workload(1, 1000, 100), slo=slo)
    assert list(ds.feasible.values) == [True, True, False]
    assert list(gz.words(ds.reason).values[2:]) == ["capacity"]
    batch = float(ds.batch[0])
    assert gz.estimate("llama-3.1-8b", chip, gz.Workload(batch, 1000, 100)).feasible
    assert not gz.estimate("llama-3.1-8b", chip, gz.Workload(batch + 1, 1000, 100)).feasible


@pytest.mark.slow
@pytest.mark.parametrize("physics", [GENZ, DEFAULT.replace(smooth=0.05)], ids=["genz", "smooth"])
def test_other_physics_are_inverted_too(physics: Any):
    case = few_kinds("request", 17, 500)
    compiled = jax.jit(lambda c: forward(c, physics))
    result = compiled(case)
    target = read_target("mem_bw", case)
    found = inverse(target, physics)(service(case, tpot=np.asarray(result.tpot)))
    good = np.asarray(
        result.tpot - forward(target.put(case, target.of(case) * 1.01), physics).tpot
    ) > 1e-6 * np.asarray(result.tpot)
    assert good.mean() > 0.5
    np.testing.assert_allclose(np.asarray(found.value)[good], np.asarray(target.of(case))[good], rtol=1e-6)


@pytest.mark.slow
def test_single_precision_is_good_to_a_thousandth():
    case = few_kinds("request", 18, 2_000)
    target = read_target("mem_bw", case)
    limits = mixed_limits(forward_default(case), np.random.default_rng(18).uniform(1.0, 2.0, 2_000))
    double = np.asarray(inverse(target, DEFAULT)(service(case, **limits)).value)
    promised = service(case, **limits)
    inverse.cache_clear()
    with jax.enable_x64(False):
        single = np.asarray(inverse(target, DEFAULT)(promised).value)
    inverse.cache_clear()
    assert single.dtype == np.float32
    finite = np.isfinite(double) & (double > 0) & np.isfinite(single)
    assert finite.mean() > 0.9
    errors = np.abs(single[finite] / double[finite] - 1)
    assert np.quantile(errors, 0.99) < 1e-3


# ------------------------------------------------------------------------------------------------ what people see


CHIP = gz.platform("H100-SXM")
WORK = gz.Workload(8, 1024, 128)


@pytest.mark.slow
def test_result_is_a_dataset_over_all_other_axes():
    slo = gz.SLO(ttft=gz.axis(["200 ms", "2 s"]), tpot="20 ms")
    chip = CHIP.replace(flops=gz.geomspace("500 TFLOP/s", "5 PFLOP/s", 4), mem_bw="1 GB/s")
    ds = gz.require(
        "mem_bw", ["llama-3.1-8b", "mixtral-8x7b"], chip, WORK, gz.Parallelism(tp=gz.axis([2, 8])), "fp8", slo=slo
    )
    assert dict(ds.mem_bw.sizes) == {"model": 2, "flops": 4, "tp": 2, "slo_ttft": 2}
    assert ds.attrs["target"] == "mem_bw"
    assert ds.mem_bw.attrs["units"] == "byte s-1"
    for name, variable in ds.variables.items():
        assert variable.attrs["long_name"], name
    for point in ds.mem_bw.stack(point=ds.mem_bw.dims).transpose("point"):
        if not np.isfinite(point):
            continue
        at = {name: point.coords[name].item() for name in ("model", "flops", "tp", "slo_ttft")}
        platform = CHIP.replace(flops=at["flops"], mem_bw=float(point))
        result = gz.estimate(at["model"], platform, WORK, gz.Parallelism(tp=at["tp"]), "fp8")
        assert max(result.ttft / at["slo_ttft"], result.tpot / 0.02) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.slow
def test_blocks_and_one_trace(monkeypatch: pytest.MonkeyPatch):
    from genz_jax.questions.require import inverse as searched, requirements as module

    chip = CHIP.replace(flops=gz.geomspace("500 TFLOP/s", "5 PFLOP/s", 40), mem_bw="1 GB/s")
    slo = gz.SLO(tpot=gz.geomspace("5 ms", "50 ms", 30))
    whole = gz.require("mem_bw", "gpt2", chip, WORK, slo=slo)
    inverse.cache_clear()
    traces = []
    real = searched.figures_of
    monkeypatch.setattr(searched, "figures_of", lambda *a: (traces.append(1), real(*a))[1])
    monkeypatch.setattr(module, "POINTS", 100)
    parts = gz.require("mem_bw", "gpt2", chip, WORK, slo=slo)
    once = len(traces)
    gz.require("mem_bw", "opt-125m", chip, WORK.replace(batch=3), slo=slo)
    assert len(traces) == once
    np.testing.assert_array_equal(parts.mem_bw, whole.mem_bw)


@pytest.mark.slow
def test_unreachable_objectives_say_what_stands_in_the_way():
    def ask(target: str, model: str = "llama-3.1-8b", chip: gz.Platform = CHIP, tp: int = 1, **limits: Any):
        ds = gz.require(target, model, chip, WORK, gz.Parallelism(tp=tp), slo=gz.SLO(**limits))
        assert np.isnan(ds[target]) == (not bool(ds.feasible))
        return str(gz.words(ds.reason).values), ds

    word, ds = ask("mem_bw", ttft="10 ms")
    assert word == "compute"
    fast = gz.estimate("llama-3.1-8b", CHIP.replace(mem_bw=1e30), WORK)
    assert float(ds.best_ttft) == pytest.approx(float(fast.ttft), rel=1e-9)
    assert ask("flops", tpot="1 ms")[0] == "memory"
    slow_links = CHIP.replace(**{"network.0.latency": "20 us"})
    assert ask("flops", chip=slow_links, tp=8, tpot="1 ms")[0] == "network"
    assert ask("mem_bw", "llama-3.1-405b", tpot="1 s")[0] == "capacity"
    assert ask("mem_bw", tp=3, tpot="1 s")[0] == "mapping"
    assert ask("link_bw", tpot="1 s")[1].link_bw == 0.0
    assert ask("link_latency", tpot="1 s")[1].link_latency == np.inf


@pytest.mark.slow
def test_targets_may_be_absent_or_differ_in_a_list():
    slo = gz.SLO(tpot="400 ms")
    ds = gz.require("offload_bw", "llama-3.1-70b", CHIP, WORK, slo=slo)
    chip = CHIP.replace(offload_bw=float(ds.offload_bw))
    assert float(gz.estimate("llama-3.1-70b", chip, WORK).tpot) == pytest.approx(0.4, rel=1e-12)
    ds = gz.require("mem_bw", "llama-3.1-8b", ["A100", "H100-SXM"], WORK, slo=slo)
    assert dict(ds.mem_bw.sizes) == {"platform": 2}


@pytest.mark.slow
def test_objectives_of_the_catalogue_go_with_its_workloads():
    names = ["question-answering", "chat", "summarization"]
    big = CHIP.replace(mem_capacity="1 TB")
    ds = gz.require("flops", "llama-2-7b", big, names, precision="int8")
    for name, ttft, tpot in zip(names, (0.2, 0.2, 2.0), (0.01, 0.01, 0.02), strict=True):
        one = gz.require("flops", "llama-2-7b", big, name, precision="int8", slo=gz.SLO(ttft=ttft, tpot=tpot))
        assert float(ds.flops.sel(workload=name)) == float(one.flops)
    every = gz.require("flops", "llama-2-7b", big, names, precision="int8", over="workload")
    assert float(every.flops) == float(ds.flops.max())
    assert str(every.binding_workload.values) == "chat"
    assert "workload" not in every.dims


def test_one_place_that_cannot_be_met_makes_the_combination_impossible():
    big = CHIP.replace(mem_capacity="1 TB")
    slo = gz.SLO(tpot=gz.axis(["1 ns", "1 s"], dim="workload"))
    work = [gz.Workload(1, 100, 10), gz.Workload(1, 200, 10)]
    every = gz.require("mem_bw", "gpt2", big, dict(zip(("hard", "easy"), work, strict=True)), slo=slo, over="workload")
    assert not bool(every.feasible)
    assert np.isnan(every.mem_bw)
    assert str(every.binding_workload.values) == "hard"


def test_results_survive_a_file(tmp_path):
    import xarray as xr

    ds = gz.require("mem_bw", "gpt2", CHIP, ["chat", "qa-rag"], over="workload")
    gz.save(ds, tmp_path / "required.nc")
    again = xr.open_dataset(tmp_path / "required.nc")
    assert str(gz.words(again.limit).values) == str(gz.words(ds.limit).values)
    xr.testing.assert_identical(again.load(), ds)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mem_bandwidth", "gpt2", CHIP), ["mem_bandwidth", "mem_bw"]),
        (("power", "gpt2", CHIP), ["power"]),
        (("mem_bw", "gpt2", CHIP.replace(mem_bw=gz.axis([1e12, 2e12]))), ["platform.mem_bw", "axis"]),
    ],
)
def test_bad_questions_say_what_is_wrong(arguments: tuple, words: list[str]):
    with pytest.raises(ValueError, match=words[0]) as error:
        gz.require(*arguments, slo=gz.SLO(tpot="1 ms"))
    assert all(word in str(error.value) for word in words)


@pytest.mark.slow
def test_missing_limits_are_refused():
    with pytest.raises(ValueError, match="no limit"):
        gz.require("mem_bw", "gpt2", CHIP, slo=gz.SLO())
    with pytest.raises(ValueError, match=r"slo = None"):
        gz.require("mem_bw", "gpt2", CHIP, WORK)
    with pytest.raises(ValueError, match=r"slo = None"):
        gz.require("mem_bw", "gpt2", CHIP, ["chat", "ai-assistant"])
    assert float(gz.require("mem_capacity", "gpt2", CHIP, WORK, slo=gz.SLO()).mem_capacity) > 1e8


@pytest.mark.slow
def test_codes_have_words():
    assert [m.name for m in Obstacle] == ["met", "compute", "memory", "network", "capacity", "mapping"]
    assert {m.name for m in Limit} == {*CEILINGS, "throughput", "interactivity", "capacity", "none"}
    case = make_case(pick(["gpt2"]))
    assert read_target("network.0.bandwidth", case).name == "link_bw"
