"""Quantizations with one format for all layers but those listed: FP8, MXFP4, bitsandbytes, quanto, and their like."""

from collections.abc import Callable, Mapping
from typing import Any

from genz_jax.catalog.quantization.compressed_tensors import float_format
from genz_jax.catalog.quantization.modules import Module
from genz_jax.catalog.quantization.names import Names
from genz_jax.catalog.quantization.scheme import (
    LARGE_BLOCK,
    PLAIN,
    Format,
    Scheme,
    cache_format,
    fail,
    flag,
    integers,
    names_of,
    whole,
)

_LISTS = ("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules")


def uniform(
    where: str, told: Mapping[str, Any], experts: float, format: Format, *lists: str, ends: bool = False
) -> Scheme:
    """All linear layers but the listed ones have a format; embedding and head have it where `ends` says so."""
    left_out = Names(where, names_of(where, told, *(lists or _LISTS)))
    left_out.check_experts(experts)

    def format_of(module: Module) -> Format:
        plain = (module.kind in ("embedding", "head") and not ends) or module in left_out
        return PLAIN if plain else format

    return Scheme(format_of, cache_format(where, told, "kv_cache_scheme", "kv_cache_quant_method"))


# --------------------------------------------------------------------------------------------------------------- fp8


def read_fp8(where: str, told: Mapping[str, Any], experts: float) -> Scheme:
    """Read FP8 weights with a scale for a tensor, a column or a block; `expert_dtype` says otherwise of experts."""
    scheme = str(told.get("activation_scheme") or "dynamic").lower()
    if scheme not in ("dynamic", "static", "none"):
        raise fail(where, f"activation_scheme = {scheme[:40]!r}: must be dynamic, static or none")
    layout = str(told.get("fmt") or "e4m3").lower()
    if layout.removeprefix("float8_").removesuffix("fn") not in ("e4m3", "e5m2", "e4m3fnuz"):
        raise fail(where, f"fmt = {layout[:40]!r}: must be e4m3 or e5m2")
    weights = _fp8_weights(where, told)
    activations = "bf16" if scheme == "none" else "mxfp8" if weights == "mxfp8" else "fp8"
    return uniform(where, told, experts, Format(weights, activations))


def _fp8_weights(where: str, told: Mapping[str, Any]) -> str:
    block = told.get("weight_block_size")
    if block is None:
        return "fp8"
    if not isinstance(block, list) or len(block) != 2 or not all(type(n) is int and n > 0 for n in block):
        raise fail(where, f"weight_block_size = {str(block)[:40]}: must be two whole numbers of 1 or more")
    size, powers = block[0] * block[1], told.get("scale_fmt") == "ue8m0"
    if size >= LARGE_BLOCK:
        return "fp8"
    return "mxfp8" if powers and size == 32 else f"fp8:{size}x{8 if powers else 32}"


_STORED = {
    **dict.fromkeys(("fp4", "mxfp4", "float4", "e2m1", "float4_e2m1fn_x2"), "mxfp4"),
    "nvfp4": "nvfp4",
    **dict.fromkeys(("fp8", "float8", "float8_e4m3fn", "fp8_e4m3", "e4m3"), "fp8"),
    "mxfp8": "mxfp8",
    "int8": "int8",
    "int4": "int4",
    **dict.fromkeys(("bf16", "bfloat16", "fp16", "float16"), "bf16"),
}


def stored_format(where: str, key: str, name: Any) -> str:
    """Format that weights are stored in, by the name of a data type; fp4 has a scale for 32 as DeepSeek V4 has it.

    Raises:
        ValueError: a data type that is not known.
    """
    found = _STORED.get(str(name).lower().removeprefix("torch."))
    if found is None:
        raise fail(
            where, f"{key} = {str(name)[:40]!r}: is not known; known are fp4, nvfp4, fp8, mxfp8, int8, int4, bf16"
        )
    return found


