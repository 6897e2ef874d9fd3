"""Quantization: what a checkpoint's config says of number formats, as a `Precision`."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from genz_jax.specs import Precision

_METHODS = {  # formats of weights and of activations
    "fp8": ("fp8", "fp8"),
    "nvfp4": ("nvfp4", "nvfp4"),
    "w4a16_nvfp4": ("nvfp4", "bf16"),
    "mxfp4": ("mxfp4", "bf16"),
    "mxfp8": ("mxfp8", "mxfp8"),
    "w4a16_awq": ("int4", "bf16"),
    "w4a8_awq": ("int4", "fp8"),
}
_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_EXPERTS = re.compile(r"(?<!shared_)experts", re.IGNORECASE)


def read_formats(
    where: Any, given: Mapping[str, Any], beside: Mapping[str, Any] | None = None, experts: bool = True
) -> Precision:
    """Read the formats of a quantized checkpoint.

    Embedding and head stay in bf16, as checkpoints keep them. Where a model with experts leaves its attention out of
    the quantization, the experts alone have its format and all other layers are bf16, so that dense and shared
    feed-forward layers that are quantized too count as wider than they are; without experts all layers have it.

    Args:
        where: the file, for messages.
        given: `quantization_config` of a `config.json`; empty if there is none.
        beside: `quantization` of a `hf_quant_config.json`, which decides where both are there.
        experts: the model has experts.

    Raises:
        ValueError: a method that is not known, or formats that differ from layer to layer otherwise.
    """
    told = beside if beside is not None else given
    cache = _cache_format(told)
    method = str(told.get("quant_algo") or given.get("quant_method") or "").lower()
    if method == "mixed_precision":
        weights, routed, activations = _mixed(where, told, given)
        return Precision(weights, activations, kv_cache=cache, experts=routed, embedding="bf16")
    weights, activations = _formats(
        where, method, told if beside is not None and "config_groups" not in given else given
    )
    left_out = told.get("exclude_modules") or given.get("ignore") or given.get("modules_to_not_convert") or ()
    if experts and isinstance(left_out, Iterable) and any(_ATTENTION.search(str(name)) for name in _layers(left_out)):
        return Precision("bf16", activations, kv_cache=cache, experts=weights, embedding="bf16")
    return Precision(weights, activations, kv_cache=cache, embedding="bf16")


def _layers(names: Iterable[Any]) -> list[str]:
    """Names of modules that are linear layers: norms and routers are never quantized."""
    return [str(name) for name in names if not re.search(r"norm|bias|indexer", str(name), re.IGNORECASE)]


def _cache_format(told: Mapping[str, Any]) -> str:
    scheme = told.get("kv_cache_quant_algo") or told.get("kv_cache_scheme")
    if isinstance(scheme, Mapping):
        return _tensor_format(scheme)
    name = str(scheme or "").lower()
    return name if name in ("fp8", "int8", "nvfp4") else "bf16"


def _formats(where: Any, method: str, given: Mapping[str, Any]) -> tuple[str, str]:
    """Formats of weights and activations."""
    groups = given.get("config_groups")
    if isinstance(groups, Mapping) and groups and isinstance(first := next(iter(groups.values())), Mapping):
        return _tensor_format(first.get("weights")), _tensor_format(first.get("input_activations"))
    if method in _METHODS:
        return _METHODS[method]
    bits = given.get("bits")
    if method in ("gptq", "awq", "bitsandbytes"):
        bits = bits or (4 if given.get("load_in_4bit") else 8 if given.get("load_in_8bit") else 4)
        size = given.get("group_size") or given.get("q_group_size")
        if isinstance(size, int) and size > 0:
            # A 16-bit scale for each group, and a zero point of the weights' own size unless they are symmetric.
            symmetric = bool(given.get("sym")) or given.get("zero_point") is False
            return f"int{bits}:{size}x{16 if symmetric else 16 + bits}", "bf16"
        return f"int{bits}", "bf16"
    raise ValueError(f"{where}: the quantization {method!r} is not known; known are {', '.join(_METHODS)}, gptq, awq")


def _tensor_format(told: Any) -> str:
    """Format of a tensor of `config_groups`: bits, type, and the size of a group with a scale of its own."""
    if not isinstance(told, Mapping):
        return "bf16"
    bits, size = told.get("num_bits", 8), told.get("group_size")
    if told.get("type") == "float":
        if bits == 4:
            return "nvfp4" if size == 16 else "mxfp4" if size == 32 else "fp4"
        return f"fp{bits}"
    return f"int{bits}:{size}x16" if isinstance(size, int) and size > 0 else f"int{bits}"


def _mixed(where: Any, told: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, str, str]:
    """Formats of weights, experts and activations where each layer names its own."""
    layers = told.get("quantized_layers")
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for name, layer in layers.items() if isinstance(layers, Mapping) else ():
        found[bool(_EXPERTS.search(name))].add(
            str(layer.get("quant_algo") if isinstance(layer, Mapping) else "").lower()
        )
    base = str(given.get("quant_method") or "").lower()
    if not found[False] and base in _METHODS:
        found[False].add(base)
    if len(found[True]) == 1 and len(found[False]) == 1:
        experts, rest = (_METHODS.get(next(iter(found[kind]))) for kind in (True, False))
        # One format of activations: a product with narrower ones still runs at the wider of its two operands.
        if experts is not None and rest is not None and experts[1] != "bf16":
            return rest[0], experts[0], rest[1]
    raise ValueError(
        f"{where}: the quantization differs from layer to layer, which one precision cannot say; "
        "give the precision that most weights have, for example nvfp4-nvfp4-fp8"
    )
