import json
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

import genz_jax as gz
from genz_jax import catalog
from genz_jax.base import units
from genz_jax.machine.roofline import compute_rate
from genz_jax.work.layers.registry import layers_of

PUBLISHED = json.loads((Path(__file__).parent / "data" / "genz" / "models.json").read_text(encoding="utf-8"))
KINDS: dict[str, tuple[Callable, Callable]] = {
    "model": (gz.models, gz.model),
    "platform": (gz.platforms, gz.platform),
    "workload": (gz.workloads, gz.workload),
}
ENTRIES = [(kind, name) for kind, (listing, _) in KINDS.items() for name in listing()]

# Platforms of the published analyser, as it spells them.
PUBLISHED_PLATFORMS = ["A100_40GB", "A100_80GB", "H100", "GH200", "B100", "GB200", "TPUv6", "TPUv5e", "TPUv5p"]
PUBLISHED_PLATFORMS += ["TPUv4", "MI300X", "MI325X", "Gaudi3"]

REQUIRED_MODELS = """
llama-3-8b llama-3-70b llama-3.1-8b llama-3.1-70b llama-3.1-405b llama-3.2-1b llama-3.2-3b llama-3.3-70b llama-4-scout
llama-4-maverick qwen2.5-7b qwen2.5-72b qwen3-8b qwen3-32b qwen3-30b-a3b qwen3-235b-a22b deepseek-v2 deepseek-v3
deepseek-r1 mixtral-8x7b mixtral-8x22b gpt-oss-20b gpt-oss-120b gemma-2-9b gemma-2-27b gemma-3-27b phi-3-mini phi-4
falcon-mamba-7b mamba-2.8b mamba2-2.7b mamba-2-2.7b jamba-1.5-mini jamba-1.5-large nemotron-h-8b nemotron-h-47b opt-175b
gpt2 gpt-2 gpt3-175b gpt-3 superllm-10t-moe superllm-5t-dense
""".split()
REQUIRED_PLATFORMS = """
A100 A100-40GB A100-80GB H100 H100-SXM H100-PCIe H200 B200 B300 GB200 GB300 L40S RTX-PRO-6000 MI300X MI325X MI355X
TPU-v4 TPU-v5e TPU-v5p TPU-v6e TPU-v7 Gaudi-3 Trainium-2 Groq CS-3 SN40L
""".split()

# Dense bf16 (fp16 on Groq) rates, TFLOP/s, as the vendors print them in their data sheets and white papers.
DENSE = {
    "V100": 125,
    "A100": 312,
    "L4": 121,
    "L40S": 362,
    "H100-SXM": 989,
    "H100-PCIe": 756,
    "H200": 989,
    "B200": 2250,
    "GB200": 2500,
    "MI250X": 383,
    "MI300X": 1307,
    "MI325X": 1307,
    "MI355X": 2517,
    "TPU-v4": 275,
    "TPU-v5e": 197,
    "TPU-v5p": 459,
    "TPU-v6e": 918,
    "TPU-v7": 2307,
    "Gaudi2": 432,
    "Gaudi3": 1678,
    "Trainium2": 667,
    "SN40L": 638,
    "Groq": 188,
}
# Memory that the driver reports to a process, in GiB (PyTorch's "total capacity of … GiB", XLA's "of …G hbm"), and the
# bandwidth that vendors print, in TB/s.
MEMORY = {
    "A100-40GB": (39.49, 1.555),
    "A100-80GB": (79.15, 2.039),
    "H100-SXM": (79.18, 3.35),
    "H100-PCIe": (79.18, 2.0),
    "H200": (139.80, 4.8),
    "B200": (178.35, 7.7),
    "B300": (267.69, 7.7),
    "GB200": (184.31, 8.0),
    "GB300": (276.50, 8.0),
    "GH200-96GB": (94.50, 4.0),
    "L40S": (44.39, 0.864),
    "RTX-4090": (25_250_627_584 / 2**30, 1.008),
    "RTX-5090": (31.37, 1.792),
    "MI300X": (191.98, 5.3),
    "MI325X": (255.98, 6.0),
    "MI355X": (287.98, 8.0),
    "TPU-v5e": (15.75, 0.819),
    "TPU-v5p": (95.74, 2.765),
    "TPU-v6e": (31.25, 1.64),
}


@pytest.fixture
def fresh_files():
    """The catalogue read anew in this test, and again after it."""
    read = (catalog._entries, catalog._index, catalog._model, catalog._platform)
    for function in read:
        function.cache_clear()
    yield
    for function in read:
        function.cache_clear()


