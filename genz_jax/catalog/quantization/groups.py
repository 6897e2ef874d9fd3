"""Weight-only quantization in groups: GPTQ, AWQ, AutoRound, HQQ, MLX and their like."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from genz_jax.catalog.quantization.modules import Module, from_layer_on
from genz_jax.catalog.quantization.names import Names, Patterns, compiled
from genz_jax.catalog.quantization.scheme import (
    PLAIN,
    Format,
    Scheme,
    block_size,
    cache_format,
    fail,
    flag,
    integers,
    names_of,
    whole,
)

_BITS = (1, 2, 3, 4, 5, 6, 7, 8)


def _bits(where: str, told: Mapping[str, Any], *keys: str, default: int | None = None) -> int:
    key = next((key for key in keys if told.get(key) is not None), keys[0])
    bits = whole(where, told, key, default)
    if bits not in (*_BITS, 16):
        raise fail(where, f"{key} = {bits}: must be 1 to 8, or 16 for layers that are not quantized")
    return bits


def _in_blocks(only: Callable[[Module], Format]) -> Callable[[Module], Format]:
    """Head and embedding stay as they are."""
    return lambda module: PLAIN if module.kind in ("head", "embedding") else only(module)


# ------------------------------------------------------------------------------------------------------------- GPTQ


def read_gptq(where: str, told: Mapping[str, Any], experts: float) -> Scheme:
    """Read GPTQ: 16 bits of scale a group, a zero point of the weights' own size unless symmetric.

    `dynamic` has patterns of modules, tried in order: `-:` leaves them out, `+:` or nothing gives other numbers.

    Raises:
        ValueError: a number or a pattern that cannot be.
    """
    default = _gptq_format(where, told)
    head = default if flag(where, told, "lm_head", False) else PLAIN
    given = told.get("dynamic") or {}
    if not isinstance(given, Mapping):
        raise fail(where, f"dynamic = {str(given)[:40]}: must be an object of patterns")
    rules = []
    for pattern, changes in given.items():
        sign, _, rest = pattern.partition(":") if pattern[:2] in ("+:", "-:") else ("+", "", pattern)
        inside = f"{where}, dynamic {pattern[:60]!r}"
        if sign == "+" and not isinstance(changes, Mapping):
            raise fail(inside, f"{str(changes)[:40]}: must be an object")
        for key in changes or ():
            # Other keys are of how it was quantized; one that is almost one of these is a slip.
            if key not in _GPTQ and (meant := difflib.get_close_matches(key, _GPTQ, n=1, cutoff=0.8)):
                raise fail(inside, f"{key[:40]!r}: no such key; did you mean {meant[0]}?")
        format = PLAIN if sign == "-" else _gptq_format(inside, {**told, **(changes or {})})
        rules.append((Patterns([rest], [compiled(where, rest)]), format))
    left_out = Names(where, names_of(where, told, "modules_to_not_convert"))
    left_out.check_experts(experts)
    only = _only(where, told)

    def format_of(module: Module) -> Format:
        if only is not None and module.kind != "head" and module not in only:
            return PLAIN
        for pattern, format in rules:
            if pattern.match(module):
                return format if module.kind != "embedding" else PLAIN
        if module.kind in ("head", "embedding") or module in left_out:
            return head if module.kind == "head" else PLAIN
        return default

    return Scheme(format_of, cache_format(where, told, "kv_cache_scheme"))


def _only(where: str, told: Mapping[str, Any]) -> Names | None:
    """Layers inside a block that are quantized, in lists of those that are quantized together; None for all."""
    given = told.get("modules_in_block_to_quantize")
    if given is None or given == []:
        return None
    lists = given if isinstance(given, list) else [given]
    return Names(where, [name for part in lists for name in names_of(where, {_IN_BLOCK: part}, _IN_BLOCK)])


_IN_BLOCK = "modules_in_block_to_quantize"


def _gptq_format(where: str, told: Mapping[str, Any]) -> Format:
    bits, size = _bits(where, told, "bits", "w_bit"), block_size(where, told, default=-1)
    if bits == 16:
        return PLAIN
    return Format(integers(bits, size, 16 if flag(where, told, "sym", True) else 16 + bits))


_GPTQ = ("bits", "group_size", "sym", "desc_act")


# ------------------------------------------------------------------------------------------------------ AWQ, AutoRound


def read_awq(where: str, told: Mapping[str, Any], experts: float) -> Scheme:
    """Read AWQ: 16 bits of scale and a zero point of the weights' own size a group."""
    bits = _bits(where, told, "bits", "w_bit", default=4)
    key = "q_group_size" if "q_group_size" in told else "group_size"
    zero = bits * flag(where, told, "zero_point", True)
    size = block_size(where, told, key, -1)
    default = Format(integers(bits, size, 16 + zero))
    left_out = Names(where, names_of(where, told, "modules_to_not_convert", "ignore"))
    left_out.check_experts(experts)
    format_of = _in_blocks(lambda module: PLAIN if module in left_out else default)
    return Scheme(format_of, cache_format(where, told, "kv_cache_scheme"))


