"""A run: streams of cases that share the time, from the plan to the report."""

import contextlib
import gc
import importlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch  # pyright: ignore[reportMissingImports]
from tqdm import tqdm

from genz_jax.measure import attention, memory, power, products, reference, steps
from genz_jax.measure.cases import Bench, Case, Stream
from genz_jax.measure.device import Device
from genz_jax.measure.report import Report
from genz_jax.measure.table import Key, Table, key, text
from genz_jax.measure.timing import time_calls

SHARES = {
    "gemm": (0.16, 0.15),
    "decode_attention": (0.11,),
    "prefill_attention": (0.09,),
    "experts": (0.08,),
    "memory": (0.08,),
    "decode": (0.20,),
    "prefill": (0.13,),
}
"""Of the time, what the streams of a section get."""

ROUNDS = 3
"""Turns in which a stream uses its share: weights of decoders are made anew in each."""

HELD = 0.6
"""Of the memory, what PyTorch may have kept of earlier cases, with what the next needs."""


def streams(bench: Bench, sections: Sequence[str]) -> list[Stream]:
    """The plan: what is timed in some sections.

    Args:
        bench: where, and with which kernels.
        sections: their names.
    """
    plans: dict[str, Callable[[], tuple[list[Case], ...]]] = {
        "gemm": lambda: products.gemm(bench),
        "decode_attention": lambda: (attention.decode(bench),),
        "prefill_attention": lambda: (attention.prefill(bench),),
        "experts": lambda: (products.experts(bench),),
        "memory": lambda: (memory.memory(bench),),
    }
    found = []
    for name, plan in plans.items():
        if name in sections:
            found += [Stream(share, cases) for share, cases in zip(SHARES[name], plan(), strict=True)]
    whole = {"decode", "prefill"} & set(sections)
    share = sum(SHARES[name][0] for name in whole)
    models = steps.TINY_MODELS if bench.tiny else steps.MODELS
    jobs = [(name, fp8) for name, shape in models.items() for fp8 in ((False,) if shape.experts else (False, True))]
    for seed, (name, fp8) in enumerate(jobs if whole else (), 10):
        found.append(steps.Steps(bench, name, fp8).stream(share / len(jobs), whole, seed))
    return found


def bench(device: Device) -> Bench:
    """What cases are built with on a device: Triton's kernels, of which those that err are named."""
    if not device.is_gpu:
        return Bench(device, reference, {}, tiny=True)
    try:
        from genz_jax.measure import kernels
    except ImportError:
        return Bench(device, reference, dict.fromkeys(reference.CHECKS, "Triton is not installed"))
    return Bench(device, kernels, reference.faulty(kernels, device))


