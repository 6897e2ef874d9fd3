"""Checkpoints: the number formats that a model is stored in, as its config, the catalogue or its name says.

A model carries them in its label, so that wherever it goes without a precision, it has its own.
"""

import os
from collections.abc import Mapping
from typing import Any

from genz_jax.catalog.hugging_face import read as hugging_face
from genz_jax.catalog.precisions import precision
from genz_jax.catalog.quantization import read_text
from genz_jax.catalog.quantization.scheme import fail
from genz_jax.specs import FFN, Attention, Model, MoE, Precision
from genz_jax.specs.model import reads_configs


@reads_configs
def read_model(path_or_id: str | os.PathLike[str]) -> Model:
    """Read a model from a Hugging Face config, with the formats of its checkpoint.

    Formats that cannot be read are an error only where they are used, so that a precision may be given instead.

    Args:
        path_or_id: as for `hugging_face.read_model`.

    Raises:
        ValueError: a config that cannot be read.
    """
    if str(path_or_id).lower().endswith(".gguf"):
        raise fail(str(path_or_id), "a GGUF file: give the model's name or its config.json, and the bits of a weight")
    model = hugging_face.read_model(path_or_id)
    try:
        return with_formats(model, _text(path_or_id, model))
    except ValueError as error:
        return with_formats(model, error)


def read_precision(path_or_id: str | os.PathLike[str]) -> Precision:
    """Read the number formats of a checkpoint; `catalog.quantization` has the details.

    Args:
        path_or_id: as for `hugging_face.read_model`.

    Returns:
        The formats; bf16 where the config names no quantization.

    Raises:
        ValueError: a quantization that is not known, or that one precision cannot say.
    """
    return _precision(precision_text(path_or_id))


def precision_text(path_or_id: str | os.PathLike[str]) -> str | None:
    """The formats of a checkpoint as the text of a precision; None where its config names no quantization.

    A config whose model cannot be read has the kinds of layers that its keys speak of.
    """
    try:
        model = hugging_face.read_model(path_or_id)
    except ValueError:
        model = None
    return _text(path_or_id, model)


def with_formats(model: Model, formats: str | ValueError | None) -> Model:
    """A model that carries the formats of its checkpoint, or why they cannot be read."""
    return model.replace(label=model.label.with_formats(formats))


def own_precision(model: Model) -> Precision:
    """The precision that a model has where none is given: that of its checkpoint, else bf16.

    Raises:
        ValueError: the formats of its checkpoint cannot be read.
    """
    formats = model.label.formats
    if isinstance(formats, ValueError):
        raise ValueError(str(formats))
    return _precision(formats)


def _precision(text: str | None) -> Precision:
    return precision(text or "bf16")


def _text(path_or_id: str | os.PathLike[str], model: Model | None) -> str | None:
    file = hugging_face._config_file(path_or_id)
    values = hugging_face._read_json(file)
    beside = file.with_name(file.name.replace("config.json", "hf_quant_config.json"))
    told = hugging_face._read_json(beside).get("quantization") if beside.is_file() else None
    told = told if isinstance(told, Mapping) and (told.get("quant_algo") or told.get("kv_cache_quant_algo")) else None
    return read_text(str(path_or_id), values, told, _nominal(values) if model is None else model)


def _nominal(values: Mapping[str, Any]) -> Model:
    """A model with the kinds of layers that the keys of a config speak of, in usual sizes."""
    text = {**values, **next((v for key in hugging_face._TEXT_KEYS if isinstance(v := values.get(key), Mapping)), {})}

    def count(key: str, otherwise: int) -> int:
        value = text.get(key)
        return value if type(value) is int and 0 < value < 1000 else otherwise

    layers = count("num_hidden_layers", 1)
    attention = Attention(layers, 32, 8, 128)
    if not any("expert" in key for key in text):
        return Model(4096, layers, 32000, attention=attention, ffn=FFN(layers, 14336))
    experts = next((n for key in ("n_routed_experts", "num_experts", "num_local_experts") if (n := count(key, 0))), 8)
    shared = count("n_shared_experts", 0)
    moe = MoE(layers, experts, 1, 2048, shared_experts=shared, shared_intermediate_size=2048 if shared else 0)
    return Model(4096, layers, 32000, attention=attention, moe=moe)
