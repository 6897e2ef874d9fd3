"""Names: the spellings of one model or platform, brought to one form."""

import dataclasses
import difflib
import itertools
import re
from collections.abc import Iterable, Mapping

LONGEST = 200
"""Letters of the longest name that is looked up."""

MOST_FORMS = 64
"""Forms of a name that are tried."""

_VENDORS = r"^(?:nvidia|amd|instinct|geforce|tesla|google|cloud|intel|aws|habana)[\s_-]+"
_TUNINGS = ("hf", "instruct", "chat", "base", "it", "pt", "gpu")
"""Ends of names that change no size: how a model was tuned, or what kind of file or device it is."""

_DIGITS = re.compile(r"(?<=\d)[\s_/.-]+(?=\d)")


def forms(name: str) -> list[list[str]]:
    """The forms of a name, those nearest to its spelling first.

    Case, vendor or organisation, and separators do not count, but where a separator stands between two digits: it is
    a dot ("1_8B" is 1.8b) or a bound ("2-7b" is not 27b). An underscore may be either, a hyphen is first a bound.

    Args:
        name: any spelling, such as "meta-llama/Llama-2-7b-chat-hf", "llama2_7b" or "NVIDIA H100 80GB HBM3".

    Returns:
        Groups of forms; those of a group are equally near.
    """
    text = re.sub(r"\s+", " ", name.strip().lower()).rsplit("/", 1)[-1]
    while text != (text := re.sub(_VENDORS, "", text)):
        pass
    text = re.sub(r"^meta[\s_-]*(?=llama)", "", text)
    text = re.sub(r"(?<=\d)[\s_-]*(?:billion|bn)(?![a-z])", "b", text)
    kept, found = re.split(_DIGITS, text), _DIGITS.findall(text)
    near = {".": ".", "_": "|."}
    far = ["." if place == "." else "|." for place in found]
    return [_joined(kept, [near.get(place, "|") for place in found]), _joined(kept, far)]


def _joined(kept: list[str], marks: list[str]) -> list[str]:
    """A text whose parts are joined by every choice of the marks, without other separators."""
    found = []
    for choice in itertools.islice(itertools.product(*marks), MOST_FORMS):
        joined = "".join(part + mark for part, mark in itertools.zip_longest(kept, choice, fillvalue=""))
        found.append(re.sub(r"[\s_/-]|\.(?!\d)|(?<!\d)\.", "", joined))
    return list(dict.fromkeys(found))


def plain(name: str) -> str:
    """A spelling without the ends that change no size, such as -hf, -instruct and -chat."""
    text = name.strip()
    ends = re.compile(rf"[\s_-](?:{'|'.join(_TUNINGS)})$", re.IGNORECASE)
    while text != (text := ends.sub("", text)):
        pass
    return text


@dataclasses.dataclass(frozen=True)
class Index:
    """Entries by the forms of their spellings, and by those without the ends that change no size."""

    exact: Mapping[str, set[str]]
    untuned: Mapping[str, set[str]]

    @classmethod
    def of(cls, spellings: Mapping[str, Iterable[str]]) -> "Index":
        """The index of entries and their other names."""
        exact: dict[str, set[str]] = {}
        untuned: dict[str, set[str]] = {}
        for entry, names in spellings.items():
            for name in (entry, *names):
                for form in forms(name)[0]:
                    exact.setdefault(form, set()).add(entry)
                for form in forms(plain(name))[0]:
                    untuned.setdefault(form, set()).add(entry)
        return cls(exact, untuned)

    def look_up(self, name: str) -> set[str]:
        """Entries that a name may stand for: those of its nearest form that stands for any; none if none does."""
        for spelling in dict.fromkeys((name, plain(name))):
            for group in forms(spelling):
                for known in (self.exact, self.untuned):
                    if matches := [known[form] for form in group if form in known]:
                        return set().union(*matches)
        return set()


def family(name: str) -> str:
    """The letters that a name begins with, such as "llama" of "meta-llama/Llama-3.1-8B"."""
    first = forms(name)[0][0]
    letters = re.match(r"[a-z]+", first)
    return letters.group() if letters else first


def nearest(name: str, spellings: Mapping[str, Iterable[str]], most: int = 4) -> list[str]:
    """Entries with a spelling near to a name, of the same family, the nearest first."""
    if not name.strip() or len(name) > LONGEST:
        return []
    wanted, kin = forms(plain(name))[0][0], family(plain(name))
    scored: dict[str, float] = {}
    for entry, others in spellings.items():
        for spelling in (entry, *others):
            likeness = difflib.SequenceMatcher(None, kin, family(spelling)).ratio()
            if likeness >= 0.75:
                score = difflib.SequenceMatcher(None, wanted, forms(spelling)[0][0]).ratio() + 2 * (likeness == 1)
                scored[entry] = max(scored.get(entry, 0.0), score)
    least = 2.0 if scored and max(scored.values()) >= 2 else 0.6
    close = [entry for entry, score in scored.items() if score >= least]
    return sorted(close, key=lambda entry: -scored[entry])[:most]