_ROUNDED = {"mx_fp4": "mxfp4", "mx_fp4e2m1": "mxfp4", "mx_fp": "mxfp4", "nv_fp": "nvfp4", "nv_fp4": "nvfp4"}
_ROUNDED |= {
    "nv_fp4_with_static_gs": "nvfp4",
    "mx_fp8": "mxfp8",
    "mx_fp8e4m3": "mxfp8",
    "fp8": "fp8",
    "fp8_e4m3": "fp8",
}


def read_autoround(where: str, told: Mapping[str, Any], experts: float) -> Scheme:
    """Read AutoRound: as GPTQ or another data type, with numbers of their own for the layers of `extra_config`."""
    default = _rounded(where, told)
    extra = told.get("extra_config") or {}
    if not isinstance(extra, Mapping):
        raise fail(where, f"extra_config = {str(extra)[:40]}: must be an object by layers")
    listed: dict[Format, list[str]] = {}
    for name, changes in extra.items():
        inside = f"{where}, extra_config.{name[:80]}"
        if not isinstance(changes, Mapping):
            raise fail(inside, f"{str(changes)[:40]}: must be an object")
        listed.setdefault(_rounded(inside, {**told, **changes}), []).append(name)
    groups = [(format, _Loose(where, names)) for format, names in listed.items()]
    for _, names in groups:
        names.check_experts(experts)

    blocks = _blocks(where, told)

    def format_of(module: Module) -> Format:
        for format, names in groups:
            if module in names:
                return format
        inside = blocks is None or module.names[0].startswith(blocks)
        return default if inside and module.kind not in ("head", "embedding") else PLAIN

    return Scheme(format_of)


