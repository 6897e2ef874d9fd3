"""Context limits: the longest context that a model was made for, beside that of a workload."""

import warnings
from typing import Any

import numpy as np
from jax.core import Tracer

from genz_jax.base.axes import Axis


class ContextWarning(UserWarning):
    """A context is longer than its model was made for."""


def beyond(case: Any, name: str = "", stage: str | None = None) -> dict[str, Any] | None:
    """The longest context of a case and the least maximum of its models, where it is beyond; None where none is known.

    Args:
        case: a `Case`, whose numbers may be axes; its context is prompt and output tokens.
        name: what to call the model, or the models of a list.
        stage: what is asked; prefill and encode have no output tokens.

    Returns:
        `model`, and `maximum` and `asked` in tokens.
    """
    maximum = case.model.label.max_context
    load = case.workload
    lengths = [load.input_tokens] if stage in ("prefill", "encode") else [load.input_tokens, load.output_tokens]
    if maximum is None or any(isinstance(leaf, Tracer) for leaf in lengths):
        return None
    if load.prefill_chunks or load.decode_chunks:
        return None
    most = [float(np.max(leaf.values if isinstance(leaf, Axis) else leaf)) for leaf in lengths]
    return {"model": name, "maximum": maximum, "asked": sum(most)} if sum(most) > maximum else None


def warn_beyond(case: Any, name: str, stage: str | None = None) -> None:
    """Warn of a context that is longer than its model was made for."""
    if (found := beyond(case, name, stage)) is not None:
        message = f"context of {found['asked']:,.0f} tokens: {name or 'the model'} was made for {found['maximum']:,.0f}"
        warnings.warn(f"{message}; beyond the maximum its answers are worth little", ContextWarning, stacklevel=4)
