"""Predict: cases evaluated under the `genz` assumptions, all of a stage at once, as columns of the table."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genz_jax.base.caches import Compiled
from genz_jax.parity.cases import MIB, MS, STAGES, Point, read_model, read_point
from genz_jax.serving.evaluate import Case, Question, compiled
from genz_jax.serving.speculative import ModelPass, expected_tokens, run_both, speculative_decode_figures
from genz_jax.serving.stage import as_arrays, inputs_of
from genz_jax.specs import Model, Speculation
from genz_jax.specs.assumptions import genz
from genz_jax.specs.figures import Result
from genz_jax.specs.reasons import Reason
from genz_jax.specs.stack import stack, take
from genz_jax.work.passes import once
from genz_jax.work.steps import decode_step, forward, verify_step

BREAKDOWN = {  # columns of the table, as sums of components of the breakdown
    "attn_ms": ("attention_core",),
    "linear_ms": ("embedding", "head", "attention_projections", "ssm_projections", "ffn"),
    "breakdown_Embedding_ms": ("embedding", "head", "embedding_collectives"),
    "breakdown_MHA_ms": (
        "attention_projections",
        "attention_core",
        "attention_collectives",
        "ssm_collectives",
    ),
    "breakdown_FFN_ms": ("ffn", "ffn_all_reduce", "ffn_all_to_all"),
    "breakdown_LA_layers_ms": ("attention_core",),
    "breakdown_QKVO_layers_ms": ("attention_projections",),
    "breakdown_FFN_layers_ms": ("ffn",),
    "breakdown_AR_time_ms": (
        "embedding_collectives",
        "attention_collectives",
        "ssm_collectives",
        "ffn_all_reduce",
    ),
    "breakdown_A2A_time_ms": ("ffn_all_to_all",),
    "breakdown_Send_Recv_time_ms": ("pipeline",),
    "breakdown_Mamba_time_ms": ("ssm_projections", "ssm_scan"),
}
COLLECTIVE = ("breakdown_AR_time_ms", "breakdown_A2A_time_ms", "breakdown_Send_Recv_time_ms")
SPECULATIVE_FIGURES = ("latency", "batch_time", "throughput", "offloads", "expected_tokens", "reason")
STAGE_FIGURES = (
    "latency",
    "throughput",
    "network_time",
    "flop_count",
    "traffic",
    "weights",
    "idle_weights",
    "kv_cache",
    "energy",
    "offloads",
    "reason",
)
ERRORS = dict.fromkeys(Reason, "invalid") | {Reason.feasible: "", Reason.does_not_fit: "does_not_fit"}


@dataclasses.dataclass(frozen=True)
class _Group:
    """Cases of one stage and one rule for experts: one compilation."""

    stage: str
    experts_alone: bool


@Compiled
def _verified_by(case: Case, verifier: Model) -> Result:
    """Speculative decoding whose verifying pass runs other layers than the decode step that sizes the memory."""
    assumptions = genz.replace(experts="routed")
    inputs = inputs_of(
        case.model, case.workload, case.parallelism, case.precision, assumptions, speculation=case.speculation
    )
    workload, deployment, speculation = inputs.workload, inputs.deployment, inputs.speculation
    assert speculation is not None
    assert speculation.draft is not None
    decoding = decode_step(workload, deployment)
    verifying = once(verify_step(workload, speculation.tokens, deployment))
    work = run_both(
        ModelPass(as_arrays(verifier), verifying, holders=forward(inputs.model, decoding, deployment)),
        ModelPass(speculation.draft, once(decoding), speculation.tokens),
        workload,
        deployment,
        expected_tokens(speculation.tokens, speculation.acceptance),
    )
    return speculative_decode_figures(work, as_arrays(case.platform))


def predict(rows: list[dict[str, str]], cards: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Evaluate cases, all of a stage at once.

    Args:
        rows: cases by column, as text.
        cards: the reference's model table.

    Returns:
        The columns that are predicted, for each case.

    Raises:
        ValueError: a case of an unknown stage or model, or with a column missing.
    """
    groups: dict[_Group, list[int]] = {}
    points = [read_point(row, cards) for row in rows]
    for i, row in enumerate(rows):
        deepseek = cards[row["model"]].get("ffn_implementation") == "deepseek"
        alone = deepseek and row["stage"] in ("chunked", "spec_decode")
        groups.setdefault(_Group(row["stage"], alone), []).append(i)
    predicted: list[dict[str, Any]] = [{} for _ in rows]
    double = jnp.result_type(float) == jnp.float64

    def evaluate_group(group: _Group) -> list[dict[str, Any]]:
        members = groups[group]
        with jax.enable_x64(double):  # the setting is a thread's own
            return _evaluate(group, [rows[i] for i in members], [points[i] for i in members], cards)

    # While one group is compiled, the next is traced.
    with ThreadPoolExecutor(2) as pool:
        for group, columns in zip(groups, pool.map(evaluate_group, groups), strict=True):
            for i, row in zip(groups[group], columns, strict=True):
                predicted[i] = row
    return predicted


