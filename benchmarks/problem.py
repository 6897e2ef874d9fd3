"""Problem: the points that all competitors evaluate, and the operators of their equations as arrays.

The points are those of a published analyser (`assumptions="genz"`), whose equations every competitor can write down:
the time of a deployment is that of its collectives plus a sum over its operators of max(FLOPs/rate, bytes/bandwidth +
on-chip seconds). The operators and their counts come from genz_jax; its competitors are given them, and so save the
time that genz_jax takes for counting.
"""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

import genz_jax as gz
from genz_jax.grid.shape import axis_order
from genz_jax.labelled import labels
from genz_jax.labelled.inputs import read_case
from genz_jax.machine.network import network_time
from genz_jax.machine.roofline import Speeds
from genz_jax.parity.cases import GIB, read_cards, read_model
from genz_jax.serving.evaluate import Case, slim
from genz_jax.serving.stage import as_arrays, inputs_of
from genz_jax.serving.stages import decode_work, prefill_work
from genz_jax.specs import UNLIMITED
from genz_jax.specs.assumptions import genz
from genz_jax.work.operators.operator import COLLECTIVES

CARDS = read_cards(Path(__file__).parent.parent / "tests" / "data" / "genz" / "models.json")
LLAMA_8B, LLAMA_70B = "meta-llama/meta-llama-3.1-8b", "meta-llama/llama-3.1-70b"
MIXTRAL = "mistralai/mixtral-8x7b"
THIRTY = (  # dense, MoE, latent attention, state space, hybrid
    *("llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b", "llama-3.2-3b", "qwen2.5-32b", "qwen3-8b", "qwen3-32b"),
    *(
        "mistral-small-24b",
        "gemma-2-27b",
        "gemma-3-27b",
        "phi-4",
        "command-r-plus",
        "falcon-40b",
        "gpt3-175b",
        "yi-34b",
    ),
    *("mixtral-8x7b", "mixtral-8x22b", "qwen3-30b-a3b", "qwen3-235b-a22b", "gpt-oss-120b", "llama-4-scout", "dbrx"),
    *("glm-4.5", "deepseek-v2-lite", "deepseek-v3", "kimi-k2"),
    *("falcon-mamba-7b", "mamba2-2.7b", "jamba-1.5-mini", "nemotron-h-8b"),
)
INPUT_TOKENS, OUTPUT_TOKENS = 2048, 256
CAPACITY, LINK_BW, LINK_LATENCY = 16384.0, 450.0, 1.0  # binary GB, binary GB/s, µs; all points fit

Stage = Literal["prefill", "decode"]
DIMS = ("model", "batch", "tp", "flops", "mem_bw")
WORK_DIMS = DIMS[:3]


@dataclasses.dataclass(frozen=True)
class Problem:
    """Every combination of models, batches, tensor parallel sizes, peak rates and memory bandwidths.

    Attributes:
        rates: number of peak rates.
        bandwidths: number of memory bandwidths.
        models: names in the published analyser's table or in the catalogue.
        batches: requests at once.
        tp: tensor parallel sizes.
    """

    rates: int
    bandwidths: int
    models: tuple[str, ...] = (LLAMA_70B,)
    batches: tuple[int, ...] = (16,)
    tp: tuple[int, ...] = (8,)

    @property
    def flops(self) -> np.ndarray:
        """Peak rates, flop s-1."""
        return np.geomspace(100.0, 10000.0, self.rates) * 1e12

    @property
    def mem_bw(self) -> np.ndarray:
        """Memory bandwidths, byte s-1."""
        return np.geomspace(500.0, 20000.0, self.bandwidths) * GIB

    @property
    def deployments(self) -> int:
        """Combinations of model, batch and tensor parallel size."""
        return len(self.models) * len(self.batches) * len(self.tp)

    @property
    def points(self) -> int:
        """Number of points."""
        return self.deployments * self.rates * self.bandwidths

    def arguments(self, **platform: Any) -> dict[str, Any]:
        """Arguments of `gz.sweep` and its kin.

        Args:
            platform: other numbers of the platform.
        """
        numbers: dict[str, Any] = {"flops": gz.axis(self.flops), "mem_bw": gz.axis(self.mem_bw)} | platform
        return {
            "model": _models(self.models),
            "platform": gz.Platform(
                mem_capacity=CAPACITY * GIB,
                network=(gz.specs.NetworkLevel(UNLIMITED, LINK_BW * GIB, LINK_LATENCY * 1e-6),),
                **numbers,
            ),
            "workload": gz.Workload(batch=_axis(self.batches), input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS),
            "parallelism": gz.Parallelism(tp=_axis(self.tp)),
            "precision": "bf16",
            "assumptions": "genz",
        }

    def values(self, array: Any) -> np.ndarray:
        """Values of a variable with the axes deployment, rate, bandwidth."""
        kept = [dim for dim in DIMS if dim in array.dims]
        others = [dim for dim in array.dims if dim not in DIMS]
        ordered = array.transpose(*kept, *others).values
        outer = sum(dim in WORK_DIMS for dim in kept)
        return ordered.reshape(math.prod(ordered.shape[:outer]), *ordered.shape[outer:])


