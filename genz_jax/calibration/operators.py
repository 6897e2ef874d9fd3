"""Operators: the form and the constants of every kernel, from rows that time it alone."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from genz_jax.calibration import candidates as c, jobs
from genz_jax.calibration.fit import Fit, fit
from genz_jax.calibration.table import Row
from genz_jax.kernels import Form, Job, Kernels, Overlap, Stream
from genz_jax.kernels.gemm import Gemm, TwoTileGemm
from genz_jax.specs import Platform

USES = {
    "gemm_bf16": ("gemm/bf16", "gemm/fp16"),
    "gemm_fp8": ("gemm/fp8_rowwise", "gemm/fp8", "gemm/fp8_block", "gemm/fp8_tensorwise"),
    "gemm_fp4": ("gemm/nvfp4", "gemm/mxfp4"),
    "experts_bf16": ("experts/bf16",),
    "experts_fp8": ("experts/fp8", "experts/fp8_block"),
    "experts_fp4": ("experts/nvfp4", "experts/mxfp4"),
    "prefill_attention": ("prefill_attention/cudnn", "prefill_attention/flash", "prefill_attention/bf16"),
    "decode_attention": ("decode_attention/split_kv", "decode_attention/flash_packed", "decode_attention/bf16"),
    "norm": ("memory/add_rms_norm",),
    "activation": ("memory/silu_mul",),
    "rotation": ("memory/rotate_and_cache",),
}
"""Kernels that the engine runs, by the names that it looks for them under, the best first."""

EMBEDDING = 9e-6
"""Seconds of a pass's embedding and sampling, assumed: three small kernels and their gaps on an H100."""


Groups = Mapping[str, tuple[str, list[Row]]]
"""Rows by kernel, with the table that they are from."""


def fit_streams(groups: Groups, device: Platform, base: Kernels) -> dict[str, tuple[Form, Fit]]:
    """Fit passes over tensors together: one share of the bandwidth, one bandwidth of the cache."""
    asked = {name: jobs.asked_of(found, where) for name, (where, found) in groups.items()}
    works = {name: jobs.job(asked[name], found[0].name, device, base) for name, (_, found) in groups.items()}
    ranges = dict(c.SHARED)
    for name in groups:
        own = c.OWN | (c.BLOCKS if name == "memory/rotate_and_cache" else {})
        ranges |= {f"{constant}.{name}": bounds for constant, bounds in own.items()}

    def form(name: str, values: Mapping[str, Any]) -> Stream:
        own = {key.partition(".")[0]: value for key, value in values.items() if key.endswith(f".{name}")}
        return c.STREAMS[name].replace(memory_efficiency=values["memory_efficiency"], **own)

    def predict(values: Mapping[str, jax.Array]) -> jax.Array:
        times = []
        for name, work in works.items():
            cached = dataclasses.replace(work, cache_byte=1.0 / values["cache_bandwidth"])
            times.append(form(name, values).seconds(cached))
        return jax.numpy.concatenate(times)

    every = [row for _, found in groups.values() for row in found]
    whole = fit(predict, ranges, measured(every), texts(every))
    parts, start = {}, 0
    for name, (_, found) in groups.items():
        own = slice(start, start := start + len(found))
        kept = {key: v for key, v in whole.values.items() if "." not in key or key.endswith(f".{name}")}
        short = {key: key.partition(".")[0] for key in kept}
        values = {short[key]: value for key, value in kept.items()}
        errors = {short[key]: whole.errors[key] for key in kept}
        parts[name] = form(name, whole.values), Fit(values, errors, whole.held_out[own], whole.residuals[own])
    return parts


def enough(name: str, rows: Sequence[Row]) -> bool:
    """Whether there are two rows for each constant of the smallest form that may stand for a kernel.

    Passes over tensors share two of their three constants.
    """
    if name in c.STREAMS:
        return len(rows) >= 4
    candidates = c.CANDIDATES.get(name) or c.CANDIDATES[rows[0].section]
    return len(rows) >= 2 * min(len(candidate.free) for candidate in candidates)


