"""Gradients with respect to every number of a platform against central differences, and finite wherever they are."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ALL, ZOO, floats, make_case, paths, random_case

import genz_jax as gz
from genz_jax.serving.evaluate import Case, Question, evaluate
from genz_jax.specs import assumptions
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.stack import stack
from genz_jax.work.operators.products import gemm

DEFAULT, GENZ = assumptions.default, assumptions.genz
SMOOTH = DEFAULT.replace(smooth=0.05)
QUESTIONS = {
    "request": Question("request", DEFAULT, ALL),
    "request, genz": Question("request", GENZ, ALL),
    "request, smooth": Question("request", SMOOTH, ALL),
    "prefill": Question("prefill", DEFAULT),
    "decode": Question("decode", DEFAULT),
    "chunked": Question("chunked", DEFAULT, breakdown=True),
    "chunked, genz": Question("chunked", GENZ, breakdown=True),
    "speculative_decode": Question("speculative_decode", DEFAULT),
    "speculative_prefill": Question("speculative_prefill", DEFAULT),
}
POINTS = 72
"""Points of each question, 648 of the nine together."""

FEW = 2 * len(ZOO)
STEP = 1e-6

OTHERS = ("qwen3.5-35b-a3b", "deepseek-v3.2")
"""Kinds of models that `ZOO` has not: gated delta nets, and latent attention with an indexer."""


def figures(platform: gz.Platform, case: Case, question: Question) -> tuple[list[str], jax.Array]:
    """Names of all figures that are numbers, and their values, one row each."""
    points = jax.tree.leaves(platform)[0].shape
    found = floats(evaluate(eqx.tree_at(lambda c: c.platform, case, platform), question))
    return list(found), jnp.stack([jnp.broadcast_to(value, points) for value in found.values()])


def slopes(case: Case, question: Question) -> tuple[list[str], np.ndarray, gz.Platform]:
    """Figures by name, their values, and for each number of the platform the slope of each figure at each point.

    Points do not depend on each other, so that one backward pass has the slopes of all of them.
    """
    platform = jax.tree.map(jnp.asarray, case.platform)
    names: list[str] = []

    def values(inner: gz.Platform) -> jax.Array:
        found, rows = figures(inner, case, question)
        names[:] = found
        return rows

    rows, back = jax.vjp(values, platform)
    seeds = jnp.broadcast_to(jnp.eye(len(names))[:, :, None], (len(names), *rows.shape))
    (gradient,) = jax.vmap(back)(seeds)
    return names, np.asarray(rows), gradient


def moved(case: Case, number: int, factor: float) -> tuple[Case, Case]:
    """A case with one number of its platform moved to either side."""

    def move(up: bool) -> Case:
        leaves, structure = jax.tree.flatten(case.platform)
        leaves[number] = leaves[number] * (1 + factor if up else 1 - factor)
        return eqx.tree_at(lambda c: c.platform, case, jax.tree.unflatten(structure, leaves))

    return move(True), move(False)


def differences(case: Case, question: Question) -> tuple[np.ndarray, np.ndarray]:
    """Relative slopes x·∂f/∂x of each figure by each number, and where a kink lies between the two sides."""
    numbers = len(jax.tree.leaves(case.platform))
    sides = [side for number in range(numbers) for side in moved(case, number, STEP)]
    everything = jax.tree.map(lambda *leaves: np.concatenate(leaves), case, *sides)
    _, rows = figures(everything.platform, everything, question)
    parts = np.asarray(rows).reshape(rows.shape[0], 2 * numbers + 1, -1)
    here, up, down = parts[:, :1], parts[:, 1::2], parts[:, 2::2]
    scale = np.maximum(np.abs(here), 1e-300)
    kinked = np.abs((up - here) - (here - down)) / STEP > 1e-4 * scale
    return (up - down) / (2 * STEP), kinked


def prepared(stage: str, seed: int, offload: bool, points: int = POINTS) -> Case:
    """Random points whose network sizes are between whole numbers, where only they could be differentiated."""
    case = random_case(stage, seed, points, capacity=(1e9, 1e13))
    rng = np.random.default_rng(seed)
    sizes = [level.size + 0.5 for level in case.platform.network]
    case = eqx.tree_at(lambda c: [level.size for level in c.platform.network], case, sizes)
    link = 10 ** rng.uniform(9.5, 12, points) if offload else np.zeros(points)
    return eqx.tree_at(lambda c: c.platform.offload_bw, case, link)


QUICK = ("request, genz", "chunked, genz", "speculative_prefill")
MARKED = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in sorted(QUESTIONS)]


@pytest.mark.slow
@pytest.mark.parametrize("name", MARKED)
def test_gradients_are_those_of_differences(name: str):
    question = QUESTIONS[name]
    touched = agreeing(prepared(question.stage, 5, offload=True), question)
    # Each number matters somewhere, but for the sizes of networks and what the physics leaves out.
    always = {"flops", "mem_bw", "network.0.bandwidth", "network.0.latency", "power", "rates.bf16"}
    assert touched >= always | {"compute_efficiency", "memory_efficiency", "link_efficiency", "collective_overhead"}
    assert not touched & {"network.0.size", "network.1.size"}
    assert ("onchip_bw" in touched) == question.assumptions.on_chip_traffic


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_gradients_of_other_kinds_are_those_of_differences(name: str):
    question = QUESTIONS["request"]
    case = prepared("request", 9, offload=True, points=FEW)
    models = stack([gz.model(name)] * FEW)
    touched = agreeing(eqx.tree_at(lambda c: c.model, case, models), question)
    assert {"flops", "mem_bw", "network.0.bandwidth", "network.0.latency"} <= touched


def agreeing(case: Case, question: Question) -> set[str]:
    """Compare gradients with differences; the numbers of the platform that change a figure at some point."""
    names, rows, gradient = slopes(case, question)
    assert np.all(np.isfinite(rows))
    leaves = zip(jax.tree.leaves(gradient), jax.tree.leaves(case.platform), strict=True)
    ours = np.stack([np.asarray(slope) * value for slope, value in leaves], axis=1)
    assert np.all(np.isfinite(ours))
    expected, kinked = differences(case, question)
    assert np.mean(kinked) < 0.002
    error = np.abs(ours - expected) / np.maximum(np.abs(rows), 1e-300)[:, None]
    error[kinked] = 0.0
    worst = np.unravel_index(np.argmax(error), error.shape)
    assert error[worst] < 1e-6, (names[worst[0]], paths(case.platform)[worst[1]], int(worst[2]))
    return {path for path, slope in zip(paths(case.platform), np.abs(ours).max(axis=(0, 2)), strict=True) if slope > 0}


@pytest.mark.slow
@pytest.mark.parametrize("name", MARKED)
def test_gradients_are_finite_where_points_do_not_run(name: str):
    question = QUESTIONS[name]
    case = prepared(question.stage, 6, offload=False)
    # Some points ask for more devices than there are, or for a split that the model does not allow.
    case = eqx.tree_at(lambda c: c.parallelism.tp, case, np.where(np.arange(POINTS) % 3 == 0, 7.0, case.parallelism.tp))
    names, rows, gradient = slopes(case, question)
    runs = np.isfinite(rows).all(axis=0)
    assert 0 < runs.sum() < POINTS
    for path, slope in zip(paths(case.platform), jax.tree.leaves(gradient), strict=True):
        assert np.all(np.isfinite(slope)), path
        time = names.index("latency")
        np.testing.assert_array_equal(np.asarray(slope)[time][~runs], 0.0)


def edges(question: Question) -> list[tuple[str, Case]]:
    """Points at which something is exactly zero, full or in balance."""
    case = random_case(question.stage, 7, FEW, capacity=(1e16, 1e17))

    def at(where: Any, value: float) -> Case:
        return eqx.tree_at(where, case, np.full(FEW, value))

    result: Any = evaluate(case, Question(question.stage, question.assumptions))
    need = np.broadcast_to(np.asarray(result.memory), (FEW,))
    full = eqx.tree_at(lambda c: (c.platform.mem_capacity, c.platform.offload_bw), case, (need, np.full(FEW, 1e11)))
    return [
        ("no latency of links", at(lambda c: c.platform.network[0].latency, 0.0)),
        ("no overhead", at(lambda c: c.platform.collective_overhead, 0.0)),
        ("no power", at(lambda c: c.platform.power, 0.0)),
        ("no static power", at(lambda c: c.platform.power_split.static, 0.0)),
        ("no offload link", at(lambda c: c.platform.offload_bw, 0.0)),
        ("just full", full),
        ("one token", at(lambda c: c.workload.input_tokens, 1.0)),
        ("no output", at(lambda c: c.workload.output_tokens, 0.0)),
        ("one rank", at(lambda c: c.parallelism.tp, 1.0)),
        ("one stage", at(lambda c: c.parallelism.pp, 1.0)),
        ("equal levels", at(lambda c: c.platform.network[0].size, 2.0**20)),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("request", marks=pytest.mark.slow), "request, smooth", "chunked, genz"])
def test_gradients_are_finite_at_edges(name: str):
    question = QUESTIONS[name]
    cases = edges(question)
    everything = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(case for _, case in cases))
    _, rows, gradient = slopes(everything, question)
    for path, slope in zip(paths(everything.platform), jax.tree.leaves(gradient), strict=True):
        broken = ~np.isfinite(np.asarray(slope)).all(axis=0).reshape(len(cases), FEW)
        assert not broken.any(), (path, [cases[i][0] for i in np.flatnonzero(np.any(broken, axis=1))])
    assert np.isfinite(rows).any()


@pytest.mark.first(1)
@pytest.mark.parametrize("physics", [DEFAULT, SMOOTH], ids=["exact", "smooth"])
def test_gradient_at_a_balanced_operator(physics: Assumptions):
    # A platform on which the head of the model takes as long for its FLOPs as for its bytes.
    op = gemm("head", "head", batch=4.0, m=1.0, n=50257.0, k=768.0, precision=gz.Precision())
    moved_bytes = float(op.input + op.weight + op.output)
    platform = gz.Platform(1e15, moved_bytes / float(op.flops) * 1e15, 1e12)
    case = make_case(gz.model("gpt2"), platform, gz.Workload(4, 100, 2))
    question = Question("decode", physics)

    def latency(bandwidth: jax.Array, rate: jax.Array) -> jax.Array:
        changed = platform.replace(mem_bw=bandwidth, flops=rate)
        result: Any = evaluate(eqx.tree_at(lambda c: c.platform, case, changed), question)
        return result.latency

    both = jax.grad(latency, (0, 1))(jnp.asarray(platform.mem_bw), jnp.asarray(platform.flops))
    assert all(np.isfinite(slope) and slope < 0 for slope in both)


def test_gradient_through_estimate():
    def tpot(bandwidth: jax.Array) -> jax.Array:
        chip = gz.platform("H100-SXM").replace(mem_bw=bandwidth, mem_capacity="1 TB")
        return gz.estimate("llama-3.1-8b", chip, gz.Workload(4, 700, 60)).tpot

    at, step = 3e12, 3e6
    slope = float(jax.grad(tpot)(jnp.asarray(at)))
    expected = (float(tpot(jnp.asarray(at + step))) - float(tpot(jnp.asarray(at - step)))) / (2 * step)
    assert slope == pytest.approx(expected, rel=1e-6)
    assert slope < 0


@pytest.mark.slow
def test_gradient_of_a_sum_is_the_sum_over_points():
    # jax.grad of one point agrees with the backward pass over all points that the other tests use.
    question = Question("decode", DEFAULT, ("latency",))
    case = random_case("decode", 8, FEW)
    _, _, gradient = slopes(case, question)
    place = 3
    alone = jax.tree.map(lambda leaf: jnp.asarray(leaf[place]), case)

    def latency(platform: gz.Platform) -> jax.Array:
        result: Any = evaluate(eqx.tree_at(lambda c: c.platform, alone, platform), question)
        return result.latency

    one = jax.grad(latency)(alone.platform)
    for path, ours, all_of_them in zip(paths(one), jax.tree.leaves(one), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(ours, np.asarray(all_of_them)[0, place], rtol=1e-12, err_msg=path)
