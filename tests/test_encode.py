"""Embedding models and encoders beside transformers and closed forms, and the stage that runs them."""

import json
from typing import Any

import jax
import numpy as np
import pytest
from helpers import make_case
from typer.testing import CliRunner

import genz_jax as gz
from genz_jax.cli import app
from genz_jax.serving.evaluate import Question, compiled, evaluate

BERT: dict[str, Any] = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "hidden_size": 96,
    "vocab_size": 500,
    "intermediate_size": 200,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
LOAD = gz.Workload(16, 300, 1)
ENCODERS = ("bert-base", "modernbert-base", "embeddinggemma-300m", "qwen3-embedding-0.6b")


def encoded(model: Any, load: gz.Workload = LOAD, *rest: Any, **options: Any) -> Any:
    return gz.estimate(model, "H100-SXM", load, *rest, stage="encode", **options)


def bare(model: str, **changes: float) -> gz.Model:
    return gz.model(model).replace(lm_head=0, **changes)


# ---------------------------------------------------------------------------------------------------------- counts


# As the model cards of their publishers and transformers' own classes count them, poolers included.
PUBLISHED = {
    "bert-base-uncased": 109_482_240,
    "FacebookAI/roberta-base": 124_645_632,
    "FacebookAI/xlm-roberta-large": 559_890_432,
    "intfloat/multilingual-e5-small": 117_653_760,
    "sentence-transformers/all-MiniLM-L6-v2": 22_713_216,
    "BAAI/bge-m3": 567_754_752,
    "answerdotai/ModernBERT-base": 149_014_272,
    "Qwen/Qwen3-Embedding-8B": 7_567_295_488,
    "Alibaba-NLP/gte-Qwen2-7B-instruct": 7_069_121_024,
    "nvidia/llama-embed-nemotron-8b": 7_504_924_672,
    "google/embeddinggemma-300m": 302_863_104,
    "intfloat/e5-mistral-7b-instruct": 7_110_660_096,
}


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_parameters_are_the_published(name: str, count: int):
    assert int(gz.parameter_count(gz.model(name)).total) == count


def imported(folder: Any, config: dict[str, Any], name: str = "model") -> gz.Model:
    folder = folder / name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return gz.Model.from_hugging_face(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "model", "changes"),
    [
        ("BertConfig", "BertModel", {}),
        ("BertConfig", "BertModel", {"type_vocab_size": 5, "num_hidden_layers": 7, "hidden_size": 480}),
        ("RobertaConfig", "RobertaModel", {"max_position_embeddings": 700}),
        ("XLMRobertaConfig", "XLMRobertaModel", {"vocab_size": 250002}),
        ("ModernBertConfig", "ModernBertModel", {}),
        ("ModernBertConfig", "ModernBertModel", {"attention_bias": True, "mlp_bias": True, "num_hidden_layers": 10}),
        ("Qwen3Config", "Qwen3Model", {"vocab_size": 151665}),
        ("MistralConfig", "MistralModel", {}),
        ("Qwen2Config", "Qwen2Model", {"is_causal": False}),
        ("GemmaConfig", "GemmaModel", {"use_bidirectional_attention": True}),
        ("Gemma4TextConfig", "Gemma4TextModel", {"use_bidirectional_attention": "all"}),
        ("LlamaConfig", "LlamaForSequenceClassification", {"num_labels": 7}),
        ("LlamaConfig", "LlamaForTokenClassification", {"num_labels": 7}),
        ("LlamaConfig", "LlamaForQuestionAnswering", {}),
        ("BertConfig", "BertForSequenceClassification", {"num_labels": 1}),
        ("BertConfig", "BertForTokenClassification", {"num_labels": 9}),
        ("BertConfig", "BertForQuestionAnswering", {}),
        ("XLMRobertaConfig", "XLMRobertaForSequenceClassification", {"num_labels": 1}),
        ("ModernBertConfig", "ModernBertForSequenceClassification", {"num_labels": 3}),
        ("ModernBertConfig", "ModernBertForTokenClassification", {"classifier_bias": True}),
        ("Gemma3TextConfig", "Gemma3TextModel", {"use_bidirectional_attention": True}),
    ],
)
def test_parameters_are_those_of_transformers(tmp_path, config: str, model: str, changes: dict[str, Any]):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    made = getattr(transformers, config)(**changes)
    with torch.device("meta"):
        real = getattr(transformers, model)(made)
    ours = imported(tmp_path, made.to_dict() | {"architectures": [model]})
    assert int(gz.parameter_count(ours).total) == sum(p.numel() for p in real.parameters())
    assert float(ours.lm_head) == 0.0
    both_ways = "Bert" in config or any(key in changes for key in ("is_causal", "use_bidirectional_attention"))
    assert float(ours.bidirectional or 0) == both_ways or model.startswith(("Roberta", "XLMRoberta"))


