"""Labels: axes of specs to arrays of one rank, and arrays back to an `xarray.Dataset`. The only file with xarray."""

import dataclasses
import datetime
import enum
import functools
import importlib.metadata
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
import xarray as xr

from genz_jax.base import units
from genz_jax.base.axes import Axis
from genz_jax.base.fields import Spec, field_at
from genz_jax.base.formats import Format
from genz_jax.base.paths import leaves, path_of
from genz_jax.labelled import context_limit
from genz_jax.serving.evaluate import Case, Question
from genz_jax.serving.results import MemoryResult, RequestResult, SpeculativeResult, StageResult
from genz_jax.specs import Platform
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.figures import BOUNDS, FORMAT_WORDS, Bound, Result
from genz_jax.specs.reasons import REASONS, Reason
from genz_jax.work.operators.operator import COMPONENTS

Tree = TypeVar("Tree")
Specs = TypeVar("Specs", bound=eqx.Module)
"""A pytree of specs: a `Case`, or another set of them."""

_MEANINGS = {Bound: BOUNDS, Reason: REASONS, Format: FORMAT_WORDS}


class Coordinate(eqx.Module):
    """Values along dimensions, with their unit and description."""

    dims: tuple[str, ...]
    values: np.ndarray
    attrs: dict[str, str]


class Grid(eqx.Module):
    """The dimensions of a sweep, in order, and what their places stand for."""

    sizes: dict[str, int]
    coords: dict[str, Coordinate]

    @property
    def points(self) -> int:
        """Points of the whole grid."""
        return int(np.prod(list(self.sizes.values()), dtype=float))


def _is_axis(value: Any) -> bool:
    return isinstance(value, Axis)


_FIGURES = {
    field.name.removesuffix("_code")
    for kind in (RequestResult, StageResult, SpeculativeResult, MemoryResult)
    for field in dataclasses.fields(kind)
}


def short_name(path: str) -> str:
    """Name of the number at a path: its field's, or more of the path where that could mean another thing."""
    number = path.removeprefix("platform.")
    if number != path and Platform.short(number) != number:
        return Platform.short(number)
    *outer, last = path.split(".")
    unclear = last in _FIGURES or any(step.isdigit() for step in outer)
    return "_".join([*outer[-2:], last]).removeprefix("platform_") if unclear else last


def name_axes(case: Specs) -> Specs:
    """A case whose axes without a dimension have one of the name of their field.

    Raises:
        ValueError: two fields would give their axes the same name.
    """
    paths: dict[str, str] = {}

    def name(keys: tuple, leaf: Any) -> Any:
        if not _is_axis(leaf) or leaf.dims is not None:
            return leaf
        path = path_of(keys)
        first = paths.setdefault(short_name(path), path)
        if first != path:
            raise ValueError(
                f"{path} and {first}: both have an axis named {short_name(path)!r}; name them with "
                "gz.axis(values, dim=…), the same name to zip them, different names to cross them"
            )
        return leaf.named(short_name(path))

    return jax.tree_util.tree_map_with_path(name, case, is_leaf=_is_axis)


def axes_of(case: eqx.Module) -> dict[str, Axis]:
    """All axes of a case by the dotted path of their field."""
    return {path: leaf for path, leaf in leaves(case).items() if _is_axis(leaf)}


def refuse_bare_arrays(case: Case) -> None:
    """Raise ValueError if a number is an array without named dimensions."""
    if all(_is_axis(leaf) or not np.ndim(leaf) for leaf in jax.tree.leaves(case, is_leaf=_is_axis)):
        return
    for path, leaf in leaves(case).items():
        if not _is_axis(leaf) and np.ndim(leaf):
            raise ValueError(
                f"{path}: an array of {np.size(leaf)} values without a dimension; write gz.axis(values), for gz.sweep"
            )


