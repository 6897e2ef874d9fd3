"""Stack: several specs as one whose numbers are arrays, so that a list of them is one axis and one compilation."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from genz_jax.base.axes import Axis
from genz_jax.base.fields import Spec, SpecT
from genz_jax.base.label import Label
from genz_jax.specs import DecodeChunk, NetworkLevel, PrefillChunk


def stack(specs: Sequence[SpecT]) -> SpecT:
    """Stack specs of one class along a new axis.

    A part that some of them lack is filled with one of zero layers, a network level with one that joins nothing new, a
    chunk with one of no tokens, a missing offload link with bandwidth 0, and a format that is as by default with that:
    none of these changes a figure.

    Args:
        specs: at least one spec, with single numbers.

    Returns:
        A spec whose numbers have shape (n,).

    Raises:
        ValueError: no specs, an axis inside one, or a number that only some of them give.

    Example:
        >>> import genz_jax as gz
        >>> both = gz.stack([gz.platform("H100-SXM"), gz.platform("H200")])
        >>> both.mem_bw / 1e12
        array([3.35, 4.8 ])
    """
    if not specs:
        raise ValueError("stack: no specs; a list needs at least one")
    for spec in specs:
        for leaf in jax.tree.leaves(spec):
            if isinstance(leaf, Axis) or np.ndim(leaf):
                raise ValueError(
                    f"{type(spec).__name__} in a list has the axis {leaf!r}: a list takes single specs; sweep its "
                    "numbers with axes of the list's own dimension instead"
                )
    kind = type(specs[0])
    if other := next((type(spec) for spec in specs if type(spec) is not kind), None):
        raise ValueError(
            f"stack: a {kind.__name__} and a {other.__name__}; all must be of one class, so rebuild the "
            f"{other.__name__} as a {kind.__name__}, or the reverse, from its fields"
        )
    specs = kind.alike(specs)
    values = {}
    for field in dataclasses.fields(kind):
        where = f"{kind.__name__}.{field.name}"
        items = [getattr(spec, field.name) for spec in specs]
        if "units" in field.metadata:
            values[field.name] = _numbers(where, items, field.metadata["absent"])
        elif isinstance(items[0], Label):
            known = [item.max_context for item in items if item.max_context is not None]
            values[field.name] = Label("", max_context=min(known, default=None))
        elif field.metadata.get("static"):
            values[field.name] = items[0]  # `alike` has seen to it that all are equal
        elif any(isinstance(item, tuple) for item in items):
            values[field.name] = _tuples(items)
        else:
            values[field.name] = _parts(items)
    return kind(**values)


def _numbers(where: str, items: list, absent: float | None) -> np.ndarray | None:
    missing = [item is None for item in items]
    if all(missing):
        return None
    if any(missing):
        if absent is None:
            raise ValueError(f"{where}: given for some of a list's specs only; give it for all or for none")
        items = [absent if item is None else item for item in items]
    return np.array([float(item) for item in items])


def _parts(items: list) -> Spec | None:
    there = [item for item in items if item is not None]
    if not there:
        return None
    absent = there[0].absent() if len(there) < len(items) else there[0]
    return stack([absent if item is None else item for item in items])


def _empty(item: Spec) -> Spec:
    """What pads a tuple whose last item is `item`."""
    if isinstance(item, NetworkLevel):
        return item
    if isinstance(item, PrefillChunk):
        return PrefillChunk(0, 0)
    return DecodeChunk(0, 0, 0, 0) if isinstance(item, DecodeChunk) else item.absent()


def _tuples(items: list[tuple]) -> tuple:
    length = max(len(item) for item in items)
    filler = next((item[-1] for item in items if item), None)
    if filler is None:
        return ()
    padded = [
        item if len(item) == length else item + (_empty(item[-1] if item else filler),) * (length - len(item))
        for item in items
    ]
    return tuple(stack([item[i] for item in padded]) for i in range(length))


def take(spec: SpecT, index: np.ndarray) -> SpecT:
    """Entries of a stacked spec, by index along its axis."""
    return jax.tree.map(lambda leaf: leaf[index], spec)
