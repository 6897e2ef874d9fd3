"""The commands `models`, `platforms` and `workloads`: what the catalogue has."""

import fnmatch
from typing import TYPE_CHECKING, Any

from genz_jax.cli import options as o

if TYPE_CHECKING:
    from genz_jax.base.fields import Spec


def _matching(what: str, names: list[str], pattern: str) -> dict[str, Any]:
    """What the catalogue says about the entries that match a pattern, by name.

    Raises:
        ValueError: none matches.
    """
    from genz_jax import catalog
    from genz_jax.catalog.names import nearest

    wanted = pattern.lower() if any(c in pattern for c in "*?") else f"*{pattern.lower()}*"
    entries = {name: catalog.about(what, name) for name in names}
    found = {
        name: entry
        for name, entry in entries.items()
        if any(
            fnmatch.fnmatchcase(text.lower(), wanted.replace("[", "[[]"))  # only * and ? mean something
            for text in (name, *entry.aliases, str(entry.notes.get("vendor", "")))
        )
    }
    if not found:
        close = nearest(pattern, {name: entry.aliases for name, entry in entries.items()})
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise ValueError(f"PATTERN = {pattern!r}: no {what} matches{hint}")
    return found


def _numbers(spec: "Spec") -> dict[str, float | None]:
    """Numbers of a spec by path, in base units."""

    from genz_jax.base.fields import at

    values = {path: at(spec, path) for path in spec.paths()}
    return {path: None if value is None else float(value) for path, value in values.items()}


def _described(entry: Any, spec: "Spec", **more: Any) -> dict[str, Any]:
    about = {"aliases": list(entry.aliases), "source": entry.source, **entry.notes}
    return {"numbers": _numbers(spec), **more, **about}


def models(pattern: o.Pattern = "*", json: o.Json = False) -> None:
    """List the models: layers, width, parameters, longest context."""
    import dataclasses

    import numpy as np

    from genz_jax import catalog, parameter_count
    from genz_jax.cli import show
    from genz_jax.specs.stack import stack
    from genz_jax.work.layers.registry import layers_of

    found = _matching("model", catalog.models(), pattern)
    specs = {name: catalog.model(name) for name in found}
    together = dataclasses.asdict(parameter_count(stack(list(specs.values()))))
    together = {part: np.broadcast_to(count, (len(specs),)) for part, count in together.items()}
    counts = {name: {part: float(count[i]) for part, count in together.items()} for i, name in enumerate(specs)}
    if json:
        described = {}
        for name, spec in specs.items():
            described[name] = _described(found[name], spec, parameter_count=counts[name])
        show.print_json(described)
        return
    rows = []
    for name, spec in specs.items():
        kinds = [f"{kind} {float(part.layers):g}" for kind, part, _ in layers_of(spec) if hasattr(spec, kind)]
        context = found[name].notes.get("max_context")
        rows.append(
            (
                name,
                ", ".join(kinds),
                f"{float(spec.layers):g}",
                f"{float(spec.hidden_size):,.0f}",
                f"{counts[name]['total'] / 1e9:,.4g}",
                f"{counts[name]['active'] / 1e9:,.4g}",
                f"{context:,}" if context else "–",
            )
        )
    headers = [(text, "right") for text in ("layers", "hidden size", "parameters, 1e9", "active, 1e9", "max context")]
    show.table("", [("model", "left"), ("kinds of layers", "left"), *headers], rows)


def platforms(pattern: o.Pattern = "*", json: o.Json = False) -> None:
    """List the platforms: rates, memory, links, power."""
    from genz_jax import catalog
    from genz_jax.base import units
    from genz_jax.cli import show

    found = _matching("platform", catalog.platforms(), pattern)
    specs = {name: catalog.platform(name) for name in found}
    if json:
        show.print_json({name: _described(found[name], spec) for name, spec in specs.items()})
        return
    rows = []
    for name, spec in specs.items():
        notes = found[name].notes
        values = [
            (spec.flops, units.FLOP_RATE),
            (spec.flops * spec.rates.fp8, units.FLOP_RATE),
            (spec.mem_capacity, units.BYTE),
            (spec.mem_bw, units.BYTE_RATE),
            (spec.link_bw, units.BYTE_RATE),
            (spec.power, units.WATT),
        ]
        cells = [units.show(float(value), unit) for value, unit in values]
        rows.append((name, str(notes.get("vendor", "–")), str(notes.get("year", "–")), *cells))
    headers = [(text, "right") for text in ("year", "bf16", "fp8", "memory", "bandwidth", "link", "power")]
    show.table("", [("platform", "left"), ("vendor", "left"), *headers], rows)


def workloads(pattern: o.Pattern = "*", json: o.Json = False) -> None:
    """List the workloads: requests, tokens, latency objectives."""
    from genz_jax import catalog
    from genz_jax.cli import show

    found = _matching("workload", catalog.workloads(), pattern)
    specs = {name: catalog.workload(name) for name in found}
    if json:
        show.print_json({name: _described(found[name], spec) for name, spec in specs.items()})
        return
    rows = []
    for name, spec in specs.items():
        sizes = (spec.batch, spec.beams, spec.input_tokens, spec.output_tokens)
        limits = [str(found[name].notes.get(limit, "–")) for limit in ("ttft", "tpot")]
        rows.append((name, *(f"{float(size):,.0f}" for size in sizes), *limits))
    headers = [(text, "right") for text in ("batch", "beams", "input", "output", "ttft below", "tpot below")]
    show.table("", [("workload", "left"), *headers], rows)
