"""Spellings of names: each stands for the model or platform of that shape, or is refused."""

import importlib.machinery
import json
import sys
import types
from pathlib import Path

import pytest

import genz_jax as gz
from genz_jax import catalog
from genz_jax.catalog import names
from genz_jax.cli.options import _models, _platforms

DATA = Path(__file__).parent / "data"
SPELLINGS = (DATA / "names" / "published.txt").read_text(encoding="utf-8").split()
CARDS = json.loads((DATA / "genz" / "models.json").read_text(encoding="utf-8"))

# Parameters in 1e9 as their publishers print them, with embeddings, each with its relative rounding.
COUNTS = {
    "HuggingFaceH4/zephyr-7b-beta": (7.241732096, 0),
    "mistralai/Ministral-8B-Instruct-2410": (8.019808256, 0),
    "llama2_7b": (6.738415616, 0),
    "llama2_13b": (13.01586432, 0),
    "llama_33b": (32.528943616, 0),
    "llama_405b": (405.8533888, 0),
    "meta/llama3_405B": (405.8533888, 0),
    "mixtral_8x7b": (46.702792704, 0),
    "falcon7b": (6.9217207, 1e-6),
    "gemma_2b": (2.506172416, 0),
    "gemma2_2b": (2.614341888, 0),
    "gemma2_27b": (27.227128320, 0),
    "phi3mini": (3.821079552, 0),
    "phi3medium": (13.960238080, 0),
    "microsoft/phi3moe": (41.873153344, 0),
    "mistralai/Mistral-NeMo-12B-Instruct": (12.247782400, 0),
    "opt_1b": (1.31575808, 0),
    "facebook/opt-7b": (6.658473984, 0),
    "gpt-3_1b": (1.3, 0.02),
    "gpt-3_7b": (6.7, 0.01),
    "google/palm": (540.35, 1e-3),
    "glm-9b": (9.39995136, 0),
    "nvidia/mamba2-8b-3t-4k": (8.24, 1e-3),
    "nvidia/Llama-3_1-Nemotron-51B-Instruct": (51.5, 1e-3),
}

# What the drivers of vendors call their devices, by the name in the catalogue.
DRIVER_NAMES = {
    "NVIDIA H100 80GB HBM3": "H100-SXM",
    "NVIDIA H100 PCIe": "H100-PCIe",
    "NVIDIA A100-SXM4-80GB": "A100-SXM-80GB",
    "NVIDIA A100-SXM4-40GB": "A100-SXM-40GB",
    "NVIDIA A100 80GB PCIe": "A100-PCIe-80GB",
    "NVIDIA H200": "H200",
    "NVIDIA H20": "H20",
    "NVIDIA B200": "B200",
    "NVIDIA GB200": "GB200",
    "NVIDIA GH200 480GB": "GH200-96GB",
    "NVIDIA GH200 144G HBM3e": "GH200",
    "NVIDIA GeForce RTX 4090": "RTX-4090",
    "NVIDIA GeForce RTX 5090": "RTX-5090",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "RTX-PRO-6000-Server",
    "NVIDIA L40S": "L40S",
    "NVIDIA L4": "L4",
    "NVIDIA A10G": "A10G",
    "Tesla V100-SXM2-32GB": "V100-SXM2-32GB",
    "AMD Instinct MI300X": "MI300X",
    "AMD Instinct MI355X OAM": "MI355X",
    "TPU v5 lite": "TPU-v5e",
    "TPU v6 lite": "TPU-v6e",
}
# Systems of the published analyser.
SYSTEMS = {"A100_40GB_GPU": 40, "A100_80GB_GPU": 80, "H100_GPU": 80, "GH200_GPU": 144, "TPUv5e": 16, "TPUv4": 32}
SYSTEMS |= {"MI300X": 192, "MI325X": 256, "B100": 192, "Gaudi3": 128, "TPUv6": 32}


@pytest.mark.parametrize("name", [name for name in SPELLINGS if name != "dummy"])
def test_published_spellings_are_models(name):
    assert gz.model(name).name in gz.models()


def test_a_placeholder_is_refused():
    with pytest.raises(ValueError, match="'dummy', a placeholder that has no shape"):
        gz.model("dummy")


# Where the published card is not the model's: Mixture sizes of its paper, and sizes that its config.json contradicts.
OTHER_CARDS = {"qwen/qwen1.5-moe-a2.7b", "google/gemma-3-4b", "qwen/qwen1.5-32b"}


@pytest.mark.parametrize("name", [name for name in CARDS if name not in OTHER_CARDS])
def test_a_spelling_has_the_published_shape(name):
    card, model = CARDS[name], gz.model(name)
    assert float(model.hidden_size) == card["hidden_size"]
    assert float(model.layers) == card["num_decoder_layers"]
    parts = [part for part in (model.attention, model.local_attention, model.latent_attention) if part is not None]
    assert {float(part.heads) for part in parts} <= {card["num_attention_heads"]}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_a_spelling_has_the_published_parameters(name, count):
    billions, rounding = count
    assert gz.parameter_count(name).total / 1e9 == pytest.approx(billions, rel=max(rounding, 1e-9))


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("llama 3.1 8b instruct", "llama-3.1-8b"),
        ("unsloth/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("llama-3-1-8b", "llama-3.1-8b"),
        ("Llama-3.1-8Billion", "llama-3.1-8b"),
        ("LLAMA_3_1_70B", "llama-3.1-70b"),
        ("Qwen1_5-7B-Chat", "qwen1.5-7b"),
        ("qwen2_5_7b", "qwen2.5-7b"),
        ("mixtral_8x22b", "mixtral-8x22b"),
        ("Mixtral-8x22B-Instruct-v0.1", "mixtral-8x22b-instruct"),
        ("opt_1_3b", "opt-1.3b"),
        ("opt_13b", "opt-13b"),
        ("DeepSeek V3", "deepseek-v3"),
        ("gpt_oss_120b", "gpt-oss-120b"),
    ],
)
def test_other_spellings(name, entry):
    assert gz.model(name).name == entry


