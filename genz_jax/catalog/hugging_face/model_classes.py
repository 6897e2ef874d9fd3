"""Whether the class of model that a config names is one of its architecture, or code of its own."""

import warnings
from collections.abc import Iterable, Mapping, Sequence

from genz_jax.catalog.hugging_face.config import Config, refusal, shown
from genz_jax.catalog.hugging_face.config_classes import ConfigClass


def check_models(c: Config, names: Sequence[str], kind: str, known: Iterable[ConfigClass]) -> None:
    """Refuse code of its own under an architecture of transformers, and warn of a class that nobody knows.

    Args:
        c: the whole config.
        names: `architectures`.
        kind: the architecture that is read.
        known: the classes of the config and of its text part; empty where transformers has none.

    Raises:
        ValueError: `auto_map` points to a model that is no class of the architecture.
    """
    ours = {_plain(name) for part in known for name in part.models}
    foreign = [name for name in names if _plain(name) not in ours]
    if not ours or not foreign:
        return
    mapped = c.get("auto_map", default={})
    code = mapped.values() if isinstance(mapped, Mapping) else ()
    if any(str(path).rpartition(".")[2] in foreign for path in code):
        fix = f"read it as {kind!r} by naming one of its classes there, if its layers are the same"
        raise refusal(c.where, f"architectures = {shown(foreign[0])}: code of its own (auto_map), no {kind!r}; {fix}")
    rule = f"no class of {kind!r}, as which it is read"
    warnings.warn(str(refusal(c.where, f"architectures = {shown(foreign[0])}: {rule}")), stacklevel=4)


def _plain(name: str) -> str:
    """A name as its publisher and transformers both write it, but for case and underscores."""
    return name.replace("_", "").lower()
