"""Label: the name that a spec carries for people."""

from typing import Any

import equinox as eqx


class Label:
    """A name that a spec carries for people. All labels are equal, so a new name never recompiles anything.

    That of a model also has the number formats of its checkpoint, as the text of a precision, or why they cannot be
    read, and the longest context in tokens that it was made for; None where nothing is said.
    """

    def __init__(self, text: str = "", formats: "str | ValueError | None" = None, max_context: float | None = None):
        self.text = text
        self.formats = formats
        self.max_context = max_context

    def with_formats(self, formats: "str | ValueError | None") -> "Label":
        """The same name, with formats of a checkpoint."""
        return Label(self.text, formats, self.max_context)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Label)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return repr(self.text)


def _as_label(value: Label | str) -> Label:
    return value if isinstance(value, Label) else Label(value)


def label() -> Any:
    """Declare the label of a spec, which may be given as a text."""
    return eqx.field(
        static=True, default=Label(), converter=_as_label, metadata={"long_name": "name for people, a text"}
    )
