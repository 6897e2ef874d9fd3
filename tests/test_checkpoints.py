"""The formats of a checkpoint go where its name goes: load, estimate, sweeps of models, search, the commands."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import genz_jax as gz
from genz_jax import catalog
from genz_jax.catalog import quantized_names
from genz_jax.cli import app

BLOCKS = "fp8-fp8-bf16/embedding=bf16"
LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}


@pytest.fixture
def quantized(tmp_path):
    """A folder with the config of a quantized Llama."""
    told = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "quantization_config": told}))
    return tmp_path


AWQ = "int4:128x20-bf16-bf16/embedding=bf16"


def test_load_returns_the_model_and_its_formats(quantized):
    for path in (quantized, str(quantized), quantized / "config.json"):
        model, precision = gz.load(path)
        assert (float(model.layers), precision.name) == (32, AWQ)
    assert gz.load("llama-3.1-8b")[1].name == "bf16"
    with pytest.raises(ValueError, match="unknown model"):
        gz.load("no-such-model")
    with pytest.raises(ValueError, match="no such file"):
        gz.load(quantized / "none.json")


NAMES = {
    "deepseek-ai/DeepSeek-R1": BLOCKS,
    "deepseek-v3": BLOCKS,
    "deepseek-ai/DeepSeek-V3.1": BLOCKS,
    "DeepSeek-V3.2": BLOCKS,
    "deepseek-v4-flash": "fp8-fp8-bf16/experts=mxfp4/embedding=bf16",
    "moonshotai/Kimi-K2-Instruct": BLOCKS,
    "moonshotai/Kimi-K2-Instruct-0905": BLOCKS,
    "moonshotai/Kimi-K2-Thinking": "bf16/experts=int4:32x16",
    "openai/gpt-oss-120b": "bf16/experts=mxfp4",
    "MiniMaxAI/MiniMax-M2": BLOCKS,
    "nvidia/Llama-3.1-70B-Instruct-FP8": "fp8/embedding=bf16",
    "Qwen/Qwen3-32B-FP8": BLOCKS,
    "qwen3-32b-awq": AWQ,
    "Qwen/Qwen2.5-72B-Instruct-GPTQ-Int4": "int4:128x16-bf16-bf16/embedding=bf16",
    "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8": "int8:128x16-bf16-bf16/embedding=bf16",
    "RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8-dynamic": BLOCKS,
    "RedHatAI/Llama-3.3-70B-Instruct-quantized.w4a16": "int4:128x16-bf16-bf16/embedding=bf16",
    "RedHatAI/Llama-3.3-70B-Instruct-quantized.w8a8": "int8-int8-bf16/embedding=bf16",
    "RedHatAI/Llama-3.3-70B-Instruct-NVFP4": "nvfp4-nvfp4-bf16/embedding=bf16",
    "amd/Llama-3.1-8B-Instruct-FP8-KV": "fp8/embedding=bf16",
    "unsloth/Llama-3.1-8B-Instruct-bnb-4bit": "int4:64x8-bf16-bf16/embedding=bf16",
    "mlx-community/Meta-Llama-3.1-8B-Instruct-4bit": "int4:64x32-bf16-bf16",
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": "bf16",
    "llama-3.1-8b": "bf16",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_has_the_formats_of_its_checkpoint(name):
    assert gz.load(name)[1].name == NAMES[name]


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unsloth/Llama-3.1-8B-Instruct-unsloth-bnb-4bit", "stay in 16 bits"),
        ("nvidia/Qwen3-30B-A3B-NVFP4", "differs from model to model"),
        ("bartowski/Llama-3.1-8B-Instruct-GGUF", "a format for each tensor"),
        ("qwen3-8b-int8", "which layers are quantized"),
    ],
)
def test_a_name_that_does_not_say_the_formats_is_refused(name, words):
    with pytest.raises(ValueError, match=words) as error:
        gz.estimate(name, "H200")
    assert len(str(error.value)) <= 300
    assert gz.estimate(name, "H200", precision="fp8").feasible


@pytest.mark.slow
def test_all_formats_of_the_catalogue_are_read():
    for name in gz.models():
        notes = gz.catalog.about("model", name).notes
        for checkpoint in (name, *notes.get("checkpoints", ())):
            model = gz.model(checkpoint)
            assert model.name == name
            assert model.label.formats == notes.get("checkpoints", {}).get(checkpoint, notes.get("precision"))


@pytest.mark.slow
def test_estimates_have_the_formats_of_the_checkpoint(quantized):
    """A DeepSeek-R1 of 671 GB fits on eight H200 of 141 GB, which it does not in 16 bits."""
    spread = gz.Parallelism(tp=8)
    own = gz.estimate("deepseek-ai/DeepSeek-R1", "H200", parallelism=spread)
    assert bool(own.feasible)
    assert float(own.memory) == float(gz.estimate("deepseek-r1", "H200", None, spread, BLOCKS).memory)
    assert not bool(gz.estimate("deepseek-r1", "H200", None, spread, "bf16").feasible)
    for model in (str(quantized), gz.Model.from_hugging_face(quantized), gz.load(quantized)[0]):
        assert float(gz.estimate(model, "H200").memory) == float(gz.estimate(model, "H200", precision=AWQ).memory)
    changed = gz.model("deepseek-r1").replace(layers=61)
    assert float(gz.estimate(changed, "H200", parallelism=spread).memory) == float(own.memory)


@pytest.mark.slow
def test_models_of_a_sweep_have_their_own_formats():
    names = {"llama-3.1-8b": "bf16", "gpt-oss-20b": "bf16/experts=mxfp4", "deepseek-v3": BLOCKS}
    chip, spread = gz.platform("B200"), gz.Parallelism(tp=gz.axis([1, 8]))
    swept = gz.sweep(list(names), chip, parallelism=spread, stage="decode", figures=["latency", "memory"])
    assert swept.memory.dims == ("model", "tp")
    assert swept.attrs["precision_name"] == "bf16, bf16/experts=mxfp4, fp8-fp8-bf16/embedding=bf16"
    for name, formats in names.items():
        one = gz.sweep(name, chip, parallelism=spread, precision=formats, stage="decode", figures=["latency", "memory"])
        np.testing.assert_allclose(swept.memory.sel(model=name), one.memory, rtol=1e-6)
        np.testing.assert_allclose(swept.latency.sel(model=name), one.latency, rtol=1e-6)
    given = gz.sweep(list(names), chip, parallelism=spread, precision="fp8", stage="decode", figures=["memory"])
    assert given.attrs["precision_name"] == "fp8"
    alike = gz.sweep(["deepseek-v3", "deepseek-r1"], chip, parallelism=spread, stage="decode", figures=["memory"])
    assert alike.attrs["precision_name"] == BLOCKS


@pytest.mark.slow
def test_search_has_the_formats_of_the_checkpoint():
    found = gz.search("gpt-oss-20b", "H100-SXM", gz.Workload(8, 512, 64), chips=1, progress=False)
    assert set(found.dataset.precision.values) == {"bf16/experts=mxfp4"}


@pytest.mark.slow
def test_commands_have_the_formats_of_the_checkpoint(quantized):
    def run(*options):
        done = CliRunner().invoke(app, [*options, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.output)

    asked = ("-p", "B200", "--tp", "8")
    assert run("estimate", "-m", "deepseek-ai/DeepSeek-R1", *asked)["precision"] == BLOCKS
    assert run("estimate", "-m", str(quantized), *asked)["precision"] == AWQ
    assert run("estimate", "-m", str(quantized), *asked, "--precision", "fp8")["precision"] == "fp8"
    both = run("sweep", "-m", f"deepseek-v3,{quantized}", *asked, "--figures", "memory")
    assert both["precision"] == [BLOCKS, AWQ]
    shown = CliRunner().invoke(app, ["estimate", "-m", "deepseek-v3", *asked]).output
    assert BLOCKS in shown


def test_formats_that_cannot_be_read_are_an_error_only_where_they_are_used(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**LLAMA, "quantization_config": {"quant_method": "magic"}}))
    model = gz.Model.from_hugging_face(file)
    assert float(gz.parameter_count(model).total) == 8_030_261_248
    assert bool(gz.estimate(model, "H200", precision="fp8").feasible)
    for call in (lambda: gz.estimate(model, "H200"), lambda: gz.load(file), lambda: gz.sweep([str(file)], "H200")):
        with pytest.raises(ValueError, match=r"config\.json: the quantization 'magic' is not known"):
            call()


def test_a_gguf_file_is_told(tmp_path):
    file = tmp_path / "model.Q4_K_M.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(ValueError, match="a GGUF file: give the model's name"):
        gz.estimate(str(file), "H200")


def test_names_without_an_ending_are_not_taken_apart():
    for name in ("llama-3.1-8b", "Qwen/Qwen3-32B", "mistral-7b", "grok-1", "fp8"):
        assert quantized_names.split(name) is None
    assert catalog.about("model", "Qwen/Qwen3-32B-FP8").name == "qwen3-32b"


SIZES = {  # bytes of the files of weights as published
    "openai/gpt-oss-120b": 65.2e9,
    "openai/gpt-oss-20b": 12.8 * 2**30,  # model card, arXiv 2508.10925
    "deepseek-ai/DeepSeek-V3": 688.6e9,  # with a module for multi-token prediction
    "deepseek-ai/DeepSeek-V4-Flash": 160e9,
    "moonshotai/Kimi-K2-Thinking": 594e9,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_bytes_of_weights_are_those_of_the_published_files(name):
    model, precision = gz.load(name)
    weights = float(gz.estimate(model, gz.platform("B200").replace(mem_capacity="9 TB"), stage="memory").weights)
    modules = float(gz.parameter_count(model).mtp) * float(precision.experts)
    assert weights + modules == pytest.approx(SIZES[name], rel=0.02)
