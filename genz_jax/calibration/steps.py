"""Steps: whole forward passes of tables, as the engine computes them, and the constants that only they show."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from genz_jax import catalog
from genz_jax.base.axes import Axis
from genz_jax.calibration.fit import Fit, fit
from genz_jax.calibration.table import Row
from genz_jax.kernels import Form, Kernels, Routing
from genz_jax.specs import Model, Platform, Workload
from genz_jax.specs.assumptions import Assumptions

FORMATS = {"bf16": "bf16", "fp8": "fp8-fp8-bf16/scores=bf16/embedding=bf16"}
"""Precision of a step by its parameter `format`."""

PHYSICS = Assumptions(prefill="whole", infeasible="finite")
"""A row is one pass whatever its size, also where it would not fit."""

RANGES = {"derating": (0.09, 1e-4, 2.0), "launch": (60e-6, 1e-7, 1e-2), "passes": (16.0, 0.1, 200.0)}
"""Constants that steps alone show: the slowdown at the power limit, and routing of an MoE layer."""


def kind_of(row: Row) -> str:
    """Stage, model and format of a row of steps, as errors are told by."""
    return f"{row.section}/{row.name}/{row.parameters.get('format', 'bf16')}"


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows of one model, format and stage."""

    rows: tuple[int, ...]
    model: Model
    precision: str
    stage: str
    attention: str | None


def batches(rows: Sequence[Row], where: str, strict: bool = True) -> list[Batch]:
    """Rows that one sweep computes together.

    Args:
        rows: rows of steps.
        where: the table, for errors.
        strict: refuse rows of unknown models and formats; else they are left out.

    Raises:
        ValueError: such a row, or one without a parameter that it needs.
    """
    found: dict[tuple[str, ...], list[int]] = {}
    for i, row in enumerate(rows):
        try:
            needed = ("layers", "batch", "context" if row.section == "decode" else "tokens")
            layers, *_ = [row.number(key) for key in needed]
            _model(row.name, layers)
            if (text := row.parameters.get("format", "bf16")) not in FORMATS:
                raise ValueError(f"format = {text!r}: must be one of {', '.join(FORMATS)}")
        except ValueError as error:
            if strict:
                raise ValueError(f"table {where!r}, line {row.line}: {error}") from None
            continue
        attention = row.parameters.get("attention", "")
        found.setdefault((row.section, row.name, f"{layers:g}", text, attention), []).append(i)
    return [
        Batch(tuple(places), _model(name, float(layers)), FORMATS[text], section, attention or None)
        for (section, name, layers, text, attention), places in found.items()
    ]


def _model(name: str, layers: float) -> Model:
    """A model of the catalogue, cut to some layers of each kind in proportion."""
    whole = catalog.model(name)
    share = layers / float(whole.layers)
    parts = {
        f"{field.name}.layers": float(part.layers) * share
        for field in dataclasses.fields(whole)
        if (part := getattr(whole, field.name)) is not None and hasattr(part, "layers")
    }
    return whole.replace(layers=layers, **parts)


def seconds(
    rows: Sequence[Row], batched: Sequence[Batch], platform: Platform, attention: Mapping[str, Form]
) -> np.ndarray:
    """Time of every row on a platform; NaN for rows of no batch.

    Args:
        rows: the rows.
        batched: what is computed together.
        platform: the device with its kernels.
        attention: form of prefill attention by the word that rows have for it.
    """
    from genz_jax.questions.sweep import sweep

    times = np.full(len(rows), np.nan)
    for batch in batched:
        own = platform
        if batch.attention is not None and batch.attention in attention and platform.kernels is not None:
            kernels = platform.kernels.replace(prefill_attention=attention[batch.attention])
            own = platform.replace(kernels=kernels)
        decodes = batch.stage == "decode"
        tokens = [rows[i].number("context") - 1.0 if decodes else rows[i].number("tokens") for i in batch.rows]
        sizes = {"batch": [rows[i].number("batch") for i in batch.rows], "input_tokens": tokens}
        axes: dict[str, Any] = {name: Axis(np.array(values), ("row",), listed=True) for name, values in sizes.items()}
        load = Workload(**axes, output_tokens=2.0 if decodes else 1.0)
        options = {"stage": batch.stage, "assumptions": PHYSICS, "figures": ["latency"], "progress": False}
        found = sweep(batch.model, own, load, None, batch.precision, **options)
        times[list(batch.rows)] = np.broadcast_to(found["latency"].values, len(batch.rows))
    return times


def fit_steps(
    rows: Sequence[Row], where: str, platform: Platform, attention: Mapping[str, Form]
) -> tuple[Kernels, Fit, np.ndarray]:
    """Fit what only whole steps show: the slowdown at the power limit, and the launches and passes of routing.

    A pass takes t = t₀ + L·r₀ + passes·c, slowed to t·(1 + δ·b/(t + τ)), where the engine gives t₀, c and b, the time
    of compute-bound kernels.

    Args:
        rows: rows of steps.
        where: the table, for errors.
        platform: the device, with kernels fitted on operators.
        attention: form of prefill attention by the word that rows have for it.

    Returns:
        The kernels with these constants, the fit, and the predicted time of every row.

    Raises:
        ValueError: a row of an unknown model or format.
    """
    batched = batches(rows, where)
    kernels = platform.kernels
    assert kernels is not None
    share = 0.9 if kernels.norm is None else float(getattr(kernels.norm, "memory_efficiency", 0.9))
    none = kernels.replace(derating=0.0, routing=Routing(0.0, 0.0, share))

    def run(changed: Kernels) -> np.ndarray:
        return seconds(rows, batched, platform.replace(kernels=changed), attention)

    plain = run(none)
    tau = float(none.derating_time)
    bound = (run(none.replace(derating=1.0)) / plain - 1.0) * (plain + tau)
    one = run(none.replace(routing=Routing(0.0, 1.0, share))) - plain
    routed = np.where(one > 1e-9 * plain, [row.number("layers") for row in rows], 0.0)
    measured = np.array([row.us for row in rows]) * 1e-6

    def predict(values: Mapping[str, jax.Array]) -> Any:
        whole = plain + routed * values["launch"] + np.where(routed > 0, one, 0.0) * values["passes"]
        return whole * (1.0 + values["derating"] * bound / (whole + tau))

    texts = [f"{row.section} {row.name} {row.parameters}" for row in rows]
    found = fit(predict, RANGES, measured, texts)
    kept = found.determined
    routing = kernels.routing
    if kept["launch"] or kept["passes"]:
        routing = Routing(found.values["launch"], found.values["passes"], share)
    derating = found.values["derating"] if kept["derating"] else float(kernels.derating)
    changed = kernels.replace(routing=routing, derating=derating)
    return changed, found, run(changed)
