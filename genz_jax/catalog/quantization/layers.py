"""Which layers of a model are of which kind, in their order, as far as the keys of its config say."""

import re
from collections.abc import Mapping
from typing import Any

from genz_jax.specs import Model

_WHOLE = ("attention", "latent_attention", "sparse_attention", "compressed_attention")
_STATES = ("delta_net", "linear_attention", "ssd", "ssm", "short_convolution")
_PATTERN = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}


def mixer_kinds(model: Model, values: Mapping[str, Any]) -> list[list[str]]:
    """Parts of the model that mix tokens, by layer.

    Where the order is not known, kinds of attention follow each other, and recurrent layers have all.
    """
    layers = int(model.layers)
    there = [kind for kind in (*_WHOLE, "local_attention", *_STATES) if getattr(model, kind) is not None]
    if len(there) < 2:
        return [there] * layers
    words = _words(values, layers)
    if words is None:
        whole = _whole_layers(values, layers)
        words = ["attention" if i in whole else "linear" for i in range(layers)] if whole is not None else None
    unknown = [there] * layers
    if not set(there) & set(_STATES):
        runs = [kind for kind in there for _ in range(int(getattr(model, kind).layers))]
        unknown = [[kind] for kind in runs] if len(runs) == layers else unknown
    if words is None:
        return unknown
    found = [[kind for kind in there if _is(kind, word, there)] for word in words]
    return found if {kind for kinds in found for kind in kinds} == set(there) else unknown


def _is(kind: str, word: str, there: list[str]) -> bool:
    """A layer that the word names has a part of the kind."""
    if kind in _STATES:
        return re.search(r"linear|mamba|ssm|recurrent|hybrid|delta|conv", word) is not None
    if re.search(r"linear|mamba|ssm|recurrent|delta|conv|mlp|moe", word) and "hybrid" not in word:
        return False
    if "sparse" in word and "sparse_attention" in there:
        return kind == "sparse_attention"
    local = re.search(r"sliding|chunked|local", word) is not None and "local_attention" in there
    return kind == "local_attention" if local else kind in _WHOLE and kind != "sparse_attention"


def _words(values: Mapping[str, Any], layers: int) -> list[str] | None:
    for key in ("layer_types", "layers_block_type", "hybrid_override_pattern"):
        given = values.get(key)
        if isinstance(given, str):
            given = [_PATTERN.get(letter, letter) for letter in given]
        if isinstance(given, list) and len(given) >= layers:
            return [str(word) for word in given[:layers]]
    return None


def _whole_layers(values: Mapping[str, Any], layers: int) -> set[int] | None:
    """Layers with attention among those with a recurrent state."""
    told = values.get("linear_attn_config")
    if isinstance(told, Mapping) and isinstance(told.get("full_attn_layers"), list):
        return {place - 1 for place in told["full_attn_layers"] if isinstance(place, int)}
    if isinstance(every := values.get("full_attention_interval"), int) and every > 0:
        return {i for i in range(layers) if (i + 1) % every == 0}
    if isinstance(marks := values.get("attn_type_list"), list):
        return {i for i, mark in enumerate(marks) if mark == 1}
    if isinstance(places := values.get("attn_layer_indices"), list):
        return {place for place in places if isinstance(place, int)}
    return _periodic(values, "attn_layer", layers)


def feed_forward_kinds(model: Model, values: Mapping[str, Any]) -> list[list[str]]:
    """Parts of the model that are feed-forward, `ffn` and `moe`, by layer."""
    layers = int(model.layers)
    counts = {kind: 0 if part is None else int(part.layers) for kind, part in (("ffn", model.ffn), ("moe", model.moe))}
    there = [kind for kind, count in counts.items() if count]
    words = values.get("layers_block_type") or values.get("hybrid_override_pattern")
    if (
        words is not None
        and (kinds := _words({"layer_types": words}, layers)) is not None
        and {"moe", "mlp"} & set(kinds)
    ):
        return [[{"moe": "moe", "mlp": "ffn"}[word]] if word in ("moe", "mlp") else [] for word in kinds]
    if len(there) < 2 or sum(counts.values()) > layers:
        return [there] * layers
    for sparse in _sparse_layers(values, layers):
        if len(sparse) == counts["moe"]:
            return [["moe"] if i in sparse else ["ffn"] for i in range(layers)]
    return [["ffn"] if i < counts["ffn"] else ["moe"] for i in range(layers)]


def _sparse_layers(values: Mapping[str, Any], layers: int) -> list[set[int]]:
    """Layers with experts, by each of the keys that may say so; dense ones first is the usual order."""
    lists = [marks for key in ("mlp_layer_types", "moe_layer_freq") if isinstance(marks := values.get(key), list)]
    found = [{i for i, mark in enumerate(marks[:layers]) if mark in (1, "sparse")} for marks in lists]
    places = values.get("moe_layers", values.get("moe_layers_enum"))
    if isinstance(places, str):
        places = [int(place) for place in places.split(",") if place.strip().isdigit()]
    if isinstance(places, list):
        found.append({place for place in places if isinstance(place, int)})
    if isinstance(step := values.get("interleave_moe_layer_step"), int) and step > 0:
        found.append(set(range(step - 1, layers, step)))
    if (periodic := _periodic(values, "expert_layer", layers)) is not None:
        found.append(periodic)
    step, dense = values.get("decoder_sparse_step"), values.get("mlp_only_layers") or []
    if isinstance(step, int) and step > 0 and isinstance(dense, list):
        found.append({i for i in range(layers) if i not in dense and (i + 1) % step == 0})
    first, every = values.get("first_k_dense_replace"), values.get("moe_layer_freq", 1)
    if isinstance(first, int) and isinstance(every, int) and every > 0:
        found.append({i for i in range(first, layers) if i % every == 0})
    return found


def _periodic(values: Mapping[str, Any], key: str, layers: int) -> set[int] | None:
    period, offset = values.get(f"{key}_period"), values.get(f"{key}_offset")
    if not isinstance(period, int) or not isinstance(offset, int) or period < 1:
        return None
    return {i for i in range(layers) if i % period == offset}
