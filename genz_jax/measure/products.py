"""Matrix products: of layers, in bf16 and two kinds of fp8, and of experts, grouped by what was routed to each."""

import functools
from collections.abc import Callable

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]

from genz_jax.measure.cases import Bench, Calls, Case, drawn, powered

WEIGHTS = (
    *((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096)),  # Llama 3.1 8B
    *((10240, 8192), (8192, 8192), (57344, 8192), (8192, 28672)),  # Llama 3.1 70B
    *((2560, 8192), (8192, 2048), (14336, 8192), (8192, 7168)),  # the same on 4 ranks
    *((1280, 8192), (8192, 1024), (7168, 8192), (8192, 3584), (16032, 8192)),  # on 8 ranks
    *((5120, 5120), (25600, 5120), (5120, 25600)),  # Qwen3 32B
    *((1536, 7168), (24576, 1536), (7168, 2048)),  # DeepSeek V3
    *((2048, 2048), (1024, 1024), (512, 4096), (4096, 512), (256, 8192), (16384, 16384)),
)
"""Outputs and inputs of weights of layers."""

TOKENS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192, 16384)
MOST_OUTPUTS = 6e8
TINY_WEIGHTS, TINY_TOKENS = ((32, 64), (48, 32)), (4, 16)

EXPERTS = (
    (8, 2, 4096, 14336),  # Mixtral 8x7B
    (128, 8, 2048, 768),  # Qwen3 30B-A3B
    (64, 8, 2048, 1024),  # OLMoE
    (32, 8, 7168, 2048),  # DeepSeek V3 on 8 ranks
    (16, 4, 2880, 2880),  # gpt-oss-120b on 8 ranks
    (16, 1, 5120, 8192),  # Llama 4 Scout
)
"""Experts, those of a token, hidden and intermediate size."""

EXPERT_TOKENS = tuple(2**n for n in range(14))
TINY_EXPERTS, TINY_EXPERT_TOKENS = ((4, 2, 32, 64),), (1, 8)
MOST_EXPERT_COPIES, INPUTS = 6, 4
SCALE = 0.02
"""Standard deviation of weights."""

EVERY = 60


def gemm(bench: Bench) -> tuple[list[Case], list[Case]]:
    """Products of layers: those in bf16, those in fp8."""
    weights, tokens = (TINY_WEIGHTS, TINY_TOKENS) if bench.tiny else (WEIGHTS, TOKENS)
    shapes = [(m, n, k) for n, k in weights for m in tokens if m * n < MOST_OUTPUTS]
    plain = [_gemm(bench, "bf16", shape) for shape in shapes]
    eighths = [_gemm(bench, name, shape) for shape in shapes for name in ("fp8_rowwise", "fp8_tensorwise")]
    return powered(drawn(plain, 1), EVERY), powered(drawn(eighths, 2), EVERY)


def _gemm(bench: Bench, name: str, shape: tuple[int, int, int]) -> Case:
    m, n, k = shape
    width = 2 if name == "bf16" else 1
    build = functools.partial(_linear if name == "bf16" else _scaled, bench, shape)
    if name != "bf16":
        build = functools.partial(build, by_row=name == "fp8_rowwise")
    unable = "" if name == "bf16" else bench.unable_fp8()
    size = width * (n * k + m * k) + 2 * m * n
    return Case("gemm", name, {"m": m, "n": n, "k": k}, build, size, unable)


def _linear(bench: Bench, shape: tuple[int, int, int]) -> Calls:
    m, n, k = shape
    count = bench.copies(2 * n * k)
    inputs = [bench.random(m, k) for _ in range(min(count, INPUTS))]
    weights = [bench.random(n, k, scale=SCALE) for _ in range(count)]
    return Calls([functools.partial(F.linear, inputs[i % len(inputs)], weight) for i, weight in enumerate(weights)])


