"""Parity with the published analyser: its table of cases, evaluated under the `genz` assumptions and compared.

In: the table, whose units are the analyser's own (TFLOP/s, binary GB and GB/s, µs, ms, MiB). Out: its columns as
predicted here. It never changes what the engine does.
"""

import os
import time
from typing import Any

from genz_jax.parity.cases import (
    read_cards as read_cards,
    read_cases as read_cases,
    read_model as read_model,
    read_platform as read_platform,
    read_workload as read_workload,
)
from genz_jax.parity.compare import Difference as Difference, Report as Report, compare as compare
from genz_jax.parity.predict import predict as predict


def run(cases: str | os.PathLike, models: str | os.PathLike, rtol: float) -> tuple[Report, list[dict[str, Any]]]:
    """Evaluate and compare a table of cases.

    Args:
        cases: CSV file of cases with the reference's outputs.
        models: JSON file of the reference's model table.
        rtol: relative tolerance.

    Returns:
        The report, and the predictions by case with the columns of the table.
    """
    rows, cards = read_cases(cases), read_cards(models)
    start = time.perf_counter()
    predicted = predict(rows, cards)
    seconds = time.perf_counter() - start
    table = [{"id": row["id"], **ours} for row, ours in zip(rows, predicted, strict=True)]
    return compare(rows, predicted, rtol, seconds), table
