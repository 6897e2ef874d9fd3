"""Largest batches of a search against all batches one by one, and what tokens cost by hand."""

from typing import Any

import numpy as np
import pytest

import genz_jax as gz
from genz_jax import catalog
from genz_jax.questions.search import candidates as c
from genz_jax.questions.search.largest import MOST, largest_batches

MODELS = (
    "llama-3.1-8b",
    "qwen2.5-14b",
    "llama-3.1-70b",
    "mixtral-8x7b",
    "gemma-2-9b",
    "deepseek-v2-lite",
    "mamba-2.8b",
)
PLATFORMS = ("A100-SXM-40GB", "H100-SXM", "L40S", "TPU-v5e")
SPREAD = ("tp", "ep", "pp", "dp")


def rows(dataset) -> list[tuple[int, ...]]:
    return list(zip(*(dataset[name].values.tolist() for name in SPREAD), strict=True))


def random_search(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    chips = int(rng.choice([1, 2, 4, 6, 8]))
    load = gz.Workload(1, int(rng.integers(64, 6000)), int(rng.integers(2, 600)))
    limits = {"tpot": float(rng.uniform(0.004, 0.06)), "ttft": float(rng.uniform(0.2, 8.0))}
    if rng.random() < 0.5:
        limits["throughput"] = float(rng.uniform(50, 4000))
    if rng.random() < 0.3:
        limits["interactivity"] = float(rng.uniform(10, 100))
    return {
        "model": str(rng.choice(MODELS)), "platform": str(rng.choice(PLATFORMS)), "workload": load, "chips": chips,
        "precision": str(rng.choice(["bf16", "fp8", "int4-bf16"])), "slo": gz.SLO(**limits), "progress": False,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(i, marks=pytest.mark.slow) for i in range(8, 60))])
def test_the_largest_batch_is_that_of_brute_force(seed: int):
    asked = random_search(seed)
    found = gz.search(**asked).dataset
    chips = asked["chips"]
    # Every batch up to twice the largest power of two that runs and meets the limits.
    top = int(2 * max(found["batch"].values[found["meets_slo"].values], default=chips))
    every = gz.search(**asked, batch=list(range(1, min(top, 6000) + 1))).dataset
    largest: dict[tuple[int, ...], int] = {}
    for spread, batch, good in zip(rows(every), every["batch"].values, every["meets_slo"].values, strict=True):
        if good and batch % spread[-1] == 0:
            largest[spread] = max(largest.get(spread, 0), int(batch))
    ours: dict[tuple[int, ...], int] = {}
    for spread, batch, good in zip(rows(found), found["batch"].values, found["meets_slo"].values, strict=True):
        if good:
            ours[spread] = max(ours.get(spread, 0), int(batch))
    assert ours == largest


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_single_points_agree_that_one_request_more_on_each_replica_is_too_many(seed: int):
    asked = random_search(100 + seed)
    limits = asked["slo"].limits()
    found = gz.search(**asked).dataset
    best: dict[tuple[int, ...], int] = {}
    for spread, batch, good in zip(rows(found), found["batch"].values, found["meets_slo"].values, strict=True):
        if good:
            best[spread] = max(best.get(spread, 0), int(batch))
    for (tp, ep, pp, dp), batch in list(best.items())[:6]:
        for requests, fine in ((batch, True), (batch + dp, False)):
            one = gz.estimate(asked["model"], asked["platform"], asked["workload"].replace(batch=requests),
                              gz.Parallelism(tp, ep, pp, dp=dp), asked["precision"])  # fmt: skip
            meets = bool(one.feasible) and all(
                float(getattr(one, name)) >= float(limit) if name in ("throughput", "interactivity")
                else float(getattr(one, name)) <= float(limit)
                for name, limit in limits.items()
            )  # fmt: skip
            assert meets == fine


@pytest.mark.slow
def test_without_limits_the_largest_batch_is_what_the_memory_holds():
    load = gz.Workload(1, 2048, 256)
    found = gz.search("llama-3.1-8b", "H100-SXM", load, chips=4, progress=False).dataset
    for tp, pp, dp in ((4, 1, 1), (2, 2, 1), (1, 1, 4)):
        of_spread = (found["tp"] == tp) & (found["pp"] == pp) & (found["dp"] == dp) & found["feasible"]
        spread = gz.Parallelism(tp, 1, pp, dp=dp)
        held = gz.estimate("llama-3.1-8b", "H100-SXM", load, spread, stage="memory") if dp == 1 else None
        batch = int(found["batch"].values[of_spread.values].max())
        assert gz.estimate("llama-3.1-8b", "H100-SXM", load.replace(batch=batch), spread).feasible
        assert not gz.estimate("llama-3.1-8b", "H100-SXM", load.replace(batch=batch + dp), spread).feasible
        if held is not None:
            assert batch == int(held.largest_batch)


