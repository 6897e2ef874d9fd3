"""Cases: the text of options as a case, limits and constants of the cost model."""

import dataclasses
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from genz_jax import catalog
from genz_jax.base import axes
from genz_jax.base.axes import Axis
from genz_jax.base.fields import Spec, field_at, near
from genz_jax.base.label import Label
from genz_jax.labelled.context_limit import ContextWarning
from genz_jax.labelled.inputs import read_case
from genz_jax.machine.cost import CostModel
from genz_jax.serving.evaluate import Case
from genz_jax.serving.slo import CEILINGS, FLOORS
from genz_jax.specs import DecodeChunk, PrefillChunk, Speculation, Workload
from genz_jax.specs.numbers import SPECS, find_number

_OPTIONS = {  # name of the option: the number that it sets
    "batch": "workload.batch",
    "beams": "workload.beams",
    "input": "workload.input_tokens",
    "output": "workload.output_tokens",
    "tp": "parallelism.tp",
    "ep": "parallelism.ep",
    "pp": "parallelism.pp",
    "micro_batches": "parallelism.micro_batches",
    "dp": "parallelism.dp",
    "cp": "parallelism.cp",
    "max_num_batched_tokens": "engine.tokens_per_step",
    "max_num_seqs": "engine.max_sequences",
    "draft_tokens": "speculation.tokens",
    "acceptance": "speculation.acceptance",
}


