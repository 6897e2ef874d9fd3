"""Context length: the longest context that the config of a model states."""

from collections.abc import Mapping
from typing import Any

_LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "max_seq_len", "n_ctx")
"""Keys of a config with the longest context, the first that is there."""

_STRETCHED = ("linear", "dynamic")
"""Kinds of RoPE scaling whose factor is not in the length that a config states."""


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
