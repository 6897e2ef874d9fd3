"""Readers of mixtures of experts with full, windowed or sparse attention."""

from typing import Any

from genz_jax.catalog.hugging_face.config import Config, refusal, shown
from genz_jax.catalog.readers.parts import (
    CHUNKED,
    FULL,
    SLIDING,
    attention_kinds,
    count_sparse_layers,
    make_model,
    no_windows,
    read_attention,
    read_ffn,
    read_mlp_kinds,
    read_moe,
    read_windows,
)
from genz_jax.specs import Attention, Indexer, LocalAttention, Model, SparseAttention


def _mixtral(c: Config) -> Model:
    window = read_windows(c)
    return make_model(c, False, read_attention(c, **window), read_moe(c, intermediate_size=c.size("intermediate_size")))


def _qwen_moe(c: Config) -> Model:
    sparse, kind = count_sparse_layers(c), c.get("model_type", default="")
    second = kind.startswith("qwen2")
    bias = c.flag("qkv_bias", True) if second else c.flag("attention_bias")
    shared = {}
    if second:
        size = c.size("shared_expert_intermediate_size")
        shared = {"shared_experts": 1, "shared_intermediate_size": size, "shared_gate": 1}
    attention = read_attention(
        c, qkv_bias=bias, out_bias=bias and not second, qk_norm="" if second else "head", **_qwen_windows(c)
    )
    layers = c.size("num_hidden_layers")
    dense = layers - sparse
    return make_model(c, False, attention, read_ffn(c, dense) if dense else {}, read_moe(c, sparse, **shared))


def _qwen_windows(c: Config) -> dict[str, Any]:
    """Windows where they are used: of every other of the first layers in Qwen 2, of all layers in Qwen 3."""
    kind, layers = c.get("model_type"), c.size("num_hidden_layers")
    if kind not in ("qwen2_moe", "qwen3_moe"):
        no_windows(c)
        return {}
    used = c.flag("use_sliding_window")
    if not used:  # the window says nothing then
        c = c.with_keys(sliding_window=None)
    if kind == "qwen3_moe":
        return read_windows(c)
    last = c.size("max_window_layers", least=0)
    return read_windows(c, [used and i % 2 == 0 and i < last for i in range(layers)])


def _gpt_oss(c: Config) -> Model:
    bias, size = c.flag("attention_bias", True), c.size("intermediate_size")
    experts = c.size("num_local_experts", "num_experts")
    return make_model(
        c,
        False,
        read_attention(c, qkv_bias=bias, out_bias=bias, sinks=True, **read_windows(c, every=2)),
        read_moe(c, intermediate_size=size, biases=2 * size + c.size("hidden_size"), router_biases=experts),
    )


def _minimax_m2(c: Config) -> Model:
    c.expect("use_qk_norm", True)
    no_windows(c)
    return make_model(
        c, False, read_attention(c, qk_norm="all"), read_moe(c, intermediate_size=c.size("intermediate_size"))
    )


def _phimoe(c: Config) -> Model:
    bias, head = c.flag("attention_bias"), c.flag("lm_head_bias")
    return make_model(
        c,
        False,
        read_attention(c, qkv_bias=bias, out_bias=bias, norms=2, **read_windows(c)),
        read_moe(c, intermediate_size=c.size("intermediate_size"), norms=2),
        final_norms=2,
        head_biases=c.size("vocab_size") * head,
    )


def _olmoe(c: Config) -> Model:
    bias = c.flag("attention_bias")
    no_windows(c)
    return make_model(c, False, read_attention(c, qkv_bias=bias, out_bias=bias, qk_norm="all"), read_moe(c))


def _granitemoe(c: Config) -> Model:
    bias = c.flag("attention_bias")
    c.expect("shared_intermediate_size", 0)
    no_windows(c)
    size = c.size("shared_intermediate_size", default=0, least=0)
    shared = {"shared_experts": 1 if size else 0, "shared_intermediate_size": size}
    experts = read_moe(c, intermediate_size=c.size("intermediate_size"), **shared)
    return make_model(c, False, read_attention(c, qkv_bias=bias, out_bias=bias), experts)


def _dbrx(c: Config) -> Model:
    attention, ffn = (
        c.part(key) if c.has(key) else Config(f"{c.where}, {key}", {}) for key in ("attn_config", "ffn_config")
    )
    c.refuse(c.flag("tie_word_embeddings"), "tie_word_embeddings")
    c = c.with_keys(num_key_value_heads=attention.size("kv_n_heads", default=1))
    # Defaults of DbrxAttentionConfig and DbrxFFNConfig.
    numbers = {
        "experts": ffn.size("moe_num_experts", default=4),
        "top_k": ffn.size("moe_top_k", default=1),
        "intermediate_size": ffn.size("ffn_hidden_size", default=3584),
    }
    return make_model(c, False, read_attention(c), read_moe(c, **numbers))


def _grok(c: Config) -> Model:
    size = c.size("intermediate_size")
    return make_model(c, True, read_attention(c, norms=2), read_moe(c, intermediate_size=size, norms=2))


