"""Quantization: what the config of a checkpoint says of number formats, as the text of a `Precision`.

Each form has a reader that says which format a linear layer has, by its name. `modules.py` has the names that a model's
layers have in checkpoints, so that lists of modules, globs and regular expressions become formats of kinds of layers.

In: a config. Out: the text of a precision, or a refusal. It never knows what a format costs.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from genz_jax.base.fields import near
from genz_jax.catalog.hugging_face.config_classes import config_class
from genz_jax.catalog.quantization import compressed_tensors, groups, modelopt, others
from genz_jax.catalog.quantization.modules import Module, experts_of_layers, modules_of
from genz_jax.catalog.quantization.scheme import PLAIN, Format, Scheme, fail, precision_text
from genz_jax.specs import Model

Reader = Callable[[str, Mapping[str, Any], float], Scheme]

_READERS: dict[str, Reader] = {
    **dict.fromkeys(("compressed-tensors", "compressed_tensors"), compressed_tensors.read),
    **dict.fromkeys(("modelopt", "modelopt_fp4", "modelopt_fp8", "modelopt_mixed", "petit_nvfp4"), modelopt.read),
    **dict.fromkeys(("fp8", "finegrained_fp8", "deepseek_v4_fp8"), others.read_fp8),
    **dict.fromkeys(("fbgemm_fp8", "ptpc_fp8", "w8a8_fp8"), others.read_fbgemm),
    **dict.fromkeys(("mxfp4", "gpt_oss_mxfp4"), others.read_mxfp4),
    "nvfp4": others.fixed(Format("nvfp4", "nvfp4")),
    "mxfp8": others.fixed(Format("mxfp8", "mxfp8")),
    **dict.fromkeys(("gptq", "gptq_marlin", "gptqmodel"), groups.read_gptq),
    **dict.fromkeys(("awq", "awq_marlin"), groups.read_awq),
    **dict.fromkeys(("auto-round", "auto_round", "autoround", "intel/auto-round", "inc"), groups.read_autoround),
    **dict.fromkeys(("bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit"), others.read_bitsandbytes),
    "hqq": groups.read_hqq,
    "mlx": groups.read_mlx,
    "metal": groups.read_metal,
    "quark": others.read_quark,
    "torchao": others.read_torchao,
    "quanto": others.read_quanto,
    "eetq": others.read_eetq,
    "experts_int8": others.fixed(Format("int8")),
    **dict.fromkeys(("w8a8_int8", "blockwise_int8", "int8"), others.fixed(Format("int8", "int8"))),
    "w4afp8": others.read_w4afp8,
    "bitnet": others.fixed(Format("int2", "int8")),
    "aqlm": others.read_aqlm,
    "higgs": others.read_higgs,
    "fp_quant": others.read_fp_quant,
}
"""Reader of each method, by `quant_method`."""

_REFUSED = {
    "gguf": "a GGUF file has a format for each tensor: give the bits of a weight, e.g. 4.85bit-bf16 for Q4_K_M",
    **dict.fromkeys(("spqr", "vptq", "quip", "sinq"), "the bits of a weight are not in the config"),
}


def read_text(where: str, values: Mapping[str, Any], beside: Mapping[str, Any] | None, model: Model) -> str | None:
    """Read the formats of a checkpoint as the text of a precision; None where nothing is quantized.

    Embedding and head stay in bf16 unless they are quantized by name. Activations are those of the products; the cache
    is in bf16 unless the config says otherwise. Scales of blocks of 1,024 weights or more are left out.

    Args:
        where: the file, for messages.
        values: keys of the config.
        beside: `quantization` of a `hf_quant_config.json`, which decides where both are there.
        model: the model that the config describes.

    Raises:
        ValueError: a quantization that is not known, or that one precision cannot say.
    """
    given = _given(where, values)
    text = {**values, **next((part for key in _TEXT if isinstance(part := values.get(key), Mapping)), {})}
    stored = {key: told for key in _STORED if (told := (given or {}).get(key, text.get(key))) is not None}
    if given is None and beside is None and not stored:
        _refuse_narrow(where, text)
        return None
    experts = 0.0 if model.moe is None else float(model.moe.experts)
    if given is None and beside is None:
        scheme = Scheme(lambda module: PLAIN)
    else:
        scheme = _scheme(where, given or {}, beside, experts)
    # In a checkpoint that was quantized again, layers have the formats that are listed.
    if not any(told is not None and "quantized_layers" in told for told in (given, beside)):
        for key, told in stored.items():
            scheme = _STORED[key](scheme, others.stored_format(where, key, told))
    values = {**_defaults(text.get("model_type")), **text}
    formats = [(module, scheme.format_of(module)) for module in modules_of(model, values)]
    _check_experts(where, scheme, experts_of_layers(model, values))
    _check(where, scheme, formats)
    return precision_text(formats, scheme.cache)


_ELSEWHERE = re.compile(r"vision|visual|image|audio|speech|mtp|nextn|eagle|draft|projector", re.IGNORECASE)
"""Words of names of modules that are no part of the language model."""


def _check(where: str, scheme: Scheme, formats: Sequence[tuple[Module, Format]]) -> None:
    """Refuse what names no layer of the model, and weights of more bits than a number has."""
    for name, claims in scheme.claims.items():
        if not _ELSEWHERE.search(name) and not any(claims(module) for module, _ in formats):
            raise fail(where, f"{name[:120]}: names no layer of the model")
    for module, format in formats:
        if (bits := format.bits(module.elements)) > 32:
            raise fail(where, f"{module.names[0]}: {bits:.4g} bits a weight, with its tables; 32 are the most")


def _check_experts(where: str, scheme: Scheme, matrices: Iterable[list[Module]]) -> None:
    """Refuse formats that differ between the experts of a layer."""
    for experts in matrices:
        same = Counter(scheme.format_of(module) for module in experts)
        if len(same) > 1:
            few = min(same.values())
            raise fail(where, f"{experts[0].names[0]}: {few} of {len(experts)} experts of a layer differ from others")


def _refuse_narrow(where: str, text: Mapping[str, Any]) -> None:
    """Refuse weights of fewer than 16 bits of which nothing says how they are scaled, nor which they are."""
    for key in ("dtype", "torch_dtype"):
        told = text.get(key)
        if isinstance(told, str) and told.removeprefix("torch.").startswith(_NARROW):
            raise fail(where, f"{key} = {told[:40]!r} without a quantization_config: which layers it means is not said")


def _defaults(kind: Any) -> dict[str, Any]:
    """Values that the config class of an architecture has for keys that are absent."""
    known = config_class(kind) if isinstance(kind, str) else None
    return {} if known is None else {key: default for key, (_, default) in known.keys.items()}


_STORED = {"store_dtype": others.with_storage, "expert_dtype": others.with_experts}
"""Keys beside the method that say in which format all quantized layers, or experts, are stored."""

_NARROW = ("float8", "float4", "int8", "int4", "uint", "fp8", "fp4")

_TEXT = ("text_config", "llm_config", "language_config")
_KEYS = ("quantization_config", "quantization", "compression_config")


def _given(where: str, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The quantization that a config names; MLX has the same under two keys."""
    places = [values, *(part for key in _TEXT if isinstance(part := values.get(key), Mapping))]
    found: dict[str, Mapping[str, Any]] = {}
    for place in places:
        for key in _KEYS:
            given = place.get(key)
            if given is None or given == {}:
                continue
            if not isinstance(given, Mapping):
                raise fail(where, f"{key} = {str(given)[:60]!r}: must be a JSON object")
            if any(given != other for other in found.values()):
                raise fail(where, f"{key} and {next(iter(found))} differ: which of them the weights have is not said")
            found[key] = given
    return next(iter(found.values()), None)


