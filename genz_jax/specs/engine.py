"""Engine: how a serving engine runs a model."""

import equinox as eqx

from genz_jax.base import units
from genz_jax.base.fields import WHOLE, Number, Spec, number
from genz_jax.base.label import Label, label


class Engine(Spec):
    """What bounds a forward pass of a serving engine.

    A prefill of more tokens than `tokens_per_step` runs in several passes (chunked prefill, arXiv 2308.16369): long
    prompts are cut, short ones share a pass. vLLM, SGLang and TensorRT-LLM take 2,048 to 16,384 tokens by default.
    """

    tokens_per_step: Number = number(
        units.TOKEN, "tokens of one forward pass at most (max_num_batched_tokens)", 8192, rule=WHOLE
    )
    max_sequences: Number = number(
        units.ONE,
        "sequences whose logits are set aside (max_num_seqs); by default those of the batch, at most 256",
        None,
        rule=WHOLE,
        keyword=True,
    )
    single_pass: bool = eqx.field(static=True, default=False, kw_only=True)
    label: Label = label()

    @property
    def name(self) -> str:
        """Name of the engine, for people."""
        return self.label.text
