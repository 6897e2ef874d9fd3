"""The classes of what the verbs return for one point; with axes they return an `xarray.Dataset` of the same figures.

In: nothing. Out: classes for `isinstance`, annotations and `help`, which lists every figure with its unit.

Example:
    >>> import genz_jax as gz
    >>> isinstance(gz.estimate("llama-3.1-8b", "H100-SXM"), gz.results.RequestResult)
    True
"""

from genz_jax.calibration import Calibration
from genz_jax.counts.flops import FlopCount
from genz_jax.counts.parameters import ParameterCount
from genz_jax.machine.cost import CostResult
from genz_jax.questions.fit import Fit
from genz_jax.questions.search.result import SearchResult
from genz_jax.questions.tune.result import TuneResult
from genz_jax.serving.results import (
    ChunkedResult,
    DecodeResult,
    EncodeResult,
    MemoryResult,
    OperatorResult,
    PrefillResult,
    RequestResult,
    SpeculativeDecodeResult,
    SpeculativePrefillResult,
)

__all__ = [
    "Calibration",
    "ChunkedResult",
    "CostResult",
    "DecodeResult",
    "EncodeResult",
    "Fit",
    "FlopCount",
    "MemoryResult",
    "OperatorResult",
    "ParameterCount",
    "PrefillResult",
    "RequestResult",
    "SearchResult",
    "SpeculativeDecodeResult",
    "SpeculativePrefillResult",
    "TuneResult",
]


def __dir__() -> list[str]:
    return __all__
