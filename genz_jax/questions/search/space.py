"""Search space: every way to serve a model on some devices, as the points of one axis."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from genz_jax.base import units
from genz_jax.base.axes import Axis
from genz_jax.catalog.precisions import precision as read_precision
from genz_jax.grid.space import Space as Points
from genz_jax.labelled import inputs, labels
from genz_jax.questions.search import candidates as c
from genz_jax.questions.search.largest import largest_batches
from genz_jax.questions.search.result import DIM
from genz_jax.serving.evaluate import Case, Question, function_of
from genz_jax.specs import Engine, Parallelism, Precision
from genz_jax.specs.reasons import Reason
from genz_jax.specs.stack import stack, take

if TYPE_CHECKING:
    import xarray as xr

_PADDED = (2**9, 2**12)  # lengths of the candidate axis, few so that a search seldom compiles anew
_QUICK = 2**17  # candidates up to which a quick compilation saves more than it costs
_COORDINATES = {
    "tp": "tensor parallel size",
    "ep": "expert parallel size",
    "cp": "context parallel size",
    "pp": "pipeline parallel size",
    "dp": "data parallel replicas",
    "micro_batches": "micro-batches of the pipeline",
    "batch": "requests at once",
    "requested_batch": "requests that are to be served, of which batch are run at once",
}


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """What all candidates share."""

    case: Case
    names: dict[str, str]
    precisions: list[Precision]
    question: Question

    @classmethod
    def read(
        cls, model: Any, platform: Any, workload: Any, precision: Any, question: Question, engine: Engine | None
    ) -> "SearchSpace":
        items = list(precision.values()) if isinstance(precision, Mapping) else precision
        items = [items] if items is None or isinstance(items, str | Precision) else list(items)
        if not items:
            raise ValueError("precision = []: an empty list; at least one is needed")
        case, names = inputs.read_case(model, platform, workload, None, items[0], None, engine, question.stage)
        precisions = [case.precision, *(read_precision(p) if isinstance(p, str) else p for p in items[1:])]
        texts = list(precision) if isinstance(precision, Mapping) else [p.name for p in precisions]
        tokens = (case.workload.input_tokens, case.workload.output_tokens)
        if axes := labels.axes_of(case):
            raise ValueError(f"{next(iter(axes))} is an axis: search takes one model, platform and workload")
        labels.refuse_bare_arrays(case)
        if len(set(texts)) < len(texts):
            raise ValueError(f"precision: a name stands twice in {', '.join(texts)}; give a mapping with other names")
        names["precision"] = ", ".join(texts)
        lengths = [f"input {float(tokens[0]):g}"]
        if question.stage not in ("encode", "prefill"):
            lengths.append(f"output {float(tokens[1]):g}")
        names["workload"] = case.workload.name or ", ".join(lengths)
        return cls(case, names, precisions, question)

    @property
    def has_experts(self) -> bool:
        moe = self.case.model.moe
        return moe is not None and float(moe.layers) > 0

    def candidates(
        self,
        chips: np.ndarray,
        allowed: Mapping[str, np.ndarray | None],
        batches: np.ndarray | None,
        micro_batches: np.ndarray | None,
    ) -> tuple[c.Columns, dict[str, int]]:
        """Candidates that the rules on the model allow, and how many each rule excludes."""
        if not self.has_experts and allowed["ep"] is None:
            allowed = {**allowed, "ep": np.array([1])}
        columns = c.factorizations(chips, allowed)
        encodes = self.question.stage == "encode"
        codes = c.reasons(columns, self.case.model, self.case.workload, self.question.assumptions, encodes)
        rows, batch = c.batches_of(columns, batches)
        codes = np.where((codes[rows] == 0) & (columns["dp"][rows] > batch), int(Reason.dp_beyond_batch), codes[rows])
        times = 1 if micro_batches is None else np.where(columns["pp"][rows] > 1, micro_batches.size, 1)
        excluded = c.count_reasons(codes, np.broadcast_to(times, codes.shape) * float(len(self.precisions)))
        good = codes == 0
        columns = c.take(columns, rows[good]) | {"batch": batch[good]}
        return c.cross(columns, micro_batches, len(self.precisions)), excluded

    def reference_candidates(self, nodes: np.ndarray, batches: np.ndarray) -> c.Columns:
        """Candidates of the published analyser, for each number of nodes and batch."""
        model = self.case.model
        heads = next((int(p.heads) for p in (model.attention, model.latent_attention) if p is not None), 1)
        columns = c.join([c.reference_spreads(int(n), heads, int(model.layers)) for n in nodes])
        rows, batch = c.batches_of(columns, batches)
        good = columns["pp"][rows] <= batch
        columns = c.take(columns, rows[good])
        columns |= {"batch": batch[good] // columns["pp"], "requested_batch": batch[good]}
        return c.cross(columns, None, len(self.precisions))

    def evaluate(self, columns: c.Columns, progress: bool, beside: int = 0) -> "xr.Dataset":
        """Figures of candidates along one axis, with their sizes as coordinates.

        Args:
            columns: the candidates.
            progress: show a progress bar when it takes more than two seconds.
            beside: candidates of another evaluation, whose compiled program is to do for these too.
        """
        count = c.length(columns)
        small, large = _PADDED
        padded = small if max(count, beside) <= small else math.ceil(max(count, 1) / large) * large
        rows = np.minimum(np.arange(padded), max(count - 1, 0))
        ones = {name: np.ones(1, dtype=int) for name in columns} if count == 0 else columns

        def axis(values: np.ndarray) -> Axis:
            return Axis(values[rows], (DIM,), listed=True)

        sizes: dict[str, Any] = {name: axis(ones[name]) for name in (*c.SIZES, "micro_batches")}
        if np.all(ones["cp"] == 1):
            sizes["cp"] = 1
        precision = self.precisions[0]
        if len(self.precisions) > 1:
            chosen = take(stack(self.precisions), ones["precision"][rows])
            precision = jax.tree.map(lambda leaf: Axis(leaf, (DIM,), listed=True), chosen)
        case = dataclasses.replace(
            self.case,
            parallelism=Parallelism(**sizes),
            workload=self.case.workload.replace(batch=axis(ones["batch"])),
            precision=precision,
        )
        quick = max(count, beside) <= _QUICK
        dataset = Points(case, self.names).evaluate(function_of(self.question), self.question, progress, quick=quick)
        texts = np.array(self.names["precision"].split(", "))
        coords: dict[str, Any] = {
            name: (DIM, columns[name], {"units": units.ONE, "long_name": text})
            for name, text in _COORDINATES.items()
            if name in columns
        }
        coords["precision"] = (DIM, texts[columns["precision"]], {"long_name": "number formats"})
        dataset = dataset.broadcast_like(dataset["feasible"]).isel({DIM: slice(count)}).assign_coords(coords)
        attrs = {"units": units.ONE, "long_name": "devices"}
        return dataset.assign(devices=(DIM, columns["devices"], attrs))

    def with_largest_batches(
        self,
        columns: c.Columns,
        dataset: "xr.Dataset",
        good: "Callable[[xr.Dataset], np.ndarray]",
    ) -> "xr.Dataset":
        """The candidates, and those with the largest good batch of each spread (`largest_batches`).

        Args:
            columns: candidates whose batches are whole on each replica.
            dataset: their figures.
            good: whether each candidate of a dataset is.
        """

        def evaluated(some: c.Columns) -> "xr.Dataset":
            return self.evaluate(some, False, beside=c.length(columns))

        more = largest_batches(columns, good(dataset), lambda some: good(evaluated(some)))
        return labels.joined([dataset, evaluated(more)], DIM) if c.length(more) else dataset

    def smallest(
        self, allowed: Mapping[str, np.ndarray | None], batches: np.ndarray | None, progress: bool
    ) -> int | None:
        """Least devices on which the smallest batch runs, up to the largest system; None if there is none."""
        least = np.array([1 if batches is None else batches.min()])
        # A replica without requests does not run, so there are at most as many as requests.
        dp = np.arange(1, min(int(least[0]), c.LARGEST) + 1)
        if (given := allowed.get("dp")) is not None:
            dp = np.intersect1d(dp, given)
        columns, _ = self.candidates(np.arange(1, c.LARGEST + 1), {**allowed, "dp": dp}, least, None)
        dataset = self.evaluate(columns, progress)
        fits = dataset["devices"].values[dataset["feasible"].values]
        return int(fits.min()) if fits.size else None

    def reference_smallest(self, batch: int) -> int | None:
        """The published rule: memory over capacity as a power of two, doubled until every candidate fits."""
        alone = c.reference_spreads(1, 1, 1) | {"batch": np.array([batch])}
        need = float(self.evaluate(c.cross(alone, None, 1), False)["memory"].values[0])
        nodes = need / float(self.case.platform.mem_capacity)
        size = 1 if nodes <= 1 else 2 ** math.ceil(math.log2(nodes))
        while size <= c.LARGEST:
            columns = self.reference_candidates(np.array([size]), np.array([batch]))
            if bool(self.evaluate(columns, False)["feasible"].values.all()):
                return size
            size *= 2
        return None
