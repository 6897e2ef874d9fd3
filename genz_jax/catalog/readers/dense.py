"""Readers of dense transformers."""

from typing import Any

from genz_jax.catalog.hugging_face.config import Config, shown
from genz_jax.catalog.readers.parts import make_model, no_windows, read_attention, read_ffn, read_windows
from genz_jax.specs import FFN, Model


def _llama(c: Config) -> Model:
    no_windows(c)
    bias = c.flag("attention_bias")
    return make_model(c, False, read_attention(c, qkv_bias=bias, out_bias=bias), read_ffn(c, bias=c.flag("mlp_bias")))


def _mistral(c: Config) -> Model:
    c.expect("attention_bias", False)
    c.expect("mlp_bias", False)
    c.refuse(c.get("model_type") == "ministral" and c.get("head_dim") is None, "no head_dim")
    return make_model(c, False, read_attention(c, **read_windows(c)), read_ffn(c))


def _arcee(c: Config) -> Model:
    bias = c.flag("attention_bias")
    no_windows(c)
    ffn = read_ffn(c, gated=False, bias=c.flag("mlp_bias"))
    return make_model(c, False, read_attention(c, qkv_bias=bias, out_bias=bias), ffn)


def _smollm3(c: Config) -> Model:
    """SmolLM 3: windows, where they are used, in the layers without rotation."""
    layers, bias, every = c.size("num_hidden_layers"), c.flag("attention_bias"), c.size("no_rope_layer_interval")
    rotated = c.marks("no_rope_layers", layers) or [(i + 1) % every != 0 for i in range(layers)]
    used = c.flag("use_sliding_window") and c.get("sliding_window") is not None
    windows = read_windows(c, [used and not mark for mark in rotated])
    attention = read_attention(c, qkv_bias=bias, out_bias=bias, **windows)
    return make_model(c, True, attention, read_ffn(c, bias=c.flag("mlp_bias")))


def _seed_oss(c: Config) -> Model:
    no_windows(c)
    attention = read_attention(c, qkv_bias=c.flag("attention_bias"), out_bias=c.flag("attention_out_bias"))
    return make_model(c, False, attention, read_ffn(c, bias=c.flag("mlp_bias")))


def _apertus(c: Config) -> Model:
    """Apertus (arXiv 2509.14233): no gate, and the two slopes of xIELU in each layer."""
    bias = c.flag("attention_bias")
    no_windows(c)
    ffn = read_ffn(c, gated=False)["ffn"].replace(biases=2 * (c.get("hidden_act", default="xielu") == "xielu"))
    return make_model(c, False, read_attention(c, qkv_bias=bias, out_bias=bias, qk_norm="head"), {"ffn": ffn})


def _exaone4(c: Config) -> Model:
    """EXAONE 4.0 and 4.5 (arXiv 2507.11407): windows in all but every fourth layer, norms after the layers."""
    none = c.get("sliding_window") is None
    c.refuse(none and c.get("layer_types") is None, "sliding_window: none, and no layer_types")
    every = c.size("sliding_window_pattern", default=0, least=0)
    windows = read_windows(c, every=every) if every else read_windows(c)
    return make_model(c, False, read_attention(c, qk_norm="head", **windows), read_ffn(c))


def _ernie(c: Config) -> Model:
    bias = c.flag("use_bias")
    no_windows(c)
    return make_model(c, True, read_attention(c, qkv_bias=bias, out_bias=bias), read_ffn(c, bias=bias))


def _hunyuan(c: Config) -> Model:
    bias = c.flag("attention_bias")
    c.refuse(c.get("head_dim") is None, "no head_dim")
    no_windows(c)
    return make_model(c, False, read_attention(c, qkv_bias=bias, out_bias=bias, qk_norm="head"), read_ffn(c))


def _bloom(c: Config) -> Model:
    """BLOOM (arXiv 2211.05100): a norm after the embedding, biases everywhere, no learned positions."""
    if c.has("n_embed"):
        c = c.with_keys(hidden_size=c.size("n_embed"))
    c = c.with_keys(num_hidden_layers=c.size("num_hidden_layers", "n_layer"))
    c = c.with_keys(num_attention_heads=c.size("num_attention_heads", "n_head"))
    _one_head_size(c)
    c = c.with_keys(num_key_value_heads=c.size("num_attention_heads"))
    attention = read_attention(c, qkv_bias=True, out_bias=True, norms=2)
    ffn = read_ffn(c, size=4 * c.size("hidden_size"), gated=False, bias=True, norms=2)
    return make_model(c, True, attention, ffn, final_norms=4)


