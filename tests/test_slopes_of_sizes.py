"""Derivatives in sizes of models, workloads, formats and parallelism lie between the differences of whole numbers."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ZOO, make_case, paths

import genz_jax as gz
from genz_jax.serving.evaluate import Case, Question, evaluate
from genz_jax.specs import assumptions

FINITE = assumptions.default.replace(infeasible="finite")
"""Sizes beside those of a model may divide over no ranks, and have figures all the same."""

CHIP = gz.platform("H100-SXM").replace(
    mem_capacity="10 TB", network=(gz.specs.NetworkLevel(2**20, "450 GB/s", "1 us"),)
)
PARALLEL = ("parallelism.tp", "parallelism.ep", "parallelism.pp", "parallelism.dp", "parallelism.cp")
SMOOTH = ("dp", "micro_batches", "kv_outliers")
"""Numbers by which others are divided or multiplied without rounding, so that a small step tells the derivative."""

SWITCHES = ("v_head_dim", "input_size", "q_lora_rank", "size", "top_k", "tied_embeddings", "value_projection")
"""Numbers of which 0 stands for another value or for another computation."""


def sides(case: Case) -> tuple[list[tuple[str, float, float, float]], Case]:
    """Path, value and steps down and up of each number, and the case at all of these sides, along one axis."""
    leaves, structure = jax.tree.flatten(case)
    ranks = float(case.parallelism.tp * case.parallelism.ep)
    moves, columns = [], [list(map(float, leaves))]
    for i, (path, leaf) in enumerate(zip(paths(case), leaves, strict=True)):
        x, last = float(leaf), path.split(".")[-1]
        if last.endswith("_format") or (x == 0 and (last in SWITCHES or path.startswith("platform.rates"))):
            continue
        if (path == "parallelism.tp" and ranks <= 2) or (path == "parallelism.ep" and x <= 2):
            continue  # collectives begin between one rank and two
        if last in SMOOTH:
            steps = (1e-4 * x, 1e-4 * max(x, 1.0))
        elif path in PARALLEL:
            steps = (x / 2, x)
        elif last in ("heads", "kv_heads", "key_heads", "value_heads", "groups", "experts"):
            steps = (x / 2, x)
        elif x == round(x) and x < 1e7 and "efficiency" not in last and not path.startswith("platform.rates"):
            steps = (min(ranks, x / 2), ranks)
        else:
            steps = (1e-4 * x, 1e-4 * x)
        moves.append((path, x, *steps))
        around = (x - steps[0], x + steps[1])
        columns += [[*map(float, leaves[:i]), moved, *map(float, leaves[i + 1 :])] for moved in around]
    arrays = [jnp.asarray(column) for column in zip(*columns, strict=True)]
    return moves, jax.tree.unflatten(structure, arrays)


def check(case: Case, stage: str, figure: str) -> set[str]:
    """Compare slopes of a figure with differences to either side; the numbers that it depends on."""
    question = Question(stage, FINITE)

    def value(at: Case) -> Any:
        return getattr(evaluate(at, question), figure)

    case = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), case)
    moves, everything = sides(case)
    found = np.broadcast_to(np.asarray(jax.jit(value)(everything)), (1 + 2 * len(moves),))
    here, down, up = found[0], found[1::2], found[2::2]
    slopes = dict(zip(paths(case), map(float, jax.tree.leaves(jax.jit(jax.grad(value))(case))), strict=True))
    wrong = {}
    for (path, x, back, ahead), low, high in zip(moves, down, up, strict=True):
        differences = [(high - here) / ahead] + ([(here - low) / back] if back else [])
        margin = 1e-3 * max(map(abs, differences)) + 1e-9 * abs(here) / max(x, 1.0)
        if not min(differences) - margin <= slopes[path] <= max(differences) + margin:
            wrong[path] = (x, slopes[path], differences)
    assert not wrong
    return {path for path, slope in slopes.items() if slope}


def served(model: str, **spread: float) -> Case:
    # As many micro-batches whatever the stages, so that the two are told apart.
    sizes = {"tp": 4, "pp": 2, "dp": 2, "micro_batches": 2} | spread
    return make_case(gz.model(model), CHIP, gz.Workload(64, 2048, 256, 2), gz.Parallelism(**sizes), gz.Precision("fp8"))


def test_known_slopes_of_model_shape():
    # Seconds per unit of TPOT, differences of whole numbers: fp8, batch 16, 2,048 + 256 tokens, one H100.
    case = make_case(gz.model("llama-3.1-70b"), CHIP, gz.Workload(16, 2048, 256), None, gz.Precision("fp8"))
    question = Question("request", FINITE)

    def tpot(model: gz.Model) -> Any:
        result: Any = evaluate(dataclasses.replace(case, model=model), question)
        return result.tpot

    model = jax.grad(tpot)(jax.tree.map(jnp.asarray, case.model))
    assert float(model.ffn.intermediate_size) == pytest.approx(5.892e-7, rel=1e-3)
    assert float(model.attention.heads) == pytest.approx(5.047e-5, rel=1e-3)
    assert float(model.attention.kv_heads) == pytest.approx(2.632e-4, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["decode", pytest.param("prefill", marks=pytest.mark.slow)])
def test_slopes_are_between_differences(stage: str):
    touched = check(served("llama-3.1-8b"), stage, "latency")
    assert {"parallelism.tp", "parallelism.pp", "parallelism.dp", "workload.batch"} <= touched
    # A prompt's linear layers wait for arithmetic, whatever their bytes.
    assert ("precision.weights" in touched) == (stage == "decode")
    assert {"model.vocab_size", "model.attention.heads", "model.attention.kv_heads"} <= touched
    assert {"model.ffn.intermediate_size", "model.hidden_size", "model.ffn.layers", "model.attention.layers"} <= touched


@pytest.mark.slow
@pytest.mark.parametrize("model", [*ZOO, "qwen3-next-80b-a3b", "deepseek-v3.2"])
@pytest.mark.parametrize(("stage", "figure"), [("decode", "latency"), ("prefill", "latency"), ("decode", "memory")])
def test_slopes_of_every_kind_of_model(model: str, stage: str, figure: str):
    ep = 2 if gz.model(model).moe is not None else 1
    check(served(model, tp=2, ep=ep), stage, figure)
