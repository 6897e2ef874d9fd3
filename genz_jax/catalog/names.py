"""Names: the spellings of one model or platform, brought to one form."""

import dataclasses
import difflib
import itertools
import math
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


_SIZE = re.compile(r"(?<![a-z\d.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?![a-z\d])")
_OTHER_GENERATION, _OTHER_SIZE = 0.5, 1.0
"""Distances of names beside the logarithm of the ratio of their sizes."""


def _parts(name: str) -> tuple[str, float | None]:
    """What stands before the size in a name, and that size: `llama-3.1` and 8e9 of "meta-llama/Llama-3.1-8B"."""
    text = re.sub(r"[\s_]+", "-", plain(name).lower()).rsplit("/", 1)[-1]
    found = _SIZE.search(text)
    if found is None:
        return text, None
    times, number, unit = found.groups()
    size = float(number) * float(times or 1) * {"b": 1e9, "m": 1e6}[unit]
    return text[: found.start()].strip("-"), size or None


def _distance(wanted: str, spelling: str) -> float:
    """How far a spelling is from a name of its family: by generation, by size, and last by letters."""
    (stem, size), (other_stem, other_size) = _parts(wanted), _parts(spelling)
    generation, other = (re.search(r"\d+", text) for text in (stem, other_stem))
    same = (generation and generation.group()) == (other and other.group())
    far = 0.0 if stem == other_stem else _OTHER_GENERATION * (1 if same else 2)
    if size is not None and other_size is not None:
        far += abs(math.log(size / other_size))
    elif size != other_size:
        far += _OTHER_SIZE
    ours, theirs = (forms(plain(text))[0][0] for text in (wanted, spelling))
    unlike = 1.0 - difflib.SequenceMatcher(None, ours, theirs).ratio()
    # Without sizes to compare the letters are all there is.
    return far + unlike * (0.1 if size is not None else 2.0)


def nearest(name: str, spellings: Mapping[str, Iterable[str]], most: int = 3) -> list[str]:
    """Entries of the family of a name, those nearest in generation and size first.

    Only where no family has that name may it be a misspelling of another one.
    """
    if not name.strip() or len(name) > LONGEST:
        return []
    kin = family(plain(name))
    alike: dict[str, float] = {}
    far: dict[str, float] = {}
    for entry, others in spellings.items():
        for spelling in (entry, *others):
            likeness = difflib.SequenceMatcher(None, kin, family(spelling)).ratio()
            if likeness >= 0.75:
                alike[entry] = max(alike.get(entry, 0.0), likeness)
                far[entry] = min(far.get(entry, math.inf), _distance(name, spelling))
    if not alike:
        return []
    least = max(alike.values())
    close = [entry for entry, likeness in alike.items() if likeness == least]
    return sorted(close, key=lambda entry: far[entry])[:most]
