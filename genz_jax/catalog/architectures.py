"""Architectures: from the keys of a Hugging Face config to the parts of a model, one reader each, none that guesses."""

from collections.abc import Callable
from typing import Any

from genz_jax.catalog.config import Config
from genz_jax.specs import FFN, SSD, SSM, Attention, DeltaNet, LatentAttention, LocalAttention, Model, MoE

# ------------------------------------------------------------------------------------------------ parts of models


def _attention(
    c: Config,
    layers: int | None = None,
    *,
    qkv_bias: bool = False,
    out_bias: bool = False,
    qk_norm: str = "",
    norms: int = 1,
    sinks: bool = False,
    gated: bool = False,
    local: int = 0,
    window: int = 0,
) -> dict[str, Any]:
    """Attention parts of a model, global and local; `qk_norm` is over the "head", over "all" heads, or ""."""
    layers = c.size("num_hidden_layers") if layers is None else layers
    heads = c.size("num_attention_heads")
    kv_heads = c.size("num_key_value_heads", default=heads)
    hidden = c.size("hidden_size")
    if (given := c.get("head_dim")) is None:
        c.refuse(hidden % heads, f"hidden_size {hidden} is no multiple of num_attention_heads {heads}")
        given = hidden // heads
    head_dim = c.size("head_dim", default=given)
    c.refuse(heads % kv_heads, f"num_key_value_heads {kv_heads} does not divide num_attention_heads {heads}")
    biases = (heads + 2 * kv_heads) * head_dim * qkv_bias + hidden * out_bias + heads * sinks
    gate = heads * head_dim if gated else 0
    biases += gate * qkv_bias
    numbers = {
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "norms": norms,
        "qk_norms": {"": 0, "head": 2 * head_dim, "all": (heads + kv_heads) * head_dim}[qk_norm],
        "biases": biases,
        "output_gate": gate,
    }
    parts: dict[str, Any] = {}
    if layers - local:
        parts["attention"] = Attention(layers - local, **numbers)
    if local:
        parts["local_attention"] = LocalAttention(local, window=window, **numbers)
    return parts


def _windows(c: Config, *, every: int = 0) -> dict[str, Any]:
    """How many layers are local and their window: from `layer_types`, else every layer but each `every`-th."""
    layers = c.size("num_hidden_layers")
    kinds = c.kinds("layer_types")
    window = c.get("sliding_window", "attention_chunk_size")
    if kinds is not None:
        local = sum(kind in ("sliding_attention", "chunked_attention") for kind in kinds)
    else:
        local = layers if every == 0 else layers - layers // every
    if not window or not local:
        return {}
    return {"local": local, "window": c.size("sliding_window", "attention_chunk_size")}


def _latent_attention(c: Config) -> dict[str, Any]:
    layers, heads, bias = c.size("num_hidden_layers"), c.size("num_attention_heads"), c.flag("attention_bias")
    q_rank, kv_rank = c.size("q_lora_rank", default=0, least=0), c.size("kv_lora_rank")
    rope = c.size("qk_rope_head_dim")
    biases = bias * (q_rank + kv_rank + rope + c.size("hidden_size"))
    indexer = {}
    if c.get("index_topk") is not None:
        types = c.kinds("indexer_types")
        indexer = {
            "index_heads": c.size("index_n_heads"),
            "index_head_dim": c.size("index_head_dim"),
            "index_top_k": c.size("index_topk"),
            "index_layers": layers if types is None else types.count("full"),
        }
    part = LatentAttention(
        layers,
        heads,
        q_rank,
        kv_rank,
        c.size("qk_nope_head_dim"),
        rope,
        c.size("v_head_dim"),
        biases=biases,
        **indexer,
    )
    return {"latent_attention": part}


