"""Parts of models that configs of many architectures describe with the same keys."""

from collections.abc import Sequence
from typing import Any

from genz_jax.catalog.hugging_face.config import Config, shown
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
    heads, hidden = c.size("num_attention_heads"), c.size("hidden_size")
    # Without a class of transformers there is no default to take.
    kv_heads = c.size("num_key_value_heads", default=None if c.known is None else heads)
    c.refuse(
        c.get("head_dim") is None and hidden % heads,
        f"hidden_size {hidden} is no multiple of num_attention_heads {heads}",
    )
    head_dim = c.size("head_dim", default=hidden // heads)
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


FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
LINEAR = "linear_attention"
"""Words for kinds of layers, the last for those with a state in place of keys and values."""


def attention_kinds(c: Config, derived: Sequence[bool], local: str = SLIDING) -> list[str]:
    """Kind of each layer: from `layer_types`, else local where `derived` says so."""
    layers = c.size("num_hidden_layers")
    kinds = [local if windowed else FULL for windowed in derived]
    given = c.kinds("layer_types", allowed=(FULL, local), count=layers)
    ignored = c.known is not None and "layer_types" not in c.known.keys and given not in (None, kinds)
    c.refuse(
        ignored, f"layer_types: {c.known.name if c.known else ''} has no such key, and {kinds.count(local)} windows"
    )
    return kinds if given is None else given


def read_windows(
    c: Config,
    derived: Sequence[bool] | None = None,
    *,
    every: int = 0,
    local: str = SLIDING,
    key: str = "sliding_window",
) -> dict[str, Any]:
    """How many layers are local and their window: from `layer_types`, else as derived.

    Args:
        c: the config.
        derived: whether each layer is local where there are no `layer_types`; by default all where there is a window,
            but for each `every`-th.
        every: 0 for all.
        local: word of a layer that is local.
        key: key of the window.

    Raises:
        ValueError: a layer is local and there is no window.
    """
    layers = c.size("num_hidden_layers")
    if derived is None and every:
        derived = [(i + 1) % every != 0 for i in range(layers)]
    derived = [c.get(key) is not None] * layers if derived is None else derived
    count = attention_kinds(c, derived, local).count(local)
    if not count:
        return {}
    c.refuse(c.get(key) is None, f"{key}: none, for {count} layers of {local} in layer_types")
    return {"local": count, "window": c.size(key)}


def no_windows(c: Config) -> None:
    """Refuse windows of layers under keys that the class does not know."""
    c.expect("use_sliding_window", False)
    if c.get("use_sliding_window", default=True) is not False:
        c.expect("sliding_window")
    c.expect("attention_chunk_size")
    if c.known is not None and "layer_types" not in c.known.keys:
        attention_kinds(c, [False] * c.size("num_hidden_layers"))


def read_latent_attention(c: Config, layers: int | None = None) -> dict[str, Any]:
    layers = c.size("num_hidden_layers") if layers is None else layers
    heads, bias = c.size("num_attention_heads"), c.flag("attention_bias")
    # Null is a full query projection; 0 would be a query of rank zero.
    q_rank, kv_rank = 0 if c.get("q_lora_rank") is None else c.size("q_lora_rank"), c.size("kv_lora_rank")
    rope = c.size("qk_rope_head_dim")
    biases = bias * (q_rank + kv_rank + rope + c.size("hidden_size"))
    index = None
    c.expect("index_topk")
    if c.get("index_topk") is not None:
        own = indexer_kinds(c, layers).count("full")
        index = Indexer(own, c.size("index_n_heads"), c.size("index_head_dim"), c.size("index_topk"))
    nope, value = c.size("qk_nope_head_dim"), c.size("v_head_dim")
    part = LatentAttention(layers, heads, q_rank, kv_rank, nope, rope, value, biases=biases, indexer=index)
    return {"latent_attention": part}


def indexer_kinds(c: Config, layers: int) -> list[str]:
    """Which layers have an indexer of their own and which share one: a list, a pattern of letters, or a schedule."""
    words = {"F": "full", "S": "shared"}
    if (kinds := c.kinds("indexer_types", allowed=words.values(), count=layers)) is not None:
        return kinds
    pattern = c.get("index_topk_pattern")
    if isinstance(pattern, str):
        wrong = sorted(set(pattern) - set(words))
        c.refuse(wrong or len(pattern) != layers, f"index_topk_pattern {shown(pattern)} of F and S for {layers} layers")
        return [words[letter] for letter in pattern]
    if pattern is not None:
        return c.kinds("index_topk_pattern", allowed=words.values(), count=layers) or []
    every, first = (
        c.size("index_topk_freq", default=1, least=0) or 1,
        c.size("index_skip_topk_offset", default=2, least=0),
    )
    return ["full" if max(i - first + 1, 0) % every == 0 else "shared" for i in range(layers)]


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
    values = numbers
    if "experts" not in values:
        values["experts"] = c.size("num_experts", "num_local_experts", "n_routed_experts")
    if "top_k" not in values:
        values["top_k"] = c.size("num_experts_per_tok", "top_k_experts", "num_experts_per_token")
    if "intermediate_size" not in values:
        values["intermediate_size"] = c.size("moe_intermediate_size", "intermediate_size")
    c.refuse(
        values["top_k"] > values["experts"], f"num_experts_per_tok: {values['top_k']} of {values['experts']} experts"
    )
    return {"moe": MoE(layers, **values)}


def count_sparse_layers(c: Config) -> int:
    """Layers with experts, by `decoder_sparse_step` and `mlp_only_layers`."""
    layers = c.size("num_hidden_layers")
    if c.size("num_experts", least=0) == 0:
        return 0
    step, dense = c.size("decoder_sparse_step", default=1), c.places("mlp_only_layers", layers) or set()
    return sum(i not in dense and (i + 1) % step == 0 for i in range(layers))


def read_mlp_kinds(c: Config, dense: Sequence[bool], words: tuple[str, str] = ("dense", "sparse")) -> int:
    """Layers without experts: from `mlp_layer_types`, else as the list says.

    Raises:
        ValueError: `mlp_layer_types` of a class that does not know it says something else.
    """
    derived = [words[0] if plain else words[1] for plain in dense]
    given = c.kinds("mlp_layer_types", allowed=words, count=len(dense))
    ignored = c.known is not None and "mlp_layer_types" not in c.known.keys and given not in (None, derived)
    c.refuse(ignored, f"mlp_layer_types: {c.known.name if c.known else ''} has no such key and other layers")
    return (derived if given is None else given).count(words[0])


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
    first, last = kinds[: len(kinds) - shared], kinds[len(kinds) - shared :]
    c.refuse(set(last) - set(first), f"num_kv_shared_layers {shared}: a kind of layer with no keys to share")
    return {kind: last.count(kind) for kind in sorted(set(kinds))}
