"""Names of modules as configs list them: literal ones, globs and regular expressions."""

import fnmatch
import re
from collections.abc import Iterable

from genz_jax.catalog.quantization.modules import Module, from_layer_on
from genz_jax.catalog.quantization.scheme import fail

_WILD = re.compile(r"[*?\[]")
_REGULAR = re.compile(r"[\\^$(|+]")
_EXPERT = re.compile(r"(?<=experts\.)[0-9]+(?=\.)")


class Patterns:
    """Regular expressions and parts of names, to ask whether one is in a module's name."""

    def __init__(self, sources: Iterable[str], patterns: Iterable[re.Pattern[str]], parts: Iterable[str] = ()):
        """Take them together.

        Args:
            sources: what the expressions are made of; without a digit, all layers alike have one answer.
            patterns: expressions that match from the start of a name.
            parts: words of a name that follow each other, such as `mlp.gate`.
        """
        self.patterns, self.parts = list(patterns), set(parts)
        self.alike = not any(re.search("[0-9]", source) for source in (*sources, *self.parts))
        self.known: dict[str, bool] = {}

    def match(self, module: Module) -> bool:
        if not self.patterns and not self.parts:
            return False
        key = re.sub("[0-9]+", "", module.names[0], count=1) if self.alike else module.names[0]
        if key not in self.known:
            self.known[key] = any(self._has(name) for name in module.names) or any(
                pattern.match(name) for name in module.full_names() for pattern in self.patterns
            )
        return self.known[key]

    def _has(self, name: str) -> bool:
        words = name.split(".") if self.parts else []
        ends = range(1, len(words) + 1)
        return any(".".join(words[start:end]) in self.parts for end in ends for start in range(end))


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
        self.modules: set[str] = set()
        patterns: list[re.Pattern[str]] = []
        sources: list[str] = []
        starts: list[str] = []
        parts: list[str] = []
        for entry in dict.fromkeys(entries):
            if entry.startswith("re:") or _REGULAR.search(entry):
                whole = entry.startswith("re:")
                patterns.append(compiled(where, entry[3:] if whole else rf"(?:{entry})(?:\.|$)"))
                sources.append(entry)
            elif not _WILD.search(entry):
                name = from_layer_on(entry).removesuffix(".weight")
                (self.modules.add if name.startswith("layers.") else parts.append)(name)
            elif not _WILD.search(entry[:-1]) and entry.endswith("*") and "layers." in entry:
                starts.append(from_layer_on(entry[:-1]))
            else:
                patterns += [re.compile(fnmatch.translate(glob)) for glob in (entry, f"{entry}.*")]
                sources.append(entry)
        self.starts = tuple(starts)
        self.patterns = Patterns(sources, patterns, parts)

    def __contains__(self, module: Module) -> bool:
        return any(self._has(name) for name in module.names) or self.patterns.match(module)

    def _has(self, name: str) -> bool:
        """The name or a module around it is listed with its layer."""
        if self.starts and name.startswith(self.starts):
            return True
        if not self.modules:
            return False
        words = name.split(".")
        return any(".".join(words[:end]) in self.modules for end in range(2, len(words) + 1))

    def check_experts(self, experts: float) -> None:
        """Raise ValueError where some experts of a layer are listed and others are not."""
        listed: dict[str, set[str]] = {}
        for name in self.modules:
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
        ValueError: it is none, or one that may try a name in so many ways that it does not end.
    """
    try:
        made = re.compile(pattern)
    except re.error as error:
        raise fail(where, f"{pattern[:60]!r}: no regular expression ({error})") from None
    if _may_not_end(pattern):
        raise fail(where, f"{pattern[:60]!r}: repeats within repeats, or three in a row, may take for ever")
    return made


_TOKEN = re.compile(
    r"(?P<open>\((?:\?(?:[:=!>]|<[=!]|P<\w+>))?)|(?P<close>\))|(?P<no_part>[|^$])"
    r"|(?P<many>[*+]|\{[0-9]*,\})|(?P<maybe>\?|\{[01]?,1\}|\{1\})|(?P<some>\{[0-9]+(?:,[0-9]+)?\})"
    r"|(?P<part>\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.)",
    re.DOTALL,
)


def _may_not_end(pattern: str) -> bool:
    """Whether a group that repeats has repeats inside, or more than two parts in a row repeat without an end."""
    inside = [False]  # of each open group: whether something in it repeats
    closed = False  # the last part is a group in which something repeats
    in_a_row, repeats = 0, False  # parts in a row that repeat; whether the last part may be left out or repeats
    for token in _TOKEN.finditer(pattern):
        kind = token.lastgroup
        if kind == "open":
            inside.append(False)
        elif kind == "close":
            closed = len(inside) > 1 and inside.pop()
            inside[-1] = inside[-1] or closed
        elif kind in ("many", "some"):
            repeats, in_a_row = kind == "many", in_a_row + (kind == "many")
            if closed or in_a_row > 2:
                return True
            inside[-1] = inside[-1] or repeats
        elif kind == "maybe":
            repeats = True
        elif kind == "part":
            in_a_row, repeats, closed = in_a_row if repeats else 0, False, False
    return False