_PREFIXES = {"k": 1e3, "K": 1e3, "M": 1e6, "Ki": 2.0**10, "Mi": 2.0**20}


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the options ask for.

    Attributes:
        case: the specs, with axes where there are lists and axes.
        stage: the stage that is asked for.
        assumptions: name of the assumptions.
        workloads: the workloads by the names that were given.
    """

    case: Case
    stage: str
    assumptions: str
    workloads: list[str]

    @property
    def specs(self) -> tuple[Any, ...]:
        """Model, platform, workload, parallelism and precision."""
        case = self.case
        return case.model, case.platform, case.workload, case.parallelism, case.precision

    def of_requests(self, function: Callable[..., Any], *first: Any, **options: Any) -> Any:
        """Call a function that knows requests alone, such as `gz.tune`; `first` stands before the specs."""
        return function(*first, *self.specs, engine=self.case.engine, assumptions=self.assumptions, **options)

    def of_stage(self, function: Callable[..., Any], **options: Any) -> Any:
        """Call a function that takes every stage, such as `gz.sweep`."""
        return self.of_requests(function, speculation=self.case.speculation, stage=self.stage, **options)


def whole_number(text: str) -> str:
    """A number of tokens or requests without its prefix: 128k is 128000, 128Ki is 131072; other text as it is."""
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(k|K|M|Ki|Mi)\s*", text)
    return repr(float(found[1]) * _PREFIXES[found[2]]) if found else text


def comma_list(option: str, given: str | Sequence[str] | None) -> list[str]:
    """Values of an option that may be repeated or hold commas.

    Raises:
        ValueError: an empty value.
    """
    values = [] if given is None else [given] if isinstance(given, str) else list(given)
    parts = [part.strip() for value in values for part in value.split(",")]
    if "" in parts:
        raise ValueError(
            f"{option} = {','.join(values)!r}: an empty name; give at least one, without commas at the end"
        )
    return parts


def read(options: Mapping[str, Any], axis_texts: Sequence[str] = ()) -> Asked:
    """The case that the options ask for.

    Args:
        options: values by name of the option's parameter.
        axis_texts: axes as `NAME=VALUES`.

    Raises:
        ValueError: a name or value that cannot be, or a number that is given twice.
    """
    names = {what: comma_list(f"--{what}", options[what]) for what in ("model", "platform", "workload", "precision")}
    lists: dict[str, Any] = {what: found[0] if len(found) == 1 else found or None for what, found in names.items()}
    if options["kernels"] is not None:
        chips = [catalog.platform(name, options["kernels"]) for name in names["platform"]]
        lists["platform"] = chips[0] if len(chips) == 1 else {chip.name: chip for chip in chips}
    chunks = _read_chunks(options["prefill"] or [], options["decode"] or [])
    speculation = _read_speculation(options)
    if chunks and lists["workload"] is None:
        lists["workload"] = Workload()
    with warnings.catch_warnings():  # the lengths that are asked for come from other options
        warnings.simplefilter("ignore", ContextWarning)
        case, shown = read_case(
            lists["model"], lists["platform"], lists["workload"], None, lists["precision"], speculation
        )
    # Lists have no name of their own; precisions are a list where those of the models differ.
    lists_of = [what for what in names if len(names[what]) > 1 or what == "precision"]
    listed = {what: getattr(case, what) for what in lists_of}
    named = {
        what: spec.replace(label=Label(shown[what], max_context=spec.label.max_context))
        for what, spec in listed.items()
    }
    case = dataclasses.replace(case, **named)
    case = dataclasses.replace(case, workload=case.workload.replace(**chunks))
    changes = _Changes(case)
    for option, path in _OPTIONS.items():
        if options[option] is not None:
            changes.add(f"--{option.replace('_', '-')}", path, options[option])
    for text in options["set"] or []:
        name, equals, value = text.partition("=")
        if not equals or not value.strip():
            raise ValueError(f"--set {text!r}: must be NAME=VALUE, for example mem_bw='4 TB/s'")
        changes.add("--set", name, value.strip())
    for text in axis_texts:
        name, equals, values = text.partition("=")
        if not equals:
            raise ValueError(f"--axis {text!r}: must be NAME=VALUES, for example tp=1,2,4 or mem_bw=1TB/s:9TB/s:50:log")
        changes.add("--axis", name, read_axis(text, values, changes.whole(name)))
    stage = _read_stage(options["stage"], chunks, speculation)
    return Asked(changes.applied(), stage, options["assumptions"], names["workload"])


def _read_stage(given: str | None, chunks: dict[str, Any], speculation: Speculation | None) -> str:
    if chunks and given not in (None, "chunked"):
        raise ValueError(f"--stage = {given!r}: --prefill and --decode chunks are for the stage 'chunked'")
    if speculation is None and given in ("speculative_prefill", "speculative_decode"):
        raise ValueError(f"--stage = {given!r}: needs the draft model, --draft MODEL or --draft mtp")
    return given or ("chunked" if chunks else "speculative_decode" if speculation else "request")


def _read_chunks(prefill: Sequence[str], decode: Sequence[str]) -> dict[str, Any]:
    """Fields of a workload's chunks; none if there are none."""
    found: dict[str, Any] = {}
    for text in prefill:
        parts = text.split(":")
        if len(parts) != 2:
            raise ValueError(f"--prefill = {text!r}: must be PAST:NEW, for example 0:512")
        found["prefill_chunks"] = (*found.get("prefill_chunks", ()), PrefillChunk(*parts))
    for text in decode:
        parts = text.split(":")
        if len(parts) not in (1, 2, 4):
            raise ValueError(f"--decode = {text!r}: must be KV, N:KV or PROMPTS:SEQUENCES:CONTEXT:GENERATED")
        if len(parts) < 4:
            count, length = parts if len(parts) == 2 else ("1", *parts)
            parts = [count, count, length, "0"]
        found["decode_chunks"] = (*found.get("decode_chunks", ()), DecodeChunk(*parts))
    return found


def _read_speculation(options: Mapping[str, Any]) -> Speculation | None:
    if options["draft"] is not None:
        own = options["draft"].strip().lower() == "mtp"
        return Speculation(None if own else catalog.model(options["draft"]))
    for option in ("draft_tokens", "acceptance"):
        if options[option] is not None:
            raise ValueError(
                f"--{option.replace('_', '-')} = {options[option]}: needs the draft model, --draft MODEL or --draft mtp"
            )
    return None


