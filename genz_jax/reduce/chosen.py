"""Places: chosen points of a grid, evaluated and labelled with where they lie."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from genz_jax.base.axes import Axis
from genz_jax.base.units import ONE
from genz_jax.grid.shape import FEW
from genz_jax.grid.space import Space
from genz_jax.labelled import labels
from genz_jax.labelled.labels import Coordinate, Grid
from genz_jax.serving.evaluate import Question, compiled

if TYPE_CHECKING:
    import xarray as xr


def at_places(
    space: Space,
    question: Question,
    places: Mapping[str, np.ndarray],
    found: np.ndarray,
    dims: Mapping[str, Coordinate | None],
    ranked: Mapping[str, Any],
) -> "xr.Dataset":
    """Evaluate one point for each place of some dimensions.

    Args:
        space: the points of which some are chosen.
        question: what is asked.
        places: index along each dimension that is taken away, of the shape of all `dims`.
        found: False where there is no point, of the same shape.
        dims: the dimensions of the result: those of the grid that are kept, with None, and new ones with their labels.
        ranked: objectives that are not figures of the stage: (array, dims, metadata) by name.

    Returns:
        The figures at the points. The coordinates of the dimensions that are taken away become coordinates along
        `dims`. Where there is no point, figures and coordinates are NaN or empty.
    """
    case, grid, order = dataclasses.replace(space.case, slo=None), space.grid, tuple(dims)
    shape = found.shape
    where = dict(zip(order, np.indices(shape, sparse=True), strict=True)) | dict(places)

    def chosen(values: np.ndarray, of: tuple[str, ...]) -> np.ndarray:
        return np.broadcast_to(values[tuple(where[dim] for dim in of)], shape)

    def moved(leaf: Any) -> Any:
        if not isinstance(leaf, Axis) or not set(leaf.dims or ()) & set(places):
            return leaf
        values = chosen(leaf.values, leaf.dims or ())
        return Axis(values, order, leaf.unit, listed=True) if order else float(values)

    points = jax.tree.map(moved, case, is_leaf=lambda leaf: isinstance(leaf, Axis))
    sizes = dict(zip(order, shape, strict=True))
    coords = {name: at for name, at in grid.coords.items() if not set(at.dims) & set(places)}
    coords |= {dim: at for dim, at in dims.items() if at is not None}
    for name, at in grid.coords.items():
        if name not in coords:
            values = chosen(at.values, at.dims)
            coords[name] = Coordinate(order, _known(values, found), at.attrs)
    here = Space(points, space.names, Grid(sizes, coords))
    figures = here.variables(compiled(question, quick=found.size <= FEW), False)
    if question.figures is None:  # `found` stands for both
        figures = {name: one for name, one in figures.items() if name not in ("feasible", "reason")}
    figures |= {name: one for name, one in ranked.items() if name not in figures}
    figures["found"] = (found, order, {"units": ONE, "long_name": "there is such a point"})
    dataset = labels.to_dataset(figures, here.grid, points, space.names, question)
    if not found.all():
        floats = [name for name, value in dataset.data_vars.items() if value.dtype.kind == "f"]
        dataset = dataset.assign({name: dataset[name].where(dataset["found"]) for name in floats})
    return dataset.transpose(*(dim for dim in grid.sizes if dim in order), ...)


def _known(values: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Values, NaN or an empty text where there is no point."""
    if found.all():
        return np.array(values)
    return np.where(found, values, np.nan if values.dtype.kind in "fiu" else "")


def numbers(dim: str, count: int, long_name: str) -> Coordinate:
    """Labels from 1 along a new dimension."""
    return Coordinate((dim,), np.arange(1, count + 1), {"units": ONE, "long_name": long_name})
