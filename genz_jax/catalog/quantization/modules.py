"""Linear layers of a model by the names that checkpoints give them, and what kind of layer each belongs to."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from genz_jax.catalog.quantization.layers import feed_forward_kinds, mixer_kinds
from genz_jax.specs import Attention, Model, MoE

_OUTER = r"(?:(?:model|language_model|text_model|backbone|transformer|decoder|gpt_neox)\.)"
_TO_LAYERS = re.compile(rf"^{_OUTER}*(?:layers|h|blocks)\.(?=[0-9]+(?:\.|$))")
_TO_REST = re.compile(rf"^{_OUTER}+(?=.)")
_RECURRENT = ("nemotron_h", "mamba", "mamba2", "falcon_mamba")


class Module(NamedTuple):
    """A linear layer of a checkpoint.

    Attributes:
        kind: attention, ffn, experts, shared_experts, head or embedding, as in a `Precision`.
        names: names that it may have, from `layers` on.
        elements: weights.
        before: what may stand before the names, by architecture and by who saved the checkpoint.
    """

    kind: str
    names: tuple[str, ...]
    elements: float
    before: tuple[str, ...] = ("model.",)

    def full_names(self) -> Iterator[str]:
        """Names with all that may stand before them."""
        for name in self.names:
            for before in self.before:
                yield before + (name.replace("layers.", "h.", 1) if before == "transformer." else name)


def from_layer_on(name: str) -> str:
    """A name without what stands before the layers of the language model, or before its head and embedding."""
    return _TO_LAYERS.sub("layers.", name) if _TO_LAYERS.search(name) else _TO_REST.sub("", name)


def _before(values: Mapping[str, Any]) -> tuple[str, ...]:
    if any(key in values for key in ("vision_config", "text_config", "llm_config", "audio_config")):
        return ("model.language_model.", "language_model.model.", "model.", "")
    kind = str(values.get("model_type"))
    if kind in _RECURRENT:
        return ("backbone.", "model.", "")
    return ("model.", "", "transformer.") if re.match("falcon|gpt|bloom|qwen$|dbrx|chatglm", kind) else ("model.", "")


_SHARED_BLOCKS = ("shared_transf", "shared_transformer")  # of Zamba, which has them in several layers
_ATTENTION = ("self_attn", "attn", "attention", "self_attention", "norm_attn_norm.attn")
_ATTENTION += tuple(f"{block}.self_attn" for block in _SHARED_BLOCKS)
_DENSE = ("mlp", "feed_forward", "ffn", *(f"{block}.feed_forward" for block in _SHARED_BLOCKS))
_SPARSE = ("mlp", "block_sparse_moe", "feed_forward", "ffn", "moe")
_SHARED = ("shared_experts", "shared_expert", "share_expert", "shared_mlp")
_GATE = ("gate_proj", "w1", "gate_up_proj", "input_linear", "mlp.w1")
_UP = ("up_proj", "w3", "gate_up_proj", "fc1", "dense_h_to_4h", "c_fc", "input_linear", "mlp.v1")
_DOWN = ("down_proj", "w2", "fc2", "dense_4h_to_h", "c_proj", "output_linear", "mlp.w2")
_HEAD = ("lm_head", "head", "output", "embed_out", "lm_head.weight")
_EMBEDDING = ("embed_tokens", "embed", "embeddings", "tok_embeddings", "wte", "word_embeddings", "embed_in")


def modules_of(model: Model, values: Mapping[str, Any]) -> list[Module]:
    """Linear layers of a model, layer by layer; routers, norms and convolutions are left out.

    Args:
        model: the model.
        values: keys of its config, for the order of its layers.
    """
    found: list[Module] = []
    hidden = float(model.hidden_size)
    for index, kinds in enumerate(mixer_kinds(model, values)):
        for kind in kinds:
            found += _mixer(kind, getattr(model, kind), hidden, f"layers.{index}", values)
    moe = model.moe
    for index, part in enumerate(feed_forward_kinds(model, values)):
        before = f"layers.{index}"
        if "ffn" in part and model.ffn is not None:
            blocks = _blocks(_DENSE, values)
            sizes = hidden * float(model.ffn.intermediate_size)
            gated = float(model.ffn.in_projections) > 1
            found += _feed_forward("ffn", [*(f"{before}.{block}" for block in blocks), before], sizes, gated)
        if "moe" in part and moe is not None:
            # Where a layer has a dense block too, that is its `mlp` (Gemma 4).
            # Of the routed experts, the first, the second and the last stand for all.
            experts = int(moe.experts)
            inside = _blocks(_SPARSE[len(part) - 1 :], values)
            found += _experts(moe, hidden, before, inside, sorted({0, min(1, experts - 1), experts - 1}))
            found += _shared_experts(moe, hidden, before, inside)
    size = float(model.vocab_size) * hidden
    found.append(Module("embedding", _EMBEDDING, size))
    if not float(model.tied_embeddings):
        found.append(Module("head", _HEAD, size))
    before_names = _before(values)
    return [module._replace(before=before_names) for module in found]


def _blocks(usual: Sequence[str], values: Mapping[str, Any]) -> Sequence[str]:
    """Names of a block; some architectures call every block a mixer."""
    return ("mixer", *usual) if values.get("model_type") in _RECURRENT else usual


def _feed_forward(kind: str, blocks: Sequence[str], elements: float, gated: bool) -> list[Module]:
    leaves = (_GATE, _UP, _DOWN) if gated else (_UP, _DOWN)
    return [Module(kind, tuple(f"{block}.{leaf}" for leaf in names for block in blocks), elements) for names in leaves]


def experts_of_layers(model: Model, values: Mapping[str, Any]) -> Iterator[list[Module]]:
    """All routed experts of the first and of the last layer that has some, a matrix at a time."""
    layers = [i for i, part in enumerate(feed_forward_kinds(model, values)) if "moe" in part]
    if model.moe is None or not layers:
        return
    numbers, before = range(int(model.moe.experts)), _before(values)
    gated = float(model.moe.in_projections) > 1
    for layer in dict.fromkeys((layers[0], layers[-1])):
        inside = _blocks(_SPARSE, values)
        found = _experts(model.moe, float(model.hidden_size), f"layers.{layer}", inside, numbers)
        for matrix in range(3 if gated else 2):
            yield [module._replace(before=before) for module in found[matrix :: 3 if gated else 2]]


def _experts(moe: MoE, hidden: float, before: str, inside: Sequence[str], numbers: Sequence[int]) -> list[Module]:
    """Routed experts, of which those with the numbers stand for all."""
    width = float(moe.latent.size) if moe.latent is not None and float(moe.latent.size) else hidden
    gated = float(moe.in_projections) > 1
    blocks = [*(f"{before}.{block}" for block in inside), before]
    found = []
    for number in numbers:
        inner = [f"{block}.experts.{number}" for block in blocks] + [f"{block}.experts" for block in blocks]
        size = width * float(moe.intermediate_size) * float(moe.experts) / len(numbers)
        found += _feed_forward("experts", inner, size, gated)
    return found


def _shared_experts(moe: MoE, hidden: float, before: str, inside: Sequence[str]) -> list[Module]:
    if not float(moe.shared_experts):
        return []
    inner = [f"{block}.{name}" for block in (*(f"{before}.{block}" for block in inside), before) for name in _SHARED]
    size = hidden * float(moe.shared_experts) * float(moe.shared_intermediate_size)
    return _feed_forward("shared_experts", inner, size, float(moe.in_projections) > 1)


# ------------------------------------------------------------------------------------------------- attention, mixers


def _mixer(kind: str, part: Any, hidden: float, before: str, values: Mapping[str, Any]) -> list[Module]:
    """Linear layers of attention or of another mixer of tokens."""
    leaves, blocks = _MIXERS[kind](part, hidden)
    names = [f"{before}.{block}" for block in _blocks(blocks, values)]
    return [
        Module("attention", tuple(f"{block}.{leaf}" for leaf in alike for block in names), size)
        for alike, size in leaves
        if size
    ]


Leaves = list[tuple[tuple[str, ...], float]]


def _attention(part: Attention, hidden: float) -> tuple[Leaves, Sequence[str]]:
    width = float(part.input_size) or hidden
    values = float(part.v_head_dim) or float(part.head_dim)
    heads, kv_heads = float(part.heads), float(part.kv_heads)
    query, key = heads * float(part.head_dim), kv_heads * float(part.head_dim)
    fused = ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "W_pack")
    leaves: Leaves = [
        (("q_proj", *fused), width * (query + float(part.output_gate))),
        (("k_proj", *fused), width * key),
        (("v_proj", *fused), width * kv_heads * values * float(part.value_projection)),
        (("o_proj", "out_proj", "dense", "c_proj"), heads * values * hidden),
    ]
    if (index := getattr(part, "indexer", None)) is not None:
        leaves.append((("index_q_proj", "indexer.q_proj"), width * float(index.heads) * float(index.head_dim)))
        leaves.append((("index_k_proj", "indexer.k_proj"), width * float(index.head_dim)))
    return leaves, _ATTENTION


def _latent(part: Any, hidden: float) -> tuple[Leaves, Sequence[str]]:
    heads, rank, kv_rank = float(part.heads), float(part.q_lora_rank), float(part.kv_lora_rank)
    rope, nope, value = float(part.qk_rope_head_dim), float(part.qk_nope_head_dim), float(part.v_head_dim)
    query = (rank or hidden) * heads * (nope + rope)
    leaves: Leaves = [
        (("q_a_proj", "fused_qkv_a_proj"), hidden * rank),
        (("q_b_proj",) if rank else ("q_proj",), query),
        (("kv_a_proj_with_mqa", "kv_a_proj", "fused_qkv_a_proj"), hidden * (kv_rank + rope)),
        (("kv_b_proj",), kv_rank * heads * (nope + value)),
        (("o_proj",), heads * value * hidden),
    ]
    if (gate := part.output_gate) is not None and float(gate):
        leaves.append((("g_proj",), hidden * float(gate)))
    return leaves + _indexer(part.indexer, hidden, rank or hidden), _ATTENTION


def _indexer(index: Any, hidden: float, query_in: float) -> Leaves:
    """Projections of an indexer, but for that of the weights of its heads, which is kept wide as routers are."""
    if index is None:
        return []
    size = float(index.head_dim)
    return [(("indexer.wq_b",), query_in * float(index.heads) * size), (("indexer.wk",), hidden * size)]


def _compressed(part: Any, hidden: float) -> tuple[Leaves, Sequence[str]]:
    wide, size = float(part.heads) * float(part.head_dim), float(part.head_dim)
    groups, rank, query = float(part.output_groups), float(part.output_rank), float(part.q_lora_rank)
    leaves: Leaves = [
        (("wq_a", "q_a_proj"), hidden * query),
        (("wq_b", "q_b_proj"), query * wide),
        (("wkv", "kv_proj"), hidden * size),
        (("wo_a", "o_a_proj"), wide * rank),
        (("wo_b", "o_b_proj"), groups * rank * hidden),
    ]
    return leaves, _ATTENTION


def _ssm(part: Any, hidden: float) -> tuple[Leaves, Sequence[str]]:
    inner, small = float(part.d_inner), float(part.dt_rank) + 2.0 * float(part.d_state)
    leaves: Leaves = [
        (("in_proj",), 2.0 * hidden * inner),
        (("x_proj",), inner * small),
        (("dt_proj",), inner * float(part.dt_rank)),
        (("out_proj",), inner * hidden),
    ]
    return leaves, ("mamba", "mixer", "mamba_decoder.mamba")


def _ssd(part: Any, hidden: float) -> tuple[Leaves, Sequence[str]]:
    inner, shared = float(part.heads) * float(part.head_dim), 2.0 * float(part.groups) * float(part.d_state)
    leaves: Leaves = [
        (("in_proj",), hidden * (2.0 * inner + shared + float(part.heads))),
        (("out_proj",), inner * hidden),
    ]
    return leaves, ("mamba", "mixer", "mamba_decoder.mamba")


def _delta_net(part: Any, hidden: float) -> tuple[Leaves, Sequence[str]]:
    """Gated delta net, fused as in Qwen3-Next or Qwen3.5, or apart as in Kimi Linear; small projections left out."""
    keys = float(part.key_heads) * float(part.key_head_dim)
    values = float(part.value_heads) * float(part.value_head_dim)
    mixed = ("in_proj_qkv", "in_proj_qkvz")
    leaves: Leaves = [
        (("q_proj", *mixed), hidden * keys),
        (("k_proj", *mixed), hidden * keys),
        (("v_proj", *mixed), hidden * values),
        (("out_proj", "o_proj"), hidden * values),
    ]
    if part.gate_rank is None or not float(part.gate_rank):
        leaves.append((("in_proj_z", "in_proj_qkvz"), hidden * values))
    return leaves, ("linear_attn", *_ATTENTION)


def _lightning(part: Any, hidden: float) -> tuple[Leaves, Sequence[str]]:
    wide = float(part.heads) * float(part.head_dim)
    leaves: Leaves = [
        (("qkv_proj",), 3.0 * hidden * wide),
        (("output_gate",), hidden * wide),
        (("out_proj", "o_proj"), hidden * wide),
    ]
    return leaves, _ATTENTION


def _short_convolution(part: Any, hidden: float) -> tuple[Leaves, Sequence[str]]:
    wide = float(part.channels)
    return [(("in_proj",), 3.0 * hidden * wide), (("out_proj",), hidden * wide)], ("conv",)


_MIXERS: dict[str, Any] = {
    **dict.fromkeys(("attention", "local_attention", "sparse_attention"), _attention),
    "latent_attention": _latent,
    "compressed_attention": _compressed,
    "ssm": _ssm,
    "ssd": _ssd,
    "delta_net": _delta_net,
    "linear_attention": _lightning,
    "short_convolution": _short_convolution,
}
