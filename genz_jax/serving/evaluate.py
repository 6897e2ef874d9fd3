"""Evaluate: one compiled function per stage, physics and choice of figures."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer

from genz_jax.base.axes import Axis
from genz_jax.base.caches import QUESTIONS, Compiled
from genz_jax.base.fields import near
from genz_jax.base.units import brief
from genz_jax.serving.memory import memory_figures, memory_work
from genz_jax.serving.request import request_figures, request_work
from genz_jax.serving.slo import SLO
from genz_jax.serving.speculative import (
    speculative_decode_figures,
    speculative_decode_work,
    speculative_prefill_figures,
    speculative_prefill_work,
)
from genz_jax.serving.stage import Stage, as_arrays, inputs_of
from genz_jax.serving.stages import (
    chunked_figures,
    chunked_work,
    decode_figures,
    decode_work,
    encode_figures,
    encode_work,
    prefill_figures,
    prefill_work,
)
from genz_jax.specs import Engine, Model, Parallelism, Platform, Precision, Speculation, Workload
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.figures import Result

STAGES: dict[str, Stage] = {
    "request": Stage(request_work, request_figures, details=True, speculation="may"),
    "prefill": Stage(prefill_work, prefill_figures, details=True),
    "decode": Stage(decode_work, decode_figures, details=True),
    "encode": Stage(encode_work, encode_figures, details=True),
    "chunked": Stage(chunked_work, chunked_figures, details=True),
    "memory": Stage(memory_work, memory_figures),
    "speculative_prefill": Stage(speculative_prefill_work, speculative_prefill_figures, speculation="must"),
    "speculative_decode": Stage(speculative_decode_work, speculative_decode_figures, speculation="must"),
}
"""Stages by name."""


def detailed() -> list[str]:
    """Stages that have a breakdown and operators."""
    return [name for name, stage in STAGES.items() if stage.details]


class Case(eqx.Module):
    """All that an evaluation needs, as one pytree, and what is promised; its numbers broadcast together."""

    model: Model
    platform: Platform
    workload: Workload
    parallelism: Parallelism
    precision: Precision
    speculation: Speculation | None = None
    engine: Engine | None = None
    slo: SLO | None = None


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked of a case.

    Attributes:
        stage: name of the stage, one of `STAGES`.
        assumptions: which physics counts.
        figures: names of the figures wanted; None for all of the stage. A request's stages have theirs under
            `prefill_…` and `decode_…`.
        breakdown: latency by component as well.
        operators: figures of every operator as well.
    """

    stage: str
    assumptions: Assumptions
    figures: tuple[str, ...] | None = None
    breakdown: bool = False
    operators: bool = False


def work_of(case: Case, question: Question) -> Any:
    """What a case asks of any platform, as a tree of small arrays; a pure function of arrays.

    Args:
        case: the specs, of which the platform is not looked at.
        question: the stage and the physics.

    Raises:
        ValueError: an unknown stage, or a speculative stage without a `Speculation` or the reverse.
    """
    stage = STAGES.get(question.stage)
    if stage is None:
        raise ValueError(f"stage = {question.stage!r}: must be one of {', '.join(STAGES)}")
    if stage.speculation == "must" and case.speculation is None:
        raise ValueError(f"stage {question.stage!r} needs speculation=gz.Speculation(draft, tokens, acceptance)")
    if stage.speculation == "never" and case.speculation is not None:
        raise ValueError(
            f"stage {question.stage!r} takes no speculation; use 'request', 'speculative_decode' or '…_prefill'"
        )
    spread = (case.parallelism, case.precision, question.assumptions, case.engine, case.speculation)
    return stage.work(inputs_of(case.model, case.workload, *spread))


def figures_of(work: Any, platform: Platform, question: Question) -> Result:
    """Figures of the work of a case on a platform; a pure function of arrays.

    Args:
        work: what `work_of` gives.
        platform: the device and its network.
        question: the stage, the physics and the figures.

    Returns:
        The stage's result; figures that were not asked for are None.

    Raises:
        ValueError: an unknown figure.
    """
    return _keep(STAGES[question.stage].figures(work, as_arrays(platform), question.operators), question)


def evaluate(case: Case, question: Question) -> Result:
    """Figures of a case; a pure function of arrays, for `jax.jit`, `jax.grad` and `jax.vmap`.

    Args:
        case: the specs.
        question: the stage, the physics and the figures.

    Returns:
        The stage's result; figures that were not asked for are None.

    Raises:
        ValueError: an unknown stage or figure, or a speculative stage without a `Speculation` or the reverse.
    """
    return figures_of(work_of(case, question), case.platform, question)


def _keep(result: Result, question: Question) -> Result:
    """The result without the figures that were not asked for, so that the compiler drops their work."""
    known = _names(result)
    wanted = question.figures
    if wanted is not None:
        for name in wanted:
            if name not in known:
                raise ValueError(f"figure {brief(name)}: not a figure of {question.stage!r}{near(str(name), known)}")
    return _strip(result, wanted, question, "")


def _names(result: Result, prefix: str = "") -> list[str]:
    names = []
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if isinstance(value, Result):
            names += _names(value, f"{field.name}_")
        elif "units" in field.metadata:
            names.append(prefix + field.name.removesuffix("_code"))
    return names


def _strip(result: Result, wanted: tuple[str, ...] | None, question: Question, prefix: str) -> Any:
    values = {}
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if isinstance(value, Result):
            inner = _strip(value, wanted or (), question, f"{field.name}_")
            value = inner if jax.tree.leaves(inner) else None
        elif "units" in field.metadata:
            name = prefix + field.name.removesuffix("_code")
            value = value if (wanted is None or name in wanted) else None
        elif field.name == "breakdown":
            value = value if question.breakdown else None
        values[field.name] = value
    return type(result)(**values)


def slim(case: Case) -> Case:
    """The case without what costs compilation and time and changes nothing.

    That is context parallelism of size 1, and a second kind of prefill pass where all prompts fit into one.
    """
    cp = case.parallelism.cp
    if not (cp is None or isinstance(cp, Axis | Tracer) or np.any(np.asarray(cp) != 1)):
        case = dataclasses.replace(case, parallelism=case.parallelism.replace(cp=None))
    if case.engine is not None and _single_pass(case, case.engine):
        case = dataclasses.replace(case, engine=case.engine.replace(single_pass=True))
    return case


def _single_pass(case: Case, engine: Engine) -> bool:
    """No prefill of the case has more tokens than a step of the engine takes."""
    sizes = (case.workload.batch, case.workload.input_tokens, case.parallelism.dp, engine.tokens_per_step)
    if any(isinstance(size, Tracer) for size in sizes):
        return False
    batch, tokens, replicas, limit = (np.asarray(size.values if isinstance(size, Axis) else size) for size in sizes)
    return bool(batch.max() * tokens.max() / replicas.min() <= limit.min())


@functools.lru_cache(maxsize=QUESTIONS)
def function_of(question: Question) -> Callable[[Case], Result]:
    """`evaluate` for one question, the same object whenever the question is the same."""
    return lambda case: evaluate(case, question)


@functools.lru_cache(maxsize=QUESTIONS)
def compiled(question: Question, quick: bool = False) -> Any:
    """`evaluate` for one question, compiled once per structure and shapes of its cases.

    Args:
        question: what is asked.
        quick: compile faster, for few points.
    """

    def run(case: Case) -> Result:
        return evaluate(case, question)

    return Compiled(run, quick)
