"""A Hugging Face config as checked keys, with the defaults of its class."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from genz_jax.catalog.hugging_face.config_classes import ConfigClass

MOST_LAYERS = 10_000
"""Layers of the deepest model that is read; published ones have fewer than 200."""

LARGEST_SIZE = 2**31 - 1
"""The largest whole number of any key."""

_LONGEST = 300
_LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers")
_OLD_WORDS = {"mamba": "linear_attention", "attention": "full_attention"}
"""Kinds of layers under names that configs of older versions of transformers have."""

_WORDS = {
    "int": "a whole number",
    "bool": "true or false",
    "str": "a text",
    "null": "null",
    "object": "a JSON object",
    "float": "a number",
    "list": "a list",
    "list int": "a list of whole numbers",
    "list str": "a list of words",
    "list float": "a list of numbers",
    "list null": "a list of nulls",
}
_IS: dict[str, Callable[[Any], bool]] = {
    "int": lambda value: type(value) is int and 0 <= value <= LARGEST_SIZE,
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "null": lambda value: value is None,
    "object": lambda value: isinstance(value, Mapping),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "list": lambda value: isinstance(value, list),
}


def shown(value: Any, most: int = 60) -> str:
    """A value for a message: as Python writes it, in one line of at most `most` characters."""
    if isinstance(value, int) and abs(value) > 10**40:
        return f"a whole number of {int(value.bit_length() * math.log10(2)) + 1} digits"
    text = "null" if value is None else repr(value[:most] if isinstance(value, str | list) else value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def refusal(where: Any, reason: str, most: int = _LONGEST) -> ValueError:
    """The error that names a file and says what is wrong with it, in one line of at most `most` characters."""
    file = " ".join(str(where).split())
    file = file if len(file) <= 120 else f"…{file[-119:]}"
    text = f"{file}: {' '.join(reason.split())}"
    return ValueError(text if len(text) <= most else f"{text[: most - 1]}…")


class Config:
    """Keys of a config with checks: a value that is missing or impossible raises and names the file and the key.

    A key that is absent has the default of the config class that transformers has for the architecture. Where there is
    no such class, it has the default that its reader knows, or is refused.
    """

    def __init__(self, where: str, values: Mapping[str, Any], known: ConfigClass | None = None):
        """Check the types of all keys that the class knows, and put keys under the names that it uses.

        Raises:
            ValueError: a value of a type that the class does not take, or two names of one key that differ.
        """
        self.where = where
        self.known = known
        self.values = dict(values)
        self._given: dict[str, str] = {}
        if known is None:
            return
        for name in (*known.names, *known.names.values()):
            self._rename(name, known.key(name))
        for key, (types, _) in known.keys.items():
            if key in self.values:
                self._check(key, types.split(" | "))

    def _rename(self, name: str, key: str) -> None:
        if name == key or name not in self.values:
            return
        value, self._given[key] = self.values.pop(name), name
        same = type(self.values.get(key, value)) is type(value) and self.values.get(key, value) == value
        self.refuse(not same, f"{name} = {shown(value)} but {key} = {shown(self.values.get(key))}, one and the same")
        self.values[key] = value

    def _check(self, key: str, types: Sequence[str]) -> None:
        value = self.values[key]

        def fits(word: str) -> bool:
            if word.startswith("list "):
                return isinstance(value, list) and all(_IS[word.removeprefix("list ")](item) for item in value)
            return _IS[word](value)

        if not any(fits(word) for word in types):
            words = " or ".join(_WORDS[word] for word in types if word != "null" or len(types) == 1)
            whole = "int" in types and type(value) is int
            words = f"a whole number of 0 to {LARGEST_SIZE:,}" if whole else words
            raise refusal(self.where, f"{self._given.get(key, key)} = {shown(value)}: must be {words}")

    def has(self, key: str) -> bool:
        """Whether a value is given for a key, null not among them."""
        return self.values.get(key) is not None

    def get(self, *keys: str, default: Any = None) -> Any:
        """Value of the first of the keys that the class knows; the first that is there where it knows none.

        Of a key that is not there the default of the class; `default` where that is none, or the value is null.

        Raises:
            ValueError: a key that the class does not know stands where it would take the default of another.
        """
        known = {} if self.known is None else self.known.keys
        keys = keys if self.known is None else tuple(map(self.known.key, keys))
        own = next((key for key in keys if key in known), None)
        if own in self.values:
            return default if self.values[own] is None else self.values[own]
        other = next((key for key in keys if self.has(key) and key not in known), None)
        if own is None or self.known is None:
            return default if other is None else self.values[other]
        preset = known[own][1]
        if other is not None and (type(preset) is not int or self.values[other] != preset):
            took = f"{self.known.name} knows it as {own}, and would take {shown(preset)}"
            raise refusal(self.where, f"{other} = {shown(self.values[other])}: {took}; rename the key")
        return default if preset is None else preset

    def size(self, *keys: str, default: int | None = None, least: int = 1) -> int:
        """A whole number of at least `least` under the first of the keys that is there.

        Raises:
            ValueError: no such key and no default, or no such number.
        """
        value = self.get(*keys, default=default)
        if value is None:
            raise refusal(self.where, f"no {' or '.join(repr(key) for key in keys)}; the architecture needs it")
        key = next((key for key in keys if key in self.values), keys[0])
        most = MOST_LAYERS if key in _LAYER_KEYS else LARGEST_SIZE
        key = self._given.get(key, key)
        if type(value) is not int or value < least:
            raise refusal(self.where, f"{key} = {shown(value)}: must be a whole number of {least} or more")
        if value > most:
            raise refusal(self.where, f"{key} = {shown(value)}: must be at most {most:,}")
        return value

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
        """A true or false; null is false where the class takes it.

        Raises:
            ValueError: the value is neither.
        """
        null = self.known is not None and key in self.known.keys and key in self.values
        value = self.get(key, default=default and not null)
        if not isinstance(value, bool):
            raise refusal(self.where, f"{key} = {shown(value)}: must be true or false")
        return value

    def part(self, key: str) -> "Config":
        """A config inside this one.

        Raises:
            ValueError: it is missing or no object.
        """
        value = self.values.get(key)
        if not isinstance(value, Mapping):
            raise refusal(self.where, f"{key} = {shown(value)}: must be a JSON object")
        return Config(f"{self.where}, {key}", value)

    def kinds(self, *keys: str, allowed: Collection[str] = (), count: int | None = None) -> list[str] | None:
        """Kind of each layer, from a list under the first of the keys that is there; None where none is.

        Args:
            *keys: names of the key.
            allowed: the kinds that the architecture has; any word where it is empty.
            count: how many layers there are; by default `num_hidden_layers`.

        Raises:
            ValueError: it is not one such word for each layer.
        """
        key = next((key for key in keys if key in self.values), keys[0])
        value = self.get(*keys)
        if value is None:
            return None
        count = self.size("num_hidden_layers") if count is None else count
        if not isinstance(value, list) or not all(isinstance(kind, str) for kind in value):
            raise refusal(self.where, f"{key} = {shown(value)}: must be a list of words")
        if len(value) != count:
            raise refusal(self.where, f"{key} has {len(value)} words for {count} layers")
        kinds = [kind if kind in allowed else _OLD_WORDS.get(kind, kind) for kind in map(str, value)]
        if allowed and (unknown := sorted(set(kinds) - set(allowed))):
            words = ", ".join(sorted(allowed))
            raise refusal(self.where, f"{key} has {shown(unknown[0])}: must be words of {words}")
        return kinds

    def names(self, key: str) -> list[str]:
        """A list of texts; empty where there is none.

        Raises:
            ValueError: it is no list of texts.
        """
        value = self.get(key, default=[])
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise refusal(self.where, f"{key} = {shown(value)}: must be a list of words")
        return value

    def marks(self, key: str, count: int) -> list[bool] | None:
        """A mark of 0 or 1 for each layer; None where there are none.

        Raises:
            ValueError: it is no list of as many marks.
        """
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != count:
            raise refusal(self.where, f"{key} = {shown(value)}: must be a list of {count} marks")
        if wrong := [mark for mark in value if type(mark) not in (int, bool) or mark not in (0, 1)]:
            raise refusal(self.where, f"{key} has {shown(wrong[0])}: must be marks of 0 or 1")
        return [bool(mark) for mark in value]

    def places(self, key: str, count: int, first: int = 0) -> set[int] | None:
        """Places of layers from a list of whole numbers, counted from `first`; None where there is none.

        Raises:
            ValueError: it is no list of different places among `count` layers.
        """
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            raise refusal(self.where, f"{key} = {shown(value)}: must be a list of places of layers")
        if wrong := [at for at in value if type(at) is not int or not first <= at < count + first]:
            rule = f"must be places of layers, {first} to {count + first - 1}"
            raise refusal(self.where, f"{key} has {shown(wrong[0])}: {rule}")
        self.refuse(len(set(value)) != len(value), f"{key} names a layer twice")
        return set(value)

    def expect(self, key: str, *values: Any) -> None:
        """Refuse a key that the class does not know where it says something else than what the class does.

        Args:
            key: the key.
            *values: what it may say; none where it may say nothing.

        Raises:
            ValueError: it says something else.
        """
        if self.known is None or key in self.known.keys or not self.has(key):
            return
        value = self.values[key]
        if not any(type(value) is type(same) and value == same for same in values):
            does = f"and does what {shown(values[0])} says; delete the key" if values else "and knows no such thing"
            raise refusal(self.where, f"{key} = {shown(value)}: {self.known.name} has no such key, {does}")

    def refuse(self, condition: Any, reason: str) -> None:
        """Refuse the config where the condition holds.

        Raises:
            ValueError: it holds; the message has the reason.
        """
        if condition:
            raise refusal(self.where, f"cannot be imported exactly: {reason}")

    def with_keys(self, **values: Any) -> "Config":
        """A config with other or more keys."""
        changed = Config(self.where, {**self.values, **values}, self.known)
        changed._given = {**self._given, **changed._given}
        return changed
