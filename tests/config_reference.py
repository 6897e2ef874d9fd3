"""What transformers makes of a config, and what we make of it, in the same words; and configs drawn at random."""

import collections
import json
import random
from pathlib import Path
from typing import Any

import pytest

import genz_jax as gz
from genz_jax.catalog.hugging_face.config_classes import ALIASES, config_class, config_classes
from genz_jax.catalog.readers import READERS

counting = pytest.importorskip("counting")
transformers = counting.transformers
cache_utils = pytest.importorskip("transformers.cache_utils")

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_TOP_K = ("num_experts_per_tok", "top_k_experts", "moe_top_k")


def theirs(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    """transformers' reading: parameters as PyTorch counts them, layers and windows as its cache has them."""
    config = transformers.AutoConfig.for_model(kind, **json.loads(json.dumps(values))).get_text_config()
    model = counting.build(config, "meta")
    total = sum(parameter.numel() for parameter in model.parameters())
    tied = bool(getattr(config, "tie_word_embeddings", False))
    bare = not hasattr(model, "lm_head") and not hasattr(model, "embed_out")
    if bare and not tied and not counting.encodes(config):
        total += config.vocab_size * config.hidden_size  # of text parts that transformers has without a head
    words, told = cache_utils.get_layer_types_and_kwargs(config)
    words = ["sliding_attention" if word == "chunked_attention" else word for word in words]
    windows = {numbers["sliding_window"] for numbers in told if "sliding_window" in numbers}
    if counting.encodes(config) and config.model_type != "modernbert":
        windows = {window - 1 for window in windows if window is not None}  # Gemma leaves the last of a side out
    found = {
        "parameters": total,
        "layers": config.num_hidden_layers,
        "kinds": dict(sorted(collections.Counter(words).items())),
        "windows": sorted(windows - {None}),
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "tied": tied,
    }
    if config.model_type == "mllama_text_model":  # without images eight layers, or as many as are named, are skipped
        found["layers"] -= sum(i < config.num_hidden_layers for i in config.cross_attention_layers)
        found["kinds"] = {"full_attention": found["layers"]}
    if config.model_type == "longcat_flash":  # two attentions a layer, and memory for experts that do nothing
        found["layers"] = config.num_layers
        idle = config.num_layers * config.zero_expert_num * 2 * config.expert_ffn_hidden_size * config.hidden_size
        found["parameters"] -= idle
    if (heads := getattr(config, "num_key_value_heads", None)) is not None:
        found["kv_heads"] = heads
    idle = getattr(config, "zero_expert_num", 0)  # of LongCat, where only a share of the experts taken works
    if not idle and any(module.__class__.__name__.endswith("Experts") for module in model.modules()):
        found["experts"] = [
            next(getattr(config, key) for key in keys if hasattr(config, key)) for keys in (_EXPERTS, _TOP_K)
        ]
    return found


def ours(file: Path) -> dict[str, Any]:
    """Our reading of a config."""
    m = gz.Model.from_hugging_face(file)
    kinds: dict[str, float] = collections.defaultdict(float)
    linear = sum(float(part.layers) for part in (m.ssm, m.ssd, m.delta_net, m.linear_attention) if part is not None)
    windows = []
    if m.attention is not None:
        shared = float(m.attention.shared_kv_layers)
        # Blocks of Zamba and layers of Falcon-H1 stand beside a state.
        both = bool(m.attention.input_size) or (m.ssd is not None and m.ssd.layers == m.attention.layers == m.layers)
        kinds["hybrid" if both else "full_attention"] += float(m.attention.layers) - shared
        kinds["dummy"] += shared
        linear -= both * float(m.attention.layers)
    if m.local_attention is not None:
        shared = float(m.local_attention.shared_kv_layers)
        kinds["sliding_attention"] += float(m.local_attention.layers) - shared
        kinds["dummy"] += shared
        seen = float(m.local_attention.window)
        seen = seen // 2 if m.bidirectional else seen  # of a window to both sides transformers says one
        windows = [seen] if m.local_attention.layers > shared else []
    if m.latent_attention is not None:
        kinds["full_attention" if m.latent_attention.indexer is None else "indexed_attention"] += float(
            m.latent_attention.layers
        )
    if m.sparse_attention is not None:
        kinds["minimax_m3_sparse"] += float(m.sparse_attention.layers)
    if m.compressed_attention is not None:
        part = m.compressed_attention
        sparse, heavy = (float(c.layers) if c is not None else 0 for c in (part.sparse, part.heavy))
        kinds["compressed_sparse_attention"] += sparse
        kinds["heavily_compressed_attention"] += heavy
        kinds["sliding_attention"] += float(part.layers) - sparse - heavy
        windows = [float(part.window)] if part.layers > sparse + heavy else []
    if m.short_convolution is not None:
        kinds["conv"] += float(m.short_convolution.layers)
    if m.latent_attention is not None and m.latent_attention.layers == 2 * m.layers:  # LongCat's two a layer
        linear = 0.0
    kinds["linear_attention"] += linear
    kinds["dummy"] += max(float(m.layers) - sum(kinds.values()), 0)
    return {
        "parameters": float(gz.parameter_count(m).total),
        "layers": float(m.layers),
        "kinds": dict(sorted((word, count) for word, count in kinds.items() if count)),
        "windows": windows,
        "vocab_size": float(m.vocab_size),
        "hidden_size": float(m.hidden_size),
        "tied": bool(m.tied_embeddings),
        "kv_heads": next((float(part.kv_heads) for part in (m.attention,) if part is not None), None),
        "experts": None if m.moe is None else [float(m.moe.experts), float(m.moe.top_k)],
    }


def classes() -> dict[str, str]:
    """`model_type` of transformers' class for each architecture that we read and it has."""
    found = {}
    for kind in READERS:
        known = config_class(kind)
        if known is not None:
            found[kind] = known.text or ALIASES.get(kind, kind)
    return found


def different(kind: str, values: dict[str, Any], file: Path) -> dict[str, tuple[Any, Any]]:
    """Where our reading is not that of transformers: name to both; nothing where they are equal."""
    file.write_text(json.dumps({**values, "model_type": kind}))
    mine, other = ours(file), theirs(classes()[kind], values)
    return {name: (other[name], mine[name]) for name in other if mine[name] is not None and other[name] != mine[name]}


# ------------------------------------------------------------------------------------------------ configs at random

_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_key_value_heads", "num_kv_heads")
_WIDTHS = ("hidden_size", "n_embd", "d_model")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers")
_FULL, _SLIDING, _LINEAR = "full_attention", "sliding_attention", "linear_attention"
_WORDS = {
    "deepseek_v4": ("compressed_sparse_attention", "heavily_compressed_attention", _SLIDING),
    "llama4_text": (_FULL, "chunked_attention"),
    "minimax_m3_vl_text": (_FULL, "minimax_m3_sparse"),
    "nemotron_h": (_FULL, _LINEAR, "moe", "mlp"),
    **dict.fromkeys(("deepseek_v32", "glm_moe_dsa"), ("indexed_attention",)),
    **dict.fromkeys(("zamba", "zamba2"), (_LINEAR, "hybrid")),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), (_LINEAR, _FULL)),
    **dict.fromkeys(("kimi_linear", "minimax", "granitemoehybrid", "bailing_hybrid"), (_LINEAR, _FULL)),
    **dict.fromkeys(("lfm2", "lfm2_moe"), (_FULL, "conv")),
}
"""Kinds of layers of architectures that have others than full and windowed attention."""