def read_grid(case: eqx.Module) -> Grid:
    """The dimensions of a case's axes, crossed in the order of the fields.

    Raises:
        ValueError: axes of one dimension differ in length or labels, or an axis has a value twice.
    """
    sizes: dict[str, int] = {}
    owner: dict[str, str] = {}
    coords: dict[str, Coordinate] = {}
    for path, axis in axes_of(case).items():
        assert axis.dims is not None
        for dim, size in zip(axis.dims, axis.values.shape, strict=True):
            if dim in _FIGURES:
                raise ValueError(f"{path}: its dimension {dim!r} has the name of a figure; give it another name")
            first = owner.setdefault(dim, path)
            if sizes.setdefault(dim, size) != size:
                raise ValueError(
                    f"{path}: {size} values on dimension {dim!r}, but {first} has {sizes[dim]}; zipped axes need "
                    "the same number of values"
                )
        for dim, labels in axis.coords.items():
            if dim not in coords:
                coords[dim] = Coordinate((dim,), np.asarray(labels), {"long_name": dim} | axis.attrs.get(dim, {}))
            elif not np.array_equal(coords[dim].values, labels):
                raise ValueError(f"{path}: its labels on dimension {dim!r} differ from those of {owner[dim]}")
    for path, axis in axes_of(case).items():
        assert axis.dims is not None
        if axis.listed:
            continue
        name = short_name(path)
        if name in coords:
            name = path.replace(".", "_")
        meta = field_at(case, path)
        attrs = {"units": meta["units"], "long_name": meta["long_name"]}
        if axis.dims == (name,) and len(np.unique(axis.values)) != axis.values.size:
            values, counts = np.unique(axis.values, return_counts=True)
            raise ValueError(f"{path}: the axis has the value {values[counts > 1][0]:g} twice; give each value once")
        coords.setdefault(name, Coordinate(axis.dims, axis.values, attrs))
    return Grid(sizes, coords)


def to_arrays(case: Specs, order: tuple[str, ...]) -> Specs:
    """A case whose axes are arrays of one rank, dimension k of length n_k at place k of `order`, elsewhere 1."""

    def place(leaf: Any) -> Any:
        if not _is_axis(leaf):
            return leaf
        places = sorted(range(len(leaf.dims)), key=lambda k: order.index(leaf.dims[k]))
        values = np.transpose(leaf.values, places)
        shape = [1] * len(order)
        for k in places:
            shape[order.index(leaf.dims[k])] = leaf.values.shape[k]
        return values.reshape(shape)

    return jax.tree.map(place, case, is_leaf=_is_axis)


# ------------------------------------------------------------------------------------------------------ Dataset out


def flat_figures(result: Result, prefix: str = "") -> dict[str, tuple[Any, dict[str, Any]]]:
    """All figures of a result by variable name, those of its stages, components and operators included.

    Args:
        result: a result whose leaves are anything that stands for an array.
        prefix: what the names begin with.

    Returns:
        Value and metadata by name. Components and operators have a dict of values.
    """
    found = {prefix + name: figure for name, figure in result.figures().items()}
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if value is None:
            continue
        if isinstance(value, Result):
            inner = flat_figures(value, f"{field.name}_")
            found |= {name: figure for name, figure in inner.items() if name not in found}
        elif field.name == "breakdown":
            meta = {"units": units.SECOND, "long_name": "latency by component", "dim": "component"}
            found[f"{prefix}breakdown"] = (value, meta)
        elif field.name == "operators":
            first = next(iter(value.values()))
            for name, (_, meta) in first.figures().items():
                values = {op: result.figures()[name][0] for op, result in value.items()}
                found[f"{prefix}operator_{name}"] = (values, meta | {"dim": f"{prefix}operator"})
    return found