def _llama4(c: Config) -> Model:
    layers, bias = c.size("num_hidden_layers"), c.flag("attention_bias")
    sparse = c.places("moe_layers", layers)
    if sparse is None:
        step = c.size("interleave_moe_layer_step")
        sparse = set(range(step - 1, layers, step))
    size = c.size("intermediate_size")
    dense = layers - len(sparse)
    turned, every = c.get("no_rope_layers"), c.size("no_rope_layer_interval")
    marks = c.marks("no_rope_layers", layers) if turned else None  # an empty list is none
    rotated = [(i + 1) % every != 0 for i in range(layers)] if marks is None else marks
    chunked = c.get("attention_chunk_size") is not None
    windows = read_windows(c, [mark and chunked for mark in rotated], local=CHUNKED, key="attention_chunk_size")
    return make_model(
        c,
        False,
        read_attention(c, qkv_bias=bias, out_bias=bias, **windows),
        read_ffn(c, dense, size=c.size("intermediate_size_mlp")) if dense else {},
        read_moe(c, len(sparse), intermediate_size=size, shared_experts=1, shared_intermediate_size=size),
    )


def _mimo_v2(c: Config) -> Model:
    """MiMo V2: windowed layers with heads of their own and sinks, values narrower than keys, a dense first layer."""
    layers, bias = c.size("num_hidden_layers"), c.flag("attention_bias")
    local = _patterned(
        c, "hybrid_layer_pattern", attention_kinds(c, [i > 0 and (i + 1) % 6 != 0 for i in range(layers)])
    )
    # Its engine counts the tokens before the query only.
    window = c.size("sliding_window") if c.get("sliding_window_size") is None else c.size("sliding_window_size") + 1

    kv_heads, parts = c.size("num_key_value_heads"), {}
    for key in ("num_attention_heads", "head_dim", "v_head_dim"):
        c.expect(f"swa_{key}", c.size(key))
    c.expect("swa_num_key_value_heads", 2 * kv_heads)

    def sizes(kv_heads: int, sinks: bool) -> dict[str, Any]:
        heads, size, value = c.size("num_attention_heads"), c.size("head_dim"), c.size("v_head_dim")
        biases = bias * ((heads + kv_heads) * size + kv_heads * value) + sinks * heads
        return {"heads": heads, "kv_heads": kv_heads, "head_dim": size, "v_head_dim": value, "biases": biases}

    if layers - local:
        told = sizes(kv_heads, c.flag("add_full_attention_sink_bias"))
        parts["attention"] = Attention(layers - local, **told)
    if local:
        told = sizes(2 * kv_heads, c.flag("add_swa_attention_sink_bias", True))
        parts["local_attention"] = LocalAttention(local, window=window, **told)
    words = ("dense", "sparse")
    kinds = c.kinds("mlp_layer_types", allowed=words) or ["dense", *["sparse"] * (layers - 1)]
    sparse = _patterned(c, "moe_layer_freq", kinds, "sparse")
    c.refuse(c.get("n_shared_experts"), "n_shared_experts")
    return make_model(c, False, parts, read_ffn(c, layers - sparse), read_moe(c, sparse))


def _mimo_v2_flash(c: Config) -> Model:
    """MiMo V2 Flash, whose class has sinks in the windowed layers and no others, whatever the keys say."""
    c.expect("add_full_attention_sink_bias", False)
    c.expect("add_swa_attention_sink_bias", True)
    return _mimo_v2(c)


def _patterned(c: Config, key: str, kinds: list[str], word: str = SLIDING) -> int:
    """How many layers are of a kind, which an older key must not contradict."""
    marks = c.marks(key, len(kinds))
    same = marks is None or marks == [kind == word for kind in kinds]
    c.refuse(not same, f"{key} is not the pattern of {c.known.name if c.known else 'the layers'}: give layer types")
    return kinds.count(word)


def _step3(c: Config) -> Model:
    """Step 3.5 and 3.7: windowed layers with more heads, a gate per head, dense layers first, a shared expert."""
    layers, modules = c.size("num_hidden_layers"), c.size("num_nextn_predict_layers", default=0, least=0)
    for key in ("layer_types", "mlp_layer_types"):
        given = c.get(key)
        if isinstance(given, list) and len(given) == layers + modules:
            c = c.with_keys(**{key: given[:layers]})  # the rest is of the modules for multi-token prediction
    kinds = attention_kinds(c, [False] * layers)
    kv_heads, size = c.size("num_key_value_heads", "num_attention_groups"), c.size("head_dim")
    heads, none = c.size("num_attention_heads"), c.get("attention_other_setting") is None
    other = Config(c.where, {}) if none else c.part("attention_other_setting")
    wide = c.size("num_sliding_attention_heads", default=other.size("num_attention_heads", default=heads))
    c.refuse(c.flag("attention_bias") or c.flag("mlp_bias"), "attention_bias, mlp_bias: biases")
    c.refuse(
        other.get("num_attention_groups", default=kv_heads) != kv_heads,
        "attention_other_setting, num_attention_groups: key-value heads that differ",
    )
    c.refuse(other.get("head_dim", default=size) != size, "attention_other_setting, head_dim: head sizes that differ")
    parts: dict[str, Any] = {}
    local = kinds.count("sliding_attention")
    if layers - local:
        parts["attention"] = Attention(layers - local, heads, kv_heads, size, qk_norms=2 * size, output_gate=heads)
    if local:
        window = c.size("sliding_window")
        parts["local_attention"] = LocalAttention(
            local, wide, kv_heads, size, window=window, qk_norms=2 * size, output_gate=wide
        )
    sparse = _listed_experts(c, layers)
    experts = read_moe(
        c,
        sparse,
        experts=c.size("moe_num_experts", "n_routed_experts", "num_experts"),
        top_k=c.size("moe_top_k", "num_experts_per_tok"),
        shared_experts=1,
        shared_intermediate_size=c.size("share_expert_dim", "share_expert_dims"),
    )
    model = make_model(c, False, parts, read_ffn(c, layers - sparse), experts)
    # Its modules for multi-token prediction come after the layers that the patterns name: windowed and dense.
    return model.replace(mtp_dense=1, mtp_local=float(local > 0))


