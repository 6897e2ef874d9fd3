"""Configs of 89 published models, from the package aiconfigurator-core: each is read, and counted as by PyTorch.

transformers builds the same config on the meta device. Where it lacks a part of the architecture, the expected count
is put together from what it builds and the shapes in the published code.
"""

import importlib.resources
import json
from pathlib import Path
from typing import Any

import pytest

import genz_jax as gz
from genz_jax.catalog.hugging_face.checkpoints import precision_text

aiconfigurator_core = pytest.importorskip("aiconfigurator_core")
counting = pytest.importorskip("counting")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

FOLDER = Path(str(importlib.resources.files(aiconfigurator_core))) / "model_configs"
FILES = sorted(file for file in FOLDER.glob("*_config.json") if not file.stem.endswith("hf_quant_config"))
TEXT = ("text_config", "llm_config", "language_config")
SAME = {  # names of architectures under which transformers has them
    "deepseek_ref": "deepseek_v4",
    "kimi_k2": "deepseek_v3",
    "mimo": "qwen2",
    "minimax_m3": "minimax_m3_vl_text",
    "minimax_m3_vl": "minimax_m3_vl_text",
    "step3p7": "step3p5",
}


def text_part(file: Path) -> tuple[str, dict[str, Any]]:
    """Architecture and keys of the text part of a config, without what is not of the architecture."""
    values = json.loads(file.read_text())
    kind = values["model_type"]
    for key in TEXT:
        if isinstance(values.get(key), dict):
            values = {"tie_word_embeddings": values.get("tie_word_embeddings", False)} | values[key]
            kind = values.get("model_type", kind)
    other = ("quantization_config", "model_type", "auto_map", "torch_dtype", "dtype", "architectures")
    return kind, {key: value for key, value in values.items() if key not in other}


def pytorchs(kind: str, values: dict[str, Any]) -> int:
    """PyTorch's count of a config, with a head where transformers has the text part without one."""
    config = counting.transformers.AutoConfig.for_model(SAME.get(kind, kind), **values).get_text_config()
    model = counting.build(config, "meta")
    total = sum(parameter.numel() for parameter in model.parameters())
    headless = not hasattr(model, "lm_head") and not config.tie_word_embeddings
    return total + headless * config.vocab_size * config.hidden_size


def kimi_k3(values: dict[str, Any]) -> int:
    """Kimi Linear's count, and what K3 has beside it: gates, experts in a latent, attention residuals."""
    hidden, layers, heads = (values[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    total = pytorchs("kimi_linear", {**values, "hidden_act": "silu"})
    linear = values["linear_attn_config"]
    size, wide = linear["head_dim"], linear["head_dim"] * linear["num_heads"]
    total += len(linear["kda_layers"]) * (hidden * wide - hidden * size - size * wide)
    total += len(linear["full_attn_layers"]) * hidden * heads * values["v_head_dim"]
    narrow, sparse = values["routed_expert_hidden_size"], layers - values["first_k_dense_replace"]
    experts = 3 * values["moe_intermediate_size"] * values["num_experts"]
    total += sparse * (2 * hidden * narrow + narrow - experts * (hidden - narrow))
    return total + (2 * layers + 1) * 2 * hidden


def nemotron_nas(values: dict[str, Any]) -> int:
    """Block by block, from the shapes of the published code."""
    hidden, heads = values["hidden_size"], values["num_attention_heads"]
    total = 2 * values["vocab_size"] * hidden + hidden
    for block in values["block_configs"]:
        if not block["attention"]["no_op"]:
            keys = hidden // block["attention"]["n_heads_in_group"]
            total += 2 * hidden * hidden + 2 * hidden * keys + hidden
        if not block["ffn"]["no_op"]:
            inner = int(2 * block["ffn"]["ffn_mult"] * hidden / 3)
            inner += -inner % 256
            total += 3 * hidden * inner + hidden
    assert heads * (hidden // heads) == hidden
    return total


DERIVED = {"nvidia--Llama-3_3-Nemotron-Super-49B-v1": nemotron_nas, "moonshotai--Kimi-K3": kimi_k3}


def test_all_configs_are_here():
    assert len(FILES) == 89
    assert len(list(FOLDER.glob("*.json"))) == 117


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem.removesuffix("_config"))
def test_parameters(file):
    kind, values = text_part(file)
    derive = DERIVED.get(file.stem.removesuffix("_config"))
    expected = pytorchs(kind, values) if derive is None else derive(values)
    counted = gz.parameter_count(gz.Model.from_hugging_face(file))
    assert float(counted.total) == expected
    modules = max(values.get(key) or 0 for key in ("num_nextn_predict_layers", "mtp_num_hidden_layers", "use_mtp"))
    assert (float(counted.mtp) > 0) == (modules > 0 or "MiniMax-M3" in file.stem)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem.removesuffix("_config"))
def test_precision(file):
    """The formats are read, and are those that the catalogue says of the checkpoint."""
    formats = precision_text(file)
    known = [gz.catalog.about("model", model) for model in gz.models()]
    name = file.stem.removesuffix("_config").replace("--", "/")
    for entry in known:
        listed = entry.notes.get("checkpoints", {})
        if name in listed or name in entry.aliases:
            assert formats == listed.get(name, entry.notes.get("precision"))


@pytest.mark.parametrize("name", ["DeepSeek-V4-Pro", "Kimi-K3", "MiniMax-M3", "Step-3.7-Flash", "MiMo-V2-Flash"])
def test_an_estimate_of_each_new_architecture(name):
    file = next(file for file in FILES if file.stem.endswith(f"{name}_config"))
    found = gz.estimate(
        str(file), "B200", gz.Workload(8, 4096, 64), gz.Parallelism(tp=8, ep=1, pp=8), "nvfp4", assumptions="default"
    )
    assert 0 < float(found.tpot) < float(found.ttft)
