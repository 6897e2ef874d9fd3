"""Peak resident memory of a sweep in a process of its own, beside the bytes of its result."""

from typing import Any

import memory
import pytest
from contest import room_for
from problem import HARDWARE

SHARE, FIXED = 1.15, 400e6
"""What the peak may be: so many times the result, and so many bytes for the interpreter and its libraries."""


@pytest.mark.parametrize("points", [10**6, 10**8, 10**9])
def test_memory(benchmark: Any, environment: dict[str, Any], options: Any, points: int) -> None:
    """Decode latency over hardware alone; the time is that of the whole process."""
    if options.quick and points > 10**6:
        pytest.skip("--quick: at most 10⁶ points")
    if options.gpu:
        pytest.skip("--gpu: memory of the processor")
    if why := room_for(6.0 * points + 1e9):
        pytest.skip(why)
    result, peak = benchmark.pedantic(memory.alone, args=HARDWARE[points], rounds=1, iterations=1)
    assert result == 4 * points
    benchmark.group = "memory"
    benchmark.extra_info.update(
        environment, case="memory", points=points, result_bytes=result, peak_bytes=peak, allowed=SHARE * result + FIXED
    )