def _scaled(bench: Bench, shape: tuple[int, int, int], by_row: bool) -> Calls:
    m, n, k = shape
    dtype = bench.device.fp8
    assert dtype is not None
    count = bench.copies(n * k)
    inputs = [bench.random(m, k, dtype=dtype) for _ in range(min(count, INPUTS))]
    weights = [bench.random(n, k, dtype=dtype) for _ in range(count)]
    scales = [torch.ones(size if by_row else (), device=bench.device.place) for size in ((m, 1), (1, n))]
    return Calls(
        [
            functools.partial(scaled_product, inputs[i % len(inputs)], weight, scales[0], scales[1])
            for i, weight in enumerate(weights)
        ]
    )


def scaled_product(
    x: torch.Tensor, weight: torch.Tensor, x_scale: torch.Tensor, weight_scale: torch.Tensor
) -> torch.Tensor:
    """Product of fp8 rows with an fp8 weight of (outputs, inputs), in bf16."""
    return torch._scaled_mm(
        x, weight.t(), scale_a=x_scale, scale_b=weight_scale, out_dtype=torch.bfloat16, use_fast_accum=True
    )


def grouped_product(x: torch.Tensor, weights: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Product of rows with the weight of their expert.

    Args:
        x: rows in the order of experts.
        weights: (experts, inputs, outputs), inputs of an output behind one another.
        ends: for each expert, the row behind its last.
    """
    return _GROUPED(x, weights, offs=ends)


_GROUPED: Callable[..., torch.Tensor] = getattr(F, "grouped_mm", None) or torch._grouped_mm


def experts(bench: Bench) -> list[Case]:
    """Grouped products of experts, with balanced and with skewed routing."""
    models, tokens = (TINY_EXPERTS, TINY_EXPERT_TOKENS) if bench.tiny else (EXPERTS, EXPERT_TOKENS)
    found = []
    for model in models:
        for count in tokens:
            # One token goes to as many experts whatever their weights.
            for skewed in (False, True)[: 1 if count == 1 else 2]:
                found += _experts(bench, model, routed(count, model[0], model[1], skewed))
    return powered(drawn(found, 3), EVERY)


def routed(tokens: int, among: int, top_k: int, skewed: bool) -> np.ndarray:
    """Tokens that each expert gets, drawn once and for all.

    Args:
        tokens: how many there are.
        among: how many experts there are.
        top_k: to how many each token goes.
        skewed: the n-th expert is wanted 1/n as much as the first, where otherwise all are alike.
    """
    draw = np.random.default_rng(tokens + among)
    wanted = -np.log(np.arange(1, among + 1)) if skewed else np.zeros(among)
    order = np.argsort(-(wanted + draw.gumbel(size=(tokens, among))), axis=1)
    return np.bincount(order[:, :top_k].ravel(), minlength=among)


def _experts(bench: Bench, model: tuple[int, int, int, int], load: np.ndarray) -> list[Case]:
    among, top_k, hidden, intermediate = model
    rows = int(load.sum())
    parameters = {
        "tokens": rows // top_k,
        "experts": among,
        "top_k": top_k,
        "hidden": hidden,
        "intermediate": intermediate,
        "distinct": int((load > 0).sum()),
        "busiest": int(load.max()),
    }
    found = []
    for name, n, k in (("bf16_gate_up", 2 * intermediate, hidden), ("bf16_down", hidden, intermediate)):
        build = functools.partial(_grouped, bench, load, n, k)
        found.append(Case("experts", name, parameters, build, 2 * (among * n * k + rows * (n + k))))
    return found


def _grouped(bench: Bench, load: np.ndarray, n: int, k: int) -> Calls:
    ends = torch.tensor(np.cumsum(load), dtype=torch.int32, device=bench.device.place)
    x = bench.random(int(load.sum()), k)
    size = 2.0 * len(load) * n * k
    count = bench.copies(size, MOST_EXPERT_COPIES)
    weights = [bench.random(len(load), n, k, scale=SCALE).transpose(1, 2) for _ in range(count)]
    return Calls([functools.partial(grouped_product, x, weight, ends) for weight in weights])