def found(find, spelling: str, entry: str) -> bool:
    """Whether a spelling is that entry's, or is refused as one that may be its (an underscore may be a dot)."""
    try:
        return find(spelling).name == entry
    except ValueError as error:
        return "may be" in str(error) and entry in str(error)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["model", "platform"])
def test_no_spelling_of_the_catalogue_is_ambiguous_or_anothers(what):
    find = {"model": gz.model, "platform": gz.platform}[what]
    for spelling in catalog.spellings(what):
        entry = gz.catalog.about(what, spelling).name
        for other in (spelling.upper(), spelling.replace("-", "_"), spelling.replace("-", " ")):
            assert found(find, other, entry)


def test_what_may_be_two_models_is_refused():
    with pytest.raises(ValueError, match=r"'mamba2_8b' may be mamba-2\.8b or mamba2-8b-3t-4k; give one of these"):
        gz.model("mamba2_8b")


@pytest.mark.parametrize(
    "name",
    ["NVIDIA H100 NVL", "NVIDIA A100-PCIE-40GB", "NVIDIA L40", "AMD Instinct MI300A", "Tesla V100-SXM2-16GB"],
)
def test_other_devices_are_refused(name):
    with pytest.raises(ValueError, match="unknown platform"):
        gz.platform(name)


@pytest.mark.parametrize(
    "name",
    ["llama-3.1-80b", "llama27b", "llama-2", "phi-2-7b", "qwen3", "gpt-3-2b", "opt-33b", "mixtral-8x8b", "x" * 3000],
)
def test_other_sizes_are_refused_and_hints_are_of_the_family(name):
    with pytest.raises(ValueError, match="unknown model") as caught:
        gz.model(name)
    text = str(caught.value)
    assert len(text) <= 300
    if "did you mean " in text:
        hinted = text.split("did you mean ")[1].split("?")[0].split(", ")
        assert {names.family(hint) for hint in hinted} == {names.family(name)}
        assert len(hinted) <= 3


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("llama-3-400b", "llama-3.1-405b"),
        ("llama-3.1-7b", "llama-3.1-8b"),
        ("lama-3-8b", "llama-3-8b"),
        ("qwen3-33b", "qwen3-32b"),
        ("falcon-50b", "falcon-40b"),
        ("gemma-2-30b", "gemma-2-27b"),
        ("gpt-oss-200b", "gpt-oss-120b"),
        ("deepsek-v3", "deepseek-v3"),
    ],
)
def test_the_first_hint_is_nearest_in_generation_and_size(name, first):
    lists = {model: gz.catalog.about("model", model).aliases for model in gz.models()}
    hints = names.nearest(name, lists)
    assert hints[0] == first
    assert len({names.family(hint) for hint in hints}) == 1


@pytest.mark.parametrize(("name", "entry"), DRIVER_NAMES.items())
def test_names_that_drivers_print(name, entry):
    assert gz.platform(name).name == entry


@pytest.mark.parametrize(("name", "size"), SYSTEMS.items())
def test_systems_of_the_published_analyser(name, size):
    # Their capacities are the printed sizes, which are binary and lie above what a driver reports.
    assert 0.9 * size * 1e9 < float(gz.platform(name).mem_capacity) < size * 2**30


def test_names_and_aliases_are_completed():
    assert _models("llama2-7") == ["llama2-7b", "llama2-70b"]
    assert "meta-llama/Llama-3.1-8B" in _models("meta-llama/llama-3.1-")
    assert _platforms("H100-SXM,B20") == ["H100-SXM,B200"]
    assert _platforms("nvidia h2") == ["NVIDIA H200", "NVIDIA H20"]


def test_a_hub_that_cannot_be_reached_is_told_at_once(monkeypatch):
    asked = []

    def download(name: str, file: str, local_files_only: bool) -> str:
        asked.append(local_files_only)
        raise FileNotFoundError(name)

    hub = types.ModuleType("huggingface_hub")
    hub.__spec__ = importlib.machinery.ModuleSpec("huggingface_hub", None)
    monkeypatch.setattr(hub, "constants", types.SimpleNamespace(ENDPOINT="http://127.0.0.1:9"), raising=False)
    monkeypatch.setattr(hub, "hf_hub_download", download, raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with pytest.raises(ValueError, match=r"unknown model 'Qwen/Qwen3-9B'; did you mean .*; .*it cannot be reached"):
        gz.load("Qwen/Qwen3-9B")
    assert asked == [True]
