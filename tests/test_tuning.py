"""Tuning against closed forms, brute force through other paths, and finite differences."""

import xml.etree.ElementTree as ElementTree
from typing import Any

import jax
import numpy as np
import pytest
from scipy.optimize import brentq

import genz_jax as gz
from genz_jax.questions.tune import search as tuning_search

pytestmark = pytest.mark.slow  # the commands run both in the first tier

MODEL, BASE, LOAD = "llama-3.1-8b", "H100-SXM", gz.Workload(batch=4, input_tokens=1024, output_tokens=128)
BOUNDS = {"flops": ("20 TFLOP/s", "5 PFLOP/s"), "mem_bw": ("200 GB/s", "20 TB/s")}
SMALL = {"starts": 32, "steps": 60, "progress": False}
SLO = gz.SLO(ttft="60 ms", tpot="5 ms")


def least_power(slo: gz.SLO = SLO, **options) -> gz.results.TuneResult:
    return gz.tune("power", MODEL, BASE, LOAD, bounds=BOUNDS, slo=slo, **SMALL, **options)


@pytest.fixture(scope="module")
def found() -> gz.results.TuneResult:
    return least_power()


def figures(flops: float, mem_bw: float):
    return gz.estimate(MODEL, gz.platform(BASE).replace(flops=flops, mem_bw=mem_bw), LOAD)


def test_optimum_is_the_corner_of_the_two_limits(found):
    """Decode waits for memory: the bandwidth follows from TPOT, then the rate from TTFT."""

    def root(function, low: float, high: float) -> float:
        return float(brentq(function, low, high, xtol=1e3))  # type: ignore[arg-type]

    bandwidth = root(lambda bw: float(figures(found.variables["flops"], bw).tpot) - 5e-3, 2e11, 2e13)
    rate = root(lambda f: float(figures(f, bandwidth).ttft) - 60e-3, 2e13, 5e15)
    bandwidth = root(lambda bw: float(figures(rate, bw).tpot) - 5e-3, 2e11, 2e13)
    assert found.variables["mem_bw"] == pytest.approx(bandwidth, rel=1e-5)
    assert found.variables["flops"] == pytest.approx(rate, rel=1e-5)
    assert {held.name for held in found.active} == {"ttft", "tpot"}


def test_figures_are_those_of_estimate_and_cost(found):
    (result,) = found.results.values()
    again = gz.estimate(MODEL, found.platform, *found.workloads.values())
    for name in ("ttft", "tpot", "latency", "memory", "energy"):
        assert float(getattr(result, name)) == pytest.approx(float(getattr(again, name)), rel=1e-12)
    assert found.value == pytest.approx(float(gz.cost(found.platform).power), rel=1e-9)
    assert bool(SLO.met(result))


def test_cutting_planes_bound_the_optimum(found):
    assert found.certificate.lower_bound is not None
    assert found.certificate.lower_bound <= found.value * (1 + 1e-7)
    assert found.certificate.lower_bound == pytest.approx(found.value, rel=1e-5)


@pytest.mark.parametrize("relaxed", ["ttft", "tpot"])
def test_multipliers_are_the_change_of_the_optimum_with_the_limit(found, relaxed):
    held = next(h for h in found.active if h.name == relaxed)
    step = 1e-3 * held.limit
    values = [least_power(SLO.replace(**{relaxed: at})).value for at in (held.limit - step, held.limit + step)]
    assert held.worth == pytest.approx((values[0] - values[1]) / (2 * step), rel=2e-3)
    assert held.elasticity == pytest.approx(held.worth * held.limit / found.value, rel=1e-9)


def test_other_numbers_do_not_compile_anew(found):
    functions: list[Any] = [tuning_search.descend, tuning_search._slopes]
    counts = [function.shapes for function in functions]
    least_power(gz.SLO(ttft="70 ms", tpot="6 ms"), seed=3)
    assert [function.shapes for function in functions] == counts