def _gptj(c: Config) -> Model:
    """GPT-J: attention and FFN beside each other after one norm, a bias on the head."""
    hidden, heads = c.size("n_embd", "hidden_size"), c.size("n_head", "num_attention_heads")
    c = c.with_keys(hidden_size=hidden, num_attention_heads=heads, num_hidden_layers=c.size("n_layer"))
    _one_head_size(c)
    c = c.with_keys(num_key_value_heads=heads)
    ffn = read_ffn(c, size=c.size("n_inner", default=4 * hidden), gated=False, bias=True, norms=0)
    return make_model(c, False, read_attention(c, norms=2), ffn, final_norms=2, head_biases=c.size("vocab_size"))


def _mllama(c: Config) -> Model:
    """Llama 3.2 Vision without images: the layers that attend to an image are held and skipped."""
    hidden, layers = c.size("hidden_size"), c.size("num_hidden_layers")
    c.refuse(c.flag("tie_word_embeddings"), "tie_word_embeddings: its embedding has rows that its head has not")
    default = [i for i in range(3, 39, 5) if i < layers] if c.get("cross_attention_layers") is None else None
    crossed = len(c.places("cross_attention_layers", layers) or default or [])
    c = c.with_keys(num_hidden_layers=layers - crossed)
    no_windows(c)
    heads, size = c.size("num_attention_heads"), hidden // c.size("num_attention_heads")
    attend = 2 * hidden * (heads + c.size("num_key_value_heads")) * size + 2 * size
    skipped = attend + 3 * hidden * c.size("intermediate_size") + 2 * hidden + 2
    # The embedding has eight entries for images that the head has not.
    other = crossed * skipped + 8 * hidden
    return make_model(c, False, read_attention(c), read_ffn(c), other_parameters=other)


def _last_windows(c: Config) -> dict[str, Any]:
    """Windows of Qwen 2 and 3: the layers from `max_window_layers` on, where windows are used."""
    used = c.flag("use_sliding_window")
    if not used:  # the window says nothing then
        c = c.with_keys(sliding_window=None)
    first, window = c.size("max_window_layers", least=0), c.get("sliding_window")
    return read_windows(c, [window is not None and i >= first for i in range(c.size("num_hidden_layers"))])


def _qwen2(c: Config) -> Model:
    return make_model(c, False, read_attention(c, qkv_bias=True, **_last_windows(c)), read_ffn(c))


def _qwen3(c: Config) -> Model:
    bias, window = c.flag("attention_bias"), {}
    if c.get("model_type") == "qwen3":
        window = _last_windows(c)
    else:
        no_windows(c)
    return make_model(c, False, read_attention(c, qkv_bias=bias, out_bias=bias, qk_norm="head", **window), read_ffn(c))


def _phi(c: Config) -> Model:
    c.refuse(c.flag("qk_layernorm"), "qk_layernorm")
    no_windows(c)
    return make_model(
        c,
        False,
        read_attention(c, qkv_bias=True, out_bias=True, norms=2),
        read_ffn(c, gated=False, bias=True, norms=0),
        final_norms=2,
        head_biases=c.size("vocab_size"),
    )


def _phi3(c: Config) -> Model:
    return make_model(c, False, read_attention(c, **read_windows(c)), read_ffn(c))


def _glm(c: Config) -> Model:
    norms = 2 if c.get("model_type") == "glm4" else 1
    no_windows(c)
    return make_model(
        c, False, read_attention(c, qkv_bias=c.flag("attention_bias"), norms=norms), read_ffn(c, norms=norms)
    )


