"""Readers: from the keys of a Hugging Face config to the parts of a model, one per architecture, none that guesses.

In: checked keys. Out: a model, or a refusal that names the key. It never knows of number formats.
"""

from collections.abc import Callable

from genz_jax.catalog.hugging_face.config import Config
from genz_jax.catalog.readers import deepseek, dense, encoder, gemma, linear, moe, shared_experts, ssm
from genz_jax.specs import Model

READERS: dict[str, Callable[[Config], Model]] = {
    kind: reader
    for family in (dense, encoder, gemma, moe, shared_experts, deepseek, linear, ssm)
    for kind, reader in family.READERS.items()
}
"""Reader of each architecture, by the config's `model_type`."""
