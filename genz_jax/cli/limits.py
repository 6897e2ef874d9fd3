"""The option of service level objectives, which several commands have."""

from collections.abc import Sequence
from typing import Annotated

import typer

Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--slo",
        metavar="NAME=LIMIT",
        help="A limit: ttft, tpot, e2e (at most), throughput, interactivity (at least), such as tpot=20ms. "
        "May be repeated.",
    ),
]


def read_limits(texts: Sequence[str] | None) -> dict[str, str]:
    """Limits of a service level objective by name, as text.

    Raises:
        ValueError: not NAME=LIMIT, no such limit, or one given twice.
    """
    from genz_jax.base.fields import near
    from genz_jax.cli import money
    from genz_jax.serving.slo import CEILINGS, FLOORS

    limits = money.pairs("--slo", texts)
    for name in limits:
        if name not in CEILINGS | FLOORS:
            raise ValueError(f"--slo {name!r}: no such limit{near(name, CEILINGS | FLOORS)}")
    return limits
