"""Device: an evaluation of all points in one compiled call whose results stay on JAX's default device."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from problem import DIMS, arrays_case

from genz_jax.labelled import labels
from genz_jax.serving.evaluate import Question, compiled
from genz_jax.specs.assumptions import preset


def name() -> str:
    """Kind of the default device."""
    return jax.devices()[0].device_kind


def on_device(arguments: dict[str, Any], **asked: Any) -> Callable[[], Any]:
    """The evaluation that `gz.sweep` makes block by block, in one call, without labels and without a copy to the host.

    Args:
        arguments: arguments of `gz.sweep`.
        asked: stage, figures and breakdown.
    """
    question = Question(assumptions=preset(arguments["assumptions"]), **asked)
    case, order = arrays_case(arguments)
    arrays = jax.device_put(
        jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), labels.to_arrays(case, order))
    )
    function = compiled(question)

    def call() -> Any:
        return order, jax.block_until_ready(function(arrays))

    return call


def values(found: tuple[tuple[str, ...], Any], figure: str) -> np.ndarray:
    """A figure of `on_device` with the axes deployment, rate, bandwidth, on the host."""
    order, result = found
    array = np.asarray(getattr(result, figure))
    kept = [dim for dim in DIMS if dim in order]
    ordered = array.transpose([order.index(dim) for dim in kept])
    return ordered.reshape(-1, *ordered.shape[-2:])


def fill(size: int) -> Callable[[], float]:
    """A function that writes so many bytes of the device's memory.

    Args:
        size: bytes.
    """
    written = jax.jit(lambda number: jnp.full(size // 4, number, jnp.float32))

    def call() -> float:
        jax.block_until_ready(written(jnp.float32(1.0)))
        return float(size // 4 * 4)

    return call
