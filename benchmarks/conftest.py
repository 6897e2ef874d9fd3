"""What the benchmarks share: options, versions and machine for the record, limits, traces counted."""

import dataclasses
import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import device
import jax
import native
import pytest
from contest import Competitor, Contest
from limits import DEVICE, Limits

from genz_jax.serving import evaluate

jax.config.update("jax_enable_compilation_cache", False)  # first calls are timed with their compilation


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the benchmarks."""
    parser.addoption("--quick", action="store_true", help="small sizes and few calls, to see that all of it works")
    parser.addoption("--gpu", action="store_true", help="genz_jax on the GPU beside its memory's write bandwidth")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the device before JAX is used."""
    if not config.getoption("--gpu"):
        jax.config.update("jax_platforms", "cpu")
        return
    try:
        found = jax.devices("gpu")
    except RuntimeError:
        found = []
    if not found:
        raise pytest.UsageError(
            "--gpu: JAX has no GPU here; install jax[cuda13] (or jax[rocm7-local]) on a machine with one, "
            "or leave --gpu out"
        )
    jax.config.update("jax_default_device", found[0])


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Keep the host's name out of the saved results."""
    del config
    machine_info.pop("node", None)


def cpu_model() -> str:
    """Model name of the processor, as the kernel reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclasses.dataclass(frozen=True)
class Options:
    """How much is measured.

    Attributes:
        quick: small sizes and few calls.
        gpu: on the GPU.
    """

    quick: bool
    gpu: bool

    def calls(self, points: int) -> int:
        """Timed calls of each competitor."""
        return 2 if self.quick else 9 if points < 10**8 else 5 if points < 10**9 else 3

    def cold(self, points: int) -> int:
        """First calls."""
        return 1 if self.quick or points >= 10**8 else 3


@pytest.fixture(scope="session")
def options(request: pytest.FixtureRequest) -> Options:
    """The options of this run."""
    return Options(*(bool(request.config.getoption(name)) for name in ("--quick", "--gpu")))


@pytest.fixture(scope="session")
def environment(options: Options) -> dict[str, Any]:
    """Versions and machine, for `extra_info` of every benchmark."""
    names = ("genz_jax", "genz_llm", "jax", "numpy", "numba", "numexpr")
    found: dict[str, Any] = {name: _version(name) for name in names}
    found |= {"python": platform.python_version(), "cpu": cpu_model(), "cores": os.cpu_count()}
    found["compiler"] = None if native.missing() else native.compiler()
    return found | {"device": device.name() if options.gpu else None, "quick": options.quick}


@pytest.fixture(scope="session")
def machine(options: Options) -> dict[str, Callable[[], float]]:
    """The machine's limits, to be measured by turns with all else."""
    size = 2**26 if options.quick else 2**28
    if options.gpu:
        return {DEVICE: device.fill(2**28 if options.quick else 2**32)}
    if native.missing():
        return {}
    return Limits(size, 2**18 if options.quick else 2**20).measurements()


class TraceCount:
    """Number of times that the evaluation was traced; `evaluate` runs in Python only then."""

    def __init__(self) -> None:
        self.count = 0

    def taken(self) -> int:
        """The count so far, which starts anew."""
        count, self.count = self.count, 0
        return count


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[TraceCount]:
    """Count the traces of a test."""
    counter, original = TraceCount(), evaluate.evaluate

    def counted(*arguments: Any) -> Any:
        counter.count += 1
        return original(*arguments)

    monkeypatch.setattr(evaluate, "evaluate", counted)
    evaluate.compiled.cache_clear()
    evaluate.function_of.cache_clear()
    yield counter
    evaluate.compiled.cache_clear()
    evaluate.function_of.cache_clear()


@pytest.fixture
def hold(
    benchmark: Any, environment: dict[str, Any], options: Options, machine: Any, traces: TraceCount
) -> Callable[..., Any]:
    """A function that holds a contest and records it."""

    def held(
        case: str,
        points: int,
        ours: Competitor,
        others: list[Competitor],
        *,
        flops_per_point: float,
        tolerance: float = 1e-5,
        extra: Callable[[], None] | None = None,
        **more: Any,
    ) -> Any:
        """Assert equal, time by turns, record.

        Args:
            case: what is computed.
            points: of how many points.
            ours: genz_jax.
            others: its competitors.
            flops_per_point: least operations of a point.
            tolerance: greatest relative difference.
            extra: takes its turn too.
            more: for the record.

        Returns:
            The last result of ours.
        """
        traces.taken()
        contest = Contest(ours, others, machine, extra)
        contest.first_calls(options.cold(points), tolerance)
        first_traces = traces.taken()
        benchmark.group = case
        result = benchmark.pedantic(ours.timed, setup=contest.turn, rounds=options.calls(points), iterations=1)
        assert traces.taken() == 0, "a call with the same shapes was traced again"
        benchmark.extra_info.update(
            environment,
            case=case,
            traces=first_traces / len(ours.first),
            load=os.getloadavg()[0],
            **contest.record(points, flops_per_point),
            **more,
        )
        return result

    return held
