"""Multi-token prediction: the module that drafts tokens, as a model of its own."""

from typing import Any

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.specs.model import FFN, CompressedAttention, Indexer, LocalAttention, Model, Projection
from genz_jax.work.layers.registry import layers_of


def prediction_module(model: Model) -> Model:
    """One module for multi-token prediction (DeepSeek-V3, arXiv 2412.19437, section 2.2).

    It projects the embedding of a token, joined with the hidden vector before it (2D × D, three norms), runs one block
    of the model's kind (the preferred mixer and feed-forward layer that the model has: MLA, else sparse, full or local
    attention, with experts where there are any) and the model's head. Embedding and head are the model's own, so its
    `embedding` parameters are not stored again.

    Args:
        model: the model; its numbers may be arrays, where each place takes the first part that it has.
    """
    hidden = model.hidden_size
    one: Number = 1.0 + 0.0 * hidden
    parts: dict[str, Any] = {}
    every = sorted(layers_of(model), key=lambda found: found[2].preference, reverse=True)
    for role, special, asked in (("mixer", LocalAttention, model.mtp_local), ("feed-forward", FFN, model.mtp_dense)):
        there_are = [(name, part, 1.0) for name, part, layer in every if layer.role == role]
        first = [(name, part, asked) for name, part, _ in there_are if type(part) is special]
        free = one
        layers: dict[str, Number] = {}
        for name, part, wanted in (*first, *there_are):
            taken = free * there(part.layers) * wanted
            layers[name] = layers.get(name, 0.0) + taken
            free = free - taken
        parts |= {name: _single(getattr(model, name), count) for name, count in layers.items()}
    return type(model)(
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
    return xp.where(value > 0, xp.ones_like(value), 0.0 * value)
