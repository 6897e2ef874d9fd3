"""The studies of the cheapest accelerator: headline numbers of a small run, checked through `gz.estimate`."""

from pathlib import Path

import design_space as space
import numpy as np
import pytest
import tuning
import xarray as xr

import genz_jax as gz

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    for study in (space, tuning):
        study.main(["--smoke", "--out", str(folder)])
    return folder


def test_files_are_written_and_open_elsewhere(written):
    assert {path.name for path in written.iterdir()} == {
        f"{name}.{end}" for name in ("design_space", "tuning") for end in ("nc", "png")
    }
    for name in ("design_space", "tuning"):
        assert xr.load_dataset(written / f"{name}.nc").attrs["genz_jax_version"] == gz.__version__


def served(design: dict[str, float]) -> dict[str, bool]:
    """Which use cases a design serves, by `estimate` and the limits of the catalogue."""
    rates = {name: design[name] for name in ("flops", "mem_bw", "mem_capacity", "link_bw")}
    platform = gz.platform(space.BASE).replace(**rates)
    found = {}
    for name in space.USE_CASES:
        notes = gz.catalog.about("workload", name).notes
        slo = gz.SLO(ttft=notes["ttft"], tpot=notes["tpot"])
        spread = gz.Parallelism(tp=design["tp"])
        found[name] = bool(slo.met(gz.estimate(space.MODEL, platform, name, spread, space.PRECISION)))
    return found


def price(design: dict[str, float]) -> float:
    rates = {name: design[name] for name in ("flops", "mem_bw", "mem_capacity", "link_bw")}
    return float(gz.cost(gz.platform(space.BASE).replace(**rates)).price) * design["tp"]


def test_best_of_the_grid_serves_all_and_no_other_point_is_cheaper(written):
    dataset = xr.load_dataset(written / "design_space.nc")
    best = space.best(dataset)
    assert dataset.attrs["points"] == np.prod(list(space.SMOKE.values())) * 4
    assert all(served(best).values())
    assert best["price"] == pytest.approx(price(best), rel=1e-6)
    cheaper = 0
    rng = np.random.default_rng(0)
    bounds = space.problem_bounds()
    axes = {name: np.geomspace(bounds[name][0], bounds[name][1], n) for name, n in space.SMOKE.items()}
    axes["tp"] = np.array([1.0, 2.0, 4.0, 8.0])
    for _ in range(400):
        design = {name: float(rng.choice(axis)) for name, axis in axes.items()}
        if price(design) < best["price"] * (1 - 1e-6):
            cheaper += 1
            if cheaper <= 25:
                assert not all(served(design).values())
    assert cheaper > 10


def test_the_gradient_is_no_worse_than_the_grid_and_serves_all(written):
    dataset = xr.load_dataset(written / "tuning.nc")
    tuned, grid = dataset["price"].values
    assert tuned <= grid * 1.0001
    design = dict(zip(map(str, dataset["variable"].values), dataset["optimum"].values[:, 0], strict=True))
    assert all(served(design).values())
    assert price(design) == pytest.approx(tuned, rel=1e-6)
    assert dataset.attrs["lower_bound"] <= tuned * (1 + 1e-6)
    assert float(dataset["elasticity"].sum()) > 0
    assert set(tuning.VARIABLES) == set(design)


def test_cheapest_design_is_one_device_bound_by_the_retrieval_use_case(written):
    """The headline: 40,341 USD, one device, held by TTFT and TPOT of question answering with retrieval."""
    dataset = xr.load_dataset(written / "tuning.nc")
    assert float(dataset["price"].sel(answer="gradient")) == pytest.approx(40_341, rel=0.01)
    assert float(dataset["optimum"].sel(variable="tp", answer="gradient")) == 1
    active = dataset["limit"].values[dataset["elasticity"].values > 1e-3]
    assert {"ttft of qa-rag", "tpot of qa-rag"} <= set(map(str, active))