def _evaluate(
    group: _Group, cases: list[dict[str, str]], points: list[Point], cards: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    def models(column: str, experts_alone: bool = False) -> Model:
        made = {row[column]: read_model(cards[row[column]], experts_alone) for row in cases}
        names = list(made)
        return take(stack(list(made.values())), np.array([names.index(row[column]) for row in cases]))

    speculation = None
    if group.stage.startswith("spec"):
        steps, acceptance = (np.array([getattr(p, name) for p in points]) for name in ("steps", "acceptance"))
        speculation = Speculation(models("draft_model"), steps, acceptance)
    case = Case(
        models("model", group.experts_alone and group.stage == "chunked"),
        stack([p.platform for p in points]),
        stack([p.workload for p in points]),
        stack([p.parallelism for p in points]),
        stack([p.precision for p in points]),
        speculation,
    )
    if group.stage == "spec_decode" and group.experts_alone:
        result = _verified_by(case, models("model", True))
    else:
        physics = genz.replace(experts="routed") if group.experts_alone else genz
        figures = SPECULATIVE_FIGURES if speculation is not None else STAGE_FIGURES
        result = compiled(Question(STAGES[group.stage], physics, figures, breakdown=True), quick=True)(case)
    if speculation is not None:
        return _rows(_speculative_columns(result, group.stage), result, len(cases))
    return _rows(_stage_columns(result, np.asarray(case.parallelism.pp)), result, len(cases))


def _stage_columns(result: Any, pp: np.ndarray) -> dict[str, Any]:
    columns = {
        "latency_ms": result.latency / MS,
        "throughput": result.throughput,
        "is_offload": result.offloads,
        "macs_M": result.flop_count / 1e6,
        "data_MiB": result.traffic / MIB,
        "weights_MiB": result.weights * pp / MIB,
        "unused_weights_MiB": result.idle_weights * pp / MIB,
        "kv_cache_MiB": result.kv_cache * pp / MIB,
        "comm_ms": result.network_time / MS,
        "energy_kWh_at_1kW": result.energy / 3.6e6,
    }
    for column, components in BREAKDOWN.items():
        columns[column] = sum(result.breakdown[name] for name in components) / MS
    columns["breakdown_Collective_ms"] = sum(columns[name] for name in COLLECTIVE)
    return columns


def _speculative_columns(result: Any, stage: str) -> dict[str, Any]:
    # The reference reports the time of the whole batch for decode, of one micro-batch for prefill.
    latency = result.batch_time if stage == "spec_decode" else result.latency
    return {
        "latency_ms": latency / MS,
        "throughput": result.throughput,
        "is_offload": result.offloads,
        "tokens_generated": result.expected_tokens,
    }


def _rows(columns: dict[str, Any], result: Any, count: int) -> list[dict[str, Any]]:
    """Columns of arrays as a list of rows, blank where a case has no figures."""
    arrays = {name: np.broadcast_to(np.asarray(value), (count,)) for name, value in columns.items()}
    reasons = np.broadcast_to(np.asarray(result.reason_code), (count,))
    rows = []
    for i in range(count):
        error = ERRORS[Reason(int(reasons[i]))]
        row: dict[str, Any] = {"error": error}
        for name, values in arrays.items():
            row[name] = "" if error else (bool(values[i]) if values.dtype == bool else float(values[i]))
        rows.append(row)
    return rows
