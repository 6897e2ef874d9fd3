"""Choice: one of several forms, for lists of platforms whose kernels are of different forms."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from genz_jax.base import units
from genz_jax.base.fields import COUNT, Number, number
from genz_jax.kernels.form import Form, Job, Overlap


class Choice(Form):
    """The form of that place; all are computed, and one is taken."""

    forms: tuple[Form, ...] = ()
    place: Number = number(units.ONE, "which of the forms", 0.0, COUNT, role="choice")

    def seconds(self, job: Job) -> Number:
        found, *others = (form.seconds(job) for form in self.forms)
        for place, other in enumerate(others, 1):
            found = jnp.where(self.place == place, other, found)
        return found


def alike(forms: Sequence[Form | None]) -> list[Form | None]:
    """The forms, where they are of different structure as choices of one structure; None stands for an ideal one."""
    if all(form is None for form in forms):
        return list(forms)
    whole = [Overlap() if form is None else form for form in forms]
    kinds = {jax.tree.structure(form): form for form in whole}
    if len(kinds) == 1:
        return list(whole)
    places = list(kinds)

    def choice(form: Form) -> Choice:
        own = jax.tree.structure(form)
        return Choice(tuple(form if kind == own else kinds[kind] for kind in places), places.index(own))

    return [choice(form) for form in whole]


def chosen(forms: Sequence[Form], place: Number) -> Form:
    """The form of a place that may be traced: constants are taken where the forms are of one structure."""
    if len(forms) == 1:
        return forms[0]
    if len({jax.tree.structure(form) for form in forms}) > 1:
        return Choice(tuple(forms), place)

    def pick(first: Number, *others: Number) -> Number:
        for at, other in enumerate(others, 1):
            first = jnp.where(place == at, other, first)
        return first

    return jax.tree.map(pick, *forms)