def run(table: Table, device: Device, sections: Sequence[str], seconds: float, progress: bool) -> Report:
    """Time what a table lacks until the time is over.

    Args:
        table: where rows go.
        device: what is timed.
        sections: what of.
        seconds: how long, the preparation included; one case is timed at least.
        progress: show a bar.

    Raises:
        ValueError: the device stopped working.
    """
    with (
        _undisturbed(),
        tqdm(
            total=round(seconds),
            desc="measuring",
            disable=not progress,
            leave=False,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} of at most {total} s{postfix}",
        ) as bar,
    ):
        work = _Run(table, device, time.perf_counter() + seconds, bar)
        return work.all(streams(bench(device), sections), seconds)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Without warnings, and with garbage looked for only among what a run makes."""
    # Old releases of PyTorch collect garbage before every graph, which takes long among all that was imported.
    gc.freeze()
    try:
        with warnings.catch_warnings():
            # PyTorch warns of every kernel that it might have taken instead.
            warnings.simplefilter("ignore")
            yield
    finally:
        gc.unfreeze()


class _Run:
    """One run, up to its end."""

    def __init__(self, table: Table, device: Device, end: float, bar: tqdm) -> None:
        self._table, self._device, self._end, self._bar = table, device, end, bar
        self._begin = time.perf_counter()
        self._joules = power.counter(device)
        self._report = Report(_described(device))
        self._planned: set[Key] = set()

    def all(self, plan: list[Stream], seconds: float) -> Report:
        live = [stream for stream in plan if self._drop_hopeless(stream)]
        whole = sum(stream.share for stream in live)
        while live:
            # Whoever has had least of its share is next, so that what one does not need goes to all others.
            stream = min(live, key=lambda one: one.spent / one.share)
            self._turn(stream, stream.share / whole * seconds / ROUNDS)
            live = [stream for stream in live if stream.cases]
            if time.perf_counter() >= self._end:
                break
        for stream in live:
            self._report.left.update(case.section for case in stream.cases)
        self._report.rows, self._report.added = self._table.rows, self._table.rows - self._table.kept
        return self._report

    def _drop_hopeless(self, stream: Stream) -> bool:
        """Leave out what is in the table already, what stands twice, and what cannot run; False if nothing is left."""
        kept = []
        for case in stream.cases:
            row = key(case.section, case.name, text(case.parameters))
            if row in self._table or row in self._planned:
                continue
            self._planned.add(row)
            cause = case.unable or ("out of memory" if case.size > self._device.memory else "")
            if cause:
                self._skip(case, cause)
            else:
                kept.append(case)
        stream.cases = kept
        return bool(kept)

    def _turn(self, stream: Stream, seconds: float) -> None:
        """Time cases of a stream for a while, at least one."""
        begin = time.perf_counter()
        until = min(begin + seconds, self._end)
        while stream.cases:
            self._case(stream.cases.pop(0))
            self._show(stream)
            if time.perf_counter() >= until:
                break
        stream.release()
        if self._device.is_gpu:
            gc.collect()
        self._device.free()
        stream.spent += time.perf_counter() - begin

    def _case(self, case: Case) -> None:
        if self._device.is_gpu and torch.cuda.memory_reserved() + case.size > HELD * self._device.memory:
            self._device.free()
        try:
            calls = case.build()
            timing = time_calls(calls.functions, self._device)
            watts = self._watts(timing.replay) if case.powered else None
        except Exception as error:
            # Libraries refuse sizes in ways of their own; the next case may well do.
            self._skip(case, _cause(error))
            self._still_works(error)
            return
        self._table.add(case.section, case.name, {**case.parameters, **calls.found}, timing[:2], watts)

    def _watts(self, replay: Callable[[], object]) -> float | None:
        """Mean power while a case is repeated; a counter that fails is not asked again."""
        if self._joules is None:
            return None
        try:
            return power.mean_watts(self._joules, replay)
        except Exception:
            # What the device itself does wrong shows here.
            self._device.wait()
            self._joules = None
            return None

    def _still_works(self, error: Exception) -> None:
        """After an error: is there a device still?

        Raises:
            ValueError: there is none for this process.
        """
        try:
            self._device.free()
            self._device.wait()
        except RuntimeError:
            place = f"{self._table.rows:,} rows are kept"
            raise ValueError(f"the GPU stopped working ({_first_line(error)}); {place}, go on with --resume") from None

    def _skip(self, case: Case, cause: str) -> None:
        self._report.skipped[case.section, case.name, cause] += 1

    def _show(self, stream: Stream) -> None:
        passed = min(time.perf_counter() - self._begin, self._bar.total)
        self._bar.set_postfix_str(f"{self._table.rows:,} rows", refresh=False)
        self._bar.update(passed - self._bar.n)


def _cause(error: Exception) -> str:
    """Why a case could not be timed, in few words."""
    said = str(error).lower()
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "out of memory" in said:
        return "out of memory"
    if "no available kernel" in said or "no viable backend" in said:
        return "PyTorch has no such kernel here"
    if "captur" in said:
        return "PyTorch's kernel waits for the CPU and cannot be put in a graph here"
    if type(error).__name__ == "OutOfResources":
        return "the kernel needs more of a multiprocessor than this GPU has"
    return _first_line(error)


def _first_line(error: Exception) -> str:
    said = " ".join(str(error).split("\n", 1)[0].split())
    return f"{type(error).__name__}: {said[:100]}" if said else type(error).__name__


def _described(device: Device) -> str:
    """The device, and what of PyTorch ran on it."""
    parts = [device.name, f"PyTorch {torch.__version__}"]
    with contextlib.suppress(ImportError):
        parts.append(f"Triton {importlib.import_module('triton').__version__}")
    return ", ".join(parts)
