"""Points: what reductions see of the points of a block, inside the compiled function."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax.base.caches import QUESTIONS
from genz_jax.reduce.reductions import Objective, value_of
from genz_jax.serving.evaluate import Case, Question, evaluate

Ranked = tuple[tuple[Objective, float], ...]
"""Objectives, each with the sign that makes less of it better."""


class RankedPoints(eqx.Module):
    """Points of a grid, each array on the axes that it depends on.

    Attributes:
        good: True where a point runs and meets the service level objective.
        values: objectives times their signs, so that less is better; ∞ where a point is not good.
    """

    good: Any
    values: tuple[Any, ...]


class BlockView(eqx.Module):
    """A block of points.

    Attributes:
        good: True where a point runs and meets the service level objective.
        inside: True where a point lies in the grid; None where all do.
        number: the block's number.
        shape: lengths of the block.
    """

    good: jax.Array
    inside: jax.Array | None
    number: jax.Array
    shape: tuple[int, ...] = eqx.field(static=True)


@functools.lru_cache(maxsize=QUESTIONS)
def ranked_points(question: Question, ranked: Ranked) -> Callable[[Case], RankedPoints]:
    """The function from a case to its ranked points; the same object for the same question and objectives."""
    figures = figures_of(question)

    def points_of(case: Case) -> RankedPoints:
        result = figures(case)
        good = jnp.asarray(result.feasible if case.slo is None else case.slo.met(result))
        values = []
        for objective, sign in ranked:
            value = jnp.asarray(value_of(objective, result, case.platform), jnp.result_type(float)) * sign
            values.append(jnp.where(good & ~jnp.isnan(value), value, jnp.inf))
        return RankedPoints(good, tuple(values))

    return points_of


def figures_of(question: Question) -> Callable[[Case], Any]:
    """The function from a case to all figures of a stage, without breakdown; the compiler drops what is unused."""
    asked = dataclasses.replace(question, figures=None, breakdown=False, operators=False)
    return lambda case: evaluate(case, asked)


@functools.lru_cache(maxsize=QUESTIONS)
def described(question: Question, structure: Any) -> Any:
    """The figures of a stage for one point of cases of a structure, as shapes."""
    dtype = jnp.result_type(float)
    one = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct((), dtype)] * structure.num_leaves)
    return jax.eval_shape(figures_of(question), one)