def _falcon(c: Config) -> Model:
    heads, new = c.size("num_attention_heads", "n_head"), c.flag("new_decoder_architecture")
    kv_heads = c.size("num_kv_heads", default=heads) if new else 1 if c.flag("multi_query", True) else heads
    if c.has("n_embed"):
        c = c.with_keys(hidden_size=c.size("n_embed"))
    bias, hidden = c.flag("bias"), c.size("hidden_size")
    c.expect("num_key_value_heads", kv_heads)
    c.expect("head_dim", hidden // heads)
    c = c.with_keys(num_hidden_layers=c.size("num_hidden_layers", "n_layer"), num_key_value_heads=kv_heads)
    both = c.size("num_ln_in_parallel_attn", default=2 if new else 1) == 2
    norms = 2 if both or not c.flag("parallel_attn", True) else 0
    size = c.size("ffn_hidden_size", default=4 * hidden)
    attention = read_attention(c, qkv_bias=bias, out_bias=bias, norms=2)
    return make_model(c, True, attention, read_ffn(c, size=size, gated=False, bias=bias, norms=norms), final_norms=2)


def _opt(c: Config) -> Model:
    hidden, bias = c.size("hidden_size"), c.flag("enable_bias", True)
    _one_head_size(c)
    embedded = c.size("word_embed_proj_dim", default=hidden)
    c.refuse(embedded != hidden, f"word_embed_proj_dim {embedded} is not hidden_size {hidden}")
    norms = 2 if c.flag("layer_norm_elementwise_affine", True) else 0
    last = norms if c.flag("do_layer_norm_before", True) and not c.flag("_remove_final_layer_norm") else 0
    return make_model(
        c,
        True,
        read_attention(c, qkv_bias=bias, out_bias=bias, norms=norms),
        read_ffn(c, size=c.size("ffn_dim"), gated=False, bias=bias, norms=norms),
        final_norms=last,
        other_parameters=(c.size("max_position_embeddings") + 2) * hidden,
    )


def _gpt2(c: Config) -> Model:
    hidden, heads = c.size("n_embd", "hidden_size"), c.size("n_head", "num_attention_heads")
    c.refuse(c.flag("add_cross_attention"), "add_cross_attention")
    c.expect("head_dim", hidden // heads)
    kv_heads = 1 if c.get("model_type") == "gpt_bigcode" and c.flag("multi_query", True) else heads
    layers = c.size("n_layer", "num_hidden_layers")
    inner = c.size("n_inner", default=4 * hidden)
    positions = c.size("n_positions", "max_position_embeddings")
    c.expect("num_key_value_heads", kv_heads)
    c = c.with_keys(hidden_size=hidden, num_attention_heads=heads, num_hidden_layers=layers)
    c = c.with_keys(num_key_value_heads=kv_heads)
    return make_model(
        c,
        True,
        read_attention(c, qkv_bias=True, out_bias=True, norms=2),
        read_ffn(c, size=inner, gated=False, bias=True, norms=2),
        final_norms=2,
        other_parameters=positions * hidden,
    )


def _gpt_neox(c: Config) -> Model:
    bias = c.flag("attention_bias", True)
    _one_head_size(c)
    attention = read_attention(c, qkv_bias=bias, out_bias=bias, norms=2)
    return make_model(c, False, attention, read_ffn(c, gated=False, bias=True, norms=2), final_norms=2)


def _one_head_size(c: Config) -> None:
    """Refuse head sizes and key-value heads of their own, where the architecture has none."""
    heads = c.size("num_attention_heads")
    c.expect("num_key_value_heads", heads)
    c.expect("head_dim", c.size("hidden_size") // heads)


def _cohere(c: Config) -> Model:
    bias = c.flag("attention_bias")
    window = {}
    if c.get("model_type") == "cohere2":
        c.expect("use_qk_norm", False)
        window = read_windows(c, every=c.size("sliding_window_pattern", default=4))
    else:
        no_windows(c)
    norm = "all" if c.flag("use_qk_norm") else ""
    return make_model(
        c, True, read_attention(c, qkv_bias=bias, out_bias=bias, qk_norm=norm, **window), read_ffn(c, norms=0)
    )


def _olmo(c: Config) -> Model:
    bias = c.flag("attention_bias")
    no_windows(c)
    return make_model(
        c, False, read_attention(c, qkv_bias=bias, out_bias=bias, norms=0), read_ffn(c, norms=0), final_norms=0
    )


def _olmo2(c: Config) -> Model:
    bias = c.flag("attention_bias")
    window = {}
    if c.get("model_type") == "olmo3":
        window = read_windows(c, every=4)
    else:
        no_windows(c)
    return make_model(c, False, read_attention(c, qkv_bias=bias, out_bias=bias, qk_norm="all", **window), read_ffn(c))


def _nemotron(c: Config) -> Model:
    bias = c.flag("attention_bias")
    c.refuse(c.get("num_key_value_heads") is None, "no num_key_value_heads")
    no_windows(c)
    attention = read_attention(c, qkv_bias=bias, out_bias=bias, norms=2)
    return make_model(c, False, attention, read_ffn(c, gated=False, bias=c.flag("mlp_bias"), norms=2), final_norms=2)


def _nemotron_nas(c: Config) -> Model:
    """Nemotron-NAS (arXiv 2411.19146): blocks with or without attention, and inner sizes of their own."""
    hidden, heads = c.size("hidden_size"), c.size("num_attention_heads")
    blocks = c.get("block_configs")
    count = c.size("num_hidden_layers")
    c.refuse(not isinstance(blocks, list) or len(blocks) != count, f"no block_configs of {count} blocks")
    groups, sizes = [], []
    for i, block in enumerate(blocks):
        told = Config(c.where, {f"block_configs[{i}]": block}).part(f"block_configs[{i}]")
        attention, ffn = told.part("attention"), told.part("ffn")
        for part in (attention, ffn):
            part.refuse(part.get("replace_with_linear"), "replace_with_linear: a block that is one matrix")
            part.refuse(part.get("sparsify"), "sparsify: sparse weights")
        attention.refuse(
            attention.get("window_length") or attention.get("num_sink_tokens"),
            "window_length, num_sink_tokens: windows of single blocks",
        )
        if not attention.flag("no_op"):
            groups.append(attention.size("n_heads_in_group"))
        if not ffn.flag("no_op"):
            multiple = ffn.get("ffn_mult")
            number = isinstance(multiple, int | float) and not isinstance(multiple, bool)
            ffn.refuse(not number or not 0 < multiple < 1000, f"ffn_mult = {shown(multiple)}")
            # Two thirds of that multiple of the width, gated, rounded up to a multiple of 256.
            sizes.append(-(-int(2 * multiple * hidden / 3) // 256) * 256)
    c.refuse(not groups or not sizes, "block_configs: no block with attention, or none with an FFN")
    c.refuse(len(set(groups)) != 1 or heads % groups[0], "n_heads_in_group that differs or does not divide the heads")
    c = c.with_keys(num_key_value_heads=heads // groups[0])
    bias = c.flag("attention_bias")
    c.refuse(c.flag("mlp_bias"), "mlp_bias")
    parts = read_attention(c, len(groups), qkv_bias=bias, out_bias=bias)
    return make_model(c, False, parts, {"ffn": FFN(len(sizes), sum(sizes) / len(sizes))})


READERS = {
    **dict.fromkeys(("llama", "granite"), _llama),
    **dict.fromkeys(("mistral", "ministral", "ministral3"), _mistral),
    "arcee": _arcee,
    "smollm3": _smollm3,
    "seed_oss": _seed_oss,
    "apertus": _apertus,
    "exaone4": _exaone4,
    "ernie4_5": _ernie,
    "hunyuan_v1_dense": _hunyuan,
    "bloom": _bloom,
    "gptj": _gptj,
    "mllama_text_model": _mllama,
    **dict.fromkeys(("qwen2", "mimo", "qwen2_vl_text", "qwen2_5_vl_text"), _qwen2),
    **dict.fromkeys(("qwen3", "qwen3_vl_text"), _qwen3),
    "phi": _phi,
    "phi3": _phi3,
    **dict.fromkeys(("glm", "glm4"), _glm),
    "falcon": _falcon,
    "opt": _opt,
    **dict.fromkeys(("gpt2", "gpt_bigcode"), _gpt2),
    "gpt_neox": _gpt_neox,
    **dict.fromkeys(("cohere", "cohere2"), _cohere),
    "olmo": _olmo,
    **dict.fromkeys(("olmo2", "olmo3"), _olmo2),
    "nemotron": _nemotron,
    "nemotron-nas": _nemotron_nas,
}
"""Reader of each dense architecture, by the config's `model_type`."""
