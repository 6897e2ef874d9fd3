"""Fingerprint: all that decides the numbers of a sweep, as text that can be stored and compared."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genz_jax.base.axes import Axis
from genz_jax.base.paths import leaves
from genz_jax.store.regions import Regions

SHOWN = 4
"""Differences that a message tells at most."""


def parameters(regions: Regions) -> dict[str, Any]:
    """Every number, name and choice that a sweep was made with, by name.

    Axes and labels stand as how many values they have, the first, the last and a hash of all.
    """
    job = regions.job
    question = dataclasses.asdict(job.question)
    found = {
        "genz_jax_version": importlib.metadata.version("genz_jax"),
        "genz_jax_code": code(),
        "numbers": "float64" if job.double else "float32",
        **{name: question[name] for name in ("stage", "breakdown", "operators")},
        "figures": None if job.question.figures is None else sorted(job.question.figures),
        **{f"assumptions.{name}": value for name, value in question["assumptions"].items()},
        **{f"{what}.name": name for what, name in job.names.items()},
        "dimensions": list(regions.grid.sizes),
        **{f"labels of {name}": _array(c.values) for name, c in regions.grid.coords.items()},
        **{path: _number(leaf) for path, leaf in leaves(job.case).items()},
        **{f"chunks.{dim}": length for dim, length in regions.shape.items()},
    }
    return json.loads(json.dumps(found))


@functools.cache
def code() -> str:
    """Hash of what computes the numbers: all Python files of the package but those of the command line and plots."""
    root = Path(__file__).parent.parent
    found = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).parts[0] in ("cli", "plots"):
            continue
        found.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def digest(found: Mapping[str, Any]) -> str:
    """Hash of all parameters."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What differs between the parameters of a store and those of a call, for a message; empty if nothing does."""
    names = [name for name in dict.fromkeys([*here, *there]) if there.get(name) != here.get(name)]
    shown = [f"{name} is {_shown(there, name)} there, {_shown(here, name)} here" for name in names[:SHOWN]]
    return "; ".join(shown + ([f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []))


def _shown(found: Mapping[str, Any], name: str) -> str:
    return str(found[name]) if name in found else "absent"


def _number(leaf: Any) -> Any:
    if isinstance(leaf, Axis):
        return f"{_array(leaf.values)} on {', '.join(leaf.dims or ())}"
    return np.asarray(leaf).tolist()


def _array(values: np.ndarray) -> str:
    flat = np.asarray(values).ravel()
    if flat.dtype.kind in "biuf":
        ends, content = (f"{flat[0]:g}", f"{flat[-1]:g}"), np.asarray(flat, "<f8").tobytes()
    else:
        texts = [str(value) for value in flat]
        ends, content = (texts[0], texts[-1]), json.dumps(texts).encode()
    key = hashlib.sha256(json.dumps(np.shape(values)).encode() + content).hexdigest()[:16]
    return f"{flat.size} values from {ends[0]} to {ends[1]} (sha256 {key}…)"
