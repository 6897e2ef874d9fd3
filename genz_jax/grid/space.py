"""Space: a case with axes, the names of its parts and the grid that they span, as every question walks it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from genz_jax.grid.shape import Blocking, Dims, axis_order
from genz_jax.grid.walk import gather, plan, variables
from genz_jax.labelled import labels
from genz_jax.labelled.inputs import read_case
from genz_jax.labelled.labels import Grid
from genz_jax.serving.evaluate import Case, Question

if TYPE_CHECKING:
    import xarray as xr


@dataclasses.dataclass(frozen=True)
class Space:
    """Points to look at.

    Attributes:
        case: the specs, whose axes all have dimensions.
        names: what its parts are called.
        known: the dimensions and coordinates, where they are known.
    """

    case: Case
    names: dict[str, str]
    known: Grid | None = None

    @classmethod
    def of(cls, case: Case, names: dict[str, str]) -> "Space":
        """The space of a case, whose axes get dimensions.

        Raises:
            ValueError: arrays that are no axes, or axes that do not go together.
        """
        labels.refuse_bare_arrays(case)
        return cls(labels.name_axes(case), names)

    @functools.cached_property
    def grid(self) -> Grid:
        """Dimensions and coordinates."""
        return labels.read_grid(self.case) if self.known is None else self.known

    @property
    def sizes(self) -> dict[str, int]:
        """Lengths of the dimensions."""
        return self.grid.sizes

    @property
    def points(self) -> int:
        """Number of points."""
        return self.grid.points

    @functools.cached_property
    def order(self) -> Dims:
        """Dimensions from slow to fast."""
        return axis_order(self.case, self.sizes)

    def evaluate(
        self,
        function: Callable[[Any], Any],
        question: Question,
        progress: bool,
        limits: Blocking | None = None,
        quick: bool | None = None,
    ) -> "xr.Dataset":
        """The results of a function at every point, block by block.

        Args:
            function: from a case of arrays to a `Result`, point by point; the same object for the same function.
            question: what is asked, for the metadata.
            progress: show a progress bar when it takes more than two seconds.
            limits: how large blocks are; by default as the device asks for.
            quick: whether to compile quickly; by default where there are few points.

        Raises:
            MemoryError: the results would not fit.
        """
        found = self.variables(function, progress, limits, quick)
        return labels.to_dataset(found, self.grid, self.case, self.names, question)

    def variables(
        self,
        function: Callable[[Any], Any],
        progress: bool,
        limits: Blocking | None = None,
        quick: bool | None = None,
    ) -> dict[str, tuple[Any, Dims, dict[str, Any]]]:
        """The same as arrays with just the dimensions that they depend on: (array, dims, metadata) by name."""
        planned = plan(function, self.case, self.sizes, self.order, limits=limits, quick=quick)
        result, dims = gather(planned, progress)
        return variables(result, dims, self.order)


def read_space(*specs: Any, **options: Any) -> Space:
    """The space of what a person gives; arguments and errors are those of `labelled.inputs.read_case`."""
    return Space.of(*read_case(*specs, **options))
