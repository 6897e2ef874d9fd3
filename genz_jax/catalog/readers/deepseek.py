"""Readers of DeepSeek and of the models that follow its design: latent or compressed attention, shared experts."""

from genz_jax.catalog.hugging_face.config import Config, shown
from genz_jax.catalog.readers.parts import (
    FULL,
    make_model,
    no_windows,
    read_attention,
    read_ffn,
    read_latent_attention,
    read_mlp_kinds,
    read_moe,
)
from genz_jax.specs import CompressedAttention, Compressor, Indexer, Model, Projection, ResidualStreams


def _deepseek(c: Config) -> Model:
    """DeepSeek V1 to V3.2, Kimi K2 and GLM 4.5 to 5: dense layers first, then shared and routed experts."""
    layers = c.size("num_hidden_layers")
    lite = c.get("model_type") == "glm4_moe_lite"
    if not c.has("mlp_layer_types"):
        c.expect("moe_layer_freq", 1)  # the published code of the first DeepSeek reads it
        c.expect("first_k_dense_replace", 1)
    first = 1 if lite else c.size("first_k_dense_replace", default=0, least=0)
    every = c.size("moe_layer_freq", default=1)
    dense = read_mlp_kinds(c, [i < first or i % every != 0 for i in range(layers)])
    c.refuse(c.flag("mlp_bias") and c.get("model_type") == "deepseek_v2", "mlp_bias")
    no_windows(c)
    c.kinds("layer_types", allowed=("indexed_attention", "deepseek_sparse_attention", FULL))
    size, shared = c.size("moe_intermediate_size"), c.size("n_shared_experts", default=0, least=0)
    if c.get("kv_lora_rank") is not None:
        attention = read_latent_attention(c)
    else:
        bias, norm = c.flag("attention_bias"), "head" if c.flag("use_qk_norm") else ""
        attention = read_attention(c, qkv_bias=bias, out_bias=bias and c.get("model_type") == "deepseek", qk_norm=norm)
    experts = read_moe(c, layers - dense, shared_experts=shared, shared_intermediate_size=size if shared else 0)
    return make_model(c, False, attention, read_ffn(c, dense), experts)


_RATES = {0: "sliding_attention", 4: "compressed_sparse_attention", 128: "heavily_compressed_attention"}
"""Kind of a DeepSeek-V4 layer by the tokens that it joins to one entry."""


def _deepseek_v4(c: Config) -> Model:
    """DeepSeek V4: windows with compressed entries (CSA and HCA), hyper-connections, experts in every layer."""
    layers, hidden, heads, size = (
        c.size(key) for key in ("num_hidden_layers", "hidden_size", "num_attention_heads", "head_dim")
    )
    kinds = c.kinds("layer_types", allowed=tuple(_RATES.values()))
    if kinds is None:
        # Ratios of modules for multi-token prediction come after those of the layers.
        ratios = c.get("compress_ratios", default=[*[128] * min(layers, 2), *[128, 4] * layers][:layers])
        c.refuse(not isinstance(ratios, list) or len(ratios) < layers, f"no compress_ratios of {layers} layers")
        unknown = [rate for rate in ratios if type(rate) is not int or rate not in _RATES]
        c.refuse(unknown, f"compress_ratios {shown(unknown)} other than {', '.join(map(str, _RATES))}")
        kinds = [_RATES[rate] for rate in ratios[:layers]]
    c.kinds("mlp_layer_types", allowed=("hash_moe", "moe"))
    groups = c.size("o_groups")
    c.refuse(heads * size % groups, f"o_groups {groups} does not divide {heads} heads of {size}")
    c.refuse(c.flag("mlp_bias"), "mlp_bias")
    c.refuse(c.size("num_key_value_heads", default=1) != 1, "num_key_value_heads: more than one key-value head")
    c.refuse(c.flag("attention_bias"), "attention_bias")
    told = c.part("compress_rates") if c.get("compress_rates") is not None else Config(c.where, {})
    old = {4: "compress_rate_csa", 128: "compress_rate_hca"}
    rates = {rate: c.size(old[rate], default=told.size(_RATES[rate], default=rate)) for rate in (4, 128)}
    sparse, heavy = (kinds.count(_RATES[rate]) for rate in (4, 128))
    compressors = {}
    if sparse:
        index = Indexer(sparse, c.size("index_n_heads"), c.size("index_head_dim"), c.size("index_topk"))
        compressors["sparse"] = Compressor(sparse, rates[4], 2, indexer=index)
    if heavy:
        compressors["heavy"] = Compressor(heavy, rates[128], 1)
    attention = CompressedAttention(
        layers,
        heads,
        size,
        c.size("q_lora_rank"),
        c.size("sliding_window"),
        c.size("o_groups"),
        c.size("o_lora_rank"),
        biases=heads,
        **compressors,
    )
    inner = c.size("moe_intermediate_size")
    c.refuse(c.size("n_shared_experts") != 1, "n_shared_experts: its code has one, whatever the config says")
    experts = read_moe(c, shared_experts=1, shared_intermediate_size=inner)
    # Two hyper-connections a layer: n streams of the width to weights of reading, writing and mixing them.
    streams = c.size("hc_mult")
    weights = streams * (streams + 2)
    mixed = {"residual_streams": ResidualStreams(2 * layers, streams, streams)}
    return make_model(
        c,
        False,
        {"compressed_attention": attention},
        experts,
        mixed,
        projections=(Projection(2 * layers, streams * hidden, weights), Projection(1, streams * hidden, streams)),
        other_parameters=2 * layers * (weights + 3) + streams + 1,
    )


def _longcat(c: Config) -> Model:
    """LongCat-Flash (arXiv 2509.01322): two latent attentions and two dense FFNs a layer, experts beside them.

    Of the experts that a token takes some do nothing. With even routing k·E/(E + Z) of E real and Z idle ones work.
    """
    layers, hidden, idle = c.size("num_layers"), c.size("hidden_size"), c.size("zero_expert_num", default=0, least=0)
    experts, taken = c.size("n_routed_experts", "num_local_experts"), c.size("moe_topk", "num_experts_per_tok")
    top_k, rest = divmod(taken * experts, experts + idle)
    c.refuse(rest, f"moe_topk {taken} of {experts} experts and {idle} idle ones: no whole number of experts works")
    c = c.with_keys(num_hidden_layers=layers)
    attention = read_latent_attention(c, 2 * layers)
    dense = read_ffn(c, 2 * layers, size=c.size("ffn_hidden_size", "intermediate_size"))
    numbers = {"experts": experts, "top_k": top_k, "router_biases": idle * hidden, "norms": 0}
    size = c.size("expert_ffn_hidden_size", "moe_intermediate_size")
    return make_model(c, False, attention, dense, read_moe(c, layers, intermediate_size=size, **numbers))


READERS = {
    "longcat_flash": _longcat,
    **dict.fromkeys(
        (
            "deepseek",
            "deepseek_v2",
            "deepseek_v3",
            "deepseek_v32",
            "kimi_k2",
            "glm4_moe",
            "glm4_moe_lite",
            "glm_moe_dsa",
        ),
        _deepseek,
    ),
    **dict.fromkeys(("deepseek_v4", "deepseek_ref"), _deepseek_v4),
}
"""Reader of each of these architectures, by the config's `model_type`."""
