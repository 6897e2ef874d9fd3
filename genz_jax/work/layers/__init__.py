"""Layers: the operators of each kind of layer of a model.

In: a part of a model and a forward pass. Out: operators. It never knows a platform.
"""

# Each registers the kinds of layers that it defines.
from genz_jax.work.layers import (
    attention as attention,
    auxiliary as auxiliary,
    compressed_attention as compressed_attention,
    ffn as ffn,
    latent_attention as latent_attention,
    ssm as ssm,
)
