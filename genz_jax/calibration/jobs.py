"""Jobs: rows of operators as runs of kernels on a platform."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from genz_jax.base.formats import Format
from genz_jax.calibration.table import Row, unknown
from genz_jax.kernels import Job, Kernels
from genz_jax.machine.roofline import native_format
from genz_jax.specs import Platform

Numbers = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What runs ask for: operations, bytes, bytes of the result, sizes; arrays over rows."""

    flops: np.ndarray
    bytes: np.ndarray
    output: np.ndarray
    sizes: Numbers


@dataclasses.dataclass(frozen=True)
class Section:
    """A kind of rows: the parameters that they need, and what these ask for, given the bytes of an operand."""

    keys: tuple[str, ...]
    asked: Callable[[Numbers, str, float], Asked]


def _gemm(p: Numbers, name: str, width: float) -> Asked:
    m, n, k = p["m"], p["n"], p["k"]
    sizes = {"batch": np.ones_like(m), "m": m, "n": n, "k": k}
    return Asked(2.0 * m * n * k, width * (m * k + n * k) + 2.0 * m * n, 2.0 * m * n, sizes)


def _heads(p: Numbers, queries: np.ndarray, context: np.ndarray, pairs: np.ndarray) -> Asked:
    batch, heads, size = p["batch"], p["heads"], p["head_dim"]
    own = 2.0 * batch * heads * queries * size
    cache = 2.0 * batch * p["kv_heads"] * context * size
    names = ("batch", "heads", "kv_heads", "head_dim")
    sizes = {name: p[name] for name in names} | {"queries": queries, "context": context}
    return Asked(4.0 * batch * heads * pairs * size, 2.0 * own + 2.0 * cache, own, sizes)


def _decode(p: Numbers, name: str, width: float) -> Asked:
    return _heads(p, np.ones_like(p["context"]), p["context"], p["context"])


def _prefill(p: Numbers, name: str, width: float) -> Asked:
    return _heads(p, p["seq"], p["seq"], p["seq"] * (p["seq"] + 1.0) / 2.0)


def _experts(p: Numbers, name: str, width: float) -> Asked:
    down = p["down"] > 0
    n, k = np.where(down, p["hidden"], 2.0 * p["intermediate"]), np.where(down, p["intermediate"], p["hidden"])
    rows, groups = p["tokens"] * p["top_k"], p["distinct"]
    moved = width * (groups * n * k + rows * k) + 2.0 * rows * n
    return Asked(2.0 * rows * n * k, moved, 2.0 * rows * n, {"batch": groups, "m": rows / groups, "n": n, "k": k})


def _pass(width: str, bytes: float) -> Callable[[Numbers, str, float], Asked]:
    def asked(p: Numbers, name: str, _: float) -> Asked:
        elements = p["tokens"] * p[width]
        return Asked(np.zeros_like(elements), bytes * elements, np.zeros_like(elements), {"elements": elements})

    return asked


def _moved(p: Numbers, name: str, width: float) -> Asked:
    none = np.zeros_like(p["bytes"])
    return Asked(none, p["bytes"], none, {})


def _rotation(p: Numbers, name: str, width: float) -> Asked:
    vectors = p["tokens"] * (p["heads"] + 2.0 * p["kv_heads"])
    none = np.zeros_like(vectors)
    return Asked(none, 4.0 * vectors * p["head_dim"], none, {"elements": p["tokens"], "vectors": vectors})


_ATTENTION = ("batch", "heads", "kv_heads", "head_dim")
SECTIONS = {
    "gemm": Section(("m", "n", "k"), _gemm),
    "decode_attention": Section((*_ATTENTION, "context"), _decode),
    "prefill_attention": Section((*_ATTENTION, "seq"), _prefill),
    "experts": Section(("tokens", "top_k", "hidden", "intermediate", "distinct"), _experts),
    "memory/add_rms_norm": Section(("tokens", "hidden"), _pass("hidden", 8.0)),
    "memory/silu_mul": Section(("tokens", "intermediate"), _pass("intermediate", 6.0)),
    "memory/quantize_fp8": Section(("tokens", "hidden"), _pass("hidden", 3.0)),
    "memory/rotate_and_cache": Section(("tokens", "heads", "kv_heads", "head_dim"), _rotation),
    "memory/copy": Section(("bytes",), _moved),
    "memory/fill": Section(("bytes",), _moved),
}
"""What rows of operators ask for, by section, or by section and name."""

STEPS = ("prefill", "decode")
"""Sections of whole steps."""

_WIDTHS = {"fp8": 1.0, "int8": 1.0, "nvfp4": 0.5625, "mxfp4": 0.53125, "fp4": 0.5}
_FORMATS = {"fp8": "fp8", "int8": "int8", "nvfp4": "fp4", "mxfp4": "fp4", "fp4": "fp4"}


def section_of(row: Row) -> Section | None:
    """What the rows of a section and name ask for; None if nothing here knows."""
    return SECTIONS.get(f"{row.section}/{row.name}") or SECTIONS.get(row.section)


def kernel_of(row: Row) -> str:
    """Name of a row's kernel: section/name, where both products of experts are one."""
    name = row.name.removesuffix("_gate_up").removesuffix("_down") if row.section == "experts" else row.name
    return f"{row.section}/{name}"


def asked_of(rows: Sequence[Row], where: str) -> Asked:
    """What rows of one kernel ask for.

    Args:
        rows: rows of one section and name.
        where: the table, for errors.

    Raises:
        ValueError: a row lacks a parameter, or has one that is no number.
    """
    section = section_of(rows[0])
    if section is None:
        raise ValueError(f"table {where!r}, line {rows[0].line}: {unknown('section', kernel_of(rows[0]), [*SECTIONS])}")
    numbers: Numbers = {}
    for key in section.keys:
        values = []
        for row in rows:
            try:
                values.append(row.number(key))
            except ValueError as error:
                raise ValueError(f"table {where!r}, line {row.line}: {error}") from None
        numbers[key] = np.array(values)
    numbers["down"] = np.array([float(row.name.endswith("_down")) for row in rows])
    return section.asked(numbers, rows[0].name, _of_name(rows[0].name, _WIDTHS, 2.0))


def _of_name(name: str, table: dict, plain):
    return next((value for word, value in table.items() if name.startswith(word)), plain)


def job(asked: Asked, name: str, platform: Platform, kernels: Kernels) -> Job:
    """Runs of a kernel on a platform.

    Args:
        asked: what they ask for.
        name: name of the kernel, which begins with the format of its operands.
        platform: the device; its efficiencies count.
        kernels: numbers of the device that kernels need: processors and the cache.
    """
    code = np.int8(Format[_of_name(name, _FORMATS, "bf16")])
    _, rate = native_format(platform, code)
    flop = 1.0 / (float(platform.flops) * float(rate) * float(platform.compute_efficiency))
    byte = 1.0 / (float(platform.mem_bw) * float(platform.memory_efficiency))
    device = (kernels.processors, kernels.cache_capacity, 1.0 / kernels.cache_bandwidth)
    return Job(asked.flops, asked.bytes, asked.sizes, flop, byte, *device, asked.output)