def _listed_experts(c: Config, layers: int) -> int:
    """Layers with experts, from a list of words, a list or text of their places, or all but the first few."""
    if (kinds := c.kinds("mlp_layer_types", allowed=("dense", "sparse"))) is not None:
        return kinds.count("sparse")
    if (places := c.get("moe_layers_enum")) is not None:
        words = places.split(",") if isinstance(places, str) else places
        try:
            return len({int(str(word)) for word in words if str(word).strip()} & set(range(layers)))
        except (TypeError, ValueError):
            raise refusal(c.where, f"moe_layers_enum = {shown(places)}: must list the places of layers") from None
    c.expect("first_k_dense_replace", 3)
    return layers - min(3, layers)


def _minimax_m3(c: Config) -> Model:
    """MiniMax M3: dense layers first, then experts and attention to the blocks of keys that an indexer selects."""
    layers, size = c.size("num_hidden_layers"), c.size("head_dim")
    told = c.part("sparse_attention_config") if c.has("sparse_attention_config") else Config(c.where, {})
    kinds = c.kinds("layer_types", allowed=(FULL, "minimax_m3_sparse"))
    if kinds is None:
        marks = told.marks("sparse_attention_freq", layers) or [False] * layers
        values = told.marks("sparse_disable_index_value", layers) or marks
        c.refuse(
            any(mark and not off for mark, off in zip(marks, values, strict=True)),
            "sparse_disable_index_value: an indexer with values",
        )
        kinds = ["minimax_m3_sparse" if mark else FULL for mark in marks]
    c.refuse(c.flag("attention_output_gate"), "attention_output_gate")
    c.refuse(
        c.get("qk_norm_type", default="per_head") != "per_head",
        "qk_norm_type: norms of queries and keys over all heads",
    )
    selective = kinds.count("minimax_m3_sparse")
    whole = read_attention(c, layers - selective, qk_norm="head")
    numbers = (c.size("num_attention_heads"), c.size("num_key_value_heads"), size)
    if selective:
        block = told.size("sparse_block_size", default=c.size("index_block_size"))
        index = Indexer(
            selective,
            told.size("sparse_num_index_heads", default=c.size("index_n_heads")),
            told.size("sparse_index_dim", default=c.size("index_head_dim")),
            told.size("sparse_topk_blocks", default=c.size("index_topk_blocks")) * block,
            block_size=block,
            head_weights=0,
        )
        whole["sparse_attention"] = SparseAttention(selective, *numbers, qk_norms=2 * size, indexer=index)
    marks = c.marks("moe_layer_freq", layers) or [True] * layers
    sparse = layers - read_mlp_kinds(c, [not mark for mark in marks])
    # The class has one shared expert, whatever this key says.
    c.refuse(c.size("n_shared_experts", default=1, least=0) != 1, "n_shared_experts: other than one")
    experts = read_moe(c, sparse, shared_experts=1, shared_intermediate_size=c.size("shared_intermediate_size"))
    dense = read_ffn(c, layers - sparse, size=c.size("dense_intermediate_size")) if layers - sparse else {}
    return make_model(c, False, whole, dense, experts)


READERS = {
    "mixtral": _mixtral,
    **dict.fromkeys(("qwen2_moe", "qwen3_moe", "qwen3_vl_moe_text"), _qwen_moe),
    "gpt_oss": _gpt_oss,
    "minimax_m2": _minimax_m2,
    **dict.fromkeys(("minimax_m3", "minimax_m3_vl", "minimax_m3_vl_text"), _minimax_m3),
    "phimoe": _phimoe,
    "olmoe": _olmoe,
    **dict.fromkeys(("granitemoe", "granitemoeshared"), _granitemoe),
    "dbrx": _dbrx,
    **dict.fromkeys(("grok", "grok-1"), _grok),
    "llama4_text": _llama4,
    "mimo_v2": _mimo_v2,
    "mimo_v2_flash": _mimo_v2_flash,
    **dict.fromkeys(("step3p5", "step3p7"), _step3),
}
"""Reader of each mixture of experts, by the config's `model_type`."""
