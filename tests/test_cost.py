"""Cost model against public anchors, closed forms, and the properties that tuning relies on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import genz_jax as gz
from genz_jax.machine.cost import device_cost, die_yield, dies_per_wafer

A100, HBM3E = gz.CostModel.preset("7nm", "hbm2e"), gz.CostModel.preset("5nm", "hbm3e")
RATES = ("flops", "mem_bw", "mem_capacity", "link_bw")
RISING = ("area", "silicon_price", "memory_price", "packaging_price", "price", "power", "cost_per_hour")


def price_to_make(name: str, model: gz.CostModel) -> float:
    return float(gz.cost(name, model.replace(gross_margin=0)).price)


@pytest.mark.parametrize(
    ("name", "model", "area", "within"),
    [
        ("H100-SXM", gz.CostModel(), 814.0, 0.01),  # the compute area is fitted on these two dies
        ("A100-SXM-80GB", A100, 826.0, 0.01),
        ("B200", HBM3E, 1600.0, 0.12),  # two dies at the limit of the reticle, about 800 mm² each
        ("TPU-v4", gz.CostModel.preset("7nm", "hbm2e").replace(sram="160 MB"), 600.0, 0.35),  # "under 600 mm²"
    ],
)
def test_die_area_of_public_dies(name, model, area, within):
    assert float(gz.cost(name, model).area) * 1e6 == pytest.approx(area, rel=within)


@pytest.mark.parametrize(
    ("name", "model", "dollars"),
    [
        ("H100-SXM", gz.CostModel(), 3320.0),  # Raymond James, August 2023
        ("H200", HBM3E, 4800.0),  # these three: SiliconAnalysts, cost bridge, February 2026
        ("B200", HBM3E, 6400.0),
        ("MI300X", HBM3E, 5300.0),
    ],
)
def test_cost_to_make_is_near_published_estimates(name, model, dollars):
    """A loose anchor: estimates of analysts, themselves uncertain by some 20 %."""
    assert price_to_make(name, model) == pytest.approx(dollars, rel=0.20)


def test_price_and_hourly_cost_of_an_h100_are_of_the_size_that_is_quoted():
    """Loose anchors: 25,000 to 40,000 USD on the street; ownership of 1.2 to 1.5 USD per hour."""
    found = gz.cost("H100-SXM")
    assert 25_000 <= float(found.price) <= 40_000
    assert 1.1 <= float(found.cost_per_hour) <= 1.6
    assert float(found.stacks) == pytest.approx(5.0, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("H100-SXM", gz.CostModel()),
        ("A100-SXM-80GB", A100),
        ("H200", HBM3E),
        ("B200", HBM3E),
        ("MI300X", HBM3E),
        ("Gaudi3", gz.CostModel.preset("5nm", "hbm2e")),
    ],
)
def test_board_power_is_within_30_percent_of_the_vendors(name, model):
    assert float(gz.cost(name, model).power) == pytest.approx(float(gz.platform(name).power), rel=0.30)


def test_power_split_gives_a_platform_its_own_power_and_its_shares():
    chip = gz.platform("H100-SXM")
    model = gz.CostModel().replace(power_model=gz.PowerModel.split(chip))
    assert float(gz.cost(chip, model).power) == pytest.approx(700.0, rel=1e-12)
    twice = {rate: float(gz.cost(chip.replace(**{rate: 2 * getattr(chip, rate)}), model).power) for rate in RATES}
    assert twice == pytest.approx({"flops": 980.0, "mem_bw": 840.0, "mem_capacity": 700.0, "link_bw": 770.0}, rel=1e-12)


def test_without_a_power_model_the_platforms_own_power_counts():
    model = gz.CostModel().replace(power_model=None)
    assert float(gz.cost("H100-SXM", model).power) == 700.0


def test_yield_and_dies_per_wafer_have_their_closed_forms_and_limits():
    model = gz.CostModel().replace(redundancy=0.0, defect_density=1000.0)
    area = jnp.array([1e-6, 100e-6, 814e-6])
    for alpha in (1e6, 3.0):
        expected = np.exp(-1000 * area) if alpha > 1e3 else (1 + np.asarray(area) * 1000 / 3) ** -3
        np.testing.assert_allclose(die_yield(area, model.replace(clustering=alpha)), expected, rtol=1e-6)
    # 63 whole H100 dies per wafer are quoted (55 good ones at 85 %).
    assert float(dies_per_wafer(jnp.asarray(814e-6), 0.3)) == pytest.approx(63.5, abs=1.0)


def test_stacks_follow_the_scarcer_of_capacity_and_bandwidth():
    model = gz.CostModel()
    chip = gz.platform("H100-SXM")
    for changes, stacks in (({"mem_capacity": 10 * model.stack_capacity}, 10.0), ({"mem_bw": 819e9 * 7}, 7.0)):
        found = gz.cost(chip.replace(**changes), model)
        assert float(found.stacks) == pytest.approx(stacks)
        assert float(found.memory_price) == pytest.approx(stacks * 16 * 15)


def test_large_areas_are_cut_into_dies_of_the_reticle():
    chip = gz.platform("H100-SXM").replace(flops="5 PFLOP/s")
    found = gz.cost(chip)
    assert float(found.dies) == pytest.approx(float(found.area) / (26e-3 * 33e-3))


def point(values: jax.Array) -> gz.Platform:
    base = gz.platform("H100-SXM")
    return base.replace(**dict(zip(RATES, values, strict=True)))


def test_every_figure_rises_with_every_rate_and_has_the_gradient_of_finite_differences():
    rng = np.random.default_rng(0)
    low, high = np.log([1e14, 5e11, 1e10, 5e10]), np.log([1e16, 2e13, 5e11, 2e12])

    def figures(logs: jax.Array) -> jax.Array:
        found = device_cost(point(jnp.exp(logs)), gz.CostModel())
        return jnp.stack([jnp.log(getattr(found, name)) for name in RISING])

    slopes = jax.jit(jax.jacfwd(figures))
    values = jax.jit(figures)
    for _ in range(50):
        logs = rng.uniform(low, high)
        slope = np.asarray(slopes(logs))
        assert np.isfinite(slope).all()
        assert (slope >= 0).all()
        for k in range(4):
            step = np.zeros(4)
            step[k] = 1e-5
            numeric = (values(logs + step) - values(logs - step)) / 2e-5
            one_sided = np.abs(values(logs + step) + values(logs - step) - 2 * values(logs)).max() > 1e-8
            if not one_sided:  # not at a kink
                np.testing.assert_allclose(slope[:, k], numeric, atol=1e-6)


def test_logarithms_of_costs_are_convex_in_those_of_the_rates():
    """What makes tuning of hardware a geometric program: the middle lies below the chord, on one die."""
    rng = np.random.default_rng(1)
    low, high = np.log([1e14, 5e11, 1e10, 5e10]), np.log([8e14, 5e12, 8e10, 6e11])

    @jax.jit
    def figures(logs: jax.Array) -> jax.Array:
        found = device_cost(point(jnp.exp(logs)), gz.CostModel())
        return jnp.stack([jnp.log(getattr(found, name)) for name in RISING])

    for _ in range(200):
        a, b = rng.uniform(low, high), rng.uniform(low, high)
        assert (figures((a + b) / 2) <= (figures(a) + figures(b)) / 2 + 1e-9).all()


def test_smooth_maxima_approach_the_exact_ones_from_above():
    chip, model = gz.platform("H100-SXM"), gz.CostModel()
    exact = device_cost(chip, model)
    worst = [float(device_cost(chip, model, smooth).price / exact.price) - 1 for smooth in (0.2, 0.05, 0.01)]
    assert worst[0] > worst[1] > worst[2] >= 0
    assert worst[2] < 1e-3


@pytest.mark.slow
def test_cost_per_million_tokens_is_cost_over_tokens():
    result, found = gz.estimate("llama-3.1-8b", "H100-SXM", gz.Workload(batch=16)), gz.cost("H100-SXM")
    expected = float(found.cost_per_hour) / (float(result.throughput) * 3600) * 1e6
    assert float(gz.cost_per_million_tokens(result, found)) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="no throughput_per_device"):
        gz.cost_per_million_tokens(gz.estimate("llama-3.1-8b", "H100-SXM", stage="prefill"), found)


def test_lists_and_axes_give_a_dataset_of_the_single_points():
    chips = ["H100-SXM", "B200"]
    model = gz.CostModel().replace(gross_margin=gz.axis([0.0, 0.5]), price_per_byte=gz.axis([1e-8, 2e-8]))
    ds = gz.cost(chips, model)
    assert isinstance(ds, xr.Dataset)
    assert dict(ds.sizes) == {"platform": 2, "gross_margin": 2, "price_per_byte": 2}
    assert ds.area.dims == ("platform",)
    for chip in chips:
        one = gz.cost(chip, gz.CostModel().replace(gross_margin=0.5, price_per_byte=2e-8))
        assert float(ds.price.sel(platform=chip, gross_margin=0.5, price_per_byte=2e-8)) == pytest.approx(
            float(one.price), rel=1e-12
        )
    assert ds.price.attrs["units"] == "USD"
    watts = gz.cost(
        gz.platform("H100-SXM").replace(power=gz.axis([300, 700])), gz.CostModel().replace(power_model=None)
    )
    assert watts.power.dims == ("device_power",)


def test_bars_of_the_parts_add_up_to_the_totals(tmp_path):
    from genz_jax import plots

    costs = gz.cost(["H200", "B200"], HBM3E)
    drawn = plots.cost_breakdown(costs, str(tmp_path / "cost.png"))
    assert (tmp_path / "cost.png").stat().st_size > 10_000
    make, hour = drawn.axes
    ends = [max(bar.get_x() + bar.get_width() for bar in row) for row in zip(*hour.containers, strict=True)]
    np.testing.assert_allclose(ends, costs.cost_per_hour.values, rtol=1e-6)
    ends = [max(bar.get_x() + bar.get_width() for bar in row) for row in zip(*make.containers, strict=True)]
    np.testing.assert_allclose(ends, costs.price.values * (1 - 0.88), rtol=1e-6)
    with pytest.raises(ValueError, match="must be just platform"):
        plots.cost_breakdown(gz.cost("H100-SXM", gz.CostModel().replace(gross_margin=gz.axis([0.1, 0.2]))))


def test_a_function_of_ones_own_replaces_the_model():
    def mine(platform: gz.Platform) -> gz.results.CostResult:
        return dataclasses.replace(device_cost(platform, gz.CostModel()), price=platform.flops * 1e-11)

    assert float(gz.cost("H100-SXM", mine).price) == pytest.approx(float(gz.platform("H100-SXM").flops) * 1e-11)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gz.CostModel.preset("4nm"), "node = '4nm'.*7nm, 5nm, 3nm|did you mean"),
        (lambda: gz.CostModel.preset("5nm", "ddr5"), "memory = 'ddr5'"),
        (lambda: gz.CostModel(wafer_price="-1 USD"), r"CostModel\.wafer_price"),
        (lambda: gz.CostModel().replace(gross_margin=1.0), r"CostModel\.gross_margin"),
        (lambda: gz.CostModel().replace(waver_price=1.0), "did you mean wafer_price"),
        (lambda: gz.cost("H100-SMX"), "H100-SXM"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