def _ffn(
    c: Config, layers: int | None = None, *, size: int | None = None, gated: bool = True, bias: bool = False, norms=1
) -> dict[str, Any]:
    layers = c.size("num_hidden_layers") if layers is None else layers
    if not layers:
        return {}
    size = c.size("intermediate_size") if size is None else size
    biases = bias * (size * (1 + gated) + c.size("hidden_size"))
    return {"ffn": FFN(layers, size, 1 + gated, norms=norms, biases=biases)}


def _moe(c: Config, layers: int | None = None, **numbers: Any) -> dict[str, Any]:
    layers = c.size("num_hidden_layers") if layers is None else layers
    if not layers:
        return {}
    values: dict[str, Any] = {
        "experts": c.size("num_experts", "num_local_experts", "n_routed_experts"),
        "top_k": c.size("num_experts_per_tok", "top_k_experts", "num_experts_per_token"),
        **numbers,
    }
    if "intermediate_size" not in values:
        values["intermediate_size"] = c.size("moe_intermediate_size", "intermediate_size")
    c.refuse(values["top_k"] > values["experts"], f"{values['top_k']} of {values['experts']} experts for each token")
    return {"moe": MoE(layers, **values)}


def _sparse_layers(c: Config) -> int:
    """Layers with experts, by `decoder_sparse_step` and `mlp_only_layers`."""
    step, dense = c.size("decoder_sparse_step", default=1), c.get("mlp_only_layers", default=[])
    return sum(i not in dense and (i + 1) % step == 0 for i in range(c.size("num_hidden_layers")))


def _model(c: Config, tied: bool, *parts: dict[str, Any], **numbers: Any) -> Model:
    joined = {name: part for group in parts for name, part in group.items()}
    return Model(
        hidden_size=c.size("hidden_size"),
        layers=c.size("num_hidden_layers"),
        vocab_size=c.size("vocab_size"),
        tied_embeddings=float(c.flag("tie_word_embeddings", tied)),
        **joined,
        **numbers,
    )


# ---------------------------------------------------------------------------------------------- dense transformers


def _llama(c: Config) -> Model:
    bias = c.flag("attention_bias")
    window = _windows(c) if c.get("sliding_window") else {}
    return _model(c, False, _attention(c, qkv_bias=bias, out_bias=bias, **window), _ffn(c, bias=c.flag("mlp_bias")))


def _qwen2(c: Config) -> Model:
    window = _windows(c, every=0) if c.flag("use_sliding_window") else {}
    return _model(c, False, _attention(c, qkv_bias=True, **window), _ffn(c))


def _qwen3(c: Config) -> Model:
    bias = c.flag("attention_bias")
    window = _windows(c) if c.flag("use_sliding_window") else {}
    return _model(c, False, _attention(c, qkv_bias=bias, out_bias=bias, qk_norm="head", **window), _ffn(c))


def _gemma(c: Config) -> Model:
    bias = c.flag("attention_bias")
    return _model(c, True, _attention(c, qkv_bias=bias, out_bias=bias), _ffn(c))


def _gemma2(c: Config) -> Model:
    bias = c.flag("attention_bias")
    return _model(
        c, True, _attention(c, qkv_bias=bias, out_bias=bias, norms=2, **_windows(c, every=2)), _ffn(c, norms=2)
    )


def _gemma3(c: Config) -> Model:
    bias, every = c.flag("attention_bias"), c.size("sliding_window_pattern", "_sliding_window_pattern", default=6)
    attention = _attention(c, qkv_bias=bias, out_bias=bias, qk_norm="head", norms=2, **_windows(c, every=every))
    return _model(c, True, attention, _ffn(c, norms=2))


