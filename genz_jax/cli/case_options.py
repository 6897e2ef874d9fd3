"""Case options: the one list of the options that describe a case, which a command receives as one value."""

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any

from genz_jax.cli import options as o

NAMED = ("model", "platform", "workload", "precision")
"""Options that name specs: a list, but where a command takes one."""

_ONE = {"model": o.OneModel, "platform": o.OnePlatform, "workload": o.OneWorkload, "precision": o.OnePrecision}
_OPTIONS = {  # in the order of the help
    "model": o.Models,
    "platform": o.Platforms,
    "kernels": o.Kernels,
    "workload": o.Workloads,
    "batch": o.Batch,
    "beams": o.Beams,
    "input": o.Input,
    "output": o.Output,
    "tp": o.TensorParallel,
    "ep": o.ExpertParallel,
    "pp": o.PipelineParallel,
    "micro_batches": o.MicroBatches,
    "dp": o.DataParallel,
    "cp": o.ContextParallel,
    "precision": o.Precisions,
    "stage": o.Stage,
    "max_num_batched_tokens": o.TokensPerStep,
    "max_num_seqs": o.MaxSequences,
    "assumptions": o.AssumptionsName,
    "set": o.Changes,
    "prefill": o.PrefillChunks,
    "decode": o.DecodeChunks,
    "draft": o.Draft,
    "draft_tokens": o.DraftTokens,
    "acceptance": o.Acceptance,
}
_STAGES = ("stage", "prefill", "decode", "draft", "draft_tokens", "acceptance")
_FIRST = ("model", "platform")


def case_options(
    *, one: Collection[str] = (), axes: Any = None, stages: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: give a command the options of a case, which it receives read, as its parameter `asked`.

    The help lists model and platform, what the command declares before `asked`, the other options of a case, and what
    it declares after. An option of the command's own stands in the place of one of the same name, which is not read.

    Args:
        one: options of `NAMED` that take one name.
        axes: annotation of the option `--axis`; None for a command without axes.
        stages: take the options that choose and describe a stage other than requests.
    """

    options = {name: _ONE[name] if name in one else option for name, option in _OPTIONS.items()}
    case = {name: _parameter(name, option) for name, option in options.items() if stages or name not in _STAGES}
    first = {name: case.pop(name) for name in _FIRST}
    axis = {} if axes is None else {"axis": _parameter("axis", axes)}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        own = list(signature.parameters.items())
        at = next(i for i, (name, _) in enumerate(own) if name == "asked")
        shown = first | dict(own[:at]) | axis | case | dict(own[at + 1 :])  # a second one of a name keeps its place
        read = [name for name in (*first, *case) if name not in signature.parameters]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            from genz_jax.cli import cases

            texts = dict.fromkeys(_OPTIONS) | {name: given.pop(name) for name in read}
            for name in one:
                if "," in (texts[name] or ""):
                    raise ValueError(
                        f"--{name} = {texts[name]!r}: {command.__name__} takes one; genz-jax sweep takes several"
                    )
            command(asked=cases.read(texts, given.pop("axis", None) or ()), **given)

        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in shown.values()]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _parameter(name: str, option: Any) -> inspect.Parameter:
    """The parameter of an option; without a default it is needed."""
    default = {"model": inspect.Parameter.empty, "platform": inspect.Parameter.empty, "assumptions": "default"}
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default.get(name), annotation=option)