def with_experts(scheme: Scheme, weights: str) -> Scheme:
    """A scheme whose routed experts have weights in another format; activations stay."""

    def format_of(module: Module) -> Format:
        format = scheme.format_of(module)
        return Format(weights, format.activations) if module.kind == "experts" else format

    return Scheme(format_of, scheme.cache)


def with_storage(scheme: Scheme, weights: str) -> Scheme:
    """A scheme whose quantized layers store their weights in another format; activations stay."""

    def format_of(module: Module) -> Format:
        format = scheme.format_of(module)
        return format if format == PLAIN else Format(weights, format.activations)

    return Scheme(format_of, scheme.cache)


def read_fbgemm(where: str, told: Mapping[str, Any], experts: float) -> Scheme:
    """Read FP8 with a scale for each row (FBGEMM)."""
    return uniform(where, told, experts, Format("fp8", "fp8"))


def read_mxfp4(where: str, told: Mapping[str, Any], experts: float) -> Scheme:
    """Read MXFP4 weights, whose products run in 16 bits."""
    return uniform(where, told, experts, Format("mxfp4"))


def fixed(format: Format) -> Callable[[str, Mapping[str, Any], float], Scheme]:
    """Reader of a method that has one format."""
    return lambda where, told, experts: uniform(where, told, experts, format)


def read_w4afp8(where: str, told: Mapping[str, Any], experts: float) -> Scheme:
    """Read int4 experts in groups whose activations are FP8, as all other layers are."""
    size = whole(where, told, "group_size", 128)
    return with_experts(uniform(where, told, experts, Format("fp8", "fp8")), integers(4, size))


# ------------------------------------------------------------------------------------------------------ bitsandbytes


def read_bitsandbytes(where: str, told: Mapping[str, Any], experts: float) -> Scheme:
    """Read bitsandbytes: 4 bits with 32 bits of scale for 64 weights, 8 of them if nested; or 8 bits a column.

    Products of LLM.int8() run in int8, but for a few columns of outliers.
    """
    four = flag(where, told, "load_in_4bit", False) or flag(where, told, "_load_in_4bit", False)
    eight = flag(where, told, "load_in_8bit", False) or flag(where, told, "_load_in_8bit", False)
    if four == eight:
        raise fail(where, f"load_in_4bit = {four}, load_in_8bit = {eight}: one of them must be true")
    kind = told.get("bnb_4bit_quant_type") or "fp4"
    if kind not in ("fp4", "nf4"):
        raise fail(where, f"bnb_4bit_quant_type = {str(kind)[:40]!r}: must be fp4 or nf4")
    nested = flag(where, told, "bnb_4bit_use_double_quant", False)
    # Nested scales have 32 bits for 256 of them besides, 1/512 bit of a weight.
    format = Format(integers(4, 64, 8 if nested else 32)) if four else Format("int8", "int8")
    return uniform(where, told, experts, format, "llm_int8_skip_modules")


# ------------------------------------------------------------------------------------- quanto, EETQ, BitNet, codebooks


def read_quanto(where: str, told: Mapping[str, Any], experts: float) -> Scheme:
    """Read quanto: whole numbers of 4 or 2 bits in groups of 128 with scale and shift, or 8 bits a column."""
    weights = {"int8": "int8", "float8": "fp8", "int4": integers(4, 128, 32), "int2": integers(2, 128, 32)}
    activations = {"None": "bf16", "int8": "int8", "float8": "fp8"}
    given, acts = str(told.get("weights")), str(told.get("activations"))
    if given not in weights or acts not in activations:
        raise fail(where, f"quanto weights {given[:40]!r} with activations {acts[:40]!r}: are not known")
    return uniform(where, told, experts, Format(weights[given], activations[acts]))