@pytest.mark.parametrize("pp", [2, 3, 4])
def test_the_time_to_the_first_token_rises_with_the_batch(pp: int):
    # So that one interval has the largest batch that meets a limit.
    load = gz.Workload(1, 1000, 100)
    found = gz.search(
        "llama-3.1-8b", "H100-SXM", load, chips=pp, tp=1, pp=pp, dp=1, batch=list(range(1, 200)), progress=False
    )
    assert (np.diff(found.dataset["ttft"].values) > 0).all()


def test_a_range_without_a_power_of_two_is_found():
    # Limits that only batches from 65 to 127 meet.
    load, spread = gz.Workload(1, 512, 128), gz.Parallelism(tp=2)
    ends = [gz.estimate("llama-3.1-8b", "H100-SXM", load.replace(batch=batch), spread) for batch in (70, 101)]
    slo = gz.SLO(throughput=float(ends[0].throughput), tpot=float(ends[1].tpot))
    found = gz.search("llama-3.1-8b", "H100-SXM", load, chips=2, tp=2, slo=slo, progress=False).dataset
    met = found["batch"].values[found["meets_slo"].values]
    assert met.tolist() == [101]


@pytest.mark.parametrize("seed", range(20))
def test_the_interval_closes_on_any_threshold(seed: int):
    rng = np.random.default_rng(seed)
    spreads = int(rng.choice([1, 3, 40, 700, 5000]))
    dp = rng.integers(1, 9, spreads)
    threshold = np.minimum(2.0 ** rng.uniform(-1, 22, spreads), MOST).astype(int)  # requests of a replica
    own = np.arange(spreads)
    power = 2 ** np.arange(11)
    columns = {"tp": np.repeat(own, 11), "dp": np.repeat(dp, 11), "devices": np.repeat(dp, 11)}
    columns["batch"] = np.tile(power, spreads) * columns["dp"]
    calls = []

    def good(part: c.Columns) -> np.ndarray:
        calls.append(len(part["tp"]))
        return part["batch"] // part["dp"] <= threshold[part["tp"]]

    added = largest_batches(columns, good(columns), good)
    ours = dict(zip(added["tp"].tolist(), (added["batch"] // added["dp"]).tolist(), strict=True))
    wanted = {int(at): int(most) for at, most in zip(own, threshold, strict=True) if most >= 1 and most not in power}
    assert ours == wanted
    np.testing.assert_array_equal(added["devices"], added["dp"])
    assert len(calls) <= 26


# ------------------------------------------------------------------------------------------------------------- prices


def test_list_prices_have_a_provider_a_date_and_a_source():
    known = {name: catalog.list_price(gz.platform(name)) for name in gz.platforms()}
    priced = {name: price for name, price in known.items() if price is not None}
    assert {"H100-SXM", "H200", "B200", "A100-SXM-80GB", "MI300X"} <= set(priced)
    for price in priced.values():
        assert 0.1 < price.usd_per_hour < 20
        assert len(price.date) == 10
        assert price.source.startswith("https://")
        assert price.provider
    # A device with other numbers is not the one that is for hire.
    assert catalog.list_price(gz.platform("H100-SXM").replace(mem_bw="6 TB/s")) is None


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["request", "prefill", "decode"])
def test_tokens_of_every_stage_have_a_price_by_hand(stage: str):
    price = catalog.list_price(gz.platform("H100-SXM"))
    assert price is not None
    load = gz.Workload(1, 1000, 50)
    result = gz.search("llama-3.1-8b", "H100-SXM", load, chips=4, stage=stage, batch=[8], progress=False)
    d = result.dataset
    assert "list price" in d.attrs["cost_source"]
    assert str(price) in str(result)
    for at in range(d.sizes["candidate"]):
        row = d.isel(candidate=at)
        spread = gz.Parallelism(int(row.tp), 1, int(row.pp), dp=int(row.dp))
        one = gz.estimate("llama-3.1-8b", "H100-SXM", load.replace(batch=8), spread, stage=stage)
        # Prompts of 1,000 tokens, or what a batch of 8 with 50 tokens each or with one token each takes.
        done = {"request": 8 * 50, "prefill": 8 * 1000, "decode": 8}[stage]
        rate = done / float(one.latency if stage == "request" else one.batch_time)
        assert float(row.throughput_per_device) == pytest.approx(rate / 4, rel=1e-5)
        assert float(row.cost_per_hour) == pytest.approx(4 * price.usd_per_hour)
        assert float(row.cost_per_million_tokens) == pytest.approx(4 * price.usd_per_hour / 3600 / rate * 1e6, rel=1e-5)


@pytest.mark.slow
def test_a_given_cost_goes_before_the_list_price_and_the_source_is_told():
    asked: dict[str, Any] = dict(model="llama-3.1-8b", chips=2, batch=[8], progress=False)
    given = gz.search(platform="H100-SXM", cost=1.0, **asked).dataset
    np.testing.assert_allclose(given.cost_per_hour.values, 2.0)
    assert "as given" in given.attrs["cost_source"]
    owned = gz.search(platform="H800", **asked).dataset
    assert "cost of ownership" in owned.attrs["cost_source"]
    np.testing.assert_allclose(owned.cost_per_hour.values, 2 * float(gz.cost("H800").cost_per_hour))
