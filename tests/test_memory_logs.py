"""KV tokens and activation peaks that engines logged, beside those predicted."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from memory_logs import DOCS, LOGS, Log, table


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "log", [log for log in LOGS if not log.note], ids=lambda log: f"{log.model}-{log.kv_tokens:.0f}"
)
def test_tokens_of_the_cache_are_those_that_the_engine_logged(log: Log):
    assert log.predicted_tokens() == pytest.approx(log.kv_tokens, rel=0.05)


@pytest.mark.slow
def test_the_table_is_that_of_the_docs():
    assert table() in DOCS.read_text(encoding="utf-8")
