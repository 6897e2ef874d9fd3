"""Array functions that stay in NumPy for NumPy numbers and use JAX as soon as an argument is a JAX array.

Formulas written with these run in float64 on the numbers of a spec, without a compilation, and on the tracers of
`jax.jit`, `vmap` and `grad`.
"""

import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def _of_both(name: str) -> Callable[..., Any]:
    ours, theirs = getattr(np, name), getattr(jnp, name)

    @functools.wraps(ours)
    def function(*args: Any) -> Any:
        return (theirs if any(isinstance(value, jax.Array) for value in args) else ours)(*args)

    return function


def total(values: Iterable[Any]) -> Any:
    """Σ values, of which plain zeros are left out, each of which would cost an addition to trace and to compile."""
    found = [value for value in values if not (isinstance(value, float) and value == 0.0)]
    return functools.reduce(operator.add, found) if found else 0.0


ceil = _of_both("ceil")
clip = _of_both("clip")
expm1 = _of_both("expm1")
floor = _of_both("floor")
log1p = _of_both("log1p")
logical_or = _of_both("logical_or")
maximum = _of_both("maximum")
minimum = _of_both("minimum")
ones_like = _of_both("ones_like")
round = _of_both("round")
where = _of_both("where")
