"""Factored: a function of many axes as terms, each on the axes that it depends on, and what joins them.

What an operator asks for depends on the workload's axes, the time of each resource on these and one of the platform's;
only the roofline joins them. A function is traced once, for axes of length two, which shows what each of its operations
depends on. Those on few points are computed for a whole region of the grid; the others, block by block, read them. What
the function asks for several times is computed once, which is most of a derivative by several parameters.
"""

import functools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Literal

from genz_jax.base.caches import Compiled

Axes = frozenset[int]
"""Places of the dimensions that a value depends on."""

SHARE = 64
"""A value is a term if the whole has at least that many times its points."""

ELEMENTWISE = frozenset(
    "abs add add_any and ceil clamp convert_element_type copy div eq exp exp2 expm1 floor ge gt integer_pow is_finite "
    "le log log1p logistic lt max min mul ne neg nextafter not or pow reduce_precision rem round rsqrt select_n sign "
    "sqrt square sub tanh xor".split()
)
"""Operations that take any shapes that broadcast together."""

MOVES = ("broadcast_in_dim", "reshape", "squeeze")
"""Operations that move the dimensions of one value."""

ALIASES = ("optimization_barrier", "stop_gradient")
"""Operations that change no value."""

INLINED = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}
"""Calls, and the name under which they hold what they call."""


class Unfit(Exception):
    """The function has an operation that is not element by element."""


class Operation:
    """One operation: its inputs and its output are places among the values of a program, or constants."""

    def __init__(self, eqn: Any, inputs: list[Any], output: int):
        self.primitive, self.params, self.inputs, self.output = eqn.primitive, dict(eqn.params), inputs, output
        self.needs = {place for place in inputs if isinstance(place, int)}

    def run(self, values: Sequence[Any]) -> Any:
        """The output for inputs of any shapes that broadcast together."""
        shape = np.broadcast_shapes(*(value.shape for value in values))
        return self.primitive.bind(*(_to_shape(value, shape) for value in values), **self.params)


class Move(Operation):
    """One value with its dimensions at other places, along which it is not lengthened.

    Attributes:
        rank: dimensions of the output.
        places: each dimension of the input that may be longer than 1, and its place in the output.
    """

    def __init__(self, eqn: Any, inputs: list[Any], output: int):
        super().__init__(eqn, inputs, output)
        before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
        self.rank = len(after)
        if eqn.primitive.name == "broadcast_in_dim":
            self.places = list(enumerate(eqn.params["broadcast_dimensions"]))
            return
        long = [[place for place, n in enumerate(shape) if n > 1] for shape in (before, after)]
        if [before[place] for place in long[0]] != [after[place] for place in long[1]]:
            raise Unfit(eqn.primitive.name)
        self.places = list(zip(*long, strict=True))

    def run(self, values: Sequence[Any]) -> Any:
        """The output for an input of any lengths."""
        shape = [1] * self.rank
        for place, moved in self.places:
            shape[moved] = values[0].shape[place]
        return values[0] if values[0].shape == tuple(shape) else lax.reshape(values[0], shape)


def _to_shape(value: Any, shape: tuple[int, ...]) -> Any:
    if value.shape == shape:
        return value
    first = len(shape) - value.ndim
    return lax.broadcast_in_dim(value, shape, range(first, len(shape)))