def test_grid_is_not_better_and_the_trace_is_finite(found):
    checked = least_power(check_grid=40_000)
    assert checked.certificate.grid_points == 40_000
    assert checked.certificate.gap is not None
    assert -0.1 < checked.certificate.gap <= 1e-9
    assert dict(checked.trace.sizes) == {"start": 32, "step": 60}
    assert np.isfinite(checked.trace.objective.values).all()
    assert checked.trace.objective.attrs["units"] == "W"
    assert float(checked.trace.excess[0, -1]) < 0.05


def test_infeasible_says_what_is_missed_and_by_how_much():
    """By a grid of the bounds' corner: both limits cannot be met at 20 TB/s."""
    best = figures(5e15, 2e13)
    with pytest.raises(gz.Infeasible, match=r"tpot .* at most 100 µs") as caught:
        least_power(gz.SLO(ttft="60 ms", tpot="100 us"))
    assert caught.value.excess["tpot"] == pytest.approx(float(best.tpot) / 1e-4 - 1, rel=1e-3)


def test_table_shows_optimum_limits_worth_and_certificate(found):
    text = str(found)
    for part in ("least power of llama-3.1-8b", "flops", "mem_bw", "ttft", "at most", "more:", "evaluations", "bound"):
        assert part in text
    shown = ElementTree.fromstring(found._repr_html_())
    assert shown.tag == "table"
    assert " ".join(shown.itertext()).split() == text.split()


def test_convergence_shows_starts_best_and_optimum(found, tmp_path):
    from genz_jax import plots

    drawn = plots.convergence(found, str(tmp_path / "convergence.png"))
    assert (tmp_path / "convergence.png").stat().st_size > 10_000
    objective, excess = drawn.axes
    assert objective.get_ylabel() == "board power of a device (W)"
    assert excess.get_ylabel() == "largest excess over a limit (%)"
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in objective.lines}
    np.testing.assert_allclose(lines["best start"], found.trace.objective.isel(start=0).values)
    np.testing.assert_allclose(lines["optimum, exact model"], found.value)


def test_map_marks_the_optimum(found):
    from genz_jax import plots

    chip = found.platform.replace(
        flops=gz.geomspace("20 TFLOP/s", "5 PFLOP/s", 12), mem_bw=gz.geomspace("200 GB/s", "20 TB/s", 12)
    )
    space = gz.sweep(MODEL, chip, LOAD, figures=["latency"], progress=False)
    drawn = plots.tuned_space(space, "latency", "mem_bw", "flops", found)
    stars = [line for line in drawn.axes[0].lines if line.get_marker() == "*"]
    place = (float(stars[0].get_xdata()[0]), float(stars[0].get_ydata()[0]))  # type: ignore[index]
    assert place == pytest.approx((found.variables["mem_bw"] / 1e12, found.variables["flops"] / 1e15))


@pytest.fixture(scope="module")
def served() -> gz.results.TuneResult:
    bounds = {**BOUNDS, "mem_capacity": ("10 GB", "400 GB"), "batch": (1, 64), "tp": (1, 12)}
    slo = gz.SLO(tpot="5 ms", ttft="300 ms")
    options = {"budget": {"area": "400 mm2"}, "precision": "fp8", "weights": None}
    return gz.tune("cost_per_million_tokens", MODEL, BASE, LOAD, bounds=bounds, slo=slo, **options, **SMALL)


def test_batch_and_parallel_sizes_are_whole_and_allowed(served):
    assert served.batch == round(served.batch)
    assert served.variables["tp"] in (1, 2, 4, 8)  # 12 heads do not divide 32
    (load,) = served.workloads.values()
    result = gz.estimate(MODEL, served.platform, load, served.parallelism, "fp8")
    cost = gz.cost(served.platform)
    assert bool(result.feasible)
    assert float(cost.area) <= 400e-6 * (1 + 1e-9)
    assert float(gz.cost_per_million_tokens(result, cost)) == pytest.approx(served.value, rel=1e-9)


