"""What transformers' config classes take and take for granted: types, defaults and names of keys, by `model_type`.

The facts are in config_classes.json, which `python benchmarks/config_classes.py` makes from transformers.
"""

import dataclasses
import functools
import json
from importlib import resources
from typing import Any

ALIASES = {
    "deepseek_ref": "deepseek_v4",
    "kimi_k2": "deepseek_v3",
    "mimo": "qwen2",
    "mimo_v2": "mimo_v2_flash",
    "minimax_m3": "minimax_m3_vl_text",
}
"""Architectures whose published config class has the keys and defaults of one that transformers has."""


@dataclasses.dataclass(frozen=True)
class ConfigClass:
    """A config class: types and default by key, keys by other names, names of its models' classes.

    Of a whole such as a vision-language model: the architecture of its text part, whether another may stand there, and
    whether the text part's word that head and embedding are one holds for the whole.
    """

    name: str
    keys: dict[str, tuple[str, Any]]
    names: dict[str, str]
    models: frozenset[str]
    text: str | None
    any_text: bool
    tied_by_text: bool

    def key(self, name: str) -> str:
        """The key of the class that a name stands for; the name itself where there is none."""
        if name in self.keys:
            return name
        same = [self.names.get(name), *(other for other, key in self.names.items() if key == name)]
        return next((key for key in same if key in self.keys), name)


@functools.cache
def config_classes() -> dict[str, ConfigClass]:
    """Every class by `model_type`."""
    text = resources.files("genz_jax.catalog.hugging_face").joinpath("config_classes.json").read_text(encoding="utf-8")
    return {
        kind: ConfigClass(
            told["class"],
            {key: (types, default) for key, (types, default) in told["keys"].items()},
            told.get("names", {}),
            frozenset(told.get("models", ())),
            told.get("text"),
            told.get("any_text", False),
            told.get("tied_by_text", False),
        )
        for kind, told in json.loads(text).items()
    }


def config_class(kind: str) -> ConfigClass | None:
    """The class of an architecture; None where transformers has none like it."""
    return config_classes().get(ALIASES.get(kind, kind))
