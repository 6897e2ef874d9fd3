"""What several test files share: models of every kind, cases of many points, and figures by name."""

import dataclasses
import functools
import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np

import genz_jax as gz
from genz_jax.labelled.labels import flat_figures
from genz_jax.serving.evaluate import Case, Question, compiled, evaluate
from genz_jax.serving.results import DecodeResult, PrefillResult, RequestResult
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.figures import Result
from genz_jax.specs.stack import stack, take

DATA = Path(__file__).parent / "data" / "genz"

ZOO = (
    "gpt2",  # MHA, one input projection, tied
    "llama-3.1-8b",  # GQA
    "gemma-3-27b",  # sliding and global attention
    "mixtral-8x7b",  # experts
    "gpt-oss-20b",  # sliding and global attention, experts
    "deepseek-v3",  # latent attention, dense layers first, shared experts
    "falcon-mamba-7b",  # Mamba-1
    "mamba2-2.7b",  # Mamba-2
    "jamba-1.5-mini",  # attention and Mamba-1, dense and experts
    "nemotron-h-8b",  # attention and Mamba-2
)
"""One model of every kind."""


def catalogue(file: str) -> dict[str, dict[str, Any]]:
    """Entries of a catalogue file as they are written."""
    return tomllib.loads(resources.files("genz_jax.catalog").joinpath(f"{file}.toml").read_text(encoding="utf-8"))


def rates(entry: dict[str, Any]) -> dict[str, float]:
    """Peak rates of a platform entry in flop s-1."""
    scale = {"TFLOP/s": 1e12, "PFLOP/s": 1e15, "TOP/s": 1e12, "GFLOP/s": 1e9}
    return {name: float(text.split()[0]) * scale[text.split()[1]] for name, text in entry["flops"].items()}


@functools.cache
def zoo() -> gz.Model:
    """The models of `ZOO` in one."""
    return stack([gz.model(name) for name in ZOO])


def pick(names: Sequence[str]) -> gz.Model:
    """Models of `ZOO` along one axis, all with the same structure."""
    return take(zoo(), np.array([ZOO.index(name) for name in names]))


def big_platform(**changes: Any) -> gz.Platform:
    """A device on which every model fits, with two network levels."""
    levels = (gz.specs.NetworkLevel(8, "450 GB/s", "1 us"), gz.specs.NetworkLevel(2.0**20, "50 GB/s", "5 us"))
    return gz.Platform("989 TFLOP/s", "3.35 TB/s", "100 TB", network=levels).replace(**changes)


def make_case(
    model: gz.Model,
    platform: gz.Platform | None = None,
    workload: gz.Workload | None = None,
    parallelism: gz.Parallelism | None = None,
    precision: gz.Precision | None = None,
    speculation: gz.Speculation | None = None,
    engine: gz.Engine | None = None,
) -> Case:
    """A case with defaults for what is not given."""
    return Case(
        model,
        big_platform() if platform is None else platform,
        gz.Workload() if workload is None else workload,
        gz.Parallelism() if parallelism is None else parallelism,
        gz.Precision() if precision is None else precision,
        speculation,
        engine,
    )


def chunks(past: Any = 512, new: Any = 128, prompts: Any = 3, sequences: Any = 6, context: Any = 700, own: Any = 40):
    """Keyword arguments of a workload with a prefill chunk and a decode chunk."""
    return {
        "prefill_chunks": (gz.specs.PrefillChunk(past, new),),
        "decode_chunks": (gz.specs.DecodeChunk(prompts, sequences, context, own),),
    }


def _names(kind: type[Result], prefix: str = "") -> list[str]:
    fields = [field.name for field in dataclasses.fields(kind) if "units" in field.metadata]
    return [prefix + name.removesuffix("_code") for name in fields]


ALL = tuple(_names(RequestResult) + _names(PrefillResult, "prefill_") + _names(DecodeResult, "decode_"))
"""Every figure of a request and of its two stages."""


def request_question(physics: Assumptions, **details: bool) -> Question:
    """A request with every figure of its stages and the breakdown."""
    return Question("request", physics, ALL, breakdown=True, **details)


def run(case: Case, question: Question) -> dict[str, np.ndarray]:
    """Figures of a case by name, compiled: for questions that are asked often."""
    return numbers(compiled(question)(case))


def once(case: Case, question: Question) -> dict[str, np.ndarray]:
    """Figures of a case by name, operation by operation: faster than compiling for a question that is asked once."""
    return numbers(evaluate(case, question))


def numbers(result: Any) -> dict[str, np.ndarray]:
    """Figures of a result by name; those of components and operators as `figure/component`."""
    found: dict[str, np.ndarray] = {}
    for name, (value, _) in flat_figures(result).items():
        if isinstance(value, dict):
            found |= {f"{name}/{part}": np.asarray(inner) for part, inner in value.items()}
        else:
            found[name] = np.asarray(value)
    return found


