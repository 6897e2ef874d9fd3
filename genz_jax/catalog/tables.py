"""Specs from the tables of a TOML file: nested tables are parts, lists of tables are tuples of parts."""

import dataclasses
import functools
import typing
from collections.abc import Mapping
from typing import Any

from genz_jax.base.fields import Spec, SpecT, near


@functools.cache
def parts_of(kind: type[Spec]) -> dict[str, type[Spec]]:
    """Class of each field of a spec that is a part, or a tuple of parts."""
    found = {}
    for name, hint in typing.get_type_hints(kind).items():
        inner = [hint, *(part for outer in typing.get_args(hint) for part in (outer, *typing.get_args(outer)))]
        if part := next((part for part in inner if isinstance(part, type) and issubclass(part, Spec)), None):
            found[name] = part
    return found


def check_keys(kind: type[Spec], table: Mapping[str, Any], where: str) -> None:
    """Refuse keys that the spec and its parts do not have.

    Raises:
        ValueError: unknown keys, with the nearest ones.
    """
    known, parts = {field.name for field in dataclasses.fields(kind)}, parts_of(kind)
    if unknown := sorted(set(table) - known):
        raise ValueError(f"{where} has the unknown keys {', '.join(unknown)}{near(unknown[0], known)}")
    for key, value in table.items():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, Mapping):
                check_keys(parts[key], inner, f"{key} of {where}")


def build(kind: type[SpecT], table: Mapping[str, Any]) -> SpecT:
    """Make a spec from a table whose keys are those of the spec.

    Raises:
        ValueError: a value that its field does not take.
    """
    parts = parts_of(kind)

    def made(key: str, value: Any) -> Any:
        if isinstance(value, list):
            return tuple(made(key, item) for item in value)
        return build(parts[key], value) if isinstance(value, Mapping) else value

    return kind(**{key: made(key, value) for key, value in table.items()})
