"""What would not fit in memory is refused before it is made, and long names are answered at once."""

import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import genz_jax as gz
from genz_jax.base import axes, free_memory as room

CHIP = gz.platform("H100-SXM")
HUGE = CHIP.replace(mem_bw=gz.geomspace(1e12, 2e13, 10**6), flops=gz.geomspace(1e14, 1e16, 10**6))
LONG = xr.DataArray(np.broadcast_to(np.float32(1e12), (10**9,)), dims="chip")
TWO = gz.Workload(batch=gz.axis([1, 2]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: gz.axis(range(10**9)),
        lambda: gz.axis(np.broadcast_to(np.float32(1.0), (10**9,))),
        lambda: gz.linspace("1 TB/s", "2 TB/s", 10**9),
        lambda: gz.geomspace(1, 2, 10**9),
        lambda: gz.linspace(1, 2, 10**400),
        lambda: CHIP.replace(mem_bw=LONG),
    ],
)
def test_an_axis_without_sense_is_refused_before_it_is_made(make):
    start = time.process_time()
    with pytest.raises(ValueError, match=r"at most 10,000,000 make sense") as caught:
        make()
    assert time.process_time() - start < 1.0
    assert "\n" not in str(caught.value)
    assert axes.MOST == 10**7


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gz.sweep("gpt2", HUGE, progress=False), r"points of \d+ figures need .* GB .*store=…, or .*reduce=…"),
        (lambda: gz.sweep("gpt2", HUGE, TWO, reduce=gz.Best("tpot", over="batch")), "reduce over more dimensions"),
        (lambda: gz.sweep("gpt2", HUGE, TWO, reduce=gz.Fraction(over="batch")), "reduce over more dimensions"),
        (lambda: gz.sweep("gpt2", HUGE, TWO, reduce=gz.Quantiles("tpot", [0.5], "batch")), "reduce over more dim"),
        (lambda: gz.cost(HUGE), "shorten the axes"),
        (lambda: gz.require("mem_capacity", "gpt2", HUGE, slo=gz.SLO(tpot="1 s")), "shorten the axes"),
        (lambda: gz.sensitivity("gpt2", HUGE, progress=False), "shorten the axes"),
        (lambda: gz.gradients("gpt2", HUGE, progress=False), "shorten the axes"),
    ],
)
def test_results_that_do_not_fit_are_refused_with_their_bytes(call, words):
    with pytest.raises(MemoryError, match=words) as caught:
        call()
    assert "bytes" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_memory_of_a_container_counts(tmp_path, monkeypatch):
    own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    folder = tmp_path / own.strip("/")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text("1000000\n")
    (folder / "memory.current").write_text("700000\n")
    (folder / "memory.stat").write_text("anon 600000\ninactive_file 50000\n")
    monkeypatch.setattr(room, "_CGROUPS", tmp_path)
    assert room.available_memory() == 350_000
    room.check(200_000, "it", "wait")
    with pytest.raises(MemoryError, match=r"it need 0\.0 GB \(300,000 bytes\), but 0\.0 GB are free; wait"):
        room.check(300_000, "it", "wait")
    (folder / "memory.max").write_text("max\n")
    assert room.available_memory() > 10**7


@pytest.mark.parametrize(
    "call",
    [
        lambda name: gz.model(name),
        lambda name: gz.platform(name),
        lambda name: gz.workload(name),
        lambda name: gz.estimate("gpt2", CHIP, stage=name),
        lambda name: gz.estimate("gpt2", CHIP, precision=name),
        lambda name: CHIP.replace(**{name: 1.0}),
        lambda name: CHIP.replace(mem_bw=f"1 {name}"),
    ],
)
@pytest.mark.parametrize("name", ["llama-" * 500, "x" * 3000, "fp8-" * 750])
def test_a_name_of_3000_letters_is_answered_at_once(call, name):
    assert gz.models()  # the catalogue is read once
    assert gz.platforms()
    start = time.process_time()
    with pytest.raises(ValueError, match=r"…|\.\.\.") as caught:
        call(name)
    assert time.process_time() - start < 0.1
    assert len(str(caught.value)) <= 300