def test_no_design_near_the_optimum_is_better(served):
    """Random designs around it, batches and parallel sizes beside it, through estimate's own path."""
    rng = np.random.default_rng(0)
    n = 4000
    near = {
        name: float(getattr(served.platform, name)) * np.exp(rng.uniform(-0.3, 0.3, n))
        for name in ("flops", "mem_bw", "mem_capacity")
    }
    platform = gz.platform(BASE).replace(**{k: gz.axis(v, dim="design") for k, v in near.items()})
    batches = gz.axis([max(served.batch + k, 1) for k in range(-3, 4) if served.batch + k >= 1])
    sweep = gz.sweep(
        MODEL,
        platform,
        LOAD.replace(batch=batches),
        gz.Parallelism(tp=gz.axis([1, 2, 4, 8])),
        "fp8",
        figures=["ttft", "tpot", "throughput_per_device", "feasible"],
        progress=False,
    )
    cost = gz.cost(platform)
    price = cost.cost_per_hour / (3600 * sweep.throughput_per_device) * 1e6
    good = sweep.feasible & (sweep.ttft <= 0.3) & (sweep.tpot <= 5e-3) & (cost.area <= 400e-6)
    assert int(good.sum()) > 100
    assert float(price.where(good).min()) >= served.value * (1 - 1e-6)


SIZES = {"tp": [1, 2, 4, 8], "ep": [1, 2, 4, 8], "cp": [1, 2], "pp": [1, 2, 3], "dp": [1, 2, 3, 4]}


@pytest.fixture(scope="module")
def cheapest() -> tuple[float, int]:
    """Least price of all devices over all parallel sizes, by the exact least bandwidth of each; and how many run."""
    case = gz.Parallelism(**{name: gz.axis(sizes) for name, sizes in SIZES.items()})
    need = gz.require(
        "mem_bw", "mixtral-8x7b", BASE, LOAD, case, "fp8", slo=gz.SLO(ttft="90 ms", tpot="3 ms"), progress=False
    )
    bandwidth = need.mem_bw.clip(min=2e11).fillna(1e14)
    devices = need.tp * need.ep * need.cp * need.pp * need.dp
    price = devices * gz.cost(gz.platform(BASE).replace(mem_bw=bandwidth)).price
    mapped = int((gz.words(need.reason) != "mapping").sum())
    return float(price.where(bandwidth <= 2e13).min()), mapped


@pytest.mark.parametrize("starts", [1000, 24])
def test_enumeration_of_parallel_sizes_is_brute_force(cheapest, starts):
    bounds = {"mem_bw": ("200 GB/s", "20 TB/s")} | {name: (min(s), max(s)) for name, s in SIZES.items()}
    slo = gz.SLO(ttft="90 ms", tpot="3 ms")
    options = {"bounds": bounds, "slo": slo, "starts": starts, "steps": 60, "progress": False}
    found = gz.tune("system_price", "mixtral-8x7b", BASE, LOAD, precision="fp8", **options)
    price, choices = cheapest
    assert found.value == pytest.approx(price, rel=1e-6)
    assert found.certificate.choices == choices
    assert found.certificate.tried == min(starts, choices)
    assert f"{choices:,} choices tried" in str(found)


def test_replicas_and_context_ranks_that_are_given_count():
    spread = gz.Parallelism(tp=2, dp=3, cp=2, expert_imbalance=1.5)
    one, all_of_them = (
        gz.tune(
            what, MODEL, BASE, LOAD, spread, bounds={"mem_bw": ("1 TB/s", "9 TB/s")}, slo=gz.SLO(tpot="8 ms"), **SMALL
        )
        for what in ("price", "system_price")
    )
    assert all_of_them.value == pytest.approx(12 * one.value, rel=1e-9)
    assert [float(getattr(one.parallelism, n)) for n in ("tp", "dp", "cp", "expert_imbalance")] == [2, 3, 2, 1.5]
    assert float(one.results[next(iter(one.results))].devices) == 12


