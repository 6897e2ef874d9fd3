"""Field help: what `help` of a spec says of its fields, from their declarations."""

import dataclasses
import inspect
import re
import typing
from typing import Any

from genz_jax.base import units


def with_fields(kind: type) -> str:
    """The docstring of a class that is about to become a dataclass, with a section on all of its fields.

    Each has its unit, description, rule and default; one that is no number has its type and default.
    """
    fields: dict[str, dataclasses.Field] = {}
    types: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base is kind:
            fields |= _own_fields(kind)
        elif dataclasses.is_dataclass(base):
            fields |= {field.name: field for field in dataclasses.fields(base)}
        types |= inspect.get_annotations(base)
    own_init = kind.__dict__.get("__init__")
    given = {} if own_init is None else inspect.signature(own_init).parameters
    lines = []
    for name, field in fields.items():
        default = given[name].default if name in given else field.default
        if default is dataclasses.MISSING:
            end = "required" if own_init is None else "follows from the others"
        else:
            end = f"by default {_shown(default, field.metadata.get('units', ''))}"
        lines.append(f"    {name} {_meaning(field, types[name])}; {end}.")
    return "\n".join([inspect.cleandoc(kind.__doc__ or kind.__name__), "", "Attributes:", *lines])


def with_figures(kind: type) -> str:
    """The docstring of a class of results that is about to become a dataclass, with a section on its figures.

    Each has its unit, description and which value is better.
    """
    fields: dict[str, dataclasses.Field] = {}
    for base in reversed(kind.__mro__):
        if base is kind:
            fields |= _own_fields(kind)
        elif dataclasses.is_dataclass(base):
            fields |= {field.name: field for field in dataclasses.fields(base)}
    lines = []
    for name, field in fields.items():
        meta = field.metadata
        if "units" in meta:
            words = " as a code; `words` tells it" if "codes" in meta else ""
            better = {"min": "; less is better", "max": "; more is better"}.get(str(meta.get("better")), "")
            unit = "number" if meta["units"] == units.ONE else meta["units"]
            lines.append(f"    {name} ({unit}): {meta['long_name']}{words}{better}.")
    return "\n".join([inspect.cleandoc(kind.__doc__ or kind.__name__), "", "Attributes:", *lines])


def _own_fields(kind: type) -> dict[str, dataclasses.Field]:
    """Fields that a class declares itself, before `dataclasses` has seen it."""
    found = {}
    for name, hint in inspect.get_annotations(kind).items():
        if typing.get_origin(hint) is not typing.ClassVar:
            value = kind.__dict__.get(name, dataclasses.MISSING)
            found[name] = value if isinstance(value, dataclasses.Field) else dataclasses.field(default=value)
    return found


def _meaning(field: dataclasses.Field, hint: Any) -> str:
    meta = field.metadata
    if "units" not in meta:
        what = f": {meta['long_name']}" if "long_name" in meta else ""
        return f"({re.sub(r'([a-z_]+[.])+', '', hint.__name__ if isinstance(hint, type) else str(hint))}){what}"
    unit = "number" if meta["units"] == units.ONE else meta["units"]
    return f"({unit}): {meta['long_name']}; {meta['rule'].text}"


def _shown(default: Any, unit: str) -> str:
    if unit and isinstance(default, int | float):
        return units.show(default, unit)
    if isinstance(default, tuple) and default:
        return f"({', '.join(type(item).__name__ for item in default)})"
    plain = isinstance(default, str | bool | int | float | tuple | None)
    return str(default) if plain else f"{type(default).__name__}()"
