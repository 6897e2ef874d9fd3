"""Precisions by the text that says them."""

import functools

from genz_jax.base.fields import shared
from genz_jax.specs import Precision


@functools.lru_cache(maxsize=1024)
def precision(text: str) -> Precision:
    """A precision from text, as `Precision` reads it.

    Raises:
        ValueError: an unknown format or tensor, or more than three formats.
    """
    return shared(Precision(text))
