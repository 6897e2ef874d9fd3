"""Quantization as NVIDIA's Model Optimizer writes it: one algorithm for all layers but some, or one for each."""

from collections.abc import Mapping
from typing import Any

from genz_jax.catalog.quantization import compressed_tensors
from genz_jax.catalog.quantization.modules import Module
from genz_jax.catalog.quantization.names import Names
from genz_jax.catalog.quantization.scheme import (
    PLAIN,
    Format,
    Scheme,
    block_size,
    cache_format,
    fail,
    integers,
    names_of,
)

_ALGORITHMS = {
    **dict.fromkeys(("fp8", "fp8_per_channel_per_token", "fp8_block_scales"), Format("fp8", "fp8")),
    # Weights in blocks of 128 × 128; engines quantize the activations of each token besides.
    "fp8_pb_wo": Format("fp8", "fp8"),
    "mxfp8": Format("mxfp8", "mxfp8"),
    **dict.fromkeys(("nvfp4", "nvfp4_awq", "nvfp4_svdquant"), Format("nvfp4", "nvfp4")),
    "w4a16_nvfp4": Format("nvfp4"),
    "w4a8_nvfp4_fp8": Format("nvfp4", "fp8"),
    "mxfp4": Format("mxfp4", "mxfp4"),
    "w4a16_mxfp4": Format("mxfp4"),
    "w4a8_mxfp4_fp8": Format("mxfp4", "fp8"),
    "w4a8_mxfp4_mxfp8": Format("mxfp4", "mxfp8"),
    **dict.fromkeys(("int8", "int8_sq", "w8a8_sq_per_channel", "w8a8_sq_per_tensor_plugin"), Format("int8", "int8")),
    **dict.fromkeys(
        (f"w8a8_sq_per_{a}_per_{b}_plugin" for a in ("channel", "tensor") for b in ("token", "tensor")),
        Format("int8", "int8"),
    ),
    "w8a16": Format("int8"),
    "no_quant": PLAIN,
}
_GROUPED = {  # bits, activations, and whether groups have a zero point
    "w4a16": (4, "bf16", False),
    "w4a16_awq": (4, "bf16", False),
    "int4_awq": (4, "bf16", False),
    "w4a8_awq": (4, "fp8", False),
    "w4a16_gptq": (4, "bf16", True),
    "w8a16_gptq": (8, "bf16", True),
    "w4a8_qserve_per_group": (4, "int8", True),
    "w4a8_qserve_per_channel": (4, "int8", False),
}


def algorithm(where: str, name: Any, told: Mapping[str, Any]) -> Format:
    """Format of an algorithm; groups have the size that is told beside it.

    Raises:
        ValueError: an algorithm that is not known.
    """
    key = str(name).lower().replace("-", "_")
    if key in _ALGORITHMS:
        return _ALGORITHMS[key]
    if key in _GROUPED:
        bits, activations, zero = _GROUPED[key]
        size = block_size(where, told, "awq_block_size" if "awq_block_size" in told else "group_size")
        return Format(integers(bits, size, 16 + bits * zero), activations)
    raise fail(where, f"quant_algo = {str(name)[:40]!r}: is not known")


def read(where: str, told: Mapping[str, Any], experts: float, base: Format = PLAIN) -> Scheme:
    """Read the algorithm, the modules that it leaves out, and those that have one of their own.

    The embedding is never quantized, and the head only where it is listed.

    Args:
        where: the file, for messages.
        told: `quantization` of a `hf_quant_config.json`, or a `quantization_config` with a `quant_algo`.
        experts: routed experts of a layer.
        base: format of the checkpoint that was quantized, which layers that are not listed keep.

    Raises:
        ValueError: an algorithm that is not known.
    """
    cache = cache_format(where, told, "kv_cache_quant_algo", "kv_cache_scheme", "kv_cache_dtype")
    left_out = Names(where, names_of(where, told, "exclude_modules", "ignore", "modules_to_not_convert"))
    left_out.check_experts(experts)
    name = told.get("quant_algo")
    if str(name).lower() == "mixed_precision":
        return _mixed(where, told, experts, base, cache)
    if name is None and told.get("config_groups"):
        return compressed_tensors.read(where, told, experts)
    # Without an algorithm the cache alone is quantized.
    default = PLAIN if name is None and cache != "bf16" else algorithm(where, name, told)

    def format_of(module: Module) -> Format:
        return PLAIN if module.kind in ("head", "embedding") or module in left_out else default

    return Scheme(format_of, cache)


def _mixed(where: str, told: Mapping[str, Any], experts: float, base: Format, cache: str) -> Scheme:
    """Formats of layers that each name an algorithm."""
    layers = told.get("quantized_layers")
    if not isinstance(layers, Mapping) or not layers:
        raise fail(
            where, "quant_algo = 'MIXED_PRECISION' without quantized_layers: the format differs from layer to layer"
        )
    names: dict[Format, list[str]] = {}
    known: dict[tuple[str, str], Format] = {}
    for name, layer in layers.items():
        given = layer if isinstance(layer, Mapping) else {"quant_algo": layer}
        key = (str(given.get("quant_algo")), str(given.get("group_size")))
        if key not in known:
            known[key] = algorithm(f"{where}, quantized_layers.{name[:80]}", given.get("quant_algo"), given)
        names.setdefault(known[key], []).append(name)
    groups = [(format, Names(where, listed)) for format, listed in names.items()]
    for _, listed in groups:
        listed.check_experts(experts)

    def format_of(module: Module) -> Format:
        for format, listed in groups:
            if module in listed:
                return format
        return PLAIN if module.kind in ("head", "embedding") else base

    return Scheme(format_of, cache, {"quantized_layers": lambda module: any(module in listed for _, listed in groups)})
