"""A Hugging Face config as checked keys."""

import math
from collections.abc import Mapping
from typing import Any


class Config:
    """Keys of a config with checks: a size that is missing or impossible raises and names the file and the key."""

    def __init__(self, where: str, values: Mapping[str, Any]):
        self.where = where
        self.values = values

    def get(self, *keys: str, default: Any = None) -> Any:
        """Value of the first of the keys that is there and not null."""
        return next((self.values[key] for key in keys if self.values.get(key) is not None), default)

    def size(self, *keys: str, default: int | None = None, least: int = 1) -> int:
        """A whole number of at least `least` under the first of the keys that is there.

        Raises:
            ValueError: no such key and no default, or no such number.
        """
        value = self.get(*keys, default=default)
        if value is None:
            raise ValueError(f"{self.where}: no {' or '.join(repr(key) for key in keys)}; the architecture needs it")
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value != round(value) or value < least:
            raise ValueError(f"{self.where}: {keys[0]} = {value!r}: must be a whole number of {least} or more")
        return int(value)

    def sizes(self, key: str, count: int) -> list[int]:
        """`count` whole numbers of at least 1: a list of them under the key, or one for all.

        Raises:
            ValueError: no such numbers, or not as many.
        """
        given = self.get(key)
        if not isinstance(given, list):
            return [self.size(key)] * count
        self.refuse(len(given) != count, f"{key} has {len(given)} sizes for {count} layers")
        return [Config(self.where, {key: value}).size(key) for value in given]

    def flag(self, key: str, default: bool = False) -> bool:
        """A true or false.

        Raises:
            ValueError: the value is neither.
        """
        value = self.get(key, default=default)
        if not isinstance(value, bool):
            raise ValueError(f"{self.where}: {key} = {value!r}: must be true or false")
        return value

    def part(self, key: str) -> "Config":
        """A config inside this one.

        Raises:
            ValueError: it is missing or no object.
        """
        value = self.values.get(key)
        if not isinstance(value, Mapping):
            raise ValueError(f"{self.where}: {key} = {value!r}: must be a JSON object")
        return Config(f"{self.where}, {key}", value)

    def kinds(self, *keys: str) -> list[str] | None:
        """Kind of each layer, from a list under the first of the keys that is there; None where none is.

        Raises:
            ValueError: it is not one word for each layer.
        """
        value = self.get(*keys)
        if value is None:
            return None
        layers = self.get("num_hidden_layers", default=None)
        if not isinstance(value, list) or not all(isinstance(kind, str) for kind in value):
            raise ValueError(f"{self.where}: {keys[0]} = {value!r}: must be a list of words")
        if layers is not None and len(value) != layers:
            raise ValueError(f"{self.where}: {keys[0]} has {len(value)} words for {layers} layers")
        return value

    def refuse(self, condition: Any, reason: str) -> None:
        """Refuse the config where the condition holds.

        Raises:
            ValueError: it holds; the message has the reason.
        """
        if condition:
            raise ValueError(f"{self.where}: cannot be imported exactly: {reason}")

    def with_keys(self, **values: Any) -> "Config":
        """A config with other or more keys."""
        return Config(self.where, {**self.values, **values})