def _gemma4(c: Config) -> Model:
    c.refuse(c.get("num_kv_shared_layers"), "num_kv_shared_layers: layers that share keys and values")
    c.refuse(c.get("hidden_size_per_layer_input"), "hidden_size_per_layer_input: embeddings of every layer")
    bias, layers = c.flag("attention_bias"), c.size("num_hidden_layers")
    kinds = c.kinds("layer_types") or []
    c = _global_heads(c, kinds)
    whole = kinds.count("full_attention") if kinds else layers // 6
    hidden, heads = c.size("hidden_size"), c.size("num_attention_heads")
    parts = _attention(
        c, qkv_bias=bias, out_bias=bias, qk_norm="head", norms=2, local=layers - whole, window=c.size("sliding_window")
    )
    if whole:
        size = c.size("global_head_dim", "head_dim")
        same = c.flag("attention_k_eq_v")
        kv_heads = c.size(*(("num_global_key_value_heads",) if same else ()), "num_key_value_heads")
        biases = bias * ((heads + (1 if same else 2) * kv_heads) * size + hidden)
        parts["attention"] = Attention(
            whole, heads, kv_heads, size, value_projection=float(not same), norms=2, qk_norms=2 * size, biases=biases
        )
    experts = {}
    if c.flag("enable_moe_block"):
        experts = _moe(c, norms=3, router_biases=hidden + c.size("num_experts"))
    return _model(c, True, parts, _ffn(c, norms=2), experts)


def _global_heads(c: Config, kinds: list[str]) -> Config:
    """The config with the sizes of the global layers under their own keys, where it has them layer by layer."""
    given = c.get("per_layer_config")
    if not given:
        return c
    told = {int(i): values for i, values in given.items()}
    whole = {i for i, kind in enumerate(kinds) if kind == "full_attention"}
    first = next(iter(told.values()))
    same = set(told) == whole and all(values == first for values in told.values())
    c.refuse(not same or set(first) - {"head_dim", "num_key_value_heads"}, "per_layer_config of layers of one kind")
    heads = first.get("num_key_value_heads", c.get("num_key_value_heads"))
    return c.with_keys(global_head_dim=first.get("head_dim", c.get("head_dim")), num_global_key_value_heads=heads)


def _phi(c: Config) -> Model:
    c.refuse(c.flag("qk_layernorm"), "qk_layernorm")
    return _model(
        c,
        False,
        _attention(c, qkv_bias=True, out_bias=True, norms=2),
        _ffn(c, gated=False, bias=True, norms=0),
        final_norms=2,
        head_biases=c.size("vocab_size"),
    )


def _phi3(c: Config) -> Model:
    window = _windows(c) if c.get("sliding_window") else {}
    return _model(c, False, _attention(c, **window), _ffn(c))


def _glm(c: Config) -> Model:
    norms = 2 if c.get("model_type") == "glm4" else 1
    return _model(c, False, _attention(c, qkv_bias=c.flag("attention_bias"), norms=norms), _ffn(c, norms=norms))


def _falcon(c: Config) -> Model:
    heads, new = c.size("num_attention_heads", "n_head"), c.flag("new_decoder_architecture")
    kv_heads = c.size("num_kv_heads", default=heads) if new else 1 if c.flag("multi_query", True) else heads
    c = c.with_keys(num_attention_heads=heads, num_hidden_layers=c.size("num_hidden_layers", "n_layer"))
    c = c.with_keys(num_key_value_heads=kv_heads)
    bias, hidden = c.flag("bias"), c.size("hidden_size")
    norms = 0 if not new and c.flag("parallel_attn", True) else 2
    if new and c.get("num_ln_in_parallel_attn") == 1:
        norms = 0
    size = c.size("ffn_hidden_size", default=4 * hidden)
    attention = _attention(c, qkv_bias=bias, out_bias=bias, norms=2)
    return _model(c, True, attention, _ffn(c, size=size, gated=False, bias=bias, norms=norms), final_norms=2)