def read_eetq(where: str, told: Mapping[str, Any], experts: float) -> Scheme:
    """Read EETQ: 8 bits a weight, with a scale for a column."""
    if told.get("weights", "int8") != "int8":
        raise fail(where, f"weights = {str(told['weights'])[:40]!r}: must be int8")
    return uniform(where, told, experts, Format("int8"))


def read_aqlm(where: str, told: Mapping[str, Any], experts: float) -> Scheme:
    """Read AQLM: codes for groups of weights, and the codebooks that each matrix has besides (arXiv 2401.06118)."""
    books, bits = whole(where, told, "num_codebooks", 1), whole(where, told, "nbits_per_codebook", 16)
    group = whole(where, told, "in_group_size", 8) * whole(where, told, "out_group_size", 1)
    if bits > 16 or books * bits / group > 8:
        raise fail(where, f"num_codebooks = {books}, nbits_per_codebook = {bits}: more bits than a weight has")
    format = Format(f"{books * bits / group:.5g}bit", "bf16", 16.0 * books * 2.0**bits * group)
    return uniform(where, told, experts, format, "linear_weights_not_to_quantize")


def read_higgs(where: str, told: Mapping[str, Any], experts: float) -> Scheme:
    """Read HIGGS: codes, and a scale of 16 bits a group."""
    bits, size = whole(where, told, "bits", 4), whole(where, told, "group_size", 256)
    return uniform(where, told, experts, Format(f"{bits + 16 / size:.5g}bit"))


def read_fp_quant(where: str, told: Mapping[str, Any], experts: float) -> Scheme:
    """Read FP-Quant: NVFP4 or MXFP4 on both sides of the product."""
    name = str(told.get("forward_dtype") or "nvfp4").lower()
    if name not in ("nvfp4", "mxfp4"):
        raise fail(where, f"forward_dtype = {name[:40]!r}: must be nvfp4 or mxfp4")
    return uniform(where, told, experts, Format(name, name))


# ------------------------------------------------------------------------------------------------------------ torchao


_TORCHAO = {  # weights' bits or format, group of weights by default, activations
    "int4_weight_only": (4, 128, "bf16"),
    "int8_weight_only": (8, 0, "bf16"),
    "int8_dynamic_activation_int8_weight": (8, 0, "int8"),
    "int8_dynamic_activation_int4_weight": (4, 32, "int8"),
    "float8_weight_only": ("fp8", 0, "bf16"),
    "float8_dynamic_activation_float8_weight": ("fp8", 0, "fp8"),
    "float8_static_activation_float8_weight": ("fp8", 0, "fp8"),
    "float8_dynamic_activation_int4_weight": (4, 128, "fp8"),
    "nvfp4_dynamic_activation_nvfp4_weight": ("nvfp4", 0, "nvfp4"),
    "nvfp4_weight_only": ("nvfp4", 0, "bf16"),
}


def read_torchao(where: str, told: Mapping[str, Any], experts: float) -> Scheme:
    """Read torchao: a name of a quantization, or a config with its class and numbers, for all linear layers."""
    given = told.get("quant_type")
    numbers: Mapping[str, Any] = told.get("quant_type_kwargs") or told
    if isinstance(given, Mapping):
        given = given.get("default", given)
        if not isinstance(given, Mapping):
            raise fail(where, f"quant_type = {str(given)[:40]}: must be a name or a config with its class")
        numbers, given = given.get("_data") or {}, given.get("_type")
    name = _snake(str(given))
    if name not in _TORCHAO or not isinstance(numbers, Mapping):
        raise fail(
            where, f"quant_type = {str(given)[:60]!r}: is not known; known are {', '.join(list(_TORCHAO)[:3])} …"
        )
    weights, group, activations = _TORCHAO[name]
    if isinstance(weights, int):
        weights = integers(weights, whole(where, numbers, "group_size", group, 0), 32)
    ends = flag(where, told, "include_input_output_embeddings", False)
    return uniform(where, told, experts, Format(weights, activations), ends=ends)


