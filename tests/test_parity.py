"""The published analyser's tables: every figure of every case, and every operator, under the `genz` assumptions."""

import collections
import csv
import json
from typing import Any

import jax
import pytest
from helpers import DATA, make_case, once

import genz_jax as gz
from genz_jax import parity
from genz_jax.base.formats import FORMATS
from genz_jax.serving.evaluate import Question
from genz_jax.specs import assumptions

SUMMARY, MODELS = DATA / "summary.csv", DATA / "models.json"


@pytest.mark.parametrize(("x64", "rtol"), [(True, 1e-9), pytest.param(False, 1e-5, marks=pytest.mark.slow)])
def test_every_figure_of_every_case(x64: bool, rtol: float):
    with jax.enable_x64(x64):
        report, table = parity.run(SUMMARY, MODELS, rtol)
    assert report.differences == []
    assert report.worst <= rtol
    assert report.cases == len(table) == 1595
    assert report.figures > 25_000


def test_a_difference_is_found():
    rows, cards = parity.read_cases(SUMMARY), parity.read_cards(MODELS)
    row = next(row for row in rows if row["stage"] == "decode" and not row["error"])
    wrong = row | {"latency_ms": str(float(row["latency_ms"]) * (1 + 1e-6)), "error": ""}
    predicted = parity.predict([row], cards)
    assert parity.compare([row], predicted, 1e-9).differences == []
    (difference,) = parity.compare([wrong], predicted, 1e-9).differences
    assert (difference.case, difference.column) == (row["id"], "latency_ms")
    assert difference.relative == pytest.approx(1e-6, rel=1e-3)
    (difference,) = parity.compare([row | {"error": "invalid"}], predicted, 1e-9).differences
    assert difference.column == "error"


# -------------------------------------------------------------------------------------------- every single operator


