"""Calibrate: kernels of a device from its tables."""

import dataclasses
import datetime
import os
from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from genz_jax.calibration import candidates as c, jobs, steps
from genz_jax.calibration.fit import Fit
from genz_jax.calibration.operators import USES, Groups, complete, enough, fit_kernel, fit_streams, measured
from genz_jax.calibration.result import Calibration, Error, Parameter
from genz_jax.calibration.table import Row, read_table, unknown
from genz_jax.catalog import ideal_kernels, platform as find_platform
from genz_jax.catalog.kernel_files import KernelLibrary
from genz_jax.kernels import KERNELS, Form, Kernels, Routing
from genz_jax.specs import Platform

Fits = Mapping[str, tuple[Form, Fit]]

_SHARED = ("processors", "cache_capacity", "cache_bandwidth", "derating", "derating_time")


def calibrate(
    tables: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    platform: str | Platform,
    *,
    title: str | None = None,
    progress: bool = True,
) -> Calibration:
    """Fit the kernels of a device to measured tables.

    For every kernel the forms of `candidates` are fitted by robust least squares of ln(predicted/measured); the form
    that predicts rows best that it was not fitted on is taken. Whole steps give only the slowdown at the power limit
    and two constants of routing. Constants that the rows do not determine keep the platform's own.

    Args:
        tables: CSV files of `genz-jax measure`, or of its columns.
        platform: the device: a name, a platform file, or a `gz.Platform`, whose rates are taken as they are.
        title: what the result is called; by default the platform and the tables.
        progress: show a progress bar.

    Returns:
        The calibration; `.platform` goes into every verb, `.save(path)` writes it.

    Raises:
        ValueError: a table that cannot be right, with the line and the reason; too few rows for any kernel.

    Example:
        >>> import genz_jax as gz, tempfile
        >>> lines = ["section,name,parameters,us,us_min,watts"]
        >>> for n in (4096, 8192, 16384):
        ...     for k in (2048, 4096, 8192, 16384):
        ...         lines.append(f"gemm,bf16,m=1 n={n} k={k},{2 + n * k / 1.5e6},{2 + n * k / 1.5e6},")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with open(f"{folder}/mine.csv", "w") as file:
        ...         print(*lines, sep=chr(10), file=file)
        ...     found = gz.calibrate(f"{folder}/mine.csv", "H100-SXM", progress=False)
        >>> found.errors["gemm/bf16"].error < 0.1
        True
        >>> found.platform.basis.startswith("measured kernels: H100-SXM")
        True
    """
    paths = [tables] if isinstance(tables, str | os.PathLike) else list(tables)
    device = platform if isinstance(platform, Platform) else find_platform(platform)
    rows = {str(path): read_table(path) for path in paths}
    every = _grouped(rows)
    grouped = {name: found for name, found in every.items() if enough(name, found[1])}
    if not grouped and device.kernels is None:
        said = "; ".join(f"{len(found)} of {name}" for name, (_, found) in every.items()) or "steps alone"
        raise ValueError(f"tables: too few rows of operators for the constants of any kernel ({said}); measure more")
    base = device.kernels or ideal_kernels(device)
    fits: dict[str, tuple[Form, Fit]] = {}
    streams = {name: found for name, found in grouped.items() if name in c.STREAMS}
    others = {name: found for name, found in grouped.items() if name not in c.STREAMS}
    cache = float(base.cache_bandwidth)
    with tqdm(total=len(others) + bool(streams) + 1, unit="kernel", leave=False, disable=not progress) as bar:
        if streams:
            fits |= (joint := fit_streams(streams, device, base))
            cache = next(iter(joint.values()))[1].values["cache_bandwidth"]
            bar.update()
        base = base.replace(cache_bandwidth=cache)
        for name, (where, found) in others.items():
            fits[name] = fit_kernel(name, where, found, device, base)
            bar.update()
        library = _library(fits, rows, device, base, title)
        library.notes["too_few_rows"] = [name for name in every if name not in grouped]
        found = _calibration(library, fits, grouped)
        for where, table in rows.items():
            if whole := [row for row in table if row.section in jobs.STEPS]:
                found = _with_steps(found, whole, where)
        bar.update()
    return _labelled(found, fits)


