"""How fast any LLM serves on any hardware platform, for millions of platforms at once, with gradients."""

import importlib.metadata

from genz_jax.assumptions import Assumptions as Assumptions
from genz_jax.axes import Axis as Axis, axis as axis, geomspace as geomspace, linspace as linspace
from genz_jax.caches import clear_caches as clear_caches
from genz_jax.catalog import (
    about as about,
    load as load,
    model as model,
    models as models,
    platform as platform,
    platforms as platforms,
    workload as workload,
    workloads as workloads,
)
from genz_jax.context_limit import ContextWarning as ContextWarning
from genz_jax.estimate import estimate as estimate
from genz_jax.explore.costs import cost as cost
from genz_jax.explore.fit import Fit as Fit, fit as fit
from genz_jax.explore.gradients import gradients as gradients
from genz_jax.explore.pareto import pareto as pareto
from genz_jax.explore.reductions import (
    Best as Best,
    Fraction as Fraction,
    ParetoFront as ParetoFront,
    Quantiles as Quantiles,
    TopK as TopK,
)
from genz_jax.explore.requirements import combined as combined, require as require
from genz_jax.explore.search import search as search
from genz_jax.explore.search_result import SearchResult as SearchResult
from genz_jax.explore.sensitivity import help_most as help_most, sensitivity as sensitivity
from genz_jax.explore.slo import SLO as SLO
from genz_jax.explore.store import open_store as open_store
from genz_jax.explore.sweep import sweep as sweep
from genz_jax.explore.tuning import tune as tune
from genz_jax.explore.tuning_problem import Budget as Budget
from genz_jax.explore.tuning_result import Infeasible as Infeasible, TuneResult as TuneResult
from genz_jax.files import save as save
from genz_jax.flops import FlopCount as FlopCount, flop_count as flop_count
from genz_jax.labels import words as words
from genz_jax.machine.cost import (
    CostModel as CostModel,
    CostResult as CostResult,
    cost_per_million_tokens as cost_per_million_tokens,
)
from genz_jax.machine.power import PowerModel as PowerModel
from genz_jax.parameters import ParameterCount as ParameterCount, parameter_count as parameter_count
from genz_jax.specs import (
    FFN as FFN,
    SSD as SSD,
    SSM as SSM,
    Attention as Attention,
    CompressedAttention as CompressedAttention,
    Compressor as Compressor,
    DecodeChunk as DecodeChunk,
    DeltaNet as DeltaNet,
    Engine as Engine,
    Indexer as Indexer,
    LatentAttention as LatentAttention,
    LatentExperts as LatentExperts,
    LayerEmbedding as LayerEmbedding,
    LinearAttention as LinearAttention,
    LocalAttention as LocalAttention,
    Model as Model,
    MoE as MoE,
    NetworkLevel as NetworkLevel,
    Parallelism as Parallelism,
    Platform as Platform,
    PowerSplit as PowerSplit,
    Precision as Precision,
    PrefillChunk as PrefillChunk,
    Projection as Projection,
    Rates as Rates,
    ResidualStreams as ResidualStreams,
    ShortConvolution as ShortConvolution,
    SparseAttention as SparseAttention,
    Speculation as Speculation,
    Workload as Workload,
)
from genz_jax.stack import stack as stack

__version__ = importlib.metadata.version("genz_jax")