@pytest.mark.slow
@pytest.mark.parametrize(("sequences", "tokens"), [(1, 7), (2, 12), (3, 33)])
@pytest.mark.parametrize(
    ("config", "model", "changes"),
    [
        ("BertConfig", "BertModel", {"intermediate_size": 200}),
        ("RobertaConfig", "RobertaModel", {"intermediate_size": 200}),
        ("LlamaConfig", "LlamaModel", {"is_causal": False, "intermediate_size": 160, "num_key_value_heads": 2}),
    ],
)
def test_flops_are_those_of_pytorch(tmp_path, config: str, model: str, changes: dict[str, Any], sequences, tokens):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    counter = pytest.importorskip("torch.utils.flop_counter").FlopCounterMode(display=False)
    small = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 500}
    made = getattr(transformers, config)(**small, **changes, attn_implementation="eager")
    with torch.device("meta"), torch.no_grad():
        real = getattr(transformers, model)(made, **({} if config == "LlamaConfig" else {"add_pooling_layer": False}))
        with counter:
            real.eval()(torch.ones((sequences, tokens), dtype=torch.long))
    ours = imported(tmp_path, made.to_dict() | {"architectures": [model]})
    count = gz.flop_count(ours, gz.Workload(sequences, tokens), "encode")
    assert round(count.gemm + count.attention) == counter.get_total_flops()
    # Of each layer and channel a multiplication and an addition, for scores and for values.
    assert count.attention == 3 * 4 * 96 * sequences * tokens**2


def test_a_model_of_the_hub_has_its_repositorys_name(tmp_path):
    folder = tmp_path / "models--Qwen--Qwen3-Embedding-8B" / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    config = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "vocab_size": 151665, "head_dim": 128,
              "hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
              "intermediate_size": 12288, "tie_word_embeddings": False}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    ours = gz.Model.from_hugging_face(folder / "config.json")
    assert ours.name == "Qwen3-Embedding-8B"
    assert int(gz.parameter_count(ours).total) == 7_567_295_488