def to_dataset(
    values: dict[str, tuple[Any, tuple[str, ...], dict[str, Any]]],
    grid: Grid,
    case: Case,
    names: dict[str, str],
    question: Question,
) -> xr.Dataset:
    """Label the figures of a sweep.

    Args:
        values: array, dimensions and metadata by name; an array of components or operators has theirs first.
        grid: dimensions and coordinates.
        case: the case that was asked for, for the record.
        names: what its parts are called.
        question: what was asked.

    Returns:
        A Dataset whose variables have `units` and `long_name`, codes also `flag_values` and `flag_meanings`, and whose
        attributes say all that went in.
    """
    variables: dict[str, Any] = {}
    coords: dict[str, Any] = {name: (list(c.dims), c.values, dict(c.attrs)) for name, c in grid.coords.items()}
    for name, (array, dims, meta) in values.items():
        attrs: dict[str, Any] = {"units": meta["units"], "long_name": meta["long_name"]}
        if "codes" in meta:
            members = list(meta["codes"])
            attrs["flag_values"] = np.array([m.value for m in members], dtype=np.int8)
            attrs["flag_meanings"] = " ".join(m.name for m in members)
            meanings = meta.get("meanings") or _MEANINGS[meta["codes"]]
            attrs["flag_descriptions"] = "; ".join(meanings[m] for m in members)
        variables[name] = (list(dims), array, attrs)
        if "dim" in meta:
            coords[meta["dim"]] = ([meta["dim"]], np.array(meta["labels"]), {"long_name": meta["dim"]})
    if "component" in coords:
        described = [COMPONENTS[name] for name in coords["component"][1]]
        coords["component_description"] = (["component"], np.array(described), {"long_name": "what it is"})
    dataset = xr.Dataset(variables, coords, _attributes(case, names, question))
    return dataset.transpose(*grid.sizes, ...)


