"""PyTorch's count of the FLOPs of a forward pass of a model of transformers, by what they are for."""

import dataclasses
import importlib
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
flop_counter = pytest.importorskip("torch.utils.flop_counter")

ATTENTION = ("self_attn", "attn", "attention", "self_attention")
"""Last words of the names of modules with attention."""

ENCODERS = ("bert", "roberta", "xlm-roberta", "modernbert")
"""Architectures that are counted without a head, which transformers has decoders of too."""


@dataclasses.dataclass(frozen=True)
class Counted:
    """FLOPs of a pass: products with weights, attention, convolutions, other batched products; and by module."""

    gemm: int
    attention: int
    convolution: int
    other: int
    batched: dict[str, int] = dataclasses.field(default_factory=dict, compare=False)

    def inside(self, *endings: str) -> int:
        """Batched products inside the modules whose names end so."""
        return sum(flops for at, flops in self.batched.items() if at.endswith(endings))


def build(config: Any, device: str) -> Any:
    """A model with a head where transformers has one for the architecture, else without."""
    config._experts_implementation = config._attn_implementation = "eager"
    classes = transformers.models.auto.modeling_auto
    with torch.device(device):
        if type(config) in classes.MODEL_FOR_CAUSAL_LM_MAPPING and config.model_type not in ENCODERS:
            model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        elif type(config) in classes.MODEL_MAPPING:
            model = transformers.AutoModel.from_config(config, attn_implementation="eager")
        else:  # text parts that are reached through their vision-language model only
            module = type(config).__module__.replace("configuration", "modeling")
            name = type(config).__name__.replace("TextConfig", "TextModel")
            model = getattr(importlib.import_module(module), name)(config)
    return model.eval()


def count_pass(name: str, values: dict[str, Any], device: str, batch: int, past: int, new: int) -> Counted:
    """Count a pass over `new` tokens of each sequence after `past` cached ones."""
    model = build(transformers.AutoConfig.for_model(name, **values), device)
    with torch.device(device), torch.no_grad():
        given: dict[str, Any] = {}
        if past:
            out = model(torch.zeros((batch, past), dtype=torch.long), use_cache=True)
            cache = next(name for name in ("cache", "cache_params", "past_key_values") if name in out)
            given = {cache: out[cache]}
        with flop_counter.FlopCounterMode(display=False) as counter:
            model(torch.zeros((batch, new), dtype=torch.long), use_cache=True, **given)
    counts = counter.get_flop_counts()

    def of(where: str, *kinds: str) -> int:
        return sum(flops for kind, flops in counts[where].items() if str(kind).removeprefix("aten.") in kinds)

    batched = {at: of(at, "bmm", "baddbmm") for at in counts if at != "Global"}
    attention = sum(flops for at, flops in batched.items() if at.rpartition(".")[2] in ATTENTION)
    found = Counted(
        of("Global", "mm", "addmm"),
        attention,
        of("Global", "convolution"),
        of("Global", "bmm", "baddbmm") - attention,
        batched,
    )
    total = found.gemm + found.attention + found.convolution + found.other
    assert total == counter.get_total_flops(), "an operator that no kind covers"
    return found