def read_axis(text: str, values: str, whole: bool) -> Axis:
    """An axis from `A,B,C` or `START:STOP:NUM[:lin|log]`, with `@DIM` after it to name its dimension.

    Args:
        text: all of the option, for messages.
        values: the values.
        whole: the number is a whole one; spaced values are rounded, and each is taken once.

    Raises:
        ValueError: no values, or no such form.
    """
    read = whole_number if whole else str
    values, at, dim = (part.strip() for part in values.partition("@"))
    parts = [part.strip() for part in values.split(":")]
    if not values or (at and not dim):
        raise ValueError(f"--axis {text!r}: {'no name after @' if values else 'no values'}; write e.g. tp=1,2,4@tp")
    try:
        if len(parts) == 1:
            return axes.axis([read(value.strip()) for value in values.split(",")], dim or None)
        if len(parts) not in (3, 4) or parts[3:] not in ([], ["lin"], ["log"]) or not parts[2].isdigit():
            raise ValueError("must be values with commas, or START:STOP:NUM with :lin or :log after it")
        spaced = axes.geomspace if parts[3:] == ["log"] else axes.linspace
        with np.errstate(all="ignore"):  # ends that are not finite are refused by the field
            made = spaced(read(parts[0]), read(parts[1]), int(parts[2]), dim or None)
    except ValueError as error:
        raise ValueError(f"--axis {text!r}: {error}") from None
    return Axis(np.unique(np.round(made.values)), made.dims, made.unit) if whole else made


class _Changes:
    """New values of a case's numbers, each given once."""

    def __init__(self, case: Case):
        self.case = case
        self.parts: dict[str, Spec] = {what: part for what in SPECS if (part := getattr(case, what)) is not None}
        self.values: dict[tuple[str, str], tuple[str, Any]] = {}

    def find(self, name: str) -> tuple[str, str]:
        """Spec and path of the number with that name, as of an option or as of `find_number`."""
        name = _OPTIONS.get(name.strip().replace("-", "_"), name.strip())
        return find_number(self.parts, name, tuple(_OPTIONS))

    def whole(self, name: str) -> bool:
        """True for a number that is a whole one."""
        what, path = self.find(name)
        return field_at(self.parts[what], path)["rule"].whole

    def add(self, option: str, name: str, value: Any) -> None:
        """Note a new value.

        Raises:
            ValueError: no such number, or it has a new value already.
        """
        found = self.find(name)
        if found in self.values:
            raise ValueError(f"{'.'.join(found)}: given twice, by {self.values[found][0]} and {option}; give it once")
        self.values[found] = (option, whole_number(value) if self.whole(name) and isinstance(value, str) else value)

    def applied(self) -> Case:
        """The case with the new values."""
        parts = {}
        for what in dict.fromkeys(what for what, _ in self.values):
            new = {path: value for (owner, path), (_, value) in self.values.items() if owner == what}
            parts[what] = self.parts[what].replace(**new)
        return dataclasses.replace(self.case, **parts)


def pairs(option: str, texts: Sequence[str] | None) -> dict[str, str]:
    """Names and values of an option that is repeated.

    Raises:
        ValueError: not NAME=VALUE, or a name twice.
    """
    found: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name or not value:
            raise ValueError(f"{option} {text!r}: must be NAME=VALUE")
        if name in found:
            raise ValueError(f"{option} {name!r}: given twice; give it once")
        found[name] = value
    return found


def read_limits(texts: Sequence[str] | None) -> dict[str, str]:
    """Limits of a service level objective by name, as text.

    Raises:
        ValueError: not NAME=LIMIT, no such limit, or one given twice.
    """
    limits = pairs("--slo", texts)
    for name in limits:
        if name not in CEILINGS | FLOORS:
            raise ValueError(f"--slo {name!r}: no such limit{near(name, CEILINGS | FLOORS)}")
    return limits


def read_cost_model(node: str, memory: str, constants: Sequence[str] | None) -> CostModel:
    """The cost model of a node and memory with changed constants."""
    return CostModel.preset(node, memory).replace(**pairs("--constant", constants))
