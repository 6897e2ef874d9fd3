"""Readers of hybrids of full attention with delta nets or lightning attention."""

from typing import Any

from genz_jax.catalog.hugging_face.config import Config
from genz_jax.catalog.readers.parts import (
    FULL,
    LINEAR,
    count_sparse_layers,
    make_model,
    read_attention,
    read_ffn,
    read_latent_attention,
    read_mlp_kinds,
    read_moe,
)
from genz_jax.specs import DeltaNet, LatentExperts, LinearAttention, Model, Projection, ResidualStreams


def _qwen_hybrid(c: Config) -> Model:
    """Qwen 3-Next and 3.5: gated delta net layers between gated attention layers."""
    layers, bias = c.size("num_hidden_layers"), c.flag("attention_bias")
    kinds = c.kinds("layer_types", allowed=(FULL, LINEAR))
    whole = layers // c.size("full_attention_interval", default=4) if kinds is None else kinds.count(FULL)
    c.expect("attn_output_gate", True)
    c.expect("num_experts")
    c.expect("decoder_sparse_step", 1)
    c.expect("mlp_only_layers", [])
    delta = {}
    if layers - whole:
        delta["delta_net"] = DeltaNet(
            layers - whole,
            c.size("linear_num_key_heads"),
            c.size("linear_num_value_heads"),
            c.size("linear_key_head_dim"),
            c.size("linear_value_head_dim"),
            c.size("linear_conv_kernel_dim"),
        )
    attention = read_attention(
        c, whole, qkv_bias=bias, out_bias=bias, qk_norm="head", gated=c.flag("attn_output_gate", True)
    )
    if c.get("num_experts") is None:
        return make_model(c, False, attention, delta, read_ffn(c))
    sparse = count_sparse_layers(c)
    size = c.size("shared_expert_intermediate_size")
    experts = read_moe(c, sparse, shared_experts=1, shared_intermediate_size=size, shared_gate=1)
    return make_model(c, False, attention, delta, read_ffn(c, layers - sparse) if layers - sparse else {}, experts)


