"""Candidates: the forms that may stand for a kernel, and between which bounds their constants are looked for."""

import dataclasses
from collections.abc import Mapping

from genz_jax.kernels import Form, Overlap
from genz_jax.kernels.attention import BalancedPrefill, PairedPrefill, SplitDecode, UnitDecode
from genz_jax.kernels.gemm import Gemm, TwoTileGemm
from genz_jax.kernels.vector import Stream, Transfer

US = 1e-6
Range = tuple[float, float, float]
"""Where a constant is looked for first, and at least and at most."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A form whose constants in `free` are fitted; its others stay as they are."""

    form: Form
    free: Mapping[str, Range]


_LAUNCH = (3 * US, 0.05 * US, 200 * US)
_COMPUTE, _MEMORY = (0.7, 0.02, 1.4), (0.85, 0.05, 1.4)
_PRODUCT = {"launch": _LAUNCH, "compute_efficiency": _COMPUTE, "memory_efficiency": _MEMORY}
_GEMM = _PRODUCT | {"fill": (150.0, 1.0, 4000.0)}
_DEPTH = {"depth_time": (0.2 * US, 0.001 * US, 10 * US)}
_SPLIT = {"split_time": (3 * US, 0.01 * US, 50 * US)}
_TRANSFER = {"launch": (1 * US, 0.05 * US, 50 * US), "memory_efficiency": _MEMORY}
_TRANSFER |= {"ramp_time": (1 * US, 0.001 * US, 50 * US)}

CANDIDATES: dict[str, tuple[Candidate, ...]] = {
    "gemm": (
        Candidate(Gemm(tile=64, splits=8), _GEMM | _DEPTH | _SPLIT),
        Candidate(Gemm(tile=64), _GEMM | _DEPTH),
        Candidate(Gemm(tile=64, exponent=2), _GEMM | _DEPTH),
        Candidate(TwoTileGemm(), _GEMM | {"small_efficiency": (0.5, 0.02, 1.4)}),
    ),
    "decode_attention": (
        Candidate(
            SplitDecode(),
            {
                "launch": _LAUNCH,
                "memory_efficiency": _MEMORY,
                "combine_time": (0.3 * US, 0.001 * US, 20 * US),
                "chunk_time": (8 * US, 0.01 * US, 500 * US),
            },
        ),
        Candidate(
            UnitDecode(),
            {
                "launch": _LAUNCH,
                "memory_efficiency": _MEMORY,
                "combine_time": (0.3 * US, 0.001 * US, 20 * US),
                "unit": (1.0, 0.01, 100.0),
                "occupancy": (1.0, 0.05, 32.0),
                "sized": (0.5, 0.001, 1.0),
            },
        ),
    ),
    "prefill_attention": (
        Candidate(
            BalancedPrefill(),
            _PRODUCT
            | {"tile_time": (1.4 * US, 0.01 * US, 50 * US), "chain": (0.5, 0.01, 5.0), "flat": (0.2, 0.001, 1.0)},
        ),
        Candidate(
            PairedPrefill(),
            _PRODUCT
            | {"tile_time": (2.5 * US, 0.01 * US, 50 * US), "chain": (1.0, 0.01, 5.0), "alone": (1.2, 0.3, 4.0)},
        ),
    ),
    "experts": (Candidate(Overlap(exponent=2), _PRODUCT), Candidate(Overlap(exponent=4), _PRODUCT)),
    "memory/copy": (Candidate(Transfer(), _TRANSFER),),
    "memory/fill": (Candidate(Transfer(), _TRANSFER),),
}
"""By section, or by section and name; that with the least error on rows that it was not fitted on is taken."""

STREAMS: dict[str, Stream] = {
    "memory/add_rms_norm": Stream(distinct=0.75, element_bytes=8),
    "memory/silu_mul": Stream(element_bytes=6),
    "memory/quantize_fp8": Stream(element_bytes=3),
    "memory/rotate_and_cache": Stream(),
}
"""Passes over tensors, which share the share of the bandwidth and the cache's; each has a launch of its own."""

SHARED: dict[str, Range] = {"memory_efficiency": _MEMORY, "cache_bandwidth": (7e12, 2e11, 1e14)}
OWN: dict[str, Range] = {"launch": (1.5 * US, 0.05 * US, 100 * US)}
BLOCKS: dict[str, Range] = {"block_time": (0.0007 * US, 1e-6 * US, 0.1 * US)}
"""Of kernels that start a block for each vector."""

ASSUMED_BLOCK_TIME = US / 1370
"""Time of a small block where no rotation was timed: what SiLU·mul's small blocks take on an H100."""