HARDWARE = {
    10**2: (10, 10),
    10**3: (25, 40),
    10**4: (100, 100),
    10**5: (250, 400),
    10**6: (1000, 1000),
    10**7: (2500, 4000),
    10**8: (10000, 10000),
    10**9: (25000, 40000),
}
"""Peak rates and memory bandwidths of the hardware-only sweeps, by their number of points."""


@functools.cache
def _models(names: tuple[str, ...]) -> Any:
    models: dict[str, Any] = {}
    for name in names:
        models[name] = read_model(CARDS[name], False) if name in CARDS else gz.model(name)
    return models if len(models) > 1 else models.popitem()[1]


def _axis(values: tuple[int, ...]) -> Any:
    return values[0] if len(values) == 1 else gz.axis(list(values))


@dataclasses.dataclass(frozen=True)
class Work:
    """Operators of a stage as arrays of deployment × operator, zero where a deployment lacks one.

    Attributes:
        components: part of the breakdown that each operator counts for.
        flops: FLOPs of each operator, all repeats.
        bytes: bytes to and from memory.
        onchip: seconds that tensors on chip take.
        collectives: seconds of collectives, by part of the breakdown.
        all_flops: FLOPs of all operators, by deployment.
        all_bytes: bytes of all their tensors.
    """

    components: tuple[str, ...]
    flops: np.ndarray
    bytes: np.ndarray
    onchip: np.ndarray
    collectives: dict[str, np.ndarray]
    all_flops: np.ndarray
    all_bytes: np.ndarray

    @property
    def fixed(self) -> np.ndarray:
        """Seconds of all collectives, by deployment."""
        return sum(self.collectives.values(), np.zeros(len(self.flops), self.flops.dtype))

    def part(self, component: str) -> "Work":
        """The work of one part of the breakdown."""
        chosen = [i for i, name in enumerate(self.components) if name == component]
        collectives = {name: seconds for name, seconds in self.collectives.items() if name == component}
        flops, traffic, onchip = (array[:, chosen] for array in (self.flops, self.bytes, self.onchip))
        names = (component,) * len(chosen)
        return Work(names, flops, traffic, onchip, collectives, self.all_flops, self.all_bytes)

    @property
    def flops_per_point(self) -> float:
        """Least operations of a point: a maximum and a sum for each operator that a deployment has."""
        return 2.0 * float(((self.flops > 0) | (self.bytes > 0)).sum(1).mean())

    @property
    def parts(self) -> list[str]:
        """Parts of the breakdown that take time."""
        return list(dict.fromkeys((*self.components, *self.collectives)))


def arrays_case(arguments: dict[str, Any]) -> tuple[Case, tuple[str, ...]]:
    """The case of some arguments of `gz.sweep`, and its dimensions from slow to fast."""
    specs = [value for name, value in arguments.items() if name != "assumptions"]
    read: Any = read_case
    case = labels.name_axes(slim(read(*specs, None)[0]))
    return case, axis_order(case, labels.read_grid(case).sizes)


@functools.cache
def work(problem: Problem, stage: Stage) -> Work:
    """The operators of a stage, counted by genz_jax in float64, as float32."""
    with jax.enable_x64(True):
        case, order = arrays_case(problem.arguments(flops=1e15, mem_bw=1e12))
        arrays = labels.to_arrays(case, order)
        platform = as_arrays(arrays.platform)
        inputs = inputs_of(arrays.model, arrays.workload, arrays.parallelism, arrays.precision, genz)
        deployment = inputs.deployment
        counted = (decode_work if stage == "decode" else prefill_work)(inputs).passes[0]
        per_onchip_byte = Speeds.of(platform, deployment.precision, platform.mem_bw).achieved_onchip_byte
        shape = tuple(n for n in (len(problem.models), len(problem.batches), len(problem.tp)) if n > 1)

        def every(value: Any) -> np.ndarray:
            return np.broadcast_to(np.asarray(value, np.float64), shape).reshape(-1)

        components: list[str] = []
        columns: dict[str, list[np.ndarray]] = {"flops": [], "bytes": [], "onchip_bytes": []}
        collectives: dict[str, np.ndarray] = {}
        for operator, load in zip(counted.ops, counted.loads, strict=True):
            if operator.kind in COLLECTIVES:
                seconds = every(network_time(operator, platform) * operator.repeats)
                if seconds.any():
                    collectives[operator.component] = collectives.get(operator.component, 0.0) + seconds
                continue
            found = {name: every(getattr(load, name)) for name in columns}
            if any(column.any() for column in found.values()):
                components.append(operator.component)
                for name, column in found.items():
                    columns[name].append(column)
    flops, traffic, onchip = (np.stack(column, axis=1) for column in columns.values())

    def single(values: np.ndarray) -> np.ndarray:
        return np.asarray(values, np.float32)

    return Work(
        tuple(components),
        single(flops),
        single(traffic),
        single(onchip * float(per_onchip_byte)),
        {name: single(seconds) for name, seconds in collectives.items()},
        single(flops.sum(1)),
        single((traffic + onchip).sum(1)),
    )