def fit_kernel(name: str, where: str, rows: Sequence[Row], device: Platform, base: Kernels) -> tuple[Form, Fit]:
    """The form of a kernel's candidates that predicts rows best that it was not fitted on; of `enough` rows."""
    work = jobs.job(jobs.asked_of(rows, where), rows[0].name, device, base)
    tried = []
    for candidate in c.CANDIDATES.get(name) or c.CANDIDATES[rows[0].section]:
        if len(rows) < 2 * len(candidate.free):
            continue
        form, free = _with_known(candidate, name, base)
        tried.append(_determined(form, free, work, rows))
    return min(tried, key=lambda one: one[1].error)


def _with_known(candidate: c.Candidate, name: str, base: Kernels) -> tuple[Form, dict[str, c.Range]]:
    """A candidate that starts from the constants that are known before, where its form is known."""
    kernel = next((kernel for kernel, names in USES.items() if name in names), "")
    known = getattr(base, kernel, None)
    same = known is not None and jax.tree.structure(known) == jax.tree.structure(candidate.form)
    free = dict(candidate.free)
    if same:
        free = {
            key: (float(np.clip(getattr(known, key), low, high)), low, high) for key, (_, low, high) in free.items()
        }
    return candidate.form.replace(**{key: start for key, (start, _, _) in free.items()}), free


def _determined(form: Form, free: Mapping[str, c.Range], work: Job, rows: Sequence[Row]) -> tuple[Form, Fit]:
    """The form with the constants that the rows determine; the others keep what `form` has."""
    free, errors, kept = dict(free), {}, {}
    while True:

        def predict(values: Mapping[str, jax.Array]) -> jax.Array:
            return form.replace(**values).seconds(work)

        found = fit(predict, free, measured(rows), texts(rows))
        loose = [key for key, good in found.determined.items() if not good]
        if not loose or len(loose) == len(free):
            values = found.values if not loose else {key: start for key, (start, _, _) in free.items()}
            return form.replace(**values), dataclasses.replace(
                found, values=values | kept, errors=found.errors | errors
            )
        # One by one, the least determined first: without it the others may be.
        worst = max(loose, key=lambda key: found.errors[key])
        errors[worst], kept[worst] = found.errors[worst], free.pop(worst)[0]


def measured(rows: Sequence[Row]) -> np.ndarray:
    """Seconds of rows."""
    return np.array([row.us for row in rows]) * 1e-6


def texts(rows: Sequence[Row]) -> list[str]:
    """Parameters of rows, as one text each."""
    return [" ".join(f"{key}={value}" for key, value in row.parameters.items()) for row in rows]


def complete(forms: dict[str, Form]) -> list[str]:
    """Add forms that follow from others; what was assumed for them."""
    said = []
    norm, quantise = forms.get("memory/add_rms_norm"), forms.get("memory/quantize_fp8")
    if isinstance(norm, Stream):
        forms["assumed/vector"] = Stream(norm.launch, norm.memory_efficiency)
        said.append("other passes over tensors: launch and bandwidth of the norm")
        if "memory/rotate_and_cache" not in forms:
            forms["assumed/rotation"] = Stream(norm.launch, norm.memory_efficiency, block_time=c.ASSUMED_BLOCK_TIME)
            said.append(f"rotation and cache write: as the norm, {c.ASSUMED_BLOCK_TIME * 1e9:.2f} ns a head and token")
        forms["assumed/embedding"] = Overlap(EMBEDDING)
        said.append(f"embedding and sampling: {EMBEDDING * 1e6:g} us a pass")
    for name, form in forms.items():
        if name == "gemm/fp8_rowwise" and isinstance(form, Gemm | TwoTileGemm) and isinstance(quantise, Stream):
            forms[name] = form.replace(input_launch=quantise.launch, input_bytes=quantise.element_bytes)
            said.append("fp8 products quantise their input in a pass of its own, timed as quantize_fp8")
    return said