def _opt(c: Config) -> Model:
    hidden, bias = c.size("hidden_size"), c.flag("enable_bias", True)
    embedded = c.size("word_embed_proj_dim", default=hidden)
    c.refuse(embedded != hidden, f"word_embed_proj_dim {embedded} is not hidden_size {hidden}")
    norms = 2 if c.flag("layer_norm_elementwise_affine", True) else 0
    last = norms if c.flag("do_layer_norm_before", True) and not c.flag("_remove_final_layer_norm") else 0
    return _model(
        c,
        True,
        _attention(c, qkv_bias=bias, out_bias=bias, norms=norms),
        _ffn(c, size=c.size("ffn_dim"), gated=False, bias=bias, norms=norms),
        final_norms=last,
        other_parameters=(c.size("max_position_embeddings") + 2) * hidden,
    )


def _gpt2(c: Config) -> Model:
    hidden, heads = c.size("n_embd", "hidden_size"), c.size("n_head", "num_attention_heads")
    kv_heads = 1 if c.get("model_type") == "gpt_bigcode" and c.flag("multi_query", True) else heads
    layers = c.size("n_layer", "num_hidden_layers")
    inner = c.size("n_inner", default=4 * hidden)
    positions = c.size("n_positions", "max_position_embeddings")
    c = c.with_keys(hidden_size=hidden, num_attention_heads=heads, num_hidden_layers=layers)
    c = c.with_keys(num_key_value_heads=kv_heads)
    return _model(
        c,
        True,
        _attention(c, qkv_bias=True, out_bias=True, norms=2),
        _ffn(c, size=inner, gated=False, bias=True, norms=2),
        final_norms=2,
        other_parameters=positions * hidden,
    )


def _gpt_neox(c: Config) -> Model:
    bias = c.flag("attention_bias", True)
    attention = _attention(c, qkv_bias=bias, out_bias=bias, norms=2)
    return _model(c, False, attention, _ffn(c, gated=False, bias=True, norms=2), final_norms=2)


def _cohere(c: Config) -> Model:
    bias = c.flag("attention_bias")
    window = _windows(c, every=4) if c.get("model_type") == "cohere2" else {}
    norm = "all" if c.flag("use_qk_norm") else ""
    return _model(c, True, _attention(c, qkv_bias=bias, out_bias=bias, qk_norm=norm, **window), _ffn(c, norms=0))


def _olmo(c: Config) -> Model:
    bias = c.flag("attention_bias")
    return _model(c, False, _attention(c, qkv_bias=bias, out_bias=bias, norms=0), _ffn(c, norms=0), final_norms=0)


def _olmo2(c: Config) -> Model:
    bias = c.flag("attention_bias")
    window = _windows(c, every=4) if c.get("model_type") == "olmo3" else {}
    return _model(c, False, _attention(c, qkv_bias=bias, out_bias=bias, qk_norm="all", **window), _ffn(c))


def _nemotron(c: Config) -> Model:
    bias = c.flag("attention_bias")
    attention = _attention(c, qkv_bias=bias, out_bias=bias, norms=2)
    return _model(c, False, attention, _ffn(c, gated=False, bias=c.flag("mlp_bias"), norms=2), final_norms=2)


# -------------------------------------------------------------------------------------------- mixtures of experts


def _mixtral(c: Config) -> Model:
    window = _windows(c) if c.get("sliding_window") else {}
    return _model(c, False, _attention(c, **window), _moe(c, intermediate_size=c.size("intermediate_size")))


def _qwen_moe(c: Config) -> Model:
    sparse, kind = _sparse_layers(c), c.get("model_type", default="")
    second = kind.startswith("qwen2")
    bias = c.flag("qkv_bias", True) if second else c.flag("attention_bias")
    shared = {}
    if second:
        size = c.size("shared_expert_intermediate_size")
        shared = {"shared_experts": 1, "shared_intermediate_size": size, "shared_gate": 1}
    attention = _attention(c, qkv_bias=bias, out_bias=bias and not second, qk_norm="" if second else "head")
    dense = c.size("num_hidden_layers") - sparse
    return _model(c, False, attention, _ffn(c, dense) if dense else {}, _moe(c, sparse, **shared))


