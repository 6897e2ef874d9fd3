"""How fast any LLM serves on any hardware platform, for millions of platforms at once, with gradients.

The verbs and what they are asked about stand here. Parts of a model are in `gz.layers`, other parts of specs in
`gz.specs`, classes of results in `gz.results`, notes and list prices of the catalogue in `gz.catalog`, plots in
`gz.plots`.
"""

import importlib
import importlib.metadata
import operator
import sys
import warnings
from typing import TYPE_CHECKING, Any

from genz_jax import catalog as catalog, layers, results as results, specs as specs
from genz_jax.base.axes import axis, geomspace, linspace
from genz_jax.base.caches import clear_caches
from genz_jax.base.files import save
from genz_jax.calibration import calibrate
from genz_jax.catalog import load, model, models, platform, platforms, workload, workloads
from genz_jax.counts.flops import flop_count
from genz_jax.counts.parameters import parameter_count
from genz_jax.labelled.context_limit import ContextWarning
from genz_jax.labelled.labels import words
from genz_jax.machine.cost import CostModel, cost_per_million_tokens
from genz_jax.machine.power import PowerModel
from genz_jax.questions.cost import cost
from genz_jax.questions.estimate import estimate
from genz_jax.questions.fit import fit
from genz_jax.questions.gradients import gradients
from genz_jax.questions.require.requirements import binding_requirement, require
from genz_jax.questions.search.search import search
from genz_jax.questions.sensitivity.sensitivity import rank_parameters, sensitivity
from genz_jax.questions.sweep import sweep
from genz_jax.questions.tune.problem import Budget
from genz_jax.questions.tune.result import Infeasible
from genz_jax.questions.tune.tune import tune
from genz_jax.reduce.pareto import pareto
from genz_jax.reduce.reductions import Best, Fraction, ParetoFront, Quantiles, TopK
from genz_jax.serving.slo import SLO
from genz_jax.specs import Engine, Model, Parallelism, Platform, Precision, Speculation, Workload
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.stack import stack
from genz_jax.store.write import open_store

if TYPE_CHECKING:
    from genz_jax import plots as plots

__version__ = importlib.metadata.version("genz_jax")

__all__ = [
    "SLO",
    "Assumptions",
    "Best",
    "Budget",
    "ContextWarning",
    "CostModel",
    "Engine",
    "Fraction",
    "Infeasible",
    "Model",
    "Parallelism",
    "ParetoFront",
    "Platform",
    "PowerModel",
    "Precision",
    "Quantiles",
    "Speculation",
    "TopK",
    "Workload",
    "axis",
    "binding_requirement",
    "calibrate",
    "clear_caches",
    "cost",
    "cost_per_million_tokens",
    "estimate",
    "fit",
    "flop_count",
    "geomspace",
    "gradients",
    "linspace",
    "load",
    "model",
    "models",
    "open_store",
    "parameter_count",
    "pareto",
    "platform",
    "platforms",
    "rank_parameters",
    "require",
    "save",
    "search",
    "sensitivity",
    "stack",
    "sweep",
    "tune",
    "words",
    "workload",
    "workloads",
]
_MODULES = ("catalog", "layers", "plots", "results", "specs")
_MOVED = {
    "about": "catalog.about",
    "combined": "binding_requirement",
    "help_most": "rank_parameters",
    **{name: f"layers.{name}" for name in layers.__all__},
    **{
        name: f"results.{name}"
        for name in ("CostResult", "Fit", "FlopCount", "ParameterCount", "SearchResult", "TuneResult")
    },
    **{
        name: f"specs.{name}" for name in ("Axis", "DecodeChunk", "NetworkLevel", "PowerSplit", "PrefillChunk", "Rates")
    },
}
"""Where the names of version 0.1 stand now; they answer for one release more."""


def __dir__() -> list[str]:
    return [*__all__, *_MODULES]


def __getattr__(name: str) -> Any:
    if name == "plots":  # matplotlib takes a second to import
        return importlib.import_module("genz_jax.plots")
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"gz.{name} is now gz.{_MOVED[name]}", FutureWarning, stacklevel=2)
    found = operator.attrgetter(_MOVED[name])(sys.modules[__name__])
    globals()[name] = found  # so that it warns once
    return found
