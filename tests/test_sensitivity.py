"""Elasticities against differences and theorems, gains against evaluations, and shares that add up."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
from helpers import big_platform, random_case

import genz_jax as gz
from genz_jax.questions.sensitivity import sensitivity as module
from genz_jax.questions.sensitivity.sensitivity import DEGREES, parameters, slopes
from genz_jax.serving.evaluate import Question
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.stack import stack, take

pytestmark = pytest.mark.slow  # the commands run both in the first tier

WORK = gz.Workload(gz.axis([1, 64]), 1024, 128)
MODELS = ["llama-3.1-8b", "mixtral-8x7b"]
SPREAD = gz.Parallelism(tp=8, pp=2)
FIGURES = ("ttft", "tpot", "latency", "throughput", "energy")


def chip(**changes: Any) -> gz.Platform:
    return big_platform(compute_efficiency=0.6, memory_efficiency=0.7, link_efficiency=0.8, **changes)


def own_value(platform: gz.Platform, name: str) -> tuple[str, float]:
    """Dotted path and value of the number that a parameter's name stands for."""
    short = {"link_bw": "network.0.bandwidth", "link_latency": "network.0.latency"}
    path = short.get(name, name)
    for part in ("power_split", "rates", "network_1"):
        path = path.replace(f"{part}_", f"{part.replace('_1', '.1')}.")
    at: Any = platform
    for part in path.split("."):
        at = at[int(part)] if isinstance(at, tuple) else getattr(at, part)
    return path, float(at)


@pytest.fixture(scope="module")
def found():
    return gz.sensitivity(MODELS, chip(), WORK, SPREAD, "fp8", figures=FIGURES)


def test_result_is_a_dataset_over_parameters(found):
    assert dict(found.tpot_elasticity.sizes) == {"model": 2, "batch": 2, "parameter": found.sizes["parameter"]}
    assert list(found.resource.values) == ["compute", "memory", "network", "latency"]
    names = set(found.parameter.values)
    assert names >= {
        "flops",
        "mem_bw",
        "link_bw",
        "link_latency",
        "network_1_bandwidth",
        "collective_overhead",
        "power",
    }
    assert not names & {"link_domain", "network_1_size", "mem_capacity", "offload_bw", "onchip_bw"}
    for name, variable in found.variables.items():
        assert variable.attrs["long_name"], name
    np.testing.assert_array_equal(found.tpot, gz.sweep(MODELS, chip(), WORK, SPREAD, "fp8", figures=["tpot"]).tpot)


def test_elasticities_are_those_of_central_differences(found):
    step = 1e-6
    for one in parameters(chip()):
        if one.name not in found.parameter.values:
            continue
        path, at = own_value(chip(), one.name)
        up, down = (
            gz.sweep(MODELS, chip().replace(**{path: at * (1 + s)}), WORK, SPREAD, "fp8", figures=FIGURES)
            for s in (step, -step)
        )
        for name in FIGURES:
            expected = (np.log(up[name]) - np.log(down[name])) / (np.log1p(step) - np.log1p(-step))
            ours = found[f"{name}_elasticity"].sel(parameter=one.name)
            np.testing.assert_allclose(ours, expected, atol=1e-8, err_msg=f"{name} {one.name}")


def test_shares_add_up_to_one(found):
    for name in FIGURES:
        np.testing.assert_allclose(found[f"{name}_share"].sum("resource"), 1.0, rtol=1e-12)
        assert (found[f"{name}_share"] >= -1e-15).all()


def test_shares_add_up_to_one_in_all_of_a_random_space():
    case = random_case("request", 31, 500)
    both = stack([gz.model(name) for name in MODELS])
    case = eqx.tree_at(lambda c: c.model, case, take(both, np.arange(500) % 2))
    result = slopes(Question("request", Assumptions.default, ("latency", "throughput")), 0.1)(case)
    for share in result.share:
        total = np.sum([np.asarray(part) for part in share], axis=0)
        np.testing.assert_allclose(total, 1.0, rtol=1e-11)


@pytest.mark.parametrize("physics", ["default", "genz"])
def test_elasticities_of_rates_add_up_to_minus_one_without_latencies(physics):
    ideal = chip(collective_overhead=0, **{"network.0.latency": 0, "network.1.latency": 0})
    ds = gz.sensitivity(MODELS, ideal, WORK, SPREAD, "fp8", figures=FIGURES, assumptions=physics)
    rates = ds.where(ds.parameter_kind == "rate", drop=True)
    for name in FIGURES:
        degree = DEGREES[ds[name].attrs["units"]]
        np.testing.assert_allclose(rates[f"{name}_elasticity"].sum("parameter"), -degree, rtol=1e-12)
        np.testing.assert_allclose(ds[f"{name}_share"].sel(resource="latency"), 0.0, atol=1e-15)


