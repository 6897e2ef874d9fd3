"""Names and sizes of linear layers that formats are read by, against the modules that transformers builds."""

import json
import re
from collections import Counter

import pytest

import genz_jax as gz
from genz_jax.catalog.quantization.modules import from_layer_on, modules_of

counting = pytest.importorskip("counting")
CASES = pytest.importorskip("test_exact_parameters").CASES

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ROUTERS = r"\.(gate|router|router\.proj|router\.layer|shared_expert_gate)$"
SMALL = (
    r"_bias$|A_log$|\.D$|in_proj_(a|b|ba)$|weights_proj$|position_bias$|compressor\.|forget_gate\.|\.(b|g_a|g_b)_proj$"
)
OTHERS = r"_hc\b|hc_head|altup|laurel|per_layer|adapter_list|(x|dt)_proj_weight$|layers\.\d+\.linear$|latent_proj$"
POSITIONS = r"^(embed_positions|wpe)$"
LEFT_OUT = re.compile("|".join((ROUTERS, SMALL, OTHERS, POSITIONS)))
"""Matrices that no kind of layer has: routers, small gates, projections between streams of the residual."""

SHARING = ("zamba", "zamba2", "gemma3n_text", "gemma4_text")
"""Architectures whose layers share weights, which count here in each of them."""


@pytest.mark.parametrize(("kind", "values"), CASES, ids=[f"{kind}-{i}" for i, (kind, _) in enumerate(CASES)])
def test_every_matrix_is_of_a_kind(kind, values, tmp_path):
    config = counting.transformers.AutoConfig.for_model(kind, **values)
    keys = {**config.to_dict(), "model_type": kind}
    (tmp_path / "config.json").write_text(json.dumps(keys, default=str))
    model = gz.Model.from_hugging_face(tmp_path / "config.json")
    modules = modules_of(model, json.loads((tmp_path / "config.json").read_text()))
    kinds = {name: module.kind for module in modules for name in module.names}
    theirs: Counter[str] = Counter()
    for name, parameter in counting.build(config, "meta").named_parameters():
        if parameter.ndim < 2 or re.search(r"norm\w*\.weight$|conv", name):
            continue
        short = from_layer_on(name).removesuffix(".weight")
        if not LEFT_OUT.search(short):
            assert short in kinds, f"{name}: no kind of layer has it"
            theirs[kinds[short]] += parameter.numel()
    ours: Counter[str] = Counter()
    for module in modules:
        ours[module.kind] += round(module.elements)
    if kind not in SHARING:
        assert {name: count for name, count in ours.items() if count} == dict(theirs)
