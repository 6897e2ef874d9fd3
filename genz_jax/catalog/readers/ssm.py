"""Readers of state space models and their hybrids with attention."""

from typing import Any

from genz_jax.catalog.config import Config
from genz_jax.catalog.readers.parts import make_model, read_attention, read_ffn, read_moe
from genz_jax.specs import FFN, SSD, SSM, Attention, LatentExperts, Model, Projection


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
    return make_model(c, True, _ssm(c, c.size("num_hidden_layers"), inner))


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
    return make_model(c, False, part)


def _jamba(c: Config) -> Model:
    layers = c.size("num_hidden_layers")
    period, offset = c.size("attn_layer_period"), c.size("attn_layer_offset", least=0)
    whole = sum(i % period == offset for i in range(layers))
    period, offset = c.size("expert_layer_period"), c.size("expert_layer_offset", least=0)
    sparse = sum(i % period == offset for i in range(layers)) if c.size("num_experts") > 1 else 0
    inner = int(c.get("mamba_expand", default=2) * c.size("hidden_size"))
    return make_model(
        c,
        False,
        read_attention(c, whole),
        _ssm(c, layers - whole, inner, "mamba_", norms=1),
        read_ffn(c, layers - sparse),
        read_moe(c, sparse, intermediate_size=c.size("intermediate_size")) if sparse else {},
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
    attention = read_attention(c, whole, qkv_bias=bias, out_bias=bias)
    return make_model(c, False, attention, _hybrid_ssd(c, layers - whole), read_ffn(c, bias=c.flag("mlp_bias")))


def _granite_hybrid(c: Config) -> Model:
    layers, bias = c.size("num_hidden_layers"), c.flag("attention_bias")
    kinds = c.kinds("layer_types", "layers_block_type")
    c.refuse(kinds is None, "no layer_types")
    whole = sum(kind in _WHOLE for kind in kinds or [])
    size = c.size("shared_intermediate_size")
    attention = read_attention(c, whole, qkv_bias=bias, out_bias=bias)
    if c.size("num_local_experts", default=0, least=0):
        numbers = {"intermediate_size": c.size("intermediate_size"), "shared_intermediate_size": size}
        ffn = read_moe(c, shared_experts=1, **numbers)
    else:
        ffn = read_ffn(c, size=size)
    return make_model(c, False, attention, _hybrid_ssd(c, layers - whole), ffn)


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
        experts = read_moe(
            c,
            count["moe"],
            intermediate_size=c.size("moe_intermediate_size"),
            in_projections=1,
            shared_experts=c.size("n_shared_experts", default=1),
            shared_intermediate_size=c.size("moe_shared_expert_intermediate_size"),
            latent=LatentExperts(narrow) if (narrow := c.size("moe_latent_size", default=0, least=0)) else None,
        )
    dense = read_ffn(c, count["mlp"], gated=False, bias=bias) if count["mlp"] else {}
    attention = read_attention(c, count["attention"]) if count["attention"] else {}
    return make_model(c, False, attention, ssd, dense, experts)


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
    after = (Projection(shared, hidden, hidden),)
    return make_model(c, True, parts, _ssm(c, layers, inner, "mamba_"), projections=after)


def _zamba2(c: Config) -> Model:
    """Zamba 2: Mamba-2 layers, and transformer blocks that take turns, with adapters for each place they stand in."""
    layers, hidden, heads = c.size("num_hidden_layers"), c.size("hidden_size"), c.size("num_attention_heads")
    kinds = c.kinds("layers_block_type", "layer_types")
    c.refuse(kinds is None, "no layers_block_type")
    places = (kinds or []).count("hybrid")
    c.refuse(c.flag("add_bias_linear"), "add_bias_linear")
    width, rank = 2 * hidden, c.size("adapter_rank", default=128)
    inner = c.size("intermediate_size", default=4 * hidden)
    kv_heads = c.size("num_key_value_heads", default=heads)
    ties = {"tied_layers": max(places - c.size("num_mem_blocks", default=1), 0)}
    after = [Projection(places, hidden, hidden), Projection(places, hidden, rank), Projection(places, rank, 2 * inner)]
    if c.flag("use_shared_attention_adapter"):
        after += [Projection(3 * places, width, rank), Projection(3 * places, rank, width)]
    mamba_heads = c.size("n_mamba_heads")
    ssd = _ssd(
        c,
        layers,
        heads=mamba_heads,
        head_dim=int(c.get("mamba_expand", default=2) * hidden) // mamba_heads,
        state=c.size("mamba_d_state"),
        groups=c.size("mamba_ngroups"),
        width=c.size("mamba_d_conv"),
        conv=c.flag("use_conv_bias", True),
        bias=False,
    )
    parts = {
        "attention": Attention(places, heads, kv_heads, width // heads, input_size=width, **ties),
        "ffn": FFN(places, inner, 2, **ties),
    }
    return make_model(c, True, parts if places else {}, ssd, projections=tuple(after) if places else ())


READERS = {
    **dict.fromkeys(("mamba", "falcon_mamba"), _mamba),
    "mamba2": _mamba2,
    "jamba": _jamba,
    "bamba": _bamba,
    "granitemoehybrid": _granite_hybrid,
    "nemotron_h": _nemotron_h,
    "zamba": _zamba,
    "zamba2": _zamba2,
}
"""Reader of each of these architectures, by the config's `model_type`."""
