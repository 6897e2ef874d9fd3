"""Speculation: draft tokens that the full model verifies."""

from genz_jax.base import units
from genz_jax.base.fields import SHARE, WHOLE, Number, Spec, number
from genz_jax.specs.model import Model


class Speculation(Spec):
    """Speculative decoding: a draft model proposes tokens that the full model verifies in one pass.

    Without a draft model, the model's own module for multi-token prediction proposes them.
    """

    draft: Model | None = None
    tokens: Number = number(units.TOKEN, "draft tokens per step", 4, rule=WHOLE)
    acceptance: Number = number(units.ONE, "probability that a draft token is accepted", 0.8, rule=SHARE)
