"""Base of specs: numeric fields with units and rules, conversion of what people write, and access by path."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer

from genz_jax.base import field_help, quantities, sense, units
from genz_jax.base.axes import Axis, from_labelled, is_labelled
from genz_jax.base.html import html_table

SpecT = TypeVar("SpecT", bound="Spec")
TreeT = TypeVar("TreeT", bound=eqx.Module)

Number = Any
"""A number of a spec: an array leaf; an `Axis` where the spec is swept."""

Role = Literal[
    "rate", "relative rate", "efficiency", "capacity", "latency", "reserve", "power", "count", "choice", "other"
]
"""What a number does: work per second, that of a format relative to another, the achieved share of a rate (at most 1),
memory that there is, a time that nothing overlaps, memory that is kept back, power or a share of it, how many of
something, one of several choices, or none of these."""

LESS_IS_BETTER: tuple[Role, ...] = ("latency", "reserve", "power", "count")
"""Roles of the numbers of which less makes a result better, or no worse; of the other measures of a machine more."""

Resource = Literal["compute", "memory", "network"]
"""What a number of a machine belongs to: the matrix units, the memories, or the links."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """What values a field takes: the bound, whether it is included, whether they are whole, and what makes sense."""

    text: str
    low: float = 0.0
    low_included: bool = False
    high: float = np.inf
    whole: bool = False
    limits: sense.Sense = sense.ANY
    choices: tuple[str, ...] = ()

    def broken(self, values: np.ndarray) -> np.ndarray | np.bool_:
        """Mask of the values that break the rule."""
        good = np.isfinite(values) & (values <= self.high) & ~((values == 0) & np.signbit(values))
        good &= values >= self.low if self.low_included else values > self.low
        return ~(good & (values == np.round(values))) if self.whole else ~good


POSITIVE = Rule("must be finite and above 0")
NOT_NEGATIVE = Rule("must be finite and 0 or more", low_included=True)
WHOLE = Rule("must be a whole number of 1 or more", low=1, low_included=True, whole=True)
COUNT = Rule("must be a whole number of 0 or more", low_included=True, whole=True)
FRACTION = Rule("must be above 0 and at most 1", high=1.0)
AT_LEAST_ONE = Rule("must be finite and 1 or more", low=1, low_included=True)
SHARE = Rule("must be from 0 to 1", low_included=True, high=1.0)


def number(
    unit: str,
    long_name: str,
    default: Any = dataclasses.MISSING,
    rule: Rule = POSITIVE,
    keyword: bool = False,
    absent: float | None = None,
    limits: sense.Sense | None = None,
    role: Role | None = None,
    resource: Resource | None = None,
) -> Any:
    """Declare a numeric field of a spec.

    Args:
        unit: base unit.
        long_name: description.
        default: default; None for a number that is absent by default.
        rule: what values it takes.
        keyword: it is given by keyword only.
        absent: the value that means the same as absence, if the number may be absent, for `stack`.
        limits: sizes that make sense, by default those of the unit.
        role: what the number does; by default "count" of a whole number, else "other".
        resource: what of a machine it belongs to, if anything.
    """
    if limits is None:
        limits = sense.COUNT if rule.whole else sense.ANY if np.isfinite(rule.high) else sense.of(unit)
    rule = dataclasses.replace(rule, limits=limits)
    metadata = {"units": unit, "long_name": long_name, "rule": rule, "absent": absent, "resource": resource}
    metadata["role"] = role or ("count" if rule.whole else "other")
    metadata["optional"] = default is None or absent is not None
    return eqx.field(default=default, metadata=metadata, kw_only=keyword)


def choice(long_name: str, choices: tuple[str, ...], default: str, keyword: bool = False) -> Any:
    """Declare a field that is one of several choices, given by name and held as its place, so that it may be an axis.

    Args:
        long_name: description.
        choices: the names.
        default: one of them.
        keyword: it is given by keyword only.
    """
    text = "must be " + " or ".join(f"{name!r} ({code})" for code, name in enumerate(choices))
    rule = Rule(text, low_included=True, high=len(choices) - 1.0, whole=True, choices=choices)
    return number(units.ONE, long_name, default, rule, keyword=keyword, role="choice")


def convert(where: str, value: Any, unit: str, rule: Rule) -> Any:
    """Read a value for field `where`: text to base units, names to their codes, plain numbers to float64 arrays.

    Tracers pass.

    Raises:
        ValueError: the value is no number, is in another unit, or breaks the rule.
    """
    if value is None:
        raise ValueError(f"{where} = None: {rule.text}; a value is needed here")
    if not isinstance(value, Axis) and is_labelled(value):
        value = from_labelled(value)
    if isinstance(value, Axis):
        units.check_unit(f"{where}: the axis", value.unit, unit)
        _check(where, value.values, rule, unit)
        return value
    if isinstance(value, Tracer):
        return value
    if quantities.is_quantity(value):
        value, found = quantities.read(where, value)
        units.check_unit(f"{where}: the quantity", found, unit)
    if isinstance(value, str) and value in rule.choices:
        value = float(rule.choices.index(value))
    if isinstance(value, str):
        try:
            value = units.parse(value, unit)
        except ValueError as error:
            told = f"{value!r}: {rule.text}" if rule.choices else error
            raise ValueError(f"{where} = {told}") from None
    if isinstance(value, jax.Array):
        _check(where, np.asarray(value), rule, unit)
        return value
    try:
        value = np.asarray(value, dtype=float)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{where} = {units.brief(value)}: not a number; {rule.text}") from None
    _check(where, value, rule, unit)
    return value


def _check(where: str, values: np.ndarray, rule: Rule, unit: str) -> None:
    broken = np.asarray(rule.broken(values))
    beyond = np.asarray(rule.limits.broken(values)) if not broken.any() else np.asarray(False)
    wrong = broken if broken.any() else beyond
    if wrong.any():
        worst = float(values[wrong].flat[0]) if values.ndim else float(values)
        place = f" (at {int(np.argmax(wrong.ravel()))} of {values.size} values)" if values.ndim else ""
        told = rule.limits.text(worst, unit) if beyond.any() else rule.text
        if rule.whole and values.ndim and np.isfinite(worst) and worst % 1.0:
            told += "; round the values, as np.unique(np.round(values)) does"
        raise ValueError(f"{where} = {worst:g}{place}: {told}")


class Record(eqx.Module):
    """A module whose methods are plain ones.

    Those of an `eqx.Module` are pytrees, made anew for every access: 0.1 ms for each call while a function is traced.
    """

    __getattribute__ = object.__getattribute__


class Spec(Record):
    """Base of all specs: converts and checks the numeric fields, replaces fields by name or dotted path."""

    aliases: ClassVar[Mapping[str, str]] = {}
    """Short names of numbers: the dotted path by alias."""

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        cls.__doc__ = field_help.with_fields(cls)

    def __check_init__(self):
        for field in dataclasses.fields(self):
            if "units" not in field.metadata:
                continue
            value = getattr(self, field.name)
            if value is None and field.metadata["optional"]:
                continue
            where = f"{type(self).__name__}.{field.name}"
            object.__setattr__(self, field.name, convert(where, value, field.metadata["units"], field.metadata["rule"]))

        self._agree()

    def _agree(self) -> None:
        """Raise ValueError if numbers of this spec contradict each other."""

    def replace(self: SpecT, **changes: Any) -> SpecT:
        """Return a copy with other values.

        Args:
            **changes: new values by field name, by alias (`link_bw`), or by dotted path
                (`**{"attention.kv_heads": 4}`).

        Raises:
            ValueError: no such field, or a value that its rule forbids.

        Example:
            `gz.platform("H100-SXM").replace(mem_bw=gz.geomspace("1 TB/s", "20 TB/s", 200))`
        """
        direct: dict[str, Any] = {}
        nested: dict[str, dict[str, Any]] = {}
        names = {field.name for field in dataclasses.fields(self)}
        for path, value in changes.items():
            full = self.full(path)
            head, _, rest = full.partition(".")
            if value is None and full != path:
                raise ValueError(f"{type(self).__name__}.{path} = None: a value is needed here")
            if head not in names:
                known = [*self.paths(), *self.aliases]
                raise ValueError(f"{type(self).__name__} has no field {units.brief(path)}{near(path, known)}")
            if rest:
                nested.setdefault(head, {})[rest] = value
            else:
                direct[head] = value
        for head, inner in nested.items():
            part = direct.get(head, getattr(self, head))
            direct[head] = self._replace_part(head, part, inner)
        values = {field.name: direct.get(field.name, getattr(self, field.name)) for field in dataclasses.fields(self)}
        return type(self)(**values)

    @classmethod
    def alike(cls, specs: Sequence[Any]) -> Sequence[Any]:
        """The specs, where numbers that only some of them give are given by all, as far as the class knows them."""
        return specs

    def absent(self: SpecT, **changes: Any) -> SpecT:
        """A part with this structure that changes no figure, in the place of one that a model lacks.

        Args:
            **changes: values by field name, beside no layers and absent parts.
        """
        inner = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        parts = {name: part.absent() for name, part in inner.items() if isinstance(part, Spec)}
        return self.replace(**{"layers": 0, **parts, **changes})

    def _replace_part(self, head: str, part: Any, inner: dict[str, Any]) -> Any:
        if isinstance(part, tuple):
            items = list(part)
            for path, value in inner.items():
                index, _, rest = path.partition(".")
                if not index.isdigit() or int(index) >= len(items):
                    raise ValueError(f"{type(self).__name__}.{head} has {len(items)} items, there is no {path!r}")
                items[int(index)] = items[int(index)].replace(**{rest: value}) if rest else value
            return tuple(items)
        if part is None:
            raise ValueError(
                f"{type(self).__name__}.{head} is absent here, so {head}.{next(iter(inner))} cannot be set"
            )
        if not isinstance(part, Spec):
            raise ValueError(f"{type(self).__name__}.{head} is a number, it has no {next(iter(inner))!r}")
        return part.replace(**inner)

    @classmethod
    def full(cls, path: str) -> str:
        """The dotted path that an alias stands for; other paths as they are."""
        return cls.aliases.get(path, path)

    @classmethod
    def short(cls, path: str) -> str:
        """The alias of a dotted path, if it has one; other paths as they are."""
        return next((alias for alias, full in cls.aliases.items() if full == path), path)

    def paths(self) -> list[str]:
        """Dotted paths of all numbers of this spec."""
        found: list[str] = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if "units" in field.metadata:
                found.append(field.name)
            elif isinstance(value, Spec):
                found += [f"{field.name}.{path}" for path in value.paths()]
            elif isinstance(value, tuple):
                found += [f"{field.name}.{i}.{p}" for i, item in enumerate(value) for p in item.paths()]
        return found

    def __str__(self) -> str:
        title, *rows = self._rows()
        return "\n".join([*title, *(f"{name:<28} {text:>16}   {meaning}".rstrip() for name, text, meaning in rows)])

    def __repr__(self) -> str:
        numbers = [f"{name.strip()}={text}" if text else name.strip() for name, text, _ in self._number_rows("")]
        return f"{type(self).__name__}({', '.join([repr(getattr(self, 'name', '')), *numbers])})"

    def _repr_html_(self) -> str:
        return html_table(self._rows())

    def _rows(self) -> list[tuple[str, ...]]:
        """What is printed: the class and name; then of each number its field, value and description."""
        return [(f"{type(self).__name__} {getattr(self, 'name', '')}".rstrip(),), *self._number_rows("  ")]

    def _number_rows(self, indent: str) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if "units" in field.metadata and value is not None:
                text = repr(value)
                if not isinstance(value, Axis | Tracer) and np.ndim(value) == 0:
                    choices = field.metadata["rule"].choices
                    text = choices[int(value)] if choices else units.show(float(value), field.metadata["units"])
                rows.append((indent + field.name, text, field.metadata["long_name"]))
            elif isinstance(value, Spec):
                rows += [(indent + field.name, "", ""), *value._number_rows(indent + "  ")]
            elif isinstance(value, tuple):
                for i, item in enumerate(value):
                    rows += [(f"{indent}{field.name}.{i}", "", ""), *item._number_rows(indent + "  ")]
        return rows


def at(spec: Any, path: str) -> Any:
    """The value at a dotted path.

    Args:
        spec: a spec, or any module of specs such as a `Case`.
        path: fields by name, places of a tuple by number, aliases: `platform.network.0.bandwidth`, `platform.link_bw`.
    """
    head, _, rest = (spec.full(path) if isinstance(spec, Spec) else path).partition(".")
    value = spec[int(head)] if isinstance(spec, tuple) else getattr(spec, head)
    return at(value, rest) if rest else value


def put(spec: TreeT, path: str, value: Any) -> TreeT:
    """The spec with another value at a dotted path, unchecked, as within a compiled function; else `Spec.replace`."""
    return eqx.tree_at(lambda tree: at(tree, path), spec, value, is_leaf=lambda node: node is None)


def field_at(spec: Any, path: str) -> Mapping[str, Any]:
    """Metadata of the field at a dotted path: of a number `units`, `long_name`, `rule`, `role`, `resource` and more."""
    outer, _, last = (spec.full(path) if isinstance(spec, Spec) else path).rpartition(".")
    if outer:
        return field_at(at(spec, outer), last)
    return next(field.metadata for field in dataclasses.fields(spec) if field.name == last)


def shared(spec: SpecT) -> SpecT:
    """Return the spec, whose arrays can no longer be written to, so that one may serve many callers."""
    for leaf in jax.tree.leaves(spec):
        leaf.setflags(write=False)
    return spec


def single(*values: Any) -> tuple[float, ...] | None:
    """Values as plain numbers, for rules between them; None if one is absent, an axis, an array or traced."""
    if any(value is None or isinstance(value, Axis | Tracer) or np.ndim(value) for value in values):
        return None
    return tuple(float(np.asarray(value)) for value in values)


def near(name: str, known: Any, few: int = 12) -> str:
    """The end of an error message: the nearest known names, or all where there are at most `few`."""
    known = [str(k) for k in known]
    if len(name) > 100:  # to compare it takes long, and it is like none
        return ""
    close = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=4, cutoff=0.5)
    shown = [k for k in known if k.lower() in close] or (known if len(known) <= few else [])
    return f"; did you mean {', '.join(dict.fromkeys(shown))}?" if shown else ""