@pytest.mark.parametrize("spec", [gz.model("llama-3.1-8b"), gz.platform("H100-SXM")], ids=["model", "platform"])
def test_an_entry_cannot_be_changed_for_others(spec):
    for leaf in jax.tree.leaves(spec):
        with pytest.raises(ValueError, match="read-only"):
            leaf[...] = 2.0


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_entry_loads_and_has_a_source(kind, name):
    spec = KINDS[kind][1](name)
    assert spec.name == name
    source = gz.catalog.about(kind, name).source
    for text in [source] if isinstance(source, str) else source:
        assert len(text) > 8
    assert source


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_aliases_are_unique_whatever_their_case(kind):
    listing, _ = KINDS[kind]
    spellings = [spelling.lower() for name in listing() for spelling in {name, *gz.catalog.about(kind, name).aliases}]
    assert len(spellings) == len(set(spellings))


@pytest.mark.first(1)
@pytest.mark.parametrize("kind", KINDS)
def test_every_alias_finds_its_entry_in_any_case(kind):
    listing, find = KINDS[kind]
    for name in listing():
        for alias in gz.catalog.about(kind, name).aliases:
            assert find(alias).name == find(alias.upper()).name == find(f" {alias.lower()} ").name == name


@pytest.mark.parametrize("name", PUBLISHED)
def test_models_of_the_published_analyser_are_there(name):
    assert gz.model(name).name in gz.models()


@pytest.mark.parametrize("name", PUBLISHED_PLATFORMS)
def test_platforms_of_the_published_analyser_are_there(name):
    assert gz.platform(name).name in gz.platforms()


@pytest.mark.parametrize("name", REQUIRED_MODELS)
def test_well_known_models_are_there(name):
    assert float(gz.model(name).layers) >= 1


@pytest.mark.parametrize("name", REQUIRED_PLATFORMS)
def test_well_known_platforms_are_there(name):
    assert float(gz.platform(name).flops) > 0


@pytest.mark.parametrize("name", gz.models())
def test_layers_add_up(name):
    model = gz.model(name)
    blocks = float(model.layers)
    layers = {part: float(getattr(model, part).layers) for part in catalog._PARTS if getattr(model, part) is not None}
    mixers = sum(float(part.layers) for _, part, layer in layers_of(model) if layer.role == "mixer")
    feeds = sum(n for part, n in layers.items() if part in ("ffn", "moe"))
    assert all(n >= 1 for n in layers.values())
    assert mixers >= 1
    if name.startswith(("nemotron-h", "nemotron-nano", "nemotron-3")):
        # Each block of these hybrids is one mixer or one feed-forward layer.
        assert mixers + feeds == blocks
    elif name == "gemma-4-26b-a4b":
        # Dense layers and experts side by side in every block.
        assert (mixers, feeds) == (blocks, 2 * blocks)
    elif name == "llama-3.3-nemotron-super-49b":
        # 31 of its 80 blocks have no attention.
        assert (mixers, feeds) == (49, blocks)
    elif name == "zamba2-7b":
        # A shared transformer block before 13 of the Mamba-2 layers.
        assert (mixers, feeds) == (blocks + 13, 13)
    else:
        assert mixers == blocks
        assert feeds in (0, blocks)


@pytest.mark.parametrize("name", gz.models())
def test_dimensions_are_possible(name):
    model = gz.model(name)
    for part in (model.attention, model.local_attention):
        if part is not None:
            assert float(part.heads) % float(part.kv_heads) == 0
    if model.moe is not None:
        assert float(model.moe.top_k) <= float(model.moe.experts)
    notes = gz.catalog.about("model", name).notes
    if "active_parameters" in notes and "parameters" in notes:
        assert notes["active_parameters"] <= notes["parameters"]


@pytest.mark.parametrize(("name", "rate"), DENSE.items())
def test_peak_rates_are_dense(name, rate):
    assert float(gz.platform(name).flops) == pytest.approx(rate * 1e12, rel=1e-3)


@pytest.mark.parametrize(("name", "printed"), MEMORY.items())
def test_memory_is_what_a_process_sees(name, printed):
    platform = gz.platform(name)
    capacity, bandwidth = printed
    assert float(platform.mem_capacity) == pytest.approx(capacity * 2**30, rel=1e-9)
    assert float(platform.mem_bw) == pytest.approx(bandwidth * 1e12, rel=0.01)


@pytest.mark.parametrize("name", gz.platforms())
def test_platforms_are_plausible(name):
    platform = gz.platform(name)
    sizes = [float(level.size) for level in platform.network]
    assert sizes == sorted(sizes)
    assert all(1e9 < float(level.bandwidth) < 100e12 for level in platform.network)
    assert all(1e-8 < float(level.latency) < 1e-4 for level in platform.network)
    assert 50 < float(platform.power) < 30e3
    assert float(platform.rates.bf16) == 1.0
    order = ("bf16", "fp8", "fp6", "fp4")
    rates = [float(compute_rate(platform, gz.Precision(name))) for name in order]
    assert rates == sorted(rates)


