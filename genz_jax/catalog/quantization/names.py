"""Names of modules as configs list them: literal ones, globs and regular expressions."""

import fnmatch
import re
from collections.abc import Iterable

from genz_jax.catalog.quantization.modules import Module, from_layer_on
from genz_jax.catalog.quantization.scheme import fail

_WILD = re.compile(r"[*?\[]")
_REGULAR = re.compile(r"[\\^$(|+]")
_EXPERT = re.compile(r"(?<=experts\.)[0-9]+(?=\.)")


class Names:
    """A list of names, to ask whether it has a module.

    A literal name has the modules of that name and all inside it; it may leave out what comes before the layers, or be
    a part of names such as `self_attn`. `re:` starts a regular expression that matches from the start, as in
    compressed-tensors; one with signs of a regular expression matches the name or a module around it, as in
    transformers; others with *, ? or [ are globs of the name or of a module around it.
    """

    def __init__(self, where: str, entries: Iterable[str]):
        """Take the list apart.

        Args:
            where: the file, for messages.
            entries: the names.

        Raises:
            ValueError: no regular expression after `re:`.
        """
        self.where = where
        self.literals: set[str] = set()
        self.patterns: list[re.Pattern[str]] = []
        starts: list[str] = []
        globs: list[str] = []
        for entry in dict.fromkeys(entries):
            if entry.startswith("re:"):
                self.patterns.append(compiled(where, entry[3:]))
            elif _REGULAR.search(entry):
                self.patterns.append(compiled(where, rf"(?:{entry})(?:\.|$)"))
            elif not _WILD.search(entry):
                self.literals.add(from_layer_on(entry).removesuffix(".weight"))
            elif not _WILD.search(entry[:-1]) and entry.endswith("*") and "layers." in entry:
                starts.append(from_layer_on(entry[:-1]))
            else:
                globs.append(fnmatch.translate(entry))
                globs.append(fnmatch.translate(f"{entry}.*"))
        self.starts = tuple(starts)
        if globs:
            self.patterns.append(re.compile("|".join(globs)))

    def __contains__(self, module: Module) -> bool:
        return any(self._has(name) for name in module.names) or (
            bool(self.patterns) and any(p.match(name) for p in self.patterns for name in module.full_names())
        )

    def _has(self, name: str) -> bool:
        if self.starts and name.startswith(self.starts):
            return True
        if not self.literals:
            return False
        parts = name.split(".")
        ends = range(1, len(parts) + 1)
        return any(".".join(parts[start:end]) in self.literals for end in ends for start in range(end))

    def check_experts(self, experts: float) -> None:
        """Raise ValueError where some experts of a layer are listed and others are not."""
        listed: dict[str, set[str]] = {}
        for name in self.literals:
            if found := _EXPERT.search(name):
                listed.setdefault(_EXPERT.sub("*", name), set()).add(found[0])
        for name, numbers in listed.items():
            if len(numbers) < experts:
                raise fail(
                    self.where, f"{name[:60]}: {len(numbers)} of {experts:g} experts of a layer differ from others"
                )


def compiled(where: str, pattern: str) -> re.Pattern[str]:
    """A regular expression.

    Raises:
        ValueError: it is none.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise fail(where, f"{pattern[:60]!r}: no regular expression ({error})") from None