class Constant:
    """A value that is known when the function is traced; equal ones are the same."""

    def __init__(self, value: Any):
        self.value = np.asarray(value)
        self._key = (self.value.dtype, self.value.shape, self.value.tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


class Program:
    """A function as a list of element-wise operations.

    Attributes:
        axes: what each value depends on.
        inputs: how many of the first values are the function's arguments.
        outputs: places of the results, or constants.
        structure: tree of the results.
        shapes: the results' shapes for axes of length two, and types, as a tree.
    """

    def __init__(self, function: Callable[[Any], Any], example: Any):
        closed, self.shapes = jax.make_jaxpr(function, return_shape=True)(example)
        self.structure = jax.tree.structure(self.shapes)
        self._splits: dict[frozenset[Axes], Split] = {}
        self.operations: list[Operation] = []
        self._places: dict[Any, int] = {}
        self.axes: list[Axes] = [_axes(var.aval.shape) for var in closed.jaxpr.invars]
        self.inputs = len(self.axes)
        arguments: list[Any] = list(range(self.inputs))
        self.outputs = self._inline(closed.jaxpr, [Constant(c) for c in closed.consts], arguments)
        self._places.clear()

    def _inline(self, jaxpr: Any, consts: list[Any], arguments: list[Any]) -> list[Any]:
        known: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        known |= dict(zip(jaxpr.invars, arguments, strict=True))

        def of(atom: Any) -> Any:
            return Constant(atom.val) if isinstance(atom, Literal) else known[atom]

        for eqn in jaxpr.eqns:
            name, inputs = eqn.primitive.name, [of(atom) for atom in eqn.invars]
            if name in INLINED:
                inner = eqn.params[INLINED[name]]
                outputs = self._inline(inner.jaxpr, [Constant(c) for c in inner.consts], inputs)
            elif name in ALIASES:
                outputs = inputs
            elif name in ELEMENTWISE or name in MOVES:
                outputs = [self._add(eqn, inputs)]
            else:
                raise Unfit(name)
            known |= dict(zip(eqn.outvars, outputs, strict=True))
        return [of(atom) for atom in jaxpr.outvars]

    def _add(self, eqn: Any, inputs: list[Any]) -> int:
        """The place of the output of an operation, which may have been done before."""
        key = (eqn.primitive, tuple(sorted(eqn.params.items())), tuple(inputs), eqn.outvars[0].aval.shape)
        try:
            return self._places[key]
        except KeyError:
            place = len(self.axes)
        made: Operation = Move(eqn, inputs, place) if eqn.primitive.name in MOVES else Operation(eqn, inputs, place)
        self.operations.append(made)
        self.axes.append(frozenset().union(*(self.axes[place] for place in made.needs)))
        self._places[key] = place
        return place

    def split(self, terms: frozenset[Axes]) -> "Split":
        """The program in two, where values that depend on one of those sets of axes are terms."""
        if terms not in self._splits:
            self._splits[terms] = Split(self, terms)
        return self._splits[terms]

    def sets(self) -> set[Axes]:
        """All sets of axes that values depend on."""
        return set(self.axes)


def _axes(shape: tuple[int, ...]) -> Axes:
    return frozenset(place for place, n in enumerate(shape) if n > 1)


class Split:
    """A program in two: terms, and what joins them.

    Attributes:
        crossing: places of the values that are terms and that the rest needs.
        axes: what each of these depends on.
    """

    def __init__(self, program: Program, terms: frozenset[Axes]):
        self.program = program
        live = {place for place in program.outputs if isinstance(place, int)}
        needed = []
        for operation in reversed(program.operations):
            if operation.output in live:
                live |= operation.needs
                needed.append(operation)
        made_late: set[int] = set()
        self.early, self.late = [], []
        for operation in reversed(needed):
            # An operation on few points may still need one on many.
            late = program.axes[operation.output] not in terms or operation.needs & made_late
            made_late |= {operation.output} if late else set()
            (self.late if late else self.early).append(operation)
        used = {place for operation in self.late for place in operation.needs}
        used |= {place for place in program.outputs if isinstance(place, int)}
        self.crossing = sorted(used - made_late)
        self.axes = [program.axes[place] for place in self.crossing]
        self.terms, self.joined = Compiled(self._terms), Compiled(self.join)

    def _terms(self, arguments: Any) -> list[Any]:
        values = dict(enumerate(jnp.asarray(leaf, jnp.result_type(float)) for leaf in jax.tree.leaves(arguments)))
        _run(self.early, values)
        return [values[place] for place in self.crossing]

    def join(self, crossing: Sequence[Any]) -> Any:
        """The results of the function from the terms, of any shapes that broadcast together."""
        values = dict(zip(self.crossing, crossing, strict=True))
        _run(self.late, values)
        outputs = [place.value if isinstance(place, Constant) else values[place] for place in self.program.outputs]
        return jax.tree.unflatten(self.program.structure, [jnp.asarray(out) for out in outputs])


def _run(operations: Sequence[Operation], values: dict[int, Any]) -> None:
    for operation in operations:
        inputs = [place.value if isinstance(place, Constant) else values[place] for place in operation.inputs]
        values[operation.output] = operation.run([jnp.asarray(value) for value in inputs])


def region_of(program: Program, sizes: Sequence[int], block: Sequence[int], held: int) -> tuple[Split, tuple[int, ...]]:
    """How a grid is split: what are terms, and the lengths of the regions for which they are computed at once.

    Args:
        program: the function.
        sizes: lengths of the grid, from slow to fast.
        block: lengths of a block.
        held: numbers that the terms of a region may have.

    Returns:
        The split, and the lengths of a region: multiples of a block's, or those of the grid.
    """
    region = [math.ceil(n / b) * b for n, b in zip(sizes, block, strict=True)]
    while True:
        whole = math.prod(region)
        terms = frozenset(axes for axes in program.sets() if math.prod(region[i] for i in axes) * SHARE <= whole)
        split = program.split(terms)
        if sum(math.prod(region[i] for i in axes) for axes in split.axes) <= held:
            return split, tuple(region)
        longer = [i for i, n in enumerate(region) if n > block[i]]
        if not longer:
            return split, tuple(region)
        place = longer[0]
        region[place] = max(math.ceil(region[place] / block[place] / 2), 1) * block[place]


@functools.lru_cache(maxsize=32)
def program_of(function: Callable[[Any], Any], structure: Any, axes: tuple[Any, ...], key: Hashable) -> Program | None:
    """The program of a function, traced once; None if it is not element by element.

    Args:
        function: from a tree of arrays to a tree of arrays.
        structure: tree of its argument.
        axes: shape of each leaf for axes of length two.
        key: what else the trace depends on, such as the number format.
    """
    del key
    dtype = jnp.result_type(float)
    example = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(shape, dtype) for shape in axes])
    try:
        return Program(function, example)
    except Unfit:
        return None
