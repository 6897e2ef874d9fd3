"""Search against brute force through single points, linear scans, and the published rules written out."""

import itertools
import math
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest

import genz_jax as gz
from genz_jax.questions.search import candidates as c
from genz_jax.questions.search.result import SearchResult, better
from genz_jax.serving.evaluate import function_of
from genz_jax.specs.reasons import REASONS
from genz_jax.work import demand

LOAD = gz.Workload(1, 1024, 64)
SMALL = {"batch": [16], "progress": False}
MODELS = ("llama-3.1-8b", "qwen2.5-14b", "llama-3.1-70b", "mixtral-8x7b", "qwen3-30b-a3b")
PLATFORMS = ("A100-SXM-40GB", "H100-SXM", "H200", "MI300X", "TPU-v5e")


def ways(devices: int, sizes: int) -> list[tuple[int, ...]]:
    """Every tuple of that many whole numbers whose product is the number of devices."""
    if sizes == 1:
        return [(devices,)]
    firsts = [n for n in range(1, devices + 1) if devices % n == 0]
    return [(n, *rest) for n in firsts for rest in ways(devices // n, sizes - 1)]


def brute_force(model: str, platform: gz.Platform, load: gz.Workload, chips: int, batches: list[int], precision: str):
    """Results of every candidate that `gz.estimate` takes, and how many it refuses."""
    found: dict[tuple[int, ...], Any] = {}
    refused = 0
    experts = gz.model(model).moe is not None
    for (tp, ep, pp, dp), batch in itertools.product(ways(chips, 4), batches):
        if ep > 1 and not experts:
            continue
        try:
            spread = gz.Parallelism(tp, ep, pp, dp=dp)
            found[tp, ep, pp, dp, batch] = gz.estimate(model, platform, load.replace(batch=batch), spread, precision)
        except ValueError:
            refused += 1
    return found, refused


def keys(result: SearchResult) -> list[tuple[int, ...]]:
    names = ("tp", "ep", "pp", "dp", "batch")
    return list(zip(*(result.dataset[name].values.tolist() for name in names), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(i, marks=pytest.mark.slow) for i in range(8, 50))])
def test_a_search_is_brute_force(seed: int):
    rng = np.random.default_rng(seed)
    model, name = str(rng.choice(MODELS)), str(rng.choice(PLATFORMS))
    chips = int(rng.choice([1, 2, 3, 4, 6, 8, 12]))
    load = gz.Workload(1, int(rng.integers(16, 9000)), int(rng.integers(2, 500)))
    batches = sorted({int(b) for b in 2.0 ** rng.uniform(0, 9, 2)})
    precision, platform = str(rng.choice(["bf16", "fp8", "int4-bf16"])), gz.platform(name)
    objective = str(rng.choice(["throughput_per_device", "tpot", "ttft", "latency", "throughput", "energy_per_token"]))
    found, refused = brute_force(model, platform, load, chips, batches, precision)
    runs = {key: float(getattr(r, objective)) for key, r in found.items() if r.feasible}
    limit = float(np.median([float(found[key].tpot) for key in runs])) if runs else 1.0
    result = gz.search(model, platform, load, chips=chips, batch=batches, precision=precision, objective=objective,
                       slo=gz.SLO(tpot=limit * (1 + 1e-9)), progress=False)  # fmt: skip
    places = keys(result)
    assert sorted(places) == sorted(found)
    assert result.candidates == len(found) + refused
    assert sum(result.excluded.values()) == result.candidates - len(runs)
    for at, key in enumerate(places):
        assert bool(result.dataset["feasible"].values[at]) == bool(found[key].feasible)
        for figure in ("ttft", "tpot", "throughput", "memory", "energy", "devices"):
            np.testing.assert_allclose(
                float(result.dataset[figure].values[at]), float(getattr(found[key], figure)), rtol=1e-9
            )
    good = {key: value for key, value in runs.items() if float(found[key].tpot) <= limit * (1 + 1e-9)}
    assert int(result.dataset["meets_slo"].values.sum()) == len(good)
    if not good:
        assert result.best is None
        return
    assert result.best is not None
    best = (min if better(objective) == "min" else max)(good.values())
    assert float(result.best[objective]) == pytest.approx(best, rel=2e-5)
    assert result.parallelism is not None
    again = gz.estimate(model, platform, load.replace(batch=int(result.best.batch)), result.parallelism, precision)
    assert float(getattr(again, objective)) == pytest.approx(float(result.best[objective]), rel=1e-9)


# -------------------------------------------------------------------------------------------------------- candidates


@pytest.mark.parametrize("chips", [[1], [2, 3, 5], [64], [24, 60, 96], list(range(1, 40))])
def test_every_factorization_is_there_once(chips: list[int]):
    free = dict.fromkeys(c.SIZES)
    columns = c.factorizations(np.array(chips), free)
    ours = list(zip(*(columns[name].tolist() for name in c.SIZES), strict=True))
    expected = [way for n in chips for way in ways(n, 5)]
    assert sorted(ours) == sorted(expected)
    np.testing.assert_array_equal(columns["devices"], [math.prod(way) for way in ours])
    some = {"tp": np.array([1, 4]), "ep": np.array([1]), "cp": np.array([2]), "pp": None, "dp": np.array([1, 2, 3])}
    columns = c.factorizations(np.array(chips), some)
    ours = list(zip(*(columns[name].tolist() for name in c.SIZES), strict=True))
    assert sorted(ours) == sorted(
        way for way in expected if all(v is None or n in v for n, v in zip(way, some.values(), strict=True))
    )


def test_candidates_of_the_largest_system_are_all_there():
    # 4,096 = 2^12, of which 5 sizes share the twelve factors: C(16, 4) ways.
    assert c.length(c.factorizations(np.array([4096]), dict.fromkeys(c.SIZES))) == math.comb(16, 4)


@pytest.mark.slow
def test_batches_micro_batches_and_precisions_are_crossed():
    result = gz.search("llama-3.1-8b", "H100-SXM", LOAD, chips=4, batch=[8, 64], micro_batches=[1, 2, 4], tp=[1, 2],
                       dp=1, precision=["bf16", "fp8"], progress=False)  # fmt: skip
    names = ("tp", "pp", "batch", "micro_batches", "precision")
    found = list(zip(*(result.dataset[name].values.tolist() for name in names), strict=True))
    expected = itertools.product([(1, 4), (2, 2)], [8, 64], [1, 2, 4], ["bf16", "fp8"])
    assert sorted(found) == sorted((*spread, *rest) for spread, *rest in expected)
    batch = gz.search("llama-3.1-8b", "H100-SXM", LOAD, chips=4, tp=4, progress=False).dataset["batch"].values
    assert batch[:13].tolist() == [2**k for k in range(13)]
    assert batch.size == 14  # the largest that fits
    batch = gz.search("llama-3.1-8b", "H100-SXM", LOAD, chips=6, tp=2, dp=3, progress=False).dataset["batch"].values
    assert batch[:12].tolist() == [3 * 2**k for k in range(12)]
    alone = gz.search("llama-3.1-8b", "H100-SXM", LOAD, chips=2, tp=2, micro_batches=[1, 2], **SMALL)
    assert alone.dataset.sizes["candidate"] == 1


@pytest.mark.slow
def test_context_parallelism_is_searched_when_asked_for():
    result = gz.search("llama-3.1-8b", "H100-SXM", LOAD.replace(input_tokens=65536), chips=8, cp=None, **SMALL)
    for at in range(0, result.dataset.sizes["candidate"], 7):
        row = result.dataset.isel(candidate=at)
        spread = gz.Parallelism(int(row.tp), 1, int(row.pp), dp=int(row.dp), cp=int(row.cp))
        one = gz.estimate("llama-3.1-8b", "H100-SXM", gz.Workload(16, 65536, 64), spread)
        assert float(row.ttft) == pytest.approx(float(one.ttft), rel=1e-9, nan_ok=True)
    assert set(result.dataset["cp"].values) == {1, 2, 4, 8}


# ------------------------------------------------------------------------------------------------------ what is best


@pytest.mark.slow
def test_the_smallest_system_is_that_of_a_linear_scan():
    slo, batches = gz.SLO(tpot="9 ms", ttft="900 ms"), [1, 32]
    many = gz.search("llama-3.1-70b", "H100-SXM", LOAD, chips=range(1, 25), batch=batches, slo=slo, progress=False)
    fits, meets = None, None
    for n in range(1, 25):
        one = gz.search("llama-3.1-70b", "H100-SXM", LOAD, chips=n, batch=batches, slo=slo, progress=False)
        assert one.smallest == (n if one.dataset["feasible"].values.any() else None)
        fits = fits or one.smallest
        meets = meets or one.smallest_for_slo
    assert (many.smallest, many.smallest_for_slo) == (fits, meets)
    assert meets is not None
    assert fits is not None
    assert 1 < fits < meets


def test_of_equal_candidates_the_one_with_fewer_devices_is_best():
    # Replicas with their own requests have the throughput per device of one.
    result = gz.search("llama-3.1-8b", "H100-SXM", LOAD, chips=[1, 2, 4, 8], tp=1, pp=1, batch=[8, 16, 32, 64],
                       progress=False, slo=gz.SLO(interactivity="100 token/s"))  # fmt: skip
    best = result.best
    assert best is not None
    twin = (result.dataset["dp"] == 8) & (result.dataset["batch"] == 8 * int(best.batch))
    assert int(best.devices) == 1
    if twin.any():
        rival = result.dataset.isel(candidate=int(np.flatnonzero(twin)[0]))
        assert float(rival.throughput_per_device) == pytest.approx(float(best.throughput_per_device), rel=1e-6)


def test_every_limit_counts():
    limits = {"ttft": "60 ms", "tpot": "8 ms", "e2e": "600 ms", "throughput": "500 token/s",
              "interactivity": "120 token/s"}  # fmt: skip
    result = gz.search("llama-3.1-8b", "H100-SXM", LOAD, chips=[1, 2, 4], batch=[1, 4, 16], progress=False,
                       slo=gz.SLO(**limits))  # fmt: skip
    d = result.dataset
    by_hand = (
        (d.ttft <= 0.06) & (d.tpot <= 0.008) & (d.latency <= 0.6) & (d.throughput >= 500) & (d.interactivity >= 120)
    )
    np.testing.assert_array_equal(d["meets_slo"].values, (by_hand & d.feasible).values)
    np.testing.assert_array_equal(d["slo_use"].values <= 1, d["meets_slo"].values)
    assert 0 < d["meets_slo"].values.sum() < d.sizes["candidate"]


def test_what_misses_the_objective_is_told_with_the_closest():
    result = gz.search("llama-3.1-8b", "H100-SXM", LOAD, chips=2, slo=gz.SLO(tpot="1 us"), **SMALL)
    assert result.best is None
    assert result.parallelism is None
    closest = result.closest
    assert closest is not None
    assert float(closest.tpot) == np.nanmin(result.dataset["tpot"].values)
    assert "no candidate meets the SLO; the closest" in str(result)


def test_the_front_is_of_candidates_that_none_beats():
    result = gz.search("llama-3.1-8b", "H100-SXM", LOAD, chips=8, progress=False, cost=2.0)
    front = result.pareto()
    d = result.dataset.isel(candidate=np.flatnonzero(result.dataset["feasible"].values))
    for x, y in zip(front.interactivity.values, front.throughput_per_device.values, strict=True):
        assert not ((d.interactivity > x) & (d.throughput_per_device >= y)).any()
        assert not ((d.interactivity >= x) & (d.throughput_per_device > y)).any()
    cheap = result.pareto({"latency": "min", "cost_per_million_tokens": "min"})
    assert np.all(np.diff(cheap["cost_per_million_tokens"].values) <= 0)


def test_tokens_cost_what_the_devices_cost_while_they_are_made():
    price = lambda platform: float(platform.power) / 350  # noqa: E731
    for cost in (2.0, price):
        d = gz.search("llama-3.1-8b", "H100-SXM", LOAD, chips=4, cost=cost, objective="cost_per_million_tokens",
                      **SMALL).dataset  # fmt: skip
        tokens_per_hour = d.throughput.values * 3600
        np.testing.assert_allclose(d.cost_per_hour.values, 4 * 2.0)
        np.testing.assert_allclose(d.cost_per_million_tokens.values, 8.0 / tokens_per_hour * 1e6, rtol=1e-6)


# -------------------------------------------------------------------------------------------- where nothing runs


@pytest.mark.slow
def test_what_does_not_fit_says_what_would():
    result = gz.search("llama-3.1-405b", "H100-SXM", LOAD, chips=2, batch=4, progress=False)
    assert result.best is None
    assert result.smallest is None
    assert set(result.excluded) <= set(REASONS_BY_NAME)
    assert sum(result.excluded.values()) == result.candidates
    assert result.would_fit is not None
    below = gz.search("llama-3.1-405b", "H100-SXM", LOAD, chips=range(1, result.would_fit), batch=4, progress=False)
    assert below.smallest is None
    there = gz.search("llama-3.1-405b", "H100-SXM", LOAD, chips=result.would_fit, batch=4, progress=False)
    assert there.smallest == result.would_fit
    assert f"no candidate runs; {result.would_fit} devices would" in str(result)
    assert "does_not_fit: weights, KV cache and working memory exceed the memory" in str(result)


REASONS_BY_NAME = {reason.name for reason in REASONS}


def test_rules_that_exclude_everything():
    result = gz.search("llama-3.1-8b", "H100-SXM", LOAD, chips=3, tp=3, **SMALL)
    assert result.excluded == {"heads_not_divisible": 1}
    assert result.dataset.sizes["candidate"] == 0
    assert result.would_fit is None
    assert "no candidate runs" in str(result)


WRONG = {
    "no chips": (dict(chips=0), "chips = 0: must be a whole number from 1 to 4,096"),
    "too many chips": (dict(chips=5000), "chips = 5000"),
    "half a chip": (dict(chips=2.5), r"chips = 2\.5"),
    "an empty list": (dict(chips=[]), r"chips = \[\]"),
    "tp": (dict(tp=0), "tp = 0: must be a whole number from 1 up"),
    "an axis": (dict(workload=gz.Workload(input_tokens=gz.axis([1, 2]))), r"workload\.input_tokens is an axis"),
    "an objective": (dict(objective="tpott"), "objective = 'tpott': must be one of.*did you mean tpot"),
    "a bad cost": (dict(cost=-1.0), "cost = -1"),
    "an SLO of decode": (dict(stage="decode", slo=gz.SLO(tpot=1)), "slo: limits are of requests"),
    "a stage": (dict(stage="chunked"), "stage = 'chunked': search takes one of request"),
    "a space": (dict(space="some"), "space = 'some': must be 'all' or 'genz'"),
    "a precision twice": (dict(precision=["fp8", "fp8"]), "precision: a name stands twice"),
    "an axis of an SLO": (dict(slo=gz.SLO(tpot=gz.axis([1, 2]))), r"SLO\.tpot is an axis"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_for_a_search(case):
    arguments, words = WRONG[case]
    with pytest.raises(ValueError, match=words):
        gz.search(**{"model": "llama-3.1-8b", "platform": "H100-SXM", "chips": 1, **SMALL, **arguments})


def test_the_table_has_the_best_first():
    result = gz.search("llama-3.1-8b", "H100-SXM", LOAD, chips=4, progress=False, cost=2.0)
    lines = str(result).splitlines()
    header = next(i for i, line in enumerate(lines) if line.split()[:2] == ["devices", "tp"])
    best = result.best
    assert best is not None
    first = dict(zip(lines[header].split(), lines[header + 1].split("  "), strict=False))
    assert lines[header + 1].split()[:2] == ["4", f"{int(best.tp)}"]
    assert "best by throughput_per_device" in str(result)
    shown = ElementTree.fromstring(result._repr_html_())
    assert shown.tag == "table"
    assert " ".join(shown.itertext()).split() == str(result).split()
    assert first
    assert "$/Mtoken" in lines[header]


# ------------------------------------------------------------------------------------------------------------- speed


@pytest.mark.slow
def test_a_search_of_many_blocks_is_traced_once(monkeypatch):
    function_of.cache_clear()
    seen = []
    real = demand._forward_pass

    def counted(model, step, deployment):
        seen.append(step.mode)
        return real(model, step, deployment)

    monkeypatch.setattr(demand, "_forward_pass", counted)
    result = gz.search("llama-3.1-8b", "H100-SXM", LOAD, chips=range(1, 129), progress=False)
    assert result.dataset.sizes["candidate"] > 2 * 4096
    assert sorted(seen) == ["decode", "prefill", "prefill"]  # full passes of a prefill and its last one
    gz.search("qwen2.5-14b", "H200", LOAD.replace(input_tokens=77), chips=range(1, 129), progress=False)
    assert len(seen) == 3
    function_of.cache_clear()


# -------------------------------------------------------------------------------------------- the published analyser


def test_candidates_of_the_published_analyser():
    for nodes, heads, layers in [(1, 32, 32), (2, 32, 32), (8, 40, 48), (7, 12, 40), (64, 64, 80)]:
        expected = {(1, 1)} if nodes == 1 else {
            (tp, pp)
            for tp in range(1, heads + 1)
            for pp in range(1, layers + 1)
            if heads % tp == 0 and layers % pp == 0 and nodes // 2 <= tp * pp < nodes
        }  # fmt: skip
        columns = c.reference_spreads(nodes, heads, layers)
        pairs = list(zip(columns["tp"].tolist(), columns["pp"].tolist(), strict=True))
        assert len(pairs) == len(set(pairs))
        assert set(pairs) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "chips", "batch"), [("decode", 8, 16), ("prefill", 16, 5), ("decode", 1, 3)])
def test_the_best_by_the_published_rules(stage: str, chips: int, batch: int):
    load = gz.Workload(batch, 2000, 256)
    result = gz.search("llama-3.1-8b", "H100-SXM", load, chips=chips, stage=stage, assumptions="genz", space="genz",
                       progress=False)  # fmt: skip
    columns = c.reference_spreads(chips, 32, 32)
    best = None
    for tp, pp in zip(columns["tp"].tolist(), columns["pp"].tolist(), strict=True):
        if pp <= batch:
            one = gz.estimate("llama-3.1-8b", "H100-SXM", load.replace(batch=batch // pp), gz.Parallelism(tp, 1, pp),
                              stage=stage, assumptions="genz")  # fmt: skip
            best = max(best or 0.0, float(one.throughput))
    assert result.best is not None
    assert best is not None
    assert float(result.best.throughput) == pytest.approx(best, rel=1e-6)


def test_the_smallest_system_by_the_published_rule():
    load = gz.Workload(8, 2000, 256)
    result = gz.search("llama-3.1-70b", "H100-SXM", load, chips=64, stage="decode", assumptions="genz", space="genz",
                       progress=False)  # fmt: skip
    alone = gz.estimate("llama-3.1-70b", gz.platform("H100-SXM").replace(mem_capacity="10 TB"), load, stage="decode",
                        assumptions="genz")  # fmt: skip
    size = 2 ** math.ceil(math.log2(float(alone.memory) / float(gz.platform("H100-SXM").mem_capacity)))
    while True:
        columns = c.reference_spreads(size, 64, 80)
        pairs = [(t, p) for t, p in zip(columns["tp"].tolist(), columns["pp"].tolist(), strict=True) if p <= 8]
        if all(
            gz.estimate("llama-3.1-70b", "H100-SXM", load.replace(batch=8 // pp), gz.Parallelism(tp, 1, pp),
                        stage="decode", assumptions="genz").feasible
            for tp, pp in pairs
        ):  # fmt: skip
            break
        size *= 2
    assert result.smallest == size


def test_whole_numbers_are_read_from_numbers_and_lists():
    assert c.whole_numbers("n", 3).tolist() == [3]
    assert c.whole_numbers("n", [4.0, 2, 2]).tolist() == [2, 4]
    assert c.whole_numbers("n", range(1, 4)).tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="n = 'many': must be a whole number or a list of them"):
        c.whole_numbers("n", "many")


@pytest.mark.slow
def test_a_cost_model_prices_the_devices():
    chip, workload = gz.platform("H100-SXM"), gz.Workload(8, 512, 64)
    hourly = float(gz.cost(chip).cost_per_hour)
    priced, given = (
        gz.search("llama-3.1-8b", chip, workload, chips=2, cost=cost, batch=[8], progress=False).dataset
        for cost in (gz.CostModel(), hourly)
    )
    np.testing.assert_allclose(priced.cost_per_million_tokens, given.cost_per_million_tokens, rtol=1e-6)
