"""Bytes and rates of every kind of layer: its parameters times the bytes of its format, and nothing else changes."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from helpers import make_case, once

import genz_jax as gz
from genz_jax.base.formats import BLOCK_FORMATS, FORMAT_BYTES
from genz_jax.serving.evaluate import Question
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.stack import stack

DEFAULT = Assumptions.default
BYTES = FORMAT_BYTES | {name: size for name, (_, size) in BLOCK_FORMATS.items()}
KINDS = ("weights", "attention", "ffn", "experts", "shared_experts", "embedding", "head")
MODELS = (
    "llama-3.1-8b",  # dense
    "llama-3.2-1b",  # tied embeddings
    "gpt2",  # biases, learned positions, tied
    "mixtral-8x7b",  # experts
    "gpt-oss-20b",  # experts, biases of attention, experts and router
    "deepseek-v3",  # latent attention, dense layers first, shared experts
    "deepseek-v3.2",  # an indexer
    "deepseek-v4-flash",  # compressed attention
    "jamba-1.5-mini",  # attention and Mamba-1, dense and experts
    "qwen3-next-80b-a3b",  # gated delta net, shared experts with a gate
    "nemotron-3-super-120b-a12b",  # Mamba-2, experts of a latent width
    "gemma-3-27b",  # windows, norms inside attention
)


@functools.cache
def parameters(name: str) -> dict[str, float]:
    """Parameters by the kind of layers whose format they have, in closed forms from `parameter_count`."""
    model, counts = gz.model(name), gz.parameter_count(name)
    hidden, moe = float(model.hidden_size), model.moe
    shared = latent = 0.0
    if moe is not None:
        width = float(moe.shared_experts * moe.shared_intermediate_size)
        shared = float(moe.layers) * width * hidden * (float(moe.in_projections) + 1)
        latent = 0.0 if moe.latent is None else 2 * float(moe.layers * moe.latent.size) * hidden
    final = float(model.final_norms) * hidden
    found = {
        "attention": float(counts.attention + counts.ssm),
        "ffn": float(counts.ffn) - shared - latent,
        "experts": float(counts.experts),
        "shared_experts": shared,
        "embedding": float(counts.embedding + model.other_parameters),
        "head": float(counts.head) + final,
    }
    return found | {"weights": float(counts.total) - sum(found.values())}


def weights(name: str, *texts: str) -> Any:
    """Bytes of weights; with several texts an array."""
    precision = gz.Precision(texts[0]) if len(texts) == 1 else stack([gz.Precision(text) for text in texts])
    return once(make_case(gz.model(name), precision=precision), Question("decode", DEFAULT, ("weights",)))["weights"]


def test_the_models_have_layers_of_every_kind():
    for kind in KINDS:
        assert any(parameters(name)[kind] for name in MODELS), kind
        assert all(parameters(name)[kind] >= 0 for name in MODELS), kind


@pytest.mark.first(1)
@pytest.mark.parametrize("name", MODELS)
def test_weights_are_the_parameters_of_each_kind_times_the_bytes_of_its_format(name: str):
    formats = {
        "weights": "fp32",
        "attention": "bf16",
        "ffn": "nvfp4",
        "experts": "mxfp4",
        "shared_experts": "fp8",
        "embedding": "int2",
        "head": "fp6",
    }
    counts = parameters(name)
    text = "/".join(["fp32", *(f"{kind}={format}" for kind, format in formats.items() if kind != "weights")])
    assert weights(name, text) == pytest.approx(sum(counts[kind] * BYTES[formats[kind]] for kind in KINDS), rel=1e-12)
    base, *others = weights(name, "bf16", *(f"bf16/{kind}=fp8" for kind in KINDS[1:]))
    assert base == pytest.approx(2 * gz.parameter_count(name).total, rel=1e-12)
    for kind, other in zip(KINDS[1:], others, strict=True):
        # The embedding's format is the head's too, where that names none.
        moved = counts[kind] + (counts["head"] if kind == "embedding" else 0)
        assert base - other == pytest.approx(moved, rel=1e-9, abs=1), kind


@pytest.mark.first(3)
@pytest.mark.parametrize("name", ["llama-3.1-8b", "llama-3.2-1b", "deepseek-v3", "jamba-1.5-mini"])
@pytest.mark.parametrize(
    ("text", "formats"),  # bytes of experts, of embedding and head, of all else
    [
        ("bf16", (2, 2, 2)),
        ("fp8", (1, 1, 1)),
        ("int4-bf16-fp8", (0.5, 0.5, 0.5)),
        ("int4:128x16", (0.515625, 0.515625, 0.515625)),
        ("4.85bit", (0.60625, 0.60625, 0.60625)),
        ("fp8/embedding=bf16", (1, 2, 1)),
        ("bf16/experts=mxfp4", (0.53125, 2, 2)),
        ("fp8-fp8-bf16/experts=nvfp4/embedding=bf16", (0.5625, 2, 1)),
        ("fp8-bf16-int8/scores=fp8/experts=nvfp4/embedding=fp16/accumulation=fp32/state=bf16", (0.5625, 2, 1)),
    ],
)
def test_texts_without_kinds_of_layers_mean_what_they_meant(name: str, text: str, formats: tuple[float, float, float]):
    counts = parameters(name)
    ends = counts["embedding"] + counts["head"]
    rest = sum(counts.values()) - counts["experts"] - ends
    expected = sum(size * count for size, count in zip(formats, (counts["experts"], ends, rest), strict=True))
    assert weights(name, text) == pytest.approx(expected, rel=1e-12)


CHECKPOINTS = {
    # As their configs say: fp8 but for attention and the ends; experts alone; fp8 with narrower experts.
    "llama-3.1-405b": ("fp8/attention=bf16/embedding=bf16", {"weights": 1, "attention": 2, "ffn": 1}),
    "gpt-oss-20b": ("bf16/experts=mxfp4", {"weights": 2, "attention": 2, "experts": 0.53125}),
    "deepseek-v4-flash": (
        "fp8-fp8-bf16/experts=mxfp4/embedding=bf16",
        {"weights": 1, "attention": 1, "experts": 0.53125, "shared_experts": 1},
    ),
    "llama-3.1-8b": ("bf16/ffn=nvfp4-nvfp4", {"weights": 2, "attention": 2, "ffn": 0.5625}),
}


@pytest.mark.first(2)
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_that_keep_some_layers_wider(name: str):
    text, sizes = CHECKPOINTS[name]
    counts, sizes = parameters(name), {"embedding": 2.0, "head": 2.0, **sizes}
    assert all(kind in sizes or not counts[kind] for kind in KINDS)
    assert weights(name, text) == pytest.approx(sum(counts[kind] * size for kind, size in sizes.items()), rel=1e-12)


# ------------------------------------------------------------------------------------------------ operator by operator


def kind_of(operator: str) -> str | None:
    """Kind of layers that an operator belongs to, by its name; None for what has no weights."""
    layer, _, rest = operator.partition(".")
    if layer in ("embedding", "head"):
        return layer if not rest else None
    if layer == "ffn" and rest in ("up_gate_proj", "down_proj"):
        return "ffn"
    if layer == "moe":
        kinds = {"shared": "shared_experts", "up_gate_proj": "experts", "down_proj": "experts"}
        head = rest.split(".")[0]
        return kinds.get(head) if rest not in ("shared.activation",) else None
    if layer in ("ffn", "residual_streams") or layer.startswith("projection"):
        return None
    linear = ("proj", "conv", "absorb", "_weights", "output_gate", "compress")
    return "attention" if any(word in rest for word in linear) else None


def operators(name: str, texts: Sequence[str], stage: str) -> list[dict[str, dict[str, float]]]:
    """Figures of all operators, for each precision."""
    precision = stack([gz.Precision(text) for text in texts])
    case = make_case(gz.model(name), workload=gz.Workload(2, 4096, 8), precision=precision)
    found = once(case, Question(stage, DEFAULT, ("latency",), operators=True))
    made: list[dict[str, dict[str, float]]] = [{} for _ in texts]
    for key, value in found.items():
        figure, _, operator = key.partition("/")
        if figure.startswith("operator_"):
            for one, number in zip(made, np.broadcast_to(value, (len(texts),)), strict=True):
                one.setdefault(figure.removeprefix("operator_"), {})[operator] = float(number)
    return made


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["deepseek-v3.2", "deepseek-v4-flash", "jamba-1.5-mini", "qwen3-next-80b-a3b"])
@pytest.mark.parametrize("stage", ["prefill", "decode"])
def test_a_kind_of_layers_changes_its_own_operators_alone(name: str, stage: str):
    texts = [f"bf16/{kind}={'fp8' if kind == 'embedding' else 'fp8-int8'}" for kind in KINDS[1:]]
    base, *others = operators(name, ["bf16", *texts], stage)
    for kind, other in zip(KINDS[1:], others, strict=True):
        own = {kind, "head"} if kind == "embedding" else {kind}
        for figure, values in base.items():
            for operator, value in values.items():
                mine = kind_of(operator) in own
                narrower = figure == "weight_bytes" or (figure == "input_bytes" and kind != "embedding")
                narrower = narrower or (operator == "embedding" and figure == "input_bytes")  # a gather of its rows
                if figure in ("weight_bytes", "input_bytes", "output_bytes", "message_bytes", "flops"):
                    ratio = 0.5 if mine and narrower else 1.0
                    assert other[figure][operator] == pytest.approx(ratio * value, rel=1e-12), (kind, figure, operator)


@pytest.mark.first(2)
@pytest.mark.parametrize("kind", ["attention", "ffn", "experts", "shared_experts", "head"])
@pytest.mark.parametrize(("pair", "factor"), [("fp8-fp8", 2.0), ("fp8", 1.0), ("nvfp4-fp8", 2.0), ("nvfp4-nvfp4", 4.0)])
def test_a_kind_of_layers_runs_at_its_own_rate(kind: str, pair: str, factor: float):
    peaks = {"bf16": 100.0, "fp8": 200.0, "fp4": 400.0}
    platform = gz.Platform("100 TFLOP/s", "1e6 TB/s", "1 PB", rates=gz.specs.Rates.from_peaks(peaks))
    case = make_case(
        gz.model("deepseek-v3"), platform, gz.Workload(4, 512), precision=gz.Precision(f"bf16/{kind}={pair}")
    )
    found = once(case, Question("prefill", DEFAULT, operators=True))
    names = {key.partition("/")[2] for key in found if key.startswith("operator_flops/")}
    timed = [name for name in names if kind_of(name) is not None and float(found[f"operator_compute_time/{name}"])]
    assert {kind_of(name) for name in timed} >= {kind, "attention"}
    for name in timed:
        rate = float(found[f"operator_flops/{name}"] / found[f"operator_compute_time/{name}"])
        assert rate == pytest.approx((factor if kind_of(name) == kind else 1.0) * 1e14, rel=1e-9), name


# ------------------------------------------------------------------------------------------------------ tied embeddings


@pytest.mark.slow
def test_a_tied_head_is_the_embeddings_matrix_in_its_format():
    counts, model = parameters("llama-3.2-1b"), gz.model("llama-3.2-1b")
    matrix = float(model.vocab_size * model.hidden_size)
    assert counts["embedding"] == matrix
    assert counts["head"] == float(model.hidden_size)  # the norm before it
    # Stored once, in the format of the embedding, whatever the head's.
    both, ends, head = weights("llama-3.2-1b", "bf16", "bf16/embedding=fp8/head=bf16", "bf16/head=fp8")
    assert both - ends == matrix
    assert both - head == float(model.hidden_size)
    texts = {"bf16/embedding=fp8/head=bf16": 1, "bf16/head=fp8": 2, "fp8": 1, "fp8/head=bf16-bf16": 1}
    for text, size in texts.items():
        assert operators("llama-3.2-1b", [text], "decode")[0]["weight_bytes"]["head"] == matrix * size, text
    # An untied head has a matrix of its own.
    apart = operators("llama-3.1-8b", ["bf16/head=fp8"], "decode")[0]["weight_bytes"]["head"]
    assert apart == float(gz.parameter_count("llama-3.1-8b").head)


# ------------------------------------------------------------------------------------ multi-token prediction and drafts


@pytest.mark.slow
def test_a_draft_has_the_formats_of_its_kinds_of_layers_too():
    full = gz.model("deepseek-v3")

    def held(text: str, draft: gz.Model | None) -> float:
        """Bytes of the weights of the draft alone."""
        case = make_case(full, precision=gz.Precision(text), speculation=gz.Speculation(draft))
        both = once(case, Question("speculative_decode", DEFAULT, ("weights",)))["weights"]
        return float(both - weights("deepseek-v3", text))

    assert held("fp8", None) == pytest.approx(gz.parameter_count("deepseek-v3").mtp, rel=1e-9)
    moe, narrower = full.moe, 1 - 0.5625
    assert moe is not None
    experts = float(moe.experts * moe.intermediate_size * full.hidden_size) * 3
    assert held("fp8", None) - held("fp8/experts=nvfp4", None) == pytest.approx(experts * narrower, rel=1e-9)
    small = gz.model("llama-3.2-1b")
    ffn = float(gz.parameter_count(small).ffn)
    assert held("fp8", small) - held("fp8/ffn=nvfp4", small) == pytest.approx(ffn * narrower, rel=1e-9)
