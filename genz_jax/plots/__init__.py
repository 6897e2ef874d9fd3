"""Plots of results, with units on the axes; one file per kind of result.

In: a Dataset or a result. Out: matplotlib axes, or a file by `save`. It never computes a figure of its own.
"""

from genz_jax.plots.calibration import predicted
from genz_jax.plots.requirements import elasticities, requirement
from genz_jax.plots.search import best_by_size, cost_and_latency, front
from genz_jax.plots.style import save
from genz_jax.plots.sweep import curves, design_space, plot
from genz_jax.plots.tuning import convergence, cost_breakdown, tuned_space

__all__ = [
    "best_by_size",
    "convergence",
    "cost_and_latency",
    "cost_breakdown",
    "curves",
    "design_space",
    "elasticities",
    "front",
    "plot",
    "predicted",
    "requirement",
    "save",
    "tuned_space",
]


def __dir__() -> list[str]:
    return __all__