def _blocks(where: str, told: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Starts of the names of the layers that are quantized; None for all."""
    keys = ("block_name_to_quantize", "to_quant_block_names")
    names = [name.strip() for text in names_of(where, told, *keys) for name in text.split(",")]
    return tuple(from_layer_on(f"{name}.0").removesuffix("0") for name in names if name) or None


class _Loose(Names):
    """Names of which some are regular expressions without a mark."""

    def __init__(self, where: str, entries: list[str]):
        super().__init__(where, [f"re:{name}" if ".*" in name or "\\" in name else name for name in entries])


def _rounded(where: str, told: Mapping[str, Any]) -> Format:
    bits, kind = _bits(where, told, "bits", default=4), str(told.get("data_type") or "int").lower()
    if bits == 16:
        return PLAIN
    if kind in _ROUNDED:
        weights = _ROUNDED[kind]
    elif kind in ("int", "int_sym", "int_asym"):
        symmetric = flag(where, told, "sym", True)
        weights = integers(bits, block_size(where, told, default=128), 16 if symmetric else 16 + bits)
    else:
        raise fail(where, f"data_type = {kind[:40]!r}: is not known")
    act_bits = whole(where, told, "act_bits", 16)
    if act_bits >= 16:
        return Format(weights)
    act_kind = str(told.get("act_data_type") or kind).lower()
    if act_kind.startswith("int") and act_bits == 8:
        return Format(weights, "int8")
    if act_kind not in _ROUNDED:
        raise fail(where, f"act_data_type = {act_kind[:40]!r} of {act_bits} bits: is not known")
    return Format(weights, _ROUNDED[act_kind])


# --------------------------------------------------------------------------------------------------------- HQQ, MLX


def read_hqq(where: str, told: Mapping[str, Any], experts: float) -> Scheme:
    """Read HQQ: scale and zero point of 16 bits each a group; with layers by their tags, only those."""
    given = told.get("quant_config", told)
    left_out = Names(where, ["lm_head", *names_of(where, told, "skip_modules")])
    if not isinstance(given, Mapping):
        raise fail(where, f"quant_config = {str(given)[:40]}: must be an object")
    if "weight_quant_params" in given or "nbits" in given:
        groups = [(_hqq_format(where, given), None)]
    else:
        groups = [(_hqq_format(f"{where}, {tag}", one), Names(where, [tag])) for tag, one in given.items()]

    def only(module: Module) -> Format:
        if module in left_out:
            return PLAIN
        return next((format for format, names in groups if names is None or module in names), PLAIN)

    return Scheme(_in_blocks(only))


def _hqq_format(where: str, given: Any) -> Format:
    told = given.get("weight_quant_params", given) if isinstance(given, Mapping) else None
    if not isinstance(told, Mapping):
        raise fail(where, f"{str(given)[:40]}: must be an object with nbits and group_size")
    for key in ("quant_scale", "quant_zero"):
        if told.get(key):
            raise fail(where, f"{key}: scales that are quantized again are not counted")
    return Format(integers(_bits(where, told, "nbits"), block_size(where, told), 32))


def read_mlx(where: str, told: Mapping[str, Any], experts: float) -> Scheme:
    """Read MLX: scale and bias of 16 bits each a group, all linear layers and embeddings, and layers by name.

    A module by its name has numbers of its own, or false for none.
    """
    default = _mlx_format(where, told)
    listed: dict[Format, list[str]] = {}
    for name, changes in told.items():
        if isinstance(changes, Mapping) or changes is False:
            inside = f"{where}, quantization.{name[:80]}"
            format = PLAIN if changes is False else _mlx_format(inside, {**_MLX_ALONE, **changes})
            listed.setdefault(format, []).append(name)
    groups = [(format, Names(where, names)) for format, names in listed.items()]

    def format_of(module: Module) -> Format:
        return next((format for format, names in groups if module in names), default)

    return Scheme(format_of)


def read_metal(where: str, told: Mapping[str, Any], experts: float) -> Scheme:
    """Read transformers' own form of MLX's weights: the linear layers but those listed, and no embedding."""
    default = Format(integers(_bits(where, told, "bits", default=4), block_size(where, told, default=64), 32))
    left_out = Names(where, names_of(where, told, "modules_to_not_convert"))
    left_out.check_experts(experts)
    return Scheme(_in_blocks(lambda module: PLAIN if module in left_out else default))


_MLX_ALONE: dict[str, Any] = {"group_size": 64, "bits": 4}
_MLX_MODES = {"mxfp4": "mxfp4", "mxfp8": "mxfp8", "nvfp4": "nvfp4"}


def _mlx_format(where: str, told: Mapping[str, Any]) -> Format:
    mode = str(told.get("mode") or "affine")
    if mode in _MLX_MODES:
        return Format(_MLX_MODES[mode])
    if mode != "affine":
        raise fail(where, f"mode = {mode[:40]!r}: must be one of affine, {', '.join(_MLX_MODES)}")
    return Format(integers(_bits(where, told, "bits"), block_size(where, told, default=64), 32))