def _kimi_linear(c: Config) -> Model:
    """Kimi Linear and K3: Kimi delta attention between latent attention layers, K3 with latent experts."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    c.refuse(c.flag("tie_word_embeddings"), "tie_word_embeddings: its code has a head of its own")
    told = c.part("linear_attn_config") if c.has("linear_attn_config") else Config(c.where, {})
    kinds = c.kinds("layer_types", allowed=(FULL, LINEAR))
    full, rest = (told.places(key, layers, first=1) for key in ("full_attn_layers", "kda_layers"))
    if kinds is not None:
        whole = kinds.count(FULL)
    elif full is None or rest is None:
        whole = (layers - 1) // 4  # the fifth and every fourth after it
    else:
        c.refuse(full & rest or len(full | rest) != layers, "full_attn_layers, kda_layers: layers of no kind or of two")
        whole = len(full)
    linear = layers - whole
    parts: dict[str, Any] = {}
    if linear:
        heads = told.size("num_heads", default=c.size("linear_num_heads"))
        size = told.size("head_dim", default=c.size("linear_head_dim"))
        width = told.size("short_conv_kernel_size", default=c.size("linear_conv_kernel_dim"))
        gate = {} if told.flag("use_full_rank_gate") else {"gate_rank": size}
        parts["delta_net"] = DeltaNet(linear, heads, heads, size, size, width, decay_rank=size, **gate)
    if whole:
        latent = read_latent_attention(c, whole)["latent_attention"]
        gate = c.size("num_attention_heads") * c.size("v_head_dim")
        parts["latent_attention"] = latent.replace(output_gate=gate) if c.flag("mla_use_output_gate") else latent
    c.expect("moe_layer_freq", 1)
    first = c.size("first_k_dense_replace", default=1, least=0)
    sparse = layers - read_mlp_kinds(c, [i < first for i in range(layers)])
    shared = c.size("n_shared_experts", least=0)
    numbers: dict[str, Any] = {
        "shared_experts": shared,
        "shared_intermediate_size": c.size("moe_intermediate_size") if shared else 0,
    }
    if (narrow := c.size("routed_expert_hidden_size", default=0, least=0)) > 0:
        numbers["latent"] = LatentExperts(narrow, norm=float(c.flag("latent_moe_use_norm")))
    experts = read_moe(c, sparse, **numbers)
    mixed, extra = _attention_residuals(c, layers, hidden)
    return make_model(c, False, parts, read_ffn(c, layers - sparse), experts, mixed, **extra)


def _attention_residuals(c: Config, layers: int, hidden: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attention residuals: a norm and a scoring vector before attention, before the FFN, and before the head.

    Each reads the outputs of the blocks of layers that are complete, and the sum of the block that is not.
    """
    every = c.size("attn_res_block_size", default=0, least=0)
    if not every:
        return {}, {}
    before = [-(-i // every) + 1 for i in range(1, layers)]  # attention of the first layer has nothing to mix
    after = [i // every + 2 for i in range(layers)]
    places = 2 * layers + 1
    read = sum(before) + sum(after) + after[-1]
    part = ResidualStreams(places, read / places, 1, 1)
    return {"residual_streams": part}, {"final_norms": 1 + places, "other_parameters": places * hidden}


def _minimax(c: Config) -> Model:
    """MiniMax Text-01 and M1: lightning attention between softmax attention layers, experts in every layer."""
    layers, heads = c.size("num_hidden_layers"), c.size("num_attention_heads")
    kinds, marks = c.kinds("layer_types", allowed=(FULL, LINEAR)), c.marks("attn_type_list", layers)
    if c.known is not None:
        c.expect("attn_type_list")
        marks = [i % 2 == 0 for i in range(layers)]
    c.refuse(kinds is None and marks is None, f"no attn_type_list of {layers} layers")
    whole = kinds.count(FULL) if kinds is not None else sum(marks or [])
    c.refuse(c.get("sliding_window"), "sliding_window")
    c.refuse(c.get("shared_intermediate_size"), "shared_intermediate_size: a shared expert")
    c.refuse(
        c.get("head_dim") is None and c.size("hidden_size") % heads, "num_attention_heads does not divide hidden_size"
    )
    size = c.size("head_dim", default=c.size("hidden_size") // heads)
    lightning = {}
    if layers - whole:
        lightning["linear_attention"] = LinearAttention(layers - whole, heads, size, inner_norms=heads * size)
    experts = read_moe(c, intermediate_size=c.size("intermediate_size"))
    return make_model(c, False, read_attention(c, whole), lightning, experts)


def _bailing(c: Config) -> Model:
    """Ling 3: Kimi delta attention with decays of full rank between gated latent attention layers."""
    layers, heads = c.size("num_hidden_layers"), c.size("num_attention_heads")
    # A config that transformers has written has the head size of latent attention under head_dim.
    size = c.size("linear_head_dim", default=c.size("head_dim"))
    hidden, every = c.size("hidden_size"), c.size("layer_group_size")
    c.refuse(c.flag("tie_word_embeddings"), "tie_word_embeddings: its code has a head of its own")
    given = c.kinds("layer_types", allowed=(FULL, LINEAR))
    kinds = [FULL if (i + 1) % every == 0 else LINEAR for i in range(layers)] if given is None else given
    linear = kinds.count(LINEAR)
    parts: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    if linear:
        parts["delta_net"] = DeltaNet(linear, heads, heads, size, size, c.size("short_conv_kernel_size"))
        # A decay and its bias for each channel, where a delta net has one for each head.
        more = heads * size - heads
        extra = {"projections": (Projection(linear, hidden, more),), "other_parameters": linear * more}
    if layers - linear:
        latent = read_latent_attention(c, layers - linear)["latent_attention"]
        parts["latent_attention"] = latent.replace(output_gate=heads)
    first = c.size("first_k_dense_replace", least=0)
    sparse = layers - read_mlp_kinds(c, [i < first for i in range(layers)])
    shared = c.size("num_shared_experts", "n_shared_experts", least=0)
    numbers = {"shared_experts": shared, "shared_intermediate_size": c.size("moe_intermediate_size") if shared else 0}
    return make_model(c, False, parts, read_ffn(c, layers - sparse), read_moe(c, sparse, **numbers), **extra)


READERS = {
    "bailing_hybrid": _bailing,
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), _qwen_hybrid),
    "kimi_linear": _kimi_linear,
    **dict.fromkeys(("minimax", "minimax_text_01", "minimax_m1"), _minimax),
}
"""Reader of each of these architectures, by the config's `model_type`."""