def floats(result: Any) -> dict[str, Any]:
    """Figures that are numbers, not codes or flags, for derivatives."""
    found: dict[str, Any] = {}
    for name, (value, meta) in flat_figures(result).items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        for part, inner in parts:
            if "codes" not in meta and getattr(inner, "dtype", np.dtype(float)) != np.dtype(bool):
                found[f"{name}/{part}" if part else name] = inner
    return found


def paths(tree: Any) -> list[str]:
    """Names of the leaves of a spec, such as `network.0.bandwidth`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [".".join(str(getattr(key, "name", getattr(key, "idx", key))) for key in keys) for keys, _ in leaves]


def worst(ours: Mapping[str, Any], expected: Mapping[str, Any]) -> tuple[float, str]:
    """Greatest relative difference between figures, and its name; NaN equals NaN."""
    assert set(ours) == set(expected)
    greatest, where = 0.0, ""
    for name in ours:
        a, b = (np.asarray(side[name], dtype=float) for side in (ours, expected))
        both_missing = np.isnan(a) & np.isnan(b)
        scale = np.maximum(np.maximum(np.abs(a), np.abs(b)), 1e-300)
        relative = np.where(both_missing, 0.0, np.abs(a - b) / scale)
        relative = np.where(np.isnan(relative), np.inf, relative)
        if relative.max(initial=0.0) > greatest:
            greatest, where = float(relative.max()), name
    return greatest, where


def point(tree: Any, i: int) -> Any:
    """One point of a tree of arrays along one axis, single numbers as they are."""
    return jax.tree.map(lambda leaf: leaf[i] if np.ndim(leaf) else leaf, tree)


def index_tuples(sizes: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """All places of an index space."""
    for place in itertools.product(*(range(n) for n in sizes.values())):
        yield dict(zip(sizes, place, strict=True))


def log_uniform(rng: np.random.Generator, low: float, high: float, n: int) -> np.ndarray:
    """Random numbers, evenly spread on a log scale."""
    return np.exp(rng.uniform(np.log(low), np.log(high), n))


def random_platform(rng: np.random.Generator, n: int, capacity: tuple[float, float] = (1e16, 1e17)) -> gz.Platform:
    """Platforms with two network levels, along one axis."""
    levels = (
        gz.specs.NetworkLevel(
            rng.choice([2.0, 8.0, 72.0], n), log_uniform(rng, 1e10, 1e12, n), log_uniform(rng, 1e-8, 1e-5, n)
        ),
        gz.specs.NetworkLevel(np.full(n, 2.0**20), log_uniform(rng, 1e9, 1e11, n), log_uniform(rng, 1e-7, 1e-4, n)),
    )
    return gz.Platform(
        log_uniform(rng, 1e13, 1e16, n),
        log_uniform(rng, 1e11, 1e13, n),
        log_uniform(rng, *capacity, n),
        network=levels,
        power=rng.uniform(100, 1500, n),
        onchip_bw=log_uniform(rng, 1e12, 1e14, n),
        offload_bw=np.zeros(n),
        compute_efficiency=rng.uniform(0.3, 0.9, n),
        memory_efficiency=rng.uniform(0.3, 0.9, n),
        link_efficiency=rng.uniform(0.3, 0.9, n),
        collective_overhead=log_uniform(rng, 1e-7, 1e-5, n),
    )


def random_case(stage: str, seed: int, n: int, capacity: tuple[float, float] = (1e16, 1e17)) -> Case:
    """Points of all kinds of models that all could run, along one axis."""
    rng = np.random.default_rng(seed)

    def whole(low: int, high: int) -> np.ndarray:
        return np.floor(log_uniform(rng, low, high + 1, n))

    parts: dict[str, Any] = {}
    if stage == "chunked":
        past, new, prompts = whole(1, 4000), whole(1, 2000), whole(1, 4)
        # Every prompt has as many sequences.
        parts = chunks(past, new, prompts, prompts * whole(1, 20), whole(1, 9000), whole(1, 300))
    workload = gz.Workload(whole(1, 64), whole(1, 9000), whole(1, 500), whole(1, 4), **parts)
    spread = gz.Parallelism(rng.choice([1.0, 2.0, 4.0], n), np.ones(n), rng.choice([1.0, 2.0, 4.0], n))
    names = rng.permutation(np.resize(ZOO, n))
    speculation = None
    if stage.startswith("speculative"):
        speculation = gz.Speculation(stack([gz.model("llama-3.2-1b")] * n), whole(1, 9), rng.uniform(0.1, 0.95, n))
    precision = stack([gz.Precision(name) for name in rng.choice(["bf16", "fp8", "int4"], n)])
    case = make_case(pick(list(names)), random_platform(rng, n, capacity), workload, spread, precision, speculation)
    return jax.tree.map(lambda leaf: np.array(np.broadcast_to(leaf, (n,))), case)
