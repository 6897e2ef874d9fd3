"""Files beside a config that people hand over: what each is, what to give instead; Mistral's params.json is read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genz_jax.catalog.hugging_face.config import refusal, shown

_CONFIG = "give the config.json beside it"

_FILES = {
    "adapter_config.json": ("peft_type", "a LoRA or other adapter, which is no model"),
    "generation_config.json": ("_from_model_config", "settings of generation"),
    "tokenizer_config.json": ("tokenizer_class", "settings of a tokenizer"),
    "tokenizer.json": ("added_tokens", "a tokenizer"),
    "special_tokens_map.json": ("", "names of tokens"),
    "preprocessor_config.json": ("image_processor_type", "settings of an image or audio processor"),
    "processor_config.json": ("processor_class", "settings of a processor"),
    "model.safetensors.index.json": ("weight_map", "an index of weight files"),
    "hf_quant_config.json": ("producer", "the formats of a quantised checkpoint"),
    "quantize_config.json": ("", "settings of GPTQ"),
    "modules.json": ("", "a list of modules of Sentence Transformers"),
}
"""Files by their usual name: a key that tells them under another one, and what they are."""

_PARAMS = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "head_dim": "head_dim",
    "intermediate_size": "hidden_dim",
    "vocab_size": "vocab_size",
    "rms_norm_eps": "norm_eps",
    "rope_theta": "rope_theta",
    "sliding_window": "sliding_window",
    "max_position_embeddings": "max_position_embeddings",
    "tie_word_embeddings": "tied_embeddings",
}
"""Keys of a config by those of Mistral's params.json."""

_EXTRA = ("moe", "model_type", "use_biases", "use_scaled_rope", "rope_scaling", "yarn", "causal", "max_seq_len")


def as_config(file: Path, where: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of a config: those of a file that is one, or of Mistral's params.json in the keys of one.

    Args:
        file: the file.
        where: what it was called, for messages.
        values: its JSON object.

    Raises:
        ValueError: a file of another kind; the message says what it is and what to give.
    """
    if "model_type" in values and "peft_type" not in values:
        return values
    what = _FILES.get(file.name, ("", ""))[1]
    if not what and "architectures" not in values:
        what = next((told for key, told in _FILES.values() if key and key in values), "")
    if "peft_type" in values:
        base = values.get("base_model_name_or_path")
        named = f"give its base model, {shown(base)}" if isinstance(base, str) and base else "give its base model"
        raise refusal(where, f"{_FILES['adapter_config.json'][1]}; {named}")
    if what:
        raise refusal(where, f"{what}; {_CONFIG}")
    if {"dim", "n_layers", "n_heads"} <= set(values):
        return _of_params(where, values)
    return values


def _of_params(where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Mistral's params.json in the keys of a config; dense, or with experts as Mixtral's."""
    if "hidden_dim" not in values:
        fix = "give the config.json of the hub"
        raise refusal(where, f"the params.json of Meta's own format, without the inner size; {fix}")
    known = {*_PARAMS.values(), *_EXTRA}
    if strange := sorted(set(values) - known):
        raise refusal(where, f"Mistral's params.json with {shown(strange[0])}, which is not read; {_CONFIG}")
    if values.get("use_biases") or values.get("causal") is False:
        raise refusal(where, f"Mistral's params.json of a model with biases or that sees both ways; {_CONFIG}")
    config = {key: values[name] for key, name in _PARAMS.items() if name in values}
    config = {"model_type": "mistral", "sliding_window": None, "tie_word_embeddings": False} | config
    moe = values.get("moe")
    if moe is None:
        return config
    if not isinstance(moe, Mapping) or set(moe) - {"num_experts", "num_experts_per_tok"}:
        raise refusal(where, f"Mistral's params.json with moe = {shown(moe)}, which is not read; {_CONFIG}")
    experts = {"num_local_experts": moe.get("num_experts"), "num_experts_per_tok": moe.get("num_experts_per_tok")}
    return config | {"model_type": "mixtral"} | experts