def test_llama_that_sees_both_ways_is_read(tmp_path):
    config = {"model_type": "llama_bidirec", "architectures": ["LlamaBidirectionalModel"], "vocab_size": 128256,
              "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
              "intermediate_size": 14336, "auto_map": {"AutoModel": "m.LlamaBidirectionalModel"}}  # fmt: skip
    ours, kept = imported(tmp_path, config), gz.model("llama-embed-nemotron-8b")
    assert gz.parameter_count(ours).total == gz.parameter_count(kept).total == 7_504_924_672
    assert encoded(ours).latency == encoded(kept).latency


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "mistral", "sliding_window": 64, "is_causal": False}, "windows of a decoder"),
        ({"model_type": "mamba", "is_causal": False}, "states of a decoder"),
    ],
)
def test_decoders_that_cannot_see_both_ways_are_refused(tmp_path, config: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        imported(tmp_path, config)


def test_a_checkpoint_of_embeddings_has_no_head(tmp_path):
    config = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 64, "vocab_size": 100,
              "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "head_dim": 16, "tie_word_embeddings": False}  # fmt: skip
    plain = imported(tmp_path, config, "Qwen3-tiny")
    assert plain.lm_head is None
    for name, named in (("Qwen3-Embedding-tiny", True), ("tiny", False)):
        folder = tmp_path / "checkpoints"
        folder.mkdir(exist_ok=True)
        if not named:  # as Sentence Transformers marks its folders
            (folder / name).mkdir()
            (folder / name / "modules.json").write_text("[]")
            (folder / name / "config.json").write_text(json.dumps(config))
            ours = gz.Model.from_hugging_face(folder / name)
        else:
            ours = imported(folder, config, name)
        lost = gz.parameter_count(plain).total - gz.parameter_count(ours).total
        assert int(lost) == 64 * 100


def test_encoders_that_are_decoders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is_decoder"):
        imported(tmp_path, BERT | {"is_decoder": True})


# ------------------------------------------------------------------------------------------------------------ work


@pytest.mark.parametrize("tokens", [1, 2, 77, 128, 129, 130, 1000])
def test_pairs_are_those_that_are_seen_one_by_one(tokens: int):
    window = 129  # 64 tokens to each side
    both = gz.Model(64, 1, 100, local_attention=gz.layers.LocalAttention(1, 4, 4, 16, window=window), lm_head=0,
                    bidirectional=1)  # fmt: skip
    found = encoded(both, gz.Workload(2, tokens, 1), operators=True)
    at = np.arange(tokens)
    seen = int((np.abs(at[:, None] - at) <= window // 2).sum())
    # Scores and values: a multiplication and an addition for each channel of 4 heads of 16, of 2 sequences.
    assert float(found.operators["local_attention.attention"].flops) == 2 * 2 * 2 * 64 * seen


def test_an_encoder_sees_all_of_a_sequence():
    tokens, layers, width = 700, 32, 4096
    causal, both = (encoded(bare("llama-3.1-8b", bidirectional=b), gz.Workload(3, tokens, 1)) for b in (0, 1))
    more = 4 * width * layers * 3 * (tokens**2 - tokens * (tokens + 1) / 2)
    assert float(both.flop_count - causal.flop_count) == pytest.approx(more, rel=1e-12)


@pytest.mark.slow
def test_encoding_is_prefill_without_the_head():
    whole = gz.estimate("llama-3.1-8b", "H100-SXM", gz.Workload(4, 300, 1), stage="prefill", operators=True)
    found = encoded("llama-3.1-8b", gz.Workload(4, 300, 1), operators=True)
    head = whole.operators["head"]
    assert set(whole.operators) - set(found.operators) == {"head", "head.all_gather"}
    assert float(found.flop_count) == pytest.approx(float(whole.flop_count - head.flops), rel=1e-12)
    assert float(found.weights) == pytest.approx(float(whole.weights) - 2 * 128_256 * 4096, rel=1e-12)
    assert float(found.kv_cache) == 0.0
    assert float(found.latency) < float(whole.latency)


@pytest.mark.slow
def test_a_pass_takes_whole_sequences():
    one = encoded("bert-base", gz.Workload(1, 300, 1))
    # 2,000 tokens hold six sequences of 300: ten take two passes, of six and of four.
    ten = encoded("bert-base", gz.Workload(10, 300, 1), engine=gz.Engine(2000))
    six, four = (encoded("bert-base", gz.Workload(n, 300, 1), engine=gz.Engine(2000)) for n in (6, 4))
    assert float(ten.latency) == pytest.approx(float(six.latency + four.latency), rel=1e-12)
    assert float(ten.memory) == float(six.memory)
    # One sequence that is longer than a pass is not cut.
    alone = encoded("bert-base", gz.Workload(3, 300, 1), engine=gz.Engine(100))
    assert float(alone.latency) == pytest.approx(3 * float(one.latency), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_a_grid_is_its_points_and_more_bandwidth_is_never_slower(name: str):
    chip = gz.platform("H100-SXM").replace(mem_bw=gz.axis([1e12, 2e12, 4e12]))
    found = gz.sweep(name, chip, gz.Workload(gz.axis([1, 7, 64]), 500, 1), stage="encode", progress=False)
    assert (found.latency.diff("mem_bw") <= 0).all()
    for at in found.latency.stack(point=found.latency.dims).transpose("point"):
        one = gz.estimate(name, gz.platform("H100-SXM").replace(mem_bw=float(at.mem_bw)),
                          gz.Workload(float(at.batch), 500, 1), stage="encode")  # fmt: skip
        assert float(at) == pytest.approx(float(one.latency), rel=1e-5)


def figure(result: Any) -> Any:
    return result.latency


@pytest.mark.slow
def test_compiled_is_not_compiled_and_slopes_are_differences():
    case = make_case(gz.model("modernbert-base"), workload=LOAD, engine=gz.Engine(2000))
    question = Question("encode", gz.Assumptions(), ("latency",))
    with jax.disable_jit():
        plain = float(figure(evaluate(case, question)))
    assert float(figure(compiled(question)(case))) == pytest.approx(plain, rel=1e-12)

    def latency(bandwidth: Any) -> Any:
        return figure(evaluate(make_case(case.model, case.platform.replace(mem_bw=bandwidth), LOAD), question))

    at = 3e12
    slope = (float(latency(at * 1.001)) - float(latency(at * 0.999))) / (0.002 * at)
    assert float(jax.grad(latency)(at)) == pytest.approx(slope, rel=1e-4)


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ENCODERS)
def test_weights_are_all_parameters_and_tokens_follow_sequences(name: str):
    found = encoded(name)
    assert float(found.weights) == pytest.approx(2 * float(gz.parameter_count(name).total), rel=1e-6)
    assert float(found.token_throughput) == pytest.approx(300 * float(found.throughput), rel=1e-6)
    # Without a cache or logits only activations are beside the weights.
    assert float(found.memory) == pytest.approx(float(found.weights + found.activations), rel=1e-6)


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ENCODERS)
def test_single_precision_and_one_rank_change_nothing(name: str):
    question = Question("encode", gz.Assumptions(), ("latency", "memory", "energy"))
    case = make_case(gz.model(name), workload=LOAD)
    one = make_case(gz.model(name), workload=LOAD, parallelism=gz.Parallelism(tp=1, pp=1, cp=1))
    exact, alone = compiled(question)(case), compiled(question)(one)
    with jax.enable_x64(False):
        single = compiled(question)(case)
    for figure in ("latency", "memory", "energy"):
        assert float(getattr(alone, figure)) == float(getattr(exact, figure))
        assert float(getattr(single, figure)) == pytest.approx(float(getattr(exact, figure)), rel=1e-5)


# --------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("stage", ["request", "prefill", "decode", "memory"])
def test_what_generates_is_refused(stage: str):
    words = r"model = 'bge-m3': has no language model head.*use stage='encode'"
    with pytest.raises(ValueError, match=words):
        gz.estimate("bge-m3", "H100-SXM", stage=stage)
    with pytest.raises(ValueError, match=words):
        gz.sweep(["bge-m3", "e5-small"][:1], "H100-SXM", stage=stage, progress=False)


def test_what_takes_requests_is_refused():
    slo = gz.SLO(tpot=0.1)
    for ask in (
        lambda: gz.require("mem_bw", "qwen3-embedding-8b", "H100-SXM", slo=slo),
        lambda: gz.search("qwen3-embedding-8b", "H100-SXM", chips=2),
        lambda: gz.fit("qwen3-embedding-8b", "H100-SXM"),
    ):
        with pytest.raises(ValueError, match="no language model head"):
            ask()


def test_a_model_that_sees_both_ways_generates_nothing_with_a_head_either():
    both = gz.model("llama-3.1-8b").replace(bidirectional=1)
    with pytest.raises(ValueError, match="sees both ways") as caught:
        gz.estimate(both, "H100-SXM")
    assert len(str(caught.value)) <= 300
    with pytest.raises(ValueError, match="sees both ways"):
        gz.sweep([both, "bge-m3"], "H100-SXM", stage="prefill", progress=False)
    with pytest.raises(ValueError, match="'bge-m3': has no language model head"):
        gz.estimate("llama-3.1-8b", "H100-SXM", speculation=gz.Speculation(gz.model("bge-m3"), 3, 0.7))
    with pytest.raises(ValueError, match="no language model head"):
        gz.flop_count("bge-m3", gz.Workload(1, 10))


def test_only_the_prompt_counts_for_the_context_limit(recwarn):
    encoded("bge-large-en-v1.5", gz.Workload(1, 512, 128))
    assert not recwarn.list


@pytest.mark.slow
def test_a_list_with_others_has_the_reason():
    found = gz.sweep(["bge-m3", "llama-3.1-8b"], "H100-SXM", progress=False)
    assert gz.words(found.reason).values.tolist() == ["no_head", "feasible"]
    both = gz.sweep(["bge-m3", "llama-3.1-8b"], "H100-SXM", LOAD, stage="encode", progress=False)
    for name in ("bge-m3", "llama-3.1-8b"):
        assert float(both.latency.sel(model=name)) == pytest.approx(
            float(encoded(name, precision="bf16").latency), rel=1e-5
        )


@pytest.mark.slow
def test_the_command_encodes():
    shown = CliRunner().invoke(app, ["estimate", "-m", "bge-m3", "-p", "L40S", "--stage", "encode", "--json"])
    assert shown.exit_code == 0
    tree = json.loads(shown.stdout)
    one = gz.estimate("bge-m3", "L40S", stage="encode")
    assert tree["figures"]["throughput"]["value"] == pytest.approx(float(one.throughput))
    refused = CliRunner().invoke(app, ["estimate", "-m", "bge-m3", "-p", "L40S"])
    assert refused.exit_code == 2
