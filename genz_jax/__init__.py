"""How fast any LLM serves on any hardware platform, for millions of platforms at once, with gradients."""

import importlib.metadata

from genz_jax.base.axes import Axis as Axis, axis as axis, geomspace as geomspace, linspace as linspace
from genz_jax.base.caches import clear_caches as clear_caches
from genz_jax.base.files import save as save
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
from genz_jax.counts.flops import FlopCount as FlopCount, flop_count as flop_count
from genz_jax.counts.parameters import ParameterCount as ParameterCount, parameter_count as parameter_count
from genz_jax.labelled.context_limit import ContextWarning as ContextWarning
from genz_jax.labelled.labels import words as words
from genz_jax.machine.cost import (
    CostModel as CostModel,
    CostResult as CostResult,
    cost_per_million_tokens as cost_per_million_tokens,
)
from genz_jax.machine.power import PowerModel as PowerModel
from genz_jax.questions.cost import cost as cost
from genz_jax.questions.estimate import estimate as estimate
from genz_jax.questions.fit import Fit as Fit, fit as fit
from genz_jax.questions.gradients import gradients as gradients
from genz_jax.questions.require.requirements import combined as combined, require as require
from genz_jax.questions.search.result import SearchResult as SearchResult
from genz_jax.questions.search.search import search as search
from genz_jax.questions.sensitivity.sensitivity import help_most as help_most, sensitivity as sensitivity
from genz_jax.questions.sweep import sweep as sweep
from genz_jax.questions.tune.problem import Budget as Budget
from genz_jax.questions.tune.result import Infeasible as Infeasible, TuneResult as TuneResult
from genz_jax.questions.tune.tune import tune as tune
from genz_jax.reduce.pareto import pareto as pareto
from genz_jax.reduce.reductions import (
    Best as Best,
    Fraction as Fraction,
    ParetoFront as ParetoFront,
    Quantiles as Quantiles,
    TopK as TopK,
)
from genz_jax.serving.slo import SLO as SLO
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
from genz_jax.specs.assumptions import Assumptions as Assumptions
from genz_jax.specs.stack import stack as stack
from genz_jax.store.write import open_store as open_store

__version__ = importlib.metadata.version("genz_jax")
