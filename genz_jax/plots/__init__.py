"""Plots of results, with units on the axes; one file per kind of result."""

from genz_jax.plots.requirements import elasticities as elasticities, requirement as requirement
from genz_jax.plots.search import best_by_size as best_by_size, cost_and_latency as cost_and_latency, front as front
from genz_jax.plots.style import save as save
from genz_jax.plots.sweep import curves as curves, design_space as design_space, plot as plot
from genz_jax.plots.tuning import (
    convergence as convergence,
    cost_breakdown as cost_breakdown,
    tuned_space as tuned_space,
)
