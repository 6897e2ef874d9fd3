"""Readers of mixtures of experts with full attention in which every token also takes shared experts."""

from typing import Any

from genz_jax.catalog.hugging_face.config import Config, shown
from genz_jax.catalog.readers.parts import make_model, no_windows, read_attention, read_ffn, read_moe, read_windows
from genz_jax.specs import Model


def _dots1(c: Config) -> Model:
    """dots.llm1 (arXiv 2506.05767): dense layers first, windows of the layers from `max_window_layers` on."""
    layers, bias = c.size("num_hidden_layers"), c.flag("attention_bias")
    first, window = c.size("max_window_layers", least=0), c.get("sliding_window")
    windows = read_windows(c, [window is not None and i >= first for i in range(layers)])
    attention = read_attention(c, qkv_bias=bias, out_bias=bias, qk_norm="head", **windows)
    dense = min(c.size("first_k_dense_replace", default=0, least=0), layers)
    return make_model(c, False, attention, read_ffn(c, dense), _experts(c, layers - dense, "n_shared_experts"))


def _experts(c: Config, layers: int, shared: str, **numbers: Any) -> dict[str, Any]:
    """Experts, and as many as the key says for all tokens, of the same size."""
    if not layers:
        return {}
    count = c.size(shared, least=0)
    size = c.size("moe_intermediate_size") if count else 0
    return read_moe(c, layers, shared_experts=count, shared_intermediate_size=size, **numbers)


def _ernie_moe(c: Config) -> Model:
    """ERNIE 4.5: experts in every `moe_layer_interval`-th layer from a first to a last one."""
    layers = c.size("num_hidden_layers")
    c.refuse(c.flag("use_bias"), "use_bias: experts with biases")
    no_windows(c)
    first, every = c.size("moe_layer_start_index", least=0), c.size("moe_layer_interval")
    last = c.get("moe_layer_end_index", default=-1)
    wrong = type(last) is not int or last < -1
    c.refuse(wrong, f"moe_layer_end_index = {shown(last)}: no layer")
    last = layers - 1 if last == -1 else last
    sparse = sum((i + 1) % every == 0 and first <= i <= last for i in range(layers))
    experts = c.size("moe_num_experts", "num_experts")
    numbers = {"experts": experts, "top_k": c.size("moe_k", "num_experts_per_tok"), "router_biases": experts}
    moe = _experts(c, sparse, "moe_num_shared_experts", **numbers)
    return make_model(c, True, read_attention(c), read_ffn(c, layers - sparse), moe)


def _hunyuan_moe(c: Config) -> Model:
    """Hunyuan A13B: one shared expert as large as each of the others."""
    bias, size = c.flag("attention_bias"), c.size("intermediate_size")
    c.refuse(c.get("head_dim") is None, "no head_dim")
    no_windows(c)
    numbers = {key: _same(c, *names) for key, *names in (("experts", "num_experts"), ("top_k", "moe_topk"))}
    moe = read_moe(c, intermediate_size=size, shared_experts=1, shared_intermediate_size=size, **numbers)
    return make_model(c, False, read_attention(c, qkv_bias=bias, out_bias=bias, qk_norm="head"), moe)


def _same(c: Config, key: str) -> int:
    """A whole number that a config may have as a list, once for each layer."""
    value = c.get(key)
    if isinstance(value, list):
        c.refuse(len(set(map(str, value))) != 1, f"{key}: numbers that differ between layers")
        c = c.with_keys(**{key: value[0]})
    return c.size(key)


def _afmoe(c: Config) -> Model:
    """AFMoE (Trinity): gated attention, windows in all but every n-th layer, norms before and after, dense first."""
    layers, bias = c.size("num_hidden_layers"), c.flag("attention_bias")
    windows = read_windows(c, every=c.size("global_attn_every_n_layers"))
    attention = read_attention(c, out_bias=bias, qk_norm="head", norms=2, gated=True, **windows)
    if bias:  # the gate has none
        more = (c.size("num_attention_heads") + 2 * c.size("num_key_value_heads")) * c.size("head_dim")
        attention = {name: part.replace(biases=float(part.biases) + more) for name, part in attention.items()}
    dense = min(c.size("num_dense_layers", least=0), layers)
    moe = _experts(c, layers - dense, "num_shared_experts", norms=2, router_biases=c.size("num_experts"))
    return make_model(c, False, attention, read_ffn(c, dense, norms=2), moe)


READERS = {"dots1": _dots1, "ernie4_5_moe": _ernie_moe, "hunyuan_v1_moe": _hunyuan_moe, "afmoe": _afmoe}
"""Reader of each of these architectures, by the config's `model_type`."""
