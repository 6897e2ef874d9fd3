"""What a run did: rows, and what it could not time, in a line for each cause."""

import collections
import dataclasses


@dataclasses.dataclass
class Report:
    """What a run did.

    Attributes:
        device: the GPU, and what ran on it.
        rows: rows in the table.
        added: rows that this run added.
        skipped: cases that cannot be timed here, by section, name and cause.
        left: cases for which there was no time, by section.
    """

    device: str
    rows: int = 0
    added: int = 0
    skipped: collections.Counter[tuple[str, str, str]] = dataclasses.field(default_factory=collections.Counter)
    left: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def lines(self) -> list[str]:
        """What was not timed and why, a line for each cause."""
        said = [
            f"skipped: {section} {name}, {_cases(n)}: {cause}" for (section, name, cause), n in self.skipped.items()
        ]
        if self.left:
            sections = ", ".join(f"{section} {n:,}" for section, n in self.left.items())
            said.append(f"no time left: {_cases(sum(self.left.values()))} ({sections}); --resume times more of them")
        return said


def _cases(n: int) -> str:
    return f"{n:,} case{'' if n == 1 else 's'}"
