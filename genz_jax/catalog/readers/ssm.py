"""Readers of state space models and their hybrids with attention."""

from typing import Any

from genz_jax.catalog.hugging_face.config import Config, shown
from genz_jax.catalog.readers.parts import FULL, LINEAR, make_model, no_windows, read_attention, read_ffn, read_moe
from genz_jax.specs import FFN, SSD, SSM, Attention, LatentExperts, Model, Projection, ShortConvolution


def _ssm(c: Config, layers: int, inner: int, prefix: str = "", norms: int = 0) -> dict[str, Any]:
    """Mamba-1 layers; the keys of hybrids begin with `mamba_`."""
    if not layers:
        return {}
    hidden, state = c.size("hidden_size"), c.size(f"{prefix}d_state", "state_size")
    width = c.size(f"{prefix}d_conv", "conv_kernel")
    key = f"{prefix}dt_rank" if prefix else "time_step_rank"
    rank = -(-hidden // 16) if c.get(key) == "auto" else c.size(key)
    bias = c.flag(f"{prefix}conv_bias" if prefix else "use_conv_bias")
    projections = c.flag(f"{prefix}proj_bias" if prefix else "use_bias")
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
    inner = c.size("intermediate_size", default=c.size("expand") * c.size("hidden_size", "d_model"))
    return make_model(c, True, _ssm(c, c.size("num_hidden_layers", "n_layer"), inner))


def _mamba2(c: Config) -> Model:
    heads, size = c.size("num_heads"), c.size("head_dim")
    whole = heads * size == c.size("expand") * c.size("hidden_size")
    c.refuse(not whole, "num_heads times head_dim is not expand times hidden_size")
    part = _ssd(
        c,
        c.size("num_hidden_layers"),
        heads=heads,
        head_dim=size,
        state=c.size("state_size"),
        groups=c.size("n_groups"),
        width=c.size("conv_kernel"),
        conv=c.flag("use_conv_bias"),
        bias=c.flag("use_bias"),
    )
    return make_model(c, False, part)


def _jamba(c: Config) -> Model:
    layers = c.size("num_hidden_layers")
    no_windows(c)

    def places(what: str) -> int:
        period, offset = c.size(f"{what}_layer_period"), c.size(f"{what}_layer_offset", least=0)
        c.refuse(offset >= period, f"{what}_layer_offset {offset} is not below {what}_layer_period {period}")
        return sum(i % period == offset for i in range(layers))

    whole = places("attn")
    sparse = places("expert") if c.size("num_experts") > 1 else 0
    inner = c.size("mamba_expand") * c.size("hidden_size")
    return make_model(
        c,
        False,
        read_attention(c, whole),
        _ssm(c, layers - whole, inner, "mamba_", norms=1),
        read_ffn(c, layers - sparse),
        read_moe(c, sparse, intermediate_size=c.size("intermediate_size")) if sparse else {},
    )


def _hybrid_ssd(c: Config, layers: int) -> dict[str, Any]:
    return _ssd(
        c,
        layers,
        heads=c.size("mamba_n_heads"),
        head_dim=_mamba_head_dim(c),
        state=c.size("mamba_d_state"),
        groups=c.size("mamba_n_groups"),
        width=c.size("mamba_d_conv"),
        conv=c.flag("mamba_conv_bias"),
        bias=c.flag("mamba_proj_bias"),
    )


def _mamba_head_dim(c: Config) -> int:
    inner, heads, given = c.size("mamba_expand") * c.size("hidden_size"), c.size("mamba_n_heads"), c.get("mamba_d_head")
    size = inner // heads if given == "auto" else c.size("mamba_d_head")
    c.refuse(size * heads != inner, "mamba_n_heads times mamba_d_head is not mamba_expand times hidden_size")
    return size


def _bamba(c: Config) -> Model:
    layers, bias = c.size("num_hidden_layers"), c.flag("attention_bias")
    places = c.places("attn_layer_indices", layers) or set()
    for key in ("layer_types", "layers_block_type"):
        kinds = c.kinds(key, allowed=(FULL, LINEAR))
        same = kinds is None or places == {i for i, kind in enumerate(kinds) if kind == FULL}
        c.refuse(not same, f"{key} that is not attn_layer_indices")
    whole = len(places)
    attention = read_attention(c, whole, qkv_bias=bias, out_bias=bias)
    return make_model(c, False, attention, _hybrid_ssd(c, layers - whole), read_ffn(c, bias=c.flag("mlp_bias")))


def _falcon_h1(c: Config) -> Model:
    """Falcon-H1 (arXiv 2507.22448): attention and Mamba-2 beside each other in every layer, after one norm."""
    layers, bias, heads = c.size("num_hidden_layers"), c.flag("attention_bias"), c.size("mamba_n_heads")
    whole = c.size("mamba_expand") * c.size("hidden_size")
    inner = c.size("mamba_d_ssm", default=whole)
    size = inner // heads if c.get("mamba_d_head") == "auto" else c.size("mamba_d_head")
    c.refuse(heads * size != inner, "mamba_n_heads times mamba_d_head is not mamba_d_ssm")
    groups, state, hidden = c.size("mamba_n_groups"), c.size("mamba_d_state"), c.size("hidden_size")
    numbers = {"heads": heads, "head_dim": size, "state": state, "groups": groups, "width": c.size("mamba_d_conv")}
    ssd = _ssd(c, layers, conv=c.flag("mamba_conv_bias"), bias=False, **numbers)["ssd"]
    projected = c.flag("mamba_proj_bias") * (2 * inner + 2 * groups * state + heads)
    biases = float(ssd.biases) + projected + c.flag("projectors_bias") * hidden
    ssd = ssd.replace(norms=0, inner_norms=inner * c.flag("mamba_rms_norm"), biases=biases)
    attention = read_attention(c, qkv_bias=bias, out_bias=bias)
    return make_model(c, False, attention, {"ssd": ssd}, read_ffn(c, bias=c.flag("mlp_bias")))


def _lfm2(c: Config) -> Model:
    """LFM 2: gated short convolutions between attention layers, in larger ones with experts after the first layers."""
    layers, hidden, bias = c.size("num_hidden_layers"), c.size("hidden_size"), c.flag("conv_bias")
    kinds, places = c.kinds("layer_types", allowed=(FULL, "conv")), c.places("full_attn_idxs", layers)
    experts = c.get("model_type") == "lfm2_moe"
    c.refuse(experts and kinds is None, "no layer_types")
    whole = kinds.count(FULL) if kinds is not None else layers if places is None else len(places)
    parts = read_attention(c, whole, qk_norm="head") if whole else {}
    if short := layers - whole:
        width, biases = c.size("conv_L_cache"), 5 * hidden * bias
        parts["short_convolution"] = ShortConvolution(short, hidden, width, biases=biases)
    c = c.with_keys(tie_word_embeddings=c.get("tie_embedding", default=c.flag("tie_word_embeddings")))
    if experts:
        dense = min(c.size("num_dense_layers", least=0), layers)
        return make_model(c, True, parts, read_ffn(c, dense), read_moe(c, layers - dense))
    return make_model(c, True, parts, read_ffn(c, size=_adjusted(c)))


def _adjusted(c: Config) -> int:
    """Inner size of LFM 2: two thirds of what is stated, times a factor, rounded up to a multiple."""
    size = c.size("block_ff_dim", default=c.size("intermediate_size"))
    if not c.flag("block_auto_adjust_ff_dim"):
        return size
    factor, multiple = c.values.get("block_ffn_dim_multiplier", 1.0), c.size("block_multiple_of")
    if factor is None:
        return int(2 * size / 3)
    c.refuse(
        not isinstance(factor, int | float) or not 0 < factor < 1000, f"block_ffn_dim_multiplier = {shown(factor)}"
    )
    return -(-int(factor * int(2 * size / 3)) // multiple) * multiple


def _granite_hybrid(c: Config) -> Model:
    layers, bias = c.size("num_hidden_layers"), c.flag("attention_bias")
    whole = (c.kinds("layer_types", allowed=(FULL, LINEAR)) or []).count(FULL)
    size = c.size("shared_intermediate_size")
    attention = read_attention(c, whole, qkv_bias=bias, out_bias=bias)
    if c.size("num_local_experts", least=0):
        numbers = {"intermediate_size": c.size("intermediate_size"), "shared_intermediate_size": size}
        ffn = read_moe(c, shared_experts=1, **numbers)
    else:
        ffn = read_ffn(c, size=size)
    return make_model(c, False, attention, _hybrid_ssd(c, layers - whole), ffn)


def _nemotron_h(c: Config) -> Model:
    c.refuse(c.flag("tie_word_embeddings"), "tie_word_embeddings: its code has a head of its own")
    words = {"M": LINEAR, "*": FULL, "-": "mlp", "E": "moe"}
    given = c.get("layers_block_type")
    if given is None:
        letters = c.get("hybrid_override_pattern", default="ME*-")
        wrong = not isinstance(letters, str) or set(letters) - set(words)
        c.refuse(wrong, f"hybrid_override_pattern = {shown(letters)}: letters other than {', '.join(words)}")
        given = [words[letter] for letter in letters]
        c = c.with_keys(layers_block_type=given)
    # The list decides how many layers there are, whatever num_hidden_layers says.
    kinds = c.kinds("layers_block_type", allowed=tuple(words.values()), count=len(given)) or []
    count = {word: kinds.count(word) for word in words.values()}
    c = c.with_keys(num_hidden_layers=len(kinds))
    for old, key in (
        ("mamba_n_groups", "n_groups"),
        ("mamba_d_conv", "conv_kernel"),
        ("mamba_conv_bias", "use_conv_bias"),
    ):
        c = c.with_keys(**{key: c.values[old]}) if c.has(old) else c
    bias = c.flag("mlp_bias")
    c.refuse(bias and count["moe"], "mlp_bias with experts")
    ssd = _ssd(
        c,
        count[LINEAR],
        heads=c.size("mamba_num_heads"),
        head_dim=c.size("mamba_head_dim"),
        state=c.size("ssm_state_size"),
        groups=c.size("n_groups"),
        width=c.size("conv_kernel"),
        conv=c.flag("use_conv_bias"),
        bias=c.flag("use_bias"),
    )
    experts = {}
    if count["moe"]:
        experts = read_moe(
            c,
            count["moe"],
            intermediate_size=c.size("moe_intermediate_size"),
            in_projections=1,
            shared_experts=1,
            shared_intermediate_size=c.size("moe_shared_expert_intermediate_size"),
            latent=LatentExperts(narrow) if (narrow := c.size("moe_latent_size", default=0, least=0)) else None,
        )
    dense = read_ffn(c, count["mlp"], gated=False, bias=bias) if count["mlp"] else {}
    attention = read_attention(c, count[FULL]) if count[FULL] else {}
    return make_model(c, False, attention, ssd, dense, experts)


def _zamba(c: Config) -> Model:
    """Zamba 1: Mamba-1 layers and one transformer block whose weights all its places share."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    _one_block(c)
    period, offset = c.size("attn_layer_period"), c.size("attn_layer_offset", least=0)
    kinds = c.kinds("layers_block_type", allowed=("hybrid", LINEAR))
    # The third layer has the first block; the rest of the pattern counts from the fourth on.
    derived = [False, False, True, *(i % period == offset for i in range(layers - 3))]
    c.refuse(kinds is None and layers < 3, f"num_hidden_layers = {layers}: no layers_block_type, whose default has 3")
    shared = kinds.count("hybrid") if kinds is not None else sum(derived)
    c.refuse(not shared, "layers_block_type without a hybrid layer")
    heads, width = c.size("num_attention_heads"), c.size("attention_hidden_size", default=2 * hidden)
    c.refuse(width != 2 * hidden, f"attention_hidden_size {width} is not twice hidden_size {hidden}")
    size = c.size("attention_head_dim", default=2 * hidden // heads)
    inner = c.size("mamba_expand") * hidden
    c.refuse(inner % c.size("n_mamba_heads"), "n_mamba_heads does not divide mamba_expand times hidden_size")
    ties = {"tied_layers": max(shared - 1, 0)}
    attention = Attention(shared, heads, c.size("num_key_value_heads", default=heads), size, input_size=width, **ties)
    ffn = FFN(shared, c.size("intermediate_size"), 2, **ties)
    parts = {"attention": attention, "ffn": ffn}
    after = (Projection(shared, hidden, hidden),)
    return make_model(c, True, parts, _ssm(c, layers, inner, "mamba_"), projections=after)


def _one_block(c: Config) -> None:
    untied = not c.flag("tie_word_embeddings")
    c.refuse(untied, "tie_word_embeddings = false: without it the places of a block do not share its weights either")


def _zamba2(c: Config) -> Model:
    """Zamba 2: Mamba-2 layers, and transformer blocks that take turns, with adapters for each place they stand in."""
    layers, hidden, heads = c.size("num_hidden_layers"), c.size("hidden_size"), c.size("num_attention_heads")
    _one_block(c)
    if not c.has("layers_block_type"):  # the published model's, of 54 layers
        between = [LINEAR, *([LINEAR] * 5 + ["hybrid"]) * 7, *[LINEAR] * 4, "hybrid"]
        c = c.with_keys(layers_block_type=[*between, *[LINEAR] * 3, "hybrid", *[LINEAR] * 2])
    places = (c.kinds("layers_block_type", allowed=("hybrid", LINEAR)) or []).count("hybrid")
    c.refuse(c.flag("add_bias_linear"), "add_bias_linear")
    width, rank = 2 * hidden, c.size("adapter_rank", default=128)
    inner = c.size("intermediate_size", default=4 * hidden)
    kv_heads = c.size("num_key_value_heads", default=heads)
    ties = {"tied_layers": max(places - c.size("num_mem_blocks", default=1), 0)}
    after = [Projection(places, hidden, hidden), Projection(places, hidden, rank), Projection(places, rank, 2 * inner)]
    if c.flag("use_shared_attention_adapter"):
        after += [Projection(3 * places, width, rank), Projection(3 * places, rank, width)]
    mamba_heads = c.size("n_mamba_heads")
    c.refuse(
        c.size("mamba_expand") * hidden % mamba_heads, "n_mamba_heads does not divide mamba_expand times hidden_size"
    )
    ssd = _ssd(
        c,
        layers,
        heads=mamba_heads,
        head_dim=c.size("mamba_expand") * hidden // mamba_heads,
        state=c.size("mamba_d_state"),
        groups=c.size("mamba_ngroups"),
        width=c.size("mamba_d_conv"),
        conv=True,
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
    "falcon_h1": _falcon_h1,
    **dict.fromkeys(("lfm2", "lfm2_moe"), _lfm2),
    "granitemoehybrid": _granite_hybrid,
    "nemotron_h": _nemotron_h,
    "zamba": _zamba,
    "zamba2": _zamba2,
}
"""Reader of each of these architectures, by the config's `model_type`."""
