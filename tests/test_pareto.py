"""Pareto fronts against the definition, pair by pair."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

import genz_jax as gz
from genz_jax.reduce import pareto as module
from genz_jax.reduce.pareto import front_mask

ties = st.integers(-3, 3).map(float) | st.just(np.nan) | st.just(np.inf) | st.just(-np.inf)
tables = hnp.arrays(float, st.tuples(st.integers(0, 40), st.integers(1, 4)), elements=ties)


def by_definition(values: np.ndarray) -> np.ndarray:
    """The O(n²) check: no other row is as good in all columns and better in one."""
    mask = []
    for row in values:
        beaten = any(np.all(other <= row) and np.any(other < row) for other in values if not np.isnan(other).any())
        mask.append(not beaten and not np.isnan(row).any())
    return np.array(mask, dtype=bool)


@given(values=tables)
def test_the_front_is_what_no_other_point_beats(values: np.ndarray):
    np.testing.assert_array_equal(front_mask(values), by_definition(values))


@pytest.mark.parametrize("columns", [2, 3, 5])
def test_a_front_across_blocks(columns: int, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 16)
    values = np.random.default_rng(columns).normal(size=(700, columns)).round(1)
    np.testing.assert_array_equal(front_mask(values), by_definition(values))


@given(values=tables, seed=st.integers(0, 2**16))
def test_order_and_scale_do_not_matter(values: np.ndarray, seed: int):
    shuffled = np.random.default_rng(seed).permutation(len(values))
    np.testing.assert_array_equal(front_mask(values[shuffled]), front_mask(values)[shuffled])
    np.testing.assert_array_equal(front_mask(7.0 * values - 1.0), front_mask(values))


@given(values=tables)
def test_every_other_point_is_beaten_by_one_of_the_front(values: np.ndarray):
    mask = front_mask(values)
    front = values[mask]
    for row in values[~mask & ~np.isnan(values).any(axis=1)]:
        assert (np.all(front <= row, axis=1) & np.any(front < row, axis=1)).any()


def test_of_a_million_points_two_objectives_take_a_moment():
    values = np.random.default_rng(0).normal(size=(10**6, 2))
    front = values[front_mask(values)]
    ordered = front[np.argsort(front[:, 0])]
    assert np.all(np.diff(ordered[:, 1]) < 0)
    np.testing.assert_array_equal(ordered[0, 0], values[:, 0].min())
    np.testing.assert_array_equal(ordered[-1, 1], values[:, 1].min())


def grid() -> xr.Dataset:
    rng = np.random.default_rng(3)
    variables = {"fast": (("x", "y"), rng.normal(size=(6, 5))), "cheap": (("y", "x"), rng.normal(size=(5, 6)))}
    return xr.Dataset(variables | {"only_x": ("x", np.arange(6.0))}, {"x": np.arange(6), "y": list("abcde")})


def test_a_dataset_of_several_dimensions_becomes_one_of_points():
    front = gz.pareto(grid(), {"fast": max, "cheap": "min"})
    assert front.fast.dims == ("point",)
    flat = grid().stack(point=("x", "y"))
    mask = by_definition(np.stack([-flat.fast.values, flat.cheap.values], axis=1))
    assert set(front.point.values) == set(flat.point.values[mask])
    assert np.all(np.diff(front.fast.values) >= 0)
    assert np.all(np.diff(front.cheap.values) >= 0)


def test_an_objective_that_depends_on_fewer_dimensions():
    front = gz.pareto(grid(), {"fast": "max", "only_x": "max"})
    flat = grid().stack(point=("x", "y"))
    mask = by_definition(np.stack([-flat.fast.values, -flat.only_x.broadcast_like(flat.point).values], axis=1))
    assert front.sizes["point"] == mask.sum()


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("objectives", "words"),
    [
        ({"fast": "max"}, "two or more"),
        ({"fast": "max", "cheep": "min"}, "'cheep' is not in the dataset; did you mean cheap"),
        ({"fast": "max", "cheap": "least"}, "'least'; must be 'min' or 'max'"),
    ],
)
def test_wrong_objectives(objectives, words):
    with pytest.raises(ValueError, match=words):
        gz.pareto(grid(), objectives)