def test_what_the_catalogue_says():
    entry = gz.catalog.about("platform", "h100")
    assert entry.name == "H100-SXM"
    assert "H100" in entry.aliases
    assert entry.notes["vendor"] == "NVIDIA"
    assert gz.catalog.about("model", "llama-3.1-8b").notes["parameters"] == pytest.approx(8.03e9, rel=1e-3)
    chat = gz.catalog.about("workload", "chat").notes
    assert (units.parse(chat["ttft"], units.SECOND), units.parse(chat["tpot"], units.SECOND)) == (0.2, 0.01)


@pytest.mark.parametrize(
    ("find", "name", "words"),
    [
        (gz.model, "lama-3.1-8b", "unknown model 'lama-3.1-8b'.*did you mean.*llama-3.1-8b"),
        (gz.model, "meta-llama/Llama-3.1-8", "did you mean.*Llama-3.1-8B"),
        (gz.model, "", "unknown model ''"),
        (gz.platform, "H1O0", "unknown platform 'H1O0'.*did you mean.*H100"),
        (gz.platform, "mi300", "did you mean.*MI300X"),
        (gz.platform, "abacus", r"gz\.platforms\(\)"),
        (gz.workload, "chatt", "unknown workload 'chatt'.*chat"),
    ],
)
def test_unknown_names_give_the_nearest(find, name, words):
    with pytest.raises(ValueError, match=rf"(?i){words}") as caught:
        find(name)
    assert "\n" not in str(caught.value)


def test_suggestions_are_spelt_as_in_the_catalogue():
    with pytest.raises(ValueError, match="did you mean") as caught:
        gz.platform("H1O0")
    assert "H100" in str(caught.value)


def test_about_an_unknown_kind_of_entry():
    with pytest.raises(ValueError, match=r"models.*model.*platform.*workload"):
        gz.catalog.about("models", "gpt2")


class Folder:
    """Stands for the package's folder, with one file changed."""

    def __init__(self, **texts: str):
        self.texts = texts
        self.folder = Path(catalog.__file__).parent

    def joinpath(self, name: str) -> "Folder":
        self.name = name
        return self

    def read_text(self, encoding: str) -> str:
        stem = Path(self.name).stem
        return self.texts.get(stem, (self.folder / self.name).read_text(encoding=encoding))


ENTRY = """["tiny"]
source = "a test"
hidden_size = 64
layers = 2
vocab_size = 100
attention = {layers = 2, heads = 4, kv_heads = 2, head_dim = 16}
ffn = {layers = 2, intermediate_size = 128}
"""


def load(monkeypatch, text: str, name: str = "tiny") -> gz.Model:
    monkeypatch.setattr(catalog.resources, "files", lambda package: Folder(models=text))
    return gz.model(name)


@pytest.mark.usefixtures("fresh_files")
class TestFiles:
    def test_a_small_file_loads(self, monkeypatch):
        attention = load(monkeypatch, ENTRY).attention
        assert attention is not None
        assert float(attention.head_dim) == 16

    def test_unknown_keys_are_refused(self, monkeypatch):
        with pytest.raises(ValueError, match=r"models\.toml.*'tiny'.*hidden_sise"):
            load(monkeypatch, ENTRY + "hidden_sise = 64\n")

    def test_unknown_keys_of_a_part_are_refused(self, monkeypatch):
        with pytest.raises(ValueError, match=r"tiny.*hedas"):
            load(monkeypatch, ENTRY.replace("heads = 4", "heads = 4, hedas = 4"))

    def test_missing_keys_are_named(self, monkeypatch):
        with pytest.raises(ValueError, match=r"tiny.*vocab_size"):
            load(monkeypatch, ENTRY.replace("vocab_size = 100\n", ""))

    def test_values_that_cannot_be_are_refused(self, monkeypatch):
        with pytest.raises(ValueError, match=r"Attention\.heads = -4"):
            load(monkeypatch, ENTRY.replace("heads = 4,", "heads = -4,"))

    def test_a_source_is_needed(self, monkeypatch):
        with pytest.raises(ValueError, match="'tiny' has no source"):
            load(monkeypatch, ENTRY.replace('source = "a test"', 'source = ""'))

    def test_a_name_stands_for_one_entry(self, monkeypatch):
        second = ENTRY.replace('["tiny"]', '["small"]\naliases = ["TINY"]')
        with pytest.raises(ValueError, match=r"TINY.*'tiny' and 'small'"):
            load(monkeypatch, ENTRY + second)
