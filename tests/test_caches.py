"""What is kept of compiled functions is bounded, and what is used again is not compiled again."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import genz_jax as gz
from genz_jax.base import caches
from genz_jax.base.caches import Compiled
from genz_jax.grid.shape import round_up

CHIP = gz.platform("H100-SXM")


class Counted:
    """A function that counts how often it is traced."""

    def __init__(self) -> None:
        self.traces = 0

    def __call__(self, x: jax.Array) -> jax.Array:
        self.traces += 1
        return x + jnp.ones_like(x)


def test_a_shape_is_traced_once_while_it_is_kept():
    counted = Counted()
    function = Compiled(lambda x: counted(x))
    for _ in range(3):
        for n in range(2, 2 + caches.SHAPES):
            np.testing.assert_array_equal(function(np.zeros(n)), np.ones(n))
    assert counted.traces == function.shapes == caches.SHAPES
    function(np.zeros(100))  # the one that was used least recently goes
    assert function.shapes == caches.SHAPES
    function(np.zeros(3))
    assert counted.traces == caches.SHAPES + 1
    function(np.zeros(2))
    assert counted.traces == caches.SHAPES + 2


def test_functions_of_the_package_are_bounded_together(monkeypatch):
    gz.clear_caches()  # of what other tests have made
    monkeypatch.setattr(caches, "MOST", 5)
    functions = [Compiled(lambda x, k=k: x * float(k)) for k in range(8)]
    for k, function in enumerate(functions):
        assert float(function(np.float64(2.0))) == 2.0 * k
    assert [function.shapes for function in functions] == [0, 0, 0, 1, 1, 1, 1, 1]
    assert float(functions[0](np.float64(3.0))) == 0.0


def test_a_static_argument_and_a_derivative():
    function = Compiled(lambda x, power: x**power, static_argnums=1)
    assert [float(function(2.0, k)) for k in (1, 2, 3)] == [2.0, 4.0, 8.0]
    assert float(jax.grad(lambda x: function(x, 3))(2.0)) == 12.0
    np.testing.assert_array_equal(jax.vmap(lambda x: function(x, 2))(jnp.arange(3.0)), [0.0, 1.0, 4.0])


@pytest.mark.slow
def test_clear_caches_forgets_and_all_works_as_before():
    before = gz.estimate("gpt2", CHIP).latency
    assert len(caches._KEPT) > 0
    gz.clear_caches()
    assert len(caches._KEPT) == 0
    assert gz.estimate("gpt2", CHIP).latency == before


@pytest.mark.parametrize("digits", [1, 2, 4])
def test_round_lengths(digits):
    for number in range(1, 3000):
        found = round_up(number, digits)
        assert number <= found <= number * (1 + 2.0 ** (1 - digits))
        assert round_up(found, digits) == found
        assert bin(found).rstrip("0").count("1") <= digits
        assert len(bin(found)[2:].rstrip("0")) <= digits


@pytest.mark.slow
def test_lengths_that_are_rounded_up_give_the_numbers_of_each_point():
    """A point of a sweep beside the same point alone, which has no axes."""
    asked: dict = {"stage": "decode", "figures": ["latency", "energy"], "progress": False}
    for count in (2, 3, 5, 33):
        bandwidths = np.geomspace(1e12, 2e13, count)
        found = gz.sweep(
            "gpt2", CHIP.replace(mem_bw=gz.axis(bandwidths)), gz.Workload(batch=gz.axis([1, 4, 9])), **asked
        )
        assert found.sizes == {"batch": 3, "mem_bw": count}
        for k, batch in ((0, 1), (count // 2, 4), (count - 1, 9)):
            alone = gz.estimate("gpt2", CHIP.replace(mem_bw=bandwidths[k]), gz.Workload(batch=batch), stage="decode")
            at = found.sel(batch=batch).isel(mem_bw=k)
            assert float(at.latency) == pytest.approx(float(alone.latency), rel=1e-12)
            assert float(at.energy) == pytest.approx(float(alone.energy), rel=1e-12)


LENGTHS = """
    import sys
    import psutil
    import genz_jax as gz

    process, chip = psutil.Process(), gz.platform("H100-SXM")

    def sweep(count):
        grid = chip.replace(mem_bw=gz.geomspace(1e12, 2e13, count))
        gz.sweep("gpt2", grid, stage="decode", figures=["latency"], progress=False)

    first, last = int(sys.argv[1]), int(sys.argv[2])
    sweep(first)
    before = process.memory_info().rss
    for count in range(first + 1, last):
        sweep(count)
    print((process.memory_info().rss - before) / 1e6)
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", [2, 5000])
def test_two_hundred_lengths_of_an_axis_keep_less_than_50_MB(first):
    # As people have it: the tests' own flags make larger programs.
    environment = {**os.environ, "PYTHONPATH": str(Path(gz.__file__).parent.parent), "XLA_FLAGS": ""}
    command = [sys.executable, "-c", textwrap.dedent(LENGTHS), str(first), str(first + 201)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < 50.0
