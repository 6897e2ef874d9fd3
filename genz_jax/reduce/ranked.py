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
from genz_jax.serving.targets import Service

Ranked = tuple[tuple[Objective, float], ...]
"""Objectives, each with the sign that makes less of it better."""


class Judged(eqx.Module):
    """Points of a grid, each array on the axes that it depends on.

    Attributes:
        good: True where a point runs and meets the service level objective.
        values: objectives times their signs, so that less is better; ∞ where a point is not good.
    """

    good: Any
    values: tuple[Any, ...]


class Seen(eqx.Module):
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
def judge(question: Question, ranked: Ranked) -> Callable[[Service], Judged]:
    """The function from a service to its judged points; the same object for the same question and objectives."""
    figures = figures_of(question)

    def judged(service: Service) -> Judged:
        result = figures(service)
        good = jnp.asarray(result.feasible if service.slo is None else service.slo.met(result))
        values = []
        for objective, sign in ranked:
            value = jnp.asarray(value_of(objective, result, service.platform), jnp.result_type(float)) * sign
            values.append(jnp.where(good & ~jnp.isnan(value), value, jnp.inf))
        return Judged(good, tuple(values))

    return judged


def figures_of(question: Question) -> Callable[[Service], Any]:
    """The function from a service to all figures of a stage, without breakdown; the compiler drops what is unused."""
    asked = dataclasses.replace(question, figures=None, breakdown=False, operators=False)
    return lambda service: evaluate(case_of(service), asked)


def case_of(service: Service) -> Case:
    """The case of a service, without what is promised of it."""
    return Case(*(getattr(service, field.name) for field in dataclasses.fields(Case)))


@functools.lru_cache(maxsize=QUESTIONS)
def described(question: Question, structure: Any) -> Any:
    """The figures of a stage for one point of services of a structure, as shapes."""
    dtype = jnp.result_type(float)
    one = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct((), dtype)] * structure.num_leaves)
    return jax.eval_shape(figures_of(question), one)
