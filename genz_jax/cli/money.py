"""Options of the commands that know costs, and the cost model that they ask for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from genz_jax.machine.cost import CostModel

Node = Annotated[str, typer.Option("--node", metavar="NAME", help="Process node: 7nm, 5nm or 3nm.", show_default=True)]
Memory = Annotated[
    str, typer.Option("--memory", metavar="NAME", help="Memory: hbm2e, hbm3, hbm3e or hbm4.", show_default=True)
]
Constants = Annotated[
    list[str] | None,
    typer.Option(
        "--constant",
        metavar="NAME=VALUE",
        help="Change a constant of the cost model, such as gross_margin=0. May be repeated.",
    ),
]


def pairs(option: str, texts: Sequence[str] | None) -> dict[str, str]:
    """Names and values of an option that is repeated.

    Raises:
        ValueError: not NAME=VALUE, or a name twice.
    """
    found: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name or not value:
            raise ValueError(f"{option} {text!r}: must be NAME=VALUE")
        if name in found:
            raise ValueError(f"{option} {name!r}: given twice; give it once")
        found[name] = value
    return found


def read_cost_model(node: str, memory: str, constants: Sequence[str] | None) -> "CostModel":
    """The cost model of a node and memory with changed constants."""
    from genz_jax import CostModel

    return CostModel.preset(node, memory).replace(**pairs("--constant", constants))
