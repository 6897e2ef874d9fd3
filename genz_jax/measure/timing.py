"""Times: graphs of calls on a GPU, replayed and timed by its own events; a plain clock on a CPU."""

import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch  # pyright: ignore[reportMissingImports]

from genz_jax.measure.cases import Call
from genz_jax.measure.device import Device

GRAPH, MOST_CALLS = 2000.0, 200
"""Microseconds that a graph should take, and calls in it at most."""

LONG = 500e3
"""Microseconds from which a call is not put in a graph: what launches it is nothing beside it."""

QUEUED = 20e3
"""Microseconds up to which a replay runs ahead of the one that is timed."""

FEW, MANY, WHILE = 3, 5, 500e3
"""Replays at least and at most, and microseconds that they may take in between."""


class Timing(NamedTuple):
    """Median and least microseconds of a call, and a function that runs it for a while and waits for its end."""

    us: float
    least: float
    replay: Call


def time_calls(calls: Sequence[Call], device: Device) -> Timing:
    """Time calls of the same work that take turns, so that each finds its buffers out of the cache.

    Args:
        calls: one function for each set of buffers.
        device: where they run.
    """
    return _on_gpu(calls) if device.is_gpu else _on_cpu(calls)


def _replays(us: float) -> int:
    return int(max(FEW, min(MANY, WHILE / us)))


def _on_cpu(calls: Sequence[Call]) -> Timing:
    def once() -> float:
        begin = time.perf_counter()
        for call in calls:
            call()
        return (time.perf_counter() - begin) * 1e6 / len(calls)

    once()
    found = [once() for _ in range(FEW)]
    return Timing(statistics.median(found), min(found), once)


def _on_gpu(calls: Sequence[Call]) -> Timing:
    # Kernels are compiled and chosen outside of the graph, on a stream of their own as PyTorch asks for.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        calls[0]()
        one = _between(calls[0])
        found = [one] + [_between(calls[0]) for _ in range(FEW - 1) if one > LONG]
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    if one > LONG:
        return Timing(statistics.median(found), min(found), lambda: _run(calls[0]))
    repeat = max(len(calls), min(MOST_CALLS, int(GRAPH / one)))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(repeat):
            calls[i % len(calls)]()
    _run(graph.replay)
    whole = _between(graph.replay)
    found = [_between(graph.replay, ahead=whole < QUEUED) / repeat for _ in range(_replays(whole))]
    return Timing(statistics.median(found), min(found), lambda: _run(graph.replay))


def _run(call: Call) -> None:
    call()
    torch.cuda.synchronize()


def _between(call: Call, ahead: bool = False) -> float:
    """Microseconds of a call between two events; a call ahead hides how long the CPU takes to launch the timed one."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    if ahead:
        call()
    begin.record()
    call()
    end.record()
    end.synchronize()
    return max(begin.elapsed_time(end) * 1e3, 1e-3)
