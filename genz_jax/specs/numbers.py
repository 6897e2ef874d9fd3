"""Numbers of specs by the names that people give them."""

from collections.abc import Mapping

from genz_jax.base.fields import Spec, near
from genz_jax.specs import LINK_ALIASES

SPECS = ("platform", "workload", "parallelism", "model", "precision", "speculation", "engine")
"""Specs of a case, in the order in which a name is looked for."""

_SHORT = {path: alias for alias, path in LINK_ALIASES.items()}


def find_number(parts: Mapping[str, Spec], name: str, others: tuple[str, ...] = ()) -> tuple[str, str]:
    """Spec and path of a number.

    Args:
        parts: specs by what they are: platform, workload and so on.
        name: its path, an alias such as `link_bw`, or the last part of its path where that is unique; before it may
            stand the name of the spec, as in `model.layers`.
        others: names that are known besides, for the suggestion.

    Raises:
        ValueError: no spec has it, or several.
    """
    paths = [(what, _SHORT.get(path, path)) for what, part in parts.items() for path in part.paths()]
    canonical = _SHORT.get(name, name)
    for matches in (
        [(what, path) for what, path in paths if canonical in (path, f"{what}.{path}")],
        [(what, path) for what, path in paths if f"{what}.{LINK_ALIASES.get(path, path)}" == name],
        [(what, path) for what, path in paths if LINK_ALIASES.get(path, path).endswith(f".{name}")],
    ):
        if len(matches) > 1:
            choices = ", ".join(f"{what}.{path}" for what, path in matches)
            raise ValueError(f"{name!r} stands for several numbers: {choices}; write one of these")
        if matches:
            return matches[0]
    known = list(dict.fromkeys([*(path for _, path in paths), *others]))
    suggestion = near(name, known) or "; the numbers of a spec: genz-jax models or platforms, with --json"
    raise ValueError(f"no spec has a number {name!r}{suggestion}")
