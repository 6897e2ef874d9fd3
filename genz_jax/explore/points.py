"""Points: what reductions see of the points of a block, inside the compiled function."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax.evaluate import Case, Question, evaluate
from genz_jax.explore.reductions import Objective, value_of
from genz_jax.explore.targets import Service
from genz_jax.specs import Platform


class Points(eqx.Module):
    """The points of a block.

    Attributes:
        result: all figures of the stage.
        platform: the platforms.
        good: True where a point runs and meets the service level objective.
        inside: True where a point lies in the grid; None where all do.
        number: the block's number.
        shape: lengths of the block.
    """

    result: Any
    platform: Platform
    good: jax.Array
    inside: jax.Array | None
    number: jax.Array
    shape: tuple[int, ...] = eqx.field(static=True)

    def ranked(self, objective: Objective, sign: float) -> jax.Array:
        """The value at every point times the sign, so that less is better; ∞ where a point does not count."""
        value = jnp.asarray(value_of(objective, self.result, self.platform), jnp.result_type(float)) * sign
        value = jnp.where(self.good & ~jnp.isnan(value), value, jnp.inf)
        return jnp.broadcast_to(value, self.shape)


def figures_of(question: Question) -> Callable[[Service], Any]:
    """The function from a service to all figures of a stage, without breakdown; the compiler drops what is unused."""
    asked = dataclasses.replace(question, figures=None, breakdown=False, operators=False)
    return lambda service: evaluate(case_of(service), asked)


def case_of(service: Service) -> Case:
    """The case of a service, without what is promised of it."""
    return Case(*(getattr(service, field.name) for field in dataclasses.fields(Case)))


def points_of(
    question: Question, service: Service, number: jax.Array, shape: tuple[int, ...], inside: jax.Array | None = None
) -> Points:
    """The points of a block, of a service of arrays."""
    result = figures_of(question)(service)
    good = result.feasible if service.slo is None else service.slo.met(result)
    return Points(result, service.platform, good, inside, number, shape)