def plain_dataset(
    values: Mapping[str, tuple[Any, tuple[str, ...], Mapping[str, Any]]],
    coords: Mapping[str, Coordinate],
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Label arrays that are not the figures of a stage.

    Args:
        values: array, dimensions, and metadata with `units` and `long_name`, by name.
        coords: coordinates by name.
        attrs: attributes beside the versions and the time.
    """
    variables: dict[str, Any] = {}
    for name, (array, dims, meta) in values.items():
        variables[name] = (list(dims), np.asarray(array), {key: meta[key] for key in ("units", "long_name")})
    labelled: dict[str, Any] = {name: (list(c.dims), c.values, dict(c.attrs)) for name, c in coords.items()}
    made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    versions = {"genz_jax_version": _version(), "jax_version": jax.__version__, "created": made}
    return xr.Dataset(variables, labelled, {**(attrs or {}), **versions})


def without_coordinates(values: Mapping[str, tuple[Any, Any, Any]]) -> xr.Dataset:
    """A Dataset of dimensions, values and attributes by name."""
    return xr.Dataset(dict(values))


def map_regions(function: Callable[..., xr.Dataset], places: xr.Dataset, template: xr.Dataset, **given: Any) -> Any:
    """A Dataset like the template, of what a function makes of each chunk of the places, when it is used."""
    # Coordinates are set once; chunks that had them would hash and compare them, each its part.
    bare = template.drop_vars(list(template.coords))
    found = xr.map_blocks(function, places, kwargs=given, template=bare)
    return found.assign_coords(template.coords).assign_attrs(template.attrs)


def open_store(path: str | os.PathLike) -> xr.Dataset:
    """A Zarr store as a Dataset, read from the disk as it is used."""
    return xr.open_zarr(path, chunks=None, consolidated=False)


@functools.cache
def _version() -> str:
    return importlib.metadata.version("genz_jax")


def _attributes(case: Case, names: dict[str, str], question: Question) -> dict[str, str]:
    """What went in, as text: titles, versions, assumptions, and every number of the specs."""

    def plain(leaf: Any) -> Any:
        if _is_axis(leaf):
            return {"dims": list(leaf.dims), "size": int(leaf.values.size)}
        return np.asarray(leaf).tolist()

    def tree(spec: Any) -> Any:
        if isinstance(spec, Spec | Case):
            fields = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
            return {name: tree(value) for name, value in fields.items() if value is not None and name != "label"}
        return [tree(item) for item in spec] if isinstance(spec, tuple) else plain(spec)

    beyond = context_limit.beyond(case, names["model"], question.stage)
    return {
        **({} if beyond is None else {"context_beyond_maximum": json.dumps(beyond)}),
        "kernels": basis(case, question.assumptions),
        "title": f"genz_jax {question.stage}: {names['model']} on {names['platform']}"[:200],
        "stage": question.stage,
        **{f"{what}_name": name for what, name in names.items()},
        "assumptions": json.dumps(dataclasses.asdict(question.assumptions)),
        "case": json.dumps(tree(case)),
        "genz_jax_version": _version(),
        "jax_version": jax.__version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def basis(case: Case, assumptions: Assumptions) -> str:
    """What times of a case rest on: ideal kernels, or whose measured ones."""
    return (case.platform if assumptions.measured_kernels else case.platform.ideal()).basis


def joined(datasets: Sequence[xr.Dataset], dim: str) -> xr.Dataset:
    """Datasets with the same variables, one after another along a dimension that all variables have."""
    return xr.concat(datasets, dim, data_vars="minimal", coords="minimal", compat="override", combine_attrs="override")


def words(codes: Any) -> Any:
    """The words that a coded variable (`bound`, `reason`) stands for.

    Args:
        codes: a variable with `flag_values` and `flag_meanings`, also after a trip through a file; or what results
            have: words, which stay as they are, members of an enumeration, or `reason_code` of one point or of many.

    Returns:
        Words in the same form: a DataArray, a text or an array of texts.

    Raises:
        ValueError: it has no codes.

    Example:
        >>> import genz_jax as gz
        >>> ds = gz.sweep("llama-3.1-8b", "H100-SXM", gz.Workload(batch=gz.axis([1, 8, 64])))
        >>> [str(word) for word in gz.words(ds.reason).values]
        ['feasible', 'feasible', 'feasible']
    """
    if not isinstance(codes, xr.DataArray):
        return _plain_words(codes)
    if "flag_meanings" not in codes.attrs:
        raise ValueError(f"{codes.name}: no flag_meanings; only coded variables such as bound and reason have words")
    meanings = np.array([*codes.attrs["flag_meanings"].split(), "unwritten"])  # a store has −1 where nothing is yet
    kept = {k: v for k, v in codes.attrs.items() if not k.startswith("flag_")}
    return xr.DataArray(meanings[codes.values.astype(int)], codes.coords, codes.dims, codes.name, kept)


def _plain_words(codes: Any) -> Any:
    """Words of what is not labelled."""
    if isinstance(codes, enum.Enum):
        return codes.name
    array = np.asarray(codes)
    if array.dtype.kind == "U":
        known = {member.name for kind in _MEANINGS for member in kind}
        if unknown := sorted(set(array.ravel().tolist()) - known):
            raise ValueError(f"words: {unknown[0]!r} is no reason, bound or format")
        return str(array) if array.ndim == 0 else array
    names = np.array([member.name for member in Reason])
    if array.dtype.kind not in "iu" or (array.size and not (0 <= array.min() and array.max() < len(names))):
        raise ValueError(f"words: {codes!r}: must be a coded variable, words, or codes of a reason")
    found = names[array]
    return str(found) if found.ndim == 0 else found


def probe(case: Case, order: tuple[str, ...]) -> Case:
    """Shapes of a case whose axes all have length 2: what an output's shape then shows is what it depends on."""

    def shape(leaf: Any) -> Any:
        if not _is_axis(leaf):
            return leaf
        sizes = tuple(2 if dim in leaf.dims else 1 for dim in order)
        return jax.ShapeDtypeStruct(sizes, np.dtype(float))

    return jax.tree.map(shape, case, is_leaf=_is_axis)
