"""Readers of Gemma 1 to 4."""

from typing import Any

from genz_jax.catalog.hugging_face.config import Config
from genz_jax.catalog.hugging_face.embedding_models import sees_both_ways
from genz_jax.catalog.readers.encoder import ENCODER
from genz_jax.catalog.readers.parts import (
    FULL,
    attention_kinds,
    kv_sharing,
    make_model,
    no_windows,
    read_attention,
    read_ffn,
    read_moe,
    read_windows,
)
from genz_jax.specs import FFN, Attention, LayerEmbedding, Model, Projection, ResidualStreams


def _gemma(c: Config) -> Model:
    bias = c.flag("attention_bias")
    no_windows(c)
    return make_model(c, True, read_attention(c, qkv_bias=bias, out_bias=bias), read_ffn(c))


def _window(c: Config, window: int) -> int:
    """Tokens that a query sees: of an encoder, as EmbeddingGemma (arXiv 2509.20354), half of them to each side."""
    return 2 * (window // 2) + 1 if sees_both_ways(c) else window


def _gemma2(c: Config) -> Model:
    bias = c.flag("attention_bias")
    return make_model(
        c,
        True,
        read_attention(c, qkv_bias=bias, out_bias=bias, norms=2, **read_windows(c, every=2)),
        read_ffn(c, norms=2),
    )


def _gemma3(c: Config) -> Model:
    bias, every = c.flag("attention_bias"), c.size("sliding_window_pattern", default=6)
    if not c.has("layer_types"):
        c.expect("_sliding_window_pattern", every)
    windows = read_windows(c, every=every)
    if windows:
        windows["window"] = _window(c, windows["window"])
    attention = read_attention(c, qkv_bias=bias, out_bias=bias, qk_norm="head", norms=2, **windows)
    return make_model(c, True, attention, read_ffn(c, norms=2), **(ENCODER if sees_both_ways(c) else {}))


def _gemma4(c: Config) -> Model:
    bias, layers, hidden = c.flag("attention_bias"), c.size("num_hidden_layers"), c.size("hidden_size")
    kinds = attention_kinds(c, [(i + 1) % 6 != 0 for i in range(layers)])
    kinds[-1] = FULL
    whole, heads, shared = kinds.count("full_attention"), c.size("num_attention_heads"), kv_sharing(c, kinds)
    c.refuse(bias and sum(shared.values()), "attention_bias with num_kv_shared_layers")
    window = _window(c, c.size("sliding_window"))
    parts = read_attention(
        c, qkv_bias=bias, out_bias=bias, qk_norm="head", norms=2, local=layers - whole, window=window
    )
    if "local_attention" in parts:
        local = parts["local_attention"]
        parts["local_attention"] = _sharing(local, shared.get("sliding_attention", 0))
    if whole:
        size, kv_heads = _global_heads(c, kinds)
        same = c.flag("attention_k_eq_v")
        c.refuse(heads % kv_heads, f"num_global_key_value_heads {kv_heads} does not divide num_attention_heads {heads}")
        biases = bias * ((heads + (1 if same else 2) * kv_heads) * size + hidden)
        part = Attention(
            whole, heads, kv_heads, size, value_projection=float(not same), norms=2, qk_norms=2 * size, biases=biases
        )
        parts["attention"] = _sharing(part, shared.get("full_attention", 0))
    experts = {}
    if c.flag("enable_moe_block"):
        experts = read_moe(c, norms=3, router_biases=hidden + c.size("num_experts"))
    own, extra = _layer_embedding(c)
    wide = c.flag("use_double_wide_mlp") * sum(shared.values())
    ffn = FFN(layers, c.size("intermediate_size") * (layers + wide) / layers, norms=2 + bool(own))
    extra |= ENCODER if sees_both_ways(c) else {}
    return make_model(c, True, parts, {"ffn": ffn}, experts, own, **extra)


def _gemma3n(c: Config) -> Model:
    """Gemma 3n: AltUp's residual streams, low-rank residuals (LAuReL), an embedding for every layer, shared keys."""
    layers, hidden, streams = c.size("num_hidden_layers"), c.size("hidden_size"), c.size("altup_num_inputs")
    kinds = attention_kinds(c, [(i + 1) % 5 != 0 for i in range(layers)])
    sparsity = c.get("activation_sparsity_pattern")
    c.refuse(isinstance(sparsity, list) and len(sparsity) != layers, f"activation_sparsity_pattern of {layers} layers")
    c.refuse(c.flag("attention_bias"), "attention_bias")
    shared, local = kv_sharing(c, kinds), kinds.count("sliding_attention")
    parts = read_attention(c, qk_norm="head", norms=2, local=local, window=c.size("sliding_window"))
    parts = {
        name: _sharing(part, shared.get("sliding_attention" if name == "local_attention" else "full_attention", 0))
        for name, part in parts.items()
    }
    sizes = c.sizes("intermediate_size", layers)
    own, extra = _layer_embedding(c)
    rank = c.size("laurel_rank")
    extra["projections"] += (
        Projection(layers, hidden, rank),
        Projection(layers, rank, hidden),
        # The router of the streams runs before and after a layer.
        Projection(layers, hidden, streams, uses=2),
        Projection(layers, streams, streams**2),
        Projection(layers, streams, streams),
        Projection(2 * (streams - 1), hidden, hidden),
    )
    extra["other_parameters"] += layers * hidden  # scale of the corrected output
    mixed = {"residual_streams": ResidualStreams(layers, streams, streams)}
    # Norms of the layer, of LAuReL, of the streams' router and of the layer's embedding.
    ffn = {"ffn": FFN(layers, sum(sizes) / layers, norms=5)}
    return make_model(c, True, parts, ffn, own, mixed, **extra)


def _sharing(part: Attention, shared: int) -> Any:
    """The part with that many layers that have no key projection and norm of their own."""
    norms = part.head_dim * (2.0 - shared / part.layers)
    return part.replace(shared_kv_layers=shared, qk_norms=norms)


def _layer_embedding(c: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """The embedding of every layer, with its gate, projection and norm; nothing where there is none."""
    size = c.size("hidden_size_per_layer_input", default=0, least=0)
    if not size:
        return {}, {"projections": (), "other_parameters": 0}
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    part = LayerEmbedding(layers, size, c.size("vocab_size_per_layer_input", "vocab_size"))
    around = (
        Projection(1, hidden, layers * size),
        Projection(layers, hidden, size),
        Projection(layers, size, hidden),
    )
    # The norm of all layers' embeddings has no place among those of model width.
    return {"layer_embedding": part}, {"projections": around, "other_parameters": size}


def _global_heads(c: Config, kinds: list[str]) -> tuple[int, int]:
    """Head size and key-value heads of the global layers, which a config may have layer by layer."""
    size, kv_heads = c.size("head_dim"), c.size("num_key_value_heads")
    if "per_layer_config" not in c.values:
        own = kv_heads if not c.flag("attention_k_eq_v") else c.size("num_global_key_value_heads", default=kv_heads)
        return c.size("global_head_dim", default=512), own
    given = c.part("per_layer_config").values if c.has("per_layer_config") else {}
    whole = {i for i, kind in enumerate(kinds) if kind == FULL}
    first = next(iter(given.values()), {})
    places = {int(key) if str(key).isdecimal() else key for key in given}  # newer versions write 05 for 5
    same = places == (whole if first else set()) and all(values == first for values in given.values())
    known = isinstance(first, dict) and not set(first) - {"head_dim", "num_key_value_heads"}
    c.refuse(not same or not known, "per_layer_config that is not one head_dim and num_key_value_heads of full layers")
    told = Config(f"{c.where}, per_layer_config", first)
    return told.size("head_dim", default=size), told.size("num_key_value_heads", default=kv_heads)


READERS = {
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "gemma3n_text": _gemma3n,
    "gemma4_text": _gemma4,
}
"""Reader of each generation of Gemma, by the config's `model_type`."""