def test_every_replica_has_a_request():
    """Latency is least with one request, but each of two to four replicas needs one."""
    bounds = {"batch": (1, 64), "dp": (2, 4), "mem_bw": ("1 TB/s", "3 TB/s")}
    found = gz.tune("latency", MODEL, BASE, LOAD, bounds=bounds, **SMALL)
    alone = gz.estimate(MODEL, gz.platform(BASE).replace(mem_bw="3 TB/s"), LOAD.replace(batch=1))
    assert found.batch == found.variables["dp"]
    assert found.value == pytest.approx(float(alone.latency), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "prise"}, "objective = 'prise'.*price"),
        ({"bounds": {}}, "nothing to tune"),
        ({"bounds": {"mem_bandwidth": (1, 2)}}, "no number 'mem_bandwidth'"),
        ({"bounds": {"mem_bw": ("2 TB/s", "1 TB/s")}}, "must be above 0 and rise"),
        ({"bounds": {"mem_bw": "1 TB/s"}}, "least and the greatest"),
        ({"bounds": {"mem_bw": ("1 TB", "2 TB")}}, r"bounds\['mem_bw'\]"),
        ({"bounds": {"link_domain": (1, 8)}}, "whole number"),
        ({"over": ["flops"], "bounds": {"mem_bw": (1e12, 2e12)}}, "none for 'flops'"),
        ({"budget": {"prise": 3}}, "budget: no limit 'prise'.*price"),
        ({"budget": {"area": "-1 mm2"}}, r"Budget\.area"),
        ({"slo": "strict"}, "slo = 'strict'"),
        ({"slo": [None, None]}, "slo: 2 for 1 workloads"),
        ({"weights": [1, 2]}, "weights"),
        ({"bounds": {"tp": (5, 7), "mem_bw": (1e12, 2e12)}}, "no parallel sizes"),
        ({"bounds": {"dp": (5, 7), "mem_bw": (1e12, 2e12)}}, "more data parallel replicas than requests"),
        ({"bounds": {"tp": (1, 4096), "ep": (1, 4096), "mem_bw": (1e12, 2e12)}}, "more than 1,048,576 choices"),
        ({"platform": gz.platform(BASE).replace(flops=gz.axis([1e15, 2e15]))}, "is an axis"),
    ],
)
def test_bad_input_is_refused_before_anything_is_computed(change, message):
    given = {"objective": "power", "model": MODEL, "platform": BASE, "workload": LOAD, "bounds": BOUNDS} | change
    with pytest.raises(ValueError, match=message):
        gz.tune(**given, progress=False)


def test_a_whole_batch_that_fills_its_passes_is_whole():
    """In float32 exp(ln 120) is above 120, of which 300 tokens each would take a 37th pass of 1,000 tokens."""
    asked: dict[str, Any] = dict(
        slo=gz.SLO(ttft="30 ms"), engine=gz.Engine(tokens_per_step=1000), starts=16, steps=60, progress=False
    )
    load, spread = gz.Workload(1, 300, 50), gz.Parallelism(pp=4)
    chip = gz.platform("H100-SXM")
    with jax.enable_x64(False):
        found = gz.tune("throughput", "llama-3.2-1b", chip, load, spread, bounds={"batch": (100, 130)}, **asked)
        every = gz.sweep(
            "llama-3.2-1b",
            chip,
            load.replace(batch=gz.axis(np.arange(100.0, 131.0))),
            spread,
            engine=asked["engine"],
            progress=False,
        )
    best = every.throughput.where(every.ttft <= 30e-3)
    assert found.batch == float(best.batch[int(np.nanargmax(best.values))]) == 120
    assert found.value == pytest.approx(float(best.max()), rel=1e-5)
