"""Readers of encoder-only transformers, which see both ways and have no language model head."""

from typing import Any

from genz_jax.catalog.hugging_face.config import Config
from genz_jax.catalog.readers.parts import FULL, attention_kinds, make_model, read_attention, read_ffn
from genz_jax.specs import Model

ENCODER: dict[str, Any] = {"bidirectional": 1.0, "lm_head": 0.0}
"""Numbers of a model that sees both ways."""


def _bert(c: Config) -> Model:
    """BERT (arXiv 1810.04805) and RoBERTa: learned positions and segments, a norm after them, a pooler at the end."""
    hidden, positions = c.size("hidden_size"), c.size("max_position_embeddings")
    c.refuse(c.flag("is_decoder"), "is_decoder: a decoder with the layers of an encoder")
    c.refuse(c.flag("add_cross_attention"), "add_cross_attention")
    kind = c.get("position_embedding_type", default="absolute")
    c.refuse(kind != "absolute", f"position_embedding_type {kind!r}")
    pooler = hidden * hidden + hidden
    other = (positions + c.size("type_vocab_size", least=0)) * hidden + pooler
    return make_model(
        c,
        True,
        read_attention(c, qkv_bias=True, out_bias=True, norms=2),
        read_ffn(c, gated=False, bias=True, norms=2),
        final_norms=2,
        other_parameters=other,
        **ENCODER,
    )


def _modernbert(c: Config) -> Model:
    """ModernBERT (arXiv 2412.13663): gated layers, and windows to both sides in all but every third layer."""
    layers, bias = c.size("num_hidden_layers"), c.flag("attention_bias")
    c.refuse(c.flag("norm_bias"), "norm_bias: norms of two vectors")
    every = c.size("global_attn_every_n_layers", default=3)
    kinds = attention_kinds(c, [i % every != 0 for i in range(layers)])
    local, side = layers - kinds.count(FULL), c.size("local_attention") // 2
    attention = read_attention(c, qkv_bias=bias, out_bias=bias, local=local, window=2 * side + 1)
    # The first layer has no norm before attention, and the embedding has one: as many as one for each layer.
    return make_model(c, True, attention, read_ffn(c, bias=c.flag("mlp_bias")), **ENCODER)


def _llama(c: Config) -> Model:
    """Llama that sees both ways, as in Llama-Embed-Nemotron (arXiv 2511.07025), with a config class of its own."""
    bias = c.flag("attention_bias")
    attention = read_attention(c, qkv_bias=bias, out_bias=bias)
    return make_model(c, False, attention, read_ffn(c, bias=c.flag("mlp_bias")), **ENCODER)


READERS = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta"), _bert),
    "modernbert": _modernbert,
    "llama_bidirec": _llama,
}
"""Reader of each encoder, by the config's `model_type`."""
