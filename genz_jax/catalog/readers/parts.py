"""Parts of models that configs of many architectures describe with the same keys."""

from typing import Any

from genz_jax.catalog.config import Config
from genz_jax.specs import FFN, Attention, Indexer, LatentAttention, LocalAttention, Model, MoE


def read_attention(
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


def read_windows(c: Config, *, every: int = 0) -> dict[str, Any]:
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


def read_latent_attention(c: Config, layers: int | None = None) -> dict[str, Any]:
    layers = c.size("num_hidden_layers") if layers is None else layers
    heads, bias = c.size("num_attention_heads"), c.flag("attention_bias")
    q_rank, kv_rank = c.size("q_lora_rank", default=0, least=0), c.size("kv_lora_rank")
    rope = c.size("qk_rope_head_dim")
    biases = bias * (q_rank + kv_rank + rope + c.size("hidden_size"))
    index = None
    if c.get("index_topk") is not None:
        types = c.kinds("indexer_types")
        own = layers if types is None else types.count("full")
        index = Indexer(own, c.size("index_n_heads"), c.size("index_head_dim"), c.size("index_topk"))
    nope, value = c.size("qk_nope_head_dim"), c.size("v_head_dim")
    part = LatentAttention(layers, heads, q_rank, kv_rank, nope, rope, value, biases=biases, indexer=index)
    return {"latent_attention": part}


def read_ffn(
    c: Config, layers: int | None = None, *, size: int | None = None, gated: bool = True, bias: bool = False, norms=1
) -> dict[str, Any]:
    layers = c.size("num_hidden_layers") if layers is None else layers
    if not layers:
        return {}
    size = c.size("intermediate_size") if size is None else size
    biases = bias * (size * (1 + gated) + c.size("hidden_size"))
    return {"ffn": FFN(layers, size, 1 + gated, norms=norms, biases=biases)}


def read_moe(c: Config, layers: int | None = None, **numbers: Any) -> dict[str, Any]:
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


def count_sparse_layers(c: Config) -> int:
    """Layers with experts, by `decoder_sparse_step` and `mlp_only_layers`."""
    step, dense = c.size("decoder_sparse_step", default=1), c.get("mlp_only_layers", default=[])
    return sum(i not in dense and (i + 1) % step == 0 for i in range(c.size("num_hidden_layers")))


def make_model(c: Config, tied: bool, *parts: dict[str, Any], **numbers: Any) -> Model:
    joined = {name: part for group in parts for name, part in group.items()}
    return Model(
        hidden_size=c.size("hidden_size"),
        layers=c.size("num_hidden_layers"),
        vocab_size=c.size("vocab_size"),
        tied_embeddings=float(c.flag("tie_word_embeddings", tied)),
        **joined,
        **numbers,
    )


def kv_sharing(c: Config, kinds: list[str]) -> dict[str, int]:
    """How many layers of each kind read the keys and values of another: the last `num_kv_shared_layers`."""
    shared = c.size("num_kv_shared_layers", default=0, least=0)
    c.refuse(shared >= len(kinds), f"num_kv_shared_layers {shared} of {len(kinds)} layers")
    last = kinds[len(kinds) - shared :]
    return {kind: last.count(kind) for kind in sorted(set(kinds))}


def first_or_listed(c: Config, key: str, word: str) -> int:
    """Layers that a list of 0 and 1, or of words, marks with 1 or the word; all layers where there is no list."""
    layers, given = c.size("num_hidden_layers"), c.get(key)
    if given is None:
        return layers
    c.refuse(not isinstance(given, list) or len(given) != layers, f"{key} is no list of {layers} marks")
    return sum(mark in (1, word) for mark in given)
