"""Costs: the cost model for platforms by name, for lists of them, and over axes."""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer

from genz_jax import catalog
from genz_jax.base import free_memory as room
from genz_jax.base.axes import Axis
from genz_jax.base.caches import Compiled
from genz_jax.labelled import labels
from genz_jax.labelled.inputs import PlatformLike, one_or_list
from genz_jax.machine.cost import CostFunction, CostModel, CostResult, device_cost
from genz_jax.specs import Platform

if TYPE_CHECKING:
    import xarray as xr


class _Priced(eqx.Module):
    """A platform and the constants of its cost."""

    platform: Platform
    cost_model: CostModel


def cost(platform: PlatformLike, cost_model: CostModel | CostFunction | None = None) -> Any:
    """Area, price, power and cost of ownership of a device.

    Args:
        platform: a catalogue name, a `gz.Platform`, or a list or mapping of these, which makes the dimension
            `platform`. Any number may be an axis.
        cost_model: the constants, by default those of a 5 nm device with HBM3; any number may be an axis. Or a function
            of the platform that returns a `CostResult`.

    Returns:
        A `CostResult`; print it for a table. With axes or lists an `xarray.Dataset` of its figures.

    Raises:
        ValueError: an unknown name or a value that no machine could have; axes together with a function of one's own.

    Example:
        >>> import genz_jax as gz
        >>> at_cost = gz.CostModel().replace(gross_margin=0)
        >>> bool(gz.cost("H100-SXM", at_cost).price < gz.cost("H100-SXM").price)
        True
    """
    spec, names = one_or_list("platform", platform, Platform, catalog.platform)
    model = CostModel() if cost_model is None else cost_model
    if not isinstance(model, CostModel):
        if labels.axes_of(spec):
            raise ValueError("cost: axes need a gz.CostModel; call a function of your own with arrays instead")
        return model(spec)
    case = _Priced(*(_renamed(part) for part in (spec, model)))
    if not labels.axes_of(case):
        result = device_cost(case.platform, case.cost_model)
        return result if _traced(case) else jax.tree.map(np.asarray, result)
    return _swept(case, names or [spec.name])


def _traced(tree: Any) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def _renamed(spec: Any) -> Any:
    """The spec whose axes do not take the name of a figure of cost."""
    figures = {field.name for field in dataclasses.fields(CostResult)}
    for path, axis in labels.axes_of(spec).items():
        if axis.dims is None and path in figures:
            spec = spec.replace(**{path: Axis(axis.values, (f"device_{path}",), axis.unit, axis.coords)})
    return spec


@functools.cache
def _compiled() -> Any:
    return Compiled(device_cost)


def _swept(case: _Priced, names: list[str]) -> "xr.Dataset":
    """Figures over all axes, each with the dimensions it depends on."""
    case = labels.name_axes(case)
    grid = labels.read_grid(case)
    order = tuple(grid.sizes)
    figures = len(dataclasses.fields(CostResult))
    advice = "shorten the axes"
    room.check(8 * figures * grid.points, f"cost: {grid.points:,} points of {figures} figures", advice)
    arrays = labels.to_arrays(case, order)
    result = _compiled()(arrays.platform, arrays.cost_model)
    values = {}
    for name, (value, meta) in result.figures().items():
        array = np.asarray(value)
        if array.ndim != len(order):
            values[name] = (array, (), meta)
            continue
        dims = tuple(dim for dim, size in zip(order, array.shape, strict=True) if size > 1 or grid.sizes[dim] == 1)
        values[name] = (array.reshape([grid.sizes[dim] for dim in dims]), dims, meta)
    attrs = {"title": f"genz_jax cost: {', '.join(names)}"[:200], "platform_name": ", ".join(names)}
    coords = {f"device_{name}" if name in values else name: coord for name, coord in grid.coords.items()}
    return labels.plain_dataset(values, coords, attrs)