def _qwen_hybrid(c: Config) -> Model:
    """Qwen 3-Next and 3.5: gated delta net layers between gated attention layers."""
    layers, bias = c.size("num_hidden_layers"), c.flag("attention_bias")
    kinds = c.kinds("layer_types")
    whole = layers // c.size("full_attention_interval", default=4) if kinds is None else kinds.count("full_attention")
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
    attention = _attention(
        c, whole, qkv_bias=bias, out_bias=bias, qk_norm="head", gated=c.flag("attn_output_gate", True)
    )
    if c.get("num_experts") is None:
        return _model(c, False, attention, delta, _ffn(c))
    sparse = _sparse_layers(c)
    size = c.size("shared_expert_intermediate_size")
    experts = _moe(c, sparse, shared_experts=1, shared_intermediate_size=size, shared_gate=1)
    return _model(c, False, attention, delta, _ffn(c, layers - sparse) if layers - sparse else {}, experts)


def _deepseek(c: Config) -> Model:
    """DeepSeek V1 to V3.2, Kimi K2 and GLM 4.5 to 5: dense layers first, then shared and routed experts."""
    layers = c.size("num_hidden_layers")
    kinds = c.kinds("mlp_layer_types")
    dense = c.size("first_k_dense_replace", default=0, least=0) if kinds is None else kinds.count("dense")
    every = c.size("moe_layer_freq", default=1)
    if kinds is None:
        dense = sum(i < dense or i % every != 0 for i in range(layers))
    size, shared = c.size("moe_intermediate_size"), c.size("n_shared_experts", default=0, least=0)
    if c.get("kv_lora_rank") is not None:
        attention = _latent_attention(c)
    else:
        bias, norm = c.flag("attention_bias"), "head" if c.flag("use_qk_norm") else ""
        attention = _attention(c, qkv_bias=bias, out_bias=bias and c.get("model_type") == "deepseek", qk_norm=norm)
    experts = _moe(c, layers - dense, shared_experts=shared, shared_intermediate_size=size if shared else 0)
    return _model(c, False, attention, _ffn(c, dense), experts)


def _gpt_oss(c: Config) -> Model:
    bias, size = c.flag("attention_bias", True), c.size("intermediate_size")
    experts = c.size("num_local_experts", "num_experts")
    return _model(
        c,
        False,
        _attention(c, qkv_bias=bias, out_bias=bias, sinks=True, **_windows(c, every=2)),
        _moe(c, intermediate_size=size, biases=2 * size + c.size("hidden_size"), router_biases=experts),
    )


def _minimax_m2(c: Config) -> Model:
    norm = "all" if c.flag("use_qk_norm", True) else ""
    return _model(c, False, _attention(c, qk_norm=norm), _moe(c, intermediate_size=c.size("intermediate_size")))


def _phimoe(c: Config) -> Model:
    bias, head = c.flag("attention_bias"), c.flag("lm_head_bias")
    return _model(
        c,
        False,
        _attention(c, qkv_bias=bias, out_bias=bias, norms=2, **(_windows(c) if c.get("sliding_window") else {})),
        _moe(c, intermediate_size=c.size("intermediate_size"), norms=2),
        final_norms=2,
        head_biases=c.size("vocab_size") * head,
    )


def _olmoe(c: Config) -> Model:
    bias = c.flag("attention_bias")
    return _model(c, False, _attention(c, qkv_bias=bias, out_bias=bias, qk_norm="all"), _moe(c))


def _granitemoe(c: Config) -> Model:
    bias = c.flag("attention_bias")
    size = c.size("shared_intermediate_size", default=0, least=0)
    shared = {"shared_experts": 1 if size else 0, "shared_intermediate_size": size}
    experts = _moe(c, intermediate_size=c.size("intermediate_size"), **shared)
    return _model(c, False, _attention(c, qkv_bias=bias, out_bias=bias), experts)


