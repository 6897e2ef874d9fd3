"""Context limits: the longest context that a model was made for, beside that of a workload."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.core import Tracer

from genz_jax.axes import Axis

_LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "max_seq_len", "n_ctx")
"""Keys of a config with the longest context, the first that is there."""

_STRETCHED = ("linear", "dynamic")
"""Kinds of RoPE scaling whose factor is not in the length that a config states."""


class ContextWarning(UserWarning):
    """A context is longer than its model was made for."""


def of_config(values: Mapping[str, Any]) -> float | None:
    """The longest context of a config in tokens; None where it states none.

    With RoPE scaling of the kinds linear and dynamic it is the stated length times the factor; with YaRN
    (arXiv 2309.00071) the original length times the factor, as vLLM reads them.

    Args:
        values: the keys of the language model.
    """
    stated = next((values[key] for key in _LENGTHS if _is_count(values.get(key))), None)
    if stated is None:
        return None
    scaling = values.get("rope_scaling") or values.get("rope_parameters")
    if not isinstance(scaling, Mapping):
        return float(stated)
    kind, factor = scaling.get("rope_type", scaling.get("type")), scaling.get("factor")
    original = scaling.get("original_max_position_embeddings", stated)
    if isinstance(factor, int | float) and kind in _STRETCHED:
        return float(stated * factor)
    if isinstance(factor, int | float) and kind == "yarn" and _is_count(original):
        return float(original * factor)
    return float(stated)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


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
