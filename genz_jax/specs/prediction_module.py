"""Multi-token prediction: the module that drafts tokens, as a model of its own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genz_jax.base.fields import Number
from genz_jax.specs.model import CompressedAttention, Indexer, Model, Projection

MIXERS = (
    "latent_attention",
    "compressed_attention",
    "sparse_attention",
    "attention",
    "local_attention",
    "delta_net",
    "linear_attention",
    "ssd",
    "ssm",
    "short_convolution",
)
"""Parts that mix tokens; a module has the first of them that the model has."""

FEED_FORWARD = ("moe", "ffn")
"""Feed-forward parts; a module has the first of them that the model has."""


def prediction_module(model: Model) -> Model:
    """One module for multi-token prediction (DeepSeek-V3, arXiv 2412.19437, section 2.2).

    It projects the embedding of a token, joined with the hidden vector before it (2D × D, three norms), runs one block
    of the model's kind (MLA, else sparse, full or local attention, with experts where the model has them) and the
    model's head. Embedding and head are the model's own, so its `embedding` parameters are not stored again.

    Args:
        model: the model; its numbers may be arrays, where each place takes the first part that it has.
    """
    hidden = model.hidden_size
    one: Number = 1.0 + 0.0 * hidden
    parts: dict[str, Any] = {}
    kinds = ((MIXERS, "local_attention", model.mtp_local), (FEED_FORWARD, "ffn", model.mtp_dense))
    for names, special, asked in kinds:
        free = one
        layers: dict[str, Number] = {}
        for name, wanted in ((special, asked), *((name, 1.0) for name in names)):
            if (part := getattr(model, name)) is not None:
                taken = free * there(part.layers) * wanted
                layers[name] = layers.get(name, 0.0) + taken
                free = free - taken
        parts |= {name: _single(getattr(model, name), count) for name, count in layers.items()}
    return Model(
        hidden,
        one,
        model.vocab_size,
        one,
        final_norms=3.0 * one,
        projections=(Projection(one, 2.0 * hidden, hidden),),
        **parts,
    )


def _single(part: Any, layers: Number) -> Any:
    """The part with so many layers, each with weights and cache of its own."""
    changes: dict[str, Any] = {"layers": layers}
    changes |= {key: 0.0 * layers for key in ("tied_layers", "shared_kv_layers") if hasattr(part, key)}
    index: Indexer | None = getattr(part, "indexer", None)
    if index is not None:
        changes["indexer"] = index.replace(layers=there(index.layers) * layers)
    if isinstance(part, CompressedAttention):
        changes |= {"sparse": None, "heavy": None}
    return part.replace(**changes)


def there(value: Number) -> Number:
    """1 where a count is above 0, else 0."""
    if isinstance(value, jax.Array):
        return jnp.where(value > 0, jnp.ones_like(value), 0.0 * value)
    return np.where(value > 0, 1.0, 0.0)