def _dbrx(c: Config) -> Model:
    attention, ffn = c.part("attn_config"), c.part("ffn_config")
    c = c.with_keys(hidden_size=c.size("d_model"), num_attention_heads=c.size("n_heads"))
    c = c.with_keys(num_hidden_layers=c.size("n_layers"), num_key_value_heads=attention.size("kv_n_heads", default=1))
    c = c.with_keys(num_experts=ffn.size("moe_num_experts"), num_experts_per_tok=ffn.size("moe_top_k"))
    return _model(c, False, _attention(c), _moe(c, intermediate_size=ffn.size("ffn_hidden_size")))


def _grok(c: Config) -> Model:
    size = c.size("intermediate_size")
    return _model(c, True, _attention(c, norms=2), _moe(c, intermediate_size=size, norms=2))


def _llama4(c: Config) -> Model:
    layers, bias = c.size("num_hidden_layers"), c.flag("attention_bias")
    sparse = c.get("moe_layers")
    if sparse is None:
        step = c.size("interleave_moe_layer_step", default=1)
        sparse = list(range(step - 1, layers, step))
    size = c.size("intermediate_size")
    dense = layers - len(sparse)
    windows = _windows(c, every=4)
    return _model(
        c,
        False,
        _attention(c, qkv_bias=bias, out_bias=bias, **windows),
        _ffn(c, dense, size=c.size("intermediate_size_mlp")) if dense else {},
        _moe(c, len(sparse), intermediate_size=size, shared_experts=1, shared_intermediate_size=size),
    )


# ------------------------------------------------------------------------------------------- state space and hybrid


