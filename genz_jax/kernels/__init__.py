"""Kernels: how long one run of a kernel takes, from its sizes and a few constants that were fitted to measurements.

In: peak rates, sizes, constants. Out: seconds of one run. They never know a model, nor which layers run them.
"""

from genz_jax.kernels.attention import BalancedPrefill, PairedPrefill, SplitDecode, UnitDecode
from genz_jax.kernels.form import Form as Form, Job as Job, Overlap as Overlap
from genz_jax.kernels.gemm import Gemm, TwoTileGemm
from genz_jax.kernels.kernels import KERNELS as KERNELS, Kernels as Kernels
from genz_jax.kernels.vector import Routing, Stream, Transfer

_PRODUCTS = (Overlap, Gemm, TwoTileGemm)
_ATTENTION = (SplitDecode, UnitDecode, BalancedPrefill, PairedPrefill)
_VECTOR = (Stream, Routing, Transfer)
FORMS: dict[str, type[Form]] = {form.__name__: form for form in (*_PRODUCTS, *_ATTENTION, *_VECTOR)}
"""Forms by the name that files have for them."""