def _grouped(rows: Mapping[str, Sequence[Row]]) -> Groups:
    """Rows of operators by kernel, with the table that they are from."""
    found: dict[str, tuple[str, list[Row]]] = {}
    for where, table in rows.items():
        for row in table:
            if row.section in jobs.STEPS:
                continue
            if jobs.section_of(row) is None:
                known = sorted({*jobs.SECTIONS, *jobs.STEPS})
                raise ValueError(f"table {where!r}, line {row.line}: {unknown('section', jobs.kernel_of(row), known)}")
            found.setdefault(jobs.kernel_of(row), (where, []))[1].append(row)
    for where, own in found.values():
        jobs.asked_of(own, where)  # refuses bad rows, also of a kernel of which there are too few
    return found


def _library(
    fits: Fits, rows: Mapping[str, Sequence[Row]], device: Platform, base: Kernels, title: str | None
) -> KernelLibrary:
    """All forms, and which of them the engine uses for what."""
    forms = {name: form for name, (form, _) in fits.items()}
    assumed = complete(forms)
    use = {kernel: name for kernel, names in USES.items() for name in names[::-1] if name in forms}
    use |= {name: f"assumed/{name}" for name in ("rotation", "vector", "embedding") if f"assumed/{name}" in forms}
    before = {name: form for name in KERNELS if (form := getattr(base, name)) is not None and name not in use}
    forms |= {f"known/{name}": form for name, form in before.items()}
    use |= {name: f"known/{name}" for name in before}
    label = title or f"{device.name or 'platform'}, {', '.join(os.path.basename(path) for path in rows)}"
    notes = {
        "written": datetime.date.today().isoformat(),
        "tables": [os.path.basename(path) for path in rows],
        "rows": sum(len(table) for table in rows.values()),
        "assumed": assumed,
    }
    numbers = {name: float(getattr(base, name)) for name in _SHARED}
    return KernelLibrary(label, device, forms, use, numbers, {}, notes)


def _calibration(library: KernelLibrary, fits: Fits, grouped: Groups) -> Calibration:
    points = []
    for name, (_, found) in fits.items():
        times = measured(grouped[name][1])
        points.append((name, times, times * np.exp(found.residuals)))
    parameters = {name: Parameter.of(found) for name, (_, found) in fits.items()}
    return Calibration(
        library, parameters, {name: Error.of(found.held_out) for name, (_, found) in fits.items()}, points
    )


def _with_steps(calibration: Calibration, rows: Sequence[Row], where: str) -> Calibration:
    """The calibration with what whole steps show."""
    library = calibration.library
    prefill = "prefill_attention/"
    attention = {name.removeprefix(prefill): form for name, form in library.forms.items() if name.startswith(prefill)}
    timed = library.platform.replace(kernels=library.kernels())
    kernels, found, predicted = steps.fit_steps(rows, where, timed, attention)
    errors, points, times = dict(calibration.errors), list(calibration.points), measured(rows)
    kinds = np.array([steps.kind_of(row) for row in rows])
    for kind in dict.fromkeys(kinds.tolist()):
        own = kinds == kind
        errors[kind] = Error.of(np.log(predicted[own] / times[own]))
        points.append((kind, times[own], predicted[own]))
    forms, use = dict(library.forms), dict(library.use)
    if isinstance(kernels.routing, Routing):
        forms["steps/routing"], use["routing"] = kernels.routing, "steps/routing"
    device = library.device | {"derating": float(kernels.derating)}
    changed = dataclasses.replace(library, forms=forms, use=use, device=device)
    return Calibration(changed, calibration.parameters | {"steps": Parameter.of(found)}, errors, points)


def _labelled(calibration: Calibration, fits: Fits) -> Calibration:
    """The calibration whose library has the errors and the platform with its kernels."""
    spreads = {name: float(np.sqrt(np.mean(found.held_out**2))) for name, (_, found) in fits.items()}
    errors = {
        name: dataclasses.asdict(error) | ({"spread": spreads[name]} if name in spreads else {})
        for name, error in calibration.errors.items()
    }
    library = calibration.library
    notes = library.notes | {"undetermined": calibration.undetermined}
    library = dataclasses.replace(library, errors=errors, notes=notes)
    library = dataclasses.replace(library, platform=library.platform.replace(kernels=library.kernels()))
    return dataclasses.replace(calibration, library=library)