def _snake(name: str) -> str:
    """A class of torchao as the function that it stands for: Int4WeightOnlyConfig, int4_weight_only."""
    words = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name.removesuffix("Config"))
    return words.removeprefix("_").replace("n_v_f_p4", "nvfp4")


# -------------------------------------------------------------------------------------------------------------- quark


_QUARK_FLOATS = {"fp8": 8, "fp4": 4, "fp6": 6, "bfloat16": 16, "float16": 16}


def quark_tensor(where: str, told: Any) -> str:
    """Format of a tensor of AMD Quark, from its data type, scheme and group size."""
    if isinstance(told, list):
        told = told[-1] if told else None  # weights quantized twice, from FP8 to int4: the last is what is stored
    if told is None:
        return "bf16"
    if not isinstance(told, Mapping):
        raise fail(where, f"{str(told)[:40]}: must be an object with dtype")
    name = str(told.get("dtype") or "").lower()
    size = whole(where, told, "group_size", 0, -1) if told.get("qscheme") == "per_group" else 0
    if name.startswith(("int", "uint")) and name.removeprefix("u").removeprefix("int").isdigit():
        bits = int(name.removeprefix("u").removeprefix("int"))
        return integers(bits, max(size, 0), 16 if told.get("symmetric") is not False else 16 + bits)
    floating = next((bits for start, bits in _QUARK_FLOATS.items() if name.startswith(start)), None)
    if floating is None:
        raise fail(where, f"dtype = {name[:40]!r}: is not known")
    return float_format(where, floating, max(size, 0), {**told, "dynamic": told.get("is_dynamic")})


def read_quark(where: str, told: Mapping[str, Any], experts: float) -> Scheme:
    """Read AMD Quark: one format for all, others for layers by glob, and layers left out."""

    def group(inside: str, given: Any) -> Format:
        if not isinstance(given, Mapping):
            raise fail(inside, f"{str(given)[:40]}: must be an object")
        weights = quark_tensor(f"{inside}.weight", given.get("weight"))
        activations = quark_tensor(f"{inside}.input_tensors", given.get("input_tensors"))
        return Format(weights, activations.partition(":")[0])

    default = group(f"{where}, global_quant_config", told.get("global_quant_config"))
    if told.get("layer_type_quant_config"):
        raise fail(where, "layer_type_quant_config: formats by the type of layer are not read")
    layers = told.get("layer_quant_config") or {}
    if not isinstance(layers, Mapping):
        raise fail(where, f"layer_quant_config = {str(layers)[:40]}: must be an object by layers")
    listed: dict[Format, list[str]] = {}
    for name, given in layers.items():
        listed.setdefault(group(f"{where}, layer_quant_config.{name[:80]}", given), []).append(name)
    groups = [(format, Names(where, names)) for format, names in listed.items()]
    left_out = Names(where, names_of(where, told, "exclude"))
    for names in (left_out, *(names for _, names in groups)):
        names.check_experts(experts)

    def format_of(module: Module) -> Format:
        if module.kind == "embedding" or module in left_out:
            return PLAIN
        return next((format for format, names in groups if module in names), default)

    return Scheme(format_of, _quark_cache(where, told))


def _quark_cache(where: str, told: Mapping[str, Any]) -> str:
    """Format of the KV cache: of the outputs of the projections that make it."""
    for given in (told.get("kv_cache_quant_config"), told.get("kv_cache_config")):
        if isinstance(given, Mapping) and given:
            one = next(iter(given.values())) if "output_tensors" not in given else given
            if isinstance(one, Mapping) and (tensor := one.get("output_tensors")):
                return quark_tensor(f"{where}, kv_cache_quant_config", tensor)
    for name, given in (told.get("layer_quant_config") or {}).items():
        if "k_proj" in name and isinstance(given, Mapping) and given.get("output_tensors"):
            return quark_tensor(f"{where}, layer_quant_config.{name}", given["output_tensors"])
    return "bf16"