def _scheme(where: str, given: Mapping[str, Any], beside: Mapping[str, Any] | None, experts: float) -> Scheme:
    method = str(given.get("quant_method") or "").lower()
    if beside is not None or given.get("quant_algo"):
        told = {**given, **{key: value for key, value in (beside or {}).items() if value is not None}}
        base = Format("fp8", "fp8") if method == "fp8" else PLAIN
        return modelopt.read(where, told, experts, base)
    if not method:
        method = _method_of(given)
    if given.get("dequantize") is True:
        raise fail(where, "dequantize = True: whether weights are held wider than they are stored is not said")
    if method in _REFUSED:
        raise fail(where, f"the quantization {method!r}: {_REFUSED[method]}")
    if method not in _READERS:
        hint = near(method, _READERS) or f"; known are {', '.join(_READERS)}"
        raise fail(where, f"the quantization {method[:40]!r} is not known{hint}")
    return _READERS[method](where, given, experts)


def _method_of(given: Mapping[str, Any]) -> str:
    """Method of a quantization without a name, by the keys that only it has."""
    for key, method in (
        ("config_groups", "compressed-tensors"),
        ("global_quant_config", "quark"),
        ("load_in_4bit", "bitsandbytes"),
        ("load_in_8bit", "bitsandbytes"),
        ("quant_type", "torchao"),
        ("zero_point", "awq"),
        ("desc_act", "gptq"),
    ):
        if key in given:
            return method
    return "mlx" if "bits" in given and "group_size" in given else ""
