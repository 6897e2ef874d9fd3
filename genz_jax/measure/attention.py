"""Attention: of whole sequences by PyTorch's kernels, of one token each over a cache by those and by Triton's."""

import functools
import itertools
from types import MappingProxyType

import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch.nn.attention import SDPBackend, sdpa_kernel  # pyright: ignore[reportMissingImports]

from genz_jax.measure.cases import Bench, Calls, Case, drawn, powered

BACKENDS = MappingProxyType({"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION})

HEADS = (
    (32, 8, 128),  # Llama 3.1 8B
    (64, 8, 128),  # Llama 3.1 70B
    (8, 1, 128),  # the same on 8 ranks
    (16, 2, 128),  # on 4 ranks
    (32, 32, 128),  # Llama 2 7B
    (40, 8, 128),  # Qwen3 14B
    (64, 8, 64),  # gpt-oss
    (16, 16, 256),  # Gemma 7B
)
"""Heads of queries, of keys, and their width."""

PREFILL_HEADS = (*HEADS, (4, 4, 128))
PREFILL_BATCHES, PREFILL_TOKENS = (1, 2, 4, 8, 16), tuple(2**n for n in range(6, 16))
MOST_TOKENS, MOST_SCORES = 65536, 6e11
BATCHES = tuple(2**n for n in range(9))
CONTEXTS = (128, 512, 1024, 2048, 4096, 8192, 16384, 32768, 131072)
MOST_CACHE, MOST_COPIES = 12e9, 8
TINY_HEADS = ((4, 2, 16),)
EVERY = 60


def unable(bench: Bench, name: str) -> str:
    """Why one of PyTorch's kernels cannot run, if that is known."""
    return "cuDNN is on NVIDIA's GPUs alone" if name == "cudnn" and bench.device.kind != "cuda" else ""


def attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, name: str, causal: bool = False
) -> torch.Tensor:
    """Attention by one of PyTorch's kernels, and by no other."""
    with sdpa_kernel([BACKENDS[name]]):
        shares = query.shape[1] != keys.shape[1]
        return F.scaled_dot_product_attention(query, keys, values, is_causal=causal, enable_gqa=shares)


def prefill(bench: Bench) -> list[Case]:
    """Causal attention of whole sequences."""
    heads, tokens, batches = PREFILL_HEADS, PREFILL_TOKENS, PREFILL_BATCHES
    if bench.tiny:
        heads, tokens, batches = TINY_HEADS, (8, 32), (1, 2)
    cases = [
        Case(
            "prefill_attention",
            name,
            {"batch": b, "seq": s, "heads": h, "kv_heads": kv, "head_dim": d},
            functools.partial(_prefill, bench, name, (b, s), (h, kv, d)),
            4 * b * s * d * (h + kv),
            unable(bench, name),
        )
        for (h, kv, d), s, b, name in itertools.product(heads, tokens, batches, BACKENDS)
        if b * s <= MOST_TOKENS and b * s * s * h < MOST_SCORES
    ]
    return powered(drawn(cases, 4), EVERY)


def _prefill(bench: Bench, name: str, rows: tuple[int, int], heads: tuple[int, int, int]) -> Calls:
    h, kv, d = heads
    # As a product of the projections leaves them: heads of a token behind one another.
    query, keys, values = (bench.random(*rows, n, d).transpose(1, 2) for n in (h, kv, kv))
    return Calls([functools.partial(attend, query, keys, values, name, True)])


def decode(bench: Bench) -> list[Case]:
    """Attention of one token in each sequence over its cache."""
    heads, contexts, batches = (TINY_HEADS, (8, 32), (1, 2)) if bench.tiny else (HEADS, CONTEXTS, BATCHES)
    cases = [
        Case(
            "decode_attention",
            name,
            {"batch": b, "context": s, "heads": h, "kv_heads": kv, "head_dim": d},
            functools.partial(_decode, bench, name, (b, s), (h, kv, d)),
            4 * b * s * kv * d,
            bench.faulty.get("decode_split", "") if name == "split_kv" else unable(bench, name.removesuffix("_packed")),
        )
        for (h, kv, d), s, b, name in itertools.product(
            heads, contexts, batches, ("split_kv", *(f"{name}_packed" for name in BACKENDS))
        )
        if 4 * b * s * kv * d < MOST_CACHE
    ]
    return powered(drawn(cases, 5), EVERY)


def _decode(bench: Bench, name: str, rows: tuple[int, int], heads: tuple[int, int, int]) -> Calls:
    (b, s), (h, kv, d) = rows, heads
    query = bench.random(b, kv, h // kv, d)  # queries that share keys are rows of one product, as engines pack them
    count = bench.copies(4 * b * s * kv * d, MOST_COPIES)
    caches = [(bench.random(b, kv, s, d), bench.random(b, kv, s, d)) for _ in range(count)]
    if name == "split_kv":
        device = bench.device
        return Calls(
            [
                functools.partial(bench.kernels.decode_split, query, *cache, device.processors, device.shared)
                for cache in caches
            ]
        )
    return Calls([functools.partial(attend, query, *cache, name.removesuffix("_packed")) for cache in caches])