def test_gains_are_those_of_better_platforms(found):
    better = {
        "mem_bw": chip(mem_bw=chip().mem_bw * 1.1),
        "flops": chip(flops=chip().flops * 1.1),
        "link_latency": chip().replace(link_latency=chip().link_latency / 1.1),
        "memory_efficiency": chip().replace(memory_efficiency=0.77),
    }
    for parameter, platform in better.items():
        new = gz.sweep(MODELS, platform, WORK, SPREAD, "fp8", figures=FIGURES)
        for name in FIGURES:
            ratio = found[name] / new[name] if DEGREES[found[name].attrs["units"]] > 0 else new[name] / found[name]
            ours = found[f"{name}_gain"].sel(parameter=parameter)
            np.testing.assert_allclose(ours, ratio - 1, rtol=1e-9, atol=1e-14)


def test_an_efficiency_of_one_cannot_be_better():
    ds = gz.sensitivity("llama-3.1-8b", "H100-SXM", figures="tpot")
    assert float(ds.tpot_elasticity.sel(parameter="memory_efficiency")) == pytest.approx(-1.0)
    assert float(ds.tpot_gain.sel(parameter="memory_efficiency")) == 0.0


def test_what_helps_most_comes_first(found):
    table = gz.rank_parameters(found, "tpot", 3)
    assert dict(table.sizes) == {"model": 2, "batch": 2, "rank": 3}
    assert (np.diff(table.gain, axis=table.gain.dims.index("rank")) <= 0).all()
    for place in np.ndindex(2, 2):
        at = {"model": place[0], "batch": place[1]}
        every = found.tpot_gain.isel(at)
        first = str(table.parameter.isel(rank=0, **at).values)
        assert float(every.sel(parameter=first)) == float(every.max())
        assert float(table.gain.isel(rank=0, **at)) == float(every.max())
    assert len(table.isel(model=0, batch=0).to_dataframe()) == 3


def test_where_a_point_does_not_run_there_is_nothing():
    ds = gz.sensitivity("llama-3.1-70b", chip(mem_capacity=gz.axis(["10 GB", "1 TB"])), figures="tpot")
    assert np.isnan(ds.tpot_share.isel(mem_capacity=0)).all()
    assert np.isfinite(ds.tpot_elasticity.isel(mem_capacity=1)).all()


def test_offloading_makes_capacity_a_parameter():
    ds = gz.sensitivity(
        "llama-3.1-70b", chip(mem_capacity="100 GB", offload_bw="128 GB/s"), figures="latency", stage="decode"
    )
    assert float(ds.latency_elasticity.sel(parameter="mem_capacity")) < 0
    np.testing.assert_allclose(ds.latency_share.sum("resource"), 1.0, rtol=1e-12)


def test_blocks_give_the_same(monkeypatch):
    platform = chip(mem_bw=gz.geomspace("1 TB/s", "10 TB/s", 30), flops=gz.geomspace(1e14, 1e16, 20))
    whole = gz.sensitivity("gpt2", platform, stage="decode")
    monkeypatch.setattr(module, "POINTS", 64)
    slopes.cache_clear()
    parts = gz.sensitivity("gpt2", platform, stage="decode")
    np.testing.assert_allclose(parts.latency_elasticity, whole.latency_elasticity, rtol=1e-12)


def test_a_figure_that_no_rate_changes_is_refused():
    with pytest.raises(ValueError, match="memory"):
        gz.sensitivity("gpt2", "H100-SXM", figures="memory")
    with pytest.raises(ValueError, match="step"):
        gz.sensitivity("gpt2", "H100-SXM", step=0)
    with pytest.raises(ValueError, match=r"gz\.sensitivity"):
        gz.rank_parameters(gz.sweep("gpt2", "H100-SXM"))


def test_every_number_of_a_platform_has_a_place():
    platform = chip(offload_bw="100 GB/s")
    listed = {one.name for one in parameters(platform)}
    assert len(listed) == len(parameters(platform))
    whole = [path for path in platform.paths() if path.endswith(("size", "topology"))]
    assert len(listed) == len(platform.paths()) - len(whole)
    for one in parameters(platform):
        leaf = float(jax.tree.leaves(platform)[one.place])
        _, at = own_value(platform, one.name)
        assert float(at) == leaf, one.name