def read_table(name: str) -> list[dict[str, str]]:
    with open(DATA / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


CASES = {row["id"]: row for row in read_table("operators_cases.csv")}
CARDS: dict[str, dict[str, Any]] = json.loads(MODELS.read_text(encoding="utf-8"))
ROWS: dict[str, list[dict[str, str]]] = collections.defaultdict(list)
for _row in read_table("operators.csv"):
    ROWS[_row["case"]].append(_row)

COLUMNS = {  # figure of an operator: column of the table, and the size of its unit
    "flops": ("num_ops_M", 1e6),
    "input_bytes": ("input_a_MiB", 2.0**20),
    "weight_bytes": ("input_w_MiB", 2.0**20),
    "output_bytes": ("output_MiB", 2.0**20),
    "compute_time": ("compute_ms", 1e-3),
    "memory_time": ("memory_ms", 1e-3),
    "network_time": ("comm_ms", 1e-3),
    "latency": ("latency_ms", 1e-3),
}
Key = tuple[str, int]
"""The reference's name of an operator, and its place among those of the same name in a layer."""


def total(rows: list[dict[str, str]]) -> dict[Key, dict[str, float]]:
    """Figures of each operator over all its repeats, in all pipeline stages."""
    sums: dict[Key, dict[str, float]] = collections.defaultdict(lambda: dict.fromkeys([*COLUMNS, "repeats"], 0.0))
    open_repeats: list[tuple[float, collections.Counter]] = [(1.0, collections.Counter())]
    for row in rows:
        if row["op_type"] == "Repeat":
            open_repeats.append((open_repeats[-1][0] * float(row["repeat"]), collections.Counter()))
        elif row["op_type"] == "EndRepeat":
            open_repeats.pop()
        else:
            repeats, seen = open_repeats[-1]
            found = sums[row["name"], seen[row["name"]]]
            seen[row["name"]] += 1
            found["repeats"] += repeats
            for figure, (column, unit) in COLUMNS.items():
                found[figure] += repeats * float(row[column]) * unit
    assert len(open_repeats) == 1
    return dict(sums)


FIXED = {
    "embeddings": "embedding",
    "Emb_AR": "embedding.all_reduce",
    "QKV": "attention.qkv_proj",
    "Out Proj": "attention.out_proj",
    "MHA AR": "attention.all_reduce",
    "Inproj": "ssm.in_proj",
    "Conv": "ssm.conv",
    "BC proj": "ssm.x_proj",
    "xt proj": "ssm.dt_proj",
    "deltaA": "ssm.delta_a",
    "deltaB": "ssm.delta_b",
    "deltaBu": "ssm.delta_b_u",
    "x calc": "ssm.x_calc",
    "y calc": "ssm.y_calc",
    "D addition": "ssm.d_addition",
    "out mult z": "ssm.z_gate",
    "Out proj": "ssm.out_proj",
    "Mamba AR": "ssm.all_reduce",
    "Gate": "moe.router",
    "Gate AR": "moe.router_all_reduce",
    "Dispatch A2A": "moe.dispatch",
    "Collect A2A": "moe.combine",
    "shared up+gate": "moe.shared.up_gate_proj",
    "shared down": "moe.shared.down_proj",
    "Message Pass": "pipeline.send",
    "classifier": "head",
    "classifier_AG": "head.all_gather",
}


def segments(case: dict[str, str]) -> list[tuple[str, str]]:
    """The reference's and our name of each stretch of context, in order."""
    if case["stage"] == "prefill":
        return [("", "")]
    if case["stage"] == "decode":
        return [(" Pre", "prefix_"), (" Suf", "suffix_")]
    found = [(" Pre", f"prefill{i}_") for i in range(len(json.loads(case["prefill_kv"] or "[]")))]
    for i, entry in enumerate(json.loads(case["decode_kv"] or "[]")):
        beams = isinstance(entry, list) and len(entry) == 4
        found += (
            [(" Pre", f"decode{i}_prefix_"), (" Suf", f"decode{i}_suffix_")]
            if beams
            else [(" Dec", f"decode{i}_prefix_")]
        )
    return found


def our_names(case: dict[str, str], experts: bool) -> dict[Key, str]:
    """Our operator for each of the reference's."""
    names: dict[Key, str] = {(theirs, 0): ours for theirs, ours in FIXED.items()}
    seen: collections.Counter = collections.Counter()
    for theirs, ours in segments(case):
        for kind, label in (("Logit", "scores"), ("Attend", "values")):
            names[f"{kind}{theirs}", seen[kind + theirs]] = f"attention.{ours}{label}"
            seen[kind + theirs] += 1
    part = "moe" if experts else "ffn"
    names["FFN AR", 0] = f"{part}.all_reduce"
    for theirs, ours in (("up+gate", "up_gate_proj"), ("down", "down_proj")):
        names[theirs, 0] = f"{part}.{ours}"
        names[theirs, 1] = f"moe.idle_{ours}"
    return names


@pytest.mark.first(1)
@pytest.mark.parametrize("case_id", sorted(CASES))
def test_every_operator_of_every_case(case_id: str):
    case = CASES[case_id]
    card = CARDS[case["model"]]
    alone = card["ffn_implementation"] == "deepseek" and case["stage"] == "chunked"
    physics = assumptions.genz.replace(experts="routed") if alone else assumptions.genz
    found = once(
        make_case(
            parity.read_model(card, alone),
            parity.read_platform(case),
            parity.read_workload(case),
            gz.Parallelism(float(case["tp"]), float(case["ep"]), float(case["pp"])),
            gz.Precision(case["bits"] if case["bits"] in FORMATS else "fp32"),
        ),
        Question(case["stage"], physics, operators=True),
    )
    ours = {
        name.partition("/")[2]: {
            figure: float(found[f"operator_{figure}/{name.partition('/')[2]}"]) for figure in [*COLUMNS, "repeats"]
        }
        for name in found
        if name.startswith("operator_latency/")
    }
    names, expected = our_names(case, experts=card["num_experts"] > 1), total(ROWS[case_id])
    for key, figures in expected.items():
        for figure, value in figures.items():
            # The table has twelve digits.
            assert ours[names[key]][figure] == pytest.approx(value, rel=1e-9, abs=0), (key, figure)
    matched = [names[key] for key in expected]
    assert len(set(matched)) == len(matched)
    for name in set(ours) - set(matched):
        idle = {figure: value for figure, value in ours[name].items() if figure not in ("repeats", "weight_bytes")}
        assert not any(idle.values()), name
        assert ours[name]["weight_bytes"] == 0, name


def test_the_operator_tables_are_whole():
    assert set(CASES) == set(ROWS)
    assert sum(len(rows) for rows in ROWS.values()) == 494
