"""The parts that a `gz.Model` is made of: a count of layers of each kind, with their sizes.

In: numbers from a person or a config. Out: fields of a `Model`. It never knows how a layer is computed.

Example:
    >>> import genz_jax as gz
    >>> dense = gz.Model(
    ...     hidden_size=4096,
    ...     layers=32,
    ...     vocab_size=128_256,
    ...     attention=gz.layers.Attention(layers=32, heads=32, kv_heads=8, head_dim=128),
    ...     ffn=gz.layers.FFN(layers=32, intermediate_size=14_336),
    ... )
    >>> int(gz.parameter_count(dense).total)
    8030261248
"""

from genz_jax.specs import (
    FFN,
    SSD,
    SSM,
    Attention,
    CompressedAttention,
    Compressor,
    DeltaNet,
    Indexer,
    LatentAttention,
    LatentExperts,
    LayerEmbedding,
    LinearAttention,
    LocalAttention,
    MoE,
    Projection,
    ResidualStreams,
    ShortConvolution,
    SparseAttention,
)

__all__ = [
    "FFN",
    "SSD",
    "SSM",
    "Attention",
    "CompressedAttention",
    "Compressor",
    "DeltaNet",
    "Indexer",
    "LatentAttention",
    "LatentExperts",
    "LayerEmbedding",
    "LinearAttention",
    "LocalAttention",
    "MoE",
    "Projection",
    "ResidualStreams",
    "ShortConvolution",
    "SparseAttention",
]


def __dir__() -> list[str]:
    return __all__
