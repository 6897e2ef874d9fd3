"""Set `default` beside `genz` for eight models, into docs/default_and_genz.md: python benchmarks/physics.py"""

import dataclasses
from pathlib import Path

import genz_jax as gz
from genz_jax.specs.assumptions import Assumptions

MODELS = [
    "llama-3.1-8b",
    "llama-3.1-70b",
    "qwen3-32b",
    "gemma-3-27b",
    "mixtral-8x7b",
    "gpt-oss-120b",
    "falcon-mamba-7b",
    "jamba-1.5-mini",
]
TENSOR_PARALLEL = 2
WORKLOAD = gz.Workload(batch=16, input_tokens=4096, output_tokens=512)
WHY = {
    "causal": "a query sees what is before it, in its window: half the pairs of a prompt (arXiv 2205.14135)",
    "last_token_head": "prefill samples one token of a prompt, so the head sees one (vLLM, arXiv 2309.06180)",
    "gather_embedding": "an embedding is a look-up of rows, no GEMM",
    "vector_operators": "norms, activations and rotations are bound by memory (arXiv 2007.00072)",
    "kv_cache_writes": "new keys and values are written before they are read (arXiv 2309.06180)",
    "decode_activations_on_chip": "kernels of decode pass activations through memory",
    "on_chip_traffic": "on-chip bandwidth is part of the rate that kernels reach",
    "experts": "distinct experts under uniform routing, E(1 − (1 − K/E)^tokens) (arXiv 2401.04088 for top-K)",
    "own_tokens": "a rank dispatches its own tokens, results are gathered (DeepSpeed-MoE, arXiv 2201.05596; ep 1 here)",
    "sharded_router": "engines keep the small router whole on every rank",
    "fused_scan": "the selective scan is one kernel with its state on chip (arXiv 2312.00752)",
    "fused_attention": "scores, softmax and values are one kernel, whose scores stay on chip (arXiv 2205.14135)",
    "decode_position": "the exact mean over all generated positions, in closed form, not the last",
    "beams_share_queries": "each beam has a query of its own (one beam here)",
    "cache_of": "memory must hold the cache of the whole batch",
    "cache_block": "the cache is paged: each sequence has whole blocks (arXiv 2309.06180)",
    "memory_of": "activations, buffers of collectives and a reserve of the runtime take memory too",
    "pipeline": "filling and draining of the pipeline take time (arXiv 1811.06965; one stage here)",
    "sparse_attention": "a query sees the tokens that the indexer selects (arXiv 2512.02556; none of these models)",
    "collectives": "ranks that meet at a switch need not pass a ring",
    "even_sharding": "engines demand heads that divide evenly (all do here)",
    "prefill": "engines bound the tokens of a pass (max_num_batched_tokens, vLLM)",
    "first_token_from_prefill": "prefill gives the first output token",
    "bonus_token": "a verification pass gives a token more (no speculation here; arXiv 2211.17192)",
    "energy_of": "energy of all devices, not of one",
}
FIGURES = ("ttft", "tpot", "memory", "energy")


def figures(assumptions: Assumptions) -> dict[str, list[float]]:
    """Figures of all models under some assumptions."""
    # Four times the memory, so that every model runs and only times differ.
    platform = gz.platform("H100-SXM").replace(mem_capacity="320 GB")
    found = gz.sweep(
        MODELS,
        platform,
        WORKLOAD,
        gz.Parallelism(tp=TENSOR_PARALLEL),
        "bf16",
        assumptions=assumptions,
        figures=list(FIGURES),
        progress=False,
    )
    return {name: found[name].values.tolist() for name in FIGURES}


def span(changed: list[float], base: list[float]) -> str:
    """Least and largest change over the models."""
    changes = [100 * (a / b - 1) for a, b in zip(changed, base, strict=True)]
    if max(map(abs, changes)) < 0.05:
        return "–"
    return f"{min(changes):+.1f} to {max(changes):+.1f} %"


def main() -> None:
    default, genz = figures(Assumptions.default), figures(Assumptions.genz)
    lines = [
        "# `default` beside `genz`",
        "",
        f"{len(MODELS)} models in bf16 on {TENSOR_PARALLEL} H100-SXM (with memory enough for all), "
        f"{float(WORKLOAD.batch):g} requests of {float(WORKLOAD.input_tokens):,.0f} + "
        f"{float(WORKLOAD.output_tokens):,.0f} tokens. Made by `python benchmarks/physics.py`.",
        "",
        "| model | TTFT genz | default | ratio | TPOT genz | default | ratio | memory genz | default |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for i, name in enumerate(MODELS):
        cells = []
        for figure, unit in (("ttft", 1e3), ("tpot", 1e3)):
            a, b = genz[figure][i], default[figure][i]
            cells += [f"{a * unit:,.2f} ms", f"{b * unit:,.2f} ms", f"{b / a:.2f}"]
        cells += [f"{genz['memory'][i] / 1e9:,.1f} GB", f"{default['memory'][i] / 1e9:,.1f} GB"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "What each switch does: the change of a figure when only that switch goes from `default` back to `genz`, least "
        "and largest over the models.",
        "",
        "| switch | `default` | `genz` | TTFT | TPOT | why `default` has it so |",
        "|---|---|---|---:|---:|---|",
    ]
    for field in dataclasses.fields(Assumptions):
        mine, theirs = getattr(Assumptions.default, field.name), getattr(Assumptions.genz, field.name)
        if mine == theirs:
            continue
        changed = figures(Assumptions.default.replace(**{field.name: theirs}))
        cells = [span(changed[figure], default[figure]) for figure in ("ttft", "tpot")]
        lines.append(f"| `{field.name}` | {mine} | {theirs} | {' | '.join(cells)} | {WHY[field.name]} |")
    Path(__file__).parent.parent.joinpath("docs", "default_and_genz.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
