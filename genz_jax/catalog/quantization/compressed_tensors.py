"""Quantization as compressed-tensors describes it: groups of layers with formats of weights and of activations."""

import re
from collections.abc import Mapping
from typing import Any

from genz_jax.catalog.quantization.modules import Module
from genz_jax.catalog.quantization.names import Names, Patterns, compiled
from genz_jax.catalog.quantization.scheme import (
    PLAIN,
    Format,
    Scheme,
    block_size,
    cache_format,
    fail,
    integers,
    names_of,
    whole,
)

_CLASSES = {  # classes of modules that targets name, and the kinds of layers that they have
    "linear": ("attention", "ffn", "experts", "shared_experts", "head"),
    "embedding": ("embedding",),
    **dict.fromkeys(("fusedmoe", "routedexperts", "moe"), ("experts",)),
}
_DENSE = ("", "dense", "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision")
_KNOWN = (*_DENSE, "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized", "mxfp8-pack-quantized")
_STRATEGIES = (None, "tensor", "channel", "group", "tensor_group", "block", "token")


def read(where: str, told: Mapping[str, Any], experts: float) -> Scheme:
    """Read groups by their targets, and what they leave out.

    A layer has the group that names it exactly, else by a regular expression, else by its class.

    Args:
        where: the file, for messages.
        told: the quantization.
        experts: routed experts of a layer.

    Raises:
        ValueError: a group that is not known, or two that claim a layer.
    """
    _refuse_sparse(where, told)
    given = told.get("config_groups")
    if not isinstance(given, Mapping) or not given:
        raise fail(where, f"config_groups = {str(given)[:40]}: must be an object of groups")
    groups = [_Group(where, name, group) for name, group in sorted(given.items())]
    ignored = names_of(where, told, "ignore", "exclude_modules")
    ignore, classes = Names(where, ignored), _kinds_of_classes(ignored)
    for names in (ignore, *(group.names for group in groups)):
        names.check_experts(experts)

    def format_of(module: Module) -> Format:
        if module.kind in classes or module in ignore:
            return PLAIN
        for claims in (_Group.by_name, _Group.by_pattern, _Group.by_class):
            if claimed := {group.format: group.label for group in groups if claims(group, module)}:
                if len(claimed) > 1:
                    raise fail(where, f"config_groups {', '.join(claimed.values())} both claim {module.names[0]}")
                return next(iter(claimed))
        return PLAIN

    claims = {f"config_groups.{group.label}: {', '.join(group.targets)}": group.claims for group in groups}
    return Scheme(format_of, cache_format(where, told, "kv_cache_scheme", "kv_cache_quant_algo"), claims)


def _refuse_sparse(where: str, told: Mapping[str, Any]) -> None:
    """Raise ValueError for weights that are stored as sparse ones, and for formats that are not known."""
    sparse = told.get("sparsity_config")
    layout = str(sparse.get("format") or "dense") if isinstance(sparse, Mapping) else "dense"
    structure = str(sparse.get("sparsity_structure") or "") if isinstance(sparse, Mapping) else ""
    if layout != "dense" or structure == "2:4":
        raise fail(where, f"sparsity_config of the format {layout!r} {structure}: sparse weights are not counted")
    given = told.get("format")
    for name in given if isinstance(given, list) else [given]:
        if name is not None and str(name) not in _KNOWN:
            what = "sparse weights are not counted" if "24" in str(name) else "a format that is not known"
            raise fail(where, f"format = {str(name)[:40]!r}: {what}")


def _kinds_of_classes(names: list[str]) -> set[str]:
    return {kind for name in names for kind in _CLASSES.get(name.lower(), ())}


class _Group:
    """A group of layers: its format, and how it names them."""

    def __init__(self, where: str, label: str, given: Any):
        if not isinstance(given, Mapping):
            raise fail(where, f"config_groups.{label} = {str(given)[:40]}: must be an object")
        inside = f"{where}, config_groups.{label}"
        self.label = label
        self.targets = targets = names_of(inside, given, "targets") or ["Linear"]
        self.kinds = _kinds_of_classes(targets)
        regular = [name for name in targets if name.startswith("re:")]
        self.patterns = Patterns(regular, [compiled(where, name[3:]) for name in regular])
        rest = [name for name in targets if not name.startswith("re:") and name.lower() not in _CLASSES]
        if classes := [name for name in rest if "." not in name and re.match(r"[A-Z]", name)]:
            raise fail(
                inside, f"targets: the class {classes[0][:40]!r} is not known; known are Linear, Embedding, FusedMoE"
            )
        self.names = Names(where, rest)
        activations = tensor_format(f"{inside}.input_activations", given.get("input_activations"))
        # Scales of groups of activations live as long as the product that makes them.
        weights = tensor_format(f"{inside}.weights", given.get("weights"))
        self.format = Format(weights, activations.partition(":")[0])
        _refuse_sparse(inside, given)

    def by_name(self, module: Module) -> bool:
        return module in self.names

    def by_pattern(self, module: Module) -> bool:
        return self.patterns.match(module)

    def by_class(self, module: Module) -> bool:
        return module.kind in self.kinds

    def claims(self, module: Module) -> bool:
        return self.by_class(module) or self.by_name(module) or self.by_pattern(module)


def tensor_format(where: str, told: Any) -> str:
    """Format of a tensor from its bits, type and the size of the groups that have a scale of their own.

    Raises:
        ValueError: bits, a type or a strategy that is not known.
    """
    if told is None:
        return "bf16"
    if not isinstance(told, Mapping):
        raise fail(where, f"{str(told)[:40]}: must be an object with num_bits and type")
    bits, kind, strategy = whole(where, told, "num_bits", 8), told.get("type", "int"), told.get("strategy")
    if kind not in ("int", "float"):
        raise fail(where, f"type = {kind!r}: must be int or float")
    if strategy not in _STRATEGIES:
        raise fail(where, f"strategy = {str(strategy)[:40]!r}: is not known")
    size = block_size(where, told)
    if kind == "int":
        if bits not in (1, 2, 3, 4, 5, 6, 7, 8, 16):
            raise fail(where, f"num_bits = {bits}: no whole numbers of so many bits are known")
        symmetric = told.get("symmetric") is not False
        return integers(bits, size, 16 if symmetric else 16 + bits)
    block = told.get("block_structure")
    if strategy == "block" and isinstance(block, list) and len(block) == 2 and all(isinstance(n, int) for n in block):
        size = block[0] * block[1]
    return float_format(where, bits, size, told)


def float_format(where: str, bits: int, size: int, told: Mapping[str, Any]) -> str:
    """Format of floating point numbers of so many bits with a scale for each `size` of them, 0 for larger blocks."""
    powers = re.search(r"uint8|e8m0", str(told.get("scale_dtype") or told.get("scale_format") or "")) is not None
    if bits == 4 and size in (16, 32):
        return "nvfp4" if size == 16 else "mxfp4"
    if bits == 8 and size == 32 and powers:
        return "mxfp8"
    if bits == 6 and size == 32:
        return "mxfp6"
    if bits not in (4, 6, 8, 16):
        raise fail(where, f"num_bits = {bits}: no floating point numbers of so many bits are known")
    name = "bf16" if bits == 16 else f"fp{bits}"
    return f"{name}:{size}x16" if size and size < 1024 and not told.get("dynamic") else name