_NEEDED = {
    "dots1": ("n_shared_experts", "n_routed_experts", "num_experts_per_tok"),
    "lfm2_moe": ("layer_types",),
    **dict.fromkeys(("hunyuan_v1_dense", "hunyuan_v1_moe"), ("head_dim",)),
}
"""Keys that a class needs and has no default for."""

_OLD_KEYS = {
    **{kind: {"sliding_window_pattern": "interval"} for kind in ("cohere2", "gemma3_text")},
    **{kind: {"full_attention_interval": "interval"} for kind in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")},
    "gemma4_text": {"global_head_dim": "size", "num_global_key_value_heads": "heads"},
    "glm_moe_dsa": {"index_topk_freq": "interval", "index_skip_topk_offset": "interval", "index_topk_pattern": "FS"},
    "deepseek_v4": {"compress_ratios": (0, 4, 128), "compress_rate_csa": "size", "compress_rate_hca": "size"},
    "nemotron_h": {"hybrid_override_pattern": "M*-E", "mamba_n_groups": "groups", "mamba_d_conv": "interval"},
    "minimax_m3_vl_text": {"moe_layer_freq": (0, 1), "sparse_attention_config": "m3"},
    "kimi_linear": {"linear_attn_config": "kimi", "first_k_dense_replace": "interval"},
    "step3p5": {"moe_layers_enum": "places", "num_nextn_predict_layers": "interval"},
    "mimo_v2_flash": {"sliding_window_size": "size"},
    "falcon": {"n_embed": "width"},
}
"""Keys that a class reads although it does not have them, with what they say."""


class Draw:
    """Values of keys of one config at random, that fit to each other more often than not."""

    def __init__(self, kind: str, rng: random.Random):
        self.kind, self.rng = kind, rng
        self.layers = rng.randint(1, 14)
        self.kv_heads = rng.choice((1, 2, 4))
        self.heads = self.kv_heads * rng.choice((1, 2, 4))
        self.width = self.heads * rng.choice((8, 16, 32))

    def words(self, *words: Any) -> list[Any]:
        return [self.rng.choice(words) for _ in range(self.layers)]

    def places(self, first: int = 0) -> list[int]:
        return sorted(self.rng.sample(range(first, self.layers + first), self.rng.randint(0, self.layers)))

    def said(self, what: Any) -> Any:
        """A value for a key that the class does not have."""
        rng = self.rng
        if isinstance(what, tuple):
            return self.words(*what)
        if what == "m3":
            return {"sparse_attention_freq": self.words(0, 1), "sparse_block_size": rng.choice((4, 8))}
        if what == "kimi":
            whole = self.places(1)
            rest = [i for i in range(1, self.layers + 1) if i not in whole]
            return {"full_attn_layers": whole, "kda_layers": rest, "num_heads": self.heads, "head_dim": 16}
        if what == "places":
            return ",".join(map(str, self.places()))
        numbers = {"interval": rng.randint(1, 5), "size": 8 * rng.randint(1, 9), "heads": self.kv_heads}
        numbers |= {"width": self.width, "groups": rng.choice((1, 2))}
        return numbers[what] if what in numbers else "".join(self.words(*what))

    def value(self, key: str, types: str) -> Any:
        """A value for a key of the class."""
        rng = self.rng
        if "null" in types and rng.random() < 0.15:
            return None
        if key in ("layer_types", "layers_block_type"):
            return self.words(*_WORDS.get(self.kind, (_FULL, _SLIDING)))
        if "bool" in types:
            return rng.random() < 0.5
        same = {name: self.kv_heads if "k" in name else self.heads for name in _HEADS}
        same |= dict.fromkeys(_WIDTHS, self.width) | dict.fromkeys(_LAYERS, self.layers)
        lists = {
            "mlp_layer_types": ("hash_moe", "moe") if self.kind == "deepseek_v4" else ("dense", "sparse"),
            "indexer_types": ("full", "shared"),
            "no_rope_layers": (0, 1),
        }
        if key in ("attn_config", "ffn_config"):
            attention = {"kv_n_heads": self.kv_heads, "clip_qkv": 8, "rope_theta": 1e4}
            return attention if key == "attn_config" else {"moe_num_experts": rng.randint(4, 8), "ffn_hidden_size": 24}
        if key in same or key in lists:
            return same[key] if key in same else self.words(*lists[key])
        if "list int" in types and types != "int | list int":
            return self.places()
        small = {"vocab_size": rng.randint(500, 2000), "max_window_layers": rng.randint(0, 14)}
        small |= {"num_kv_shared_layers": rng.randint(0, self.layers), "first_k_dense_replace": rng.randint(0, 5)}
        small |= dict.fromkeys(("num_experts_per_tok", "moe_top_k", "top_k_experts"), rng.randint(1, 3))
        small |= {"expand": 2, "mamba_expand": 2, "n_groups": rng.choice((1, 2)), "mamba_n_groups": rng.choice((1, 2))}
        if key.endswith(("_period", "_step", "_interval", "_offset")):
            return rng.randint(1 - key.endswith("offset"), 5)
        if "object" in types or "str" in types:
            return None if "null" in types else "auto"
        return small.get(key, 8 * rng.randint(1, 9))


def draw(kind: str, rng: random.Random) -> dict[str, Any]:
    """Keys of a config of an architecture: some, many or most of those of its class, and older ones."""
    name = classes()[kind]
    values, by, share = {}, Draw(name, rng), rng.choice((0.1, 0.4, 0.8))
    for key, (types, _) in config_classes()[name].keys.items():
        # Sizes that must fit to each other stand together.
        sizes = key in _HEADS + _WIDTHS + _LAYERS and share > 0.1
        if sizes or rng.random() < share:
            value = by.value(key, types)
            if value is not None or "null" in types:
                values[key] = value
    for key in _NEEDED.get(name, ()):
        types = config_classes()[name].keys[key][0]
        while values.get(key) is None:
            values[key] = by.value(key, types)
    if name in ("mamba2", "bamba", "granitemoehybrid", "zamba2"):  # whose classes want sizes that fit
        own = "" if name == "mamba2" else "n_mamba_" if name == "zamba2" else "mamba_n_"
        values |= {"num_heads" if not own else f"{own}heads": by.heads, "hidden_size": by.width}
        values |= {"head_dim": 2 * by.width // by.heads} if not own else {}
        values.pop("mamba_d_head", None)
    if name == "deepseek_v4":
        values |= {"o_groups": by.heads, "num_attention_heads": by.heads, "num_key_value_heads": 1}
        values |= {"attention_bias": False, "mlp_bias": False}
    if name == "dbrx":
        values["attn_config"] = by.value("attn_config", "object")
        values["tie_word_embeddings"] = False
    if name == "ministral":
        values["head_dim"] = 16
    values["pad_token_id"] = 0
    for key, what in _OLD_KEYS.get(name, {}).items():
        if rng.random() < 0.4:
            values[key] = by.said(what)
    return values