def _ssm(c: Config, layers: int, inner: int, prefix: str = "", norms: int = 0) -> dict[str, Any]:
    """Mamba-1 layers; the keys of hybrids begin with `mamba_`."""
    if not layers:
        return {}
    hidden, state = c.size("hidden_size"), c.size(f"{prefix}d_state", "state_size")
    width = c.size(f"{prefix}d_conv", "conv_kernel")
    given = c.get(f"{prefix}dt_rank", "time_step_rank", default="auto")
    rank = -(-hidden // 16) if given == "auto" else c.size(f"{prefix}dt_rank", "time_step_rank")
    bias = c.flag(f"{prefix}conv_bias", c.flag("use_conv_bias", True))
    projections = c.flag(f"{prefix}proj_bias", c.flag("use_bias"))
    biases = inner * bias + inner + projections * (2 * inner + hidden)
    inner_norms = rank + 2 * state if norms else 0
    return {"ssm": SSM(layers, inner, state, width, rank, inner_norms=inner_norms, biases=biases)}


def _ssd(
    c: Config, layers: int, *, heads: int, head_dim: int, state: int, groups: int, width: int, conv: bool, bias: bool
) -> dict[str, Any]:
    """Mamba-2 layers, with the gated norm of all inner channels."""
    if not layers:
        return {}
    inner, hidden = heads * head_dim, c.size("hidden_size")
    channels = inner + 2 * groups * state
    biases = conv * channels + bias * (inner + channels + heads + hidden)
    return {"ssd": SSD(layers, heads, head_dim, state, groups, width, inner_norms=inner, biases=biases)}


def _mamba(c: Config) -> Model:
    hidden = c.size("hidden_size", "d_model")
    c = c.with_keys(hidden_size=hidden, num_hidden_layers=c.size("num_hidden_layers", "n_layer"))
    inner = c.size("intermediate_size", default=int(c.get("expand", default=2) * hidden))
    return _model(c, True, _ssm(c, c.size("num_hidden_layers"), inner))


def _mamba2(c: Config) -> Model:
    part = _ssd(
        c,
        c.size("num_hidden_layers"),
        heads=c.size("num_heads"),
        head_dim=c.size("head_dim"),
        state=c.size("state_size"),
        groups=c.size("n_groups"),
        width=c.size("conv_kernel"),
        conv=c.flag("use_conv_bias", True),
        bias=c.flag("use_bias"),
    )
    return _model(c, False, part)


def _jamba(c: Config) -> Model:
    layers = c.size("num_hidden_layers")
    period, offset = c.size("attn_layer_period"), c.size("attn_layer_offset", least=0)
    whole = sum(i % period == offset for i in range(layers))
    period, offset = c.size("expert_layer_period"), c.size("expert_layer_offset", least=0)
    sparse = sum(i % period == offset for i in range(layers)) if c.size("num_experts") > 1 else 0
    inner = int(c.get("mamba_expand", default=2) * c.size("hidden_size"))
    return _model(
        c,
        False,
        _attention(c, whole),
        _ssm(c, layers - whole, inner, "mamba_", norms=1),
        _ffn(c, layers - sparse),
        _moe(c, sparse, intermediate_size=c.size("intermediate_size")) if sparse else {},
    )


_WHOLE = ("attention", "full_attention")
"""Words of `layer_types` for layers with attention to the whole context."""


def _hybrid_ssd(c: Config, layers: int) -> dict[str, Any]:
    return _ssd(
        c,
        layers,
        heads=c.size("mamba_n_heads"),
        head_dim=_mamba_head_dim(c),
        state=c.size("mamba_d_state"),
        groups=c.size("mamba_n_groups"),
        width=c.size("mamba_d_conv"),
        conv=c.flag("mamba_conv_bias", True),
        bias=c.flag("mamba_proj_bias"),
    )


def _mamba_head_dim(c: Config) -> int:
    if isinstance(given := c.get("mamba_d_head", default="auto"), int):
        return given
    return int(c.get("mamba_expand", default=2) * c.size("hidden_size")) // c.size("mamba_n_heads")


def _bamba(c: Config) -> Model:
    layers, bias = c.size("num_hidden_layers"), c.flag("attention_bias")
    kinds = c.kinds("layer_types", "layers_block_type")
    whole = len(c.get("attn_layer_indices", default=[]))
    if kinds is not None:
        whole = sum(kind in _WHOLE for kind in kinds)
    attention = _attention(c, whole, qkv_bias=bias, out_bias=bias)
    return _model(c, False, attention, _hybrid_ssd(c, layers - whole), _ffn(c, bias=c.flag("mlp_bias")))


def _granite_hybrid(c: Config) -> Model:
    layers, bias = c.size("num_hidden_layers"), c.flag("attention_bias")
    kinds = c.kinds("layer_types", "layers_block_type")
    c.refuse(kinds is None, "no layer_types")
    whole = sum(kind in _WHOLE for kind in kinds or [])
    size = c.size("shared_intermediate_size")
    attention = _attention(c, whole, qkv_bias=bias, out_bias=bias)
    if c.size("num_local_experts", default=0, least=0):
        numbers = {"intermediate_size": c.size("intermediate_size"), "shared_intermediate_size": size}
        ffn = _moe(c, shared_experts=1, **numbers)
    else:
        ffn = _ffn(c, size=size)
    return _model(c, False, attention, _hybrid_ssd(c, layers - whole), ffn)


def _nemotron_h(c: Config) -> Model:
    words = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
    pattern = c.get("hybrid_override_pattern")
    given = c.kinds("layers_block_type") if pattern is None else [words.get(letter, letter) for letter in str(pattern)]
    c.refuse(not given, "no hybrid_override_pattern")
    synonyms = {"linear_attention": "mamba", "full_attention": "attention"}
    kinds = [synonyms.get(kind, kind) for kind in given or []]
    count = {word: kinds.count(word) for word in words.values()}
    c.refuse(sum(count.values()) != len(kinds), f"kinds of layers other than {', '.join(words.values())}")
    c = c.with_keys(num_hidden_layers=len(kinds))
    bias = c.flag("mlp_bias")
    c.refuse(bias and count["moe"], "mlp_bias with experts")
    ssd = _ssd(
        c,
        count["mamba"],
        heads=c.size("mamba_num_heads"),
        head_dim=c.size("mamba_head_dim"),
        state=c.size("ssm_state_size"),
        groups=c.size("n_groups"),
        width=c.size("conv_kernel"),
        conv=c.flag("use_conv_bias", True),
        bias=c.flag("use_bias"),
    )
    experts = {}
    if count["moe"]:
        experts = _moe(
            c,
            count["moe"],
            intermediate_size=c.size("moe_intermediate_size"),
            in_projections=1,
            shared_experts=c.size("n_shared_experts", default=1),
            shared_intermediate_size=c.size("moe_shared_expert_intermediate_size"),
            latent_size=c.size("moe_latent_size", default=0, least=0),
        )
    dense = _ffn(c, count["mlp"], gated=False, bias=bias) if count["mlp"] else {}
    attention = _attention(c, count["attention"]) if count["attention"] else {}
    return _model(c, False, attention, ssd, dense, experts)


def _zamba(c: Config) -> Model:
    """Zamba 1: Mamba-1 layers and one transformer block whose weights all its places share."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    period, offset = c.size("attn_layer_period"), c.size("attn_layer_offset", least=0)
    kinds = c.kinds("layers_block_type", "layer_types")
    shared = kinds.count("hybrid") if kinds else sum(i % period == offset for i in range(layers))
    heads, width = c.size("num_attention_heads"), c.size("attention_hidden_size", default=2 * hidden)
    size = c.size("attention_head_dim", default=width // heads)
    inner = int(c.get("mamba_expand", default=2) * hidden)
    ties = {"tied_layers": max(shared - 1, 0)}
    attention = Attention(shared, heads, c.size("num_key_value_heads", default=heads), size, input_size=width, **ties)
    ffn = FFN(shared, c.size("intermediate_size"), 2, **ties)
    parts = {"attention": attention, "ffn": ffn}
    return _model(c, True, parts, _ssm(c, layers, inner, "mamba_"), other_parameters=shared * hidden * hidden)


READERS: dict[str, Callable[[Config], Model]] = {
    **dict.fromkeys(("llama", "mistral", "ministral", "granite"), _llama),
    **dict.fromkeys(("qwen2", "mimo", "qwen2_vl_text", "qwen2_5_vl_text"), _qwen2),
    **dict.fromkeys(("qwen3", "qwen3_vl_text"), _qwen3),
    **dict.fromkeys(("qwen2_moe", "qwen3_moe", "qwen3_vl_moe_text"), _qwen_moe),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), _qwen_hybrid),
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "gemma4_text": _gemma4,
    "phi": _phi,
    "phi3": _phi3,
    "phimoe": _phimoe,
    **dict.fromkeys(("glm", "glm4"), _glm),
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
    "falcon": _falcon,
    "opt": _opt,
    **dict.fromkeys(("gpt2", "gpt_bigcode"), _gpt2),
    "gpt_neox": _gpt_neox,
    **dict.fromkeys(("cohere", "cohere2"), _cohere),
    "olmo": _olmo,
    **dict.fromkeys(("olmo2", "olmo3"), _olmo2),
    "olmoe": _olmoe,
    "nemotron": _nemotron,
    "mixtral": _mixtral,
    "gpt_oss": _gpt_oss,
    "minimax_m2": _minimax_m2,
    "dbrx": _dbrx,
    **dict.fromkeys(("grok", "grok-1"), _grok),
    "llama4_text": _llama4,
    **dict.fromkeys(("granitemoe", "granitemoeshared"), _granitemoe),
    "granitemoehybrid": _granite_hybrid,
    **dict.fromkeys(("mamba", "falcon_mamba"), _mamba),
    "mamba2": _mamba2,
    "jamba": _jamba,
    "bamba": _bamba,
    "nemotron_h": _nemotron_h,
    "zamba": _zamba,
}
"""Reader of each architecture, by the config's `model_type`."""
