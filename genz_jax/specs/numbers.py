"""Numbers of specs by the names that people give them."""

from collections.abc import Mapping

from genz_jax.base.fields import Spec, near

SPECS = ("platform", "workload", "parallelism", "model", "precision", "speculation", "engine")
"""Specs of a case, in the order in which a name is looked for."""


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
    paths = [(what, path, part.short(path)) for what, part in parts.items() for path in part.paths()]
    for matches in (
        [(what, short) for what, path, short in paths if name.removeprefix(f"{what}.") in (path, short)],
        [(what, short) for what, path, short in paths if path.endswith(f".{name}")],
    ):
        if len(matches) > 1:
            choices = ", ".join(f"{what}.{path}" for what, path in matches)
            raise ValueError(f"{name!r} stands for several numbers: {choices}; write one of these")
        if matches:
            return matches[0]
    known = list(dict.fromkeys([*(short for _, _, short in paths), *others]))
    suggestion = near(name, known) or "; the numbers of a spec: genz-jax models or platforms, with --json"
    raise ValueError(f"no spec has a number {name!r}{suggestion}")
