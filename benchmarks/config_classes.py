"""Facts of transformers' config classes, into genz_jax/catalog/hugging_face: python benchmarks/config_classes.py

For every `model_type` that is read, and for every whole that has one as its text part: the class, the keys with whole
numbers, flags and lists, each with its types and its default, other names of keys, the classes of models, and the
`model_type` of the text part. Needs the packages of the dependency group `exact`.
"""

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any

import transformers  # pyright: ignore[reportMissingImports]

from genz_jax.catalog.hugging_face.config_classes import ALIASES
from genz_jax.catalog.readers import READERS

FILE = Path(__file__).parent.parent / "genz_jax" / "catalog" / "hugging_face" / "config_classes.json"
_ATOMS = {int: "int", bool: "bool", float: "float", str: "str", type(None): "null", dict: "object"}
_OF_WHOLE = ("tie_word_embeddings",)
_BASE = {field.name for field in dataclasses.fields(transformers.PreTrainedConfig)}


def _type_words(hint: Any) -> list[str]:
    """A type hint as words: int, bool, float, str, null, object, list of one of them."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return sorted({word for part in typing.get_args(hint) for word in _type_words(part)})
    if hint in (list, tuple) or typing.get_origin(hint) in (list, tuple):
        inner = [part for part in typing.get_args(hint) if part is not ...]
        return sorted({f"list {word}" for part in inner for word in _type_words(part)}) or ["list"]
    if isinstance(hint, type) and issubclass(hint, transformers.PreTrainedConfig):
        return ["object"]
    return [_ATOMS.get(typing.get_origin(hint) or hint, "str")]


def _keys(kind: type[Any]) -> dict[str, list[Any]]:
    """Types and default of each key of a class that says something about shapes."""
    found: dict[str, list[Any]] = {}
    for field in dataclasses.fields(kind):
        words = _type_words(field.type)
        shaped = {"int", "bool", "object", "list int", "list str", "list"} & set(words) and "float" not in words
        ids = field.name.endswith(("_id", "_ids", "_token_index", "_ignore_index")) or field.name in (
            "use_cache",
            "rope_parameters",
        )
        if not shaped or ids or (field.name in _BASE and field.name != "is_encoder_decoder"):
            continue
        default = None if field.default is dataclasses.MISSING else field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        found[field.name] = [" | ".join(words), default]
    return found


def _models() -> dict[str, set[str]]:
    """Names of the classes of models of each model_type."""
    found: dict[str, set[str]] = {}
    auto = transformers.models.auto.modeling_auto
    for name in dir(auto):
        if name.endswith("MAPPING_NAMES"):
            for kind, classes in getattr(auto, name).items():
                found.setdefault(kind, set()).update([classes] if isinstance(classes, str) else classes)
    return found


def _tied_by_text(cls: type[Any], text: str) -> bool:
    """Whether a whole ties head and embedding where only its text part says so."""
    try:
        whole = cls(text_config={"model_type": text, "tie_word_embeddings": True}, tie_word_embeddings=False)
    except Exception:  # parts whose sizes depend on each other
        return False
    return bool(whole.tie_word_embeddings)


def facts() -> dict[str, dict[str, Any]]:
    """Facts of each class, by model_type."""
    mapping, models = transformers.models.auto.configuration_auto.CONFIG_MAPPING, _models()
    found: dict[str, dict[str, Any]] = {}
    for kind in sorted(mapping):
        cls = mapping[kind]
        spec = cls.sub_configs_defaults.get("text_config")
        text = spec and (spec.model_type or getattr(spec.config_class, "model_type", None))
        if kind not in {*READERS, *ALIASES.values()} and text not in READERS:
            continue
        keys = _keys(cls)
        found[kind] = {"class": cls.__name__, "keys": {key: keys[key] for key in keys if not text or key in _OF_WHOLE}}
        names = {name: key for name, key in cls.attribute_map.items() if {name, key} & set(found[kind]["keys"])}
        if names:
            found[kind]["names"] = names
        if kind in models:
            found[kind]["models"] = sorted(name for name in models[kind] if not name.endswith("Config"))
        if spec and text:
            found[kind]["text"] = text
            found[kind]["any_text"] = not issubclass(spec.config_class, transformers.PreTrainedConfig)
            found[kind]["tied_by_text"] = _tied_by_text(cls, text)
    return found


def main() -> None:
    lines = [f"{json.dumps(kind)}: {json.dumps(values)}" for kind, values in facts().items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
