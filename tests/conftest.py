"""Configuration of XLA, JAX and Hypothesis, made before the package is imported, and what the two tiers run."""

import collections
import os
import re
import signal
from pathlib import Path

# Small programs that run once: code that is made three times as fast is worth more than code that is fast.
# Where XLA_FLAGS is set, if to nothing, that is what holds.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_disable_hlo_passes=fusion",
)

import jax
import psutil
import pytest
from hypothesis import HealthCheck, settings

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_num_cpu_devices", 2)

_SLOW_START = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]  # the first example compiles
_COMMON = settings(deadline=None, suppress_health_check=_SLOW_START, derandomize="CI" in os.environ)
settings.register_profile("full", _COMMON)
settings.register_profile(
    "quick", _COMMON, max_examples=15
)  # the first tier's; the second has all of these tests again
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "full"))

# A shell lets what it runs in the background ignore interrupts, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOM = 1.5e9
"""Bytes of a process above which what was compiled for a file is dropped at the file's end."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files of the second tier alone are not imported by the first: some of them import PyTorch."""
    if config.option.markexpr != "not slow" or collection_path.suffix != ".py":
        return None
    slow = re.search(r"^pytestmark = \[?pytest\.mark\.slow", collection_path.read_text(encoding="utf-8"), re.MULTILINE)
    return True if slow else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test marked `first(n)`, the cases behind the n-th are the second tier's."""
    seen = collections.Counter()
    for item in items:
        first, name = item.get_closest_marker("first"), item.nodeid.partition("[")[0]
        if first is not None and item.get_closest_marker("slow") is None:
            seen[name] += 1
            if seen[name] > first.args[0]:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True, scope="module")
def _bounded_memory():
    """Drop compiled functions at the end of a file where they have become many."""
    yield
    if psutil.Process().memory_info().rss > ROOM:
        import genz_jax as gz

        gz.clear_caches()
        jax.clear_caches()
