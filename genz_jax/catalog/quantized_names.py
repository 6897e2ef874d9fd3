"""Names of quantized checkpoints: the model that they are of, and the quantization that the end of the name stands for.

An ending stands for what the tool that writes it does by default. What tools decide model by model, such as which
layers of a mixture of experts are left out, no name says: those names are refused, or listed in the catalogue.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from genz_jax.catalog.names import LONGEST
from genz_jax.catalog.quantization import read_text
from genz_jax.catalog.quantization.scheme import fail
from genz_jax.specs import Model

_BLOCKS = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
_GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}
_AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
_INT8 = {"num_bits": 8, "type": "int", "strategy": "channel"}
_NVFP4 = {"num_bits": 4, "type": "float", "group_size": 16}
_FOUR_BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


def _groups(weights: Mapping[str, Any], activations: Mapping[str, Any] | None) -> dict[str, Any]:
    one = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": one}, "ignore": ["lm_head"]}


_BYTE = {"num_bits": 8, "type": "float"}
_ENDINGS: list[tuple[str, dict[str, Any] | str]] = [  # tried in order; a text is a refusal
    (r"bf16|fp16", {}),
    (r"fp8[-_]kv", {**_BLOCKS, "kv_cache_scheme": _BYTE}),
    (r"(?:fp8|fp8[-_](?:dynamic|block|static)|w8a8[-_]fp8)", _BLOCKS),
    (r"gptq[-_](?:int8|8bit)", {**_GPTQ, "bits": 8}),
    (r"gptq(?:[-_](?:int4|4bit))?|int4[-_](?:gptq|autoround|inc|w4a16)", _GPTQ),
    (r"awq(?:[-_](?:int4|4bit))?|int4[-_]awq", _AWQ),
    (r"quantized\.w4a16|w4a16(?:[-_]g128)?", _groups({"num_bits": 4, "type": "int", "group_size": 128}, None)),
    (r"quantized\.w8a16|w8a16", _groups(_INT8, None)),
    (r"quantized\.w8a8|w8a8(?:[-_]int8)?|int8[-_]w8a8", _groups(_INT8, _INT8)),
    (r"nvfp4a16", _groups(_NVFP4, None)),
    (r"nvfp4|fp4", _groups(_NVFP4, _NVFP4)),
    (r"unsloth[-_]bnb[-_]4bit", "which layers stay in 16 bits differs from model to model"),
    (r"bnb[-_]4bit", {**_FOUR_BITS, "bnb_4bit_use_double_quant": True}),
    (r"bnb[-_]8bit", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    (r"gguf", "a GGUF file has a format for each tensor: give the bits of a weight, e.g. 4.85bit-bf16 for Q4_K_M"),
    (
        r"mxfp4|mxfp8|int8|int4|exl[23]|aqlm.*|hqq.*|[2-8]bit|mlx.*|eetq",
        "the name does not say which layers are quantized, and how",
    ),
]
_END = re.compile(
    rf"^(?P<base>.+?)[-_.](?P<ending>{'|'.join(f'(?:{ending})' for ending, _ in _ENDINGS)})$", re.IGNORECASE
)
_MLX_BITS = re.compile(r"^mlx-community/(?P<base>.+?)-(?P<bits>[2-8])bit$", re.IGNORECASE)


class Named(NamedTuple):
    """The model of a name, and what its ending stands for: the keys of a quantization, or why they are not known."""

    base: str
    ending: str
    told: Mapping[str, Any] | str


def split(name: str) -> Named | None:
    """Take a name apart; None where it has no ending of a quantization.

    Args:
        name: a name such as "Qwen/Qwen3-32B-AWQ" or "llama-3.1-8b-fp8".
    """
    if len(name) <= LONGEST and (found := _MLX_BITS.match(name.strip())):
        return Named(found["base"], f"{found['bits']}bit", {"bits": int(found["bits"]), "group_size": 64})
    if len(name) > LONGEST or (found := _END.match(name.strip())) is None:
        return None
    ending = found["ending"].lower()
    told = next(told for pattern, told in _ENDINGS if re.fullmatch(pattern, ending))
    if isinstance(told, dict) and told and name.lower().startswith("nvidia/"):
        told = {**told, "kv_cache_scheme": _BYTE}  # Model Optimizer's checkpoints have an FP8 cache
    return Named(found["base"], ending, told)


def read_formats(name: str, model: Model) -> str | None:
    """The formats that a name stands for, as the text of a precision; None for 16 bits.

    Args:
        name: the name, with an ending of a quantization.
        model: the model of the name.

    Raises:
        ValueError: what the ending stands for differs from model to model.
    """
    named = split(name)
    assert named is not None, "a name without an ending"
    if isinstance(named.told, str):
        raise fail(repr(name), named.told)
    if "fp4" in named.ending and any(part is not None for part in (model.moe, model.delta_net, model.ssd, model.ssm)):
        raise fail(repr(name), "which layers of experts and recurrent layers are in FP4 differs from model to model")
    return read_text(repr(name), {"quantization_config": dict(named.told)}, None, model) if named.told else None
