"""Specs: what is to be served, on what, how. Immutable pytrees in which every number is an array leaf.

A number may be given as a Python or NumPy number, a JAX array or tracer, text with units ("3.35 TB/s"), an `Axis`, or
an `xarray.DataArray`. Text is converted to base units and values are checked when a spec is made.

In: numbers, text, axes. Out: specs. They never know who reads them.
"""

from genz_jax.base.axes import Axis as Axis
from genz_jax.base.fields import Number as Number, Rule as Rule, Spec as Spec
from genz_jax.base.label import Label as Label
from genz_jax.specs.engine import Engine as Engine
from genz_jax.specs.model import (
    FFN as FFN,
    SSD as SSD,
    SSM as SSM,
    Attention as Attention,
    CompressedAttention as CompressedAttention,
    Compressor as Compressor,
    DeltaNet as DeltaNet,
    Indexer as Indexer,
    LatentAttention as LatentAttention,
    LatentExperts as LatentExperts,
    LayerEmbedding as LayerEmbedding,
    LinearAttention as LinearAttention,
    LocalAttention as LocalAttention,
    Model as Model,
    MoE as MoE,
    Projection as Projection,
    ResidualStreams as ResidualStreams,
    ShortConvolution as ShortConvolution,
    SparseAttention as SparseAttention,
)
from genz_jax.specs.platform import (
    UNLIMITED as UNLIMITED,
    NetworkLevel as NetworkLevel,
    Platform as Platform,
    PowerSplit as PowerSplit,
    Rates as Rates,
)
from genz_jax.specs.precision import TENSORS as TENSORS, Layers as Layers, Precision as Precision, wider as wider
from genz_jax.specs.speculation import Speculation as Speculation
from genz_jax.specs.workload import (
    DecodeChunk as DecodeChunk,
    Parallelism as Parallelism,
    PrefillChunk as PrefillChunk,
    Workload as Workload,
)

_SHOWN: list[str] = [
    *("Axis", "DecodeChunk", "Engine", "Label", "Model", "NetworkLevel", "Number", "Parallelism", "Platform"),
    *("PowerSplit", "Precision", "PrefillChunk", "Rates", "Rule", "Spec", "Speculation", "Workload"),
]


def __dir__() -> list[str]:
    return _SHOWN
